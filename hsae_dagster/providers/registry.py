"""From the name of a model in dataset.yaml to the provider that asks it; `lexical`, and model files run here."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from hsae_dagster.core.concepts.claims import Closeness, Concept, judge, meaning_of
from hsae_dagster.dataset.spec import Annotation, Embedding, Interpretation
from hsae_dagster.errors import ProviderError
from hsae_dagster.extensions import Own, Registry
from hsae_dagster.keys import EmbeddingSet, hash_json
from hsae_dagster.providers.base import (
    Annotations,
    Annotator,
    Embedder,
    InterpretationRequest,
    Interpreter,
    Labelled,
    Report,
)
from hsae_dagster.providers.minilm import DIMENSIONS, MiniLM
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.embedder import OpenAIEmbedder
from hsae_dagster.providers.openai.readers import OpenAIAnnotator, OpenAIInterpreter
from hsae_dagster.providers.openai.requests import Asker, Server, server_of
from hsae_dagster.providers.spending import Account

AUTHOR = "lexical"


class LexicalAnnotator(Annotator):
    """Judges claims by executing what they say."""

    free, prompt_hash = True, None

    def __init__(self, closeness: Closeness | None = None) -> None:
        """Take what measures how close units are to quoted sentences; only such claims need it."""
        self.closeness = closeness

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Exact answers; raises MethodError for a concept that is a phrase only a reader can judge."""
        meanings = [meaning_of(concept.definition) for concept in concepts]
        report(f"{len(texts):,} texts judged by {len(meanings)} claims as they read")
        return Annotations(answers=judge(meanings, texts, self.closeness))


CONTEXT, SLOTS = 8192, 2


def local_server(field: str, path: Path, timeout: float) -> Server:
    """The server of a GGUF file, started where it does not run yet; it ends with this process.

    `field` of dataset.yaml is for errors; after `timeout` seconds without a byte a try counts as lost.

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
    return replace(_described(path), base_url=f"{running.listening_address}/v1", concurrency=SLOTS, timeout=timeout)


def _described(path: Path) -> Server:
    """The server of a file, as far as it is known without starting it: the name under which its answers are kept.

    Whatever it is running on, the same file gives the same answers under the same name.
    """
    return Server(identity=f"local/{_digest(path.resolve()) if path.is_file() else path.name}")


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


@dataclass(frozen=True)
class OwnEmbedder(Embedder):
    """A user's function from texts to vectors, which are scaled to unit length here."""

    own: Own

    @cached_property
    def embedding_set(self) -> EmbeddingSet:
        """Known by the function's source and the length of its vectors, for which a text is tried."""
        dimensions = self._vectors(["a text"]).shape[1]
        shape = {"own": self.own.path, "source": self.own.source, "dimensions": dimensions, "normalise": "l2"}
        return EmbeddingSet(model=self.own.path, dimensions=dimensions, set_id=hash_json(shape))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimensions) float32 of unit length; zeros stay zeros.

        Raises:
            ProviderError: the function fails, or returns something else than finite numbers, one row a text.
        """
        expected = self.embedding_set.dimensions
        if not len(texts):
            return np.empty((0, expected), np.float32)
        vectors = self._vectors(texts)
        if vectors.shape[1] != expected:
            raise self.own.wrong(f"{vectors.shape[1]} numbers for a text, and {expected} for another")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: np.ndarray = (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)
        return scaled

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        found = self.own(list(texts))
        try:
            vectors = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError):  # the last: a tensor that still has its gradient
            raise self.own.wrong(f"{type(found).__name__} that holds no rows of numbers") from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] < 2:
            raise self.own.wrong(f"an array of shape {vectors.shape} for {len(texts)} texts")
        if not np.isfinite(vectors).all():
            raise self.own.wrong("numbers that are missing or infinite")
        return vectors


def _minilm(spec: Embedding, account: Account | None) -> Embedder:
    if spec.dimensions not in (None, DIMENSIONS):
        raise ProviderError(
            f"`embedding.dimensions` is {spec.dimensions}, but `minilm` always gives {DIMENSIONS}. Remove it."
        )
    return MiniLM(max_tokens=spec.max_tokens)


def _openai_embedder(spec: Embedding, account: Account | None) -> Embedder:
    # Without key until it embeds: vectors made earlier can be read on a machine that has none.
    client = _client("embedding", spec, account, "minilm", asks=False)
    return OpenAIEmbedder(client, spec.max_tokens, spec.dimensions)


def _own_embedder(own: Own, spec: Embedding, account: Account | None) -> Embedder:
    unused = sorted({"dimensions", "max_tokens", "server"} & spec.model_fields_set)
    if unused:
        raise ProviderError(f"`embedding.{unused[0]}` has no effect on your own `{own.path}`. Remove it.")
    return OwnEmbedder(own)


# Make an embedder of its declaration, and of the account that a paid one charges.
EMBEDDERS: Registry[Callable[[Embedding, Account | None], Embedder]] = Registry(
    "embedding.model",
    {"minilm": _minilm, "openai:<model>": _openai_embedder},
    lambda own: partial(_own_embedder, own),
    "fn(texts: list[str]) -> (n, dimensions) numbers, the same for the same text",
    ProviderError,
)


def make_embedder(spec: Embedding, account: Account | None = None) -> Embedder:
    """The embedder that `embedding.model` names. A missing key is noticed when it first embeds.

    Raises:
        ProviderError: no such embedder, or fields that have no effect on it.
    """
    return EMBEDDERS.find(spec.model)(spec, account)


class OwnInterpreter(Interpreter):
    """A user's function from a request to phrases; it revises none. Its source stands for the prompt."""

    def __init__(self, own: Own) -> None:
        self.own, self.prompt_hash, self.faults = own, own.source, 0

    def interpret(self, request: InterpretationRequest, report: Report) -> list[list[Concept]]:
        """The function's phrases, at most as many for a neuron as were asked for."""
        found = self.own(request)
        neurons = request.codes.shape[1]
        if not isinstance(found, list | tuple) or len(found) != neurons:
            raise self.own.wrong(f"{type(found).__name__} that is no list of {neurons} lists")
        for phrases in found:
            if not isinstance(phrases, list | tuple) or not all(isinstance(each, str) and each for each in phrases):
                raise self.own.wrong(f"{phrases!r:.60} for a neuron")
        return [[Concept(phrase, self.own.path) for phrase in own[: request.candidates]] for own in found]


class OwnAnnotator(Annotator):
    """A user's function from claims and texts to answers. Its source stands for the prompt."""

    free = True

    def __init__(self, own: Own) -> None:
        self.own, self.prompt_hash = own, own.source

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """The function's answers.

        Raises:
            ProviderError: the function fails, or returns something else than 1, 0 and -1, a row for each text.
        """
        found = self.own([concept.predicate for concept in concepts], list(texts))
        try:
            answers = np.asarray(found).astype(np.float64)
        except (TypeError, ValueError, RuntimeError):
            raise self.own.wrong(f"{type(found).__name__} that holds no numbers") from None
        if answers.shape != (len(texts), len(concepts)):
            raise self.own.wrong(f"shape {answers.shape} for {len(texts)} texts and {len(concepts)} claims")
        if not np.isin(answers, (-1, 0, 1)).all():
            raise self.own.wrong("answers other than 1 (yes), 0 (no) and -1 (missing)")
        return Annotations(answers=answers.astype(np.int8))


def _no_interpreter(spec: Interpretation, account: Account | None, asks: bool) -> Interpreter:
    raise ProviderError("`interpretation.model` is `lexical`: claims are found offline, and no interpreter is asked.")


def _model_interpreter(spec: Interpretation, account: Account | None, asks: bool) -> Interpreter:
    return OpenAIInterpreter(_client("interpretation", spec, account, "lexical", asks=asks), spec)


def _own_interpreter(own: Own, spec: Interpretation, account: Account | None, asks: bool) -> Interpreter:
    if spec.revisions:
        raise ProviderError(f"`interpretation.revisions` has no effect on your own `{own.path}`. Remove it.")
    return OwnInterpreter(own)


def _model_annotator(
    spec: Annotation, account: Account | None, asks: bool, closeness: Closeness | None, examples: Labelled | None
) -> Annotator:
    return OpenAIAnnotator(_client("annotation", spec, account, "lexical", asks=asks), spec, examples)


# Make a reader of its declaration, the account that a paid one charges, and whether it will be asked.
INTERPRETERS: Registry[Callable[[Interpretation, Account | None, bool], Interpreter]] = Registry(
    "interpretation.model",
    {"lexical": _no_interpreter, "openai:<model>": _model_interpreter, "local:<file.gguf>": _model_interpreter},
    lambda own: partial(_own_interpreter, own),
    "fn(request: InterpretationRequest) -> a list of phrases for each neuron",
    ProviderError,
)
# The same, what measures how close units are to quoted sentences, and texts that people labelled.
ANNOTATORS: Registry[Callable[[Annotation, Account | None, bool, Closeness | None, Labelled | None], Annotator]] = (
    Registry(
        "annotation.model",
        {
            "lexical": lambda spec, account, asks, closeness, examples: LexicalAnnotator(closeness),
            "openai:<model>": _model_annotator,
            "local:<file.gguf>": _model_annotator,
        },
        lambda own: lambda spec, account, asks, closeness, examples: OwnAnnotator(own),
        "fn(claims: list[str], texts: list[str]) -> (texts, claims) of 1, 0 or -1 (no answer)",
        ProviderError,
    )
)


def make_interpreter(spec: Interpretation, account: Account | None = None, *, asks: bool = True) -> Interpreter:
    """The language model that `interpretation.model` names; the offline way is no interpreter (`stages.claims`).

    Raises:
        ProviderError: no such interpreter, or its key is missing although it `asks` (a stage works for minutes before).
    """
    return INTERPRETERS.find(spec.model)(spec, account, asks)


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
    return ANNOTATORS.find(spec.model)(spec, account, asks, closeness, examples)


def _client(
    section: str, spec: Embedding | Interpretation | Annotation, account: Account | None, offline: str, *, asks: bool
) -> OpenAIClient:
    """Who asks the model that a section of dataset.yaml names, with its key or running where it will be asked."""
    provider, _, model = (part.strip() for part in spec.model.partition(":"))
    if provider == "local":
        path = Path(model).expanduser()
        model = path.name
        server = local_server(f"{section}.model", path, spec.server.timeout or 900.0) if asks else _described(path)
    else:
        server = server_of(spec.server, f"{section}.server", account.environment if account else os.environ)
    client = OpenAIClient(Asker(f"{section}.model", model, offline, provider), server, account)
    if asks:
        client.require_key()
    return client
