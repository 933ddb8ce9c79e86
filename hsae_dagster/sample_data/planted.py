"""Generated texts with known concepts and known effects: short ones (`planted`), and job adverts as files hold them."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from hsae_dagster.errors import MethodError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Generated:
    """A generated dataset and its truth, rows in the same order."""

    rows: "pl.DataFrame"
    truth: "pl.DataFrame"


def write_generated(folder: Path, name: str, made: Generated) -> tuple[Path, Path]:
    """Write <name>.parquet (rows) and truth.parquet under `folder`; return both paths."""
    from hsae_dagster.sample_data.fetch import write_table

    rows, truth = folder / f"{name}.parquet", folder / "truth.parquet"
    write_table(truth, made.truth)
    write_table(rows, made.rows)
    return rows, truth


Pick = Callable[[int], int]  # pick(n) -> one of 0 .. n-1

_MADE_OF: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("planted.yaml").read_text(encoding="utf-8"))
TOPICS: dict[str, Any] = _MADE_OF["topics"]
# Most sentences have neither.
_OPENERS, _TAILS = [*_MADE_OF["openers"], *[""] * 18], [*_MADE_OF["tails"], *[""] * 12]


def topic_sentence(topic: str, pick: Pick) -> str:
    """A sentence about `topic`; `pick` makes each choice."""
    actions = TOPICS[topic]["actions"]

    def one(choices: list[str] | str, but: str | None = None) -> str:
        options = choices.split() if isinstance(choices, str) else choices
        options = [option for option in options if option != but]
        return options[pick(len(options))]

    first, second = (actions[pick(len(actions))] for _ in range(2))
    pattern, subjects = one(_MADE_OF["patterns"]), _MADE_OF["subjects"]
    slots = {"s": one(subjects), "v": one(first["verbs"]), "a": one(first["adjectives"]), "o": one(first["objects"])}
    slots |= {"s2": one(subjects), "v2": one(second["verbs"], slots["v"]), "a2": one(second["adjectives"])}
    slots["o2"] = one(second["objects"], slots["o"])
    return _capital(pattern.format(**slots, p=one(TOPICS[topic]["places"])))


def filler_sentence(pick: Pick) -> str:
    """A sentence about nothing in particular; `pick` makes each choice."""
    parts = [*(_MADE_OF[part] for part in ("people", "said", "small", "went", "how")), _OPENERS, _TAILS]
    who, said, small, went, how, opener, tail = (part[pick(len(part))] for part in parts)
    core = f"{who} {said} {small}" if pick(6) else f"{went} {how}"
    return _capital(" ".join(f"{opener} {core} {tail}".split()) + ".")


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


# In units of the outcome's standard deviation; 0 for the topics that have nothing to do with it.
EFFECTS = {"cooking": 0.9, "sailing": -0.9, "astronomy": 0.6, "football": -0.6} | {
    topic: 0.0 for topic in TOPICS if topic not in ("cooking", "sailing", "astronomy", "football")
}
PREVALENCE = 0.3
PREVALENCE_CONCENTRATION = 7.0  # a + b of the Beta; the intraclass correlation of presence is 1 / (1 + a + b)
MAX_AUTHORS = 150
AUTHOR_VARIANCE = 0.1017
NOISE_VARIANCE = 0.4069  # with the concepts' 0.4914 and the authors' share this makes 1


def generate_planted(n_texts: int = 3000, *, seed: int = 0) -> Generated:
    """Generate `n_texts` distinct texts of about `n_texts` / 20 authors, at most 150.

    Equal arguments give equal frames.

    Returns:
        rows: text str, outcome f64, author str; truth: text str and an i8 column (1 = present) per topic.

    Raises:
        MethodError: fewer than 20 texts.
    """
    import polars as pl

    if n_texts < 20:
        raise MethodError(f"n_texts is {n_texts}; planted texts need at least 20 to have authors and outcomes.")
    # Two streams, so that texts do not depend on what is drawn for the outcome.
    rng, drawn = (np.random.default_rng((seed, stream)) for stream in (0, 1))
    n_authors = min(MAX_AUTHORS, max(4, n_texts // 20))
    author = rng.integers(n_authors, size=n_texts)
    mentions = rng.beta(
        PREVALENCE * PREVALENCE_CONCENTRATION, (1 - PREVALENCE) * PREVALENCE_CONCENTRATION, (n_authors, len(TOPICS))
    )
    present = rng.random((n_texts, len(TOPICS))) < mentions[author]
    pick, written = _picker(rng), dict[str, None]()
    for row in present:
        text = _write_text(row, pick)
        while text in written:
            text = _write_text(row, pick)
        written[text] = None
    texts = list(written)

    score = present @ np.array([EFFECTS[name] for name in TOPICS])
    intercept = drawn.normal(0.0, np.sqrt(AUTHOR_VARIANCE), n_authors)[author]
    outcome = score + intercept + drawn.normal(0.0, np.sqrt(NOISE_VARIANCE), n_texts)
    names = np.array([f"author_{i:03d}" for i in range(n_authors)])
    return Generated(
        rows=pl.DataFrame({"text": texts, "outcome": outcome, "author": names[author]}),
        truth=pl.DataFrame({"text": texts} | {name: present[:, j].astype(np.int8) for j, name in enumerate(TOPICS)}),
    )


def _write_text(present: np.ndarray, pick: Pick) -> str:
    slots = [
        topic_sentence(topic, pick) if here else filler_sentence(pick)
        for topic, here in zip(TOPICS, present, strict=True)
    ]
    for last in range(len(slots) - 1, 0, -1):  # Fisher-Yates, from the same stream of choices
        other = pick(last + 1)
        slots[last], slots[other] = slots[other], slots[last]
    return " ".join(slots)


def _picker(rng: np.random.Generator) -> Pick:
    """Choices from a stream drawn in blocks: one draw per choice would take most of the time."""
    block: list[float] = []

    def pick(n: int) -> int:
        nonlocal block
        if not block:
            block = rng.random(1 << 16).tolist()
        return int(block.pop() * n)

    return pick


_ADVERTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("adverts.yaml").read_text(encoding="utf-8"))
# Patterns (`variants`) of the sentences that say a property; one stands in an advert that has it.
PROPERTIES: dict[str, list[str]] = _ADVERTS["properties"]
# Mean share of women among applicants (%), how often it is advertised, and duties.
OCCUPATIONS: dict[str, Any] = _ADVERTS["occupations"]
_CHOICE = re.compile(r"\[([^\]]+)\]")


def variants(pattern: str) -> tuple[str, ...]:
    """The sentences that a pattern with choices, `[six|nine]`, stands for; itself if it has none."""
    parts = _CHOICE.split(pattern)
    choices = (part.split("|") if i % 2 else (part,) for i, part in enumerate(parts))
    return tuple("".join(chosen) for chosen in itertools.product(*choices))


BULLETS = ("- ", "• ", "* ")


def laid_out(sentences: list[str], heading: str, rng: np.random.Generator) -> str:
    """An advert's sentences as one text: mostly a paragraph, else with lines, a heading, or a list without stops."""
    shape = rng.random()
    if shape < 0.13:
        bullet = BULLETS[rng.integers(len(BULLETS))]
        points = [bullet + sentence.removesuffix(".") for sentence in sentences[1:-1]]
        return "\n".join([sentences[0], heading, *points, sentences[-1]])
    if shape < 0.2:
        middle = len(sentences) // 2
        return " ".join(sentences[:middle]) + "\n\n" + " ".join(sentences[middle:])
    if shape < 0.25:
        return "\n".join(sentences)
    return " ".join(sentences)


def shouted(sentences: list[str], rng: np.random.Generator) -> list[str]:
    """The sentences, one of them in capitals in one advert of fifteen."""
    if rng.random() >= 1 / 15:
        return sentences
    loud = int(rng.integers(len(sentences)))
    return [sentence.upper() if i == loud else sentence for i, sentence in enumerate(sentences)]


def marked_up(text: str, rng: np.random.Generator) -> str:
    """The text as a web page or a form left it, in about one advert of five."""
    fault = rng.random()
    if fault < 0.05:
        return text.replace("&", "&amp;").replace("'", "&#39;")
    if fault < 0.08:
        return text.replace(" a ", "&nbsp;a ", 2)
    if fault < 0.10:
        return text.replace("\n", "<br>\n") if "\n" in text else f"<p>{text}</p>"
    if fault < 0.17:
        return text.replace(". ", ".  ")
    if fault < 0.20:
        return f" {text}\n"
    return text


def spelled(name: str, rng: np.random.Generator) -> str:
    """A name as it stands in a column that people filled in: mostly right, sometimes in other case or with blanks."""
    fault = rng.random()
    if fault < 0.04:
        return name + " "
    if fault < 0.06:
        return name.upper()
    if fault < 0.08:
        return name.lower()
    if fault < 0.09:
        return "  " + name
    return name


# In points of the share of women among applicants.
ADVERT_EFFECTS = {"flexible_hours": 9.0, "tough_tone": -9.0, "nights_and_lifting": -6.0, "paid_training": 6.0}
ADVERT_PREVALENCE = {"flexible_hours": 0.28, "tough_tone": 0.22, "nights_and_lifting": 0.25, "paid_training": 0.3}
EMPLOYER_SD = 3.0
NOISE_SD = 9.5
MISSING_LABELS = 0.015
MOST_EMPLOYERS = 130
FEWEST_WORDS, MOST_WORDS = 60, 100
FEWEST_SENTENCES, MOST_SENTENCES = 5, 9


@dataclass(frozen=True)
class Employer:
    """Who advertises: its name, where it does, and what fills the other slots of all of its adverts."""

    name: str
    cities: list[str]
    facts: dict[str, str]


def generate_adverts(n_texts: int = 1500, *, seed: int = 0, null: bool = False) -> Generated:
    """Generate `n_texts` distinct adverts of about `n_texts` / 10 employers, at most 130.

    Equal arguments give equal frames. `null` sets every effect to 0 and leaves the texts as they are.

    Returns:
        rows: advert str (a key), text str, occupation str, city str, employer str (not always spelled alike),
            women_share f64 (percent, null where nobody noted it).
        truth: advert str, text str, employer str (as it should be spelled), `has_<property>` i8 (1 = present), and
            `says_<property>` str: the sentence that says it, before it was laid out; null where there is none.

    Raises:
        MethodError: fewer than 100 texts.
    """
    import polars as pl

    if n_texts < 100:
        raise MethodError(f"n_texts is {n_texts}; job adverts need at least 100 to have employers and occupations.")
    # Two streams, so that texts do not depend on what is drawn for the outcome.
    rng = np.random.default_rng((seed, 0))
    employers = _employers(min(MOST_EMPLOYERS, n_texts // 10), rng)
    employer = _whose(n_texts, len(employers), rng)
    occupation = _occupations(employer, len(employers), rng)
    present = rng.random((n_texts, len(PROPERTIES))) < np.array([ADVERT_PREVALENCE[name] for name in PROPERTIES])
    said = [_said(row, rng) for row in present]
    titles = [list(OCCUPATIONS)[o] for o in occupation]
    cities = [str(rng.choice(employers[e].cities)) for e in employer]
    texts = _write_adverts([employers[e] for e in employer], cities, titles, said, rng)

    effects = np.array([0.0 if null else ADVERT_EFFECTS[name] for name in PROPERTIES])
    outcome = _shares(present @ effects, occupation, employer, np.random.default_rng((seed, 1)))
    keys = [f"advert_{i:05d}" for i in range(n_texts)]
    names = [employers[e].name for e in employer]
    truth: dict[str, object] = {f"has_{name}": present[:, j].astype(np.int8) for j, name in enumerate(PROPERTIES)}
    truth |= {f"says_{name}": [sentences.get(name) for sentences in said] for name in PROPERTIES}
    return Generated(
        rows=pl.DataFrame(
            {
                "advert": keys,
                "text": texts,
                "occupation": titles,
                "city": cities,
                "employer": [spelled(name, rng) for name in names],
                "women_share": outcome,
            }
        ),
        truth=pl.DataFrame(
            {"advert": keys, "text": texts, "employer": names, **truth},
            schema_overrides={f"says_{name}": pl.String for name in PROPERTIES},
        ),
    )


def _employers(n: int, rng: np.random.Generator) -> list[Employer]:
    every = [form.format(family) for family in _ADVERTS["families"] for form in _ADVERTS["forms"]]
    names, cities = [every[i] for i in rng.permutation(len(every))[:n]], _ADVERTS["cities"]
    return [
        Employer(
            name=name,
            cities=[cities[i] for i in rng.permutation(len(cities))[: rng.integers(1, 4)]],
            facts={
                "name": _one(_ADVERTS["contacts"], rng),
                "reference": f"{'ABCK'[rng.integers(4)]}-{rng.integers(100, 1000)}",
                "phone": f"{rng.integers(20, 99)} {rng.integers(1000, 9999)}",
                "staff": _one(("80", "150", "400", "1,200"), rng),
                "team": _one(("six", "nine", "12", "20"), rng),
                "lands": _one(("three", "five", "seven"), rng),
                "wage": _one(("16.50", "17.20", "18.00", "19.75"), rng),
            },
        )
        for name in names
    ]


def _whose(n_texts: int, n_employers: int, rng: np.random.Generator) -> np.ndarray:
    """The employer of each advert, (texts,) int: three each at least, the others to large ones more often."""
    weight = (np.arange(n_employers) + 2.0) ** -0.8
    sure = np.repeat(np.arange(n_employers), 3)
    drawn = rng.choice(n_employers, size=n_texts - sure.size, p=weight / weight.sum())
    return rng.permutation(np.concatenate([sure, drawn]))


def _occupations(employer: np.ndarray, n_employers: int, rng: np.random.Generator) -> np.ndarray:
    """The occupation of each advert, (texts,) int; employers prefer some."""
    weight = np.array([one["weight"] for one in OCCUPATIONS.values()])
    preferred = np.cumsum(rng.dirichlet(8 * weight / weight.sum(), size=n_employers), axis=1)
    drawn = (rng.random(employer.size)[:, None] > preferred[employer]).sum(axis=1)
    return np.minimum(drawn, weight.size - 1)


def _said(present: np.ndarray, rng: np.random.Generator) -> dict[str, str]:
    """Property -> the sentence that says it, of those present."""
    here = [name for name, is_here in zip(PROPERTIES, present, strict=True) if is_here]
    return {name: _one(variants(_one(PROPERTIES[name], rng)), rng) for name in here}


def _shares(
    score: np.ndarray, occupation: np.ndarray, employer: np.ndarray, rng: np.random.Generator
) -> list[float | None]:
    """Share of women among applicants in percent; None where nobody noted it."""
    mean = np.array([one["share"] for one in OCCUPATIONS.values()])[occupation]
    intercept = rng.normal(0.0, EMPLOYER_SD, employer.max() + 1)[employer]
    share = np.clip(mean + score + intercept + rng.normal(0.0, NOISE_SD, score.size), 0.0, 100.0).round(1)
    noted = rng.random(share.size) >= MISSING_LABELS
    return [float(value) if is_noted else None for value, is_noted in zip(share, noted, strict=True)]


def _write_adverts(
    employers: list[Employer],
    cities: list[str],
    titles: list[str],
    said: list[dict[str, str]],
    rng: np.random.Generator,
) -> list[str]:
    written: dict[str, None] = {}
    for employer, city, title, sentences in zip(employers, cities, titles, said, strict=True):
        text = None
        wanted = int(rng.integers(FEWEST_WORDS + 6, MOST_WORDS - 6))  # once: what is tried again must not be shorter
        while text is None or text in written:
            text = _write_advert(employer, city, title, list(sentences.values()), wanted, rng)
        written[text] = None
    return list(written)


def _write_advert(
    employer: Employer, city: str, title: str, said: list[str], wanted: int, rng: np.random.Generator
) -> str | None:
    """One try at `wanted` words or a few more: an advert as a file holds it, or None if it came out too long."""
    slots = {
        "employer": employer.name,
        "city": city,
        "a_role": f"{'an' if title[0] in 'aeiou' else 'a'} {title}",
        "month": _one(_ADVERTS["months"], rng),
        "day": _one(("1", "15", "28"), rng),
        "week": str(rng.integers(20, 24)),
        **employer.facts,
    }
    duties, boilerplate = OCCUPATIONS[title]["duties"], _ADVERTS["boilerplate"]
    # An employer's name may bring a full stop of its own (“Ltd.”).
    first, last = (_one(_ADVERTS[among], rng).format(**slots).replace("..", ".") for among in ("openings", "closings"))
    middle = [duties[i] for i in rng.permutation(len(duties))[: rng.integers(2, 4)]] + said
    for i in rng.permutation(len(boilerplate)):
        if _words([first, *middle, last]) >= wanted:
            break
        middle.append(boilerplate[i].format(**slots))
    sentences = [first, *[middle[i] for i in rng.permutation(len(middle))], last]
    text = marked_up(laid_out(shouted(sentences, rng), _one(_ADVERTS["headings"], rng), rng), rng)
    # A question and its answer count as two sentences, though they always stand together.
    n_sentences = sum(1 + sentence.count("? ") for sentence in sentences)
    fits = FEWEST_SENTENCES <= n_sentences <= MOST_SENTENCES and FEWEST_WORDS <= _words([text]) <= MOST_WORDS
    return text if fits else None


def _one(among: Sequence[str], rng: np.random.Generator) -> str:
    return among[int(rng.integers(len(among)))]


def _words(texts: list[str]) -> int:
    """Words, not counting what holds no letter and no digit (a bullet, an ampersand)."""
    return sum(any(sign.isalnum() for sign in word) for text in texts for word in text.split())
