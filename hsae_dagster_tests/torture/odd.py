"""Strategies for what people's files hold that nobody expected: texts, values, declarations, tables, answers."""

import datetime
from typing import Any

import polars as pl
from hypothesis import strategies as st

# Byte order mark, NUL, right-to-left override, a surrogate pair, combining marks, separators, what ends a line.
ODD = (
    "\ufeff", "\x00", "\u202e", "\u200f", "😀", "e\u0301", "\u2028", "\x1a", "\r", "\t", '"', "'", ",", ";",
    "<script>", "![x](javascript:1)", "{{7*7}}", "=1+1", "NaN", "null", "None", "-0", "1e999", "9" * 400, "../",
)  # fmt: skip
words = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=12),
    st.sampled_from(("good", "bad", "text", "label", "row", "file", "cluster", "split", "text_id", "excluded")),
)
texts = st.lists(words, max_size=6).map(" ".join)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.dates(),
    st.sampled_from(("", "1", "0", "true", "2020-01-01", "1,5", " 1 ", "１")),
)
values = st.recursive(
    plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)), max_leaves=6
)
FIELDS = (
    "task", "files", "columns", "splits", "embedding", "saes", "selection", "interpretation", "annotation",
    "inference", "extends", "units", "spending", "description", "obtain", "sae_seeds", "negative_controls",
)  # fmt: skip


@st.composite
def declarations(draw: st.DrawFn, good: dict[str, Any]) -> Any:
    """A usable declaration, a few of whose fields have become something else."""
    made: Any = {**good}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.one_of(st.sampled_from(FIELDS), words))
        inner = made.get(name)
        if isinstance(inner, dict) and inner and draw(st.booleans()):
            made[name] = {**inner, draw(st.one_of(st.sampled_from(sorted(inner)), words)): draw(values)}
        else:
            made[name] = draw(values)
    return made


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some were changed, put in, left out or cut off."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(made) - 1, 0)))
        what = draw(st.sampled_from(("change", "insert", "remove", "cut", "repeat")))
        if what == "change" and made:
            made[place] = draw(st.integers(0, 255))
        elif what == "insert":
            made[place:place] = draw(st.one_of(st.binary(max_size=6), st.sampled_from(ODD).map(str.encode)))
        elif what == "remove":
            del made[place : place + draw(st.integers(1, 40))]
        elif what == "cut":
            del made[place:]
        else:
            made += made[place : place + 200]
    return bytes(made)


records = st.lists(
    st.dictionaries(st.sampled_from(("text", "label", " text", "label ", "who", "row")), values, max_size=5), max_size=8
)
_columns = st.one_of(
    st.lists(st.floats(), min_size=4, max_size=4),
    st.lists(texts, min_size=4, max_size=4),
    st.lists(st.binary(max_size=4), min_size=4, max_size=4),
    st.lists(st.dates(datetime.date(1900, 1, 1)), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.none(), min_size=4, max_size=4),
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=4, max_size=4),
    st.lists(st.fixed_dictionaries({"a": st.integers(0, 9)}), min_size=4, max_size=4),
    st.lists(st.timedeltas(), min_size=4, max_size=4),
)


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    """A table with the declared columns, of any kinds."""
    made = {name: draw(_columns) for name in ("text", "label", "who")}
    frame = pl.DataFrame(made, strict=False)
    if draw(st.booleans()) and frame.schema["text"] == pl.String:
        frame = frame.with_columns(pl.col("text").cast(pl.Categorical))
    return frame.rename({"who": draw(st.sampled_from(("who", "row", " text", "file")))})
