"""The project's own stages on a real Ray cluster and on real Celery workers: GPU steps go where the GPU is."""

import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hsae_dagster.gpu_wait import CHECK
from hsae_dagster_tests.assets.workspace import Workspace, asset_key, tiny_texts
from hsae_dagster_tests.live.processes import CHECKOUT, Processes, free_port, make_home, processes, wait_for

STAGES = ["corpus", "embeddings", "sae_checkpoints"]
GPU_STAGE = "sae_checkpoints"
SMALL = {"max_epochs": 5, "batch_size": 32}
TWO = [{"m": 8, "k": 2, **SMALL}, {"m": 6, "k": 3, **SMALL}]
# Steps of the GPU stage: only training asks for a GPU.
TRAINING = [f"{GPU_STAGE}.train[sae1_m8_k2]", f"{GPU_STAGE}.train[sae2_m6_k3]"]
ON_CPU = ["corpus", "embeddings", f"{GPU_STAGE}.list_untrained", f"{GPU_STAGE}.gather"]


@dataclass(frozen=True)
class Elsewhere:
    """A project with one dataset, whose run is being executed by workers."""

    running: Processes
    instance: dg.DagsterInstance

    def launch(self) -> "subprocess.Popen[bytes]":
        return self.running.python("run", "-m", "hsae_dagster_tests.live.launch", "one", *STAGES)

    def run(self) -> dg.DagsterRun | None:
        return next(iter(self.instance.get_runs()), None)

    def messages(self) -> list[tuple[int, str, str]]:
        """Level, step and text of everything in the run's log."""
        run = self.run()
        entries = self.instance.all_logs(run.run_id) if run else []
        return [(entry.level, entry.step_key or "", entry.message) for entry in entries]

    def celery_workers(self) -> dict[str, str]:
        """Name of the worker that each step says it runs on."""
        run = self.run()
        assert run is not None
        found = {}
        for entry in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            told = entry.dagster_event.engine_event_data.metadata if entry.dagster_event else {}
            if "Celery worker" in told:
                found[str(told["step_keys"].value)] = str(told["Celery worker"].value).split("@")[0]
        return found

    def warnings(self) -> list[str]:
        return [text for level, _, text in self.messages() if level == logging.WARNING and "no worker" in text]

    def check(self) -> Any:
        """The last verdict on whether a worker took the GPU step."""
        key = dg.AssetCheckKey(asset_key(GPU_STAGE), CHECK)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        event = records[0].event.dagster_event if records and records[0].event else None
        found = event.event_specific_data if event else None
        return found if isinstance(found, dg.AssetCheckEvaluation) else None

    def succeeded(self, process: "subprocess.Popen[bytes]") -> None:
        wait_for("the run ends", lambda: process.poll() is not None)
        assert process.returncode == 0, self.running.log("run")[-3000:]

    def told_of_the_missing_worker(self) -> None:
        (warning,) = wait_for("a warning that no worker takes the GPU step", self.warnings)
        assert any(f"`{step}` of dataset `one` needs a GPU" in warning for step in TRAINING)
        wait_for("the failed check", lambda: self.check() is not None and not self.check().passed)
        assert self.check().metadata["dataset"].value == "one"
        assert self.check().metadata["seconds waited"].value >= 4


@contextmanager
def elsewhere(folder: Path, **environment: str) -> Iterator[Elsewhere]:
    workspace = Workspace(folder / "project")
    workspace.declare("one", tiny_texts(120), saes=TWO)
    shutil.copy(CHECKOUT / ".env.example", workspace.root)
    home = make_home(folder / "home")
    project = {
        "DAGSTER_HOME": str(home),
        "HSAE_HOME": str(workspace.root),
        "HSAE_DATA_DIR": workspace.project.data_dir,
        "HSAE_RESULTS_DIR": workspace.project.results_dir,
        "HSAE_GPU_WAIT": "4",
    }
    with (
        processes(folder / "logs", **project, **environment) as running,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        yield Elsewhere(running, instance)


def get(url: str) -> Any:
    """The JSON at a URL of this machine; None while nobody answers."""
    with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=5) as reply:
        return json.load(reply)
    return None


@pytest.mark.slow
def test_on_ray_a_gpu_step_waits_for_a_node_with_a_gpu_and_says_so(tmp_path: Path) -> None:
    port, jobs = free_port(), f"http://127.0.0.1:{free_port()}"
    # Ray's sockets need a short path.
    short = Path(tempfile.mkdtemp(prefix="ray"))
    environment = {"HSAE_EXECUTOR": "ray", "RAY_ADDRESS": jobs, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        with elsewhere(tmp_path, **environment) as project:
            ray = "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2", f"--temp-dir={short}"
            dashboard = f"--dashboard-port={jobs.rsplit(':', 1)[1]}", "--dashboard-host=127.0.0.1"
            project.running.python("head", *ray, "--head", "--num-gpus=0", f"--port={port}", *dashboard)
            wait_for("Ray's head answers", lambda: get(f"{jobs}/api/version"))
            process = project.launch()
            project.told_of_the_missing_worker()
            project.running.look()

            address = f"{_own_address()}:{port}"
            project.running.python("node", *ray, "--num-gpus=1", f"--address={address}", RAY_ADDRESS="")
            project.succeeded(process)
            assert project.check().passed
            assert project.check().metadata["visible GPUs"].value == "0"
            nodes = {job["metadata"]["dagster/op"]: job["driver_node_id"] for job in get(f"{jobs}/api/jobs/")}
            assert set(nodes) == {*ON_CPU, *TRAINING}
            assert len({nodes[step] for step in ON_CPU}) == 1
            assert len({nodes[step] for step in TRAINING}) == 1
            assert nodes[TRAINING[0]] != nodes[ON_CPU[0]]
            project.running.look()
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _own_address() -> str:
    """This machine's address as Ray finds it: of the interface that leads outside, or loopback where none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 80))  # nothing is sent; the address is reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


@pytest.fixture(scope="session")
def redis_server() -> str:
    """Debian's redis-server; installed if it is not there and may be."""
    if shutil.which("redis-server") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "redis-server"]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(install, env=quiet, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update"], env=quiet, capture_output=True, check=False)
            subprocess.run(install, env=quiet, capture_output=True, check=False)
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed, and this user cannot install it: apt-get install redis-server")
    return found


@pytest.mark.slow
def test_on_celery_a_gpu_step_waits_for_a_gpu_worker_and_says_so(tmp_path: Path, redis_server: str) -> None:
    port = free_port()
    environment = {
        "HSAE_EXECUTOR": "celery",
        "HSAE_CELERY_BROKER": f"redis://127.0.0.1:{port}/0",
        "HSAE_CELERY_BACKEND": f"redis://127.0.0.1:{port}/1",
        "C_FORCE_ROOT": "1",  # tests may run as root in a container
    }
    with elsewhere(tmp_path, **environment) as project:
        redis = redis_server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)
        project.running.start("redis", *redis)
        worker = "-m", "hsae_dagster", "worker", "--name"
        project.running.python("cpu", *worker, "cpu1")
        process = project.launch()
        project.told_of_the_missing_worker()
        project.running.look()

        project.running.python("gpu", *worker, "gpu1", "--gpu")
        project.succeeded(process)
        assert project.check().passed
        assert project.celery_workers() == dict.fromkeys(ON_CPU, "cpu1") | dict.fromkeys(TRAINING, "gpu1")
        project.running.look()
