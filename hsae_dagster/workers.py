"""Which process executes a run, and whether it is still there.

Belongs here: the tag by which a run names its process, and what follows from that process' death for the run's own step
processes. Does not belong here: what is done about such a run (`lost_runs`).
"""

import multiprocessing
import os
import platform
import threading
from dataclasses import dataclass

import dagster as dg
import psutil

# Below `.dagster/`, where Dagster keeps its own bookkeeping, which the UI does not show.
WORKER_TAG = ".dagster/hsae_worker"
# A process' start is known to the clock tick, and clocks are adjusted.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class Worker:
    """A process, named so that a later one with the same number is told from it.

    Attributes:
        host: name of the machine.
        pid: process number on it.
        started: when the process started (seconds since 1970).
    """

    host: str
    pid: int
    started: float

    @staticmethod
    def here() -> "Worker":
        """This process."""
        return Worker(platform.node(), os.getpid(), psutil.Process().create_time())

    @staticmethod
    def of(run: dg.DagsterRun) -> "Worker | None":
        """The process that a run's tags name, if they name one.

        A run that is tried again inherits the tags of the first; what they say of that one's process is not about it.
        """
        try:
            run_id, host, pid, started = run.tags.get(WORKER_TAG, "").split(" ", 3)
            return Worker(host, int(pid), float(started)) if run_id == run.run_id else None
        except ValueError:
            return None

    def tags(self, run_id: str) -> dict[str, str]:
        """The tag that names this process as the one of a run."""
        return {WORKER_TAG: f"{run_id} {self.host} {self.pid} {self.started:.2f}"}

    @property
    def is_local(self) -> bool:
        """Whether it runs, or ran, on this machine; of other machines nothing can be said here."""
        return self.host == platform.node()

    def is_gone(self) -> bool:
        """Whether it was a process of this machine and has ended."""
        if not self.is_local:
            return False
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return ended or abs(process.create_time() - self.started) > _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return True


def end_with_worker(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let this step process end as soon as the process of its run does.

    Without it a step goes on after `kill -9` of its run, on a GPU that another run is given meanwhile. Steps that run
    in the run's own process, or on another machine, are left alone. What the step had finished is kept.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Asked of the records: the step's own copy of the run may be older than the tag.
    run = instance.get_run_by_id(run_id)
    worker = Worker.of(run) if run else None
    if worker is None or not worker.is_local or parent.pid != worker.pid:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)  # no clean-up that could hang: everything is written aside and published whole

    threading.Thread(target=wait, name="end with worker", daemon=True).start()
