"""What each stage hands to the next: one frozen class per result, with its files, their schemas and what they hold.

Only here do a result's file names stand. A file is read when it is first asked for and kept, so a step that passes
the same object around reads each of its files once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.core.observations import TextUnits, text_rows
from hsae_dagster.core.selection.stability import Side, of_half, sides, silenced
from hsae_dagster.dataset.units import TEXT_UNITS_SCHEMA, UNITS_SCHEMA, Kind
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage.artifacts import (
    load_sae,
    read_arrays,
    read_codes,
    read_frame,
    read_json,
    same_file,
    write_arrays,
    write_codes,
    write_frame,
    write_json,
)
from hsae_dagster.storage.objects import INCOMPLETE, ObjectStore, StageInputs, StoredObject
from hsae_dagster.storage.vectors import gather, write_vectors

if TYPE_CHECKING:
    from hsae_dagster.core.sae.model import SparseAutoencoder

T = TypeVar("T")
OutputT = TypeVar("OutputT", bound="Output")
Schema: TypeAlias = Mapping[str, pl.DataType | type[pl.DataType]]
# Vectors held at once where they are only passed through: 100 MB of 384 float32.
_PASSED = 65_536


class File(cached_property[T]):
    """One file of a result, of this `name` in its folder: an attribute of its class, read when first asked for.

    An `optional` one may be lacking, and reads as None there; `write` takes a path and the content.
    """

    def __init__(
        self, name: str, read: Callable[[Path], T], write: Callable[[Path, Any], object], *, optional: bool = False
    ) -> None:
        super().__init__(self._of)
        self.name, self.read, self.write, self.optional = name, read, write, optional

    def _of(self, output: "Output") -> T:
        path = output.stored.file(self.name)
        if self.optional and not path.is_file():
            return None  # type: ignore[return-value]
        try:
            return self.read(path)
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{path} is not what this version reads of `{output.asset}` ({error}). Remove {path.parent}, then "
                f"materialize `{output.asset}` again."
            ) from error


def _table(name: str, schema: Schema) -> File[pl.DataFrame]:
    """A table with at least these columns, several names of one type in one string."""

    def fitting(frame: pl.DataFrame) -> pl.DataFrame:
        for names, kind in schema.items():
            for column in names.split():
                if frame.schema.get(column) != kind:
                    raise ValueError(f"its column `{column}` is {frame.schema.get(column, 'missing')}, not {kind}")
        return frame

    return File(name, lambda path: fitting(read_frame(path)), lambda path, frame: write_frame(path, fitting(frame)))


def _optional(file: File[T]) -> File[T | None]:
    file.optional = True
    return file  # type: ignore[return-value]


def _json(name: str, *, optional: bool = False) -> File[Any]:
    return File(name, read_json, write_json, optional=optional)


def _figure(name: str) -> File[tuple[bytes, str]]:
    """A picture, and beside it what it says in words."""

    def write(path: Path, figure: tuple[bytes, str]) -> None:
        path.write_bytes(figure[0])
        path.with_suffix(".txt").write_text(figure[1], encoding="utf-8")

    return File(name, lambda path: (path.read_bytes(), path.with_suffix(".txt").read_text(encoding="utf-8")), write)


@dataclass(frozen=True)
class Output:
    """A stored result of the stage `asset`, as the stages downstream read it.

    `shown` is the name of the file that is a table to Dagster, `passing` of a large one that goes with the next result:
    it is made again where it is needed. Empty where none is.
    """

    stored: StoredObject
    asset: ClassVar[str]
    shown: ClassVar[str] = ""
    passing: ClassVar[str] = ""
    spending = _json("_spending.json", optional=True)
    incomplete = _json(INCOMPLETE, optional=True)

    @classmethod
    def current(cls: type[OutputT], store: ObjectStore, dataset: str) -> OutputT:
        """The current one of a dataset, verified.

        Raises:
            StorageError: it was never materialized, or its files are damaged.
        """
        return cls(store.current(dataset, cls.asset))

    @classmethod
    def write(cls, folder: Path, **contents: Any) -> None:
        """Write the files of a result by the names of their attributes; one that may be lacking can be None.

        What is passed twice is one file under two names.

        Raises:
            TypeError: a file is missing, or is none of this result.
            ValueError: a table does not have its declared columns.
        """
        files = {name: getattr(cls, name) for name in dir(cls) if isinstance(getattr(cls, name), File)}
        needed = {name for name, file in files.items() if not file.optional}
        if not needed <= contents.keys() <= files.keys():
            raise TypeError(f"`{cls.asset}` is made of {', '.join(files)}, not of {', '.join(contents)}.")
        written: dict[int, Path] = {}
        for name, content in contents.items():
            path = folder / files[name].name
            if content is not None and written.setdefault(id(content), path) is path:
                files[name].write(path, content)
            elif content is not None:
                same_file(written[id(content)], path)


def inputs_of(asset: str, version: str, config: Mapping[str, Any], upstream: Sequence[Output]) -> StageInputs:
    """What a result is a function of that is made from others."""
    return StageInputs(asset, version, config, {each.asset: each.stored.data_version for each in upstream})


def lacking(answers: int) -> dict[str, int] | None:
    """What `incomplete` holds where so many answers are missing that asking again may bring; None for none."""
    return {"answers that asking again may bring": answers} if answers else None


class StoredCorpus(Output):
    """Texts, observations or pairs of them, distinct units, and which text has which; rows in the order of their keys.

    Controls are columns `control:<name>` of the observations; with two halves, texts and observations have a `half`.
    """

    asset = "corpus"
    texts = _table("texts.parquet", {"text_id text split cluster_id": pl.String, "n_words": pl.Int32})
    observations = _table("observations.parquet", {"label": pl.Float64, "split cluster_id": pl.String})
    units = _table("units.parquet", UNITS_SCHEMA)
    text_units = _table("text_units.parquet", TEXT_UNITS_SCHEMA)
    summary = _json("summary.json")
    shown = texts.name

    @cached_property
    def places(self) -> TextUnits:
        """Which units each text has."""
        return TextUnits.of(self.units, self.text_units)

    @cached_property
    def sides(self) -> list[Side]:
        """The corpus as each discovery sees it: once, or once from each half."""
        return sides(self.texts, self.observations)

    @property
    def unit_texts(self) -> pl.DataFrame:
        """What is embedded: the distinct units, as text_id and text."""
        return self.units.select(text_id="unit_id", text="unit")

    @property
    def unit_kind(self) -> Kind:
        """What `units: auto` was resolved to."""
        kind: Kind = self.summary["units"]["kind"]
        return kind

    def wording(self, unit_ids: pl.Series) -> list[str]:
        """What units, ascending keys, read like."""
        return self.units["unit"].gather(text_rows(self.units["unit_id"], unit_ids)).to_list()


class StoredEmbeddings(Output):
    """One vector per distinct unit, as the rows of one file in the order of their keys; LanceDB keeps them for good.

    `units` has a row per unit: its key, and a sum of its vector, which `read` compares. To compare the hash of the
    whole file, as of any other, would take longer than to read it.
    """

    asset = "embeddings"
    record = _json("embeddings.json")
    units = _table("_units.parquet", {"unit_id": pl.String, "sum": pl.UInt32})
    passing = "_vectors.npy"

    @classmethod
    def write(cls, folder: Path, **contents: Any) -> None:
        """Besides `record`, the `table` that has the vectors of `unit_ids` (ascending).

        Raises:
            LackingVectors: one has no vector there.
        """
        table, ids = contents.pop("table"), contents.pop("unit_ids")
        sums = write_vectors(folder / cls.passing, table, ids)
        super().write(folder, units=pl.DataFrame({"unit_id": ids, "sum": sums}), **contents)

    @property
    def family(self) -> EmbeddingSet:
        """The set that the vectors belong to."""
        return EmbeddingSet(self.record["model"], self.record["dimensions"], self.record["set_id"])

    def lacking(self, ids: pl.Series) -> np.ndarray:
        """Which of `ids` (n,) have no vector, (n,) bool; none has one where the file went with the next result."""
        if not self.stored.file(self.passing).is_file():
            return np.ones(len(ids), dtype=bool)
        return ~ids.is_in(self.units["unit_id"].implode()).to_numpy()

    def read(self, ids: pl.Series) -> np.ndarray:
        """Vectors of `ids` in their order, (n, d) float32, contiguous.

        Raises:
            StorageError: the file is not what was written.
            MethodError: a key has no vector.
        """
        path, known = self.stored.file(self.passing), self.units["unit_id"]
        at = np.arange(len(ids)) if ids.equals(known) else text_rows(known, ids)
        found = gather(path, at, self.units["sum"].to_numpy(), self.family.dimensions)
        if found is None:
            raise StorageError(
                f"The stored file {path} is missing or not what was written. Materialize `{self.asset}` again."
            )
        return found

    def of_texts(self, units: TextUnits, text_ids: pl.Series) -> np.ndarray:
        """The vector of each text (ascending keys): its own, or the mean of its units', repetitions included.

        (n, d) float32.
        """
        some = units.of_texts(text_ids)
        if some.are_texts:
            return self.read(some.unit_ids)
        # A block of texts at a time: their units' vectors together are several times what is returned.
        each = max(1, _PASSED * len(text_ids) // max(len(some.rows), 1))
        blocks = (some.of_texts(text_ids.slice(start, each)) for start in range(0, max(len(text_ids), 1), each))
        return np.concatenate([block.mean(self.read(block.unit_ids)) for block in blocks])

    def blocks(self, unit_ids: pl.Series) -> Iterator[np.ndarray]:
        """(block, d) vectors of units in their order, so that not all are held at once."""
        for start in range(0, max(len(unit_ids), 1), _PASSED):
            yield self.read(unit_ids.slice(start, _PASSED))


class StoredSAE(Output):
    """One autoencoder, written by `artifacts.save_sae`; several datasets may share it."""

    asset = "sae"
    record = _json("sae.json")

    @property
    def sae(self) -> "SparseAutoencoder":
        """The autoencoder, on the CPU."""
        return load_sae(self.stored.folder, self.record)


class StoredCheckpoints(Output):
    """The autoencoders of a dataset, in the order of the codes' columns.

    `records` are those of `artifacts.save_sae`; `seeds` has those of further seeds by the id of the first. Where sizes
    were raced, `grid` has a row per size and `choice` says why one was taken.
    """

    asset = "sae_checkpoints"
    records = _json("saes.json")
    seeds = _json("seeds.json", optional=True)
    grid = _optional(_table("grid.parquet", {"m k": pl.Int64, "chosen": pl.Boolean, "half": pl.String}))
    choice = _json("choice.json", optional=True)

    def load(self, record: dict[str, Any]) -> "SparseAutoencoder":
        """The autoencoder of one record, on the CPU."""
        return load_sae(self.stored.folder, record)

    def weights(self, record: dict[str, Any]) -> dict[str, np.ndarray]:
        """Those of one record; `decoder` is (m, d) float32."""
        return read_arrays(self.stored.file(record["file"]))


class StoredActivations(Output):
    """Sparse codes, all autoencoders side by side, never a dense matrix.

    `unit_codes` (distinct units, neurons) has the rows of `units`, `codes` (texts, neurons) those of `texts`: CSR of
    float32. `strongest` (entries,) int32 is parallel to the data of `codes`: row of the unit with the largest
    activation. `columns` has a row per neuron: its autoencoder, how often it fires, and the half whose
    outcomes chose its size (empty: both, or none). Where each text is its own unit the two codes are one file.
    """

    asset = "activations"
    texts = _table("texts.parquet", {"text_id": pl.String})
    units = _table("units.parquet", {"unit_id": pl.String})
    columns = _table(
        "columns.parquet", {"column sae_column": pl.Int64, "sae_id half": pl.String, "firing_rate": pl.Float64}
    )
    codes = File("codes.safetensors", read_codes, write_codes)
    unit_codes = File("unit_codes.safetensors", read_codes, write_codes)
    strongest = File(
        "strongest.safetensors",
        lambda path: read_arrays(path)["rows"],
        lambda path, rows: write_arrays(path, {"rows": rows}),
    )
    shown = texts.name

    @property
    def text_ids(self) -> pl.Series:
        """(texts,) keys, ascending."""
        return self.texts["text_id"]

    def of_half(self, half: str) -> sp.csr_matrix:
        """`codes` in which neurons of an autoencoder whose size the outcomes of the other half chose are silent.

        With an empty `half` none is.
        """
        foreign = self.columns.filter(~pl.col("half").is_in(["", half]))["column"].to_list() if half else []
        return silenced(self.codes, foreign)

    def on(self, text_ids: pl.Series, half: str = "") -> sp.csr_matrix:
        """Rows of `of_half` for some texts."""
        return self.of_half(half)[text_rows(self.text_ids, text_ids)]

    def on_units(self, unit_ids: pl.Series) -> sp.csr_matrix:
        """Rows of `unit_codes` for some units."""
        return self.unit_codes[text_rows(self.units["unit_id"], unit_ids)]


@dataclass(frozen=True)
class StrongestUnits:
    """Which unit of each judged text fires a neuron most.

    Attributes:
        codes, rows: (texts, m) CSR of the texts, and parallel to its data the row of the strongest unit.
        places: (judged,) rows of `codes`.
        units: what each unit reads like, rows as in the activations.
    """

    codes: sp.csr_matrix
    rows: np.ndarray
    places: np.ndarray
    units: pl.Series

    @staticmethod
    def of(activations: StoredActivations, corpus: StoredCorpus, text_ids: pl.Series) -> "StrongestUnits":
        """For some texts."""
        units = activations.units.join(corpus.units, "unit_id", "left", maintain_order="left")
        places = text_rows(activations.text_ids, text_ids)
        return StrongestUnits(activations.codes, activations.strongest, places, units["unit"])

    def strongest(self, row: int, neuron: int | None) -> str:
        """The unit of a judged text that fires a neuron most; empty where none does."""
        if neuron is None:
            return ""
        start, end = self.codes.indptr[self.places[row]], self.codes.indptr[self.places[row] + 1]
        found = np.flatnonzero(self.codes.indices[start:end] == neuron)
        return str(self.units[int(self.rows[start + found[0]])]) if len(found) else ""


class StoredSelection(Output):
    """Neurons by rank, and how they were selected."""

    asset = "selected_neurons"
    neurons = _table("neurons.parquet", {"rank column": pl.Int64, "score": pl.Float64, "sae_id half": pl.String})
    summary = _json("selection.json")
    shown = neurons.name

    def columns(self, half: str) -> list[int]:
        """Columns of the neurons that one side selected, by rank."""
        return of_half(self.neurons, half)["column"].to_list()


class StoredInterpretations(Output):
    """Concepts by rank, some of them None with why; texts that were read, by split; and how claims were chosen."""

    asset = "interpretations"
    concepts = File(
        "concepts.json",
        lambda path: tuple(FoundConcept.of(record) for record in read_json(path)),
        lambda path, concepts: write_json(path, [concept.record for concept in concepts]),
    )
    seen = _json("seen.json")
    choice = _json("choice.json", optional=True)

    @property
    def readable(self) -> list[FoundConcept]:
        """Those of which something can be said, by rank."""
        return [found for found in self.concepts if found.concept]

    @property
    def distinct(self) -> list[FoundConcept]:
        """The readable ones, by rank, each concept once.

        Two neurons may share a concept: its judgement is made once, and the first of them stands for it. Found in both
        halves, it is tested in both.
        """
        once: dict[tuple[str, str], FoundConcept] = {}
        for found in self.readable:
            once.setdefault((found.half, found.concept_id), found)
        return list(once.values())


class StoredMatrix(Output):
    """Holdout texts × concepts: nullable booleans, one column per concept id; null is a missing answer, and why."""

    asset = "annotation_matrix"
    annotations = _table("annotations.parquet", {"text_id": pl.String})
    missing = _table("missing.parquet", {"text_id concept_id reason": pl.String})
    observations = _table("observations.parquet", {"label": pl.Float64, "split cluster_id": pl.String})
    summary = _json("summary.json")
    plan = _json("_plan.json", optional=True)
    distilled = _optional(_table("distilled.parquet", {"text_id": pl.String, "probability": pl.Float64}))
    shown = annotations.name


class StoredEvaluation(Output):
    """Tables, figures and page of an evaluation; what begins with `_` shapes nothing further down."""

    asset = "evaluation_report"
    plan = _json("plan.json")
    hypotheses = _table("hypotheses.parquet", {"hypothesis_id half": pl.String, "n": pl.Int64})
    fits = _table("fits.parquet", {"name": pl.String, "value": pl.Float64})
    summary = _json("evaluation.json")
    examples = _json("evidence.json")
    evidence = _table("evidence.parquet", {"hypothesis_id role text_id": pl.String})
    annotations = _table("annotations.parquet", {})
    cards = _json("_cards.json")
    rows = _json("_table.json")
    forest = _figure("_forest.png")
    ladder = _figure("_ladder.png")
    page = File("_report.html", Path.read_bytes, Path.write_bytes)
    shown = hypotheses.name

    @classmethod
    def write(cls, folder: Path, **contents: Any) -> None:
        """Besides its own files, `tables` of the page by name; `evidence` is one of them."""
        tables: Mapping[str, pl.DataFrame] = contents.pop("tables")
        super().write(folder, evidence=tables["evidence"], **contents)
        for name, frame in tables.items():
            write_frame(folder / f"{name}.parquet", frame)

    @property
    def tables(self) -> list[Path]:
        """Every table, by name."""
        return sorted(self.stored.folder.glob("*.parquet"))
