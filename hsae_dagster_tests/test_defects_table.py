"""docs/defects.md has a row for each of the reference's 37 defects, and each row names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "defects.md"


def rows() -> dict[int, list[str]]:
    """Cells of each numbered row."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert len({row[0] for row in cells}) == len(cells)
    return {int(row[0]): row for row in cells}


@cache
def existing() -> set[str]:
    """Names of all test functions."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_defect_has_its_row() -> None:
    found = rows()
    assert sorted(found) == list(range(1, 38))
    assert {len(row) for row in found.values()} == {4}
    assert all(all(row) for row in found.values())


@pytest.mark.parametrize("number", range(1, 38))
def test_each_row_names_tests_that_exist(number: int) -> None:
    named = re.findall(r"`(test_\w+)`", rows()[number][3])
    assert named
    assert [name for name in named if name not in existing()] == []
