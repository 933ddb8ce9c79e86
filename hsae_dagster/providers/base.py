"""What a provider must offer, stage by stage, and how far a round of requests is."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import Places
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.providers.replies import Reply, Usage
from hsae_dagster.providers.spending import Estimate, dollars, duration

Report = Callable[[str], None]
# Takes the rows of some texts and their vectors, (rows, dimensions) float32.
Keep = Callable[[range, np.ndarray], None]
# By predicate: texts that people labelled, and whether they found it in them.
Labelled = Mapping[str, Sequence[tuple[str, bool]]]


class Embedder(Protocol):
    """Turns texts into vectors; one that runs here, in the order of the texts, if its class says nothing else."""

    @property
    def embedding_set(self) -> EmbeddingSet:
        """The identity of its vectors."""

    def known_set(self) -> EmbeddingSet | None:
        """The `embedding_set` if it is known without asking a server, else None."""
        return self.embedding_set

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        """What embedding the texts in batches would take now."""
        return Estimate()

    def order(self, texts: Sequence[str]) -> Sequence[int]:
        """In which order distinct texts are best embedded: a permutation that is a function of the texts alone.

        It is also an order of every subset: what remains of a run that was killed is a tail of it.
        """
        return range(len(texts))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts, (n, dimensions) float32; the same bytes for the same texts in the same order."""

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Keep, report: Report) -> None:
        """`embed` in batches, each handed to `keep` as soon as it is there, in any order."""
        for start in range(0, len(texts), batch_size):
            rows = range(start, min(start + batch_size, len(texts)))
            keep(rows, self.embed(texts[rows.start : rows.stop]))


@dataclass(frozen=True)
class InterpretationRequest:
    """What an interpreter may see: training texts only.

    Attributes:
        texts, clusters: n training texts, and (n,) their cluster keys.
        codes: (n, neurons) activations of the neurons to interpret, CSC.
        bounds: per neuron, the activations that count as strong firing.
        candidates: how many concepts to propose per neuron.
        examples, max_words: texts to show a language model per neuron, and words of each.
        instructions: what the texts are, or None.
        seed: start of the sampling's random stream.
        top: show the strongest texts instead of a sample between `bounds`.
        weak: per neuron, the activations between which a text fires weakly; such texts are shown instead of silent
            ones. None for silent ones.
        places: which part of each text is shown, and which silent texts are near; None: texts whole, by chance.
    """

    texts: Sequence[str]
    clusters: np.ndarray
    codes: sp.csc_matrix
    bounds: Sequence[tuple[float, float]]
    candidates: int
    examples: int
    max_words: int
    instructions: str | None
    seed: int
    top: bool = False
    weak: Sequence[tuple[float, float]] | None = None
    places: Places | None = None


@dataclass(frozen=True)
class Mistakes:
    """What a phrase got right and wrong on training texts that were judged by it.

    Attributes:
        neuron: column of the request that it is about.
        firing, found: texts that fire, and how many of them were judged to have it.
        silent, wrong: silent texts, and how many of them were judged to have it.
        right, missed, mistaken: rows of the request's texts to show: firing ones judged to have it, firing ones judged
            not to, silent ones judged to.
    """

    neuron: int
    phrase: str
    firing: int
    found: int
    silent: int
    wrong: int
    right: tuple[int, ...]
    missed: tuple[int, ...]
    mistaken: tuple[int, ...]


class Interpreter(Protocol):
    """Proposes concepts in words for neurons; free and without revisions, if its class says nothing else.

    Attributes:
        prompt_hash: of the prompt that asks, or None.
        faults: how many candidates are missing because a request failed, so that asking again may bring them.
    """

    prompt_hash: str | None
    faults: int

    def interpret(self, request: InterpretationRequest, report: Report) -> list[list[Concept]]:
        """Candidates per neuron, in the order of the request's columns; an empty list is an honest answer."""

    def estimate(self, request: InterpretationRequest) -> Estimate:
        """What `interpret` would take now."""
        return Estimate()

    def revise(
        self, request: InterpretationRequest, mistakes: Sequence[Mistakes], report: Report
    ) -> list[Concept | None]:
        """Better words for each phrase, by its mistakes on what `interpret` was given; None where none could be had."""
        return [None] * len(mistakes)

    def estimate_revisions(self, request: InterpretationRequest) -> Estimate:
        """What one `revise` of a phrase per neuron would take."""
        return Estimate()


@dataclass(frozen=True)
class AnnotationTask:
    """Concepts to judge on texts, every one on every one."""

    concepts: Sequence[Concept]
    texts: Sequence[str]


@dataclass(frozen=True)
class Annotations:
    """Answers of an annotator to one task.

    Attributes:
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        reasons: why answers are missing: (text row, concept column, reason).
        calls: answers of a paid model that these rest on, whenever they were paid.
        cost_usd: what those cost; None where no price is known.
        faults: how many answers are missing because a request failed, so that asking again may bring them.
    """

    answers: np.ndarray
    reasons: tuple[tuple[int, int, str], ...] = ()
    calls: int = 0
    cost_usd: float | None = 0.0
    faults: int = 0


class Annotator(Protocol):
    """Judges concepts on texts, task by task and free, if its class says nothing else.

    Attributes:
        free: judging costs nothing, so that every text may be judged.
        prompt_hash: of the prompt that asks, or None.
    """

    free: bool
    prompt_hash: str | None

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Judge every concept on every text; an answer that cannot be had is missing, never no."""

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        """What `annotate_all` would take now."""
        return Estimate()

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for several tasks at once, so that a paid model is asked in one go."""
        return [self.annotate(task.concepts, task.texts, report) for task in tasks]


def say_nothing(message: str) -> None:
    """The `Report` of an estimate, which asks nothing, or of who reports progress elsewhere."""


REPORT_SECONDS = 5.0
# Bytes per token: English has some 4.5, long words and numbers up to 8; and one collection's texts differ by less than
# this factor from each other.
MOST_BYTES_PER_TOKEN, MOST_TIMES_THE_USUAL, FEWEST = 12.0, 2.0, 5
# Shorter prompts say little.
LEAST_BYTES = 1000


@dataclass(eq=False)
class Progress:
    """Counts replies, says so now and then, and knows how many in a row brought nothing."""

    total: int
    known: int
    priced: bool
    report: Report

    def __post_init__(self) -> None:
        self.done = self.usable = self.unusable = 0
        self.streak: list[str] = []
        self.usage = Usage()
        self.usd = 0.0
        self.started = self.reported = time.monotonic()

    def count(self, reply: Reply, problem: str | None) -> None:
        """Take note of one reply, and of why it holds nothing usable."""
        self.done += 1
        self.unusable += problem is not None
        if problem is None:
            self.usable += 1
            self.streak.clear()
        elif not (reply.refused and self.usable):
            # A model that answers otherwise may well refuse one concept on every text.
            self.streak.append(problem)
        self.usage += reply.usage
        self.usd += reply.cost_usd or 0.0
        now = time.monotonic()
        if self.done == self.total or now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(self._line(now - self.started))

    def done_and_left(self) -> str:
        """How far the work is, for an error."""
        return f"{self.known + self.done:,} answers are there, {self.total - self.done:,} requests are left"

    def _line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        parts = [f"{self.done:,} of {self.total:,} requests answered, {rate:,.1f} a second"]
        if self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate / 60)} left")
        if self.usage.input:
            parts.append(f"{self.usage.input:,} tokens in and {self.usage.output:,} out")
        if self.priced:
            parts.append(f"{dollars(self.usd)} so far")
        parts.append(f"{self.unusable:,} without a usable answer")
        return ", ".join(parts)


@dataclass(eq=False)
class CutPrompts:
    """Notices when a server counts far fewer tokens than it was sent: some cut prompts without a word."""

    ratios: list[float] = field(default_factory=list)
    told: bool = False

    def notice(self, sent_bytes: int, tokens: int) -> str | None:
        """What to say of a reply, once."""
        if self.told or not tokens or sent_bytes < LEAST_BYTES:
            return None
        ratio = sent_bytes / tokens
        usual = median(self.ratios) if len(self.ratios) >= FEWEST else None
        if len(self.ratios) < 200:
            self.ratios.append(ratio)
        if ratio <= MOST_BYTES_PER_TOKEN and (usual is None or ratio <= MOST_TIMES_THE_USUAL * usual):
            return None
        self.told = True
        return (
            f"the server counted {tokens:,} tokens in a prompt of {sent_bytes:,} bytes: it may have truncated "
            "it silently. Give the model a longer context there (Ollama: OLLAMA_CONTEXT_LENGTH), or lower "
            "`examples` or `max_words`"
        )


def commonest(problems: Sequence[str]) -> tuple[str, int]:
    """The commonest of several reasons (the earliest of equals), and how often it was given."""
    return Counter(problems).most_common(1)[0]
