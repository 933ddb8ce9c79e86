"""Tags that say where a step may run: the one place, read by every executor. Depends on nothing.

`hsae/device` limits GPU steps within a run of the multiprocess executor; the other keys are read by Ray, Celery and
Kubernetes executors when one of them is chosen. `GPU_POOL` limits GPU steps across runs (dagster.yaml). `LLM_POOL` does
the same for steps that ask a server. Which do is a dataset's choice, so a step takes its slot itself
(`assets.spending`).
"""

from typing import Any

GPU_POOL = "gpu"
LLM_POOL = "llm"
GPU_QUEUE = "gpu"
DEVICE_TAG = "hsae/device"

GPU_OP_TAGS: dict[str, Any] = {
    DEVICE_TAG: "gpu",
    "dagster-celery/queue": GPU_QUEUE,
    "dagster-ray/config": '{"num_gpus": 1, "num_cpus": 1}',
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}
