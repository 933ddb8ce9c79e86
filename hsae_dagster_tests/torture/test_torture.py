"""The harness in its short form finds nothing; and it can find something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsae_dagster_tests.live.processes import CHECKOUT
from hsae_dagster_tests.torture.tally import Tally, table, write


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "torture.json"
    done = subprocess.run(
        [sys.executable, "-m", "hsae_dagster_tests.torture", "--short", "--out", str(out)],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert all(row["tries"] and not row["lost"] and not row["wrong"] for row in rows)


def test_the_table_counts_what_was_lost_or_wrong_and_says_what(tmp_path: Path) -> None:
    well, bad, idle = Tally("kills", 3), Tally("damage"), Tally("never done")
    bad.expect(True, "no trouble")
    bad.expect(False, "another result")
    bad.lost.append("a row")
    assert (well.well, bad.well, idle.well) == (True, False, False)
    said = table([well, bad, idle])
    assert "| kills      | 3 | 0 | 0 |" in said
    assert "| damage     | 2 | 1 | 1 |" in said
    assert "| all        | 5 | 1 | 1 |" in said
    assert "damage: wrong: another result" in said
    assert "damage: lost: a row" in said
    assert "never done: nothing was tried" in said
    write([bad], tmp_path / "table.json")
    (row,) = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert (row["tries"], row["lost"], row["wrong"], row["what was wrong"]) == (2, 1, 1, ["another result"])
