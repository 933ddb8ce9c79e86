"""What a test of the harness found, and the table of all of them.

Belongs here: counting and printing. Does not belong here: any test.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """One test: how often something was done, and what was lost (finished work) or wrong (a result, a silence)."""

    test: str
    tries: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def well(self) -> bool:
        return self.tries > 0 and not self.lost and not self.wrong

    def expect(self, held: bool, otherwise: str) -> None:
        """Count a try, and what is wrong unless the expectation held."""
        self.tries += 1
        if not held:
            self.wrong.append(otherwise)


def table(tallies: Sequence[Tally]) -> str:
    """Markdown: test, tries, lost, wrong; what was lost or wrong in words below."""
    wide = max(len(tally.test) for tally in tallies)
    lines = [f"| {'test':<{wide}} | tries | lost | wrong | |", f"|{'-' * (wide + 2)}|---:|---:|---:|---|"]
    lines += [f"| {t.test:<{wide}} | {t.tries:,} | {len(t.lost)} | {len(t.wrong)} | {t.note} |" for t in tallies]
    tries, lost, wrong = (
        sum(counts) for counts in zip(*((t.tries, len(t.lost), len(t.wrong)) for t in tallies), strict=True)
    )
    lines.append(f"| {'all':<{wide}} | {tries:,} | {lost} | {wrong} | |")
    told = [f"{t.test}: {kind}: {what}" for t in tallies for kind in ("lost", "wrong") for what in getattr(t, kind)]
    told += [f"{t.test}: nothing was tried" for t in tallies if not t.tries]
    return "\n".join([*lines, *told])


def write(tallies: Iterable[Tally], path: Path) -> None:
    """The same as JSON."""
    rows = [
        {"test": t.test, "tries": t.tries, "lost": len(t.lost), "wrong": len(t.wrong), "note": t.note}
        | {"what was lost": t.lost, "what was wrong": t.wrong}
        for t in tallies
    ]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
