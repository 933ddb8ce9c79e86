"""dataset.yaml as typed, documented fields."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hsae_dagster.dataset.sections import (
    SAE,
    AutoSizes,
    Inference,
    Names,
    OwnHypothesis,
    SAEs,
    Section,
    ServerFields,
    Share,
    Values,
)

Task = Literal["regression", "classification", "pairwise"]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]


# Below it, `splits.design: auto` takes two halves (docs/inference.md has what they find).
FEW_ROWS = 5_000


class Columns(Section):
    """Which columns of the files hold what."""

    text: str | None = Field(None, description="Column with the text (regression, classification).")
    text_a: str | None = Field(None, description="Column with the first text of a pair (pairwise).")
    text_b: str | None = Field(None, description="Column with the second text of a pair (pairwise).")
    label: str = Field(description="Column with the outcome: a number (or `1.97%`), or two classes; pairs: 1 = A wins.")
    positive: str | int | float | bool | None = Field(
        None, description="The class counted as 1 where classes are not 0 and 1; all others count as 0."
    )
    cluster_by: str | tuple[str, ...] | None = Field(
        None,
        description="Column of the unit that rows share (author, film, test), or a list of several (author and "
        "company). Rows that share any of them stay together; case and spaces in its values do not matter.",
    )
    id: str | None = Field(
        None,
        description="Column that numbers rows. A row read before, with the same id and content, is left out as a "
        "repeat; without it every row counts.",
    )
    time: str | None = Field(
        None,
        description="Column that says when each row was: dates, times or numbers in order. Blocks of it then count as "
        "one observation each; later rows are held out (`splits.forward`).",
    )
    controls: Names = Field(
        (),
        description="Columns to hold constant in partial effects: numbers, with a straight-line effect, or categories "
        "(one for every 50 rows at most; 31 always, never over 61). Values that are all numbers or percents are "
        "numbers; to make them categories put a letter before (`w12`).",
    )
    exclude: str | None = Field(None, description="Column of true/false: rows where it is true are left out.")
    missing: Values = Field(
        (), description="Values of text, label and cluster_by that mean none (`n/a`, `?`, -99): read as an empty cell."
    )
    scale: Names = Field(
        (), description="Words of the label from lowest to highest (regression): read as 1, 2, 3 and so on."
    )
    listed: str | None = Field(
        None,
        min_length=1,
        description="What separates several classes in a cell of the label (`joy,neutral`): 1 where `positive` is one.",
    )
    on_missing: Literal["error", "drop"] = Field(
        "error",
        description="What to do with rows that lack a text or a label: stop, or drop and report them.",
    )

    @field_validator("cluster_by")
    @classmethod
    def _clusters_are_named_once(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(value, tuple):
            if len(set(value)) < len(value):
                raise ValueError("it names one column twice; remove one")
            return value[0] if len(value) == 1 else value or None
        return value

    @property
    def clusters(self) -> tuple[str, ...]:
        """The columns of `cluster_by`; none where it is left out."""
        return (self.cluster_by,) if isinstance(self.cluster_by, str) else self.cluster_by or ()

    @model_validator(mode="after")
    def _one_reading_of_words(self) -> "Columns":
        if self.listed is not None and self.positive is None:
            raise ValueError("listed needs positive, the class that a list has to hold to count as 1")
        if self.scale and self.positive is not None:
            raise ValueError("scale makes numbers of the label's words and positive a class; leave one of them out")
        if len({word.lower() for word in self.scale}) < len(self.scale):
            raise ValueError("scale names a word twice; keep one of them")
        return self


class Splits(Section):
    """Shares of rows. Whatever shares a cluster, a text or nearly a text stays together; new rows move no old ones."""

    design: Literal["holdout", "two_halves", "auto"] = Field(
        "holdout",
        description="`holdout`: one part of the rows only tests; `two_halves`: claims found in each half are tested on "
        f"the other, which finds more where rows are few; `auto`: two halves below {FEW_ROWS:,} rows where claims are "
        "found and judged offline, no label guides an autoencoder, and neither columns.time nor splits.holdout or "
        "splits.reserve is declared; else, or where halves would be too small, a holdout, and `hsae check` says why.",
    )
    holdout: Share = Field(0.3, description="Share of rows that only the final tests read; not with two halves.")
    validation: Share = Field(0.1, description="Share for early stopping and for choosing among candidates.")
    fidelity: Share | None = Field(
        None,
        description="Share on which phrases of a language model are compared with their neurons; default a tenth, and "
        "none where claims are found offline, which are tested as they read.",
    )
    forward: bool | None = Field(
        None,
        description="Train on earlier rows, hold out later ones, by columns.time; by default where that is declared.",
    )
    salt: str = Field("hsae", description="Changes which clusters land where. Datasets of one salt agree.")
    reserve: int | None = Field(
        None,
        ge=10,
        description="Rows that came after the first report and share nothing with earlier ones: so many are tested "
        "together, until then they wait. Default as many, of as many clusters, as the first holdout.",
    )
    near_texts: float = Field(
        0.8,
        gt=0.0,
        le=1.1,
        description="Overlap of word pairs (links, handles, numbers apart) from which two texts of 20 words or more "
        "are nearly equal and stay together; 1.1 seeks none and lets links, handles and numbers tell texts apart.",
    )
    shared_texts: Literal["join", "leave_out"] = Field(
        "join",
        description="Rows of one text: `join` keeps them and their clusters together; `leave_out` gives each text a "
        "split of its own and leaves out its rows in clusters of another (for phrases that everybody writes).",
    )

    @model_validator(mode="after")
    def _leave_training_rows(self) -> "Splits":
        taken = self.holdout + self.validation + (self.fidelity or 0.0)
        if taken > 0.9:
            raise ValueError(f"holdout, validation and fidelity add up to {taken:.2f}; leave at least 0.1 to train on")
        return self


class Embedding(Section):
    """How a text becomes a vector."""

    model: str = Field("minilm", description="`minilm` (bundled, offline) or `openai:<model>`.")
    max_tokens: int = Field(256, ge=8, le=8192, description="Tokens read of each text; the rest is cut.")
    server: ServerFields = ServerFields()
    dimensions: int | None = Field(None, ge=2, description="Ask the model for this many (openai:… only).")
    batch_size: int = Field(512, ge=1, description="Texts per write: what a killed run repeats at most.")


class Distinct(Section):
    """How alike two selected neurons may be."""

    correlation: float = Field(0.6, gt=0.0, le=1.0, description="Largest correlation of activations, in size.")
    cosine: float = Field(0.8, gt=0.0, le=1.0, description="Largest cosine of decoder directions.")


class Selection(Section):
    """Which neurons predict the label."""

    method: str = Field(
        "lasso", description="`lasso`, `correlation`, `separation`, or a metric as `package.module:function`."
    )
    n: int = Field(20, ge=1, le=100, description="Neurons to select.")
    distinct: Distinct | None = Field(
        None, description="Demand distinct neurons: near-copies of a selected one make room for others."
    )
    min_match: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="With sae_seeds > 1: select only neurons that every other seed has found, by the texts on which "
        "they fire, to this φ.",
    )
    across_clusters: bool | None = Field(
        None,
        description="Select only neurons whose association with the outcome has one direction across clusters and "
        "rests on several; by default where cluster_by is declared, training has 8 clusters or more, and neither "
        "within nor interactions are.",
    )
    within: Names = Field(
        (),
        description="Controls (of 30 levels at most) in whose strata neurons are selected, all of one weight; "
        "effects are shown by subgroup.",
    )
    interactions: Names = Field(
        (), description="Controls (of 30 levels at most) with which effects may change; shown by subgroup."
    )


class Interpretation(Section):
    """How a neuron becomes a concept in words."""

    model: str = Field("lexical", description="`lexical` (offline), `openai:<model>` or `local:<file.gguf>`.")
    server: ServerFields = ServerFields()
    temperature: float | None = Field(None, ge=0, le=2, description="Of a language model; default the server's own.")
    effort: str | None = Field(None, description="How much a language model thinks (`minimal`, `low`, …), if it does.")
    candidates: int = Field(3, ge=1, le=20, description="Candidate concepts per neuron; the best is kept.")
    examples: int = Field(20, ge=2, description="Texts shown to a language model, half firing, half silent.")
    sampling: Literal["percentile", "top"] = Field(
        "percentile", description="Firing texts shown to a language model: a sample of `bin`, or the very strongest."
    )
    max_words: int = Field(256, ge=8, description="Words shown of each text.")
    bin: tuple[Percentile, Percentile] = Field(
        (80.0, 100.0), description="Percentiles of a neuron's firing strength that count as strong firing."
    )
    low_bin: tuple[Percentile, Percentile] | None = Field(
        None, description="Show a language model weakly firing texts of these percentiles instead of silent ones."
    )
    metric: Literal["f1", "correlation", "precision", "recall", "natural_f1", "hard_f1"] | None = Field(
        None,
        description="Fidelity on validation texts by which the best candidate is chosen; default `natural_f1` with "
        "revisions, else `f1`.",
    )
    scoring_texts: int = Field(
        200,
        ge=20,
        description="Texts a paid annotator reads to score a candidate, a quarter of them silent ones nearest to "
        "firing ones (the free one reads all).",
    )
    revisions: int = Field(
        0,
        ge=0,
        le=10,
        description="Times that a language model sees what its best phrase for a neuron got wrong on training texts "
        "and proposes a better one.",
    )
    instructions: str | None = Field(None, description="What the texts are, for a language model.")
    prompt: str | None = Field(None, description="File in the dataset's folder to ask by instead of interpret.md.")
    revision_prompt: str | None = Field(None, description="The same instead of revise.md.")
    seed: int = Field(0, ge=0, description="Start of the sampling's random stream.")

    @property
    def chosen_by(self) -> str:
        """The metric by which candidates are chosen.

        Where a phrase is widened step by step, a measure that takes firing and silent texts for equally many would take
        in words that hold for many silent ones.
        """
        return self.metric or ("natural_f1" if self.revisions else "f1")

    @model_validator(mode="after")
    def _bins_rise(self) -> "Interpretation":
        for name, ends in (("bin", self.bin), ("low_bin", self.low_bin)):
            if ends is not None and ends[0] >= ends[1]:
                raise ValueError(f"{name} {list(ends)} must rise, from a lower to a higher percentile")
        if self.low_bin is not None and self.low_bin[1] > self.bin[0]:
            raise ValueError(
                f"low_bin {list(self.low_bin)} reaches into bin {list(self.bin)}; end it at {self.bin[0]:g} or below"
            )
        if self.low_bin is not None and self.sampling == "top":
            raise ValueError("low_bin belongs to sampling `percentile`; leave it out, or set sampling to that")
        return self


class Distil(Section):
    """The model judges a sample of the held-out texts, and a probe that learns from it judges the rest."""

    sample: int = Field(
        ge=100,
        description="Held-out texts that the model judges, half by chance and half among those that fire the claims' "
        "neurons. A probe on the texts' vectors judges the others; effects are corrected for its errors.",
    )


class Annotation(Section):
    """How concepts are judged on held-out texts."""

    model: str = Field(
        "lexical", description="`lexical` (offline, with the lexical interpreter), `openai:…` or `local:<file.gguf>`."
    )
    server: ServerFields = ServerFields()
    temperature: float | None = Field(None, ge=0, le=2, description="Of a language model; default 0 where it has one.")
    effort: str | None = Field(None, description="How much a language model thinks (`minimal`, `low`, …), if it does.")
    holdout_sample: int | None = Field(
        None, ge=20, description="Judge only this many holdout rows (whole clusters); default all."
    )
    distil: Distil | None = Field(
        None, description="Have the model judge a sample and a probe the rest, where all texts would cost too much."
    )
    concepts_per_call: int = Field(10, ge=1, le=50, description="Concepts a language model judges at once.")
    max_words: int = Field(256, ge=8, description="Words shown of each text.")
    prompt: str | None = Field(
        None, description="File in the dataset's folder to judge by instead of annotate_stacked.md and _single.md."
    )
    calibration: int = Field(
        100, ge=0, description="Answers of a stack of concepts to ask again one by one, to see that they agree."
    )
    min_agreement: float = Field(
        0.9, ge=0.0, le=1.0, description="Least agreement of stacked with single answers, else a warning."
    )
    max_missing: Share = Field(0.05, description="Most answers that may be missing; more stop what is downstream.")
    seed: int = Field(0, ge=0, description="Start of the random streams of holdout sample and calibration.")


class Judge(Section):
    """How a language model that judges is examined, with questions whose answers are known, before it is paid for."""

    texts: int = Field(
        16, ge=0, le=500, description="Texts of the dataset to examine it on, six questions each; 0: not."
    )
    min_accuracy: float = Field(
        0.75, ge=0.0, le=1.0, description="Mean of its shares of right yes and right no below which the stage stops."
    )
    second: str | None = Field(
        None, description="A second model (`openai:…`, `local:…`) that judges some of the texts, to see how both agree."
    )
    second_server: ServerFields = ServerFields()
    second_texts: int = Field(100, ge=20, description="Texts that the second model judges, every concept on each.")
    min_kappa: float = Field(
        0.4, ge=-1.0, le=1.0, description="Least κ of both models over all their answers, else a warning."
    )


class Spending(Section):
    """What paid models may cost this dataset, in all its runs together, and how they are paid."""

    budget_usd: float | None = Field(None, gt=0, description="Most US dollars ever; a run stops before it is passed.")
    budget_calls: int | None = Field(None, ge=1, description="Most requests ever; a run stops before it is passed.")
    tier: Literal["standard", "flex", "batch"] = Field(
        "standard",
        description="`standard`; `flex` (half price, slower, some models); `batch` (half price, within a day).",
    )


class DatasetSpec(Section):
    """Everything data/<dataset>/dataset.yaml may say. Only `task`, `files` and `columns` are required."""

    extends: str | None = Field(
        None,
        description="Another dataset whose files and settings this one takes over; write here only what differs.",
    )
    description: str = Field("", description="One line on what the texts are; shown on the report.")
    outcome: str | None = Field(
        None, description="The outcome in words, with its unit; default the column and its positive class."
    )
    obtain: str | None = Field(None, description="How to get the files; said where they are missing.")
    published: str | None = Field(
        None, description="Figures that others printed for these texts; shown beside ours, marked as published."
    )
    task: Task = Field(description="`regression`, `classification` or `pairwise`.")
    files: str | tuple[str, ...] | dict[Literal["train", "validation", "holdout"], str] = Field(
        description="File, list of files, or one file per split; parquet, csv, tsv, jsonl or json, beside this one."
    )
    columns: Columns
    units: Literal["auto", "text", "sentence", "paragraph"] = Field(
        "auto",
        description="What neurons read: the whole `text`, each `sentence` or each `paragraph`; `auto`: sentences where "
        "the median text has two or more. Long ones are cut at clauses.",
    )
    pool: Literal["max", "mean", "sum"] = Field(
        "max", description="A neuron's activation on a text, from those on its units."
    )
    splits: Splits = Splits()
    embedding: Embedding = Embedding()
    saes: SAEs = Field(
        AutoSizes(),
        description="`auto`: that with which most can be said on validation clusters; `reference`: the rule of thumb "
        "of HypotheSAEs; or a list of one or several autoencoders.",
    )
    sae_seeds: int = Field(
        3, ge=1, le=20, description="Train so many seeds of each autoencoder, to see which neurons all of them find."
    )
    selection: Selection = Selection()
    interpretation: Interpretation = Interpretation()
    annotation: Annotation = Annotation()
    judge: Judge = Judge()
    spending: Spending = Spending()
    inference: Inference = Inference()
    # Left out of what results are made from: it says when to look again, not what is found.
    freshness: float | None = Field(
        None,
        gt=0,
        exclude=True,
        description="Days after which `watch` tells that the last evaluation is too old; never without it.",
    )

    hypotheses: tuple[OwnHypothesis, ...] = Field(
        (), max_length=50, description="Hypotheses of your own, judged and tested beside the found ones."
    )

    @property
    def fidelity_share(self) -> float:
        """Share of the clusters on which phrases are compared with their neurons; 0 where none are written."""
        if self.splits.fidelity is not None:
            return self.splits.fidelity
        return 0.0 if self.interpretation.model == "lexical" else 0.1

    @property
    def forward(self) -> bool:
        """Whether later rows are held out."""
        return self.columns.time is not None and self.splits.forward is not False

    @field_validator("files")
    @classmethod
    def _files_are_named(cls, value: str | tuple[str, ...] | dict[str, str]) -> object:
        if not value:
            raise ValueError("name at least one file")
        return value

    @model_validator(mode="after")
    def _forward_needs_time(self) -> "DatasetSpec":
        if self.splits.forward and self.columns.time is None:
            raise ValueError("splits.forward holds out later rows; name the column that says when in columns.time")
        return self

    @model_validator(mode="after")
    def _matches_need_seeds(self) -> "DatasetSpec":
        if self.selection.min_match is not None and self.sae_seeds == 1:
            raise ValueError("selection.min_match compares seeds; set sae_seeds to 2 or more")
        return self

    @model_validator(mode="after")
    def _columns_fit_the_task(self) -> "DatasetSpec":
        pair = (self.columns.text_a, self.columns.text_b)
        if self.task == "pairwise" and (None in pair or self.columns.text is not None):
            raise ValueError("a pairwise dataset needs columns.text_a and columns.text_b, and no columns.text")
        if self.task != "pairwise" and (self.columns.text is None or pair != (None, None)):
            raise ValueError(f"a {self.task} dataset needs columns.text, and neither text_a nor text_b")
        if self.task == "pairwise" and self.columns.controls:
            raise ValueError(
                "columns.controls of a pair are the same for both of its texts, so they cannot explain which one wins; "
                "leave them out (length is always held constant)"
            )
        if self.task == "regression" and self.columns.positive is not None:
            raise ValueError("columns.positive belongs to classification; a regression label is a number")
        self._check_own_hypotheses()
        self._check_covariates()
        self._check_distilling()
        lexical = self.interpretation.model == "lexical"
        if self.annotation.model == "lexical" and not lexical:
            raise ValueError(
                "annotation.model `lexical` can only judge claims that execute; set interpretation.model to `lexical`, "
                "or annotation.model to a language model"
            )
        return self

    @model_validator(mode="after")
    def _phrases_leave_training_rows(self) -> "DatasetSpec":
        taken = self.splits.holdout + self.splits.validation + self.fidelity_share
        if taken > 0.9:
            raise ValueError(
                f"splits.holdout, splits.validation and the tenth on which a model's phrases are compared with "
                f"their neurons (splits.fidelity) add up to {taken:.2f}; leave at least 0.1 to train on"
            )
        return self

    @model_validator(mode="after")
    def _halves_share_what_saw_no_outcome(self) -> "DatasetSpec":
        why = self._why_no_halves()
        if self.splits.design == "two_halves" and why:
            raise ValueError(why)
        return self

    def _why_no_halves(self) -> str | None:
        """What speaks against two halves, and its remedy; None if nothing does."""
        if isinstance(self.files, dict):
            return "splits.design `two_halves` deals rows itself, but files names one per split; list them"
        if "holdout" in self.splits.model_fields_set:
            return "splits.design `two_halves` has no holdout beside the halves; leave splits.holdout out"
        if self.columns.time is not None:
            return (
                "splits.design `two_halves` tests earlier rows by what later ones suggest, so it has no columns.time; "
                "leave that out, or set splits.design to `holdout`"
            )
        if self.annotation.distil is not None:
            return (
                "annotation.distil labels the rest of one holdout, and splits.design `two_halves` has none; leave "
                "distil out, or set splits.design to `holdout`"
            )
        if self.splits.reserve is not None:
            return (
                "splits.design `two_halves` tests every row there is and has no fresh reserve; leave splits.reserve "
                "out, or set splits.design to `holdout`"
            )
        if any(sae.label_weight > 0 for sae in self.listed_saes):
            return (
                "both halves share their autoencoders, so splits.design `two_halves` needs some that no label guided; "
                "leave label_weight out, or set splits.design to `holdout`"
            )
        if self.interpretation.model != "lexical":
            return (
                "splits.design `two_halves` finds claims offline; set interpretation.model to `lexical`, or "
                "splits.design to `holdout`"
            )
        return None

    @property
    def design(self) -> str:
        """`holdout`, `two_halves`, or `auto` where the rows decide."""
        return "holdout" if self.splits.design == "auto" and self.why_one_holdout(0) else self.splits.design

    def why_one_holdout(self, rows: int) -> str | None:
        """What keeps `auto` from two halves of so many rows, in a sentence without its full stop; None if nothing."""
        if self.annotation.model != "lexical":
            return "two halves have every claim judged on all texts, which annotation.model is paid for"
        if rows >= FEW_ROWS:
            return f"from {FEW_ROWS:,} rows on, a part that only tests is large enough"
        return self._why_no_halves()

    @model_validator(mode="after")
    def _guidance_is_by_text(self) -> "DatasetSpec":
        if self.units in ("sentence", "paragraph") and any(sae.label_weight > 0 for sae in self.listed_saes):
            raise ValueError(guidance_needs_texts(self.units))
        return self

    def _check_covariates(self) -> None:
        wanted = [*self.selection.within, *self.selection.interactions]
        unknown = [name for name in wanted if name not in self.columns.controls]
        if unknown:
            raise ValueError(f"selection.within and interactions name `{unknown[0]}`; add it to columns.controls")
        if wanted and self.selection.method != "lasso":
            raise ValueError("selection.within and interactions need selection.method `lasso`")
        if wanted and (self.selection.distinct is not None or self.selection.min_match is not None):
            raise ValueError(
                "selection.within and interactions do not go with selection.distinct or min_match; drop one"
            )

    def _check_distilling(self) -> None:
        if self.annotation.distil is None:
            return
        if self.annotation.model == "lexical":
            raise ValueError("annotation.distil spares calls of a language model; `lexical` judges every text for free")
        unfit = [
            ("a pairwise dataset", self.task == "pairwise"),
            ("columns.controls", bool(self.columns.controls)),
            ("inference.test `rank`", self.inference.test == "rank"),
        ]
        named = next((name for name, there in unfit if there), None)
        if named:
            raise ValueError(
                f"annotation.distil corrects differences of means between texts, which does not go with {named}; "
                "leave one of them out"
            )

    def _check_own_hypotheses(self) -> None:
        claims = [own.claim.lower() for own in self.hypotheses]
        if len(set(claims)) < len(claims):
            raise ValueError("two hypotheses make the same claim; remove one")
        if self.selection.n + len(claims) > 100:
            raise ValueError("selection.n and the number of hypotheses add up to more than 100; select fewer neurons")
        without = next((own.claim for own in self.hypotheses if not own.terms), None)
        if self.annotation.model == "lexical" and without is not None:
            raise ValueError(
                f"the hypothesis `{without}` has no terms, and annotation.model `lexical` reads words only; give it "
                "`terms`, or let a language model judge"
            )

    @property
    def listed_saes(self) -> tuple[SAE, ...]:
        """The autoencoders that dataset.yaml lists; none where a rule chooses them."""
        return self.saes if isinstance(self.saes, tuple) else ()

    @property
    def outcome_name(self) -> str:
        """The outcome in words."""
        positive = "" if self.columns.positive is None else f" = {self.columns.positive}"
        return self.outcome or self.columns.label + positive

    @property
    def cluster_name(self) -> str | None:
        """What clusters are called; None where each text is its own."""
        blocks = ["block of time"] if self.columns.time else []
        return " and ".join([*self.columns.clusters, *blocks]) or None


def guidance_needs_texts(units: str) -> str:
    """Why labels cannot guide autoencoders of parts of texts, and what to do."""
    return (
        f"units are {units}s, and a {units} has no label of its own to guide an autoencoder; leave label_weight out, "
        "or set units to `text`"
    )
