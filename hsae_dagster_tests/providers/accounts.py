"""Accounts and price tables for tests of what is asked and paid."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hsae_dagster.dataset.spec import Annotation, Interpretation
from hsae_dagster.providers.base import Labelled
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.embedder import OpenAIEmbedder
from hsae_dagster.providers.openai.prompts import json_request
from hsae_dagster.providers.openai.readers import OpenAIAnnotator, OpenAIInterpreter
from hsae_dagster.providers.openai.requests import Asker, Body, Server
from hsae_dagster.providers.spending import Account, Entry, Ledger, as_row
from hsae_dagster_tests.providers.loopback import Loopback

ASKER = Asker("annotation.model", "scripted-1", "lexical")


def account(root: Path, **changes: Any) -> Account:
    """An account of dataset `d` with a ledger under `root`."""
    return Account(Ledger(root), **{"dataset": "d", "stage": "annotation_matrix", "run_id": "run-1", **changes})


_FOLDERS: list[TemporaryDirectory[str]] = []


def spare() -> Account:
    """An account with a ledger of its own, which goes with this process."""
    _FOLDERS.append(TemporaryDirectory())
    return account(Path(_FOLDERS[-1].name))


def judge(
    model: str, spec: Annotation, server: Server, account: Account | None = None, examples: Labelled | None = None
) -> OpenAIAnnotator:
    return OpenAIAnnotator(OpenAIClient(Asker("annotation.model", model, "lexical"), server, account), spec, examples)


def interpreter(model: str, spec: Interpretation, server: Server, account: Account | None = None) -> OpenAIInterpreter:
    return OpenAIInterpreter(OpenAIClient(Asker("interpretation.model", model, "lexical"), server, account), spec)


def embedder(model: str, server: Server, account: Account | None = None, **changes: int) -> OpenAIEmbedder:
    return OpenAIEmbedder(OpenAIClient(Asker("embedding.model", model, "minilm"), server, account), **changes)


def keep(root: Path, *entries: Entry) -> None:
    """Have a ledger hold these answers."""
    Ledger(root).write([(as_row(entry), None) for entry in entries])


def priced(root: Path, model: str = "scripted-1", **fields: Any) -> None:
    """A table of models that knows `model`; the test's `environment` fixture takes it back."""
    known = {"input": 1000.0, "cached_input": 100.0, "output": 4000.0, **fields}
    lines = ", ".join(f"{name}: {str(value).lower()}" for name, value in known.items())
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"models-{abs(hash(lines))}.yaml"
    path.write_text(f"models:\n  {model}: {{{lines}}}\n", encoding="utf-8")
    os.environ["HSAE_MODELS"] = str(path)


def client(loopback: Loopback, asked_by: Account, **changes: Any) -> OpenAIClient:
    return OpenAIClient(ASKER, loopback.server(**changes), asked_by)


def body(text: str, max_tokens: int | None = 5) -> Body:
    limit = {"max_tokens": max_tokens} if max_tokens else {}
    return json_request("scripted-1", [{"role": "user", "content": text}], "answer", {"type": "object"}, limit)


def silence(line: str) -> None:
    """Ignore progress."""


def echo(request: Body, call: int) -> dict[str, str]:
    return {"said": request["messages"][0]["content"]}
