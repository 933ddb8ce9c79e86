"""What OpenAI-compatible servers do, one test a behaviour: what is read, what is asked again, what is said."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.dataset.spec import Annotation
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai import request as openai_request
from hsae_dagster.providers.openai.readers import OpenAIAnnotator
from hsae_dagster.providers.openai.requests import Body, Question, Server
from hsae_dagster.providers.spending import Account, BudgetError, Entry, Ledger
from hsae_dagster_tests.providers import accounts
from hsae_dagster_tests.providers.accounts import account, keep, priced, spare
from hsae_dagster_tests.providers.loopback import (
    KEY,
    Loopback,
    Raw,
    completion,
    embed_by_hash,
    embeddings,
    failure,
    hash_vector,
    judge_by,
    shown_texts,
    user_message,
)

pytestmark = pytest.mark.usefixtures("environment")
CONCEPTS = [Concept("mentions apples", "test"), Concept("mentions bread", "test")]
TEXTS = [f"apples {n}" if n % 2 else f"bread {n}" for n in range(30)]
TRUTH = np.array([[n % 2, 1 - n % 2] for n in range(30)], dtype=np.int8)
by_word = judge_by(lambda predicate, text: predicate.split()[-1] in text)
STRANGE = "vendor/model-nobody-knows"


class Asked:
    """Answers of one annotation, what was said meanwhile, and what ended it."""

    def __init__(self, loopback: Loopback, asked_by: Account | None = None, texts: Any = TEXTS, **server: Any) -> None:
        self.lines: list[str] = []
        self.error = ""
        self.before = len(loopback.calls)
        annotator = accounts.judge(STRANGE, Annotation(), loopback.server(**server), account=asked_by or spare())
        try:
            found = annotator.annotate(CONCEPTS, texts, self.lines.append)
        except ProviderError as error:
            self.error = str(error)
        else:
            self.answers, self.reasons = found.answers, [reason for _, _, reason in found.reasons]
        self.calls = len(loopback.calls) - self.before

    def said(self, part: str) -> list[str]:
        return [line for line in self.lines if part in line]


def rewritten(change: Callable[[str], Any]) -> Any:
    """The right answer, in other words: `change` makes a message's content, or a whole message, of the plain JSON."""

    def chat(body: Body, call: int) -> Raw:
        made = change(json.dumps(by_word(body, call)))
        raw = completion(made if isinstance(made, str) else None)
        if not isinstance(made, str):
            raw.body["choices"][0]["message"] = {"role": "assistant", **made}
        return raw

    return chat


# Row: JSON inside a fence, after prose, after thoughts, as parts, with other words for yes, with one more field.
WRAPPED: dict[str, Callable[[str], Any]] = {
    "fence": lambda text: f"```json\n{text}\n```",
    "fence without a name": lambda text: f"Here you are:\n```\n{text}\n```\nAnything else?",
    "prose": lambda text: f"The text speaks of food {{as asked}}, so: {text} That is all.",
    "thoughts": lambda text: f'<think>Is {{"c1": true}} right? {{no}}</think>\n\n{text}',
    "thoughts without a beginning": lambda text: f'so {{"c1": false}} …</think>{text}',
    "channels": lambda text: f"<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>{text}",
    "parts": lambda text: {"content": [{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}]},
    "thoughts beside it": lambda text: {"content": text, "reasoning_content": "Let me see."},
    "words": lambda text: text.replace("true", '"true"').replace("false", '"False"'),
    "yes and no": lambda text: text.replace("true", '"Yes."').replace("false", '"no"'),
    "numbers": lambda text: text.replace("true", "1").replace("false", "0"),
    "numbers as words": lambda text: text.replace("true", '"1"').replace("false", '"0"'),
    "one more field": lambda text: text.replace("{", '{"reasoning": "c1 is plain", '),
    "python": lambda text: text.replace("true", "True").replace("false", "False").replace('"', "'"),
    "a comma too many": lambda text: text.replace("}", ",}"),
    "capital ids": lambda text: text.replace("c1", "C1").replace("c2", "C2"),
    "inside another field": lambda text: f'{{"judgements": {text}}}',
    "one object a concept": lambda text: text.replace("true", '{"answer": true}').replace("false", '{"answer": false}'),
    "said twice alike": lambda text: text.replace("}", f", {text[1:]}"),
}


@pytest.mark.parametrize("change", WRAPPED.values(), ids=WRAPPED.keys())
def test_an_answer_is_read_however_it_is_wrapped(change: Callable[[str], Any]) -> None:
    with Loopback(rewritten(change)) as loopback:
        found = Asked(loopback)
    assert (found.error, found.calls) == ("", 30)
    np.testing.assert_array_equal(found.answers, TRUTH)


@pytest.mark.parametrize("text", ['{"c1": true, "c2": false, "c3": true}', '{"c1": true, "C0": 1}'])
def test_a_field_that_looks_like_an_answer_spoils_the_others(text: str) -> None:
    def chat(body: Body, call: int) -> Any:
        return text if call == 3 else by_word(body, call)

    with Loopback(chat) as loopback:
        found = Asked(loopback)
    assert (found.answers == -1).sum() == 2
    assert "which was not asked" in found.reasons[0]


# Row: answer in `reasoning_content`; cut off at the token limit.
HOPELESS = {
    "thoughts only": (rewritten(lambda text: {"content": "", "reasoning_content": text}), "reasoning parser"),
    "thoughts in `reasoning`": (rewritten(lambda text: {"content": None, "reasoning": text}), "reasoning parser"),
    "unfinished thoughts": (rewritten(lambda text: f"<think>perhaps {text}"), "reasoning off"),
    "cut off": (lambda body, call: completion('{"c1": tr', finish_reason="length"), "thinking_tokens"),
    "empty": (lambda body, call: completion(""), "another model"),
    "prose": (lambda body, call: "It does mention apples.", "enforces a JSON schema"),
    "other ids": (lambda body, call: {"c0": True, "c1": False}, "concepts_per_call"),
    "refused": (lambda body, call: completion(None, refusal="no"), "another model"),
}


@pytest.mark.parametrize(("chat", "remedy"), HOPELESS.values(), ids=HOPELESS.keys())
def test_twenty_unusable_answers_in_a_row_stop_the_run_and_say_what_to_change(chat: Any, remedy: str) -> None:
    with Loopback(chat) as loopback:
        found = Asked(loopback, texts=[f"text {n}" for n in range(500)], concurrency=4)
    assert found.calls <= 24
    assert "requests in a row" in found.error
    assert "each time because" in found.error
    assert remedy in found.error


def test_the_commonest_reason_is_the_one_that_is_quoted() -> None:
    def chat(body: Body, call: int) -> Any:
        return completion("") if call % 3 == 0 else completion("no", finish_reason="length")

    with Loopback(chat) as loopback:
        found = Asked(loopback, texts=[f"text {n}" for n in range(60)], concurrency=1)
    assert "most often (13 of 20) because the answer was cut off" in found.error


def test_fewer_than_twenty_requests_that_bring_nothing_are_explained_too() -> None:
    with Loopback(lambda body, call: completion("certainly")) as loopback:
        found = Asked(loopback, texts=["a", "b", "c"])
    assert "none of 3 answers" in found.error
    assert "not usable JSON" in found.error
    assert "hsae ask-again" in found.error


def test_a_concept_that_a_model_will_not_judge_does_not_stop_the_others() -> None:
    def chat(body: Body, call: int) -> Any:
        return completion(None, refusal="no") if 5 <= call < 80 else by_word(body, call)

    with Loopback(chat) as loopback:
        found = Asked(loopback, texts=[f"apples {n}" for n in range(100)])
    assert found.error == ""
    assert (found.answers == -1).sum() == 2 * 75


# Row: HTTP 200 with an error inside.
def test_an_error_inside_a_good_status_is_a_failed_request_in_its_own_words(tmp_path: Path) -> None:
    inside = Raw({"error": {"message": "upstream is on holiday", "code": "provider_down"}})
    with Loopback(lambda body, call: inside if call == 4 else by_word(body, call)) as loopback:
        found = Asked(loopback, account(tmp_path))
        again = Asked(loopback, account(tmp_path))
    assert found.reasons == ["the server answered 400: upstream is on holiday"] * 2
    assert (again.calls, again.reasons) == (1, [])


def test_a_passing_error_inside_a_good_status_is_tried_again() -> None:
    inside = Raw({"error": {"message": "slow down", "code": 429}}, headers={"retry-after-ms": "5"})
    with Loopback(lambda body, call: inside if call == 4 else by_word(body, call)) as loopback:
        found = Asked(loopback)
    assert (found.calls, found.reasons) == (31, [])


# Row: 400 on fields.
def refusing(refused: Callable[[Body], bool], said: str, status: int = 400) -> Any:
    return lambda body, call: failure(status, said) if refused(body) else by_word(body, call)


def form(body: Body) -> str:
    return body.get("response_format", {}).get("type", "none")


FIELDS: dict[str, tuple[Any, Callable[[Body], bool]]] = {
    "json_schema (DeepSeek)": (
        refusing(lambda body: form(body) == "json_schema", "This response_format type is unavailable now"),
        lambda body: form(body) == "json_object" and '"c1"' in body["messages"][0]["content"],
    ),
    "response_format": (
        refusing(lambda body: form(body) != "none", "unknown field `response_format`", 422),
        lambda body: form(body) == "none" and '"required": ["c1", "c2"]' in body["messages"][0]["content"],
    ),
    "grammar, as 500": (
        refusing(lambda body: form(body) == "json_schema", "failed to build grammar from json schema", 500),
        lambda body: form(body) == "json_object",
    ),
    "strict": (
        refusing(
            lambda body: "strict" in body.get("response_format", {}).get("json_schema", {}),
            "Unknown parameter: 'response_format.json_schema.strict'",
        ),
        lambda body: form(body) == "json_schema" and "strict" not in body["response_format"]["json_schema"],
    ),
    "temperature (o-series)": (
        refusing(
            lambda body: "temperature" in body,
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
        ),
        lambda body: "temperature" not in body and form(body) == "json_schema",
    ),
    "max_tokens (o-series, Azure deployments)": (
        refusing(
            lambda body: "max_tokens" in body,
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        ),
        lambda body: "max_completion_tokens" in body,
    ),
    "system role": (
        lambda body, call: (
            failure(400, "System role not supported")
            if body["messages"][0]["role"] == "system"
            else {
                f"c{n}": word in user_message(body).rsplit("<text>", 1)[1] for n, word in ((1, "apples"), (2, "bread"))
            }
        ),
        lambda body: [message["role"] for message in body["messages"]] == ["user"],
    ),
    "several, one after the other": (
        lambda body, call: (
            failure(400, "Unsupported parameter: 'max_tokens'")
            if "max_tokens" in body
            else failure(400, "Unsupported value: 'temperature'")
            if "temperature" in body
            else by_word(body, call)
        ),
        lambda body: "max_completion_tokens" in body and "temperature" not in body,
    ),
    "no word which": (
        refusing(lambda body: form(body) != "none", "Bad Request"),
        lambda body: form(body) == "none",
    ),
}


@pytest.mark.parametrize(("chat", "taken"), FIELDS.values(), ids=FIELDS.keys())
def test_a_refused_field_is_put_otherwise_found_out_once_and_said(
    tmp_path: Path, chat: Any, taken: Callable[[Body], bool]
) -> None:
    with Loopback(chat) as loopback:
        found = Asked(loopback, account(tmp_path))
        tries = found.calls - 30
        later = Asked(loopback, account(tmp_path), [f"apples again {n}" for n in range(5)])
        assert all(map(taken, loopback.bodies()[tries:]))
    np.testing.assert_array_equal(found.answers, TRUTH)
    assert 1 <= tries <= 3
    assert later.calls == 5
    (line,) = found.said("from now on")
    assert "`annotation.model: openai:vendor/model-nobody-knows`" in line
    assert later.said("from now on") == []


@pytest.mark.parametrize("chat", [chat for chat, _ in FIELDS.values()], ids=FIELDS.keys())
def test_three_requests_are_enough_to_find_out(chat: Any) -> None:
    """Today: fewer than twenty refusals are explained as bad autoencoders."""
    with Loopback(chat) as loopback:
        found = Asked(loopback, texts=TEXTS[:3])
    assert (found.error, found.reasons) == ("", [])
    np.testing.assert_array_equal(found.answers, TRUTH[:3])


def test_what_was_found_out_is_known_to_the_next_process(tmp_path: Path) -> None:
    from hsae_dagster.providers.openai import requests as known_servers

    chat, _ = FIELDS["temperature (o-series)"]
    with Loopback(chat) as loopback:
        Asked(loopback, account(tmp_path))
        known_servers._KNOWN.clear()
        known_servers._ANSWERED.clear()
        assert Asked(loopback, account(tmp_path), ["apples, once more"]).calls == 1
        known_servers.forget_all(tmp_path)
        assert Asked(loopback, account(tmp_path), ["apples, and again"]).calls == 2


def test_effort_is_left_out_where_it_is_refused(tmp_path: Path) -> None:
    priced(tmp_path, STRANGE, reasoning_effort="low", temperature=False)
    chat = refusing(lambda body: "reasoning_effort" in body, "Unrecognized request argument: reasoning_effort")
    with Loopback(chat) as loopback:
        assert Asked(loopback).calls == 31


def test_the_key_of_an_answer_is_that_of_the_question_however_it_had_to_be_put(tmp_path: Path) -> None:
    """A server that learns a field later still finds its answers."""
    chat, _ = FIELDS["response_format"]
    with Loopback(chat) as loopback:
        Asked(loopback, account(tmp_path))
        loopback.chat = by_word
        assert Asked(loopback, account(tmp_path)).calls == 0


def test_a_server_that_answers_nothing_is_asked_three_times() -> None:
    with Loopback(lambda body, call: failure(418, "I am a teapot")) as loopback:
        found = Asked(loopback)
    assert found.calls == 3
    assert "I am a teapot" in found.error
    assert "3 first requests" in found.error


# Row: base URL without /v1.
def test_a_missing_v1_is_asked_about() -> None:
    with Loopback() as loopback:
        url = loopback.base_url.removesuffix("/v1")
        chat = Asked(loopback, base_url=url)
        loopback.receive = lambda method, path, data: Raw([{"embedding": [[1.0]]}])  # type: ignore[method-assign]
        with pytest.raises(ProviderError) as error:
            accounts.embedder("m", loopback.server(base_url=url), spare(), dimensions=8).embed(["a"])
    for said in (chat.error, str(error.value)):
        assert "Is /v1 missing from OPENAI_BASE_URL?" in said


# Row: Azure.
def test_an_api_version_in_the_base_url_goes_to_the_end_of_each_address() -> None:
    with Loopback() as loopback:
        seen: list[str] = []

        def receive(method: str, path: str, data: bytes) -> Raw:
            seen.append(path)
            return completion(json.dumps(by_word(json.loads(data), 0)))

        loopback.receive = receive  # type: ignore[assignment, method-assign]
        base = loopback.base_url.replace("/v1", "/openai/deployments/mine") + "?api-version=2026-06-01"
        found = Asked(loopback, texts=["apples"], base_url=base)
    assert found.error == ""
    assert seen == ["/openai/deployments/mine/chat/completions?api-version=2026-06-01"]
    azure = Server("https://x.openai.azure.com/openai/deployments/mine?api-version=1", KEY)
    assert azure.headers["api-key"] == KEY
    assert azure.endpoint == "x.openai.azure.com/openai/deployments/mine"
    assert "api-key" not in Server("https://api.openai.com/v1", KEY).headers


# Rows: embeddings.
@pytest.mark.parametrize(("most", "status"), [(10, 400), (10, 413), (32, 413), (32, 422)])
def test_a_server_that_takes_few_texts_at_once_gets_few(most: int, status: int) -> None:
    def narrow(body: Body, call: int) -> Any:
        if len(body["input"]) > most:
            return failure(status, f"batch size is invalid, it should not be larger than {most}")
        return embed_by_hash()(body, call)

    texts = [f"text {n}" for n in range(200)]
    lines: list[str] = []
    found = np.zeros((200, 8), np.float32)

    def keep(rows: range, vectors: np.ndarray) -> None:
        found[rows.start : rows.stop] = vectors

    with Loopback(embed=narrow) as loopback:
        model = accounts.embedder("m", loopback.server(), spare(), dimensions=8)
        model.embed_all(texts, 128, keep, lines.append)
        expected = np.array([hash_vector(text, 8) for text in texts])
        refused = sum(len(body["input"]) > most for body in loopback.bodies())
        calls = len(loopback.calls)
        model.embed_all(texts, 128, keep, lines.append)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert refused <= 4
    assert all(len(body["input"]) <= most for body in loopback.bodies()[calls:])
    assert any("Set embedding.batch_size" in line for line in lines)


@pytest.mark.parametrize("field", ["encoding_format", "dimensions"])
def test_an_embeddings_field_that_is_refused_is_left_out(field: str) -> None:
    def without(body: Body, call: int) -> Any:
        refused = field in body
        return (
            failure(400, f"Unknown argument: {field}") if refused else embed_by_hash()({"input": body["input"]}, call)
        )

    with Loopback(embed=without) as loopback:
        model = accounts.embedder("m", loopback.server(), spare(), dimensions=8)
        assert model.embed([f"text {n}" for n in range(5)]).shape == (5, 8)
        assert model.embed(["one more"]).shape == (1, 8)
    assert len(loopback.calls) == 3


def test_vectors_come_as_base64_or_numbers_numbered_or_in_order() -> None:
    import base64

    def packed(body: Body, call: int) -> Raw:
        vectors = [np.array(hash_vector(text, 8), "<f4") for text in body["input"]]
        made = embeddings([base64.b64encode(vector.tobytes()).decode() for vector in vectors])  # type: ignore[misc]
        for item in made.body["data"]:
            del item["index"]
        return made

    texts = [f"text {n}" for n in range(20)]
    with Loopback(embed=packed) as loopback, Loopback() as plain:
        found, expected = (
            accounts.embedder("m", each.server(), spare(), dimensions=8).embed(texts) for each in (loopback, plain)
        )
    np.testing.assert_array_equal(found, expected)


# Row: no usage.
def uncounted(body: Body, call: int) -> Raw:
    raw = completion(json.dumps(by_word(body, call)))
    return Raw({key: value for key, value in raw.body.items() if key != "usage"})


def test_answers_without_usage_fill_the_budget_at_their_worst(tmp_path: Path) -> None:
    priced(tmp_path, STRANGE, input=1.0, output=4.0)
    with Loopback(uncounted) as loopback:
        found = Asked(loopback, account(tmp_path, budget_usd=0.05))
        spent = Ledger(tmp_path).spent("d")
        refused = Asked(loopback, account(tmp_path, budget_usd=0.05))
    assert "spending.budget_usd of $0.05" in found.error
    assert 0.04 < spent.usd <= 0.05
    assert spent.uncounted == spent.calls == found.calls
    assert (refused.calls, "spending.budget_usd" in refused.error) == (0, True)


# Row: 429 with a long Retry-After.
@pytest.mark.parametrize(("seconds", "minutes"), [("3780", 63), ("301", 5)])
def test_a_wait_of_more_than_five_minutes_ends_the_run_in_the_servers_words(seconds: str, minutes: int) -> None:
    with Loopback(lambda body, call: failure(429, "daily limit of 1000 reached", retry_after=seconds)) as loopback:
        started = time.monotonic()
        found = Asked(loopback)
    assert time.monotonic() - started < 5
    assert f"asks to wait {minutes} minutes: daily limit of 1000 reached" in found.error
    assert found.calls == 1


def test_a_shorter_wait_is_said_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_request, "LEAST_SAID", 0.2)
    slow = failure(429, "slow down", retry_after_ms="400")
    with Loopback(lambda body, call: slow if call == 3 else by_word(body, call)) as loopback:
        found = Asked(loopback)
    assert found.reasons == []
    (line,) = found.said("asks to wait")
    assert "slow down" in line


# Row: one slow slot.
class OneSlot(Loopback):
    """A model on a CPU: one request at a time, and one whose client has hung up is dropped."""

    def __init__(self, seconds: float) -> None:
        super().__init__(by_word)
        self.seconds = seconds
        self.slot = threading.Lock()
        self.worked = 0

    def answer_to(self, connection: socket.socket, work: Callable[[], Raw]) -> Raw:
        with self.slot:
            gone = select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK)
            if not gone:
                time.sleep(self.seconds)
                self.worked += 1
            return work()


def test_a_server_with_one_slow_slot_is_asked_less_at_once_and_answers_everything() -> None:
    with OneSlot(0.15) as loopback:
        found = Asked(loopback, texts=TEXTS[:24], timeout=0.7)
    assert found.error == ""
    assert found.reasons == []
    # Of 24 questions, each once and few of them twice; today 144 requests brought 5 answers.
    assert found.calls <= 72
    assert found.said("HSAE_CONCURRENCY")


# Row: 402, context length, content filter, detail.
def test_no_credit_stops_at_once() -> None:
    with Loopback(lambda body, call: failure(402, "Insufficient credits")) as loopback:
        found = Asked(loopback)
    assert found.calls == 1
    assert "402: Insufficient credits" in found.error
    assert "add credit" in found.error


def test_a_prompt_that_is_too_long_for_the_model_stops_at_once_and_names_what_to_lower() -> None:
    said = (
        "This model's maximum context length is 4096 tokens, you requested 'max_tokens' 200 with 9000 in the messages"
    )
    with Loopback(lambda body, call: failure(400, said)) as loopback:
        found = Asked(loopback)
    assert found.calls == 1
    assert "annotation.max_words" in found.error


def test_one_text_that_is_too_long_costs_its_own_answers_only() -> None:
    def chat(body: Body, call: int) -> Any:
        return failure(400, "prompt is too long") if "apples 7" in shown_texts(body)[0] else by_word(body, call)

    with Loopback(chat) as loopback:
        found = Asked(loopback)
    assert found.error == ""
    assert (found.answers == -1).sum() == 2
    assert "annotation.max_words" in found.reasons[0]


def test_a_content_filter_that_answers_400_has_answered(tmp_path: Path) -> None:
    priced(tmp_path, STRANGE)
    filtered = Raw({"error": {"message": "The prompt was filtered", "code": "content_filter"}}, 400)

    def chat(body: Body, call: int) -> Any:
        return filtered if "apples 7" in shown_texts(body)[0] else by_word(body, call)

    with Loopback(chat) as loopback:
        found = Asked(loopback, account(tmp_path))
        again = Asked(loopback, account(tmp_path))
    assert (again.calls, again.reasons) == (0, found.reasons)
    assert found.reasons == ["the server's content filter withheld the answer: The prompt was filtered"] * 2
    assert Ledger(tmp_path).spent("d").usd == pytest.approx(29 * 0.03)


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        ({"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, "body.model: field required"),
        ({"detail": "no such deployment"}, "no such deployment"),
        ({"error": "model is loading"}, "model is loading"),
        ({"object": "error", "message": "bad sampling"}, "bad sampling"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        (b"<html><h1>Bad gateway</h1></html>", "Bad gateway"),
    ],
)
def test_whatever_shape_an_error_has_its_words_are_quoted(body: Any, quoted: str) -> None:
    with Loopback(lambda request, call: Raw(body, 422)) as loopback:
        assert quoted in Asked(loopback).error


# Row: a prompt cut without a word.
def test_a_prompt_that_was_cut_silently_is_warned_of() -> None:
    def cutting(body: Body, call: int) -> Raw:
        raw = completion(json.dumps(by_word(body, call)))
        sent = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": min(sent // 4, 2048), "completion_tokens": 5}
        return Raw({**raw.body, "usage": usage})

    long = "apples " + "and some more words that go on and on " * 800
    with Loopback(cutting) as loopback:
        calm = Asked(loopback)
        annotator = accounts.judge(STRANGE, Annotation(max_words=10_000), loopback.server(), spare())
        lines: list[str] = []
        annotator.annotate(CONCEPTS, [*TEXTS, long], lines.append)
    assert calm.said("may have truncated") == []
    (line,) = [line for line in lines if "may have truncated" in line]
    assert "counted 2,048 tokens" in line
    assert "max_words" in line


# Row: a server mended after unusable answers.
def test_kept_answers_are_read_again_by_a_better_reader(tmp_path: Path) -> None:
    with Loopback(by_word) as loopback:
        annotator = accounts.judge(STRANGE, Annotation(), loopback.server())
        hashes = [
            Question.of(annotator.body([c.predicate for c in CONCEPTS], text), annotator.client.server.endpoint).hash
            for text in TEXTS
        ]
        keep(tmp_path, *(kept(key, row, annotator) for row, key in enumerate(hashes)))
        found = Asked(loopback, account(tmp_path))
    assert found.calls == 0
    np.testing.assert_array_equal(found.answers, TRUTH)


def kept(key: str, row: int, annotator: OpenAIAnnotator) -> Entry:
    """An answer as an earlier reader left it: paid, there, and not understood."""
    from hsae_dagster_tests.providers.test_ledger import entry

    answer = f"```json\n{json.dumps({'c1': bool(row % 2), 'c2': not row % 2})}\n```"
    server = annotator.client.server.endpoint
    why = "the answer is not usable JSON (Expecting value: line 1 column 1 (char 0))"
    return entry(key, answer=answer, parsed=None, reason=why, server=server, model=STRANGE)


def test_unusable_answers_that_ended_a_run_are_asked_again_by_the_next(tmp_path: Path) -> None:
    with Loopback(lambda body, call: completion("")) as loopback:
        Asked(loopback, account(tmp_path), concurrency=4)
        paid = len(loopback.calls)
        loopback.chat = by_word
        found = Asked(loopback, account(tmp_path))
    assert (found.calls, found.reasons) == (30, [])
    assert Ledger(tmp_path).spent("d").calls == paid + 30


def test_answers_taken_back_are_asked_again_and_stay_paid(tmp_path: Path) -> None:
    def chat(body: Body, call: int) -> Any:
        return completion("perhaps") if "apples 7" in shown_texts(body)[0] else by_word(body, call)

    ledger = Ledger(tmp_path)
    with Loopback(chat) as loopback:
        Asked(loopback, account(tmp_path))
        assert Asked(loopback, account(tmp_path)).calls == 0
        loopback.chat = by_word
        unusable = ledger.unusable("d")
        ledger.take_back(unusable)
        found = Asked(loopback, account(tmp_path))
    assert len(unusable) == 1
    assert (found.calls, found.reasons) == (1, [])
    assert ledger.unusable("d") == []
    assert ledger.spent("d").calls == 31


def test_a_budget_counts_requests_whose_answer_was_lost(tmp_path: Path) -> None:
    priced(tmp_path, STRANGE, input=1.0, output=4.0)

    def chat(body: Body, call: int) -> Any:
        return Raw({}, delay=0.6) if call == 5 else by_word(body, call)

    with Loopback(chat) as loopback:
        Asked(loopback, account(tmp_path), timeout=0.3, max_retries=0, concurrency=1)
        spent = Ledger(tmp_path).spent("d")
        with pytest.raises(BudgetError):
            accounts.judge(
                STRANGE, Annotation(), loopback.server(), account=account(tmp_path, budget_calls=30)
            ).annotate(CONCEPTS, TEXTS, lambda line: None)
    assert (spent.calls, spent.lost) == (30, 1)
    # As much as all the others together, and more: nobody knows how long its answer was.
    assert spent.usd > 29 * (10 * 1.0 + 5 * 4.0) / 1e6
