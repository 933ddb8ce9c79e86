"""Embeddings from any OpenAI-compatible server."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import EmbeddingSet, hash_json
from hsae_dagster.providers.base import Embedder, Keep, Report, say_nothing
from hsae_dagster.providers.openai.client import OpenAIClient, TooManyInputsError
from hsae_dagster.providers.openai.requests import Body, LazyBodies, packed
from hsae_dagster.providers.replies import Reply
from hsae_dagster.providers.spending import Estimate

BYTES_PER_TOKEN = 3
# OpenAI's limits per request.
MAX_INPUTS, MAX_REQUEST_TOKENS = 2048, 300_000
KNOWN_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


class OpenAIEmbedder(Embedder):
    """`openai:<model>`: unit vectors from an embeddings endpoint.

    Vectors are scaled to unit length here; OpenAI's are so already, other servers' need not be.

    Raises:
        ProviderError: no key, a text without content, a request that failed after its retries (also the one that tries
            out how long an unknown model's vectors are), or vectors of the wrong number, length or content.
    """

    def __init__(self, client: OpenAIClient, max_tokens: int = 256, dimensions: int | None = None) -> None:
        self.client = client
        self.model = client.asker.model
        self.max_tokens = max_tokens
        self.dimensions = dimensions
        self._known_length = dimensions or KNOWN_DIMENSIONS.get(self.model)

    @property
    def embedding_set(self) -> EmbeddingSet:
        """Identity of the vectors: model, server, dimensions, the cut and the scaling."""
        shape = {
            "model": self.model,
            "server": self.client.server.endpoint,
            "dimensions": self._length,
            "max_tokens": self.max_tokens,
            "cut": f"strip,utf8/{BYTES_PER_TOKEN}",
            "normalise": "l2",
        }
        return EmbeddingSet(model=f"openai:{self.model}", dimensions=self._length, set_id=hash_json(shape))

    def known_set(self) -> EmbeddingSet | None:
        """The `embedding_set` if it is known without asking the server."""
        return self.embedding_set if self._known_length else None

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (n, dimensions) float32 of unit length."""
        found = np.empty((len(texts), self._length), np.float32)

        def keep(rows: range, vectors: np.ndarray) -> None:
            found[rows.start : rows.stop] = vectors

        self.embed_all(texts, len(texts), keep, say_nothing)
        return found

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Keep, report: Report) -> None:
        """`embed` for many texts, several requests at a time; `keep` gets rows and vectors as they come."""
        expected = self._length

        def checked(rows: range, vectors: np.ndarray) -> None:
            if vectors.shape[1] != expected:
                raise self._error(
                    f"vectors have {vectors.shape[1]} dimensions, expected {expected}. Set embedding.dimensions to "
                    "what this server's model gives"
                )
            keep(rows, vectors)

        self._ask(texts, batch_size, checked, report)

    @cached_property
    def _length(self) -> int:
        if self._known_length:
            return self._known_length
        found: list[np.ndarray] = []
        self._ask(["How long is a vector?"], 1, lambda rows, vectors: found.append(vectors), say_nothing)
        return int(found[0].shape[1])

    def _ask(self, texts: Sequence[str], batch_size: int, keep: Keep, report: Report) -> None:
        cut = [self._cut(text, row) for row, text in enumerate(texts)]
        left = [range(len(cut))]
        while left:
            spans = [span for rows in left for span in self._spans(cut, rows, batch_size)]
            left = self._ask_spans(cut, spans, keep, report)

    def _ask_spans(self, cut: Sequence[str], spans: list[range], keep: Keep, report: Report) -> list[range]:
        """Ask once; what is left where a request held more texts than the server takes."""
        done: set[int] = set()

        def arrived(index: int, reply: Reply) -> None:
            keep(spans[index], self._unit(reply.value))
            done.add(index)

        bodies = LazyBodies(len(spans), lambda index: self._body([cut[row] for row in spans[index]]))
        try:
            replies = self.client.ask_all(bodies, report, arrived=arrived)
        except TooManyInputsError as error:
            self.client.known.learn_inputs(error.inputs // 2)
            report(
                f"{self.client.asker.name}: {self.client.server.endpoint} does not take {error.inputs} texts at once "
                f"({error}); it is asked with at most {error.inputs // 2}. Set embedding.batch_size to that"
            )
            return [span for index, span in enumerate(spans) if index not in done]
        problem = next((reply.reason for reply in replies if reply.reason is not None), None)
        if problem:
            raise self._error(problem)
        # Requests for the same texts are sent once.
        for index in set(range(len(spans))) - done:
            keep(spans[index], self._unit(replies[index].value))
        return []

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        """What embedding these texts in batches would take now."""
        cut = [self._cut(text, row) for row, text in enumerate(texts)]
        spans = self._spans(cut, range(len(cut)), batch_size)
        return self.client.estimate(LazyBodies(len(spans), lambda i: self._body([cut[row] for row in spans[i]])))

    def _spans(self, cut: Sequence[str], rows: range, batch_size: int) -> list[range]:
        """Rows in requests, each as large as the batch, the server and the limits allow."""
        most = min(batch_size, self.client.known.dialect.inputs or MAX_INPUTS, MAX_INPUTS)
        tokens = (estimate_tokens(cut[row]) for row in rows)
        return [rows[part.start : part.stop] for part in packed(tokens, max(most, 1), MAX_REQUEST_TOKENS - 1)]

    def _body(self, texts: list[str]) -> Body:
        # A third of the bytes, and no digits to read. A server that speaks floats only is asked without (`Dialect`).
        body: Body = {"model": self.model, "input": texts, "encoding_format": "base64"}
        return body if self.dimensions is None else {**body, "dimensions": self.dimensions}

    def _cut(self, text: str, row: int) -> str:
        cut = cut_to_tokens(text, self.max_tokens)
        if not cut:
            raise self._error(f"text {row} of the batch has no content. Leave it out of the dataset")
        return cut

    def _unit(self, vectors: Sequence[Any]) -> np.ndarray:
        try:
            matrix = np.array(vectors, dtype=np.float64)
            lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        except (TypeError, ValueError):
            raise self._error("vectors differ in length or do not hold numbers") from None
        if not np.isfinite(lengths).all() or not lengths.all():
            raise self._error("a vector is zero or not finite")
        return (matrix / lengths).astype(np.float32)

    def _error(self, problem: str) -> ProviderError:
        return ProviderError(
            f"{self.client.asker.name} at {self.client.server.endpoint}: {problem}. Texts embedded before are kept; "
            "run again to go on."
        )


def cut_to_tokens(text: str, max_tokens: int) -> str:
    """The beginning of a text, outer white space removed, at most `max_tokens` estimated tokens long."""
    return text.strip().encode("utf-8", "replace")[: max_tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore").strip()


def estimate_tokens(text: str) -> int:
    """UTF-8 bytes / 3, rounded up."""
    return -(-len(text.encode("utf-8")) // BYTES_PER_TOKEN)
