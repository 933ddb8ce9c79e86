"""What dataset.yaml is made of: sections that have a life of their own, and any of them as a page of fields."""

import json
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin  # noqa: TID251 (compared with, not written)

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic.fields import FieldInfo

from hsae_dagster.core.sae.config import SAEConfig
from hsae_dagster.errors import DatasetError

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Range = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) else value


# A list of names or values; a single one may stand without brackets.
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
Values = Annotated[tuple[str | int | float, ...], BeforeValidator(_several)]


class Section(BaseModel):
    """A part of dataset.yaml: unknown fields are errors, values never change after loading.

    A field is described in its declaration, or below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, use_attribute_docstrings=True)


class ServerFields(Section):
    """Which server is asked; defaults come from the environment."""

    url: str | None = Field(None, description="Address of the server, `http://host:port/v1`; default OPENAI_BASE_URL.")
    key: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key, never the key itself; default OPENAI_API_KEY, and none if
    `url` is given."""
    timeout: float | None = Field(None, gt=0)
    """Seconds without a byte after which a try counts as lost; 300."""
    concurrency: int | None = Field(None, ge=1, le=4096)
    """Most concurrent requests; default HSAE_CONCURRENCY."""


# What says how a server is asked and not which one: it changes no result.
MANNER = {"server": {"key", "timeout", "concurrency"}}


class Inference(Section):
    """What counts as confirmed."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    """Family-wise error rate of `confirmed` (Holm), over all reports of the dataset."""
    first_report: float = Field(0.8, gt=0.0, le=1.0)
    """Share of alpha for the first report; the rest is for refreshes. 1: nothing is left for them."""
    test: Literal["mean", "rank"] = "mean"
    """Which test of a numeric outcome decides. Ranks find more if a few values are very large. Both are reported."""
    min_positives: int = Field(20, ge=1)
    """Fewest holdout rows with and without a concept for it to be tested."""
    folds: int = Field(10, ge=2, le=50, description="Folds of the cross-fitted joint model, by cluster.")
    bootstrap: int = Field(500, ge=0, description="Cluster-bootstrap draws for intervals of joint fit.")
    seed: int = Field(0, ge=0, description="Seed of folds and bootstrap.")
    same_concept: float = Field(0.8, gt=0.5)
    """|phi| of two annotations from which they count as one concept; 1.1 tests all."""
    negative_controls: int = Field(5, ge=0, le=100)
    """Permutations of the labels on which selection and tests are run; 0 for none."""
    judge_sensitivity: Range | None = None
    """Known range of the judge's sensitivity (share of texts with a concept that it finds)."""
    judge_specificity: Range | None = None
    """Known range of the judge's specificity (share of texts without a concept that it rejects)."""

    @field_validator("judge_sensitivity", "judge_specificity")
    @classmethod
    def _ranges_rise(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"{list(value)} goes down; write the lowest share first")
        return value


class Judge(Section):
    """How a language model that judges is examined before it is paid for."""

    texts: int = Field(16, ge=0, le=500, description="Texts to examine it on, six questions each; 0 for none.")
    min_accuracy: float = Field(0.75, ge=0.0, le=1.0, description="Balanced accuracy below which the stage stops.")
    examples: int = Field(0, ge=0, le=8)
    """Texts labelled in gold.csv to show the model for each claim, half of them yes; at most a quarter of the labels.
    Labels that were shown do not check the judge."""
    second: str | None = None
    """A second model (`openai:…`, `local:…`) that judges some of the texts, to measure agreement."""
    second_server: ServerFields = ServerFields()
    second_texts: int = Field(100, ge=20, description="Texts that the second model judges, all concepts on each.")
    min_kappa: float = Field(0.4, ge=-1.0, le=1.0, description="Cohen's κ of both models below which a check warns.")


class Spending(Section):
    """What paid models may cost this dataset, in all runs together."""

    budget_usd: float | None = Field(None, gt=0, description="Most US dollars ever; a run stops before exceeding it.")
    budget_calls: int | None = Field(None, ge=1, description="Most requests ever; a run stops before exceeding it.")
    tier: Literal["standard", "flex", "batch"] = "standard"
    """`standard`; `flex` (half price, slower, some models); `batch` (half price, within a day)."""


class Report(Section):
    """What stands on the report beside the usual sections."""

    sections: Names = ()
    """Sections of your own, as `package.module:function`, shown before the method in this order."""


class OwnHypothesis(Section):
    """Your own hypothesis. A plain string is its claim."""

    claim: str = Field(min_length=3, description="What a text does, as a verb phrase: `mentions a price`.")
    terms: tuple[str, ...] = ()
    """Words, two-word phrases or style cues, any of which is enough; needed with annotation.model `lexical`."""
    direction: Literal["positive", "negative"] | None = None
    """Expected direction; an effect against it is not confirmed."""

    @model_validator(mode="before")
    @classmethod
    def _sentence_is_claim(cls, value: object) -> object:
        return {"claim": value} if isinstance(value, str) else value


class SAE(SAEConfig):
    """A sparse autoencoder. With several, their neurons stand side by side."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    checkpoint: str | None = None
    """A checkpoint of HypotheSAEs (SAE_M=…_K=….pt) beside dataset.yaml, used without training."""

    # Findings about dataset.yaml name the field inside it.
    __init__ = BaseModel.__init__

    @model_validator(mode="after")
    def _what_is_loaded_is_not_trained(self) -> "SAE":
        settings = sorted(self.model_fields_set - {"checkpoint", "m", "k", "prefixes", "batch_topk"})
        if self.checkpoint is not None and settings:
            raise ValueError(
                f"a checkpoint is taken as it is, so {', '.join(settings)} would have no effect; leave out either"
            )
        return self


class Auto(Section):
    """How the size is chosen: candidates race for a few epochs, and the winner is trained to the end."""

    race_epochs: int = Field(20, ge=1)
    """Passes over the units before candidates are compared; fewer over more than 20,000 units."""
    learning_rate: float = Field(2e-3, gt=0.0, description="Adam's step size for every candidate.")
    max_epochs: int = Field(60, ge=1)
    """Most passes over the units for the chosen one; fewer over more than 20,000 units."""
    patience: int = Field(5, ge=1, description="Epochs without improvement before stopping.")
    seed: int = Field(0, ge=0, description="Seed of every candidate.")


class AutoSizes(Section):
    """`saes: auto`, or `saes: {auto: {…}}` with settings of the choice."""

    auto: Auto = Auto()


def _kind_of_saes(value: object) -> str:
    if isinstance(value, str):
        return "=rule"
    return "=list" if isinstance(value, list | tuple) else "=auto"


def _spelled_out(value: object) -> object:
    if value == "auto":
        return AutoSizes()
    if not (value == "reference" or isinstance(value, list | tuple | dict | AutoSizes)):
        raise ValueError(
            f"{value!r} is not a choice of sizes; write `auto`, `reference`, or a list of autoencoders such as "
            "[{m: 64, k: 16}]"
        )
    return {"auto": {}} if value == {"auto": None} else value


# Tags tell which form was used, so that a finding names the field inside it; they are no part of the field's name.
SAEs = Annotated[
    Annotated[tuple[SAE, ...], Field(min_length=1), Tag("=list")]
    | Annotated[AutoSizes, Tag("=auto")]
    | Annotated[Literal["reference"], Tag("=rule")],
    Discriminator(_kind_of_saes),
    BeforeValidator(_spelled_out),
]


TITLE = """# dataset.yaml, field by field

Only `task`, `files` and `columns` are required; the other defaults suit about 10,000 texts. Unknown fields and values
outside their limits are refused with name, value and remedy. `hsae check <dataset>` checks a declaration; `hsae fields`
prints this page.
"""
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}
LIMITS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
FROM_TO = re.compile(r"at least (\S+) and at most (\S+)")


def field_reference(model: type[Section], section: str | None = None) -> str:
    """A declaration (`DatasetSpec`) as a page of Markdown; with a section (`columns`, `saes`, …) only what is in that.

    Raises:
        DatasetError: there is no such section.
    """
    tables = list(_tables(model, "", {}))
    if section is None:
        return "\n".join([TITLE, *(table for _, table in tables)])
    if section not in (names := list(dict.fromkeys(name for name, _ in tables if name))):
        raise DatasetError(f"dataset.yaml has no section `{section}`. It has {', '.join(names)}.")
    return "\n".join(table for name, table in tables if name == section)


def _tables(model: type[BaseModel], prefix: str, seen: dict[type[BaseModel], str]) -> Iterator[tuple[str, str]]:
    """(top-level section, table) of a section and of the sections in it; `seen` has the title of each shown before."""
    title = f"`{prefix.rstrip('.')}`" if prefix else "The whole file"
    section = re.split(r"[.\[]", prefix)[0]
    if model in seen:
        yield section, f"## {title}\n\nThe same fields as {seen[model]}.\n"
        return
    seen[model] = title
    yield section, _table(title, model, prefix)
    for name, info in model.model_fields.items():
        for inner, listed in _models(info.annotation):
            yield from _tables(inner, f"{prefix}{name}{'[]' if listed else ''}.", seen)


def _table(title: str, model: type[BaseModel], prefix: str) -> str:
    lines = [f"## {title}", "", " ".join((model.__doc__ or "").split()), ""]
    lines += ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        cells = (f"`{prefix}{name}`", _kind(info.annotation, info.metadata), _default(info), _meaning(info))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _models(annotation: Any) -> list[tuple[type[BaseModel], bool]]:
    """The sections that a field may hold, and whether as a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, False)]
    listed = get_origin(annotation) is tuple
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [(model, listed or within) for part in inner for model, within in _models(part)]


def _meaning(info: FieldInfo) -> str:
    inner = _models(info.annotation)
    return " ".join((info.description or (inner[0][0].__doc__ if inner else "") or "").split())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "see below"
    if default is None or default in ((), ""):
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)}`"


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    marks = [mark for item in metadata for mark in (item.metadata if isinstance(item, FieldInfo) else [item])]
    limits = [f"{word} {getattr(mark, name):g}" for name, word in LIMITS for mark in marks if hasattr(mark, name)]
    named = _named(annotation)
    return ", ".join([named, FROM_TO.sub(r"\1 to \2", " and ".join(limits))]) if limits else named


def _named(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in inner if part is not NoneType)
    if origin is tuple:
        parts = [_kind(part) for part in inner if part is not Ellipsis]
        several = f"list of {len(parts)}: {' and '.join(dict.fromkeys(parts))}"
        return f"list of {parts[0]}" if Ellipsis in inner else several
    if origin is dict:
        return f"{_kind(inner[1])} for each of {_kind(inner[0])}"
    if _models(annotation):
        return "section"
    return PLAIN.get(annotation, str(annotation))
