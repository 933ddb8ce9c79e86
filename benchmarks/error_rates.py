"""Error rates, coverages and power by simulation, as the table of docs/inference.md.

    python benchmarks/error_rates.py [--repetitions 150] [--only gold] [--table audit]

A family of twenty tests is repeated so often, whatever is a single test four times as often (of rare errors fifty times
as often). The standard error stands behind each figure. "before" is the rule of November 2026, or with a t the
reference's formula (hypothesaes 2.0.1).
Belongs here: running the scenarios and writing the table. Does not belong here: the scenarios
(hsae_dagster_tests/core/simulated_*.py; the test suite runs them too, with fewer repetitions).
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hsae_dagster_tests.core.simulated_audit import AUDIT
from hsae_dagster_tests.core.simulated_rates import DISCOVERIES, NULLS, REJECTIONS, Scenario, coverages

SEED = 20_261_129
HEAD = "| case | observed | goal | audit | before | now |\n|---|---|---|---|---|---|"
TABLES: dict[str, Callable[[], Sequence[Scenario]]] = {
    "audit": lambda: AUDIT,
    "reference": lambda: [*NULLS, *DISCOVERIES, *REJECTIONS, *coverages()],
}


def repetitions_of(scenario: Scenario, asked: int) -> int:
    """How often a scenario is simulated."""
    once = scenario.draws > 1 or scenario.measure in ("family-wise error", "true discoveries")
    return asked if once else 4 * asked


def row(scenario: Scenario, asked: int, table: str) -> str:
    """One line of a table."""
    n = repetitions_of(scenario, asked)
    now, beside = scenario.observe(n, SEED)
    before = _shown(beside, scenario) + (" t" if table == "reference" and math.isfinite(beside) else "")
    after = f"{_shown(now, scenario)}{_error(now, scenario, n * scenario.draws)}"
    return f"| {' | '.join([scenario.name, scenario.measure, scenario.goal, scenario.audit or '–', before, after])} |"


def _shown(value: float, scenario: Scenario) -> str:
    if not math.isfinite(value):
        return "–"
    if scenario.measure == "true discoveries":
        return f"{value:.1f}"
    return f"{100 * value:.{_digits(scenario)}f} %"


def _digits(scenario: Scenario) -> int:
    """Of a percentage: rates of many draws are small."""
    return 2 if scenario.draws > 1 else 1


def _error(value: float, scenario: Scenario, n: int) -> str:
    """The Monte-Carlo standard error of a share, in points."""
    if scenario.measure == "true discoveries" or not math.isfinite(value):
        return ""
    return f" ({100 * math.sqrt(max(value * (1 - value), 0.5 / n) / n):.{_digits(scenario)}f})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=150)
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--table", choices=sorted(TABLES), help="one of the two")
    asked = parser.parse_args()
    started = time.monotonic()
    print(HEAD)
    for table, made in TABLES.items():
        if asked.table in (None, table):
            for scenario in made():
                if asked.only in scenario.name:
                    print(row(scenario, asked.repetitions, table), flush=True)
    print(f"\nTook {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
