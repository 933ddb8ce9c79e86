"""gold.csv: what people say about texts and concepts.

Belongs here: reading and checking the file beside dataset.yaml, and writing the sheet that people fill in. Does not
belong here: which texts are drawn and what the labels correct (`core.annotation_error`).

Columns: `text_id`, `concept` (its id, or its claim word for word), `label` (yes/no, true/false or 1/0; empty where
nobody has said yet), and optionally `probability` (of the text's being drawn, as the sheet gives it) and `annotator`.
"""

from pathlib import Path

import polars as pl

from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_bytes

FILE = "gold.csv"
SHEET_COLUMNS = ("concept", "claim", "text_id", "text", "probability", "annotator", "label")
GOLD_SCHEMA = {
    "text_id": pl.String,
    "concept": pl.String,
    "label": pl.Int8,
    "probability": pl.Float64,
    "annotator": pl.String,
}
_YES, _NO = {"1", "1.0", "yes", "true", "y"}, {"0", "0.0", "no", "false", "n"}


def gold_hash(folder: Path) -> str | None:
    """Fingerprint of a dataset's gold.csv, or None when it has none."""
    path = folder / FILE
    return hash_bytes(path.read_bytes()) if path.is_file() else None


def read_gold(dataset: str, folder: Path) -> pl.DataFrame | None:
    """Labels by people, columns `GOLD_SCHEMA`, rows without a label left out; None when there is no gold.csv.

    Raises:
        DatasetError: the file cannot be read, lacks a column, or holds a label or probability that is none.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        raw = pl.read_csv(path, infer_schema=False, encoding="utf8")
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"Dataset `{dataset}`: {path} cannot be read as CSV in UTF-8: {reason}") from error
    for column in ("text_id", "concept", "label"):
        if column not in raw.columns:
            raise DatasetError(
                f"Dataset `{dataset}`: {path.name} has no column `{column}` (it has {', '.join(raw.columns)}). "
                f"`hsae gold {dataset}` writes a sheet with all of them."
            )
    rows = raw.with_row_index("row", offset=2).with_columns(
        pl.col("label").fill_null("").str.strip_chars().str.to_lowercase(),
        (pl.col("probability") if "probability" in raw.columns else pl.lit(None, pl.String)).alias("probability"),
        (pl.col("annotator") if "annotator" in raw.columns else pl.lit(None, pl.String))
        .fill_null("")
        .alias("annotator"),
    )
    rows = rows.filter(pl.col("label") != "")
    _check(dataset, rows, ~pl.col("label").is_in([*_YES, *_NO]), "label", "Write yes or no, or leave it empty.")
    chance = pl.col("probability").cast(pl.Float64, strict=False)
    wrong = pl.col("probability").is_not_null() & ~chance.is_between(0, 1, closed="right").fill_null(value=False)
    _check(dataset, rows, wrong, "probability", "Keep the number that the drawn sheet gave, or leave it empty.")
    return rows.select(
        pl.col("text_id").str.strip_chars(),
        pl.col("concept").str.strip_chars(),
        pl.col("label").is_in([*_YES]).cast(pl.Int8).alias("label"),
        chance.alias("probability"),
        "annotator",
    )


def _check(dataset: str, rows: pl.DataFrame, wrong: pl.Expr, column: str, remedy: str) -> None:
    bad = rows.filter(wrong)
    if bad.height:
        raise DatasetError(
            f"Dataset `{dataset}`: {FILE}, row {bad['row'][0]}: {column} is `{bad[column][0]}` "
            f"({bad.height} such rows). {remedy}"
        )


def write_sheet(path: Path, rows: pl.DataFrame) -> None:
    """The sheet that people fill in, columns `SHEET_COLUMNS`; it does not say what the judge said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.select(SHEET_COLUMNS).write_csv(path)
