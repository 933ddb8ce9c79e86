import dataclasses
import time

import numpy as np
import pytest

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai.embedder import (
    MAX_INPUTS,
    MAX_REQUEST_TOKENS,
    OpenAIEmbedder,
    cut_to_tokens,
    estimate_tokens,
)
from hsae_dagster.providers.openai.requests import Server, packed
from hsae_dagster_tests.providers import accounts
from hsae_dagster_tests.providers.accounts import spare
from hsae_dagster_tests.providers.loopback import Loopback, Raw, embed_by_hash, embeddings, failure, hash_vector


def embedder(loopback: Loopback, model: str = "local", **changes) -> OpenAIEmbedder:
    return accounts.embedder(model, loopback.server(), spare(), **changes)


def test_vectors_are_the_servers_at_unit_length() -> None:
    texts = [f"text number {n}" for n in range(30)]
    with Loopback() as loopback:
        vectors = embedder(loopback, dimensions=8).embed(texts)
    expected = np.array([hash_vector(text, 8) for text in texts])
    assert vectors.dtype == np.float32
    assert vectors.shape == (30, 8)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_the_request_asks_for_base64_and_for_dimensions_only_when_declared() -> None:
    with Loopback() as loopback:
        embedder(loopback, dimensions=8).embed(["a"])
        embedder(loopback).embed(["a"])
    declared, probe, undeclared = loopback.bodies()
    assert declared == {"model": "local", "input": ["a"], "encoding_format": "base64", "dimensions": 8}
    assert undeclared == {"model": "local", "input": ["a"], "encoding_format": "base64"}
    assert len(probe["input"]) == 1


def test_vectors_out_of_order_find_their_texts() -> None:
    def reversed_order(body, call: int) -> Raw:
        vectors = [hash_vector(text, 8) for text in body["input"]]
        return embeddings(vectors[::-1], indices=list(range(len(vectors)))[::-1])

    texts = [f"text {n}" for n in range(9)]
    with Loopback() as straight, Loopback(embed=reversed_order) as crossed:
        expected = embedder(straight, dimensions=8).embed(texts)
        np.testing.assert_array_equal(embedder(crossed, dimensions=8).embed(texts), expected)


def test_many_texts_go_in_several_requests_and_come_back_in_order() -> None:
    texts = [f"text {n}" for n in range(MAX_INPUTS + 10)]
    with Loopback() as loopback:
        vectors = embedder(loopback, dimensions=8).embed(texts)
        single = embedder(loopback, dimensions=8).embed([texts[5], texts[-1]])
    assert sorted(len(body["input"]) for body in loopback.bodies()) == [2, 10, 2048]
    np.testing.assert_array_equal(vectors[[5, -1]], single)


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        (["a"] * 5000, [2048, 2048, 904]),
        # 100,000 estimated tokens each: three would make 300,000, which is not below the limit.
        (["x" * 300_000] * 5, [2, 2, 1]),
        (["x" * 3_000_000, "y"], [1, 1]),
        ([], []),
    ],
)
def test_packing_is_greedy_within_both_limits(texts: list[str], sizes: list[int]) -> None:
    limits = MAX_INPUTS, MAX_REQUEST_TOKENS - 1
    batches = [texts[part.start : part.stop] for part in packed(map(estimate_tokens, texts), *limits)]
    assert [len(batch) for batch in batches] == sizes
    assert [text for batch in batches for text in batch] == texts
    for batch in batches:
        assert len(batch) <= MAX_INPUTS
        assert len(batch) == 1 or sum(map(estimate_tokens, batch)) < MAX_REQUEST_TOKENS


@pytest.mark.parametrize("text", ["word " * 500, "ж" * 900, "語" * 900, "🙂" * 900, "  \n spaced  "])
def test_a_cut_text_is_a_beginning_within_the_limit(text: str) -> None:
    cut = cut_to_tokens(text, 100)
    assert text.strip().startswith(cut)
    assert estimate_tokens(cut) <= 100
    # Nothing is cut that would have fitted.
    assert cut == text.strip() or estimate_tokens(cut) >= 98


def test_the_server_sees_the_cut_text() -> None:
    with Loopback() as loopback:
        embedder(loopback, dimensions=8, max_tokens=10).embed(["abc" * 100])
    assert loopback.bodies()[0]["input"] == ["abc" * 10]


def test_known_lengths_need_no_call() -> None:
    server = Server("http://127.0.0.1:1/v1")
    lengths = {
        model: accounts.embedder(model, server).embedding_set.dimensions
        for model in ("text-embedding-3-small", "text-embedding-3-large")
    }
    assert lengths == {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
    assert accounts.embedder("text-embedding-3-large", server, dimensions=256).embedding_set.dimensions == 256


def test_an_unknown_length_is_tried_out_once() -> None:
    with Loopback(embed=embed_by_hash(24)) as loopback:
        model = embedder(loopback)
        assert model.embedding_set.dimensions == model.embedding_set.dimensions == 24
        assert model.embed(["a", "b"]).shape == (2, 24)
    assert len(loopback.calls) == 2


def test_the_set_depends_on_what_shapes_a_vector_and_on_nothing_else() -> None:
    public = "https://api.openai.com/v1"

    def set_id(model: str = "text-embedding-3-small", url: str = public, key: str | None = None, **changes) -> str:
        return accounts.embedder(model, Server(url, key), **changes).embedding_set.set_id

    same = [set_id(), set_id(key="sk-other"), set_id(url="https://api.openai.com/v1/"), set_id(dimensions=1536)]
    assert len(set(same)) == 1
    different = [
        set_id(),
        set_id(model="text-embedding-3-large"),
        set_id(dimensions=256),
        set_id(max_tokens=100),
        set_id(url="http://gpu:8000/v1"),
        set_id(url="http://gpu:8001/v1"),
    ]
    assert len(set(different)) == len(different)


def test_no_texts_ask_nothing() -> None:
    with Loopback() as loopback:
        assert embedder(loopback, dimensions=8).embed([]).shape == (0, 8)
    assert loopback.calls == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (embeddings([[1.0] * 8]), "2 texts were sent and 1 vectors came back"),
        (embeddings([[1.0] * 8] * 3), "2 texts were sent and 3 vectors came back"),
        (embeddings([[1.0] * 8] * 2, indices=[1, 1]), "not numbered one per text"),
        (embeddings([[1.0] * 8] * 2, indices=[1, 2]), "not numbered one per text"),
        (embeddings([[1.0] * 7] * 2), "7 dimensions, expected 8"),
        (embeddings([[1.0] * 8, [1.0] * 7]), "differ in length"),
        (embeddings([[1.0] * 8, [0.0] * 8]), "zero or not finite"),
        (embeddings([[1.0] * 8, [float("nan")] * 8]), "zero or not finite"),
        (embeddings([[1.0] * 8, ["a"] * 8]), "do not hold numbers"),
        (embeddings([[1.0] * 8, "AACAPwAAgD8"]), "not a list of numbers"),
        (failure(400, "maximum context length"), "the server answered 400: maximum context length"),
        (failure(401, "who are you"), "Set OPENAI_API_KEY"),
    ],
)
def test_vectors_that_cannot_be_trusted_are_an_error(answer: Raw, complaint: str) -> None:
    with Loopback(embed=lambda body, call: answer) as loopback, pytest.raises(ProviderError, match=complaint) as error:
        embedder(loopback, dimensions=8).embed(["a", "b"])
    assert "`embedding.model: openai:local`" in str(error.value)


def test_a_text_without_content_is_named() -> None:
    with Loopback() as loopback, pytest.raises(ProviderError, match="text 1 of the batch has no content"):
        embedder(loopback, dimensions=8).embed(["a", " \n "])


def test_a_server_error_is_tried_again() -> None:
    def fails_once(body, call: int) -> Raw | list[list[float]]:
        return failure(500, "busy", retry_after_ms="5") if call == 0 else embed_by_hash()(body, call)

    with Loopback(embed=fails_once) as loopback:
        assert embedder(loopback, dimensions=8).embed(["a"]).shape == (1, 8)


def test_a_slow_disk_holds_requests_back() -> None:
    """What is answered and not yet kept is asked again after a kill, so it must not grow with the corpus."""
    texts = [f"text {n}" for n in range(40)]
    unkept = []
    with Loopback() as loopback:
        server = dataclasses.replace(loopback.server(), concurrency=3)
        kept = 0

        def keep(rows: range, vectors: np.ndarray) -> None:
            nonlocal kept
            time.sleep(0.05)
            unkept.append(len(loopback.bodies()) - kept)
            kept += 1

        accounts.embedder("local", server, spare(), dimensions=8).embed_all(texts, 1, keep, lambda _: None)
    assert kept == 40
    assert max(unkept) <= 2 * 3 - 1
