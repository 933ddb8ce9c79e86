"""A browser, a Dagster server, and what is asked of every page.

Belongs here: finding Chromium, starting Dagster on a free port of this machine, accessibility. Does not belong here:
what a person does with it (the tests).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsae_dagster_tests.conftest import CHECKOUT

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SERIOUS = {"serious", "critical"}


def chromium() -> str:
    """The browser's path; without one the test is left out, but never where continuous integration should have it."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        assert not os.environ.get("CI"), "no Chromium: .ci/run installs it"
        pytest.skip("no Chromium on this machine; Debian's package is `chromium`")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def dagster_server(home: Path, data: Path, results: Path) -> Iterator[str]:
    """Dagster's web server and daemon on these records; gives their address.

    From the folder of the records and not from the checkout, whose .env names the developer's own records.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "HSAE_DATA_DIR": str(data),
        "HSAE_RESULTS_DIR": str(results),
        "HSAE_EXECUTOR": "in_process",
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    binary, workspace = Path(sys.executable).with_name("dagster"), CHECKOUT / "workspace.yaml"
    command = [str(binary), "dev", "-w", str(workspace), "--host", "127.0.0.1", "--port", str(port)]
    log = (home / "server.log").open("wb")
    # A session of its own, so that the server and everything it started end together.
    server = subprocess.Popen(
        command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{address}/server_info", server, home / "server.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def _wait(address: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text(encoding="utf-8")[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {address}: {log.read_text(encoding='utf-8')[-2000:]}")


def violations(page: Any) -> list[str]:
    """What axe-core finds to be a serious or critical barrier, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{item['impact']} {item['id']}: {item['help']} ({item['nodes'][0]['html'][:120]})"
        for item in found
        if item["impact"] in _SERIOUS
    ]
