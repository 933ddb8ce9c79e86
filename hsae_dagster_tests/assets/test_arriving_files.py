"""Files that change while they are read are refused, and nothing is kept under a fingerprint that was not theirs."""

import pytest

from hsae_dagster.dataset import rows
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts


def test_a_file_still_being_copied_is_refused_and_read_afresh_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.declare("one", tiny_texts(40))
    read_rows = rows.read_rows

    def reading(dataset: Dataset) -> rows.Rows:
        found = read_rows(dataset)
        workspace.declare("one", tiny_texts(60))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(rows, "read_rows", reading)
        refused = workspace.run("one", upto="corpus")
    assert "changed while it was read" in refused.sentence("corpus")
    assert not workspace.manifests()
    run = workspace.run("one", upto="corpus")
    assert run.success
    assert run.metadata("corpus")["rows read"] == tiny_texts(60).height
