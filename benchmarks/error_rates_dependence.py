"""False confirmations where rows depend on each other or judges err, now and before, as a table in markdown.

    python benchmarks/error_rates_dependence.py [--repetitions 400] [--only pairs]

Belongs here: running the scenarios and writing the table that docs/inference.md holds. Does not belong here: the
scenarios (hsae_dagster_tests/core/simulated_dependence.py and its neighbours; the test suite runs them too).
"""

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hsae_dagster_tests.core.simulated_dependence import DEPENDENT
from hsae_dagster_tests.core.simulated_discovery import DISCOVERY
from hsae_dagster_tests.core.simulated_rates import Scenario

SEED = 20_261_129


def row(scenario: Scenario, repetitions: int) -> str:
    """One line of the table."""
    now, before = scenario.observe(repetitions, SEED)
    sign = {"coverage": "", "true discoveries": ""}.get(scenario.measure, "≤ ")
    shown = [_shown(value, scenario) if math.isfinite(value) else "none" for value in (before, now)]
    return (
        f"| {scenario.name} | {scenario.measure} | {sign}{_shown(scenario.nominal, scenario)} | {' | '.join(shown)} |"
    )


def _shown(value: float, scenario: Scenario) -> str:
    return f"{value:.1f}" if scenario.measure == "true discoveries" else f"{100 * value:.1f} %"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    asked = parser.parse_args()
    started = time.monotonic()
    print("| scenario | observed | nominal | before | now |\n|---|---|---|---|---|")
    for scenario in [*DEPENDENT, *DISCOVERY]:
        if asked.only in scenario.name:
            print(row(scenario, asked.repetitions), flush=True)
    error = 100 * math.sqrt(0.05 * 0.95 / asked.repetitions)
    print(f"\n{asked.repetitions} repetitions each: Monte-Carlo standard error {error:.1f} points at 5 %.")
    print(f"Took {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
