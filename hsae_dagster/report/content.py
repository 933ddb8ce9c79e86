"""What a report shows, before it is drawn, and its tables for people who compute on: as Parquet and as CSV."""

import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.core.inference.plan import Look
from hsae_dagster.core.selection.stability import NegativeControl
from hsae_dagster.report.wording import flat_settings

BECAUSE = "_because"
_MOST_CHARACTERS = 40
_SAYS, _LIKE = "says “", "has a sentence like “"
_BETWEEN = " | "


def column_names(claims: Sequence[tuple[str, str]]) -> list[str]:
    """A readable, unique name for each (claim, title).

    Examples:
        >>> column_names([("says “boring” or “dull”", "boring"), ("has a question mark", "has a question mark")])
        ['says_boring', 'has_a_question_mark']
    """
    names: list[str] = []
    taken = {"text_id", "text_id_a", "text_id_b", "cluster", "outcome", "half"}
    for place, (claim, title) in enumerate(claims, 1):
        opening = "says " if claim.startswith(_SAYS) else "like " if claim.startswith(_LIKE) else ""
        base = _slug(opening + title) or f"claim_{place}"
        name, number = base, 2
        while {name, name + BECAUSE} & taken:
            name, number = f"{base}_{number}", number + 1
        taken |= {name, name + BECAUSE}
        names.append(name)
    return names


def _slug(words: str) -> str:
    """ASCII letters, digits and single underscores, beginning with a letter, cut between words."""
    plain = unicodedata.normalize("NFKD", words.lower()).encode("ascii", "ignore").decode()
    parts = re.findall(r"[a-z0-9]+", plain.replace("'", ""))
    kept = parts[:1]
    for part in parts[1:]:
        if len("_".join([*kept, part])) > _MOST_CHARACTERS:
            break
        kept.append(part)
    slug = "_".join(kept)[:_MOST_CHARACTERS]
    # What is left of words in another script says nothing.
    return slug if slug[:1].isalpha() and slug not in ("says", "like") else ""


def annotation_table(
    observations: pl.DataFrame,
    text_ids: Sequence[str],
    holds: np.ndarray,
    because: Sequence[Sequence[Sequence[str]]],
    claims: Sequence[tuple[str, str]],
) -> pl.DataFrame:
    """One row per held-out observation, which is a text (`text_id`) or a pair (`text_id_a`, `text_id_b`).

    Of n texts with these keys, `holds` (n, claims) is int8: 1 yes, 0 no, -1 no answer, and `because` (n, claims) the
    words or sentences that made a claim hold; claims are (claim, title).

    Returns:
        keys, cluster, outcome, half if there are two; per claim 1, 0 or null (no answer) and what made it hold (empty
        where it does not). For pairs both columns once for each side, as `says_boring_a`, `says_boring_a_because`, …
    """
    rows = {key: row for row, key in enumerate(text_ids)}
    pairs = "text_id_a" in observations.columns
    sides = {"_a": "text_id_a", "_b": "text_id_b"} if pairs else {"": "text_id"}
    columns: dict[str, pl.Series] = {key: observations[key] for key in sides.values()}
    columns |= {"cluster": observations["cluster_id"], "outcome": observations["label"]}
    columns |= {"half": observations["half"]} if "half" in observations.columns else {}
    places = {ending: [rows[key] for key in observations[side].to_list()] for ending, side in sides.items()}
    for j, name in enumerate(column_names(claims)):
        for ending, own in places.items():
            said = [int(holds[row, j]) for row in own]
            told = [_BETWEEN.join(because[row][j]) for row in own]
            columns[f"{name}{ending}"] = pl.Series([value if value >= 0 else None for value in said], dtype=pl.Int8)
            columns[f"{name}{ending}{BECAUSE}"] = pl.Series(told, dtype=pl.String)
    return pl.DataFrame([series.alias(name) for name, series in columns.items()])


@dataclass(frozen=True)
class SplitCount:
    """Size of one split."""

    split: str
    observations: int
    texts: int
    clusters: int


@dataclass(frozen=True)
class SizeChoice:
    """What `saes: auto` tried, (m, k) of the candidates rising, the m and k that it took, and why, in words."""

    sizes: tuple[tuple[int, int], ...]
    m: int
    k: int
    reason: str


@dataclass(frozen=True)
class ReportContent:
    """Everything on the report of one evaluation of one dataset.

    Attributes:
        description: one line from dataset.yaml, may be empty.
        outcome: in words, with its unit.
        cluster: name of the cluster column, or None when every text stands for itself.
        outcome_mean: mean outcome on the holdout.
        splits: sizes, in order train, validation, fidelity, holdout; or of half A and half B.
        dropped: rows left out, by reason.
        hypotheses: tested ones, in the order to show: by badge, then by size of effect.
        unreadable: selected neurons that no claim speaks for: (rank, sae_id, sae_column, reason); not tested.
        fits: ladder of joint fit, ceiling first: embeddings, TF-IDF, all neurons, selected neurons, concepts, controls.
        floor: mean and 95th percentile of the concepts' fit to permuted outcomes.
        guidance: by sae_id, the weight of the label in its training; 0 where it had none.
        alpha: family-wise error rate of this report.
        round: 1 for the first holdout, k + 1 for the fresh reserve of the k-th refresh.
        bonferroni: hypotheses below alpha / H, for comparison.
        settings: what dataset.yaml declared, defaults filled in (JSON-like).
        versions: data version of each upstream asset.
        family: tests that the correction counts, those of earlier looks included.
        negative_controls: discoveries where there is nothing, or nothing special, to discover; may be empty.
        sizes: what `saes: auto` tried and took; None where sizes were declared or could not be measured.
        different: confirmed claims, none of the user's own, that do not nearly repeat a stronger one (|φ| > .5).
    """

    dataset: str
    description: str
    task: str
    outcome: str
    cluster: str | None
    outcome_mean: float
    splits: tuple[SplitCount, ...]
    dropped: Mapping[str, int]
    hypotheses: tuple[Hypothesis, ...]
    unreadable: tuple[tuple[int, str, int, str], ...]
    fits: tuple[Fit, ...]
    floor: tuple[float, float]
    guidance: Mapping[str, float]
    alpha: float
    bonferroni: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    run_id: str
    look: Look
    different: int
    family: int = 0
    negative_controls: tuple[NegativeControl, ...] = ()
    sizes: SizeChoice | None = None
    round: int = 1

    @property
    def halves(self) -> bool:
        """Whether each half of the texts tests what the other found."""
        return any(split.split.startswith("half ") for split in self.splits)

    def tested_on(self, half: str) -> SplitCount | None:
        """Size of what tests claims found in a half (`a`, `b`), or of all that tests; None where it is unknown."""
        testing = {"holdout", "half A", "half B"} - {f"half {half.upper()}"}
        parts = [split for split in self.splits if split.split in testing]
        if len(parts) < 2:
            return parts[0] if parts else None
        sums = (sum(getattr(part, name) for part in parts) for name in ("observations", "texts", "clusters"))
        return SplitCount("both halves", *sums)

    @property
    def joined(self) -> bool:
        """Whether rows are held together by equal or nearly equal texts alone, without a cluster column."""
        tested = self.tested_on("")
        return not self.cluster and tested is not None and tested.clusters < tested.observations

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the declared controls."""
        return tuple((self.settings.get("columns") or {}).get("controls") or ())

    @property
    def confirmed(self) -> int:
        """Number of confirmed hypotheses."""
        return sum(hypothesis.badge == "confirmed" for hypothesis in self.hypotheses)


_FIGURES = ("estimate", "standard_error", "low", "high", "p_value", "degrees_of_freedom")
SUBGROUP_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "hypothesis_id": pl.String,
    "claim": pl.String,
    "covariate": pl.String,
    "level": pl.String,
    "n": pl.Int64,
    "n_with": pl.Int64,
    "n_clusters": pl.Int64,
    **{f"effect_{name}": pl.Float64 for name in _FIGURES},
    "effect_p_holm": pl.Float64,
    **{f"difference_{name}": pl.Float64 for name in _FIGURES},
    "difference_p_holm": pl.Float64,
}


def subgroup_records(content: ReportContent) -> list[tuple[object, ...]]:
    """Rows of `SUBGROUP_SCHEMA`: every hypothesis in every subgroup with enough texts."""
    return [
        (
            h.hypothesis_id,
            h.claim,
            *(getattr(one, name) for name in ("covariate", "level", "n", "n_with", "n_clusters")),
            *(getattr(one.effect, name) for name in _FIGURES),
            one.p_holm,
            *(getattr(one.difference, name) for name in _FIGURES),
            one.difference_p_holm,
        )
        for h in content.hypotheses
        for one in h.subgroups
    ]


# A spreadsheet runs a cell that begins so (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = r"^([=+\-@\t\r])"


def report_tables(content: ReportContent) -> dict[str, pl.DataFrame]:
    """Every table of the page that is no figure's: by name."""
    text = pl.String
    evidence = [
        (h.hypothesis_id, role, place, e.text_id, e.outcome, e.activation, list(e.because), e.unit, e.text)
        for h in content.hypotheses
        for role, examples in (
            ("for", h.evidence.supporting),
            ("near miss", h.evidence.near_misses),
            ("against", h.evidence.counterexamples),
        )
        for place, e in enumerate(examples, 1)
    ]
    splits = [(s.split, s.observations, s.texts, s.clusters) for s in content.splits]
    columns = ("hypothesis_id", "role", "place", "text_id", "outcome", "activation", "because", "unit", "text")
    other: dict[str, pl.DataType | type[pl.DataType]] = {
        "place": pl.Int64,
        "outcome": pl.Float64,
        "activation": pl.Float64,
        "because": pl.List(text),
    }
    return {
        "evidence": _frame(evidence, {name: other.get(name, text) for name in columns}),
        "splits": _frame(splits, {"split": text, "observations": pl.Int64, "texts": pl.Int64, "clusters": pl.Int64}),
        "rows_left_out": _frame(list(content.dropped.items()), {"reason": text, "rows": pl.Int64}),
        "unreadable_neurons": _frame(
            list(content.unreadable), {"rank": pl.Int64, "sae_id": text, "sae_column": pl.Int64, "reason": text}
        ),
        "subgroups": _frame(subgroup_records(content), SUBGROUP_SCHEMA),
        "settings": _frame(list(flat_settings(content.settings)), {"setting": text, "value": text}),
        "versions": _frame(list(content.versions.items()), {"asset": text, "data_version": text}),
    }


def csv_bytes(frame: pl.DataFrame) -> bytes:
    """CSV in UTF-8 that a spreadsheet shows and does not run: a text that looks like a formula gets an apostrophe.

    Lists become their JSON; missing values are empty. The Parquet beside it holds everything as it is.
    """
    columns = []
    for name, kind in frame.schema.items():
        column = frame[name]
        if kind.is_nested():
            column = pl.Series(name, [json.dumps(value, ensure_ascii=False) for value in column.to_list()], pl.String)
            kind = pl.String()
        columns.append(column.str.replace(_FORMULA, "'${1}") if kind == pl.String else column)
    packed = io.BytesIO()
    pl.DataFrame(columns).write_csv(packed)
    return packed.getvalue()


def _frame(rows: Sequence[tuple[object, ...]], schema: dict[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")
