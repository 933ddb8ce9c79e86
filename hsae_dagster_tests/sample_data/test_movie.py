from pathlib import Path

import pytest

from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data import registry as movie
from hsae_dagster_tests.sample_data.archives import films_archive, ratings_archive, tar_gz

RATED = [
    (2.5, "A  well made film about a ''café''."),
    (1.0, "Rated twice."),
    (2.0, "Rated twice!"),
    (-1.5, "Under two films, so nobody knows."),
    (-2.0, "Nobody wrote this in a review."),
    (0.5, "This is only the plot."),
    (-2.2, "Long, dull."),
    (-0.4, "Shared by both titles."),
    (-0.6, "Of the second title alone."),
]
REVIEWS = [
    ("fresh", 'A well-made film about a "cafe\u0301".', "cafe"),
    ("fresh", "Rated twice.", "other"),
    ("fresh", "Under two films, so nobody knows.", "cafe"),
    ("fresh", "Under two films, so nobody knows.", "other"),
    ("fresh", "Another text of the other film.", "other"),
    ("plot", "This is only the plot.", "cafe"),
    ("rotten", "Long \u2014 dull.", "cafe"),
    ("rotten", "Shared by both titles.", "el_titulo"),
    ("rotten", "Shared by both titles.", "the_title"),
    ("rotten", "Of the second title alone.", "the_title"),
]


def test_ratings_meet_films_on_letters_and_digits(tmp_path: Path) -> None:
    frame = movie.movie_reviews(ratings_archive(tmp_path, RATED), films_archive(tmp_path, REVIEWS))
    assert frame.columns == ["text", "rating", "film"]
    assert {text: (rating, film) for text, rating, film in frame.rows()} == {
        "A well made film about a ''café''.": (2.5, "cafe"),
        "Rated twice.": (1.5, "other"),
        "Long, dull.": (-2.2, "cafe"),
        "Shared by both titles.": (-0.4, "el_titulo"),
        "Of the second title alone.": (-0.6, "el_titulo"),
    }


def many(n: int) -> tuple[list[tuple[float, str]], list[tuple[str, str, str]]]:
    """Two films; the first has n fresh and n / 2 rotten snippets, the second n fresh ones only."""
    reviews = [("fresh", f"good {i}", "one") for i in range(n)] + [("rotten", f"bad {i}", "one") for i in range(n // 2)]
    reviews += [("fresh", f"fine {i}", "two") for i in range(n)]
    return [(float(i % 3), text) for i, (_, text, _) in enumerate(reviews)], reviews


def test_the_order_of_the_source_does_not_matter_and_is_not_kept(tmp_path: Path) -> None:
    rated, reviews = many(60)
    films = films_archive(tmp_path, reviews)
    first = movie.movie_reviews(ratings_archive(tmp_path, rated), films)
    assert first.equals(movie.movie_reviews(ratings_archive(tmp_path, rated[::-1]), films))
    assert first["text"].to_list() not in ([t for _, t in rated], [t for _, t in rated[::-1]])
    assert set(first["text"]) == {text for _, text in rated}


def test_pairs_hold_one_fresh_and_one_rotten_snippet_of_a_film_each_used_once(tmp_path: Path) -> None:
    rated, reviews = many(120)
    films = films_archive(tmp_path, reviews)
    pairs = movie.movie_pairs(ratings_archive(tmp_path, rated), films)
    assert pairs.columns == ["text_a", "text_b", "a_is_fresh", "film"]
    assert pairs.height == 60  # as many as the film has of the rarer kind
    assert set(pairs["film"]) == {"one"}
    category = {text: kind for kind, text, _ in reviews}
    for a, b, a_is_fresh, _ in pairs.rows():
        assert (category[a], category[b]) == (("fresh", "rotten") if a_is_fresh else ("rotten", "fresh"))
    assert len({*pairs["text_a"], *pairs["text_b"]}) == 120
    assert 0.3 < pairs["a_is_fresh"].mean() < 0.7
    assert pairs.equals(movie.movie_pairs(ratings_archive(tmp_path, rated[::-1]), films))


def test_pairs_use_the_texts_of_the_reviews_letter_for_letter(tmp_path: Path) -> None:
    archives = ratings_archive(tmp_path, RATED), films_archive(tmp_path, REVIEWS)
    pairs = movie.movie_pairs(*archives)
    assert pairs.height == 1
    assert {*pairs["text_a"], *pairs["text_b"]} <= set(movie.movie_reviews(*archives)["text"])


def test_a_line_in_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ratings.tar.gz"
    path.write_bytes(tar_gz({movie.RATINGS_OUTER: tar_gz({movie.RATINGS_INNER: b"1\t2.0\tfine\n2\thigh\tbad\n"})}))
    with pytest.raises(DatasetError, match="Line 2"):
        movie.movie_reviews(path, films_archive(tmp_path, REVIEWS))
