"""Rows to a corpus: keys, repeats, and the components of everything that makes rows dependent.

Equal and nearly equal texts are found here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import (
    SPLITS,
    Cuts,
    SplitShares,
    cut,
    cut_in_time,
    folded,
    folded_keys,
    most_protected,
    places,
    places_in_time,
)
from hsae_dagster.errors import MethodError
from hsae_dagster.keys import hash_json, normalise_text, text_id, unit_interval

# Shorter texts are compared as wholes: one word of ten is what they say, one of thirty a name in a form.
_FEWEST_WORDS = 20
_BANDS, _BAND_ROWS = 16, 4
_SEED = 1
_BATCH = 20_000


def near_equal(texts: pl.Series, threshold: float) -> np.ndarray:
    """Pairs (e, 2) int64 of nearly equal texts by position, enough of them to connect each family.

    Texts (n,) are distinct and folded, in an order that does not depend on that of the rows; their sets of word pairs
    overlap (Jaccard) by the threshold at least.
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


NEAR = "nearly equal texts"
TEXTS = "equal texts"


@dataclass(frozen=True)
class Dependence:
    """The graph of n rows.

    Attributes:
        hubs: by source (a cluster column, `equal texts`), the (n, 2) int64 of row and hub; a row of a pair has two
            rows there. Hubs of one source are numbered from 0.
        names: by source, what each hub is called.
        near: (e, 2) hubs of `equal texts` that are nearly equal.
        component: (n,) int64, numbered from 0 in the order of first rows.
    """

    hubs: Mapping[str, np.ndarray]
    names: Mapping[str, pl.Series]
    near: np.ndarray
    component: np.ndarray

    @classmethod
    def of(
        cls, keys: Mapping[str, pl.Series], sides: list[pl.Series], *, near: float, join_texts: bool
    ) -> "Dependence":
        """Join rows.

        Args:
            keys: by cluster column, the (n,) folded key of each row.
            sides: the texts (n,) of each row, one series, or two for pairs.
            near: least overlap of nearly equal texts; above 1 none are sought, and numbers, links and handles count.
            join_texts: whether rows of one text belong together; else texts are hubs of their own that join nothing.
        """
        n = len(sides[0])
        hubs, names = {}, {}
        for name, key in keys.items():
            hubs[name], names[name] = _hubs([key])
        hubs[TEXTS], names[TEXTS] = _hubs([folded(side, copies=near <= 1) for side in sides])
        pairs = near_equal(names[TEXTS], near) if near <= 1 else np.empty((0, 2), dtype=np.int64)
        made = cls(hubs, names, pairs, np.zeros(n, dtype=np.int64))
        skipped = frozenset() if join_texts else frozenset({TEXTS, NEAR})
        return cls(hubs, names, pairs, made.joined(skipped))

    def joined(self, without: frozenset[str] = frozenset()) -> np.ndarray:
        """(n,) component of each row where some sources join nothing."""
        n, offset, rows, columns = len(self.component), len(self.component), [], []
        for source, edges in self.hubs.items():
            if source not in without:
                rows.append(edges[:, 0])
                columns.append(edges[:, 1] + offset)
                if source == TEXTS and NEAR not in without:
                    rows.append(self.near[:, 0] + offset)
                    columns.append(self.near[:, 1] + offset)
            offset += len(self.names[source])
        ends = [np.concatenate(part) if part else np.empty(0, dtype=np.int64) for part in (rows, columns)]
        graph = sp.coo_matrix((np.ones(len(ends[0]), dtype=bool), tuple(ends)), shape=(offset, offset))
        return _renumbered(sp.csgraph.connected_components(graph, directed=False)[1][:n])

    def text_families(self) -> np.ndarray:
        """(texts,) family of each hub of `equal texts`: nearly equal ones share one."""
        n = len(self.names[TEXTS])
        graph = sp.coo_matrix((np.ones(len(self.near), dtype=bool), tuple(self.near.T)), shape=(n, n))
        return np.asarray(sp.csgraph.connected_components(graph, directed=False)[1], dtype=np.int64)

    def blame(self) -> tuple[str, str, int]:
        """What makes the largest component large: the source, its hub with most rows there, and their number."""
        sizes = np.bincount(self.component)
        largest = np.flatnonzero(self.component == sizes.argmax())
        reached = {}
        sources = [*self.hubs, *([NEAR] if len(self.near) else [])]
        for source in sources:
            without = frozenset({source} | ({NEAR} if source == TEXTS else set()))
            reached[source] = int(np.bincount(self.joined(without)[largest]).max())
        # The last source wins a tie: texts are blamed before a column that was declared.
        source = min(reversed(sources), key=lambda name: reached[name])
        edges = self.hubs[TEXTS if source == NEAR else source]
        inside = edges[np.isin(edges[:, 0], largest), 1]
        hub = self.text_families()[inside] if source == NEAR else inside
        counts = np.bincount(hub)
        name = self.names[TEXTS][int(inside[hub == counts.argmax()][0])] if source == NEAR else None
        return source, name or self.names[source][int(counts.argmax())], int(counts.max())


def _hubs(columns: list[pl.Series]) -> tuple[np.ndarray, pl.Series]:
    """Edges (row, hub) and the hubs' names, ascending."""
    long = pl.concat([column.alias("name").to_frame().with_row_index("row") for column in columns])
    names = long["name"].unique().sort()
    edges = long.join(names.to_frame("name").with_row_index("hub"), on="name", how="left", maintain_order="left")
    return edges.select(pl.col("row").cast(pl.Int64), pl.col("hub").cast(pl.Int64)).to_numpy(), names


def _renumbered(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    return order[inverse]


_TEXT_COLUMNS = ("text_id", "text", "split", "cluster_id", "n_words")
# Fewer independent components on a side say nothing about others.
FEWEST_COMPONENTS = 5
_FEWEST_OBSERVATIONS = 10
# A component of more rows than this is named where splits fail, and is refused where it is no single cluster.
_LARGE, _SWALLOWED = 1 / 3, 1 / 2


@dataclass(frozen=True)
class Corpus:
    """A corpus.

    Attributes:
        texts: one row per distinct text: text_id, text, split, cluster_id, n_words i32 and, where there are two, its
            `half`; by text_id.
        observations: one row per labelled text or pair: obs_id, text_id (or text_id_a, text_id_b), label f64,
            cluster_id (of the component), split, `half`, `control:<name>`, `time` where there are such, and, where rows
            of one text lie in several components, `unit:<side>` columns that name the text's family; sorted by obs_id.
        moved: rows whose declared split gave way to a more protected one that something joins them to.
        joined: components that hold several keys of the first cluster column (or texts), by what joins rows: the
            number of rows that would lie in smaller components without it.
        round: 1 for the first holdout, 2 for the first fresh reserve, and so on.
        one_holdout: why rows that could decide it have one holdout and no halves; empty elsewhere.
    """

    texts: pl.DataFrame
    observations: pl.DataFrame
    dropped: dict[str, int]
    moved: int
    cuts: Cuts
    joined: Mapping[str, int]
    round: int
    one_holdout: str = ""


def row_keys(rows: pl.DataFrame) -> pl.Series:
    """(n,) key of each row, by which it is known again in files that grew: its folded texts and clusters.

    Rows that are alike in these are numbered, so that of 310 rows where there were 300 ten are new. Which side of a
    pair is first, a corrected label, case and punctuation make no new row.
    """
    sides = [folded(rows[side]).alias(side) for side in ("text", "text_a", "text_b") if side in rows.columns]
    clusters = [name for name in rows.columns if name == "cluster" or name.startswith("cluster:")]
    named = pl.DataFrame([*sides, *[folded_keys(rows[name]) for name in clusters]])
    texts = pl.concat_list(pl.col([side.name for side in sides])).list.sort().list.join("\x00")
    alike = named.select(texts.alias("texts"), *clusters)
    numbered = alike.with_columns(pl.int_range(pl.len()).over(alike.columns).alias("number"))
    return pl.Series("key", [hash_json(list(row)) for row in numbered.iter_rows()], dtype=pl.String)


def build_corpus(
    rows: pl.DataFrame,
    shares: SplitShares,
    dropped: dict[str, int] | None = None,
    *,
    near: float = 0.8,
    shared_texts: str = "join",
    cuts: Cuts | None = None,
) -> Corpus:
    """Key and split observations (columns as in `dataset.rows`).

    Args:
        rows: to place; where there were several rounds, with `round` i64, the one in which each row came.
        shares: of the splits.
        dropped: rows left out before, by reason.
        near: least overlap (Jaccard of word pairs) of nearly equal texts; above 1 none are sought, and texts that
            differ in a number, a link or a handle are different ones.
        shared_texts: `join` keeps rows of one text, and their clusters, together; `leave_out` gives each text a split
            of its own and leaves out its rows in clusters of another.
        cuts: of an earlier corpus of this dataset, which rows that were added must not move; None makes them.

    Raises:
        MethodError: one id has rows that differ, or a split is left with too little.
    """
    sides = ("text_a", "text_b") if "text_a" in rows.columns else ("text",)
    ids = tuple("text_id" + side[4:] for side in sides)
    left_out = dict(dropped or {})
    keys = [rows[side].map_elements(text_id, return_dtype=pl.String, skip_nulls=False) for side in sides]
    keyed = rows.with_columns(series.alias(key) for series, key in zip(keys, ids, strict=True))
    if len(ids) == 2:
        same = pl.col("text_id_a") == pl.col("text_id_b")
        left_out["pair of equal texts"] = keyed.filter(same).height
        keyed = keyed.filter(~same)
    clusters = [name for name in rows.columns if name == "cluster" or name.startswith("cluster:")]
    clusters = [name for name in clusters if keyed[name].null_count() < keyed.height]
    keyed = keyed.with_columns(*[folded_keys(keyed[name]).alias(name) for name in clusters])
    content = [*ids, "label", *clusters, *[c for c in rows.columns if c.startswith("control:")]]
    content += ["time"] if "time" in rows.columns else []
    keyed, left_out["repeated row"] = _without_repeats(keyed, content)
    if keyed.is_empty():
        raise MethodError("No observation is left: every pair holds one text twice. Look at the columns of the texts.")
    graph = Dependence.of(
        {name: _filled(keyed, name, ids) for name in clusters},
        [keyed[side] for side in sides],
        near=near,
        join_texts=shared_texts == "join",
    )
    atoms = _atoms(keyed, clusters, graph)
    placing = shares.placing
    if cuts is None and placing.forward:
        cuts = cut_in_time(keyed["time"].to_numpy(), graph.component, placing, FEWEST_COMPONENTS)
    cuts = replace(cuts or cut(atoms, graph.component, placing, FEWEST_COMPONENTS), two_halves=shares.two_halves)
    placed = _place(keyed, graph, atoms, cuts, placing)
    moved = placed.filter(pl.col("wanted") != pl.col("split")).height
    if shared_texts != "join":
        placed, left_out["text of another split"] = _texts_apart(placed, graph, sides, placing, cuts)
    _check_size(placed, graph, placing)
    _check_classes(placed, placing)
    _check_times(placed)
    if shares.two_halves:
        placed = _halved(placed, shares)
    observations = _observations(placed, content, ids)
    return Corpus(
        texts=_texts(placed, sides, ids),
        observations=observations,
        dropped={reason: n for reason, n in left_out.items() if n},
        moved=moved,
        cuts=cuts,
        joined=_what_joins(graph, clusters),
        round=_round(rows),
    )


def _round(rows: pl.DataFrame) -> int:
    return int(rows["round"].max()) if "round" in rows.columns else 1  # type: ignore[arg-type]


def _in_rounds(splits: np.ndarray, frame: pl.DataFrame, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Splits (groups,) by hash; in a later round what came with it alone is the holdout, and nothing older is.

    `rows` (e,) are positions in the frame, whose `round` counts where there were several, and `group` (e,) is whose.
    """
    now = _round(frame)
    if now == 1:
        return splits
    first = np.full(len(splits), now)
    np.minimum.at(first, group, frame["round"].to_numpy()[rows])
    return np.where(first == now, "holdout", np.where(splits == "holdout", "train", splits))


def _filled(frame: pl.DataFrame, column: str, ids: tuple[str, ...]) -> pl.Series:
    """Keys of a cluster column; a row without one is a cluster of its own text."""
    alone = pl.concat_str([pl.lit("\x00"), *ids])
    return frame.select(pl.coalesce(column, alone).alias(column)).to_series()


def _without_repeats(frame: pl.DataFrame, content: list[str]) -> tuple[pl.DataFrame, int]:
    """Rows without those whose id came before with the same content.

    Raises:
        MethodError: one id has rows that differ.
    """
    if "id" not in frame.columns:
        return frame, 0
    distinct = frame.unique(["id", *content], keep="first", maintain_order=True)
    twice = distinct.filter(pl.col("id").is_duplicated() & pl.col("id").is_not_null())
    if twice.height:
        first = twice["id"][0]
        rows = twice.filter(pl.col("id") == first)
        where = " and ".join(f"{file} row {row}" for file, row in rows.select("file", "row").head(2).iter_rows())
        raise MethodError(
            f"The id {first!r} belongs to rows that differ ({where}). Name the column that numbers rows in columns.id, "
            "correct the file, or leave columns.id out, which keeps every row."
        )
    return distinct, frame.height - distinct.height


def _atoms(frame: pl.DataFrame, clusters: list[str], graph: Dependence) -> pl.Series:
    """(n,) the key that places each row: of the cluster column with the fewest keys, else its folded text.

    The coarsest column has the fewest keys per component, and one key per component is what hashing places evenly.
    """
    edges = pl.DataFrame({"row": graph.hubs[TEXTS][:, 0], "name": graph.names[TEXTS].gather(graph.hubs[TEXTS][:, 1])})
    # Of a pair both, in alphabetical order, so that turning it changes nothing.
    texts = edges.sort("row", "name").group_by("row", maintain_order=True).agg(pl.col("name").str.join("\x00"))["name"]
    if not clusters:
        return texts
    coarsest = min(clusters, key=lambda name: frame[name].n_unique())
    return frame.select(pl.coalesce(coarsest, texts).alias("atom")).to_series()


def _place(frame: pl.DataFrame, graph: Dependence, atoms: pl.Series, cuts: Cuts, shares: SplitShares) -> pl.DataFrame:
    """Add `component`, `cluster_id`, `wanted` (what the file or the hash says of the row) and `split` (of all)."""
    component = graph.component
    if shares.forward:
        at = places_in_time(frame["time"].to_numpy(), component)
    else:
        at = places(atoms, component, shares.salt, cuts.attempt)
    by_hash = _in_rounds(np.array(SPLITS)[cuts.split(at)], frame, np.arange(frame.height), component)
    hashed = pl.Series("hashed", by_hash[component])
    names = pl.DataFrame({"component": component, "atom": atoms})
    halves = names.group_by("component").agg(pl.col("atom").min()).sort("component")["atom"]
    half = halves.map_elements(lambda key: unit_interval(key, shares.salt + ":half") < 0.5, return_dtype=pl.Boolean)
    declared = (
        pl.when(pl.col("declared_split") == "validation")
        .then(  # a declared validation file serves both choosing and reporting, by component
            pl.when(pl.col("chooses") | pl.lit(shares.fidelity == 0))
            .then(pl.lit("validation"))
            .otherwise(pl.lit("fidelity"))
        )
        .otherwise(pl.col("declared_split"))
    )
    frame = frame.with_columns(
        pl.Series("component", component),
        hashed,
        half.gather(component).alias("chooses"),
        halves.gather(component).alias("cluster_id"),
    ).with_columns(pl.coalesce(declared, "hashed").alias("wanted"))
    rank = most_protected([pl.col("wanted")]).max().over("component")
    return frame.with_columns(rank.replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String).alias("split"))


def _halved(placed: pl.DataFrame, shares: SplitShares) -> pl.DataFrame:
    """Name the halves, and split each, by component, into what is learned from and what chooses."""
    ends = [shares.fidelity, shares.fidelity + shares.validation]
    named = placed.select("cluster_id").unique(maintain_order=True)
    salt = f"{shares.salt}:part"
    at = named["cluster_id"].map_elements(lambda key: unit_interval(key, salt), return_dtype=pl.Float64)
    part = np.array(["fidelity", "validation", "train"])[np.searchsorted(ends, at.to_numpy(), side="right")]
    half = pl.when(pl.col("split") == "holdout").then(pl.lit("a")).otherwise(pl.lit("b")).alias("half")
    parts = named.with_columns(pl.Series("split", part, dtype=pl.String))
    return placed.with_columns(half).drop("split").join(parts, on="cluster_id", how="left", maintain_order="left")


def _texts_apart(
    placed: pl.DataFrame, graph: Dependence, sides: tuple[str, ...], shares: SplitShares, cuts: Cuts
) -> tuple[pl.DataFrame, int]:
    """Give each family of texts in several components a split of its own, and leave out its rows in another.

    Its own hash places such a family, not its most protected row: a phrase of a hundred authors would always be held
    out, and so would be what is left of the training texts.
    """
    families = graph.text_families()
    edges, n, split = graph.hubs[TEXTS], placed.height, placed["split"].to_numpy()
    of_edge = families[edges[:, 1]]
    if shares.forward:
        at = places_in_time(placed["time"].to_numpy()[edges[:, 0]], of_edge)
    else:
        at = places(graph.names[TEXTS], families, shares.salt, cuts.attempt)
    own = _in_rounds(np.array(SPLITS)[cuts.split(at)], placed, edges[:, 0], of_edge)
    components = pl.DataFrame({"family": of_edge, "component": graph.component[edges[:, 0]]}).unique()
    shared = np.bincount(components["family"].to_numpy(), minlength=len(own)) > 1
    units, keeps = [], np.ones(n, dtype=bool)
    for k, side in enumerate(sides):
        family = of_edge[k * n : (k + 1) * n]
        keeps &= (own[family] == split) | ~shared[family]
        units.append(pl.Series(f"unit:{side}", family.astype(str)))
    return placed.with_columns(units).filter(pl.Series(keeps)), int((~keeps).sum())


def _what_joins(graph: Dependence, clusters: list[str]) -> dict[str, int]:
    """By source, rows that lie in a larger component than they would without it."""
    full = np.bincount(graph.component)[graph.component]
    told = {}
    for source in [*clusters[1:], TEXTS, NEAR]:
        if source == NEAR and not len(graph.near):
            continue
        apart = graph.joined(frozenset({source} | ({NEAR} if source == TEXTS else set())))
        told[source] = int((np.bincount(apart)[apart] < full).sum())
    return {source: n for source, n in told.items() if n}


def _observations(placed: pl.DataFrame, content: list[str], ids: tuple[str, ...]) -> pl.DataFrame:
    """Rows that are alike in everything are told apart by their number, so that no key depends on their order."""
    like = placed.select(content).with_columns(pl.int_range(pl.len()).over(content).alias("number"))
    keys = [hash_json([str(cell) for cell in row]) for row in like.iter_rows()]
    controls = [c for c in placed.columns if c.startswith(("control:", "unit:")) or c == "time"]
    frame = placed.with_columns(pl.Series("obs_id", keys, dtype=pl.String))
    return frame.select("obs_id", *ids, "label", "cluster_id", *controls, "split", *_half(placed)).sort("obs_id")


def _half(placed: pl.DataFrame) -> list[str]:
    """The column of the halves, where there are any."""
    return [name for name in placed.columns if name == "half"]


def _texts(kept: pl.DataFrame, sides: tuple[str, ...], ids: tuple[str, ...]) -> pl.DataFrame:
    shared = ("split", "cluster_id", *_half(kept))
    long = pl.concat(kept.select(*shared, text_id=key, text=side) for side, key in zip(sides, ids, strict=True))
    # Which of several equal-keyed spellings is shown must not depend on the order of the rows.
    one = long.sort("text_id", "text", "cluster_id").unique("text_id", keep="first", maintain_order=True)
    words = [len(normalise_text(text).split(" ")) for text in one["text"]]
    counted = one.with_columns(pl.col("text").str.strip_chars(), pl.Series("n_words", words, dtype=pl.Int32))
    return counted.select(*_TEXT_COLUMNS, *_half(kept))


def _check_size(placed: pl.DataFrame, graph: Dependence, shares: SplitShares) -> None:
    """Refuse splits that leave too little to learn from or to test on."""
    sizes = np.bincount(graph.component)
    if sizes.max() > _SWALLOWED * sizes.sum() and not _one_key(graph):
        raise MethodError(_remedy(graph))
    counts = dict(placed.group_by("split").len().iter_rows())
    components = dict(placed.group_by("split").agg(pl.col("component").n_unique()).iter_rows())
    total = placed["component"].n_unique()
    wanted = {"train": 1.0, "holdout": 1.0, "validation": shares.validation, "fidelity": shares.fidelity}
    for split, share in wanted.items():
        rows, held = counts.get(split, 0), components.get(split, 0)
        fewest = (_FEWEST_OBSERVATIONS, FEWEST_COMPONENTS) if split in ("train", "holdout") else (1, 1)
        if share == 0 or (rows >= fewest[0] and held >= fewest[1]):
            continue
        raise MethodError(
            f"Only {rows:,} observations of {held} independent clusters landed in {_called(split, shares)} (at least "
            f"{fewest[0]} of {fewest[1]} are needed; there are {placed.height:,} observations of "
            f"{total:,} clusters in all). {_remedy(graph)}"
        )


def _called(split: str, shares: SplitShares) -> str:
    """What a message calls a split while components are placed."""
    return ("half A" if split == "holdout" else "half B") if shares.two_halves else f"the {split} split"


def _check_classes(placed: pl.DataFrame, shares: SplitShares) -> None:
    """Refuse a class that so few clusters have that nothing tells it from what is peculiar to them."""
    if not placed["label"].is_in([0.0, 1.0]).all():
        return
    held = placed.group_by("split", "label").agg(pl.col("component").n_unique().alias("n")).sort("split", "label")
    for split, label, n in held.filter(pl.col("split").is_in(["train", "holdout"])).iter_rows():
        if n < FEWEST_COMPONENTS:
            raise MethodError(
                f"Only {n} independent clusters of {_called(split, shares)} have the label {label:g} (at least "
                f"{FEWEST_COMPONENTS} are needed): the label could not be separated from other peculiarities of "
                "these clusters. Bring data of more clusters with that label, or raise the split's share in "
                "`splits`."
            )


def _check_times(placed: pl.DataFrame) -> None:
    """Refuse a holdout of so few times that blocks of them say nothing about others."""
    held = placed.filter(pl.col("split") == "holdout")
    if "time" in placed.columns and held.height and held["time"].n_unique() < FEWEST_COMPONENTS:
        raise MethodError(
            f"The holdout's rows are of {held['time'].n_unique()} different times (at least {FEWEST_COMPONENTS} "
            "are needed): effects of the texts could not be separated from effects of time. Give columns.time "
            "finer times (days, not years), bring data of a longer span, or leave columns.time out."
        )


def _remedy(graph: Dependence) -> str:
    sizes = np.bincount(graph.component)
    source, name, rows = graph.blame()
    shown = name if len(name) <= 60 else name[:57] + "…"
    if next(iter(graph.hubs)) == TEXTS and sizes.max() >= _LARGE * sizes.sum() and _one_key(graph):
        return (
            f"{rows:,} of them are one text, `{shown}`, except for case, punctuation, links, handles and "
            "numbers. If these differences matter, set splits.near_texts to 1.1, which distinguishes texts by "
            "them; otherwise bring more texts."
        )
    if sizes.max() < _LARGE * sizes.sum() or (len(sizes) < 2 * FEWEST_COMPONENTS and _one_key(graph)):
        return "Bring more data or more clusters, raise the split's share in `splits`, or declare one file per split."
    largest = f"One component holds {sizes.max():,} of the rows"
    if source in (TEXTS, NEAR):
        what = "the text" if source == TEXTS else "the template"
        return (
            f"{largest}: {what} `{shown}` occurs in {rows:,} of them and joins their clusters. Set splits.shared_texts "
            "to `leave_out`, which gives each text one split and leaves out its rows elsewhere; or raise "
            "splits.near_texts where texts only look alike."
        )
    column = source.removeprefix("cluster:")
    column = "the cluster column" if column == "cluster" else f"the column `{column}`"
    return (
        f"{largest}: {column} joins them, {rows:,} through `{shown}`. Take a column of larger groups out of "
        "columns.cluster_by, or bring data of more groups."
    )


def _one_key(graph: Dependence) -> bool:
    """Whether the largest component is a single key of the first cluster column, or a single text."""
    source = next(iter(graph.hubs))
    inside = graph.component[graph.hubs[source][:, 0]] == np.bincount(graph.component).argmax()
    return len(np.unique(graph.hubs[source][inside, 1])) == 1
