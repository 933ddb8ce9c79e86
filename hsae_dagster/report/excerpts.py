"""The part of a text that shows why it was judged as it was.

Belongs here: where a lexicon's terms stand in a text, and which few words around them to show. Does not belong here:
markup (`page`, `cards`) or judging (`core.lexicon`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hsae_dagster.core.terms import STYLE_CUES, content_words
from hsae_dagster.report.wording import one_line

_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MOST_CHARACTERS = 700  # a script without spaces is one endless "word"


@dataclass(frozen=True)
class Segment:
    """A stretch of an excerpt; `matched` when it is a term of the lexicon."""

    text: str
    matched: bool


def excerpt(text: str, terms: Sequence[str] = (), *, words: int = 60) -> tuple[Segment, ...]:
    """At most `words` words of the text where most of the terms stand, with an ellipsis where it was cut.

    Args:
        text: as it stands in the data.
        terms: content words, two-word phrases and `<style cues>`; those not found are ignored.
        words: length of the window.
    """
    text = one_line(text)
    spans = matched_spans(text, terms)
    start, end = _window(text, spans, words)
    segments = [Segment("…", False)] if start > 0 else []
    at = start
    for left, right in spans:
        left, right = max(left, start), min(right, end)
        if left >= right:
            continue
        if left > at:
            segments.append(Segment(text[at:left], False))
        segments.append(Segment(text[left:right], True))
        at = right
    if at < end:
        segments.append(Segment(text[at:end], False))
    if end < len(text):
        segments.append(Segment("…", False))
    return tuple(segments)


def matched_spans(text: str, terms: Sequence[str]) -> list[tuple[int, int]]:
    """Where the terms stand: (start, end) in characters, ascending, not overlapping."""
    wanted = set(terms)
    found = []
    previous: tuple[str, int, int] | None = None
    for match in _TOKEN.finditer(text):
        word = next(iter(content_words(match.group())), None)
        if word is None:
            continue  # a stop word: phrases reach across it, as in `core.terms`
        if word in wanted:
            found.append(match.span())
        if previous and f"{previous[0]} {word}" in wanted:
            found += [(previous[1], previous[2]), match.span()]
        previous = (word, *match.span())
    for name, pattern in STYLE_CUES.items():
        if f"<{name}>" in wanted:
            found += [match.span() for match in pattern.finditer(text)]
    merged: list[tuple[int, int]] = []
    for left, right in sorted(set(found)):
        if merged and left < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
        else:
            merged.append((left, right))
    return merged


def _window(text: str, spans: list[tuple[int, int]], words: int) -> tuple[int, int]:
    """Start and end of the window of `words` words that holds the most matches; the earliest of equals."""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    first = 0
    if len(places) > words and spans:
        hits = [sum(left < end and right > start for left, right in spans) for start, end in places]
        totals = [sum(hits[i : i + words]) for i in range(len(places) - words + 1)]
        best = max(totals)
        # All windows that reach the best total serve; the middle one of the first run leaves air on both sides.
        run = next(i for i, total in enumerate(totals) if total == best)
        last = run
        while last + 1 < len(totals) and totals[last + 1] == best:
            last += 1
        first = 0 if run == 0 else (run + last) // 2
    shown = places[first : first + words]
    if not shown:
        return (0, 0)
    start, end = shown[0][0], shown[-1][1]
    return (start, min(end, start + _MOST_CHARACTERS))
