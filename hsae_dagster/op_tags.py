"""Tags and pools that say where a step may run, and how many at once: the one place, read by every executor.

`hsae/device` limits GPU steps within a run of the multiprocess executor; the other keys are read by Ray and Kubernetes
executors when one of them is chosen. Pools limit steps across runs (dagster.yaml): those that train and those that may
ask a server. Depends on nothing of this project.
"""

import os
import platform
from pathlib import Path
from typing import Any

GPU_POOL = "gpu"
LLM_POOL = "llm"
DEVICE_TAG = "hsae/device"

GPU_OP_TAGS: dict[str, Any] = {
    DEVICE_TAG: "gpu",
    "dagster-ray/config": '{"num_gpus": 1, "num_cpus": 1}',
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}

# Told by the driver, without torch, which takes seconds to import: NVIDIA, and AMD.
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def gpu_pool() -> str | None:
    """The pool of steps that train, or None where steps run on this machine and it has no GPU to wait for."""
    elsewhere = os.environ.get("HSAE_EXECUTOR", "") in ("ray", "k8s")
    return GPU_POOL if elsewhere or _has_gpu() else None


def llm_pool() -> str | None:
    """The pool of steps that may ask a model, or None where no server is named that could be asked too often."""
    return LLM_POOL if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL") else None


def _has_gpu() -> bool:
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(path.exists() for path in _GPU_DEVICES)
