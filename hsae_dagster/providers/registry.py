"""From the name of a model in dataset.yaml to the provider that asks it; `lexical`, and model files run here."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hsae_dagster.core.concepts.claims import Closeness, Concept, judge, meaning_of
from hsae_dagster.dataset.spec import Annotation, Embedding, Interpretation
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.base import Annotations, AnnotationTask, Annotator, Embedder, Interpreter, Labelled, Report
from hsae_dagster.providers.openai.server import Server
from hsae_dagster.providers.spending import Account, Estimate

AUTHOR = "lexical"


class LexicalAnnotator:
    """Judges claims by executing what they say."""

    free = True
    prompt_hash = None

    def __init__(self, closeness: Closeness | None = None) -> None:
        """Take what measures how close units are to quoted sentences; only such claims need it."""
        self.closeness = closeness

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Exact answers; raises MethodError for a concept that is a phrase only a reader can judge."""
        meanings = [meaning_of(concept.definition) for concept in concepts]
        report(f"{len(texts):,} texts judged by {len(meanings)} claims as they read")
        return Annotations(answers=judge(meanings, texts, self.closeness))

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        """Nothing: no model is asked."""
        return Estimate()

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for each task."""
        return [self.annotate(task.concepts, task.texts, report) for task in tasks]


CONTEXT, SLOTS = 8192, 2
# Whatever it is running on, the same file gives the same answers under the same name.
PLACE = "local"


def local_server(field: str, path: Path, timeout: float = 900.0) -> Server:
    """The server of a GGUF file, started where it does not run yet; it ends with this process.

    Args:
        field: of dataset.yaml, for error messages.
        path: the file.
        timeout: seconds without a byte before a try counts as lost.

    Raises:
        ProviderError: no such file, no runtime, or it cannot be loaded.
    """
    if not path.is_file():
        raise ProviderError(
            f"`{field}` names the model file {path}, which is not there. Give the path of a .gguf file."
        )
    try:
        running = _start(path.resolve())
    except ImportError:
        raise ProviderError(
            f"`{field}` runs a model in this process, which needs a further package: pip install xllamacpp."
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise ProviderError(f"`{field}`: {path} cannot be loaded: {error}. Give a whole .gguf file.") from error
    return Server(
        base_url=f"{running.listening_address}/v1",
        concurrency=SLOTS,
        timeout=timeout,
        identity=f"{PLACE}/{_digest(path.resolve())}",
    )


def local_identity(path: Path) -> str:
    """The name under which answers of a file are kept."""
    return f"{PLACE}/{_digest(path.resolve())}"


@cache
def _start(path: Path) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.port = CONTEXT * SLOTS, SLOTS, 0
    parameters.n_gpu_layers, parameters.verbosity = 0, 0
    # Its threads wait for each other at every layer: one that has no core holds up all.
    parameters.cpuparams.n_threads = max((os.cpu_count() or 2) - 1, 1)
    return xllamacpp.Server(parameters)


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:16]


OPENAI = "`openai:<model>` (any OpenAI-compatible server)"
EMBEDDERS = f"`minilm` (bundled, offline) or {OPENAI}, such as `openai:text-embedding-3-small`"
READERS = f"`lexical` (offline), {OPENAI}, such as `openai:gpt-5-mini`, or `local:<file.gguf>` (run in this process)"


def make_embedder(spec: Embedding, account: Account | None = None) -> Embedder:
    """The embedder that `embedding.model` names. A missing key is noticed when it first embeds.

    Raises:
        ProviderError: no such embedder, or `dimensions` for one that has no choice.
    """
    if spec.model == "minilm":
        from hsae_dagster.providers.minilm import DIMENSIONS, MiniLM

        if spec.dimensions not in (None, DIMENSIONS):
            raise ProviderError(
                f"`embedding.dimensions` is {spec.dimensions}, but `minilm` always gives {DIMENSIONS}. Remove it."
            )
        return MiniLM(max_tokens=spec.max_tokens)
    model = _openai_model("embedding.model", spec.model, EMBEDDERS)
    from hsae_dagster.providers.openai.embedder import OpenAIEmbedder
    from hsae_dagster.providers.openai.server import server_of

    return OpenAIEmbedder(
        model,
        server=server_of(spec.server, "embedding.server", _environment(account)),
        account=account,
        max_tokens=spec.max_tokens,
        dimensions=spec.dimensions,
    )


def make_interpreter(spec: Interpretation, account: Account | None = None, *, asks: bool = True) -> Interpreter:
    """The language model that `interpretation.model` names; the offline way is no interpreter (`stages.claims`).

    Raises:
        ProviderError: no such interpreter, or its key is missing although it `asks` (a stage works for minutes before).
    """
    from hsae_dagster.providers.openai.readers import OpenAIInterpreter

    model, server, provider = _reader("interpretation", spec, account, asks=asks)
    interpreter = OpenAIInterpreter(
        model,
        server=server,
        account=account,
        temperature=spec.temperature,
        effort=spec.effort,
        provider=provider,
        prompt=spec.prompt,
        revision_prompt=spec.revision_prompt,
    )
    if asks:
        interpreter.client.require_key()
    return interpreter


def make_annotator(
    spec: Annotation,
    account: Account | None = None,
    *,
    asks: bool = True,
    closeness: Closeness | None = None,
    examples: Labelled | None = None,
) -> Annotator:
    """The annotator that `annotation.model` names.

    Args:
        spec: its declaration.
        account: that paid models charge.
        asks: whether it will be asked, or only described.
        closeness: of units with quoted sentences, for the offline one.
        examples: texts that people labelled, shown to a language model.

    Raises:
        ProviderError: no such annotator, or its key is missing although it `asks`.
    """
    if spec.model == "lexical":
        return LexicalAnnotator(closeness)
    from hsae_dagster.providers.openai.readers import OpenAIAnnotator

    model, server, provider = _reader("annotation", spec, account, asks=asks)
    annotator = OpenAIAnnotator(
        model,
        server=server,
        account=account,
        temperature=spec.temperature,
        effort=spec.effort,
        provider=provider,
        concepts_per_call=spec.concepts_per_call,
        max_words=spec.max_words,
        prompt=spec.prompt,
        examples=examples,
    )
    if asks:
        annotator.client.require_key()
    return annotator


def _environment(account: Account | None) -> Mapping[str, str]:
    return account.environment if account else os.environ


def _reader(
    section: str, spec: Interpretation | Annotation, account: Account | None, *, asks: bool
) -> tuple[str, "Server", str]:
    """Name, server and provider of a language model that writes or judges."""
    from hsae_dagster.providers.openai.server import Server, server_of

    field = f"{section}.model"
    provider, _, named = spec.model.partition(":")
    if provider != "local":
        server = server_of(spec.server, f"{section}.server", _environment(account))
        return _openai_model(field, spec.model, READERS), server, "openai"
    path = Path(named.strip()).expanduser()
    if asks:
        return path.name, local_server(field, path, spec.server.timeout or 900.0), provider
    return path.name, Server(identity=local_identity(path) if path.is_file() else f"local/{path.name}"), provider


def _openai_model(field: str, value: str, choices: str) -> str:
    """The <model> of `openai:<model>`."""
    provider, colon, model = value.partition(":")
    if provider != "openai" or not colon or not model.strip():
        raise ProviderError(f"`{field}` is `{value}`, and there is no such model. Write {choices}.")
    return model.strip()
