"""`hsae serve`: the reports, in a browser of this machine.

Belongs here: a read-only server of results/reports. Does not belong here: writing them (`assets.publishing`).
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.report.links import REPORTS_PORT
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=REPORTS_PORT, show_default=True, help="On this machine.")
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the process that started this one does.")
def serve(port: int, with_parent: bool) -> None:
    """Show the reports to browsers of this machine, read only, until Ctrl-C."""
    import uvicorn

    prepare_home(project_root())
    folder = Project.here().results / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    if with_parent:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    else:
        click.echo(f"Reports: http://{HOST}:{port}/  (Ctrl-C stops it)")
    uvicorn.run(reports_app(folder), host=HOST, port=port, log_level="warning")


def serve_beside(port: int) -> None:
    """Serve the reports as long as this process lives, whatever it becomes."""
    subprocess.Popen([sys.executable, "-m", "hsae_dagster", "serve", "--port", str(port), "--with-parent"])


def reports_app(folder: Path) -> "Starlette":
    """The files of a folder and nothing else, for whoever asks by this machine's own name.

    Another name would be that of a site in the same browser which had its address changed to this machine's.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    here = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True))], middleware=[here])


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)
