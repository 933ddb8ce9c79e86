"""Error rates and coverages by simulation, ours beside the reference's formula, as a table in markdown.

    python benchmarks/error_rates.py [--repetitions 1000] [--only separation]

Belongs here: running the scenarios and writing the table that docs/inference.md holds. Does not belong here: the
scenarios (hsae_dagster_tests/core/simulated_rates.py; the test suite runs them too, with fewer repetitions).
"""

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hsae_dagster_tests.core.simulated_rates import DISCOVERIES, NULLS, REJECTIONS, Scenario, coverages

SEED = 20_261_124


def row(scenario: Scenario, repetitions: int) -> str:
    """One line of the table."""
    ours, theirs = scenario.observe(repetitions, SEED)
    sign = "" if scenario.measure == "coverage" else "≤ "
    cells = [f"{100 * value:.1f} %" if math.isfinite(value) else "none" for value in (ours, theirs)]
    nominal = f"{sign}{100 * scenario.nominal:.3g} %"
    return f"| {scenario.name} | {scenario.measure} | {nominal} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    asked = parser.parse_args()
    started = time.monotonic()
    print("| scenario | observed | nominal | here | reference's formula |\n|---|---|---|---|---|")
    for scenario in [*NULLS, *DISCOVERIES, *REJECTIONS, *coverages()]:
        if asked.only in scenario.name:
            print(row(scenario, asked.repetitions), flush=True)
    error = 100 * math.sqrt(0.05 * 0.95 / asked.repetitions)
    print(f"\n{asked.repetitions} repetitions each: Monte-Carlo standard error {error:.1f} points at 5 or 95 %.")
    print(f"Took {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
