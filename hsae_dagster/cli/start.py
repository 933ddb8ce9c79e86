"""`hsae init` and `hsae ui`: the project's records, and Dagster on them.

Belongs here: preparing and starting. Does not belong here: what Dagster then runs.
"""

import os
import socket
import sys
from pathlib import Path

import click

from hsae_dagster.cli.registered import register
from hsae_dagster.cli.samples import fetch
from hsae_dagster.cli.serve import serve_beside
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import project_root


@click.command()
def init() -> None:
    """Write .env and the Dagster home, so that terminal and UI share their records."""
    home = prepare_home(project_root())
    click.echo(f"Records are kept in {home}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port on this machine.")
@click.option("--sample", "samples", multiple=True, help="Fetch this sample first; may be given several times.")
def ui(port: int, samples: tuple[str, ...]) -> None:
    """Open Dagster on this machine with every dataset under data/ ready to materialize."""
    prepare_home(project_root())
    if not _is_free(port):
        raise click.ClickException(
            f"Port {port} on this machine is taken, perhaps by another Dagster. "
            f"Stop it, or choose another: make ui PORT={port + 10}"
        )
    register(others=False)  # before anything that takes time and may be interrupted
    for name in samples:
        if problem := fetch(name):
            raise click.ClickException(problem)
    names = register()
    click.echo(f"Datasets ready: {', '.join(names) or 'none'}")
    click.echo(f"Dagster opens at http://127.0.0.1:{port}  (Ctrl-C stops it)")
    os.environ.setdefault("HSAE_DAGSTER_URL", f"http://127.0.0.1:{port}")
    reports = port % 65535 + 1
    if _is_free(reports):
        os.environ.setdefault("HSAE_REPORTS_URL", f"http://127.0.0.1:{reports}")
        serve_beside(reports)
        click.echo(f"Reports are at http://127.0.0.1:{reports}")
    else:
        click.echo(f"Reports are not served: port {reports} on this machine is taken.")
    click.echo("Assets → corpus … evaluation_report → Materialize → choose a dataset")
    binary = Path(sys.executable).with_name("dg")
    # dg warns unless the environment it runs in is also the activated one.
    os.environ |= {"VIRTUAL_ENV": sys.prefix, "PATH": f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    os.chdir(project_root())
    os.execv(binary, [str(binary), "dev", "--host", "127.0.0.1", "--port", str(port)])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
