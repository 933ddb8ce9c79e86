import io

import numpy as np
import pytest
from PIL import Image

from hsae_dagster.core.hypothesis import BINS, activation_histogram
from hsae_dagster.report.cards import histogram_png, histogram_words


def test_every_text_is_counted_once() -> None:
    rng = np.random.default_rng(1)
    activation = np.maximum(rng.normal(0, 1, 500), 0).astype(np.float32)
    answers = rng.integers(-1, 2, 500).astype(np.int8)
    found = activation_histogram(activation, answers, 0.8)
    assert found.texts == 500 and found.firing == (activation > 0).sum()
    assert sum(found.having) + found.silent_having == (answers == 1).sum()
    assert len(found.having) == len(found.lacking) == BINS == len(found.edges) - 1
    assert len(histogram_png(found)) < 650, "its markdown must stay below Dagster's 1,000 characters"
    dots = np.array(Image.open(io.BytesIO(histogram_png(found))))
    heights = [sum(both) for both in zip(found.having, found.lacking, strict=True)]
    assert dots[1, 11 * int(np.argmax(heights))] in (1, 2), "the tallest bar fills the picture"
    assert (dots == 3).any(axis=0).nonzero()[0].tolist() == [round(264 * 0.8 / found.edges[-1])]
    for j, n in enumerate(found.having):
        assert (dots[:48, 11 * j] == 1).sum() == pytest.approx(48 * n / max(heights), abs=1.5)
    assert "judged texts activate it" in histogram_words(found)


def test_a_silent_neuron_has_no_bars() -> None:
    found = activation_histogram(np.zeros(5), np.array([1, 0, 0, -1, 1], dtype=np.int8), np.inf)
    assert (found.firing, found.silent_having, found.silent_lacking, found.strong) == (0, 2, 3, None)
    assert set(np.unique(np.array(Image.open(io.BytesIO(histogram_png(found)))))) == {0, 2}, "an axis alone"
    assert "None of the 5" in histogram_words(found)
