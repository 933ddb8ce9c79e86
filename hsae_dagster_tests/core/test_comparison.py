import math

from hsae_dagster.core.evaluations import Standing, compare
from hsae_dagster.report.wording import change_words


def standing(key: str, **changes: object) -> Standing:
    fields = {"claim": "asks", "badge": "confirmed", "estimate": 0.5, "low": 0.4, "high": 0.6}
    return Standing(key, **(fields | changes))  # type: ignore[arg-type]


def test_every_hypothesis_of_either_side_is_told_once() -> None:
    before = [standing("a"), standing("b"), standing("c"), standing("d")]
    after = [standing("b", badge="suggestive"), standing("c"), standing("e"), standing("d", estimate=0.61)]
    changes = {change.standing.hypothesis_id: change for change in compare(before, after)}
    assert {key: change.kind for key, change in changes.items()} == {
        "a": "vanished",
        "b": "moved",
        "c": "unchanged",
        "d": "moved",
        "e": "appeared",
    }
    assert changes["b"].verdict and not changes["b"].effect
    assert changes["d"].effect and not changes["d"].verdict
    assert next(change.kind for change in compare(before, after)) == "appeared"


def test_an_effect_moves_when_it_leaves_its_interval_or_cannot_be_estimated() -> None:
    nan = standing("a", estimate=math.nan, low=math.nan, high=math.nan)
    inside = compare([standing("a")], [standing("a", estimate=0.59, low=0.5, high=0.7)])[0]
    assert inside.kind == "unchanged"
    assert compare([standing("a")], [nan])[0].effect
    assert compare([nan], [nan])[0].kind == "unchanged"


def test_words_name_what_moved() -> None:
    moved = compare([standing("a")], [standing("a", claim="wonders", badge="invalid", estimate=0.9)])[0]
    words = change_words(moved, "regression")
    assert words.startswith("Moved: confirmed before, invalid now; effect +0.50 [0.40, 0.60] before, +0.90")
    assert "outside the earlier interval" in words and "“asks”" in words
    gone = compare([standing("a")], [])[0]
    assert change_words(gone, "regression") == "Gone: it was confirmed, +0.50 [0.40, 0.60]."
    new = compare([], [standing("a")])[0]
    assert change_words(new, "regression") == "New: confirmed, +0.50 [0.40, 0.60]."
