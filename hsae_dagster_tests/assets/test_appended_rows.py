"""Rows appended to a dataset cost what is new: only they are embedded and judged, and hypotheses keep their ids."""

from pathlib import Path

import pytest

from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback

pytestmark = pytest.mark.usefixtures("environment")

ROWS, APPENDED = 300, 15


def hypotheses(workspace: Workspace) -> dict[str, str]:
    """Hypothesis id by claim."""
    rows = read_frame(workspace.current("growing", "evaluation_report").file("hypotheses.parquet"))
    return dict(zip(rows["claim"], rows["hypothesis_id"], strict=True))


def holdout(workspace: Workspace) -> set[str]:
    texts = read_frame(workspace.current("growing", "corpus").file("texts.parquet"))
    return set(texts.filter(texts["split"] == "holdout")["text"])


def test_five_per_cent_more_rows_embed_and_judge_only_those(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = tiny_texts(ROWS + APPENDED)
    with Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        workspace.declare("growing", rows.head(ROWS), **scripted.MODELS)
        first = workspace.run("growing")
        assert first.success, {step: first.sentence(step) for step in first.failures}
        before, tested_before = hypotheses(workspace), holdout(workspace)
        assert first.metadata("embeddings")["new"] == ROWS
        embedded, judged = len(scripted.embedded_texts(server)), len(scripted.judged(server))

        workspace.declare("growing", rows, **scripted.MODELS)
        again = workspace.run("growing", instance=first.instance)
        assert again.success, {step: again.sentence(step) for step in again.failures}
        told = again.metadata("embeddings")
        assert (told["new"], told["kept"]) == (APPENDED, ROWS)
        assert sorted(scripted.embedded_texts(server)[embedded:]) == sorted(rows["text"].tail(APPENDED))

        new = holdout(workspace) - tested_before
        assert 0 < len(new) < APPENDED
        # The concepts are the same ones, so no text that was judged by them before is judged by them again.
        after = hypotheses(workspace)
        assert set(after) == set(before)
        asked = [text for text, _ in scripted.judged(server)[judged:]]
        assert not set(asked) & tested_before
        assert again.metadata("annotation_matrix")["paid calls"] == len(new)
        assert after == before
