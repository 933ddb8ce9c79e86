"""Which rows belong together: connected components of everything that makes rows dependent.

Belongs here: joining rows by cluster keys, equal and nearly equal texts, and items that pairs share; saying what joins
them. Does not belong here: which split a component lands in (`core.placing`), variances (`core.cluster_robust`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.near_texts import folded, near_equal

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


def folded_keys(keys: pl.Series) -> pl.Series:
    """Cluster keys without what spreadsheets add: spaces around and within, case, Unicode composition."""
    return keys.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


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
