import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from hsae_dagster.errors import MethodError
from hsae_dagster.keys import hash_json
from hsae_dagster.sample_data import planted as planted_words
from hsae_dagster.sample_data.planted import EFFECTS, Generated, generate_planted, write_generated
from hsae_dagster.sample_data.registry import SAMPLES

PLANTED = {"cooking": 0.9, "sailing": -0.9, "astronomy": 0.6, "football": -0.6}

# What sentences of every kind are held together by, and the people who act in topics of every kind.
_JOINING = """a after against along an and at aunt before behind below beneath beside beyond brother by during for from
he her i in it my near of off on our past she sister that the then they this to uncle under was we when while with"""
FUNCTION_WORDS = frozenset(_JOINING.split())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def topic_words(topic: str) -> frozenset[str]:
    """The words that only `topic` has."""
    of_topic = planted_words.TOPICS[topic]
    parts = [phrase for action in of_topic["actions"] for phrase in action.values()]
    return frozenset(words_of(" ".join([*parts, *of_topic["places"]])) - FUNCTION_WORDS)


@pytest.fixture(scope="module")
def made() -> Generated:
    return generate_planted()


def presence(data: Generated) -> np.ndarray:
    return data.truth.drop("text").to_numpy().astype(float)


def authors(data: Generated) -> np.ndarray:
    return np.unique(data.rows["author"].to_numpy(), return_inverse=True)[1]


def fitted(data: Generated):
    fit = sm.OLS(data.rows["outcome"].to_numpy(), sm.add_constant(presence(data)))
    return fit.fit(disp=0, cov_type="cluster", cov_kwds={"groups": authors(data)})


def test_shape(made: Generated) -> None:
    assert made.rows.columns == ["text", "outcome", "author"]
    assert made.truth.columns == ["text", *planted_words.TOPICS]
    assert made.rows["text"].equals(made.truth["text"])
    assert made.rows["text"].n_unique() == made.rows.height == 3000
    assert made.rows["author"].n_unique() == 150
    assert {topic: effect for topic, effect in EFFECTS.items() if effect} == PLANTED
    assert sum(EFFECTS.values()) == 0
    assert list(EFFECTS) == list(planted_words.TOPICS) and len(EFFECTS) == 8


def test_concepts_are_present_at_the_same_rate_and_independently(made: Generated) -> None:
    x = presence(made)
    # Standard error of a mean with 150 authors of 20 texts, intraclass correlation 0.125: 0.0154.
    assert np.abs(x.mean(axis=0) - 0.3).max() < 4 * 0.0154
    correlation = np.corrcoef(x.T) - np.eye(8)
    assert np.abs(correlation).max() < 4 / np.sqrt(3000)


def test_outcome_has_unit_variance_and_the_concepts_explain_half(made: Generated) -> None:
    y = made.rows["outcome"].to_numpy()
    assert y.var() == pytest.approx(1.0, abs=0.08)
    assert fitted(made).rsquared == pytest.approx(0.49, abs=0.04)


def test_errors_that_ignore_authors_are_too_small() -> None:
    # Only the constant's error is inflated enough to show in one draw; presence adds the rest over many draws.
    data = generate_planted()
    y = data.rows["outcome"].to_numpy() - presence(data) @ np.array(list(EFFECTS.values()))
    naive = sm.OLS(y, np.ones(y.size)).fit()
    robust = sm.OLS(y, np.ones(y.size)).fit(cov_type="cluster", cov_kwds={"groups": authors(data)})
    assert robust.bse[0] > 1.5 * naive.bse[0]


def test_effects_are_recovered_from_the_truth() -> None:
    data = generate_planted(6000, seed=1)
    fit = fitted(data)
    effects = np.array(list(EFFECTS.values()))
    assert np.abs((fit.params[1:] - effects) / fit.bse[1:]).max() < 3.5
    assert np.abs(fit.tvalues[1:5]).min() > 6


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = (generate_planted(200, seed=seed) for seed in (3, 3, 4))
    assert first.rows.equals(again.rows)
    assert first.truth.equals(again.truth)
    assert set(first.rows["text"]).isdisjoint(other.rows["text"])


def test_vocabularies_are_generous_and_exclusive() -> None:
    vocabularies = {topic: topic_words(topic) for topic in planted_words.TOPICS}
    assert all(len(words) >= 40 for words in vocabularies.values())
    vocabularies["filler"] = _filler_words()
    for (a, of_a), (b, of_b) in combinations(vocabularies.items(), 2):
        assert not of_a & of_b, (a, b)
        assert not {_stem(w) for w in of_a} & {_stem(w) for w in of_b}, (a, b)


def _filler_words() -> set[str]:
    parts = [planted_words._MADE_OF[part] for part in ("openers", "people", "said", "small", "went", "how", "tails")]
    return words_of(" ".join(phrase for part in parts for phrase in part)) - FUNCTION_WORDS


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "d", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def test_a_text_shows_the_words_of_its_concepts_and_of_no_other(made: Generated) -> None:
    allowed = FUNCTION_WORDS | _filler_words()
    shown = {topic: topic_words(topic) for topic in EFFECTS}
    for row in made.truth.head(500).iter_rows(named=True):
        said = words_of(row["text"])
        for topic, words in shown.items():
            assert bool(said & words) == bool(row[topic])
        assert said <= allowed.union(*shown.values())
        assert row["text"].count(".") == 8


def test_no_single_word_stands_for_its_topic(made: Generated) -> None:
    for topic in EFFECTS:
        texts = made.truth.filter(pl.col(topic) == 1)["text"].head(400)
        counts = Counter(word for text in texts for word in words_of(text) & topic_words(topic))
        assert max(counts.values()) < 0.4 * len(texts)


def test_too_few_texts() -> None:
    with pytest.raises(MethodError, match="at least 20"):
        generate_planted(5)


def test_writing(tmp_path: Path) -> None:
    rows, truth = write_generated(tmp_path, "planted", generate_planted(60, seed=2))
    made = generate_planted(60, seed=2)
    assert (rows.name, truth.name) == ("planted.parquet", "truth.parquet")
    assert pl.read_parquet(rows).equals(made.rows)
    assert pl.read_parquet(truth).equals(made.truth)
    content = rows.read_bytes(), truth.read_bytes()
    write_generated(tmp_path, "planted", generate_planted(60, seed=2))
    assert (rows.read_bytes(), truth.read_bytes()) == content


def test_other_texts_mean_another_recipe() -> None:
    # When this fails on purpose, raise the recipe in the registry, or old tables stay where they were written.
    rows = generate_planted(100).rows
    outcome = [round(value, 9) for value in rows["outcome"]]
    made = hash_json([rows["text"].to_list(), rows["author"].to_list(), outcome])
    assert (made, SAMPLES["planted"].recipe) == ("a57a11a237f60d9f812a63b66a6c630a", 2)
