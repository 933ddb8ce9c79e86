"""`sae_checkpoints`: the dataset's sparse autoencoders; on the GPU if there is one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster.core.concepts.candidates import SOURCES
from hsae_dagster.dataset.sections import SAE, AutoSizes
from hsae_dagster.extensions import own_sources
from hsae_dagster.orchestration.executors import GPU_OP_TAGS, gpu_pool
from hsae_dagster.orchestration.project import Project, datasets
from hsae_dagster.orchestration.stage import Stage, check_result, check_specs, explained, picture, table
from hsae_dagster.stages import autoencoders
from hsae_dagster.stages.sizes import GRID, choose_saes, declared, trainings, twins, unfinished
from hsae_dagster.storage.artifacts import same_file
from hsae_dagster.storage.outputs import Output, StoredCheckpoints, StoredCorpus, StoredEmbeddings, StoredSAE

NAME = "sae_checkpoints"
CODE_VERSION = "17"

# Share of the validation loss that the last epochs must still take off for an epoch limit to matter.
STILL_FALLING = 0.005
_CHECKS = check_specs(NAME)
# Steps hand over nothing but their end: results are in the store.
_STEPS = dg.DynamicOut(dg.Nothing)
_CHECK_OUTS = {spec.get_python_identifier(): dg.Out(dg.Nothing) for spec in _CHECKS}


@dataclass(frozen=True)
class Checkpoints:
    """The autoencoders of one dataset, as each of the asset's steps sees them."""

    stage: Stage
    embeddings: StoredEmbeddings
    lessons: autoencoders.Lessons

    @staticmethod
    def open(context: dg.OpExecutionContext, project: Project) -> "Checkpoints":
        """Read what the autoencoders depend on; the vectors only when somebody trains."""
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        corpus, embeddings = stage.upstream(StoredCorpus), stage.upstream(StoredEmbeddings)
        chosen = isinstance(stage.dataset.spec.saes, AutoSizes)
        lessons = autoencoders.Lessons.read(stage, corpus, embeddings, every_text=chosen)
        return Checkpoints(stage, embeddings, lessons)

    @property
    def n_texts(self) -> int:
        """Texts of the corpus."""
        return self.lessons.corpus.texts.height

    @property
    def upstream(self) -> list[Output]:
        """What the result is made from."""
        return [self.lessons.corpus, self.embeddings]

    def build(self) -> StoredCheckpoints:
        """The asset's result, or find it finished; trains whatever no step has trained."""

        def make(folder: Path) -> None:
            parts, race = _obtain(self)
            records = _gather(parts, folder)
            further = self.stage.dataset.spec.sae_seeds > 1
            seeds = _add_seeds(self.lessons, [part for _, part in parts], folder) if further else None
            StoredCheckpoints.write(folder, records=records, seeds=seeds, **race)

        return self.stage.build(StoredCheckpoints, _config(self.stage, self.device()), self.upstream, make)

    def finished_on(self) -> str | None:
        """The device of the finished result; None where there is none."""
        return next(
            (d for d in autoencoders.devices() if self.stage.is_finished(_config(self.stage, d), self.upstream)), None
        )

    def device(self) -> str:
        """The device that the result depends on: of a finished one, of the first autoencoder, or this machine's."""
        first = next(iter(trainings(self.stage.dataset.spec, self.n_texts)), None)
        return (
            self.finished_on()
            or (first and autoencoders.trained_on(self.lessons, first.sae))
            or autoencoders.choose_device()
        )


@dg.op(name="list_untrained", ins={"corpus": dg.In(dg.Nothing), "embeddings": dg.In(dg.Nothing)}, out=_STEPS)
def list_untrained(context: dg.OpExecutionContext, project: Project) -> Iterator[dg.DynamicOutput[None]]:
    """A step for each autoencoder that is still to be trained; one for all sizes of the grid. None if all are there."""
    with explained():
        made = Checkpoints.open(context, project)
        keys: list[str] = []
        if made.finished_on() is None:
            measured = isinstance(made.stage.dataset.spec.saes, AutoSizes)
            keys = [GRID] if measured else [t.key for t in unfinished(made.lessons)]
    for key in keys:
        yield dg.DynamicOutput(None, mapping_key=key)


@dg.op(name="train", ins={"one": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags=GPU_OP_TAGS, pool=gpu_pool())
def train(context: dg.OpExecutionContext, project: Project) -> None:
    """Train one autoencoder, or choose by the grid. What is stored already when it starts is not trained again."""
    with explained():
        made, key = Checkpoints.open(context, project), context.get_mapping_key()
        if key == GRID:
            made.build()
            return
        (sae,) = (t.sae for t in trainings(made.stage.dataset.spec, made.n_texts) if t.key == key)
        autoencoders.train_one(made.lessons, sae)


@dg.op(name="gather", ins={"trained": dg.In(dg.Nothing)}, out={"result": dg.Out(dg.Nothing), **_CHECK_OUTS})
def gather(context: dg.OpExecutionContext, project: Project) -> dg.MaterializeResult:
    """Put the autoencoders, trained or imported, into the asset's one result."""
    with explained():
        made = Checkpoints.open(context, project)
        found = made.build()
        learned = {"training texts": len(made.lessons.texts["train"]), "training units": len(made.lessons.ids["train"])}
        return made.stage.finish(found, _describe(found.records) | learned | _describe_choice(found), _check(found))


def _graph(corpus: Any, embeddings: Any) -> dict[str, Any]:
    untrained = list_untrained(corpus=corpus, embeddings=embeddings)
    return dict(gather(trained=untrained.map(lambda one: train(one=one)).collect())._asdict())


sae_checkpoints = dg.graph_asset(
    name=NAME,
    description="One safetensors and one JSON per declared autoencoder: seeded, the weights of the best epoch; or "
    "imported. Each is trained in a step of its own, on a GPU if there is one.",
    ins={name: dg.AssetIn(name, dagster_type=dg.Nothing) for name in ("corpus", "embeddings")},
    partitions_def=datasets,
    kinds={"torch", "safetensors"},
    code_version=CODE_VERSION,
    check_specs=_CHECKS,
)(_graph)


def _config(stage: Stage, device: str) -> dict[str, Any]:
    """What the autoencoders depend on: those listed, or how they are chosen, of which the claims wanted are a part."""
    spec = stage.dataset.spec
    further = ({"seeds": spec.sae_seeds} if spec.sae_seeds > 1 else {}) | (
        {} if device == "cpu" else {"device": device}
    )
    if isinstance(spec.saes, AutoSizes):
        limits = {"n": spec.selection.n, "min_positives": spec.inference.min_positives}
        judged_by: dict[str, Any] = {**limits, "pool": spec.pool, "seed": spec.interpretation.seed}
        judged_by |= {"sources": list(spec.interpretation.sources), **own_sources(spec, SOURCES)}
        return {**spec.saes.model_dump(mode="json"), "task": spec.task, **judged_by, **further}
    if isinstance(spec.saes, str):
        return {"saes": spec.saes, **further}
    return {"saes": [autoencoders.declaration(stage.dataset, sae) for sae in spec.saes], "task": spec.task, **further}


def _obtain(made: Checkpoints) -> tuple[list[tuple[str, StoredSAE]], dict[str, Any]]:
    """Each autoencoder, with the half whose outcomes chose its size (empty without such), and the record of a race."""
    lessons, spec = made.lessons, made.stage.dataset.spec
    if isinstance(spec.saes, AutoSizes):
        taken, race = choose_saes(lessons, spec.saes.auto)
        return list(taken.items()), race
    parts = [
        (autoencoders.import_one if sae.checkpoint else autoencoders.train_one)(lessons, sae)
        for sae in declared(spec, made.n_texts)
    ]
    return [("", part) for part in parts], {}


def _add_seeds(lessons: autoencoders.Lessons, parts: list[StoredSAE], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Further seeds of each trained autoencoder, for comparison only, by the id of the first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        record = part.record
        found[record["sae_id"]] = []
        if record["device"].startswith("none"):
            continue  # imported: there is nothing to train again
        first = SAE(**{name: value for name, value in record["config"].items() if name in SAE.model_fields})
        for further in twins(lessons.stage.dataset.spec, first):
            twin = autoencoders.train_one(lessons, further)
            _link(twin, folder)
            found[record["sae_id"]].append(twin.record)
    return found


def _link(part: StoredSAE, folder: Path) -> None:
    for name in filter(None, (part.record["file"], part.record["head"])):
        if not (folder / name).exists():  # declared twice, or once by itself and once as a further seed of another
            same_file(part.stored.file(name), folder / name)


def _gather(parts: list[tuple[str, StoredSAE]], folder: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for half, part in parts:
        record = part.record
        both = record["sae_id"] in found  # the size that both halves chose, or one declared twice
        found[record["sae_id"]] = record | ({"half": half} if half and not both else {})
        _link(part, folder)
    return list(found.values())


def _describe(records: list[dict[str, Any]]) -> dict[str, Any]:
    from hsae_dagster.report.figures import loss_curves, training_course

    names = [f"{r['config']['m']}/{r['config']['k']}" for r in records]
    named = [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]
    histories = {name: record["history"] for name, record in zip(named, records, strict=True)}
    figure, course = loss_curves(histories), training_course(histories)
    rows = [
        {
            "sae_id": r["sae_id"][:12],
            "m": r["config"]["m"],
            "k": r["config"]["k"],
            "label weight": r["config"]["label_weight"],
            "best epoch": r["best_epoch"],
            "explained variance": round(r["explained_variance"], 4),
            "L0": round(r["l0"], 2),
            "dead share": round(r["dead_share"], 4),
            "device": r["device"],
            "stopped": r["stop_reason"],
        }
        for r in records
    ]
    return {
        "autoencoders": table(rows),
        "loss": picture(figure.png, figure.alt),
        "course": picture(course.png, course.alt),
    }


def _describe_choice(found: StoredCheckpoints) -> dict[str, Any]:
    """The whole grid and its figure; nothing where the autoencoders were declared."""
    choice, rows = found.choice, found.grid
    if rows is None:
        return {}
    from hsae_dagster.report.figures import sizes_figure

    figure = sizes_figure(rows.rows(named=True), choice["metric"])
    shown = rows.with_columns(pl.col(pl.Float64).round(4).fill_nan(None))
    return {
        "choice": choice["reason"],
        "grid": table(shown.rows(named=True)),
        "grid, drawn": picture(figure.png, figure.alt),
    }


def _check(found: StoredCheckpoints) -> list[dg.AssetCheckResult]:
    records = found.records
    finite = [all(np.isfinite(a).all() for a in found.weights(r).values()) for r in records]
    dead = max(r["dead_share"] for r in records)
    explained_least = min(r["explained_variance"] for r in records)
    return [
        check_result(NAME, "weights_are_finite", all(finite)),
        check_result(NAME, "few_dead_neurons", dead < 0.5, {"largest dead share": float(dead)}),
        check_result(NAME, "explains_variance", explained_least >= 0.1, {"least": float(explained_least)}),
        _check_sparsity(records),
        _check_convergence(records),
    ]


def _check_sparsity(records: list[dict[str, Any]]) -> dg.AssetCheckResult:
    ratios = [r["l0"] / r["config"]["k"] for r in records]
    rows = [
        {"sae_id": r["sae_id"][:12], "k": r["config"]["k"], "L0": round(r["l0"], 3), "L0 / k": round(ratio, 3)}
        for r, ratio in zip(records, ratios, strict=True)
    ]
    told = {"autoencoders": table(rows), "least L0 / k": min(ratios), "largest L0 / k": max(ratios)}
    return check_result(NAME, "fires_as_declared", min(ratios) >= 0.5 and max(ratios) <= 1.5, told)


def _check_convergence(records: list[dict[str, Any]]) -> dg.AssetCheckResult:
    """What stopped training, and how far the loss still fell at the end: a limit that cost nothing is no warning."""
    trained = [r for r in records if not r["device"].startswith("none")]
    gains = [_last_gain(r) for r in trained]
    cut = [gain for r, gain in zip(trained, gains, strict=True) if not r["stop_reason"].startswith("no improvement")]
    still = [gain for gain in cut if gain > STILL_FALLING]
    rows = [
        {
            "sae_id": r["sae_id"][:12],
            "epochs": len(r["history"]),
            "stopped": r["stop_reason"],
            "loss fell in the last epochs by": f"{100 * gain:.2f} %",
        }
        for r, gain in zip(trained, gains, strict=True)
    ]
    told = {
        "autoencoders": table(rows),
        "at the epoch limit": len(cut),
        "of them still learning": len(still),
        "trained": len(trained),
    }
    return check_result(NAME, "training_converged", not still, told)


def _last_gain(record: dict[str, Any]) -> float:
    """By which share the best validation loss fell in the last `patience` epochs; 1 where there were no others."""
    losses = [epoch["validation_loss"] for epoch in record["history"]]
    before = losses[: -int(record["config"]["patience"])]
    return 1 - min(losses) / min(before) if before and min(before) > 0 else 1.0
