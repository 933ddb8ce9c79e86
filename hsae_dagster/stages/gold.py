"""Labels by people, or by a judge of a sample, beside an evaluation, and the effects that they correct."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import MISSING, column
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.core.inference.annotation_error import (
    AnnotationError,
    Corrected,
    Sample,
    attenuation_band,
    corrected_separation,
    distilled_separation,
    draw_gold,
    draw_sample,
    kappa,
    post_stratified,
    probe_labels,
)
from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED
from hsae_dagster.core.inference.effects import HypothesisTest
from hsae_dagster.core.inference.partial_effects import Flag
from hsae_dagster.core.observations import TextUnits, text_keys, text_rows
from hsae_dagster.core.selection.stability import rows_that_test
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.sections import Inference
from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.orchestration.project import Project
from hsae_dagster.providers.base import Labelled
from hsae_dagster.stages.holdout import Part, concepts_to_test, holdout_texts
from hsae_dagster.storage.files import write_atomically
from hsae_dagster.storage.outputs import (
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredMatrix,
)

_SEED = 0
FILE = "gold.csv"
SHEET_COLUMNS = ("concept", "claim", "text_id", "text", "probability", "annotator", "label")
_YES, _NO = {"1", "1.0", "yes", "true", "y"}, {"0", "0.0", "no", "false", "n"}


def gold_hash(folder: Path) -> str | None:
    """Fingerprint of a dataset's gold.csv, or None when it has none."""
    path = folder / FILE
    return hash_bytes(path.read_bytes()) if path.is_file() else None


def read_gold(dataset: str, folder: Path) -> pl.DataFrame | None:
    """Labels by people, rows without a label left out; None when there is no gold.csv.

    Columns: text_id, concept and annotator str, label i8 (1 or 0), probability f64 of having been drawn.

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
    for name in ("text_id", "concept", "label"):
        if name not in raw.columns:
            raise DatasetError(
                f"Dataset `{dataset}`: {path.name} has no column `{name}` (it has {', '.join(raw.columns)}). "
                f"`hsae gold {dataset}` writes a sheet with all of them."
            )
    lacking = [pl.lit(None, pl.String).alias(n) for n in ("probability", "annotator") if n not in raw.columns]
    label = pl.col("label").fill_null("").str.strip_chars().str.to_lowercase()
    rows = raw.with_row_index("row", offset=2).with_columns(label, *lacking).filter(pl.col("label") != "")
    _check_cells(dataset, rows, ~pl.col("label").is_in([*_YES, *_NO]), "label", "Write yes or no, or leave it empty.")
    chance = pl.col("probability").cast(pl.Float64, strict=False)
    wrong = pl.col("probability").is_not_null() & ~chance.is_between(0, 1, closed="right").fill_null(value=False)
    _check_cells(dataset, rows, wrong, "probability", "Keep the number that the drawn sheet gave, or leave it empty.")
    return rows.select(
        pl.col("text_id").str.strip_chars(),
        pl.col("concept").str.strip_chars(),
        pl.col("label").is_in([*_YES]).cast(pl.Int8).alias("label"),
        chance.alias("probability"),
        pl.col("annotator").fill_null(""),
    )


def _check_cells(dataset: str, rows: pl.DataFrame, wrong: pl.Expr, column: str, remedy: str) -> None:
    bad = rows.filter(wrong)
    if bad.height:
        raise DatasetError(
            f"Dataset `{dataset}`: {FILE}, row {bad['row'][0]}: {column} is `{bad[column][0]}` "
            f"({bad.height} such rows). {remedy}"
        )


def gold_offer(dataset: Dataset) -> str:
    """What to do before a model that nobody has checked is paid to judge, in a sentence; empty where nothing is.

    Pairs have no correction by labels, and words are found without error.
    """
    spec = dataset.spec
    if spec.annotation.model == "lexical" or spec.task == "pairwise" or (dataset.folder / FILE).is_file():
        return ""
    return (
        f"No human labels check the judge {spec.annotation.model}: claims that hold will be “confirmed, judge "
        f"unchecked”. To label texts first, `hsae run {dataset.name} --until interpretations` stops before "
        f"anything is judged, and `hsae gold {dataset.name}` draws the texts to label. You can do so later, too."
    )


def draw_sheet(project: Project, dataset: Dataset, size: int) -> tuple[Path, int]:
    """Draw texts for people to label, and write the sheet: half judged yes, the rest no, near misses among them.

    Where nothing has been judged yet, the texts that fire a claim's neuron strongly are drawn in place of those judged
    yes, and of a claim without a neuron all alike; each text's chance is on the sheet, so the correction is the same.
    A found claim that is read literally is left out: people could only repeat the count. The words that a hypothesis of
    the user's is looked for by may miss what it says.

    Returns:
        The sheet's path and its number of rows.

    Raises:
        DatasetError: there are no claims yet, or none that people could correct.
    """
    if not project.store.has(dataset.name, "interpretations"):
        raise DatasetError(
            f"Dataset `{dataset.name}` has no claims yet that texts could be labelled for. Make them with `hsae run "
            f"{dataset.name} --until interpretations`; nothing is judged by that."
        )
    concepts = concepts_to_test(dataset, StoredInterpretations.current(project.store, dataset.name))
    if dataset.spec.annotation.model == "lexical":
        concepts = [concept for concept in concepts if concept.own]
    if not concepts:
        raise DatasetError(
            f"Dataset `{dataset.name}` has no claim that labels could correct: each is read literally (words, signs, "
            "length, likeness to a quoted sentence), so it holds just where it says so. Sheets are drawn for claims "
            "that a language model judges (annotation.model) and for `hypotheses` of your own."
        )
    corpus = StoredCorpus.current(project.store, dataset.name)
    observations, answers = _answers(project, dataset, corpus)
    texts = corpus.texts.select("text_id", "text")
    rng, parts = np.random.default_rng(_SEED), []
    by_neuron = StoredActivations.current(project.store, dataset.name).on(answers["text_id"]).tocsc()
    for concept in concepts:
        key, testing = concept.concept_id, rows_that_test(observations, concept.half)
        activation = None if concept.column is None else column(by_neuron, concept.column)
        if key in answers.columns:
            judged = answers[key].cast(pl.Int8).fill_null(-1).to_numpy().copy()
        else:
            judged = np.zeros(answers.height, dtype=np.int8)
            if activation is not None and concept.bounds[0]:
                judged[activation >= concept.bounds[0]] = 1
        # Texts of the half that found a claim do not test it, so labels there correct nothing.
        judged[~answers["text_id"].is_in(text_keys(testing).implode()).to_numpy()] = -1
        rows, chance = draw_gold(judged, size, rng, activation)
        order = rng.permutation(len(rows))  # the order must not tell what the judge said
        part = (
            answers[rows[order]]
            .select("text_id")
            .with_columns(
                pl.lit(key).alias("concept"),
                pl.lit(concept.claim).alias("claim"),
                pl.Series("probability", chance[order]),
                pl.lit("").alias("annotator"),
                pl.lit("").alias("label"),
            )
        )
        parts.append(part.join(texts, on="text_id", how="left", maintain_order="left"))
    sheet = pl.concat(parts)
    path = project.results / "gold" / f"{dataset.name}.csv"
    write_atomically(path, sheet.select(SHEET_COLUMNS).write_csv().encode())
    return path, sheet.height


def _answers(project: Project, dataset: Dataset, corpus: StoredCorpus) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Observations that test, and the judged texts with their answers, or the texts alone where these are others."""
    observations, texts = holdout_texts(corpus, dataset.spec.annotation)
    held_out = texts.select("text_id")
    if not project.store.has(dataset.name, "annotation_matrix"):
        return observations, held_out
    answers = StoredMatrix.current(project.store, dataset.name).annotations
    return observations, answers if set(answers["text_id"]) == set(held_out["text_id"]) else held_out


# Of the labels on each side, yes and no, so few are shown to the judge that the rest can still check it.
_MOST_SHOWN = 0.25


def draw_shown(dataset: Dataset, concepts: Sequence[Concept], texts: pl.DataFrame) -> dict[str, dict[str, bool]]:
    """Labelled texts that the judge is shown: by concept id, what people said by text_id; empty where none are asked.

    Half of `judge.examples` have the concept and half lack it, drawn by chance, at most a quarter of the labels on
    each side.
    """
    size = dataset.spec.judge.examples
    gold = read_gold(dataset.name, dataset.folder) if size else None
    if gold is None:
        return {}
    rng, found = np.random.default_rng([dataset.spec.annotation.seed, 4]), {}
    for concept in concepts:
        own = gold.filter(pl.col("concept").is_in([concept.concept_id, concept.predicate]))
        own = own.unique("text_id", keep="first", maintain_order=True).join(texts, on="text_id", how="semi")
        sides = [own.filter(pl.col("label") == label)["text_id"].sort().to_list() for label in (1, 0)]
        takes = [min((size + 1 - n) // 2, int(_MOST_SHOWN * len(side))) for n, side in enumerate(sides)]
        drawn = [rng.permutation(side)[:take] for side, take in zip(sides, takes, strict=True)]
        found[concept.concept_id] = {str(key): not n for n, side in enumerate(drawn) for key in side}
    return {key: shown for key, shown in found.items() if shown}


def labelled(shown: Mapping[str, Mapping[str, bool]], concepts: Sequence[Concept], texts: pl.DataFrame) -> Labelled:
    """The same as the judge reads it: by predicate, the texts and what people said."""
    by_key = dict(texts.select("text_id", "text").iter_rows())
    return {
        concept.predicate: [(by_key[key], said) for key, said in shown.get(concept.concept_id, {}).items()]
        for concept in concepts
    }


def annotation_errors(
    dataset: Dataset, parts: Sequence[Part], shown: Mapping[str, Mapping[str, bool]]
) -> list[list[AnnotationError]]:
    """What is known about the errors of each concept's annotation; pairs have no correction (only texts do).

    `shown` are labels that the judge has seen (`draw_shown`), which check nothing.
    """
    gold = read_gold(dataset.name, dataset.folder)
    if gold is not None:
        _check_known(dataset.name, gold, [(part.concepts, part.texts["text_id"]) for part in parts])
    settings = dataset.spec.inference
    return [[_error(gold, settings, part, j, shown) for j in range(len(part.concepts))] for part in parts]


def _error(
    gold: pl.DataFrame | None, settings: Inference, part: Part, j: int, shown: Mapping[str, Mapping[str, bool]]
) -> AnnotationError:
    concept, band = part.concepts[j], _band(settings, part, j)
    own = None if gold is None else gold.filter(pl.col("concept").is_in([concept.concept_id, concept.claim]))
    if own is None or own.is_empty():
        return AnnotationError(None, float("nan"), band)
    return AnnotationError(_corrected(own, part, j, shown.get(concept.concept_id, {})), _human_kappa(own), band)


def check_gold(dataset: Dataset, interpretations: StoredInterpretations, corpus: StoredCorpus) -> str:
    """Refuse gold.csv before anything is judged if it cannot be read, or is about none of what will be tested.

    Returns:
        How many of its labels count for nothing, in a sentence; empty where all count or there is no file.

    Raises:
        DatasetError: with what is wrong and what to do.
    """
    gold, size = read_gold(dataset.name, dataset.folder), dataset.spec.judge.examples
    if gold is None and size:
        raise DatasetError(
            f"Dataset `{dataset.name}`: judge.examples is {size}, but there is no gold.csv to take examples from. Draw "
            f"a sheet with `hsae gold {dataset.name}` and label it, or set judge.examples to 0."
        )
    if gold is None:
        return ""
    concepts = concepts_to_test(dataset, interpretations)
    observations = holdout_texts(corpus, dataset.spec.annotation)[0]
    parts = []
    for half in dict.fromkeys(concept.half for concept in concepts):
        own = [concept for concept in concepts if concept.half == half]
        parts.append((own, text_keys(rows_that_test(observations, half))))
    usable = _check_known(dataset.name, gold, parts)
    if usable == gold.height:
        return ""
    return (
        f"{gold.height - usable:,} of the {gold.height:,} labels in gold.csv are about claims or texts that are "
        "not tested, and are ignored."
    )


def _check_known(dataset: str, gold: pl.DataFrame, parts: Sequence[tuple[list[FoundConcept], pl.Series]]) -> int:
    """How many labels count. Those of earlier concepts may stay in the file; none at all that counts is a mistake.

    A part has concepts and the keys of the texts that test them.
    """
    counts = pl.lit(value=False)
    for concepts, text_ids in parts:
        known = [name for concept in concepts for name in (concept.concept_id, concept.claim)]
        counts |= pl.col("concept").is_in(known) & pl.col("text_id").is_in(text_ids.to_list())
    usable = gold.filter(counts).height
    if gold.height and not usable:
        raise DatasetError(
            f"Dataset `{dataset}`: none of the {gold.height} labels in gold.csv is about a concept and a held-out text "
            f"of this evaluation. Draw a new sheet with `hsae gold {dataset}`."
        )
    return usable


def _corrected(own: pl.DataFrame, part: Part, column: int, shown: Mapping[str, bool]) -> Corrected | None:
    if part.task == "pairwise":
        return None
    text_ids, answers = part.texts["text_id"], part.answers[:, column]
    one = own.group_by("text_id", maintain_order=True).agg(pl.col("label").first(), pl.col("probability").first())
    texts = text_ids.to_frame("text_id").join(one, on="text_id", how="left", maintain_order="left")
    gold = texts["label"].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
    gold[answers < 0] = np.nan
    known = np.isfinite(gold)
    given = texts["probability"].fill_null(np.nan).to_numpy()
    probability = given if np.isfinite(given[known]).all() else post_stratified(answers, known)
    gold, probability = _unseen(gold, probability, text_ids.is_in(list(shown)).to_numpy())
    rows = text_rows(text_ids, part.observations["text_id"])
    seen, design = answers[rows] >= 0, part.design
    said, label, chance = (each[rows][seen] for each in (answers.astype(np.float64), gold, probability))
    return corrected_separation(said, design.outcome[seen], design.clusters[seen], label, chance)


def _unseen(gold: np.ndarray, probability: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels that the judge has not seen, NaN elsewhere, and the probability that a text is among them.

    Those that it has seen were drawn by chance from the labels of yes, and from those of no.
    """
    unseen, left = gold.copy(), probability.copy()
    for said in (0.0, 1.0):
        side = gold == said
        if side.any():
            left[side] *= 1 - (side & shown).sum() / side.sum()
    unseen[shown] = np.nan
    return unseen, left


def _human_kappa(own: pl.DataFrame) -> float:
    people = (
        own.filter(pl.col("annotator") != "")["annotator"].value_counts().sort("count", "annotator", descending=True)
    )
    if people.height < 2:
        return float("nan")
    first, second = (own.filter(pl.col("annotator") == name).unique("text_id") for name in people["annotator"][:2])
    both = first.join(second, on="text_id", suffix="_second")
    return kappa(both["label"].to_numpy().astype(np.float64), both["label_second"].to_numpy().astype(np.float64))


def _band(settings: Inference, part: Part, column: int) -> tuple[float, float]:
    if settings.judge_sensitivity is None or settings.judge_specificity is None or part.task == "pairwise":
        return (float("nan"), float("nan"))
    h = part.design.concepts[:, column]
    seen = np.isfinite(h)
    yes = h[seen] == 1
    if not 0 < yes.mean() < 1:
        return (float("nan"), float("nan"))
    y = part.design.outcome[seen]
    return attenuation_band(
        float(y[yes].mean() - y[~yes].mean()), float(yes.mean()), settings.judge_sensitivity, settings.judge_specificity
    )


def texts_to_ask(dataset: Dataset, texts: pl.DataFrame, firing: np.ndarray | None = None) -> Sample:
    """The texts that the model judges: all, or the declared sample.

    `firing` (texts, concepts) is of `firing_of`; None before there is any, where the size alone counts.
    """
    settings = dataset.spec.annotation
    scores = np.zeros((texts.height, 0)) if firing is None else firing
    size = settings.distil.sample if settings.distil else texts.height
    return draw_sample(scores, size, np.random.default_rng([settings.seed, 2]))


def in_words(asked: int, texts: int) -> str:
    """What the sample spares, for logs and estimates."""
    return f"the model judges {asked:,} of {texts:,} texts, a probe the rest: {asked / texts:.1%} of the calls"


def firing_of(activations: StoredActivations, concepts: Sequence[FoundConcept], texts: pl.DataFrame) -> np.ndarray:
    """(texts, neurons) float32 activations of the concepts' neurons, of those that have one."""
    codes = activations.on(texts["text_id"]).tocsc()
    found = [column(codes, concept.column) for concept in concepts if concept.column is not None]
    return np.column_stack(found).astype(np.float32) if found else np.zeros((texts.height, 0), np.float32)


def label_the_rest(
    dataset: Dataset,
    embeddings: StoredEmbeddings,
    units: TextUnits,
    concepts: Sequence[FoundConcept],
    texts: pl.DataFrame,
    sample: Sample,
    firing: np.ndarray,
    answers: np.ndarray,
) -> tuple[np.ndarray, pl.DataFrame]:
    """What is said of the n texts of the holdout: the judge's answers on the sample, the probe's labels elsewhere.

    `firing` (n, neurons) is of `firing_of`; answers of the sample's rows are (rows, c) int8: 1 yes, 0 no, -1 missing.

    Returns:
        (n, c) int8 of both together, missing answers still missing; and the table: text_id; probability, null where
        the judge was not asked; by concept id whether the probe says yes, for all texts.
    """
    meant = embeddings.of_texts(units, texts["text_id"])
    # A neuron knows more of its claim than a mean of vectors; it weighs as much as one of their coordinates.
    scale = np.sqrt((firing.astype(np.float64) ** 2).mean(axis=0) * meant.shape[1])
    features = np.column_stack([meant, firing / np.where(scale > 0, scale, 1.0).astype(np.float32)])
    clusters = texts["cluster_id"].to_numpy()
    chance = np.full(texts.height, np.nan)
    chance[sample.rows] = sample.probability
    columns = {"text_id": texts["text_id"], "probability": pl.Series(chance).fill_nan(None)}
    both = np.empty((texts.height, len(concepts)), np.int8)
    for j, concept in enumerate(concepts):
        usable = answers[:, j] != MISSING
        judged = Sample(sample.rows[usable], sample.probability[usable])
        rng = np.random.default_rng([dataset.spec.annotation.seed, 3])
        labels = probe_labels(features, clusters, judged, answers[usable, j].astype(np.float64), rng)
        columns[concept.concept_id] = pl.Series(labels == 1)
        both[:, j] = labels
        both[sample.rows, j] = answers[:, j]
    return both, pl.DataFrame(columns)


def agreement_of_probe(
    table: pl.DataFrame, answers: np.ndarray, keys: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Per concept id, how far the probe agrees with the judge on texts whose clusters it did not learn from.

    Table and answers are those of `label_the_rest`.

    Returns:
        `agreement`, the share of the holdout on which they say the same, and Cohen's `kappa`, both weighted to natural
        prevalence; None where they cannot be measured.
    """
    chance = table["probability"].fill_null(np.nan).to_numpy()
    found: dict[str, dict[str, float | None]] = {}
    for j, key in enumerate(keys):
        known = np.isfinite(chance) & (answers[:, j] != MISSING)
        said, probe = answers[known, j] == 1, table[key].to_numpy()[known]
        weight = 1 / chance[known]
        beyond_chance = kappa(probe, said, weight)
        found[key] = {
            "agreement": float(weight @ (said == probe) / weight.sum()) if known.any() else None,
            "kappa": beyond_chance if np.isfinite(beyond_chance) else None,
        }
    return found


def corrected_tests(
    tests: Sequence[HypothesisTest], errors: Sequence[AnnotationError], part: Part, table: pl.DataFrame
) -> tuple[list[HypothesisTest], list[AnnotationError]]:
    """The tests with the effect that the judge would find on all texts, and beside them how far the probe is right."""
    rows, design = text_rows(part.texts["text_id"], part.observations["text_id"]), part.design
    chance = table["probability"].fill_null(np.nan).to_numpy()[rows]
    found = []
    for j, concept in enumerate(part.concepts):
        said = part.answers[rows, j]
        seen, answers = said != MISSING, np.where(np.isfinite(chance), said, np.nan)
        labels = table[concept.concept_id].to_numpy().astype(np.float64)[rows]
        of_seen = (each[seen] for each in (labels, design.outcome, design.clusters, answers, chance))
        found.append(distilled_separation(*of_seen))
    return (
        [_with(test, each) for test, each in zip(tests, found, strict=True)],
        [replace(error, distilled=each) for error, each in zip(errors, found, strict=True)],
    )


def _with(test: HypothesisTest, found: Corrected) -> HypothesisTest:
    if not np.isfinite(test.separation.p_value):
        return test
    if found.note:
        why = f"the sample that the model judged is too small for it: {found.note}".replace("labelled", "judged")
        flags = (Flag("too few judged", f"{why}. Raise annotation.distil.sample"), *test.flags)
        return replace(test, separation=NO_EFFECT_ESTIMATED, flags=flags)
    return replace(test, separation=found.corrected, basis="distilled")
