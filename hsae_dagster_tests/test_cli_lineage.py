"""`hsae lineage`, `hsae text` and `hsae compare` as a person types them."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hsae_dagster import cli
from hsae_dagster.assets.catalog import gather, write_overview
from hsae_dagster.core.evaluations import EvaluationRecord
from hsae_dagster.report.page import best_markdown, overview_markdown
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster_tests.assets.workspace import NAMES, Workspace
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.test_cli import settle

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def hsae(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settle(tmp_path / "home")
    monkeypatch.setenv("HSAE_DATA_DIR", finished.workspace.project.data_dir)
    monkeypatch.setenv("HSAE_RESULTS_DIR", finished.workspace.project.results_dir)
    return lambda *arguments: CliRunner().invoke(cli.main, list(arguments))


def latest(workspace: Workspace, dataset: str = "ratings") -> EvaluationRecord:
    record = LineageLog(workspace.store).latest(dataset)
    assert record is not None
    return record


def test_a_hypothesis_is_walked_to_its_texts_and_files(finished: Finished, hsae) -> None:
    record = latest(finished.workspace)
    for row in record.hypotheses:
        done: Result = hsae("lineage", row["hypothesis_id"])
        assert done.exit_code == 0, done.output
        for asset in (*NAMES, "labelled_texts"):
            assert asset in done.output
        for origin in record.origins:
            assert origin.data_version[:12] in done.output
        assert record.files[:12] in done.output
        assert row["badge"] in done.output
        assert f"no. {record.hypotheses.index(row) + 1} of the report" in done.output
        assert "Stale" not in done.output
        quoted = re.findall(r"(?:for|near miss|against) +([0-9a-f]{32})", done.output)
        texts = read_frame(finished.workspace.current("ratings", "corpus").file("texts.parquet"))
        assert quoted and set(quoted) <= set(texts["text_id"])


def test_from_a_version_to_the_hypotheses_that_used_it(finished: Finished, hsae) -> None:
    record = latest(finished.workspace)
    origin = record.origin("activations")
    assert origin is not None
    for what in ("ratings", record.files, record.files[:8], origin.data_version):
        done = hsae("lineage", what)
        assert done.exit_code == 0, done.output
        assert all(row["hypothesis_id"] in done.output for row in record.hypotheses)
    # `ratings` and `parties` have the same texts on the same sides, so the same activations.
    shared = {
        dataset for dataset in ("ratings", "parties", "duels") if origin in latest(finished.workspace, dataset).origins
    }
    assert shared >= {"ratings", "parties"}
    assert set(re.findall(r"activations → (\w+),", done.output)) == shared


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lineage", "nothing"), "Nothing is known of `nothing`"),
        (("lineage", "ab"), "at least 6 characters"),
        (("text", "zzzz", "qqqq"), "No text has"),
        (("compare", "ratings"), "fewer than two evaluations"),
        (("compare", "ratings", "3", "4"), "no evaluation 3. Known: 1"),
        (("compare", "ratings", "nothing"), "neither the number of an evaluation of `ratings` (known: 1) nor, alone"),
        (("compare", "ratings", "parties", "1"), "`hsae compare <dataset> <dataset>`"),
        (("compare", "nothing", "ratings"), "`nothing` has no evaluation yet"),
    ],
)
def test_what_cannot_be_found_is_said_in_a_sentence(hsae, arguments: tuple[str, ...], said: str) -> None:
    done = hsae(*arguments)
    assert done.exit_code == 1
    assert said in done.output and "Traceback" not in done.output


def test_from_a_text_to_its_neurons_and_hypotheses(finished: Finished, hsae) -> None:
    record = latest(finished.workspace)
    matrix = read_frame(finished.workspace.current("ratings", "annotation_matrix").file("annotations.parquet"))
    row = matrix.row(0, named=True)
    done = hsae("text", row["text_id"], "--dataset", "ratings")
    assert done.exit_code == 0, done.output
    assert "of texts.parquet" in done.output and "holdout" in done.output and "neuron" in done.output
    for hypothesis in record.hypotheses:
        answer = "holds" if row[hypothesis["concept_id"]] else "does not"
        number = record.hypotheses.index(hypothesis) + 1
        assert re.search(rf"{answer} +no. {number} +{hypothesis['hypothesis_id']}", done.output)
        of_neuron = re.findall(rf"→ hypothesis {hypothesis['hypothesis_id']}, (.*)", done.output)
        assert set(of_neuron) <= {f"no. {number} of the report"}
    words = hsae("text", "anchor", "harbour", "--most", "2", "--dataset", "ratings")
    assert words.exit_code == 0 and words.output.count("cluster author") == 2
    assert "anchor" in words.output and "harbour" in words.output


def test_two_evaluations_are_compared_in_words_and_on_a_page(copied: Workspace, hsae, monkeypatch) -> None:
    monkeypatch.setenv("HSAE_DATA_DIR", copied.project.data_dir)
    monkeypatch.setenv("HSAE_RESULTS_DIR", copied.project.results_dir)
    copied.declare("ratings", None, selection={"n": 1})
    assert copied.run("ratings").success
    done = hsae("compare", "ratings")
    assert done.exit_code == 0, done.output
    gone = {r["hypothesis_id"] for r in LineageLog(copied.store).records("ratings")[0].hypotheses}
    gone -= {r["hypothesis_id"] for r in latest(copied).hypotheses}
    assert gone
    assert "Their inputs differ in selected_neurons, interpretations" in done.output
    for key in gone:
        assert re.search(rf"{key}.*\n +Gone: it was [a-z ]+, [+−]\d", done.output)
        # An id that no evaluation has any more still resolves.
        old = hsae("lineage", key)
        assert old.exit_code == 0 and "evaluation 1," in old.output and "Stale: " in old.output
    page = Path(done.output.rsplit("Page: ", 1)[1].strip()).read_text(encoding="utf-8")
    assert "Vanished" in page and all(key in page for key in gone)


def test_two_datasets_are_compared_concept_by_concept(finished: Finished, hsae) -> None:
    done = hsae("compare", "ratings", "parties")
    assert done.exit_code == 0, done.output
    mine, other = (
        {row["concept_id"] for row in latest(finished.workspace, d).hypotheses} for d in ("ratings", "parties")
    )
    assert done.output.startswith(f"Concepts in both: {len(mine & other)}, of which ")
    assert f"in `ratings` alone: {len(mine - other)}; in `parties` alone: {len(other - mine)}." in done.output
    # One measures points of a score, the other shares of a class: no concept of both has the same effect.
    assert len(re.findall(r"^    ratings: ", done.output, re.MULTILINE)) == len(mine)
    assert ("In `ratings` alone:" in done.output) == bool(mine - other)
    assert ("In both, but not alike:" in done.output) == bool(mine & other)
    assert re.search(r"ratings: confirmed, [+−]\d\.\d\d \[.*\], Holm p ", done.output)
    itself = hsae("compare", "ratings", "ratings")
    assert itself.output.startswith(f"Concepts in both: {len(mine)}, of which {len(mine)} alike")
    assert "confirmed" not in itself.output


def test_the_overview_tells_every_dataset(finished: Finished, copied: Workspace) -> None:
    lines = gather(finished.workspace.project)
    assert [line.dataset for line in lines] == ["duels", "parties", "ratings"]
    for line in lines:
        record = latest(finished.workspace, line.dataset)
        assert line.confirmed == f"{record.summary['confirmed']} of {record.summary['tested']}"
        assert line.status == "current" and line.spent == "nothing" and line.evaluations == 1
        ids = [row["hypothesis_id"] for row in record.hypotheses]
        assert [each.hypothesis_id for _, each, _ in line.hypotheses] == ids
        assert set(line.best) <= set(line.hypotheses)
    assert "/assets/hsae/evaluation_report?view=partitions&partition=ratings" in overview_markdown(
        lines, "hsae/evaluation_report"
    )
    assert "partition=ratings%7Ch0" in best_markdown(lines, "hsae/hypothesis_card")
    copied.declare("new_one", None)
    copied.declare("ratings", None, selection={"n": 3})
    changed = {line.dataset: line for line in gather(copied.project)}
    assert changed["ratings"].status.startswith("stale: ")
    assert "new_one" not in changed or changed["new_one"].status == "not evaluated yet"
    page = write_overview(copied.project, list(changed.values())).read_text(encoding="utf-8")
    folder = copied.project.results / "reports"
    links = re.findall(r'href="([^"#]+)(?:#([^"]*))?"', page)
    assert sum(not card for _, card in links) == 6 and all((folder / link).is_file() for link, _ in links)
    # Every hypothesis leads to its card.
    cards = [(link, card) for link, card in links if card]
    assert [card for _, card in cards] == [each.hypothesis_id for line in lines for _, each, _ in line.hypotheses]
    assert all(f'id="{card}"' in (folder / link).read_text(encoding="utf-8") for link, card in cards)
