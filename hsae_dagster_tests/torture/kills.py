"""`kill -9` at random points of every stage: what was finished stays, and the end is that of an undisturbed run."""

import shutil
import time

from hsae_dagster.providers.spending import Ledger
from hsae_dagster_tests.assets.workspace import NAMES, Workspace
from hsae_dagster_tests.torture.children import start_run
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, declare, differences, finished, half_written


def kills(yard: Yard) -> list[Tally]:
    """So many kills in each stage, and as many anywhere in whole runs."""
    per_stage = yard.some(12, 1)
    with asked_server():
        calm = finished(yard, "calm")
        hurt = yard.project("hurt")
        declare(hurt)
        tallies = [_kill_stage(yard, hurt, calm, stage, per_stage) for stage in NAMES]
        whole = yard.project("whole")
        declare(whole)
        tallies.append(_kill_stage(yard, whole, calm, "", per_stage))
    return tallies


def _kill_stage(yard: Yard, hurt: Workspace, calm: Workspace, stage: str, wanted: int) -> Tally:
    """Kill runs of one stage (or of all) until it was done often enough; then let one end."""
    tally = Tally(f"kill -9 during {stage or 'a whole run'}")
    stages = [stage] if stage else []
    before, span, hits = yard.folder / "before", 2.0, 0.0
    shutil.rmtree(before, ignore_errors=True)
    hurt.copy_to(before)
    while tally.tries < wanted:
        kept = _paid(hurt)
        child = start_run(hurt.root, yard.log, NAME, *stages)
        child.wait_until_begun()
        begun = time.monotonic()
        child.process.join(float(yard.rng.uniform(0.0, span)))
        if not child.kill():
            # It had ended: begin again, and strike earlier from now on.
            span = 0.9 * min(span, time.monotonic() - begun)
            shutil.rmtree(hurt.root)
            Workspace(before).copy_to(hurt.root)
            continue
        hits = max(hits, time.monotonic() - begun)
        tally.tries += 1
        if _paid(hurt) < kept:
            tally.lost.append(f"{kept - _paid(hurt)} paid answers after kill {tally.tries}")
        tally.wrong += half_written(hurt)
    said = yard.run(hurt, *stages)
    if not said.success:
        tally.lost.append(f"the run after the kills failed: {said.words[-2000:]}")
    tally.wrong += differences(hurt, calm, *stages)
    tally.note = f"at 0 to {hits:.1f} s"
    return tally


def _paid(workspace: Workspace) -> int:
    return Ledger(workspace.project.results).spent(NAME).calls
