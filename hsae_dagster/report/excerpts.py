"""The part of a text that shows why it was judged as it was.

Belongs here: where the words or the sentence that made a claim hold stand in a text, and which few words around them to
show. Does not belong here: markup (`page`, `cards`) or judging (`core.concepts.claims`).
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hsae_dagster.core.concepts.cues import CAPITALS, SIGN_CUES
from hsae_dagster.core.hypothesis import Example
from hsae_dagster.report.wording import one_line

_NOTHING = re.compile(r"(?!)")
_MOST_CHARACTERS = 700  # a script without spaces is one endless "word"


@dataclass(frozen=True)
class Segment:
    """A stretch of an excerpt; `matched` when it made the claim hold."""

    text: str
    matched: bool


def excerpt(text: str, terms: Sequence[str] = (), *, words: int = 60) -> tuple[Segment, ...]:
    """At most `words` words of the text where most of the terms stand, with an ellipsis where it was cut.

    Args:
        text: as it stands in the data; entities such as `&amp;` are shown as what they stand for.
        terms: words, phrases, a sentence or names of style cues; those not found are ignored.
        words: length of the window.
    """
    text = one_line(html.unescape(text))
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


def marks_of(example: Example) -> tuple[str, ...]:
    """What to mark in a quoted text: what makes the claim hold, else the sentence that activates the neuron most."""
    return example.because or ((example.unit,) if example.unit else ())


def matched_spans(text: str, marks: Sequence[str]) -> list[tuple[int, int]]:
    """Where the marks stand: (start, end) in characters, ascending, not overlapping."""
    found = [
        match.span()
        for mark in marks
        for match in _pattern(mark).finditer(text)
        if mark != CAPITALS or match.group().isupper()
    ]
    merged: list[tuple[int, int]] = []
    for left, right in sorted(set(found)):
        if merged and left < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
        else:
            merged.append((left, right))
    return merged


def _pattern(mark: str) -> re.Pattern[str]:
    """A style cue's signs; else the mark's words, next to each other, whatever stands between them."""
    if mark in SIGN_CUES:
        return SIGN_CUES[mark]
    words = [re.escape(word).replace("'", "['’]") for word in re.findall(r"\w+(?:['’]\w+)*", mark.replace("’", "'"))]
    return re.compile(r"(?<!\w)" + r"\W+".join(words) + r"(?!\w)", re.IGNORECASE) if words else _NOTHING


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
