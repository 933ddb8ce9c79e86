"""How the steps of a run are executed, chosen by one setting: HSAE_EXECUTOR.

Belongs here: executor definitions and their limits. Does not belong here: which steps need a GPU (`op_tags`).
"""

import os

import dagster as dg

from hsae_dagster.errors import HsaeError
from hsae_dagster.op_tags import GPU_OP_TAGS

# Imported once in the fork server, so that each step starts in milliseconds instead of seconds. LanceDB is not
# fork-safe and torch must not touch CUDA before the fork, so neither is in this list.
PRELOADED_MODULES = ["hsae_dagster.definitions", "numpy", "scipy.sparse", "polars"]


def choose_executor() -> dg.ExecutorDefinition:
    """The executor named by HSAE_EXECUTOR: `multiprocess` (default) or `in_process`.

    Raises:
        HsaeError: the variable names another.
    """
    name = os.environ.get("HSAE_EXECUTOR", "multiprocess")
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor.configured(
            {
                "max_concurrent": 2,
                "start_method": {"forkserver": {"preload_modules": PRELOADED_MODULES}},
                "tag_concurrency_limits": [{"key": "hsae/device", "value": GPU_OP_TAGS["hsae/device"], "limit": 1}],
            }
        )
    raise HsaeError(f"HSAE_EXECUTOR is `{name}`. Set it to `multiprocess` or `in_process`, or leave it out.")
