import asyncio
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable

import pytest

from hsae_dagster.dataset.sections import ServerFields
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai.client import GIVE_UP_AFTER, OpenAIClient, leave, run_sync
from hsae_dagster.providers.openai.prompts import json_request
from hsae_dagster.providers.openai.requests import Asker, Body, LazyBodies, Server, server_of
from hsae_dagster.providers.replies import Reply
from hsae_dagster_tests.providers.accounts import spare
from hsae_dagster_tests.providers.loopback import KEY, Loopback, Raw, completion, failure

ASKER = Asker("annotation.model", "scripted-1", "lexical")


def body(text: str = "hello") -> Body:
    return json_request("scripted-1", [{"role": "user", "content": text}], "answer", {"type": "object"})


def silence(line: str) -> None:
    """Ignore progress."""


def ask(loopback: Loopback, bodies: list[Body], report: Callable[[str], None] = silence, **changes) -> list[Reply]:
    return OpenAIClient(ASKER, loopback.server(**changes), spare()).ask_all(bodies, report)


def echo(request: Body, call: int) -> dict[str, str]:
    return {"said": request["messages"][0]["content"]}


def test_replies_come_in_the_order_of_the_requests() -> None:
    def slow_first(request: Body, call: int) -> Raw:
        content = request["messages"][0]["content"]
        raw = completion(f'{{"said": "{content}"}}')
        return Raw(raw.body, delay=0.2 if content == "0" else 0.0)

    lines: list[str] = []
    with Loopback(slow_first) as loopback:
        replies = ask(loopback, [body(str(n)) for n in range(40)], lines.append)
    assert [reply.value for reply in replies] == [{"said": str(n)} for n in range(40)]
    assert re.fullmatch(
        r"40 of 40 requests answered, [\d.]+ a second, 400 tokens in and 200 out, 0 without a usable answer", lines[-1]
    )


def test_no_more_requests_at_once_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def counted(request: Body, call: int) -> dict[str, bool]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return {"ok": True}

    with Loopback(counted) as loopback:
        ask(loopback, [body(str(n)) for n in range(24)], concurrency=4)
    assert most == 4


def test_bodies_are_made_when_they_are_read_and_never_kept() -> None:
    made: list[int] = []

    def make(index: int) -> Body:
        made.append(index)
        return body(str(index))

    with Loopback(lambda request, call: failure(401, "no")) as loopback:
        client = OpenAIClient(ASKER, loopback.server(concurrency=2), spare())
        with pytest.raises(ProviderError):
            client.ask_all(LazyBodies(50, make), silence)
    # Once each to be known by their hash, then only those that are sent.
    assert made[:50] == list(range(50))
    assert len(made) <= 54


def test_the_request_is_the_portable_subset() -> None:
    with Loopback(echo) as loopback:
        ask(loopback, [body()])
    (call,) = loopback.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert set(call.body) == {"model", "messages", "response_format"}
    assert call.body["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_sdk_retries_what_may_pass(status: int) -> None:
    def fails_once(request: Body, call: int) -> Raw | dict[str, bool]:
        return failure(status, "busy", retry_after_ms="20") if call == 0 else {"ok": True}

    with Loopback(fails_once) as loopback:
        assert ask(loopback, [body()])[0].value == {"ok": True}
    assert len(loopback.calls) == 2


LOST = {"reset": Raw(hang_up=True), "half": Raw(b'{"id": "x", "cho', missing_bytes=100)}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_lost_connection_is_tried_again(fault: Raw) -> None:
    with Loopback(lambda request, call: fault if call == 0 else {"ok": True}) as loopback:
        assert ask(loopback, [body()])[0].value == {"ok": True}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (completion(None, refusal="I would rather not"), "the model refused: I would rather not"),
        (completion("", finish_reason="stop"), "empty"),
        (completion(None), "empty"),
        (completion('{"said": "y', finish_reason="length"), "cut off"),
        (completion('{"said": "yes"}', finish_reason="length"), "cut off"),
        (completion('{"said": "y'), "not usable JSON"),
        (completion("yes"), "not usable JSON"),
        (completion('{"said": 1, "said": 2}'), "given twice"),
        (completion("[1]"), "not a JSON object"),
        (completion('{"said": 1}', finish_reason="content_filter"), "withheld"),
        (Raw({"id": "x", "choices": []}), "holds no message"),
        (Raw({"error": "none of your business"}), "the server answered 400: none of your business"),
        (Raw(b"not json at all"), "could not be read"),
        (Raw(b"plain", headers={"Content-Type": "text/plain"}), "it is not JSON"),
        (Raw([1]), "holds no message"),
        (failure(400, "context too long"), "the server answered 400: context too long"),
        (failure(422, "no"), "the server answered 422: no"),
    ],
)
def test_an_unusable_answer_is_a_reason_and_spoils_no_other(raw: Raw, reason: str) -> None:
    def second_fails(request: Body, call: int) -> Raw | dict[str, str]:
        return raw if request["messages"][0]["content"] == "b" else echo(request, call)

    with Loopback(second_fails) as loopback:
        replies = ask(loopback, [body("a"), body("b"), body("c")])
    assert [reply.value for reply in replies] == [{"said": "a"}, None, {"said": "c"}]
    assert reason in (replies[1].reason or "")
    assert len(loopback.calls) == 3


def test_retries_end_in_a_reason() -> None:
    with Loopback(lambda request, call: failure(500, "broken", retry_after_ms="5")) as loopback:
        (reply,) = ask(loopback, [body()], max_retries=2)
    assert reply.reason == "the server answered 500: broken"
    assert len(loopback.calls) == 3


def test_a_silent_server_ends_in_an_error_not_in_waiting() -> None:
    with (
        Loopback(lambda request, call: Raw({}, delay=1.0)) as loopback,
        pytest.raises(ProviderError, match="cannot be reached"),
    ):
        ask(loopback, [body()], timeout=0.1, max_retries=0)


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}."), "Set OPENAI_API_KEY"),
        (failure(403, "not for you"), "another key or model"),
        (failure(404, "the model `scripted-1` does not exist"), "correct the model's name"),
        (failure(429, "quota", "insufficient_quota", x_should_retry="false"), "no credit left"),
    ],
)
def test_a_refusal_of_key_model_or_account_stops_at_once(answer: Raw, remedy: str) -> None:
    with Loopback(lambda request, call: answer) as loopback, pytest.raises(ProviderError) as error:
        ask(loopback, [body(str(n)) for n in range(200)], concurrency=4)
    message = str(error.value)
    assert message.startswith("`annotation.model: openai:scripted-1`: 127.0.0.1:")
    assert remedy in message
    assert len(loopback.calls) <= 8


def test_many_failures_in_a_row_stop_the_run() -> None:
    def all_but_the_first(request: Body, call: int) -> Raw | dict[str, bool]:
        return failure(400, "not today") if call else {"ok": True}

    with (
        Loopback(all_but_the_first) as loopback,
        pytest.raises(ProviderError, match=r"2\d requests in a row .* each time because the server .* not today"),
    ):
        ask(loopback, [body(str(n)) for n in range(500)], concurrency=4)
    assert GIVE_UP_AFTER <= len(loopback.calls) - 1 <= GIVE_UP_AFTER + 4


def test_scattered_failures_do_not() -> None:
    def every_second(request: Body, call: int) -> Raw | dict[str, bool]:
        return failure(400, "no") if int(request["messages"][0]["content"]) % 2 else {"ok": True}

    with Loopback(every_second) as loopback:
        replies = ask(loopback, [body(str(n)) for n in range(100)], concurrency=1)
    assert sum(reply.reason is not None for reply in replies) == 50


def test_an_unreachable_server_is_one_clear_error() -> None:
    with Loopback() as loopback:
        server = loopback.server(max_retries=0)
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1:\d+/v1 cannot be reached: .*OPENAI_BASE_URL.*`lexical`"):
        OpenAIClient(ASKER, server, spare()).ask_all([body()], silence)


def test_nothing_to_ask_asks_nothing() -> None:
    with Loopback() as loopback:
        assert ask(loopback, []) == []
    assert loopback.calls == []


def test_the_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Loopback(lambda request, call: failure(401, f"bad key {KEY}, masked sk-loop*****cret")) as loopback:
        server = loopback.server()
        client = OpenAIClient(ASKER, server, spare())
        with pytest.raises(ProviderError) as error:
            client.ask_all([body()], silence)
    shown = "".join(traceback.format_exception(error.value)) + caplog.text + repr(server) + repr(vars(client))
    assert "bad key (key), masked (key)" in str(error.value)
    assert KEY not in shown
    assert "cret" not in shown
    # Nothing that walks the chain of errors, as Dagster does, meets the SDK's.
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as proxy, Loopback(echo) as loopback:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert ask(loopback, [body("x")])[0].value == {"said": "x"}
    assert proxy.calls == []


def test_asking_works_inside_a_running_loop() -> None:
    async def notebook() -> list[Reply]:
        return ask(loopback, [body("x")])

    with Loopback(echo) as loopback:
        assert asyncio.run(notebook())[0].value == {"said": "x"}


def test_run_sync_hands_on_errors() -> None:
    async def fails() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        run_sync(fails())


def from_environment(environment: dict[str, str]) -> Server:
    return server_of(ServerFields(), "annotation.server", environment)


def test_settings_come_from_the_environment() -> None:
    assert from_environment({}) == Server("https://api.openai.com/v1", None)
    assert from_environment({"OPENAI_BASE_URL": " ", "OPENAI_API_KEY": "\n"}) == Server()
    named = from_environment({"OPENAI_BASE_URL": "http://gpu:8000/v1/", "OPENAI_API_KEY": f" {KEY}\n"})
    assert (named.base_url, named.api_key, named.endpoint) == ("http://gpu:8000/v1/", KEY, "gpu:8000/v1")


@pytest.mark.parametrize(
    "url", ["gpu:8000", "localhost", "ftp://x/v1", "http://", "http://x:port/v1", "http://u:p@x/v1"]
)
def test_an_address_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(ProviderError, match="OPENAI_BASE_URL is not the address of a server"):
        from_environment({"OPENAI_BASE_URL": url})


@pytest.mark.parametrize("key", ["two words", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_hold_is_an_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ProviderError, match="OPENAI_API_KEY holds") as error:
        from_environment({"OPENAI_API_KEY": key})
    assert key not in str(error.value)


@pytest.mark.parametrize(
    ("url", "needs", "loopback"),
    [
        ("https://api.openai.com/v1", True, False),
        ("https://eu.api.openai.com/v1", True, False),
        ("https://notopenai.com/v1", False, False),
        ("http://localhost:11434/v1", False, True),
        ("http://127.0.0.5/v1", False, True),
        ("http://[::1]:80/v1", False, True),
        ("http://10.0.0.1:8000/v1", False, False),
    ],
)
def test_who_needs_a_key_and_who_is_this_machine(url: str, needs: bool, loopback: bool) -> None:
    server = Server(url)
    assert (server.needs_key, server.is_loopback) == (needs, loopback)


def test_a_local_server_needs_no_key() -> None:
    with Loopback(echo) as loopback:
        assert ask(loopback, [body("x")], api_key=None)[0].value == {"said": "x"}


def test_before_a_process_ends_what_has_arrived_is_written_and_nothing_else_is_done() -> None:
    begun, written, on = threading.Event(), list[str](), list[str]()

    async def ask() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            time.sleep(0.3)
            written.append("what has arrived")

    def work() -> None:
        run_sync(ask())
        on.append("the next request")

    # Never joined: it waits for the end of the process.
    threading.Thread(target=work, daemon=True).start()
    assert begun.wait(10)
    leave()
    assert written == ["what has arrived"]
    time.sleep(0.2)
    assert not on
