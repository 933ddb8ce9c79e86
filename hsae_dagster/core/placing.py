"""Which split a component lands in: by hash, near the declared shares of rows, and for good.

Belongs here: places on [0, 1), cuts between the splits. Does not belong here: what a component is (`core.dependence`).

A component's place is the smallest hash of its keys, and low places are the most protected. So a component that grows
or swallows another can only move towards the holdout, never towards training, and where it lands depends on nothing but
its own keys and the cuts. The cuts are the declared shares where these give about the declared shares of rows. Where
they do not, because components are few, unequal, or of many keys (whose smallest hash is small), components are taken
in the order of their places until each split has its share, and if one order leaves a split far from it, in the order
of another salt. In a forward split a component's place is that of its latest row in time, later ones lower: what was
latest is held out, and what comes later still never trains. Such cuts depend on the data, so whoever makes them records
them for the next time: rows that are added later must not move them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl

from hsae_dagster.keys import unit_interval

# In order of protection: a component wanted by two splits belongs to the later one.
SPLITS = ("train", "validation", "fidelity", "holdout")
# Shares of rows may miss the declared ones by so much before the cuts follow the rows, and another salt is tried.
_CLOSE, _GOOD = 0.03, 0.05
_SALTS, _MOST_KEYS = 32, 20_000


@dataclass(frozen=True)
class SplitShares:
    """Shares of rows for each split but train, and the salt of the hash.

    Attributes:
        validation: share.
        fidelity: share.
        holdout: share; nothing where there are two halves.
        salt: of the hash.
        two_halves: whether each half tests what the other found.
        forward: whether time decides instead of the hash; not with two halves.
    """

    validation: float
    fidelity: float
    holdout: float
    salt: str
    two_halves: bool = False
    forward: bool = False

    @property
    def placing(self) -> "SplitShares":
        """What components are placed by first: two halves, as a holdout of one half, else the shares themselves."""
        return replace(self, validation=0.0, fidelity=0.0, holdout=0.5) if self.two_halves else self

    @property
    def cumulated(self) -> np.ndarray:
        """(3,) ends of holdout, fidelity and validation on [0, 1)."""
        return np.cumsum([self.holdout, self.fidelity, self.validation])


@dataclass(frozen=True)
class Cuts:
    """Where the splits end on [0, 1), and the number of the salt.

    Attributes:
        holdout: places below it are the holdout's.
        fidelity: likewise, from there.
        validation: likewise; places from here on are for training.
        attempt: 0 for the declared salt, else the number that is added to it.
        declared: whether the cuts are the declared shares.
        two_halves: whether what is below the cut of the holdout is a half.
    """

    holdout: float
    fidelity: float
    validation: float
    attempt: int = 0
    declared: bool = True
    two_halves: bool = False

    @classmethod
    def by_share(cls, shares: SplitShares) -> "Cuts":
        """The declared shares as cuts."""
        holdout, fidelity, validation = (float(end) for end in shares.cumulated)
        return cls(holdout, fidelity, validation)

    @property
    def record(self) -> dict[str, float | int | bool]:
        """As JSON-like data; of a holdout as it was before there were halves."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("two_halves", False)}

    def split(self, places: np.ndarray) -> np.ndarray:
        """(n,) protection of each place: 3 holdout … 0 train (positions in `SPLITS`)."""
        return 3 - np.searchsorted([self.holdout, self.fidelity, self.validation], places, side="right")


def places(keys: pl.Series, component: np.ndarray, salt: str, attempt: int = 0) -> np.ndarray:
    """Smallest hash of each component's keys.

    Args:
        keys: (n,) of each row.
        component: (n,) int of each row, from 0.
        salt: of the hash.
        attempt: number of the salt.

    Returns:
        (components,) float64 in [0, 1).
    """
    salted = f"{salt}#{attempt}" if attempt else salt
    distinct = pl.DataFrame({"key": keys, "component": component}).unique()
    hashed = distinct["key"].map_elements(lambda key: unit_interval(key, salted), return_dtype=pl.Float64)
    found = np.ones(int(component.max()) + 1)
    np.minimum.at(found, distinct["component"].to_numpy(), hashed.to_numpy())
    return found


def places_in_time(time: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Places (components,) in [0, 1] that fall with each component's latest time, whatever other rows there are.

    Args:
        time: (n,) seconds or any number that orders rows.
        component: (n,) int of each row, from 0.
    """
    found = np.ones(int(component.max()) + 1)
    np.minimum.at(found, component, np.arctan2(1e9, time) / np.pi)
    return found


def cut_in_time(time: np.ndarray, component: np.ndarray, shares: SplitShares, fewest: int) -> Cuts:
    """Cuts of a forward split; components of one time are never parted. Arguments as in `cut` and `places_in_time`."""
    moments, of = np.unique(places_in_time(time, component), return_inverse=True)
    sizes = np.bincount(of, np.bincount(component))
    return _by_rows(moments, sizes, shares, min(fewest, max(len(moments) // 2, 1)), 0)


def cut(keys: pl.Series, component: np.ndarray, shares: SplitShares, fewest: int) -> Cuts:
    """Cuts that give about the declared shares of rows.

    Args:
        keys: (n,) of each row.
        component: (n,) int of each row, from 0.
        shares: as declared.
        fewest: components that holdout and train should have, at least; the other splits should have one.
    """
    sizes = np.bincount(component).astype(np.float64)
    few = keys.n_unique() <= _MOST_KEYS
    best, least = Cuts.by_share(shares), np.inf
    for attempt in range(_SALTS if few else 1):
        at = places(keys, component, shares.salt, attempt)
        if attempt == 0 and _miss(best, at, sizes, shares, fewest) <= _CLOSE:
            return best
        made = _by_rows(at, sizes, shares, fewest, attempt)
        miss = _miss(made, at, sizes, shares, fewest)
        if miss < least:
            best, least = made, miss
        if least <= _GOOD:
            break
    return best


def _by_rows(at: np.ndarray, sizes: np.ndarray, shares: SplitShares, fewest: int, attempt: int) -> Cuts:
    """Components in the order of their places; each split ends where its share of rows is nearest.

    Few components go first to what cannot do without them: `fewest` to holdout and train, one to each other split.
    """
    order = np.argsort(at, kind="stable")
    sorted_at = at[order]
    ends = np.concatenate([[0.0], np.cumsum(sizes[order]) / sizes.sum()])
    between = np.concatenate([[0.0], (sorted_at[1:] + sorted_at[:-1]) / 2, [1.0]])
    chosen: list[int] = []
    needed = [fewest * (shares.holdout > 0), int(shares.fidelity > 0), int(shares.validation > 0), fewest]
    for i, wanted in enumerate(shares.cumulated):
        start = chosen[-1] if chosen else 0
        nearest = int(np.abs(ends - wanted).argmin()) if needed[i] else start
        most = max(len(at) - sum(needed[i + 1 :]), start)
        chosen.append(min(max(nearest, start + needed[i]), most))
    holdout, fidelity, validation = (float(between[i]) for i in chosen)
    return Cuts(holdout, fidelity, validation, attempt, declared=False)


def _miss(cuts: Cuts, at: np.ndarray, sizes: np.ndarray, shares: SplitShares, fewest: int) -> float:
    """Largest difference of a split's share of rows from the declared one; a split of too few components counts 1."""
    split = cuts.split(at)
    wanted = np.array([1 - float(shares.cumulated[-1]), shares.validation, shares.fidelity, shares.holdout])
    rows = np.bincount(split, sizes, minlength=4) / sizes.sum()
    enough = np.array([fewest, 1, 1, fewest])
    short = (np.bincount(split, minlength=4) < enough) & (wanted > 0)
    return float(np.abs(rows - wanted).max() + short.sum())


def most_protected(splits: Sequence[pl.Expr]) -> pl.Expr:
    """The most protected of several splits by name, as positions in `SPLITS`."""
    ranks = {split: i for i, split in enumerate(SPLITS)}
    return pl.max_horizontal(*[split.replace_strict(ranks, return_dtype=pl.Int8) for split in splits])
