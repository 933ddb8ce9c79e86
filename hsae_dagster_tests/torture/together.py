"""Two at once: runs of one partition, writers of one table and one ledger, evaluations of one holdout.

No row may be lost or doubled, nothing paid twice, and nobody may wait for ever.
"""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from hsae_dagster.errors import HsaeError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.providers.openai.requests import canonical
from hsae_dagster.providers.replies import Usage
from hsae_dagster.providers.spending import Entry, Ledger
from hsae_dagster.storage.holdouts import HoldoutRegister
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.vectors import VectorTable
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.storage.test_holdouts import keys, plan
from hsae_dagster_tests.torture.children import Child, finished_run, start_run
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, declare, differences, finished

FAMILY = EmbeddingSet("torture", 8, "0" * 32)
ROWS, BATCH = 400, 20


def together(yard: Yard) -> list[Tally]:
    """All of it."""
    return [_runs(yard), _vectors(yard), _ledger(yard), _looks(yard)]


def _runs(yard: Yard) -> Tally:
    """Two processes materialize the same partition from nothing."""
    tally = Tally("two runs of one partition at once")
    with asked_server() as server:
        calm = finished(yard, "calm")
        needed = Counter(canonical(body) for body in server.bodies())
        for turn in range(yard.some(4, 1)):
            server.calls.clear()
            shared = yard.project(f"shared-{turn}")
            declare(shared)
            logs = [yard.folder / f"run-{turn}-{each}.log" for each in range(2)]
            for said in [finished_run(child) for child in [start_run(shared.root, log, NAME) for log in logs]]:
                tally.tries += 1
                if not said.success:
                    tally.lost.append(f"a run beside another failed: {said.words[-1500:]}")
            tally.wrong += differences(shared, calm)
            asked = Counter(canonical(body) for body in server.bodies())
            tally.lost += [f"{n - needed[body]} requests paid twice" for body, n in asked.items() if n > needed[body]]
            tally.lost += [f"{n} rows of a vector twice" for n in _doubled(shared.project.results)]
            if len(LineageLog(shared.store).records(NAME)) != 1:
                tally.wrong.append("the evaluation is recorded twice")
    return tally


def _doubled(results: Path) -> list[int]:
    import lancedb

    database, found = lancedb.connect(str(results / "lancedb")), []
    for name in database.list_tables().tables:
        held = Counter(
            database.open_table(name).search().select(["text_id"]).limit(None).to_arrow()["text_id"].to_pylist()
        )
        found += [n - 1 for n in held.values() if n > 1]
    return found


def vector_of(key: str) -> np.ndarray:
    """What every writer writes of a key."""
    return np.frombuffer(bytes.fromhex(key)[:8], dtype=np.uint8).astype(np.float32)


def append_vectors(root: str, first: int) -> int:
    """In a child: append keys from `first` on, in small commits; half of them are another writer's too."""
    own = [f"{n:032x}" for n in range(first, first + ROWS)]
    table = VectorTable(Path(root), "shared", FAMILY)
    for start in range(0, ROWS, BATCH):
        batch = own[start : start + BATCH]
        table.append(batch, np.array([vector_of(key) for key in batch]))
    return ROWS


def _vectors(yard: Yard) -> Tally:
    tally = Tally("processes append to one vector table")
    for turn in range(yard.some(5, 1)):
        root = yard.folder / f"vectors-{turn}"
        work = [partial(append_vectors, str(root), ROWS // 2 * each) for each in range(3)]
        _all_end(yard, tally, work)
        wanted = [f"{n:032x}" for n in range(2 * ROWS)]
        table = VectorTable(root, "shared", FAMILY)
        tally.lost += [f"{len(set(wanted) - table.keys())} keys"] if set(wanted) - table.keys() else []
        tally.tries += 2 * ROWS
        try:
            wrong = ~(table.read(wanted) == np.array([vector_of(key) for key in wanted])).all(axis=1)
            tally.wrong += [f"{wrong.sum()} vectors"] if wrong.any() else []
            tally.wrong += [f"a key has {n} rows too many" for n in _doubled(root)]
        except HsaeError as error:
            tally.lost.append(str(error))
    tally.note = "rows"
    return tally


def append_answers(root: str, writer: int) -> int:
    """In a child: append answers that only this writer has, in small commits."""
    ledger = Ledger(Path(root))
    for start in range(0, ROWS, BATCH):
        keep(ledger.root, *(_entry(f"{writer:08x}{n:024x}") for n in range(start, start + BATCH)))
    return ROWS


def _entry(key: str) -> Entry:
    return Entry(
        request_hash=key, kind="chat", dataset="shared", stage="s", run_id="r", server="here", model="m",
        prompt_hash=None, sent_bytes=1, answer=key, parsed=f'"{key}"', reason=None, usage=Usage(), cost_usd=1.0,
        tier="standard",
    )  # fmt: skip


def _ledger(yard: Yard) -> Tally:
    tally = Tally("processes append to one ledger")
    for turn in range(yard.some(5, 1)):
        root = yard.folder / f"ledger-{turn}"
        _all_end(yard, tally, [partial(append_answers, str(root), each) for each in range(3)])
        hashes = [f"{writer:08x}{n:024x}" for writer in range(3) for n in range(ROWS)]
        found = Ledger(root).find(hashes, "here", "m")
        tally.tries += len(hashes)
        tally.lost += [f"{len(hashes) - len(found)} answers"] if len(found) < len(hashes) else []
        tally.wrong += [f"another answer to {key}" for key, entry in found.items() if entry.answer != key]
        if Ledger(root).spent("shared").usd != len(hashes):
            tally.wrong.append("an answer counts twice")
    tally.note = "rows"
    return tally


def open_looks(root: str, first: int) -> list[int]:
    """In a child: looks at one holdout under plans of its own; the number of each."""
    register, numbers, holdout = HoldoutRegister(Path(root)), [], keys()
    for n in range(first, first + BATCH):
        made = plan(holdout, f"concept {n}")
        register.freeze(made, holdout)
        numbers.append(register.look(made, dataset="shared", judged_under=None).number)
    return numbers


def _looks(yard: Yard) -> Tally:
    tally = Tally("evaluations look at one holdout at once")
    for turn in range(yard.some(3, 1)):
        root = yard.folder / f"looks-{turn}"
        told = _all_end(yard, tally, [partial(open_looks, str(root), BATCH * each) for each in range(2)])
        numbers = sorted(number for found in told for number in found)
        tally.tries += 2 * BATCH
        if numbers != list(range(1, 2 * BATCH + 1)):
            tally.wrong.append(f"looks are numbered {numbers}")
    tally.note = "looks"
    return tally


def _all_end(yard: Yard, tally: Tally, work: list) -> list:
    children = [Child(each, yard.folder / f"{tally.test.replace(' ', '-')}-{n}.log") for n, each in enumerate(work)]
    told = []
    for child in children:
        try:
            told.append(child.end(120.0))
        except AssertionError as error:
            tally.lost.append(f"a writer failed or waited for ever: {str(error)[-1500:]}")
    return told
