"""Facts of the machine, and what it can do at best: the rooflines that a row is held against.

Belongs here: what was measured where and when. Does not belong here: any row.
"""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("hypothesaes", "torch", "numpy", "scipy", "scikit-learn", "lancedb", "dagster")


def facts() -> dict[str, Any]:
    """Processor, cores, memory, versions, date, load average: all that a figure depends on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def roofline() -> dict[str, float]:
    """Best of several runs: float32 matrix product in torch (GFLOP/s) and copying memory (GB/s, read and write)."""
    import numpy as np
    import torch

    x, w = torch.randn(512, 1536), torch.randn(1024, 1536)
    product = 2 * x.numel() * len(w) / best(lambda: x @ w.T, 20) / 1e9
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    copied = 2 * source.nbytes / best(lambda: np.copyto(target, source), 5) / 1e9
    return {"float32 matrix product, GFLOP/s": round(product, 1), "memory copy, GB/s": round(copied, 1)}


def best(work: Callable[[], Any], times: int) -> float:
    """Least seconds of a piece of work."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)
