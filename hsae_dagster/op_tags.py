"""Tags that say where a step may run: the one place, read by every executor. Depends on nothing.

`hsae/device` limits GPU steps within a run of the multiprocess executor; the other keys are read by Ray and
Kubernetes executors when one of them is chosen. `GPU_POOL` limits GPU steps across runs (dagster.yaml).
"""

from typing import Any

GPU_POOL = "gpu"
DEVICE_TAG = "hsae/device"

GPU_OP_TAGS: dict[str, Any] = {
    DEVICE_TAG: "gpu",
    "dagster-ray/config": '{"num_gpus": 1, "num_cpus": 1}',
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}
