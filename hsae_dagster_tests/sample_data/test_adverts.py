import html
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
from hsae_dagster.sample_data import planted as adverts
from hsae_dagster.sample_data.planted import (
    ADVERT_EFFECTS,
    OCCUPATIONS,
    PROPERTIES,
    Generated,
    generate_adverts,
    variants,
    write_generated,
)
from hsae_dagster.sample_data.registry import SAMPLES

PLANTED = {"flexible_hours": 9.0, "tough_tone": -9.0, "nights_and_lifting": -6.0, "paid_training": 6.0}
# Words that hold sentences together; any other word counts as one by which a property could be told.
FUNCTION_WORDS = frozenset(
    word
    for line in (
        "a all an and any are as at be because but by can cannot do does each else ever every for from get give has",
        "have her here him his if in into is it its just may must need needs never no not nothing of off on one only",
        "open or other others our out over own per put s so than that the their them there they this those to up us",
        "until very was we what when while who whoever will with without you your yours",
    )
    for word in line.split()
)


@pytest.fixture(scope="module")
def made() -> Generated:
    return generate_adverts()


def presence(data: Generated) -> np.ndarray:
    return data.truth.select(f"has_{name}" for name in PLANTED).to_numpy().astype(float)


def content(sentence: str) -> set[str]:
    return set(re.findall(r"[a-z]+", sentence.lower())) - FUNCTION_WORDS


def plainly(text: str) -> str:
    """Without what the mess added: entities, tags, layout, full stops, case."""
    text = re.sub(r"<[^>]+>", " ", html.unescape(text))
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def test_shape(made: Generated) -> None:
    assert made.rows.columns == ["advert", "text", "occupation", "city", "employer", "women_share"]
    named = [f"{kind}_{name}" for kind in ("has", "says") for name in PLANTED]
    assert made.truth.columns == ["advert", "text", "employer", *named]
    assert made.rows.select("advert", "text").equals(made.truth.select("advert", "text"))
    assert made.rows["text"].n_unique() == made.rows["advert"].n_unique() == made.rows.height == 1500
    assert ADVERT_EFFECTS == PLANTED
    assert sum(PLANTED.values()) == 0
    assert made.rows["women_share"].drop_nulls().is_between(0, 100).all()


def test_texts_are_long_and_of_several_sentences(made: Generated) -> None:
    words = made.rows["text"].str.count_matches(r"\S*[\p{L}\p{N}]\S*")
    assert (words.min() >= 60, words.max() <= 100) == (True, True)
    assert words.quantile(0.9) - words.quantile(0.1) >= 20
    # Stops that end sentences; points of a list have none. “Ltd.” may end a sentence, and is not counted.
    bare = made.rows["text"].str.replace_all(r"\b((?i:approx|e\.g|Dr|Mr|Mrs|Ms|Ltd|St)|[A-Z])\.", "")
    listed = bare.str.contains(r"(?m)^[-•*] ")
    lines = bare.filter(listed).str.strip_chars().str.count_matches("\n") + 1
    assert lines.is_between(5 + 1 - 2, 9 + 1).all()  # one line is the heading; a question stands beside its answer
    assert bare.filter(~listed).str.count_matches(r"[.!?](\s|<|$)").is_between(4, 9).all()


def test_employers_are_clusters_of_unequal_size(made: Generated) -> None:
    sizes = made.truth["employer"].value_counts()["count"]
    assert sizes.len() == 130 >= 120
    assert sizes.min() >= 3
    assert sizes.max() > 5 * sizes.median()


def test_a_few_labels_are_missing(made: Generated) -> None:
    assert 0.005 < made.rows["women_share"].null_count() / made.rows.height < 0.03


def test_properties_are_independent_of_each_other_of_occupation_and_of_employer(made: Generated) -> None:
    x = presence(made)
    assert np.all((x.mean(axis=0) > 0.15) & (x.mean(axis=0) < 0.35))
    wanted = np.array([adverts.ADVERT_PREVALENCE[name] for name in PLANTED])
    assert np.abs((x.mean(axis=0) - wanted) / np.sqrt(wanted * (1 - wanted) / 1500)).max() < 4
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 4 / np.sqrt(1500)
    for column, n in ((made.rows["occupation"], len(OCCUPATIONS)), (made.truth["employer"], 130)):
        dummies = column.to_dummies().to_numpy().astype(float)
        for j in range(4):
            # Under independence n · R² of a table of n - 1 degrees of freedom is about chi-squared.
            chi2 = 1500 * (1 - sm.OLS(x[:, j], dummies).fit().ssr / (1500 * x[:, j].var()))
            assert chi2 < (n - 1) + 4 * np.sqrt(2 * (n - 1))


def test_length_does_not_depend_on_the_number_of_properties(made: Generated) -> None:
    words = made.rows["text"].str.count_matches(r"\S+").to_numpy()
    assert abs(np.corrcoef(words, presence(made).sum(axis=1))[0, 1]) < 0.15


def fitted(data: Generated):
    noted = data.rows["women_share"].is_not_null().to_numpy()
    dummies = data.rows["occupation"].to_dummies().to_numpy().astype(float)
    groups = np.unique(data.truth["employer"].to_numpy(), return_inverse=True)[1]
    y = data.rows["women_share"].to_numpy()[noted]
    x = np.column_stack([presence(data), dummies])[noted]
    return sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": groups[noted]}), y, dummies[noted]


def test_effects_are_recovered_with_the_occupation_held_constant(made: Generated) -> None:
    fit, y, dummies = fitted(made)
    assert np.abs((fit.params[:4] - list(PLANTED.values())) / fit.bse[:4]).max() < 3.5
    assert np.abs(fit.tvalues[:4]).min() > 6
    residual_sd = np.sqrt(fit.ssr / y.size)
    assert residual_sd == pytest.approx(10, abs=0.5)
    assert min(abs(effect) for effect in PLANTED.values()) >= 0.5 * residual_sd
    explained = 1 - sm.OLS(y, dummies).fit().ssr / (y.size * y.var())
    assert explained > 0.5


def test_null_has_no_effects_and_the_same_texts(made: Generated) -> None:
    data = generate_adverts(null=True)
    assert data.truth.equals(made.truth)
    assert np.abs(fitted(data)[0].tvalues[:4]).max() < 3.5


def test_an_advert_says_its_properties_and_no_other(made: Generated) -> None:
    sentences = {name: [plainly(one) for pattern in PROPERTIES[name] for one in variants(pattern)] for name in PLANTED}
    for row in made.truth.iter_rows(named=True):
        text = plainly(row["text"])
        for name in PLANTED:
            said = [sentence for sentence in sentences[name] if sentence in text]
            assert len(said) == row[f"has_{name}"], row["advert"]
            assert (row[f"says_{name}"] is not None) == bool(said)
            assert not said or said == [plainly(row[f"says_{name}"])]


def test_every_wording_is_used(made: Generated) -> None:
    for name in PLANTED:
        said = made.truth[f"says_{name}"].drop_nulls()
        counts = [said.is_in(variants(pattern)).sum() for pattern in PROPERTIES[name]]
        assert sum(counts) == said.len()
        assert len(counts) >= 8
        assert min(counts) > 0.05 * said.len()


def test_a_pattern_stands_for_all_that_can_be_chosen() -> None:
    assert variants("[One|Two] of [3|4].") == ("One of 3.", "One of 4.", "Two of 3.", "Two of 4.")
    assert variants("None.") == ("None.",)


def test_no_word_stands_for_a_property() -> None:
    for name, sentences in PROPERTIES.items():
        counts = Counter(word for pattern in sentences for word in content(variants(pattern)[0]))
        word, most = counts.most_common(1)[0]
        assert most <= len(sentences) / 3, (name, word)
    for (a, of_a), (b, of_b) in combinations(PROPERTIES.items(), 2):
        assert not set(of_a) & set(of_b), (a, b)


def test_there_is_much_to_say() -> None:
    assert len(OCCUPATIONS) >= 12
    assert all(len(one["duties"]) >= 6 for one in OCCUPATIONS.values())
    made_of = adverts._ADVERTS
    assert len(made_of["boilerplate"]) >= 30
    assert len(made_of["families"]) * len(made_of["forms"]) >= 130
    every = [sentence for part in ("boilerplate", "openings", "closings") for sentence in made_of[part]]
    every += [duty for one in OCCUPATIONS.values() for duty in one["duties"]]
    every += [sentence for sentences in PROPERTIES.values() for sentence in sentences]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("trace", "least", "most"),
    [
        ("&amp;|&#39;|&nbsp;", 0.01, 0.1),
        (r"<p>|<br>", 0.01, 0.1),
        (r"[.] {2}", 0.03, 0.15),
        (r"(?m)^[-•*] ", 0.08, 0.2),
        (r"(\b[A-Z]{2,}\b[ ,]*){4}", 0.02, 0.15),
        (r"\b(approx|e\.g|Dr|Ms|Ltd)\.", 0.2, 0.7),
    ],
)
def test_texts_are_messy_where_real_files_are(made: Generated, trace: str, least: float, most: float) -> None:
    share = made.rows["text"].str.contains(trace).mean()
    assert least < share < most


def test_employers_are_spelled_in_several_ways_that_fold_to_one(made: Generated) -> None:
    spelled, truly = made.rows["employer"], made.truth["employer"]
    assert spelled.n_unique() > truly.n_unique()
    assert 0.03 < (spelled != truly).mean() < 0.15
    folded = spelled.str.strip_chars().str.to_lowercase()
    assert folded.equals(truly.str.to_lowercase())
    assert folded.n_unique() == truly.n_unique()


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = (generate_adverts(200, seed=seed) for seed in (3, 3, 4))
    assert first.rows.equals(again.rows)
    assert first.truth.equals(again.truth)
    assert set(first.rows["text"]).isdisjoint(other.rows["text"])


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(MethodError, match="at least 100"):
        generate_adverts(99)


def test_writing(tmp_path: Path) -> None:
    rows, truth = write_generated(tmp_path, "job_adverts", generate_adverts(120, seed=2))
    data = generate_adverts(120, seed=2)
    assert (rows.name, truth.name) == ("job_adverts.parquet", "truth.parquet")
    assert pl.read_parquet(rows).equals(data.rows)
    assert pl.read_parquet(truth).equals(data.truth)
    before = rows.read_bytes(), truth.read_bytes()
    write_generated(tmp_path, "job_adverts", generate_adverts(120, seed=2))
    assert (rows.read_bytes(), truth.read_bytes()) == before


def test_other_texts_mean_another_recipe() -> None:
    # When this fails on purpose, raise the recipe in the registry, or old tables stay where they were written.
    rows = generate_adverts(100).rows
    made = hash_json([rows[name].to_list() for name in ("text", "occupation", "city", "employer", "women_share")])
    assert (made, SAMPLES["job_adverts"].recipe) == ("7f877e151f98d663dc88e6d79b79af1c", 1)
