"""A dataset's files as one validated frame of observations, and what it is too small or too uniform for."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from hsae_dagster.dataset import values
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Selection, guidance_needs_texts
from hsae_dagster.errors import DatasetError, MethodError

# Of what divides the rows, each level is selected in, or tested, on its own.
MOST_LEVELS = 30
# A column settles the outcome if its levels agree more often than chance would let them once in a thousand tables; of
# the rows beyond the first of each level so few may disagree, for labels err; and there must be so many such rows.
_CHANCE, _ERRING, _FEWEST_REPEATS = 1e-3, 0.02, 0.05
# A control of numbers that follows the outcome's order so closely, in so many rows, is the outcome.
_SAME_ORDER, _FEWEST_ROWS = 0.999, 20


def most_categories(rows: int) -> int:
    """Categories of a control that so many rows can hold constant: one for every 50, at least 31, at most 61."""
    return min(max(rows // 50, 31), 61)


def check_categories(dataset: Dataset, frame: pl.DataFrame) -> None:
    """Refuse controls with too many categories; a missing value is a category of its own.

    The frame has a column `control:<name>` for each control, text where it is a category.

    Raises:
        DatasetError: with the control, its categories and what to do.
    """
    most = most_categories(frame.height)
    for name in dataset.spec.columns.controls:
        column = frame[f"control:{name}"]
        found = column.n_unique()
        if column.dtype != pl.String or found <= most:
            continue
        remedy = "Group its values in the data file (weeks into months, say), or leave it out of columns.controls."
        if name in dataset.spec.columns.clusters or found > frame.height / 5:
            remedy = (
                f"Leave it out of columns.controls; to compare texts that share a value of `{name}`, make pairs of "
                f"them: `hsae new FILE --pairs-within {shlex.quote(name)}`."
            )
        raise DatasetError(
            f"Dataset `{dataset.name}`: the control `{name}` has {found:,} categories; with {frame.height:,} rows at "
            f"most {most} can be held constant. {remedy}"
        )


def settles(level: pl.Series, label: pl.Series) -> bool:
    """Whether rows of one level (n,) have one outcome (n,), up to a few errors and more often than by chance.

    Rows where either is null do not count.
    """
    from scipy.stats import binom

    rows = pl.DataFrame({"level": level, "label": label}).drop_nulls()
    counts = rows.group_by("level", "label").len()
    levels = counts.group_by("level").agg(pl.col("len").max().alias("agreeing"))
    repeats = rows.height - levels.height
    if repeats < max(_FEWEST_REPEATS * rows.height, 1):
        return False
    disagreeing = rows.height - int(levels["agreeing"].sum())
    alike = float(((rows["label"].value_counts()["count"] / rows.height) ** 2).sum())
    by_chance = binom.sf(repeats - disagreeing - 1, repeats, alike)
    return disagreeing <= _ERRING * repeats and bool(by_chance < _CHANCE)


def check_not_outcome(dataset: Dataset, frame: pl.DataFrame) -> None:
    """Refuse controls that are the outcome, or settle it: with one held constant nothing is left to explain.

    Raises:
        DatasetError: with the control.
    """
    for name in dataset.spec.columns.controls:
        both = pl.DataFrame({"x": frame[f"control:{name}"], "y": frame["label"]}).drop_nulls()
        rho = None
        if both["x"].dtype.is_numeric():
            both = both.filter(pl.col("x").cast(pl.Float64).is_finite())
            rho = both.select(pl.corr("x", "y", method="spearman")).item() if both.height >= _FEWEST_ROWS else None
        if abs(rho or 0.0) >= _SAME_ORDER or settles(both["x"], both["y"]):
            raise DatasetError(
                f"Dataset `{dataset.name}`: the control `{name}` determines the outcome "
                f"`{dataset.spec.columns.label}`: rows that share a value of it share the outcome, so with it "
                f"held constant nothing is left to explain. Leave `{name}` out of columns.controls; if it says "
                "where rows come from, name it in columns.cluster_by."
            )


def levels_of(observations: pl.DataFrame, name: str) -> np.ndarray:
    """The level of a control that each observation belongs to, (observations,) str; `(none)` where it is missing.

    Raises:
        MethodError: the control has more than `MOST_LEVELS` levels.
    """
    levels = observations[f"control:{name}"].cast(pl.String).fill_null("(none)")
    if levels.n_unique() > MOST_LEVELS:
        raise MethodError(
            f"The column `{name}` has {levels.n_unique()} levels; strata and subgroups need a category with at most "
            f"{MOST_LEVELS}. Group its values in the data file, or take it out of selection.within and interactions."
        )
    return np.array(levels.to_list(), dtype=str)


def check_levels(selection: Selection, observations: pl.DataFrame) -> None:
    """Refuse before the work what selection on training rows, or effects on the holdout, would refuse after it.

    Raises:
        MethodError: a stratum or subgroup has too many levels.
    """
    for split in ("train", "holdout"):
        rows = observations.filter(pl.col("split") == split)
        for name in (*selection.within, *selection.interactions):
            levels_of(rows, name)


def check_labels(dataset: Dataset, observations: pl.DataFrame) -> None:
    """Refuse labels that are the same throughout training or holdout observations.

    Raises:
        MethodError: with the split and the value.
    """
    for split in ("train", "holdout"):
        labels = observations.filter(pl.col("split") == split)["label"].unique()
        if labels.len() == 1:
            raise MethodError(
                f"Dataset `{dataset.name}`: every label of the {split} split is {labels[0]:g}, so nothing can be "
                "learned or tested there. Bring more rows of the rarer outcome, take another columns.label or "
                "columns.positive, or change splits.salt."
            )


def training_units(texts: pl.DataFrame, text_units: pl.DataFrame) -> int:
    """How many different units the training texts have, from which autoencoders learn."""
    return text_units.join(texts.filter(pl.col("split") == "train"), on="text_id", how="semi")["unit_id"].n_unique()


def check_sizes(dataset: Dataset, n_train: int, kind: str) -> None:
    """Refuse autoencoders and numbers of neurons that so few training units, or so few neurons, cannot give.

    Raises:
        MethodError: with both numbers.
        DatasetError: a declared checkpoint is missing.
    """
    spec, wanted = dataset.spec, dataset.spec.selection.n
    trained = [sae for sae in spec.listed_saes if sae.checkpoint is None]
    for sae in spec.listed_saes:
        if sae.checkpoint is not None:
            dataset.checkpoint_path(sae.checkpoint)
    for sae in trained:
        if sae.m > n_train:
            raise MethodError(
                f"Dataset `{dataset.name}`: an autoencoder of m = {sae.m} neurons cannot be trained on {n_train} "
                f"training {kind}s. Lower `saes.m` to a tenth of them or less, or bring more texts."
            )
    if kind != "text" and any(sae.label_weight > 0 for sae in trained):
        raise MethodError(f"Dataset `{dataset.name}`: {guidance_needs_texts(kind)}.")
    # Of a checkpoint the file tells the size; of a size that is chosen only the largest is known.
    most = sum(sae.m for sae in trained) if trained else n_train
    if len(trained) == len(spec.listed_saes) and most < wanted:
        have = f"`saes` has {most} in all" if trained else f"{n_train} training {kind}s can give no more than that"
        raise MethodError(
            f"Dataset `{dataset.name}`: {wanted} neurons were asked for (selection.n), but {have}. Lower selection.n, "
            "train a wider SAE, or bring more texts."
        )


READERS = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    ".tsv": lambda path: pl.read_csv(path, infer_schema_length=None, separator="\t"),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    # One array of objects or, as in the published HypotheSAEs data, one object a line.
    ".json": lambda path: (pl.read_json if _begins(path, b"[") else pl.read_ndjson)(path, infer_schema_length=None),
}

# Polars panics on some damaged files, which Python sees as no Exception at all.
READING_FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
# Polars tells programmers which of its parameters to change; nobody here can.
HINTS = (
    r"(?i)you might want to|\bhint:|consider |try (?:setting|increasing)|set `|resolved plan|this error|infer_schema"
)

_ONE_AGAINST_THE_REST = (
    "Name the class that counts as 1 in columns.positive; every other class then counts as 0 (one against the rest). "
    "For each class in turn, declare a dataset per class: equal texts share their embeddings and autoencoders."
)
_NUMERIC = {
    "regression": "Make the column numeric, or set task to `classification` if it holds classes.",
    "pairwise": "Give 1 where the first text wins and 0 where the second does, or name the winner's value of A in "
    "columns.positive.",
}


@dataclass(frozen=True)
class Rows:
    """Observations of a dataset, how many rows were left out for which reason, and the sizes of declared classes.

    `classes` has one entry per class of a label with a declared positive one, largest first; empty otherwise.
    `percents` are the columns whose values end in a percent sign; they hold the number before it.
    """

    frame: pl.DataFrame
    dropped: dict[str, int]
    classes: dict[str, int]
    percents: tuple[str, ...] = ()


def read_rows(dataset: Dataset) -> Rows:
    """Read every file of the dataset.

    Raises:
        DatasetError: a file or column is missing, a text is empty, a label is missing, not a number or has one class,
            a control has more categories than can be held constant.
    """
    paths = dataset.file_paths()
    parts = [_read_file(dataset, split, path) for split, path in paths]
    _check_kinds_agree(dataset, [(path, part) for (_, path), part in zip(paths, parts, strict=True)])
    frame = pl.concat([part.frame for part in parts], how="vertical_relaxed")
    # Reasons without rows fall out of a sum.
    dropped = dict(sum((Counter(part.dropped) for part in parts), Counter[str]()))
    if frame.is_empty():
        names = ", ".join(path.name for _, path in paths)
        why = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "there are none"
        raise DatasetError(
            f"Dataset `{dataset.name}`: no rows are left of {names} ({why}). Add rows, or correct `files`."
        )
    _check_labels(dataset, frame)
    check_categories(dataset, frame)
    check_not_outcome(dataset, frame)
    columns, classes = dataset.spec.columns, {}
    if columns.positive is not None:
        classes = values.class_sizes(values.each_class(frame["class"], columns.listed))
    return Rows(frame.drop("class"), dropped, classes, parts[0].percents)


def _begins(path: Path, sign: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(64).lstrip().startswith(sign)


def _read_file(dataset: Dataset, split: str | None, path: Path) -> Rows:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(
            f"Dataset `{dataset.name}`: {path.name} ends in `{path.suffix}`. Give parquet, csv, tsv, jsonl or json."
        )
    try:
        raw = reader(path)
    except READING_FAULTS as error:
        raise DatasetError(
            f"Dataset `{dataset.name}`: {path} cannot be read as {path.suffix[1:]}: {reading_fault(error)} "
            f"{encoding_fault(path)}Check the file's format and that it is UTF-8; `hsae new` reads most other "
            "forms and writes them plainly."
        ) from error
    raw = plain_headers(raw)
    columns, percents = _pick_columns(dataset, path, raw)
    columns = columns.with_columns(
        pl.lit(path.name).alias("file"),
        pl.int_range(1, raw.height + 1, dtype=pl.Int64).alias("row"),
        pl.lit(split, dtype=pl.String).alias("declared_split"),
    )
    return replace(_clean(dataset, columns), percents=percents)


def _pick_columns(dataset: Dataset, path: Path, raw: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The columns under the names of their roles, and which of the file's are in percent."""
    wanted = dataset.spec.columns
    texts = {name: col for name in ("text", "text_a", "text_b") if (col := getattr(wanted, name))}
    needed = [*texts.values(), wanted.label, *wanted.controls]
    needed += [*wanted.clusters, *[col for col in (wanted.exclude, wanted.id, wanted.time) if col]]
    for column in needed:
        if column not in raw.columns:
            raise DatasetError(
                f"Dataset `{dataset.name}`: {path.name} has no column `{column}` (it has {', '.join(raw.columns)}). "
                "Correct `columns` in dataset.yaml, or the file."
            )
        if raw.schema[column].is_nested() or raw.schema[column] in (pl.Binary, pl.Object, pl.Duration):
            raise DatasetError(
                f"Dataset `{dataset.name}`: column `{column}` of {path.name} holds {_kind(raw.schema[column])}, not "
                "one text or number per row. Write it as such, or name another column in `columns` of dataset.yaml."
            )
    raw = _without_marks(raw, wanted.missing, [*texts.values(), wanted.label, *wanted.clusters, wanted.time])
    regression = dataset.spec.task == "regression"
    raw, percents = values.without_percent_signs(raw, [*([wanted.label] if regression else []), *wanted.controls])
    clusters = {name: pl.col(column).cast(pl.String) for name, column in _cluster_names(wanted.clusters).items()}
    picked = raw.select(
        *[pl.col(column).cast(pl.String).alias(name) for name, column in texts.items()],
        _label(dataset, path, raw).alias("label"),
        (pl.lit(None, pl.String) if regression else _classes(dataset, raw[wanted.label])).alias("class"),
        *[cluster.alias(name) for name, cluster in ({"cluster": pl.lit(None, pl.String)} | clusters).items()],
        *([pl.col(wanted.id).cast(pl.String).alias("id")] if wanted.id else []),
        *([_times(dataset, path, raw[wanted.time]).alias("time")] if wanted.time else []),
        *[_control(raw, name).alias(f"control:{name}") for name in wanted.controls],
        (_truthy(raw, wanted.exclude) if wanted.exclude else pl.lit(False)).alias("excluded"),
    )
    return picked, percents


def _times(dataset: Dataset, path: Path, column: pl.Series) -> pl.Series:
    """The column as f64, null where a cell is empty."""
    found = values.seconds_of(column)
    bad = (found.is_null() & (values.known(column) if column.dtype == pl.String else column.is_not_null())).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DatasetError(
            f"Dataset `{dataset.name}`: {path.name} row {row + 1}, column `{column.name}`: {str(column[row])!r} is no "
            "date or time that can be read in one way only (01/02/2026 may be in January or in February). Write all "
            "of them as 2026-01-31 or 2026-01-31 14:05, or as a number, or leave columns.time out."
        )
    return found


def _cluster_names(columns: Sequence[str]) -> dict[str, str]:
    return {f"cluster:{column}" if i else "cluster": column for i, column in enumerate(columns)}


def _without_marks(raw: pl.DataFrame, marks: Sequence[str | float], names: Sequence[str | None]) -> pl.DataFrame:
    """The table with null for every cell of these columns that holds a mark of a missing value."""
    words = [values.class_key(mark) for mark in marks]
    numbers = [float(mark) for mark in marks if isinstance(mark, int | float)]
    for name in (name for name in names if name and marks):
        column = pl.col(name)
        if raw.schema[name].is_numeric():
            found = column.cast(pl.Float64).is_in(numbers)
        else:
            found = column.cast(pl.String).str.strip_chars().str.to_lowercase().is_in(words)
        raw = raw.with_columns(pl.when(found).then(None).otherwise(column).alias(name))
    return raw


def _kind(dtype: pl.DataType) -> str:
    kinds = {pl.List: "lists", pl.Array: "lists", pl.Struct: "records", pl.Duration: "spans of time"}
    return kinds.get(dtype.base_type(), "bytes")


def _check_kinds_agree(dataset: Dataset, read: list[tuple[Path, Rows]]) -> None:
    """A column of numbers in one file and of words, or of percents, in another cannot become one column."""
    (first, rows), remedy = read[0], "Make it the same in every file."
    for path, other in read[1:]:
        for name in rows.frame.columns:
            numeric = [part.frame.schema[name].is_numeric() for part in (rows, other)]
            if numeric[0] != numeric[1] and name.startswith("control:"):
                raise DatasetError(
                    f"Dataset `{dataset.name}`: column `{name.removeprefix('control:')}` is numeric in one of "
                    f"{first.name} and {path.name} and not in the other. {remedy}"
                )
        if differing := set(rows.percents) ^ set(other.percents):
            raise DatasetError(
                f"Dataset `{dataset.name}`: column `{min(differing)}` is in percent in one of {first.name} and "
                f"{path.name} and not in the other. {remedy}"
            )


def plain_headers(frame: pl.DataFrame) -> pl.DataFrame:
    """Headers without what nobody sees, spaces around them and byte order marks; those that would become equal keep it.

    `*` and `^x$`, which polars takes for patterns, are put into brackets.
    """
    plain = [name.replace("\ufeff", "").strip() for name in frame.columns]
    plain = [f"({name})" if name == "*" or re.fullmatch(r"\^.*\$", name) else name for name in plain]
    return frame.rename({name: new for name, new in zip(frame.columns, plain, strict=True) if plain.count(new) == 1})


def encoding_fault(path: Path) -> str:
    """A sentence about the first line of a text file that is not UTF-8, or nothing."""
    if path.suffix.lower() == ".parquet":
        return ""
    try:
        data = path.read_bytes()
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"Line {data.count(10, 0, error.start) + 1} is the first that is not UTF-8. "
    except OSError:
        return ""
    return ""


def reading_fault(error: BaseException) -> str:
    """What a library says of a file, as a sentence and without its advice to programmers."""
    said = " ".join(re.split(HINTS, str(error), maxsplit=1)[0].split())[:200]
    return f"{said.rstrip(' .:')}." if said else "it is damaged."


def _control(raw: pl.DataFrame, name: str) -> pl.Expr:
    numeric = raw.schema[name].is_numeric() or raw.schema[name] == pl.Boolean
    return pl.col(name).cast(pl.Float64 if numeric else pl.String)


def _truthy(raw: pl.DataFrame, name: str) -> pl.Expr:
    if not (raw.schema[name].is_numeric() or raw.schema[name] == pl.Boolean):
        return pl.col(name).cast(pl.String).str.to_lowercase().is_in(["true", "1", "yes", "t", "y"]).fill_null(False)
    return pl.col(name).cast(pl.Float64).fill_null(0.0) != 0.0


def _classes(dataset: Dataset, label: pl.Series) -> pl.Series:
    """Names of classes; with columns.listed, those of a cell beside each other, spelled alike."""
    listed = dataset.spec.columns.listed
    return values.classes_of(label) if listed is None else values.listed_classes(label, listed)


def _on_scale(dataset: Dataset, path: Path, label: pl.Series) -> pl.Series:
    """The place of each word on the declared scale, from 1 (f64), null where there is none."""
    words = values.classes_of(label)
    scale = dataset.spec.columns.scale
    places = {values.class_key(word): float(place) for place, word in enumerate(scale, 1)}
    number = words.str.to_lowercase().replace_strict(places, default=None, return_dtype=pl.Float64)
    unknown = number.is_null() & words.is_not_null()
    if unknown.any():
        row = int(unknown.arg_true()[0])
        raise DatasetError(
            f"Dataset `{dataset.name}`: {path.name} row {row + 1}, column `{label.name}`: {words[row]!r} is not on the "
            f"scale ({', '.join(scale)}). Add it to columns.scale, or to columns.missing if it is no answer."
        )
    return number


def _label(dataset: Dataset, path: Path, raw: pl.DataFrame) -> pl.Series:
    """The label as f64 with nulls where it is missing."""
    spec, label = dataset.spec, raw[dataset.spec.columns.label]
    if spec.columns.positive is not None:
        target, classes = values.class_name(spec.columns.positive), _classes(dataset, label)
        positive = values.one_against_the_rest(classes, target, spec.columns.listed)
        if not positive.sum():
            present = values.listed(values.each_class(classes, spec.columns.listed))
            raise DatasetError(
                f"Dataset `{dataset.name}`: no row of {path.name} has the value {target!r} in "
                f"`{spec.columns.label}` (it has {present}). Correct columns.positive."
            )
        return positive
    if spec.columns.scale:
        return _on_scale(dataset, path, label)
    if label.dtype.is_temporal():
        raise DatasetError(
            f"Dataset `{dataset.name}`: column `{spec.columns.label}` of {path.name} holds dates or times (row 1: "
            f"{label[0]}). Make a number of it, such as days since a day that matters, or name another label column."
        )
    if not (label.dtype.is_numeric() or label.dtype == pl.Boolean):
        label = label.cast(pl.String).str.strip_chars()
        label = label.set(label == "", None)
    number = label.cast(pl.Float64, strict=False)
    bad = number.is_null() & label.is_not_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        if spec.task == "regression":
            where = f"Dataset `{dataset.name}`: {path.name}, column `{spec.columns.label}`"
            raise DatasetError(values.why_no_number(label, where, row, _NUMERIC["regression"]))
        where = f"Dataset `{dataset.name}`: {path.name} row {row + 1}, column `{spec.columns.label}`: {label[row]!r}"
        if spec.task == "classification":
            present = values.listed(values.classes_of(label))
            raise DatasetError(f"{where} is neither 0 nor 1; the classes are {present}. {_ONE_AGAINST_THE_REST}")
        raise DatasetError(f"{where} is not a number. {_NUMERIC[spec.task]}")
    return number.fill_nan(None)


def _clean(dataset: Dataset, frame: pl.DataFrame) -> Rows:
    """Leave out excluded rows; stop at, or drop, rows without text, label, time or cluster, as dataset.yaml says."""
    dropped = {"excluded by columns.exclude": int(frame["excluded"].sum())}
    frame = frame.filter(~pl.col("excluded")).drop("excluded")
    columns = dataset.spec.columns
    names = ("text", "text_a", "text_b", "label", "time")
    roles = {name: getattr(columns, name) for name in names if name in frame.columns}
    for name, declared in (roles | _cluster_names(columns.clusters)).items():
        column = pl.col(name)
        missing = column.is_null()
        if frame.schema[name] == pl.String:
            missing = missing | (column.str.strip_chars() == "")
        elif frame.schema[name].is_float():
            missing = missing | column.is_infinite()
        faulty = frame.filter(missing)
        if faulty.is_empty():
            continue
        if columns.on_missing == "error":
            where = f"{faulty['file'][0]} row {faulty['row'][0]}"
            raise DatasetError(
                f"Dataset `{dataset.name}`: {faulty.height} of {frame.height} rows have no usable value in column "
                f"`{declared}` (first: {where}). Complete them, or set columns.on_missing to `drop` to leave them out."
            )
        reason = f"no usable {name.partition(':')[0]}"
        dropped[reason] = dropped.get(reason, 0) + faulty.height
        frame = frame.filter(~missing)
    return Rows(frame, dropped, {})


def _check_labels(dataset: Dataset, frame: pl.DataFrame) -> None:
    task, labels = dataset.spec.task, frame["label"].unique().sort().to_list()
    names = ", ".join(frame["file"].unique(maintain_order=True))
    where = f"Dataset `{dataset.name}`: {names}, column `{dataset.spec.columns.label}`"
    if len(labels) < 2:
        raise DatasetError(f"{where}: every label is {labels[0]:g}, so nothing can predict it. Check the column.")
    if task != "regression" and not set(labels) <= {0.0, 1.0}:
        number = "If the numbers have an order, set task to `regression` instead."
        remedy = f"{_ONE_AGAINST_THE_REST} {number}" if task == "classification" else _NUMERIC[task]
        raise DatasetError(f"{where}: a {task} label must be 0 or 1; found {values.listed(frame['class'])}. {remedy}")
