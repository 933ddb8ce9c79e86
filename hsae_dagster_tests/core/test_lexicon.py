"""Terms and lexicons."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from hsae_dagster.core.fidelity import measure_fidelity
from hsae_dagster.core.lexicon import Lexicon, apply_lexicons, best_threshold, fit_lexicons, name_lexicon
from hsae_dagster.core.terms import presence, supported_terms, text_terms
from hsae_dagster.errors import MethodError

FILLER = ["the train was late", "we bought bread", "rain fell all day", "a letter came", "the door stayed open"]


def corpus(n: int = 400, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts in which `anchor` or `sails` mark what fires the neuron; every cluster holds both kinds."""
    rng = np.random.default_rng(seed)
    fires = rng.random(n) < 0.3
    words = [rng.choice(["an anchor held", "new sails", "anchor and sails"]) if f else "" for f in fires]
    texts = [f"{rng.choice(FILLER)} {word} {rng.choice(FILLER)}" for word in words]
    return texts, fires, np.array([f"c{i % 40}" for i in range(n)])


def test_terms_are_content_words_phrases_and_cues() -> None:
    terms = text_terms("But you've never SEEN the Director's cut, 20 times?!")
    assert {"seen", "director", "cut", "times", "never", "seen director"} <= set(terms)
    assert {"<contrasts>", "<addresses the reader>", "<negates>", "<contains a number>"} <= set(terms)
    assert {"<asks a question>", "<exclaims>"} <= set(terms)
    assert not {"the", "but", "you", "you've"} & set(terms)


def test_names_of_single_clusters_and_rare_terms_are_not_supported() -> None:
    texts = [f"common word {'nachtwey' if i < 30 else 'sunset'}" for i in range(200)]
    clusters = ["one film" if i < 30 else f"film {i % 60}" for i in range(200)]
    terms = supported_terms(texts, clusters).terms
    assert "sunset" in terms
    assert "nachtwey" not in terms
    assert "common" not in terms  # in every text: tells nothing apart


def test_a_lexicon_finds_the_words_names_them_and_generalises() -> None:
    texts, fires, clusters = corpus()
    table = supported_terms(texts, clusters.tolist())
    (lexicon,) = fit_lexicons(table, fires.astype(float), clusters, [50])
    name = name_lexicon(lexicon, table, fires)
    assert name is not None
    assert name.startswith("uses words such as “")
    assert {"anchor", "sails"} <= set(name.replace("“", "").replace("”", "").replace(",", "").split())
    unseen, truth, _ = corpus(seed=1)
    assert (apply_lexicons([lexicon], unseen)[:, 0] == truth).all()


def test_a_lexicon_survives_json_and_explains_its_matches() -> None:
    texts, fires, clusters = corpus()
    (lexicon,) = fit_lexicons(supported_terms(texts, clusters.tolist()), fires.astype(float), clusters, [50])
    again = Lexicon.from_definition(json.loads(json.dumps(lexicon.as_definition())))
    assert again == lexicon
    assert lexicon.matched("An anchor at sea")[0][0] == "anchor"
    with pytest.raises(MethodError, match="can only judge lexicons"):
        Lexicon.from_definition(None)


def test_the_same_texts_give_the_same_lexicon() -> None:
    texts, fires, clusters = corpus()
    table = supported_terms(texts, clusters.tolist())
    first, again = (fit_lexicons(table, fires.astype(float), clusters, [50, 10]) for _ in range(2))
    assert first == again


def test_a_size_is_the_most_terms_and_the_strongest_stay() -> None:
    texts, fires, clusters = corpus()
    table = supported_terms(texts, clusters.tolist())
    whole, beyond, small = fit_lexicons(table, fires.astype(float), clusters, [10_000, 20_000, 6])
    assert whole == beyond
    assert len(small.terms) == 6 < len(whole.terms) <= len(table.terms)
    assert {"anchor", "sails"} <= set(small.terms)
    assert fit_lexicons(table, fires.astype(float), clusters, [6]) == [small], "a size does not depend on the others"


def test_texts_that_fire_strongly_count_more() -> None:
    # `anchor` and `sails` fire the neuron equally often, one of them weakly.
    texts = ["an anchor held", "new sails came", *FILLER] * 40
    activation = np.array([3.0, 0.3, 0, 0, 0, 0, 0] * 40)
    clusters = np.array([f"c{i % 20}" for i in range(len(texts))])
    (lexicon,) = fit_lexicons(supported_terms(texts, clusters.tolist()), activation, clusters, [50])
    weights = dict(zip(lexicon.terms, lexicon.weights, strict=True))
    assert weights["anchor"] > weights["sails"] > 0


def test_weights_are_those_of_the_fit_on_scaled_terms() -> None:
    """The lexicon's rule on plain occurrences is the logit on occurrences times the log-count ratio."""
    texts, fires, clusters = corpus()
    table = supported_terms(texts, clusters.tolist())
    (lexicon,) = fit_lexicons(table, fires.astype(float), clusters, [10_000])
    on, off = (table.matrix[side].sum(axis=0) + 1 for side in (fires, ~fires))
    ratio = np.asarray(np.log(on / (fires.sum() + 2)) - np.log(off / ((~fires).sum() + 2))).ravel()
    model = LogisticRegression(solver="liblinear", C=0.3, random_state=0, max_iter=1000)
    model.fit(table.matrix.multiply(ratio).tocsr(), fires)
    wanted = dict(zip(table.terms, model.coef_[0] * ratio, strict=True))
    assert dict(zip(lexicon.terms, lexicon.weights, strict=True)) == pytest.approx(
        {term: wanted[term] for term in lexicon.terms}, abs=1e-3
    )


def test_noise_earns_no_skill() -> None:
    texts, _, clusters = corpus()
    rng = np.random.default_rng(5)
    noise, table = rng.random(len(texts)) < 0.3, supported_terms(texts, clusters.tolist())
    (lexicon,) = fit_lexicons(table, noise.astype(float), clusters, [50])
    unseen, _, _ = corpus(seed=1)
    scored = measure_fidelity(apply_lexicons([lexicon], unseen)[:, 0], rng.random(len(unseen)) < 0.3, (0.5, np.inf))
    assert not scored.tells_apart
    with pytest.raises(MethodError, match="has only one"):
        fit_lexicons(table, np.ones(len(texts)), clusters, [50])
    empty = supported_terms(["one", "two"], ["a", "b"])
    assert fit_lexicons(empty, np.array([1.0, 0.0]), np.array(["a", "b"]), [50]) == []


def test_lexicons_of_different_terms_are_applied_side_by_side() -> None:
    first = Lexicon(("bread", "<asks a question>"), (2.0, -3.0), -1.0, 0.0)
    second = Lexicon(("rain",), (1.0,), 0.0, 0.5)
    answers = apply_lexicons([first, second], ["We bought bread", "Bread?", "rain and bread", ""])
    np.testing.assert_array_equal(answers, [[1, 0], [0, 0], [1, 1], [0, 0]])
    assert answers.dtype == np.int8


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_the_threshold_reaches_the_best_correlation_of_any_cut(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([float(s) for s, _ in pairs]), np.array([t for _, t in pairs])
    if truth.all() or not truth.any() or len(np.unique(scores)) < 2:
        return

    def phi(cut: float) -> float:
        return float(np.corrcoef(scores > cut, truth)[0, 1])

    values = np.unique(scores)
    best = max(phi(cut) for cut in (values[1:] + values[:-1]) / 2)
    assert phi(best_threshold(scores, truth)) == pytest.approx(best)


def test_presence_counts_a_term_once() -> None:
    matrix = presence(["bread bread bread", "none here"], ["bread", "rain"]).toarray()
    np.testing.assert_array_equal(matrix, [[1, 0], [0, 0]])
