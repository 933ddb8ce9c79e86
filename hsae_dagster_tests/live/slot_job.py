"""A job whose only step holds the GPU slot until told to let go: python -m hsae_dagster_tests.live.slot_job NAME.

It has the executor, the tags and the pool of the project, and writes a line to $SLOT_FOLDER/held when it gets the slot
and when it gives it back.
"""

import os
import sys
import time
from pathlib import Path

import dagster as dg

from hsae_dagster.orchestration.executors import GPU_OP_TAGS, GPU_POOL, choose_executor, end_with_worker


@dg.op(tags=GPU_OP_TAGS, pool=GPU_POOL)
def hold(context: dg.OpExecutionContext) -> None:
    end_with_worker(context.instance, context.run_id)
    folder, name = Path(os.environ["SLOT_FOLDER"]), context.run.tags["name"]
    with (folder / "held").open("a", encoding="utf-8") as stream:
        stream.write(f"got {name} {os.getpid()}\n")
    while not (folder / f"release {name}").exists():
        time.sleep(0.05)
    with (folder / "held").open("a", encoding="utf-8") as stream:
        stream.write(f"gave {name} {os.getpid()}\n")


@dg.job(executor_def=choose_executor())
def slot() -> None:
    hold()


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        done = dg.execute_job(
            dg.reconstructable(slot), instance=instance, tags={"name": sys.argv[1]}, raise_on_error=False
        )
        sys.exit(0 if done.success else 1)
