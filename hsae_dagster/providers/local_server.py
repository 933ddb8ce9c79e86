"""A model file run in this process: llama.cpp behind the same door as any server.

Belongs here: starting it once per file, and what tells its answers from another's. Does not belong here: asking
(`openai_client`).

Needs the optional runtime: `pip install xllamacpp`.
"""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai_server import Server

CONTEXT, SLOTS = 8192, 2
# Whatever it is running on, the same file gives the same answers under the same name.
PLACE = "local"


def local_server(field: str, path: Path, timeout: float = 900.0) -> Server:
    """The server of a GGUF file, started where it does not run yet; it ends with this process.

    Args:
        field: of dataset.yaml, for error messages.
        path: the file.
        timeout: seconds without a byte before a try counts as lost.

    Raises:
        ProviderError: no such file, no runtime, or it cannot be loaded.
    """
    if not path.is_file():
        raise ProviderError(
            f"`{field}` names the model file {path}, which is not there. Give the path of a .gguf file."
        )
    try:
        running = _start(path.resolve())
    except ImportError:
        raise ProviderError(
            f"`{field}` runs a model in this process, which needs a further package: pip install xllamacpp."
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise ProviderError(f"`{field}`: {path} cannot be loaded: {error}. Give a whole .gguf file.") from error
    return Server(
        base_url=f"{running.listening_address}/v1",
        concurrency=SLOTS,
        timeout=timeout,
        identity=f"{PLACE}/{_digest(path.resolve())}",
    )


def local_identity(path: Path) -> str:
    """The name under which answers of a file are kept."""
    return f"{PLACE}/{_digest(path.resolve())}"


@cache
def _start(path: Path) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.port = CONTEXT * SLOTS, SLOTS, 0
    parameters.n_gpu_layers, parameters.verbosity = 0, 0
    # Its threads wait for each other at every layer: one that has no core holds up all.
    parameters.cpuparams.n_threads = max((os.cpu_count() or 2) - 1, 1)
    return xllamacpp.Server(parameters)


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:16]
