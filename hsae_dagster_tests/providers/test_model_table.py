"""Prices and quirks: dated, overridable, never invented."""

import datetime
from pathlib import Path

import pytest
import yaml

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.requests import Asker, Server
from hsae_dagster.providers.replies import BUILT_IN, SETTING, UNKNOWN_THINKING, Usage, profile_of

REFERENCE_MODELS = ["gpt-4o", "gpt-4o-mini", "gpt-5.2", "gpt-5-mini"]


def test_the_table_is_dated_and_says_where_from() -> None:
    table = yaml.safe_load(BUILT_IN.read_text(encoding="utf-8"))
    assert isinstance(table["as_of"], datetime.date)
    assert table["source"].startswith("https://")
    for name in table["models"]:
        assert profile_of(name, {}).priced, name


@pytest.mark.parametrize("model", [*REFERENCE_MODELS, "text-embedding-3-small", "text-embedding-3-large"])
def test_the_references_models_are_known_by_name(model: str) -> None:
    assert profile_of(model, {}).priced
    assert profile_of(f"{model}-2025-08-07", {}) == profile_of(model, {})


def test_costs_of_fresh_cached_and_written_tokens() -> None:
    mini = profile_of("gpt-4o-mini", {})
    usage = Usage(input=1_000_000, cached=400_000, output=100_000)
    assert mini.cost(usage) == pytest.approx(0.6 * 0.15 + 0.4 * 0.075 + 0.1 * 0.60)
    assert mini.cost(usage, "batch") == pytest.approx(mini.cost(usage) / 2)  # type: ignore[operator]


def test_an_unknown_model_has_no_price_and_room_to_think() -> None:
    unknown = profile_of("my-own", {})
    assert unknown.cost(Usage(1000, 0, 1000)) is None
    assert unknown.thinking_tokens == UNKNOWN_THINKING


def test_a_users_table_adds_and_replaces(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("models: {my-own: {input: 1, output: 2}, gpt-5-mini: {output: 9}}", encoding="utf-8")
    environment = {SETTING: str(own)}
    assert profile_of("my-own", environment).cost(Usage(1_000_000, 0, 1_000_000)) == 3.0
    changed = profile_of("gpt-5-mini", environment)
    assert (changed.output, changed.input, changed.temperature) == (9, 0.25, False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models: {m: {input: -1, output: 1}}", "model `m`: input"),
        ("models: {m: {inptu: 1}}", "model `m`: inptu"),
        ("models: [m]", "models"),
        ("modles: {}", "models"),
        ("{", "line 1"),
        (None, "No such file"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_sentence(tmp_path: Path, text: str | None, problem: str) -> None:
    own = tmp_path / "own.yaml"
    if text is not None:
        own.write_text(text, encoding="utf-8")
    with pytest.raises(ProviderError) as error:
        profile_of("m", {SETTING: str(own)})
    for part in (str(own), problem, SETTING, "USD per million tokens"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("model", "url", "expected"),
    [
        ("gpt-4o-mini", "https://api.openai.com/v1", {"max_completion_tokens": 10, "temperature": 0.0}),
        ("gpt-4o-mini", "http://127.0.0.1/v1", {"max_tokens": 10, "temperature": 0.0}),
        (
            "my-own",
            "http://127.0.0.1/v1",
            {"max_tokens": 10 + UNKNOWN_THINKING, "temperature": 0.0},
        ),
    ],
)
def test_settings_fit_model_and_server(model: str, url: str, expected: dict[str, object]) -> None:
    assert OpenAIClient(Asker("f", model, "lexical"), Server(url)).settings(10, 0.0) == expected


def test_a_reasoning_model_gets_an_effort_and_refuses_a_temperature() -> None:
    client = OpenAIClient(Asker("annotation.model", "gpt-5-mini", "lexical"), Server())
    assert client.settings(10) == {"max_completion_tokens": 10 + 4096, "reasoning_effort": "low"}
    with pytest.raises(ProviderError, match=r"`annotation\.model: openai:gpt-5-mini`: this model takes no temperature"):
        client.settings(10, 0.7)
