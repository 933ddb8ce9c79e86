"""What the machine refuses: no room, no permission, no network. Each is a sentence, and the next run goes on.

A full disk is a small tmpfs where one may mount, and elsewhere a limit on the size of files (EFBIG instead of ENOSPC).
For root nothing is unreadable, so a child of root gives up that power of its.
"""

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hsae_dagster.providers.openai import requests as openai_server
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.providers.loopback import Loopback, Raw
from hsae_dagster_tests.torture.children import Child, Said, finished_run, run_stages
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, declare, differences, finished, half_written

# Of Linux' capabilities, those by which root reads and writes what its permissions forbid.
POWERS = (1, 2)
PR_CAPBSET_DROP = 24
KIB = 1024
HANG_UP = Raw(hang_up=True)
RETRIES = 1


def machine(yard: Yard) -> list[Tally]:
    """All of it."""
    with asked_server(0.0) as server:
        calm = finished(yard, "calm")
        return [_full_disk(yard, calm), _unreadable(yard, calm), _no_network(yard, calm, server)]


def _sentence(said: Said, tally: Tally, where: str) -> bool:
    """Whether a run ended in sentences alone; what else it said is wrong."""
    if said.crash or not said.sentences:
        tally.wrong.append(f"{where}: no sentence but {said.crash[-1500:]}")
        return False
    words = " ".join(said.sentences.values())
    if "run again" not in words.lower() and "materialize" not in words.lower():
        tally.wrong.append(f"{where}: no remedy in {words}")
    return True


def _full_disk(yard: Yard, calm: Workspace) -> Tally:
    """Results on a disk that is full sooner or later; then there is room."""
    tally = Tally("the disk is full")
    needed = sum(path.stat().st_size for path in calm.project.results.rglob("*") if path.is_file())
    with _small_disk(yard.folder / "disk", 2 * needed) as (top, real):
        hurt = Workspace(top / "hurt")
        for _ in range(yard.some(14, 1)):
            shutil.rmtree(hurt.root, ignore_errors=True)
            declare(hurt)
            room = int(yard.rng.integers(needed // 50, needed))
            with _filled(top, room) if real else _limited(room // 8) as limit:
                said = _run(yard, hurt, limit)
            tally.tries += 1
            if said.success:
                continue  # there was room enough
            _sentence(said, tally, f"with room for {room // KIB} KiB")
            tally.wrong += half_written(hurt)
            again = _run(yard, hurt)
            if not again.success:
                tally.lost.append(f"the run after there was room: {again.words[-1500:]}")
            tally.wrong += differences(hurt, calm)
    tally.note = "a tmpfs" if real else "no tmpfs can be mounted here: a limit on the size of files"
    return tally


def _run(yard: Yard, workspace: Workspace, limit: int | None = None, retries: int | None = None) -> Said:
    return finished_run(Child(partial(_limited_run, str(workspace.root), limit, retries), yard.log))


def _limited_run(root: str, limit: int | None, retries: int | None) -> dict[str, Any]:
    """In a child: a run that may write no file larger than `limit` bytes, and that permissions bind.

    It repeats a failed request `retries` times, if that is given, rather than as often as users' runs do.
    """
    if retries is not None:
        openai_server.Server = _impatient(retries)  # type: ignore[misc]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    give_up_powers()
    return run_stages(root, NAME, [])


def _impatient(retries: int) -> type[openai_server.Server]:
    """The same server, less patient."""

    @dataclass(frozen=True)
    class Impatient(openai_server.Server):
        max_retries: int = retries

    return Impatient


def give_up_powers() -> None:
    """Have permissions bind this process, and the program it becomes, even if it is root's."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for power in POWERS:
        # Else a program that root starts gets them back.
        if libc.prctl(PR_CAPBSET_DROP, power, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    for power in POWERS:
        for word in (0, 1):  # effective, permitted
            held[word] &= ~(1 << power)
    if libc.capset(header, held):
        raise OSError(ctypes.get_errno(), "capset")


@contextmanager
def _small_disk(place: Path, size: int) -> Iterator[tuple[Path, bool]]:
    """A folder on a tmpfs of `size` bytes, and whether it could be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = (
        shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    try:
        yield place, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def _filled(top: Path, room: int) -> Iterator[None]:
    """All of the disk taken but for `room` bytes."""
    usage, ballast = shutil.disk_usage(top), top / "ballast"
    ballast.write_bytes(b"\0" * max(usage.free - room, 0))
    try:
        yield None
    finally:
        ballast.unlink()


@contextmanager
def _limited(room: int) -> Iterator[int]:
    yield room


def _unreadable(yard: Yard, calm: Workspace) -> Tally:
    """Files and folders that the user who runs this may not read or write."""
    tally = Tally("unreadable files and folders")
    places = (
        "data/asked/texts.parquet",
        "data/asked/dataset.yaml",
        "results/objects/corpus",
        "results/lancedb",
        "results/records.sqlite",
        "results",
    )
    for place in places[: yard.some(len(places), 1)]:
        hurt = yard.project("locked")
        calm.copy_to(hurt.root)
        shutil.rmtree(hurt.project.results / "objects" / "sae_checkpoints")
        path = hurt.root / place
        before = path.stat().st_mode
        path.chmod(0)
        said = _run(yard, hurt)
        path.chmod(before)
        tally.tries += 1
        if said.success:
            tally.wrong.append(f"{place} could not be read, and nobody noticed")
        elif _sentence(said, tally, place) and path.name not in " ".join(said.sentences.values()):
            tally.wrong.append(f"{place} is not named in {said.sentences}")
        again = _run(yard, hurt)
        tally.lost += [] if again.success else [f"after {place} was readable again: {again.words[-1500:]}"]
        tally.wrong += differences(hurt, calm)
    return tally


def _no_network(yard: Yard, calm: Workspace, server: Loopback) -> Tally:
    """The server is gone in the middle of a run, and back for the next."""
    tally = Tally("the network is gone in the middle of a run")
    chat, embed = server.chat, server.embed
    for _ in range(yard.some(6, 1)):
        hurt = yard.project("offline")
        declare(hurt)
        alive = int(yard.rng.integers(1, 150))
        server.calls.clear()

        def mortal(script: Any, alive: int = alive) -> Any:
            return lambda body, call: HANG_UP if call >= alive else script(body, call)

        server.chat, server.embed = mortal(chat), mortal(embed)
        # It is gone for good; six tries of every request at work would add a minute of waiting and no trouble.
        said = _run(yard, hurt, retries=RETRIES)
        server.chat, server.embed = chat, embed
        tally.tries += 1
        if not said.success:
            _sentence(said, tally, f"after {alive} answers")
        again = _run(yard, hurt)
        tally.lost += [] if again.success else [f"with the network back: {again.words[-1500:]}"]
        tally.wrong += differences(hurt, calm)
    return tally
