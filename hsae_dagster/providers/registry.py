"""From the name of a model in dataset.yaml to the provider that asks it.

Belongs here: the choice, and the error for a name that is none of them. Does not belong here: any provider; each is
imported only when chosen, so that loading a code location loads no model library.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.core.concepts.claims import Closeness
from hsae_dagster.dataset.spec import Annotation, Embedding, Interpretation
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Annotator, Embedder, Interpreter

if TYPE_CHECKING:
    from hsae_dagster.providers.openai_server import Server

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
    from hsae_dagster.providers.openai_embedder import OpenAIEmbedder
    from hsae_dagster.providers.openai_server import server_of

    return OpenAIEmbedder(
        model,
        server=server_of(spec.server, "embedding.server", _environment(account)),
        account=account,
        max_tokens=spec.max_tokens,
        dimensions=spec.dimensions,
    )


def make_interpreter(spec: Interpretation, account: Account | None = None, *, asks: bool = True) -> Interpreter:
    """The language model that `interpretation.model` names; the offline way is no interpreter (`assets.found_claims`).

    Raises:
        ProviderError: no such interpreter, or its key is missing although it `asks` (a stage works for minutes before).
    """
    from hsae_dagster.providers.openai_interpreter import OpenAIInterpreter

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
    spec: Annotation, account: Account | None = None, *, asks: bool = True, closeness: Closeness | None = None
) -> Annotator:
    """The annotator that `annotation.model` names.

    Args:
        spec: its declaration.
        account: that paid models charge.
        asks: whether it will be asked, or only described.
        closeness: of units with quoted sentences, for the offline one.

    Raises:
        ProviderError: no such annotator, or its key is missing although it `asks`.
    """
    if spec.model == "lexical":
        from hsae_dagster.providers.lexical import LexicalAnnotator

        return LexicalAnnotator(closeness)
    from hsae_dagster.providers.openai_annotator import OpenAIAnnotator

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
    from hsae_dagster.providers.openai_server import Server, server_of

    field = f"{section}.model"
    provider, _, named = spec.model.partition(":")
    if provider != "local":
        server = server_of(spec.server, f"{section}.server", _environment(account))
        return _openai_model(field, spec.model, READERS), server, "openai"
    from hsae_dagster.providers.local_server import local_identity, local_server

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
