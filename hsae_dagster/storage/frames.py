"""Tables, sparse codes and weights as files.

Belongs here: deterministic writing and reading of Parquet, safetensors and JSON inside a result's folder. Does not
belong here: where the folder is or when it becomes current (`storage.objects`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp


def write_json(path: Path, value: Any) -> None:
    """JSON in the order given (columns of tables keep theirs); NaN and infinity become null."""
    path.write_text(json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Parquet; equal frames give equal bytes."""
    frame.write_parquet(path, compression="zstd", statistics=False)


def read_frame(path: Path) -> pl.DataFrame:
    """The frame of a Parquet file."""
    return pl.read_parquet(path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Named arrays as safetensors."""
    from safetensors.numpy import save

    # Written here rather than by the library, whose error on a full disk is no OSError.
    path.write_bytes(save({name: np.ascontiguousarray(a) for name, a in sorted(arrays.items())}, dict(metadata or {})))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a safetensors file."""
    from safetensors.numpy import load_file

    return load_file(path)


def write_codes(path: Path, codes: sp.csr_matrix) -> None:
    """Sparse codes (texts, neurons) float32 as safetensors."""
    arrays = {
        "data": codes.data.astype(np.float32),
        "indices": codes.indices.astype(np.int32),
        "indptr": codes.indptr.astype(np.int64),
        "shape": np.array(codes.shape, dtype=np.int64),
    }
    write_arrays(path, arrays)


def read_codes(path: Path) -> sp.csr_matrix:
    """Sparse codes as written by `write_codes`."""
    arrays = read_arrays(path)
    parts = (arrays["data"], arrays["indices"], arrays["indptr"])
    return sp.csr_matrix(parts, shape=tuple(arrays["shape"].tolist()))


def finite(value: Any) -> Any:
    """The value as JSON can hold it: plain numbers, and null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
