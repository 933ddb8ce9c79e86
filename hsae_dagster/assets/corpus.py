"""`corpus`: the dataset's files, validated, keyed, deduplicated and split by cluster."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from hsae_dagster.core.corpus import Corpus
from hsae_dagster.core.observations import Cuts, text_sides
from hsae_dagster.core.selection.stability import placed_in, views
from hsae_dagster.dataset.discovery import file_versions, files_stamp
from hsae_dagster.dataset.rows import check_sizes, training_units
from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_json
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained, picture, table
from hsae_dagster.report.wording import left_out_words
from hsae_dagster.stages.holdout import Admitted, admit, kept, placing_of, record_of
from hsae_dagster.storage.outputs import StoredCorpus

NAME = "corpus"
CODE_VERSION = "6"


@dg.asset(**declared(NAME, CODE_VERSION), deps=["labelled_texts"], kinds={"polars", "parquet"})
def corpus(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Tables of distinct texts (key, text, split, cluster), their distinct units, and observations or pairs."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        # Before the first byte is read: what is kept under a fingerprint must be what had that fingerprint.
        stamp = files_stamp(stage.dataset)
        config: dict[str, Any] = {
            "files": file_versions(stage.dataset),
            "task": spec.task,
            "columns": spec.columns.model_dump(mode="json"),
            "splits": placing_of(spec),
            "units": spec.units,
        }
        record, files = record_of(project.results, stage.dataset), hash_json(config["files"])
        known = record.read()
        admitted = None if known and files in known.made else _admit(stage, stamp)
        key = known.made[files] if known and admitted is None else admitted.key if admitted else None
        config |= {"placing": key} if key else {}
        found = stage.build(
            StoredCorpus, config, [], lambda folder: _make(stage, admitted or _admit(stage, stamp), folder)
        )
        summary = found.summary
        if admitted is not None:
            holdout = kept(summary["round"], found.observations, found.texts)
            made = {} if admitted.waiting else {files: key}
            record.keep(Cuts(**summary["cuts"]), admitted.rounds, holdout, made)
        waiting = admitted.said if admitted else ""
        if waiting:
            stage.report(waiting)
        stage.report(f"{summary['observations']:,} observations of {summary['clusters']:,} clusters")
        # Before anything is embedded: what the autoencoders would refuse later.
        check_sizes(stage.dataset, summary["training_units"], summary["units"]["kind"])
        described = _describe(found, summary, spec.outcome_name) | {"new rows": waiting or "none wait"}
        return stage.finish(found, described, _check(found.observations, summary))


def _admit(stage: Stage, stamp: str) -> Admitted:
    """The rows of the files, as far as they are admitted."""
    from hsae_dagster.dataset.rows import read_rows

    rows = read_rows(stage.dataset)
    if files_stamp(stage.dataset) != stamp:
        raise DatasetError(
            f"Dataset `{stage.dataset.name}`: a file in {stage.dataset.folder} changed while it was read. Wait until "
            "it is copied completely, then run again; the refresh does so by itself."
        )
    return admit(stage.project.results, stage.dataset, rows)


def _make(stage: Stage, admitted: Admitted, folder: Path) -> None:
    from hsae_dagster.dataset.rows import check_levels
    from hsae_dagster.dataset.units import make_units
    from hsae_dagster.dataset.values import class_key

    rows, made = admitted.rows, admitted.corpus(stage.dataset)
    for view in views(made.observations):
        check_levels(stage.dataset.spec.selection, view)
    units = make_units(made.texts, stage.dataset.spec.units)
    positive = class_key(stage.dataset.spec.columns.positive)
    classes = [
        {"class": name, "rows": n, "counts as": int(class_key(name) == positive)} for name, n in rows.classes.items()
    ]
    summary = _summarise(stage.dataset.spec.task, rows.frame.height, made) | {"units": units.counts()}
    summary["training_units"] = training_units(made.texts, units.text_units)
    StoredCorpus.write(
        folder,
        texts=made.texts,
        observations=made.observations,
        units=units.units,
        text_units=units.text_units,
        summary=summary | ({"classes": classes} if classes else {}),
    )


def _summarise(task: str, read: int, made: Corpus) -> dict[str, Any]:
    texts = placed_in(made.texts)
    by_split = [
        {
            "split": name,
            "observations": rows.height,
            "texts": texts[name].height,
            "clusters": rows["cluster_id"].n_unique(),
        }
        for name, rows in placed_in(made.observations).items()
    ]
    return {
        "task": task,
        "rows_read": read
        + sum(n for reason, n in made.dropped.items() if reason.startswith(("excluded", "no usable"))),
        "observations": made.observations.height,
        "texts": made.texts.height,
        "clusters": made.observations["cluster_id"].n_unique(),
        "dropped": made.dropped,
        "moved": made.moved,
        "joined": dict(made.joined),
        "round": made.round,
        "cuts": asdict(made.cuts),
        **({"one holdout": made.one_holdout} if made.one_holdout else {}),
        "splits": by_split,
    }


def _describe(found: StoredCorpus, summary: dict[str, Any], outcome: str) -> dict[str, Any]:
    from hsae_dagster.report.figures import label_histogram

    figure = label_histogram(found.observations["label"].to_numpy(), summary["task"], outcome)
    units, why = summary["units"], summary.get("one holdout")
    design = f"one holdout: {why}" if why else "one holdout"  # why `auto` decided against halves
    if summary["cuts"]["two_halves"]:
        design = "two halves, each testing what the other found"
    dropped = [{"reason": left_out_words(reason), "rows": n} for reason, n in summary["dropped"].items()]
    return {
        "dagster/row_count": summary["texts"],
        "observations": summary["observations"],
        "clusters": summary["clusters"],
        "rows read": summary["rows_read"],
        "splits": table(summary["splits"]),
        "unit": units["kind"],
        "units": units["units"],
        "distinct units": units["distinct"],
        "units of the median text": units["median per text"],
        "words of the longest unit": units["longest"],
        "words of the shortest unit": units["shortest"],
        "rows left out": table(dropped) if dropped else "none",
        "rows in larger clusters": table(
            [{"by": by, "rows": n} for by, n in summary["joined"].items()] or [{"by": "", "rows": 0}]
        ),
        "rows of another declared split": summary["moved"],
        "round": summary["round"],
        "design": design,
        "outcome": picture(figure.png, figure.alt),
        **({"classes": table(summary["classes"])} if "classes" in summary else {}),
    }


def _check(observations: pl.DataFrame, summary: dict[str, Any]) -> list[dg.AssetCheckResult]:
    sides = text_sides(observations)
    place = "half" if "half" in observations.columns else "split"
    placed = pl.concat([observations.select(pl.col(side).alias("text_id"), place, "cluster_id") for side in sides])
    shared = placed.group_by("text_id").agg(pl.col(place).n_unique()).filter(pl.col(place) > 1).height
    crossing = placed.group_by("cluster_id").agg(pl.col(place).n_unique()).filter(pl.col(place) > 1).height
    needed = placed_in(observations)
    values = {name: needed[name]["label"].n_unique() for name in needed if name not in ("validation", "fidelity")}
    dropped = sum(summary["dropped"].values())
    return [
        check_result(
            NAME,
            "splits_share_no_text",
            not shared and not crossing,
            {"shared texts": shared, "shared clusters": crossing},
        ),
        check_result(NAME, "labels_vary", min(values.values()) > 1, {f"values in {k}": v for k, v in values.items()}),
        check_result(NAME, "few_rows_dropped", dropped < 0.25 * summary["rows_read"], {"dropped": dropped}),
        _check_balance(observations),
    ]


def _check_balance(observations: pl.DataFrame) -> dg.AssetCheckResult:
    """The commonest label value of each split, and its share of the split's observations."""
    rows = []
    for split, placed in placed_in(observations).items():
        labels = placed["label"]
        if labels.len():
            value, count = labels.value_counts(sort=True).row(0)
            rows.append({"split": split, "commonest label": float(value), "share": round(count / labels.len(), 4)})
    largest = max((float(row["share"]) for row in rows), default=1.0)
    return check_result(NAME, "labels_balanced", largest <= 0.95, {"splits": table(rows), "largest share": largest})
