"""Which texts are the same text, or nearly: retweets, forms, templates.

Belongs here: folding what copies differ in, and finding texts that share most of their words in order. Does not
belong here: what follows for splits (`core.dependence`).

Copies of one post differ in a handle, a link, a number or a full stop; texts of one form in a name. A row that has a
copy on the other side of a split is no unseen row, and copies of one text in the holdout are no independent rows: with
half of the texts in families of twenty, true nulls were confirmed in 67 of 100 reports.

Two texts are nearly equal when their sets of word pairs overlap (Jaccard) by at least a threshold. Candidates come from
MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman 2014, chapter 3; signatures by `rensa`), each
compared exactly with the first of its bucket, so that cost grows with the number of texts, not of pairs.
"""

from itertools import pairwise

import numpy as np
import polars as pl

# Shorter texts are compared as wholes: one word of ten is what they say, one of thirty a name in a form.
_FEWEST_WORDS = 20
# Numbers, links and handles stay where they are most of a text.
_FEWEST_LEFT = 5
_BANDS, _BAND_ROWS = 16, 4
_SEED = 1
_BATCH = 20_000
_LINK = r"(?:https?://|www\.)\S+|\S+@\S+\.\S+"
_HANDLE = r"(?:\brt\s+)?@\w+"
_NUMBER = r"\b\d+(?:[.,:]\d+)*\b"
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"


def folded(texts: pl.Series, *, copies: bool = True) -> pl.Series:
    """Each text without what copies differ in: case, punctuation, links, handles and numbers.

    Links, handles and numbers stay where fewer than five words would be left, and punctuation where nothing would. Two
    headlines of an experiment that differ in a number are one text here: they are two observations all the same
    (`keys.text_id`), but on one side of every split, as one could be guessed from the other.

    Args:
        texts: (n,) str.
        copies: False to leave links, handles and numbers in, where they are what texts say.

    Returns:
        (n,) str; equal for texts that are one text. Scripts without spaces get one between all characters.
    """
    plain = texts.str.normalize("NFKC").str.to_lowercase()
    light = _without(_without(plain, r"\p{P}+"), r"\s+")
    light = pl.select(pl.when(light == "").then(plain.str.strip_chars()).otherwise(light)).to_series()
    if not copies:
        return light.alias("folded")
    bare = _without(_without(_without(plain, _LINK), _HANDLE), _NUMBER)
    bare = _without(_without(bare, r"\p{P}+"), r"\s+")
    bare = bare.str.replace_all(_UNSPACED, " $1 ").str.replace_all(r"\s+", " ").str.strip_chars()
    enough = bare.str.count_matches(" ") >= _FEWEST_LEFT - 1
    return pl.select(pl.when(enough).then(bare).otherwise(light)).to_series().alias("folded")


def near_equal(texts: pl.Series, threshold: float) -> np.ndarray:
    """Pairs of nearly equal texts, enough of them to connect each family.

    Args:
        texts: (n,) distinct folded texts, in an order that does not depend on the order of the rows.
        threshold: least overlap (Jaccard) of their sets of word pairs.

    Returns:
        (e, 2) int64 positions.
    """
    long = np.flatnonzero((texts.str.count_matches(" ") >= _FEWEST_WORDS - 1).to_numpy())
    if len(long) < 2:
        return np.empty((0, 2), dtype=np.int64)
    wanted = texts.gather(long).to_list()
    buckets = _buckets(_signatures(wanted))
    kept: list[tuple[int, int]] = []
    shingles: dict[int, set[str]] = {}
    for first, other in sorted(buckets):
        for position in (first, other):
            if position not in shingles:
                shingles[position] = set(_word_pairs(wanted[position]))
        a, b = shingles[first], shingles[other]
        if len(a & b) >= threshold * len(a | b):
            kept.append((first, other))
    return long[np.array(kept, dtype=np.int64).reshape(-1, 2)]


def _without(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.str.replace_all(pattern, " ").str.strip_chars()


def _word_pairs(text: str) -> list[str]:
    return [f"{a} {b}" for a, b in pairwise(text.split(" "))]


def _signatures(texts: list[str]) -> np.ndarray:
    """(n, bands × rows) uint32 MinHash signatures of the sets of word pairs."""
    from rensa import RMinHash

    made = np.empty((len(texts), _BANDS * _BAND_ROWS), dtype=np.uint32)
    for start in range(0, len(texts), _BATCH):
        sets = [_word_pairs(text) for text in texts[start : start + _BATCH]]
        digests = RMinHash.digests_from_token_sets(sets, _BANDS * _BAND_ROWS, _SEED)
        made[start : start + len(sets)] = np.asarray(digests, dtype=np.uint32)
    return made


def _buckets(signatures: np.ndarray) -> set[tuple[int, int]]:
    """Candidates: each member of a band's bucket with the bucket's first."""
    found: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        part = signatures[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS]
        frame = pl.DataFrame(part, schema=[f"h{i}" for i in range(_BAND_ROWS)]).with_row_index("at")
        first = frame.with_columns(pl.col("at").min().over([f"h{i}" for i in range(_BAND_ROWS)]).alias("first"))
        met = first.filter(pl.col("first") != pl.col("at")).select("first", "at")
        found.update(met.iter_rows())
    return found
