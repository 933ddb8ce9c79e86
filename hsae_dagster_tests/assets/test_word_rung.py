"""The rung of words where there are none."""

import polars as pl

from hsae_dagster.core.inference import joint_fit as ladder
from hsae_dagster.stages.selection import word_features


def test_texts_without_words_have_no_rung_of_words() -> None:
    splits = ["train", "holdout"] * 10
    pictures = pl.DataFrame({"text": ["🎉😂👍😍", "🤮😡"] * 10, "split": splits})
    assert word_features(pictures) == {}
    spoken = pl.DataFrame({"text": ["good room", "bad room"] * 10, "split": splits})
    assert word_features(spoken)[ladder.WORDS].shape == (20, 3)
