"""`hsae new` and `hsae check` as a person types them."""

from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster_tests.assets.workspace import Workspace, tiny_pairs, tiny_texts
from hsae_dagster_tests.test_cli import assert_a_sentence, hsae, settle

pytestmark = pytest.mark.usefixtures("environment")
QUOTE = chr(34)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return settle(tmp_path / "project")


def bring(root: Path, name: str, frame: pl.DataFrame) -> Path:
    path = root / "incoming" / name
    path.parent.mkdir(exist_ok=True)
    frame.write_csv(path, separator=";")
    return path


def test_a_csv_becomes_a_dataset_that_every_stage_can_use(root: Path) -> None:
    path = bring(root, "My scores.csv", tiny_texts(600).rename({"text": " The Text "}))
    done = hsae("new", str(path))
    assert done.exit_code == 0, done.output
    assert "can be run: 600 observations of 60 clusters" in done.output
    assert "separated by semicolons" in done.output
    assert "run my_scores" in done.output
    spec = load_dataset(root / "data", "my_scores").spec
    assert (spec.task, spec.columns.text, spec.columns.label, spec.columns.cluster_by) == (
        "regression",
        "The Text",
        "score",
        "author",
    )
    assert path.exists()
    again = hsae("check", "my_scores")
    assert again.exit_code == 0, again.output
    assert again.output.strip() in done.output
    run = Workspace(root).run("my_scores", upto="corpus")
    assert run.success, {step: run.sentence(step) for step in run.failures}


def test_pairs_are_found(root: Path) -> None:
    done = hsae("new", str(bring(root, "duels.csv", tiny_pairs(tiny_texts(400)))))
    assert done.exit_code == 0, done.output
    assert load_dataset(root / "data", "duels").spec.task == "pairwise"


def test_nothing_is_written_when_asked_or_when_it_would_not_work(root: Path) -> None:
    path = bring(root, "scores.csv", tiny_texts(300))
    done = hsae("new", str(path), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "label: score" in done.output
    few = hsae("new", str(bring(root, "few.csv", tiny_texts(12))))
    assert_a_sentence(few)
    assert "independent clusters landed in" in few.output
    assert not list((root / "data").glob("*")) if (root / "data").exists() else True


def test_what_exists_is_left_alone(root: Path) -> None:
    path = bring(root, "scores.csv", tiny_texts(300))
    assert hsae("new", str(path), "--name", "mine").exit_code == 0
    before = (root / "data" / "mine" / "dataset.yaml").read_text(encoding="utf-8")
    done = hsae("new", str(path), "--name", "mine", "--label", "author")
    assert_a_sentence(done)
    assert "left as it is" in done.output
    assert "(--name mine_2)" in done.output
    assert f"remove the folder {root / 'data' / 'mine'} and try again" in " ".join(done.output.split())
    inside = hsae("new", str(root / "data" / "mine"))
    assert_a_sentence(inside)
    assert "remove the file" in inside.output
    assert "remove the folder" not in inside.output
    assert (root / "data" / "mine" / "dataset.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--label", "stars"), "no column `stars`"),
        (("--name", "Not good"), "cannot name a dataset"),
        (("--task", "classification"), "must be 0 or 1"),
    ],
)
def test_wrong_wishes_are_sentences(root: Path, arguments: tuple[str, ...], words: str) -> None:
    done = hsae("new", str(bring(root, "scores.csv", tiny_texts(300))), *arguments)
    assert_a_sentence(done)
    assert words in done.output
    assert not (root / "data").exists()


def test_check_of_no_dataset_is_a_sentence(root: Path) -> None:
    assert_a_sentence(hsae("check", "nosuch"))


def test_fetching_what_is_not_published_is_a_sentence(root: Path) -> None:
    done = hsae("fetch", "tweets")
    assert_a_sentence(done)
    assert "Use one of headlines, yelp, congress" in done.output


def test_check_tells_of_lists_that_hold_the_class(root: Path) -> None:
    moods = pl.Series("mood", ["joy", "joy,fear", "fear", "anger"] * 75)
    folder = root / "data" / "moods"
    folder.mkdir(parents=True)
    tiny_texts(300).with_columns(moods).write_csv(folder / "t.csv")
    declared = "task: classification\nfiles: t.csv\nselection: {n: 8}\ncolumns: {text: text, label: mood, positive: joy"
    (folder / "dataset.yaml").write_text(f"{declared}}}\n", encoding="utf-8")
    assert "75 rows list `joy` among other classes of `mood` and count as 0" in hsae("check", "moods").output
    (folder / "dataset.yaml").write_text(f"{declared}, listed: ','}}\n", encoding="utf-8")
    done = hsae("check", "moods")
    assert done.exit_code == 0, done.output
    assert "among other classes" not in done.output


def test_encoding_and_sheet_are_options(root: Path) -> None:
    path = root / "incoming" / "niño.csv"
    path.parent.mkdir(exist_ok=True)
    lines = "".join(f"{text} niño;{score:.2f};{who}\n" for text, score, who in tiny_texts(300).rows())
    path.write_bytes(f"text;score;author\n{lines}".encode("cp1252"))
    asked = hsae("new", str(path), "--name", "mine")
    assert_a_sentence(asked)
    assert "--encoding cp1252: “" in asked.output
    done = hsae("new", str(path), "--name", "mine", "--encoding", "cp1252")
    assert done.exit_code == 0, done.output
    assert "it was in cp1252, as you said" in done.output
    assert pl.read_csv(root / "data" / "mine" / f"{path.stem}_plain.csv")["text"][0].endswith("niño")


def test_check_tells_what_new_would_read_otherwise(root: Path) -> None:
    folder = root / "data" / "mine"
    folder.mkdir(parents=True)
    made = enumerate(tiny_texts(300).rows())
    rows = [f"{score:.2f}\t{QUOTE * (n == 5)}{text}{QUOTE * (n == 25)}" for n, (text, score, _) in made]
    (folder / "t.tsv").write_text("\n".join(["score\ttext", *rows]) + "\n", encoding="utf-8")
    (folder / "dataset.yaml").write_text(
        "task: regression\nfiles: t.tsv\nselection: {n: 8}\ncolumns: {text: text, label: score}\n", encoding="utf-8"
    )
    done = hsae("check", "mine")
    assert done.exit_code == 0, done.output
    assert "Note: `hsae new` would read t.tsv otherwise, because a double quote on line" in " ".join(
        done.output.split()
    )
    tiny_texts(300).write_csv(folder / "t.tsv", separator="\t")
    assert "Note" not in hsae("check", "mine").output


def test_what_shares_something_is_counted_as_rows_of_the_clusters_that_it_joins(root: Path) -> None:
    # 30 authors of 20 rows each; three equal texts, of three authors, make one cluster of 60 rows.
    texts = tiny_texts(600)["text"].to_list()
    texts[0] = texts[1] = texts[2] = "The very same words, written by three people about nothing in particular"
    frame = tiny_texts(600).with_columns(
        text=pl.Series(texts),
        author=pl.Series([("Weiß {}", "WEISS {}")[i // 30 % 2].format(i % 30) for i in range(600)]),
    )
    done = hsae("new", str(bring(root, "scores.csv", frame)))
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.replace("#", " ").split())
    assert "30 different, 20.0 rows each" in said
    assert "A tenth of 30 clusters (`author`)" in said
    assert "600 observations of 28 clusters" in said
    assert (
        "What shares something is one cluster; in a larger one than otherwise lie 60 rows because of equal texts."
        in said
    )


def test_check_reads_categories_and_decimals_of_parquet(root: Path) -> None:
    frame = tiny_texts(300).with_columns(
        pl.Series("party", ["left", "middle", "right"] * 100, dtype=pl.Categorical),
        pl.Series("kind", ["a", "b", "c"] * 100, dtype=pl.Enum(["a", "b", "c"])),
        pl.col("score").cast(pl.Decimal(12, 4)).alias("exact"),
    )
    (root / "incoming").mkdir()
    frame.drop("author").write_parquet(root / "incoming" / "factors.parquet")
    assert hsae("new", str(root / "incoming" / "factors.parquet"), "--label", "score").exit_code == 0
    done = hsae("check", "factors")
    assert done.exit_code == 0, done.output
    assert "can be run: 300 observations" in done.output


def test_a_trial_tells_how_the_file_was_read(root: Path) -> None:
    done = hsae("new", str(bring(root, "scores.csv", tiny_texts(300))), "--dry-run")
    assert "scores.csv would be written as scores_plain.csv" in done.output and "semicolons" in done.output


def test_no_cluster_is_an_answer_too(root: Path) -> None:
    done = hsae("new", str(bring(root, "scores.csv", tiny_texts(600))), "--cluster-by", "none")
    assert done.exit_code == 0, done.output
    assert "The cost: texts that share" in " ".join(done.output.replace("#", " ").split())
    assert load_dataset(root / "data", "scores").spec.columns.cluster_by is None


def test_check_doubts_texts_that_the_bundled_embedder_does_not_know(root: Path) -> None:
    faces = tiny_texts(300).with_columns(
        text=pl.Series(["🎉" * (n % 40 + 1) + "😡" * (n // 40 + 1) for n in range(300)])
    )
    assert hsae("new", str(bring(root, "faces.csv", faces)), "--text", "text").exit_code == 0
    done = hsae("check", "faces")
    assert "have no letter" in done.output and "does not know pictures and signs" in done.output
    declared = root / "data" / "faces" / "dataset.yaml"
    declared.write_text(declared.read_text() + "embedding: {model: 'openai:text-embedding-3-small'}\n")
    assert "does not know pictures" not in hsae("check", "faces").output


def test_check_doubts_codes_and_names_marks_of_no_answer(root: Path) -> None:
    scores = tiny_texts(600).with_columns(score=pl.Series([-99 if n % 20 == 0 else n % 5 + 1 for n in range(600)]))
    bring(root, "scores.csv", scores)
    folder = root / "data" / "scores"
    folder.mkdir(parents=True)
    declared = "task: regression\nfiles: scores.csv\ncolumns: {text: text, label: score}\n"
    (folder / "dataset.yaml").write_text(declared)
    scores.write_csv(folder / "scores.csv")
    assert "`score` is -99 in some rows" in hsae("check", "scores").output
    named = declared.replace("label: score", "label: score, missing: -99, on_missing: drop")
    (folder / "dataset.yaml").write_text(named)
    assert "in some rows" not in hsae("check", "scores").output
    (folder / "dataset.yaml").write_text(declared)
    (folder / "scores.csv").write_text((folder / "scores.csv").read_text().replace("-99", "\\N"))
    assert "name it in columns.missing" in hsae("check", "scores").output


def test_parties_of_twelve_writers_end_in_a_refusal_that_names_the_column_of_writers(root: Path) -> None:
    writer = [i % 12 for i in range(600)]
    frame = tiny_texts(600).select("text", party=pl.Series(["red" if w % 2 else "blue" for w in writer]))
    frame = frame.with_columns(seat=pl.Series([f"seat {w}" for w in writer]))
    path = bring(root, "speeches.csv", frame)
    refused = hsae("new", str(path), "--label", "party")
    assert_a_sentence(refused)
    for words in ("independent clusters", "The clusters are those of `seat`", "do not differ in `party`"):
        assert words in refused.output
    assert not (root / "data" / "speeches").exists()
    taken = hsae("new", str(path), "--label", "party", "--cluster-by", "none")
    assert taken.exit_code == 0, taken.output
    assert load_dataset(root / "data", "speeches").spec.columns.cluster_by is None
    # Who declares it by hand is told, too.
    assert "Declare columns.cluster_by: seat" in hsae("check", "speeches").output


def test_check_says_what_a_run_would_refuse_of_ones_own_hypotheses_and_controls(root: Path) -> None:
    workspace = Workspace(root)
    own = [{"claim": "shouts", "terms": ["..."]}]
    workspace.declare("own", tiny_texts(300), hypotheses=own)
    refused = hsae("check", "own")
    assert_a_sentence(refused)
    assert "has no word" in refused.output
    columns = {"text": "text", "label": "score", "controls": ["twice"]}
    workspace.declare("twice", tiny_texts(300).with_columns(twice=2 * pl.col("score")), columns=columns)
    assert "the control `twice` determines the outcome `score`" in hsae("check", "twice").output
