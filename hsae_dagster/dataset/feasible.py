"""What a dataset is too small or too uniform for, found before anything is computed.

Belongs here: what a later stage would refuse for the data's sake and what can be told from split rows and dataset.yaml
alone. Does not belong here: reading rows (`rows`), splitting them (`core.corpus`), strata (`controls`).
"""

import polars as pl

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import guidance_needs_texts
from hsae_dagster.errors import MethodError


def check_labels(dataset: Dataset, observations: pl.DataFrame) -> None:
    """Refuse labels that are the same throughout training or holdout observations.

    Raises:
        MethodError: with the split and the value.
    """
    for split in ("train", "holdout"):
        values = observations.filter(pl.col("split") == split)["label"].unique()
        if values.len() == 1:
            raise MethodError(
                f"Dataset `{dataset.name}`: every label of the {split} split is {values[0]:g}, so nothing can be "
                "learned or tested there. Bring more rows of the rarer outcome, take another columns.label or "
                "columns.positive, or change splits.salt."
            )


def training_units(texts: pl.DataFrame, text_units: pl.DataFrame) -> int:
    """How many different units the training texts have, from which autoencoders learn.

    Args:
        texts: with their split, by `text_id`.
        text_units: which units each text has (`dataset.units.TEXT_UNITS_SCHEMA`).
    """
    return text_units.join(texts.filter(pl.col("split") == "train"), on="text_id", how="semi")["unit_id"].n_unique()


def check_sizes(dataset: Dataset, n_train: int, kind: str) -> None:
    """Refuse autoencoders and numbers of neurons that so few training units, or so few neurons, cannot give.

    Args:
        dataset: as declared.
        n_train: different units that autoencoders learn from.
        kind: of the units: text, sentence or paragraph.

    Raises:
        MethodError: with both numbers.
        DatasetError: a declared checkpoint is missing.
    """
    spec, wanted = dataset.spec, dataset.spec.selection.n
    trained = [sae for sae in spec.listed_saes if sae.checkpoint is None]
    for sae in spec.listed_saes:
        if sae.checkpoint is not None:
            dataset.checkpoint_path(sae.checkpoint)
    too_wide = next((sae.m for sae in trained if sae.m > n_train), None)
    if too_wide is not None:
        raise MethodError(
            f"Dataset `{dataset.name}`: an autoencoder of m = {too_wide} neurons cannot be trained on {n_train} "
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
