"""Every answer is kept, nothing is asked twice, and several processes may write at once."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hsae_dagster.errors import ProviderError, StorageError
from hsae_dagster.providers.openai.requests import Body, Question
from hsae_dagster.providers.replies import Usage
from hsae_dagster.providers.spending import Entry, Ledger, Spent, total
from hsae_dagster.storage.records import CALLS, Records
from hsae_dagster_tests.providers.accounts import account, body, client, echo, keep, priced, silence
from hsae_dagster_tests.providers.loopback import KEY, Loopback, Raw, completion, failure
from hsae_dagster_tests.storage.test_holdouts import altered

pytestmark = pytest.mark.usefixtures("environment")


def entry(key: str, **changes: Any) -> Entry:
    fields = {
        "request_hash": key,
        "kind": "chat",
        "dataset": "d",
        "stage": "s",
        "run_id": "r",
        "server": "host/v1",
        "model": "m",
        "prompt_hash": "p",
        "sent_bytes": 300,
        "answer": '{"a": 1}',
        "parsed": '{"a": 1}',
        "reason": None,
        "usage": Usage(100, 10, 5),
        "cost_usd": 0.25,
        "tier": "standard",
    }
    return Entry(**{**fields, **changes})


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = entry("h1", answer="ä'\n\x00🙂", model_echo="m-2026", request_id="req'1", seconds=1.5)
    keep(tmp_path, kept)
    assert Ledger(tmp_path).find(["h1", "h2"], "host/v1", "m") == {"h1": kept}


def test_an_empty_ledger_knows_nothing(tmp_path: Path) -> None:
    empty = Ledger(tmp_path / "new")
    assert empty.find(["h"], "host/v1", "m") == {}
    assert empty.spent("d") == Spent()
    assert empty.experience("host/v1", "m", "p") is None
    assert not (tmp_path / "new").exists()


def test_the_first_answer_wins_whatever_the_order_of_rows(tmp_path: Path) -> None:
    first, second = entry("h", parsed='{"a": 1}'), entry("h", parsed='{"a": 2}')
    second = replace(second, created=first.created + 1)
    keep(tmp_path, second)
    keep(tmp_path, first)
    assert Ledger(tmp_path).find(["h"], "host/v1", "m")["h"] == first


@pytest.mark.parametrize("changes", [{"server": "other/v1"}, {"model": "m2"}, {"kind": "embeddings"}])
def test_another_server_model_or_kind_is_another_question(tmp_path: Path, changes: dict[str, str]) -> None:
    keep(tmp_path, entry("h", **changes))
    assert Ledger(tmp_path).find(["h"], "host/v1", "m") == {}


def test_what_a_dataset_spent_and_what_answers_teach(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    keep(tmp_path, entry("a"), entry("b", cost_usd=None), entry("c", dataset="it's"))
    assert ledger.spent("d") == Spent(2, 0.25, 1)
    assert ledger.spent("it's") == Spent(1, 0.25, 0)
    learned = ledger.experience("host/v1", "m", "p")
    assert learned is not None
    assert (learned.tokens_per_byte, learned.output_tokens) == (pytest.approx(1 / 3), 5)
    assert ledger.experience("host/v1", "m", None) is None
    assert total([0.25, None]) == Spent(2, 0.25, 1)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.providers.test_ledger import entry
for number in range(10):
    keep(Path(sys.argv[1]), *(entry(f"{sys.argv[2]}-{number}-{row}") for row in range(5)))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    keys = [f"{name}-{number}-{row}" for name in "abc" for number in range(10) for row in range(5)]
    assert set(Ledger(tmp_path).find(keys, "host/v1", "m")) == set(keys)
    assert Ledger(tmp_path).spent("d").calls == len(keys)


def test_the_key_of_a_request_is_its_whole_body_and_server() -> None:
    base = Question.of(body("a"), "host/v1").hash
    assert Question.of(dict(reversed(body("a").items())), "host/v1").hash == base
    changed = [{**body("a"), "temperature": 0.0}, {**body("a"), "model": "m2"}, body("b"), body("a", 6)]
    keys = {Question.of(other, "host/v1").hash for other in changed}
    assert len({base, Question.of(body("a"), "host/v2").hash, *keys}) == 6


def test_nothing_is_asked_twice_in_a_run_across_runs_and_datasets(tmp_path: Path) -> None:
    with Loopback(echo) as loopback:
        texts = [body(text) for text in ("a", "b", "a")]
        first = client(loopback, account(tmp_path)).ask_all(texts, silence)
        again = client(loopback, account(tmp_path, dataset="other", run_id="run-2")).ask_all(
            [*texts, body("c")], silence
        )
    assert [reply.value["said"] for reply in first] == ["a", "b", "a"]
    assert [reply.value["said"] for reply in again] == ["a", "b", "a", "c"]
    assert sorted(request["messages"][0]["content"] for request in loopback.bodies()) == ["a", "b", "c"]
    ledger = Ledger(tmp_path)
    assert (ledger.spent("d").calls, ledger.spent("other").calls) == (2, 1)


def test_a_refusal_is_an_answer_and_a_failed_request_is_none(tmp_path: Path) -> None:
    faults = {
        "refused": completion(None, refusal="no"),
        "empty": completion(""),
        "cut off": completion('{"said', finish_reason="length"),
        "no json": completion("yes"),
        "500": failure(500, "broken", retry_after_ms="1"),
        "400": failure(400, "too long"),
        "body": Raw(b"no json at all"),
        "reset": Raw(hang_up=True),
    }
    texts = [body(text) for text in [*faults, "fine"]]
    with Loopback(lambda request, call: faults.get(echo(request, call)["said"]) or echo(request, call)) as loopback:
        first = client(loopback, account(tmp_path), max_retries=0).ask_all(texts, silence)
        asked = len(loopback.calls)
        loopback.chat = echo
        second = client(loopback, account(tmp_path)).ask_all(texts, silence)
    assert [reply.fault is None for reply in first] == [True] * 4 + [False] * 4 + [True]
    assert [reply.reason for reply in second[:4]] == [reply.reason for reply in first[:4]]
    assert all(second[:4])
    assert [reply.value and reply.value["said"] for reply in second[4:]] == ["500", "400", "body", "reset", "fine"]
    assert len(loopback.calls) - asked == 4


def test_a_row_says_who_asked_what_it_cost_and_when(tmp_path: Path) -> None:
    priced(tmp_path)
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 400}}
    answer = completion('{"said": "x"}')
    answer = Raw({**answer.body, "usage": usage}, headers={"X-Request-ID": "req-7"})
    with Loopback(lambda request, call: answer) as loopback:
        asked_by = account(tmp_path)
        found = client(loopback, asked_by)
        found.ask_all([body("a")], silence, prompt_hash="p1")
    (kept,) = (
        Ledger(tmp_path)
        .find([Question.of(body("a"), found.server.endpoint).hash], found.server.endpoint, "scripted-1")
        .values()
    )
    assert (kept.dataset, kept.stage, kept.run_id, kept.prompt_hash) == ("d", "annotation_matrix", "run-1", "p1")
    assert (kept.usage, kept.model_echo, kept.request_id) == (Usage(1000, 400, 10), "scripted-1", "req-7")
    assert kept.cost_usd == pytest.approx((600 * 1000 + 400 * 100 + 10 * 4000) / 1e6)
    assert kept.answer == '{"said": "x"}'
    assert asked_by.totals.usd == pytest.approx(kept.cost_usd)
    assert kept.seconds > 0


def test_an_unknown_model_has_tokens_and_no_invented_price(tmp_path: Path) -> None:
    lines: list[str] = []
    with Loopback(echo) as loopback:
        client(loopback, account(tmp_path)).ask_all([body("a")], lines.append)
    assert Ledger(tmp_path).spent("d") == Spent(1, 0.0, 1)
    assert "price unknown" in lines[0]
    assert not any("$" in line for line in lines)


def test_answers_are_kept_when_the_server_dies_in_the_middle(tmp_path: Path) -> None:
    def dies(request: dict[str, Any], call: int) -> Any:
        return echo(request, call) if call < 30 else Raw(hang_up=True)

    texts = [body(str(n)) for n in range(200)]
    with Loopback(dies) as loopback:
        with pytest.raises(ProviderError, match=r"2\d requests in a row .* every answer so far is kept"):
            client(loopback, account(tmp_path), max_retries=0, concurrency=8).ask_all(texts, silence)
        spent = Ledger(tmp_path).spent("d")
        # Of those that broke off nobody knows whether they were paid.
        assert spent.calls - spent.lost == 30
        assert spent.calls == len(loopback.calls)
        asked, loopback.chat = len(loopback.calls), echo
        replies = client(loopback, account(tmp_path)).ask_all(texts, silence)
    assert [reply.value["said"] for reply in replies] == [str(n) for n in range(200)]
    assert len(loopback.calls) - asked == 170


def test_answers_that_come_while_others_are_written_are_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, commits = Ledger.write, []

    def slowly(self: Ledger, changes: Any) -> None:
        commits.append(len(changes))
        time.sleep(0.2)
        write(self, changes)

    monkeypatch.setattr(Ledger, "write", slowly)
    asked_by, texts = account(tmp_path), [body(str(n)) for n in range(40)]
    with Loopback(echo) as loopback:
        client(loopback, asked_by).ask_all(texts, silence)
        assert asked_by.ledger.spent("d") == Spent(40, 0.0, 40)
        assert client(loopback, asked_by).estimate(texts).calls == 0
    assert len(commits) < 40, "those that wait are committed together"


def test_a_request_counts_from_before_it_is_sent(tmp_path: Path) -> None:
    seen = []

    def counted(request: Body, call: int) -> dict[str, str]:
        seen.append(Ledger(tmp_path).spent("d").lost)
        return echo(request, call)

    with Loopback(counted) as loopback:
        client(loopback, account(tmp_path), concurrency=1).ask_all([body("a"), body("b")], silence)
    assert seen == [1, 1]
    assert Ledger(tmp_path).spent("d").lost == 0


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").mkdir()
    with (
        Loopback(echo) as loopback,
        pytest.raises(StorageError, match=r"cannot be read or written.*that there is room"),
    ):
        client(loopback, account(tmp_path)).ask_all([body("a")], silence)


def test_no_text_reaches_the_ledger(tmp_path: Path) -> None:
    said = "what nobody but the server may read"
    with Loopback(lambda request, call: {"said": "fine"}) as loopback:
        client(loopback, account(tmp_path)).ask_all([body(said)], silence)
    assert said in loopback.bodies()[0]["messages"][0]["content"]
    with Records(tmp_path).reading() as records:
        (row,) = records.rows(sa.select(CALLS))
    assert said not in str(row)
    assert not any(said.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_no_key_reaches_the_ledger_even_if_the_server_repeats_it(tmp_path: Path) -> None:
    repeated = completion(f'{{"said": "{KEY}"}}')
    scripts = {
        "value": Raw({**repeated.body, "model": KEY, "id": KEY}, headers={"X-Request-ID": f"x {KEY}"}),
        "refusal": completion(None, refusal=f"not with {KEY}"),
        "prose": completion(f"Your key {KEY} is fine"),
        "error": failure(400, f"bad {KEY}"),
    }
    lines: list[str] = []
    with Loopback(lambda request, call: scripts[echo(request, call)["said"]]) as loopback:
        replies = client(loopback, account(tmp_path)).ask_all([body(name) for name in scripts], lines.append)
    assert replies[0].value == {"said": "(key)"}
    assert KEY not in repr(replies) + repr(lines)
    files = list(tmp_path.glob("records.sqlite*"))
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_an_answer_that_changed_on_disk_counts_as_absent(tmp_path: Path) -> None:
    keep(tmp_path, entry("a" * 32, answer='{"c1": true}', parsed='{"c1": true}'), entry("b" * 32))
    altered(tmp_path, b'c1\\": true', b'c2\\": true', times=2)
    assert set(Ledger(tmp_path).find(["a" * 32, "b" * 32], "host/v1", "m")) == {"b" * 32}


def test_a_damaged_ledger_names_itself_and_what_to_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    keep(tmp_path, entry("a"))
    path = tmp_path / "records.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StorageError, match=r"records .*records\.sqlite are damaged.*Restore them from a copy"):
        ledger.find(["a"], "host/v1", "m")
