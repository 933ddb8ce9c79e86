"""dataset.yaml as typed, documented fields."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hsae_dagster.dataset.sections import (
    SAE,
    AutoSizes,
    Inference,
    Judge,
    Names,
    OwnHypothesis,
    Report,
    SAEs,
    Section,
    ServerFields,
    Share,
    Spending,
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
    label: str
    """Column with the outcome: a number (or `1.97%`) or two classes; for pairs 1 = A wins."""
    positive: str | int | float | bool | None = None
    """Class counted as 1 if classes are not 0 and 1; all others count as 0."""
    cluster_by: str | tuple[str, ...] | None = None
    """Column, or list of columns, that names what rows share (author, film, test). Rows that share any value stay in
    one split; case and outer spaces do not matter."""
    id: str | None = None
    """Column that identifies rows. A row with the same id and content as an earlier one is left out as a repeat;
    without it every row counts."""
    time: str | None = None
    """Column with each row's date, time or ordered number. Later rows are held out (`splits.forward`), and blocks of
    time become clusters."""
    controls: Names = ()
    """Columns to hold constant: numbers (or percents), with a straight-line effect, or categories (at most one per 50
    rows, never over 61; 31 always allowed). To make numbers categories put a letter in front (`w12`)."""
    exclude: str | None = Field(None, description="True/false column: rows where it is true are left out.")
    missing: Values = Field((), description="Values of text, label and cluster_by that mean missing (`n/a`, `?`, -99).")
    scale: Names = ()
    """Words of the label from lowest to highest, read as 1, 2, 3 and so on (regression)."""
    listed: str | None = Field(None, min_length=1)
    """Separator of several classes in one label cell (`joy,neutral`); 1 if `positive` is among them."""
    on_missing: Literal["error", "drop"] = "error"
    """Rows without text or label: stop, or drop and report them."""

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
    """Shares of rows. Rows that share a cluster or a (nearly) equal text stay together; new rows move no old ones."""

    design: Literal["holdout", "two_halves", "auto"] = Field(
        "holdout",
        description="`holdout`: one part of the rows only tests. `two_halves`: each half tests the claims found in the "
        f"other, which finds more with few rows. `auto`: two halves below {FEW_ROWS:,} rows if claims are found and "
        "judged offline, no label guides an autoencoder, and columns.time, splits.holdout and splits.reserve are not "
        "set; otherwise, or if halves would be too small, a holdout. `hsae check` says which and why.",
    )
    holdout: Share = Field(0.3, description="Share of rows that only the final tests read; not with two halves.")
    validation: Share = Field(0.1, description="Share for early stopping and for choosing among candidates.")
    fidelity: Share | None = None
    """Share on which a language model's phrases are compared with their neurons; default a tenth, and none offline."""
    forward: bool | None = None
    """Train on earlier rows and hold out later ones; default if columns.time is declared."""
    salt: str = Field("hsae", description="Changes which clusters land in which split. Datasets with one salt agree.")
    reserve: int | None = Field(None, ge=10)
    """Number of new, unrelated rows after the first report that start a refresh; until then they wait. Default: as many
    rows and clusters as the first holdout."""
    near_texts: float = Field(0.8, gt=0.0, le=1.1)
    """Overlap of word pairs (ignoring links, handles, numbers) at which two texts of 20 words or more count as nearly
    equal and stay together. 1.1 turns this off and lets links, handles and numbers distinguish texts."""
    shared_texts: Literal["join", "leave_out"] = "join"
    """Rows with one text: `join` keeps them and their clusters together; `leave_out` gives each text its own split and
    leaves out its rows in clusters of another split (for stock phrases)."""


class Embedding(Section):
    """How a text becomes a vector."""

    model: str = "minilm"
    """`minilm` (bundled, offline), `openai:<model>`, or your own function as `package.module:function`."""
    max_tokens: int = Field(256, ge=8, le=8192, description="Tokens read of each text; the rest is ignored.")
    server: ServerFields = ServerFields()
    dimensions: int | None = Field(None, ge=2, description="Dimensions to request from the model (openai:… only).")
    batch_size: int = Field(512, ge=1, description="Texts per write, and so the most that a killed run repeats.")


class Selection(Section):
    """Which neurons predict the label."""

    method: str = "lasso"
    """`lasso`, `correlation`, `separation`, or your own metric as `package.module:function`."""
    n: int = Field(20, ge=1, le=100, description="Neurons to select.")
    min_match: float | None = Field(None, gt=0.0, le=1.0)
    """With sae_seeds > 1: select only neurons that every other seed found, by the texts on which they fire, at this φ
    or above."""
    across_clusters: bool | None = None
    """Select only neurons whose association has one direction across several clusters. Default if cluster_by is
    declared, training has at least 8 clusters, and within and interactions are not set."""
    within: Names = ()
    """Controls (at most 30 levels) within whose strata neurons are selected, with equal weights; effects are also shown
    by subgroup."""
    interactions: Names = ()
    """Controls (at most 30 levels) with which effects may change; also shown by subgroup."""


class Interpretation(Section):
    """How a neuron becomes a concept in words."""

    model: str = "lexical"
    """`lexical` (offline), `openai:<model>`, `local:<file.gguf>`, or your own as `package.module:function`."""
    sources: Annotated[Names, Field(min_length=1)] = ("style", "words", "sentences")
    """Offline: where candidate claims come from beside words that go with the outcome: `style` cues, `words` and
    `sentences` of neurons, or your own as `package.module:function`."""
    server: ServerFields = ServerFields()
    temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of a language model; default the server's."""
    effort: str | None = Field(None, description="Reasoning effort of a language model (`minimal`, `low`, …).")
    candidates: int = Field(3, ge=1, le=20, description="Candidate concepts per neuron.")
    examples: int = Field(20, ge=2, description="Texts shown to a language model, half firing, half silent.")
    sampling: Literal["percentile", "top"] = "percentile"
    """Firing texts shown to a language model: a sample of `bin`, or the strongest."""
    max_words: int = Field(256, ge=8, description="Words shown of each text.")
    bin: tuple[Percentile, Percentile] = (80.0, 100.0)
    """Percentiles of positive activation that count as strong firing."""
    low_bin: tuple[Percentile, Percentile] | None = None
    """Show weakly firing texts of these percentiles instead of silent ones."""
    metric: Literal["f1", "correlation", "precision", "recall", "natural_f1"] | None = None
    """Fidelity on validation texts that chooses the best candidate; default `natural_f1` with revisions, else `f1`."""
    scoring_texts: int = Field(200, ge=20)
    """Texts a paid annotator reads to score a candidate, a quarter of them silent near misses. The free one reads
    all."""
    revisions: int = Field(0, ge=0, le=10)
    """Rounds in which a language model sees the errors of its best phrase on training texts and proposes a
    better one."""
    instructions: str | None = Field(None, description="Description of the texts for a language model.")
    prompt: str | None = Field(None, description="Prompt file in the dataset's folder, instead of interpret.md.")
    revision_prompt: str | None = Field(None, description="Prompt file instead of revise.md.")
    seed: int = Field(0, ge=0, description="Seed of the sampling.")

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
                raise ValueError(f"{name} {list(ends)} must rise; write the lower percentile first, such as [80, 100]")
        if self.low_bin is not None and self.low_bin[1] > self.bin[0]:
            raise ValueError(
                f"low_bin {list(self.low_bin)} reaches into bin {list(self.bin)}; end it at {self.bin[0]:g} or below"
            )
        if self.low_bin is not None and self.sampling == "top":
            raise ValueError("low_bin belongs to sampling `percentile`; leave it out, or set sampling to that")
        return self


class Distil(Section):
    """The model judges a sample of the held-out texts; a probe learns from it and judges the rest."""

    sample: int = Field(ge=100)
    """Held-out texts that the model judges, half at random and half among those that fire the claims' neurons. A probe
    on text vectors judges the others, and effects are corrected for its errors."""


class Annotation(Section):
    """How concepts are judged on held-out texts."""

    model: str = "lexical"
    """`lexical` (offline, with the lexical interpreter), `openai:<model>`, `local:<file.gguf>`, or your own as
    `package.module:function`."""
    server: ServerFields = ServerFields()
    temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of a language model; default 0 if it has one."""
    effort: str | None = Field(None, description="Reasoning effort of a language model (`minimal`, `low`, …).")
    holdout_sample: int | None = Field(None, ge=20)
    """Judge only this many holdout rows (whole clusters); default all."""
    distil: Distil | None = Field(None, description="Let the model judge a sample and a probe the rest, to save cost.")
    concepts_per_call: int = Field(10, ge=1, le=50, description="Concepts a language model judges at once.")
    max_words: int = Field(256, ge=8, description="Words shown of each text.")
    prompt: str | None = None
    """Prompt file in the dataset's folder, instead of annotate_stacked.md and _single.md."""
    calibration: int = Field(100, ge=0)
    """Answers to repeat one concept at a time, to check the stacked ones."""
    min_agreement: float = Field(0.9, ge=0.0, le=1.0)
    """Agreement of stacked and single answers below which a check warns."""
    max_missing: Share = Field(0.05, description="Largest share of missing answers; more stop everything downstream.")
    seed: int = Field(0, ge=0, description="Seed of holdout sample and calibration.")


class DatasetSpec(Section):
    """The top level of data/<dataset>/dataset.yaml."""

    extends: str | None = None
    """Dataset whose files and settings this one inherits; write only what differs."""
    description: str = Field("", description="One line about the texts, shown on the report.")
    outcome: str | None = None
    """The outcome in words, with its unit; default the column and its positive class."""
    obtain: str | None = Field(None, description="How to get the files; shown if they are missing.")
    published: str | None = None
    """Published figures for these texts, shown beside ours and marked as published."""
    task: Task = Field(description="`regression`, `classification` or `pairwise`.")
    files: str | tuple[str, ...] | dict[Literal["train", "validation", "holdout"], str]
    """File, list of files, or one file per split, beside dataset.yaml: parquet, csv, tsv, jsonl or json."""
    columns: Columns
    units: Literal["auto", "text", "sentence", "paragraph"] = "auto"
    """What neurons read: the whole `text`, each `sentence` or each `paragraph`. `auto`: sentences if the median text
    has two or more. Long ones are cut at clauses."""
    pool: Literal["max", "mean", "sum"] = "max"
    """How activations of units become the activation of a text."""
    splits: Splits = Splits()
    embedding: Embedding = Embedding()
    saes: SAEs = AutoSizes()
    """`auto`: the size whose claims fit best on validation clusters; `reference`: the rule of thumb of HypotheSAEs; or
    a list of autoencoders."""
    sae_seeds: int = Field(3, ge=1, le=20, description="Seeds per autoencoder, to see which neurons all of them find.")
    selection: Selection = Selection()
    interpretation: Interpretation = Interpretation()
    annotation: Annotation = Annotation()
    judge: Judge = Judge()
    spending: Spending = Spending()
    inference: Inference = Inference()
    report: Report = Report()
    # Left out of what results are made from: it says when to look again, not what is found.
    freshness: float | None = Field(None, gt=0, exclude=True)
    """Days after which `watch` reports the last evaluation as too old; never if not set."""

    hypotheses: tuple[OwnHypothesis, ...] = Field((), max_length=50)
    """Your own hypotheses, judged and tested beside those found."""

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
    def _fields_fit_together(self) -> "DatasetSpec":
        if self.splits.forward and self.columns.time is None:
            raise ValueError("splits.forward holds out later rows; name the column that says when in columns.time")
        if self.selection.min_match is not None and self.sae_seeds == 1:
            raise ValueError("selection.min_match compares seeds; set sae_seeds to 2 or more")
        self._check_columns()
        self._check_own_hypotheses()
        self._check_covariates()
        self._check_distilling()
        if self.annotation.model == "lexical" and self.interpretation.model != "lexical":
            raise ValueError(
                "annotation.model `lexical` can only judge claims that execute; set interpretation.model to `lexical`, "
                "or annotation.model to a language model"
            )
        taken = self.splits.holdout + self.splits.validation + self.fidelity_share
        if taken > 0.9:
            raise ValueError(
                "splits.holdout, splits.validation and splits.fidelity (a tenth by default where a model writes "
                f"phrases) add up to {taken:.2f}; leave at least 0.1 to train on"
            )
        why = self._why_no_halves()
        if self.splits.design == "two_halves" and why:
            raise ValueError(why)
        if self.units in ("sentence", "paragraph") and any(sae.label_weight > 0 for sae in self.listed_saes):
            raise ValueError(guidance_needs_texts(self.units))
        return self

    def _check_columns(self) -> None:
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

    def _why_no_halves(self) -> str | None:
        """What speaks against two halves, and its remedy; None if nothing does."""
        halves, why = "splits.design `two_halves`", None
        if isinstance(self.files, dict):
            return f"{halves} deals rows itself, but files names one per split; list them"
        if "holdout" in self.splits.model_fields_set:
            return f"{halves} has no holdout beside the halves; leave splits.holdout out"
        if self.columns.time is not None:
            why = f"{halves} tests earlier rows by what later ones suggest, so it has no columns.time; leave that out"
        elif self.annotation.distil is not None:
            why = f"annotation.distil labels the rest of one holdout, and {halves} has none; leave distil out"
        elif self.splits.reserve is not None:
            why = f"{halves} tests every row there is and has no fresh reserve; leave splits.reserve out"
        elif any(sae.label_weight > 0 for sae in self.listed_saes):
            why = f"both halves share their autoencoders, so {halves} needs some that no label guided"
            why += "; leave label_weight out"
        elif self.interpretation.model != "lexical":
            why = f"{halves} finds claims offline; set interpretation.model to `lexical`"
        return f"{why}, or set splits.design to `holdout`" if why else None

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

    def _check_covariates(self) -> None:
        wanted = [*self.selection.within, *self.selection.interactions]
        unknown = [name for name in wanted if name not in self.columns.controls]
        if unknown:
            raise ValueError(f"selection.within and interactions name `{unknown[0]}`; add it to columns.controls")
        if wanted and self.selection.method != "lasso":
            raise ValueError("selection.within and interactions need selection.method `lasso`")
        if wanted and self.selection.min_match is not None:
            raise ValueError("selection.within and interactions do not go with selection.min_match; drop one")

    def _check_distilling(self) -> None:
        if self.annotation.distil is None:
            return
        if self.annotation.model == "lexical":
            raise ValueError("annotation.distil saves calls to a language model; `lexical` judges every text for free")
        unfit = {
            "a pairwise dataset": self.task == "pairwise",
            "columns.controls": bool(self.columns.controls),
            "inference.test `rank`": self.inference.test == "rank",
        }
        if named := next((name for name, there in unfit.items() if there), None):
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
