"""Numbers in words that people who are not statisticians understand; names and order of what is shown."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from hsae_dagster.core.evaluations import Change, Standing
from hsae_dagster.core.hypothesis import Example
from hsae_dagster.core.inference.cluster_robust import Effect
from hsae_dagster.core.inference.joint_fit import ALL_NEURONS, CONCEPTS, EMBEDDINGS, FIRED, SELECTED, Fit

NOT_ESTIMABLE = "not estimable"
MINUS = "\u2212"

# Control characters, lone surrogates and what turns the writing direction round: none of them is text to read.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_SCALE = re.compile(r"(?:scale )?([-\u2212]?\d+(?:\.\d+)?)\s*(?:to|\u2013|-|…)\s*([-\u2212]?\d+(?:\.\d+)?)")
# Fixed words, by their use.
WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
# How claims begin or end, and what is left of that where there is little room.
_SHORTER = (
    (re.compile("^says (?=“)"), ""),
    (re.compile("^has a sentence (?=like “)"), ""),
    (re.compile(r" \(similarity [^()]*\)$"), ""),
)


def clean(text: str) -> str:
    """The text without characters that break XML, a terminal or the reading direction."""
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Cleaned, with every run of white space as one space."""
    return " ".join(clean(text).split())


def number(value: float, decimals: int = 2, *, signed: bool = False) -> str:
    """A number with a real minus sign and thousands separators; `not estimable` for NaN and infinities."""
    if not math.isfinite(value):
        return NOT_ESTIMABLE
    written = f"{abs(value):,.{decimals}f}"
    if not any(digit in "123456789" for digit in written):
        return written
    return (MINUS if value < 0 else "+" if signed else "") + written


def when(moment: str) -> str:
    """`2026-11-24 06:50 UTC` of an ISO 8601 moment."""
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")


def count(value: int) -> str:
    """1234 -> `1,234`."""
    return f"{value:,d}"


def plural(value: int, noun: str) -> str:
    """`1 text`, `2 texts`, `2 hypotheses`."""
    if value == 1:
        return f"1 {noun}"
    return f"{count(value)} {noun.removesuffix('is') + 'es' if noun.endswith('sis') else noun + 's'}"


def percent(share: float) -> str:
    """A share as percent, with a decimal below ten percent: `58 %`, `3.4 %`, `< 0.1 %`."""
    if not math.isfinite(share):
        return NOT_ESTIMABLE
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{number(100 * share, 0 if abs(share) >= 0.0995 else 1).removesuffix('.0')} %"


def error_rate(alpha: float) -> str:
    """A family-wise error as percent, two digits: `4 %`, `0.6 %`, `0.067 %`."""
    return f"{100 * alpha:.2g} %"


def p_value(p: float) -> str:
    """A p- or q-value: three decimals while small, never `0.000`."""
    if not math.isfinite(p):
        return NOT_ESTIMABLE
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_phrase(name: str, p: float) -> str:
    """`p = 0.032`, `p < 0.001`, `p not estimable`."""
    written = p_value(p)
    return f"{name} {written}" if written.startswith(("<", "n")) else f"{name} = {written}"


def metric_name(metric: str) -> str:
    """`R2` -> `R²`."""
    return "R²" if metric == "R2" else metric


def shorten(text: str, length: int) -> str:
    """At most `length` characters on one line, cut between words where that is possible."""
    text = one_line(text)
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > length // 2 else cut).rstrip(" ,;:") + "…"


def short_claim(claim: str, length: int = 46) -> str:
    """A claim as the label of a row: of a word group the words alone, of quoted sentences no similarity."""
    label = one_line(claim)
    for pattern, short in _SHORTER:
        label = pattern.sub(short, label)
    return shorten(label, length)


def capitalised(text: str) -> str:
    """First letter large."""
    return text[:1].upper() + text[1:]


def short_outcome(outcome: str) -> str:
    """The outcome's name without its article and what follows in brackets or after a comma, semicolon or colon."""
    head = re.split(r"\s*[(\[;:]|,\s", one_line(outcome), maxsplit=1)[0].strip()
    return shorten(re.sub(r"^(?:the|an?) ", "", head, flags=re.IGNORECASE) or outcome, 60)


def outcome_unit(outcome: str) -> str:
    """The unit of a difference in the outcome: what is in brackets at its end and no scale, or is counted; else empty.

    `price (EUR)` is in EUR, `click rate (%)` differs by percentage points, `number of likes` by likes.
    """
    unit = _in_brackets(outcome).removeprefix("in ")
    if unit.lower() in ("%", "percent", "per cent"):
        return "percentage points"
    counted = short_outcome(outcome).partition("number of ")
    return "" if _SCALE.fullmatch(unit) else unit or (counted[2] if not counted[0] else "")


def _in_brackets(outcome: str) -> str:
    found = re.search(r"[(\[]([^()\[\]]{1,40})[)\]]$", one_line(outcome).strip())
    return found[1].strip() if found else ""


def _on_scale(outcome: str) -> str:
    """`, on a scale from 1 to 5` where the outcome names one."""
    scale = _SCALE.fullmatch(_in_brackets(outcome))
    return f", on a scale from {scale[1]} to {scale[2]}" if scale else ""


@dataclass(frozen=True)
class Shown:
    """An effect and its 95 % interval in the unit in which it is shown, with the digits worth showing.

    That is outcome units (regression), percentage points (classification) or percent of pairs won (pairwise); `zero`
    is where "no difference" lies: 50 for pairs, else 0.
    """

    estimate: float
    low: float
    high: float
    zero: float
    decimals: int

    @property
    def interval(self) -> str:
        """`[0.31, 0.53]`, or the words for a missing one."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"[interval {NOT_ESTIMABLE}]"
        return f"[{number(self.low, self.decimals)}, {number(self.high, self.decimals)}]"


def shown(effect: Effect, task: str) -> Shown:
    """Scale an effect to the unit in which its task shows effects."""
    scale, zero = (1.0, 0.0) if task == "regression" else (100.0, 50.0 if task == "pairwise" else 0.0)
    low, high = (zero + scale * end for end in (effect.low, effect.high))
    return Shown(zero + scale * effect.estimate, low, high, zero, _decimals(high - low, task))


def _decimals(width: float, task: str) -> int:
    if not (math.isfinite(width) and width > 0):
        return 2 if task == "regression" else 0
    if task == "regression":
        return max(0, min(6, 1 - math.floor(math.log10(width))))
    return 0 if width >= 4 else 1 if width >= 0.4 else 2


def effect_figure(effect: Effect, task: str, outcome: str) -> str:
    """The effect with its interval in one line, in the task's unit."""
    if not math.isfinite(effect.estimate):
        return NOT_ESTIMABLE
    s = shown(effect, task)
    if task == "pairwise":
        share = number(s.estimate, s.decimals)
        return f"wins {share} % {s.interval} of the pairs in which only it has this"
    unit = "points" if task == "classification" else outcome_unit(outcome) or short_outcome(outcome)
    return f"{number(s.estimate, s.decimals, signed=True)} {unit} {s.interval}"


def effect_brief(effect: Effect, task: str) -> str:
    """The effect with its interval, unit left to the column's heading: `+0.42 [0.31, 0.53]`."""
    if not math.isfinite(effect.estimate):
        return NOT_ESTIMABLE
    s = shown(effect, task)
    sign = {} if task == "pairwise" else {"signed": True}
    unit = "" if task == "regression" else " %" if task == "pairwise" else " pts"
    return f"{number(s.estimate, s.decimals, **sign)}{unit} {s.interval}"


def partial_brief(effect: Effect, task: str) -> str:
    """The effect beside the other claims and the controls; for pairs in points of the share won."""
    return effect_brief(effect, "regression" if task == "regression" else "classification")


def effect_words(effect: Effect, task: str, outcome: str) -> str:
    """The effect as half a sentence whose subject is a text that the claim holds for."""
    if not math.isfinite(effect.estimate):
        return f"its association with {_outcome_phrase(task, outcome)} is {NOT_ESTIMABLE}"
    s = shown(effect, task)
    if not (s.low > s.zero or s.high < s.zero):
        return f"no clear association with {_outcome_phrase(task, outcome)}: {_unclear(s, task, outcome)}"
    up = s.estimate > s.zero
    if task == "pairwise":
        share, low, high = (number(value, s.decimals) for value in (s.estimate, s.low, s.high))
        return (
            f"associated with {'winning' if up else 'losing'}: of the pairs in which only one text has this, that text "
            f"wins {share} % (95 % interval {low} to {high})"
        )
    size, least, most = _magnitudes(s)
    unit, scale = outcome_unit(outcome), _on_scale(outcome)
    if task == "classification":
        return (
            f"associated with {_outcome_phrase(task, outcome)}, which is {size} percentage points "
            f"{'more' if up else 'less'} frequent than in texts without this (95 % interval {least} to {most})"
        )
    return (
        f"associated with a {'higher' if up else 'lower'} {short_outcome(outcome)}: on average "
        f"{size}{' ' * bool(unit)}{unit} {'above' if up else 'below'} texts without this{scale} "
        f"(95 % interval {least} to {most})"
    )


def _magnitudes(s: Shown) -> tuple[str, str, str]:
    ends = sorted((abs(s.low), abs(s.high)))
    return number(abs(s.estimate), s.decimals), number(ends[0], s.decimals), number(ends[1], s.decimals)


def _unclear(s: Shown, task: str, outcome: str) -> str:
    low, high = number(s.low, s.decimals), number(s.high, s.decimals)
    reach = "cannot be given" if NOT_ESTIMABLE in (low, high) else f"from {low} to {high} includes no difference"
    if task == "pairwise":
        return f"{number(s.estimate, s.decimals)} % of pairs won, and the 95 % interval {reach}"
    unit = "percentage points" if task == "classification" else outcome_unit(outcome)
    difference = number(s.estimate, s.decimals, signed=True)
    return f"a difference of {difference}{' ' * bool(unit)}{unit}, and the 95 % interval {reach}"


def _outcome_phrase(task: str, outcome: str) -> str:
    if task == "pairwise":
        return "winning"
    return f"“{short_outcome(outcome)}”" if task == "classification" else short_outcome(outcome)


def axis_label(task: str, outcome: str) -> str:
    """What the horizontal axis of a forest plot measures."""
    unit = shorten(outcome_unit(outcome), 24)
    return {
        "regression": f"difference in {shorten(short_outcome(outcome), 44)}{f', {unit}' if unit else ''}",
        "classification": f"difference in share of “{shorten(short_outcome(outcome), 36)}”, percentage points",
        "pairwise": "pairs won by the text that has it, %",
    }[task]


def example_outcome(example: Example, task: str, outcome: str) -> str:
    """The observed outcome of one text."""
    if not math.isfinite(example.outcome):
        return f"outcome {NOT_ESTIMABLE}"
    if task == "pairwise":
        return f"won {percent(example.outcome)} of its pairs"
    if task == "classification":
        return f"{short_outcome(outcome)}: {'yes' if example.outcome >= 0.5 else 'no'}"
    return f"{short_outcome(outcome)} {number(example.outcome, 2)}"


def left_out_words(reason: str) -> str:
    """Why rows were left out, in words; `reason` is as the corpus records it."""
    return str(WORDS["left_out"].get(reason) or one_line(reason))


def concepts_fit(fits: tuple[Fit, ...]) -> Fit | None:
    """The fit of the claims alone, or None when the ladder has none."""
    return next((fit for fit in fits if "concept" in fit.name.lower() and "control" not in fit.name.lower()), None)


def recovered_share(fits: tuple[Fit, ...], floor: tuple[float, float]) -> float:
    """Share of the way from the floor (chance) to the ceiling (first of the ladder) that the claims go; or NaN."""
    concepts = concepts_fit(fits)
    if concepts is None or not fits or not fits[0].value > floor[0]:
        return math.nan
    return (concepts.value - floor[0]) / (fits[0].value - floor[0])


def recovery_words(fits: tuple[Fit, ...], floor: tuple[float, float]) -> str:
    """How much of what can be predicted the claims predict, as a sentence."""
    concepts = concepts_fit(fits)
    share = recovered_share(fits, floor)
    if concepts is None or not math.isfinite(concepts.value):
        return "What share of the embeddings' fit the claims reach could not be measured."
    if not math.isfinite(share):
        return (
            "What share of the embeddings' fit the claims reach is not estimable: the embeddings themselves "
            "predict the outcome no better than chance."
        )
    metric = metric_name(concepts.metric)
    figures = (
        f"{metric} {number(concepts.value)}, against {number(floor[0])} for shuffled outcomes and "
        f"{number(fits[0].value)} for the embeddings"
    )
    if not concepts.value > floor[1]:
        return f"Together the claims predict no better than chance ({figures})."
    if share >= 1:
        return f"Together the claims predict at least as well as the embeddings ({figures})."
    return f"Together the claims predict {percent(share)} of what the embeddings predict ({figures})."


def standing_effect(standing: Standing, task: str) -> str:
    """The effect with its interval."""
    if not math.isfinite(standing.estimate):
        return NOT_ESTIMABLE
    return effect_brief(Effect(standing.estimate, math.nan, standing.low, standing.high, math.nan, ""), task)


def side_words(standing: Standing, p_holm: float | None, task: str) -> str:
    """One side of a comparison between datasets: verdict, effect and corrected p."""
    p = p_phrase("p", math.nan if p_holm is None else p_holm)
    return f"{standing.badge}, {standing_effect(standing, task)}, Holm {p}"


def change_words(change: Change, task: str) -> str:
    """One hypothesis: what became of it, as a sentence without its claim."""
    if change.before is None:
        return f"New: {change.standing.badge}, {standing_effect(change.standing, task)}."
    if change.after is None:
        return f"Gone: it was {change.before.badge}, {standing_effect(change.before, task)}."
    if change.kind == "unchanged":
        return "Unchanged: words and verdict are as before, and the effect lies within its earlier interval."
    parts = []
    if change.verdict:
        parts.append(f"{change.before.badge} before, {change.after.badge} now")
    before, after = (standing_effect(side, task) for side in (change.before, change.after))
    if before != after:
        beyond = ", outside the earlier interval" if change.effect else ""
        parts.append(f"effect {before} before, {after} now{beyond}")
    if change.words:
        parts.append(f"said as “{one_line(change.before.claim)}” before")
    return f"Moved: {'; '.join(parts)}."


COMPARISON = "For comparison"
_GROUPS = (
    ("What embeddings know", (EMBEDDINGS,)),
    ("What the neurons keep", (ALL_NEURONS, SELECTED, FIRED)),
    ("What the claims say", (CONCEPTS,)),
)


def rung_name(name: str) -> str:
    """The plain name of a rung; any other name as it is."""
    return str(WORDS["rungs"].get(name, {"short": name})["short"])


def grouped(fits: Sequence[Fit]) -> list[tuple[str, list[Fit]]]:
    """Fits by group, groups and rungs in reading order; anything else comes last, for comparison."""
    known = {name for _, names in _GROUPS for name in names}
    by_name = {fit.name: fit for fit in fits}
    groups = [(title, [by_name[name] for name in names if name in by_name]) for title, names in _GROUPS]
    groups.append((COMPARISON, [fit for fit in fits if fit.name not in known]))
    return [(title, own) for title, own in groups if own]


_LONGEST = 200


def flat_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value) rows, in the order given."""
    for key, value in settings.items():
        yield from _flat(str(key), value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            yield from _flat(f"{name}[{position}]", item)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(_scalar(item) for item in value) or "none"
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "none"
    # A prompt of one's own is pages long.
    said = one_line(str(value))
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def ordinal(n: int) -> str:
    """`first` to `fifth`, then `6th`, `21st`."""
    if n in _ORDINALS:
        return _ORDINALS[n]
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
