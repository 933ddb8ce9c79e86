"""`hsae worker`: a Celery worker for this project's steps.

Belongs here: writing the worker's configuration in the one shape that is understood, and starting it. Does not belong
here: the executor that gives steps to workers (`executors`).
"""

import os
import sys
from pathlib import Path

import click
import yaml

from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.op_tags import GPU_QUEUE
from hsae_dagster.resources import project_root

CPU_QUEUE = "dagster"


@click.command()
@click.option("--gpu", is_flag=True, help="Take the steps that need a GPU; without it, all the others.")
@click.option("--name", help="Name of the worker, if a machine has several of a kind.")
def worker(gpu: bool, name: str | None) -> None:
    """Start a Celery worker for steps of this project, until Ctrl-C (HSAE_EXECUTOR=celery)."""
    home = prepare_home(project_root())
    config = write_celery_config(home)
    queue = GPU_QUEUE if gpu else CPU_QUEUE
    binary = Path(sys.executable).with_name("dagster-celery")
    if not binary.exists():
        raise HsaeError("dagster-celery is not installed. Install it with `pip install -e '.[celery]'`.")
    # A step on a GPU must not be forked from a process that may have touched CUDA; it runs in the worker itself.
    pool = ["--pool", "solo"] if gpu else ["--concurrency", "2"]
    command = ["worker", "start", "-A", "dagster_celery.app", "-y", str(config), "-q", queue, "-n", name or queue, "--"]
    click.echo(f"Worker for queue `{queue}`, configured by {config}")
    os.environ["PATH"] = f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["HSAE_EXECUTOR"] = "celery"
    os.execv(binary, [str(binary), *command, *pool])


def write_celery_config(home: Path) -> Path:
    """Write $DAGSTER_HOME/celery.yaml from the settings; returns its path.

    Broker and backend must stand below `execution: config:`. A flat file is passed over without a word, and the worker
    answers where nobody listens.
    """
    from hsae_dagster.executors import celery_config

    path = home / "celery.yaml"
    path.write_text(yaml.safe_dump({"execution": {"config": celery_config()}}), encoding="utf-8")
    return path
