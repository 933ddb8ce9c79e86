"""Records persist and are shared: .env and the Dagster home."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsae_dagster.errors import HsaeError
from hsae_dagster.orchestration.project import prepare_home, read_env

EXAMPLE = Path(__file__).parents[1] / ".env.example"

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout as a stranger has it."""
    (tmp_path / ".env.example").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_a_fresh_checkout_gets_a_home_and_an_env_that_names_it(root: Path) -> None:
    home = prepare_home(root)
    assert home == root / ".dagster_home"
    assert home.is_absolute()
    assert read_env(root / ".env") == {"DAGSTER_HOME": str(home)}
    assert os.environ["DAGSTER_HOME"] == str(home)


def test_telemetry_and_the_first_visit_window_are_off_and_killed_runs_are_noticed(root: Path) -> None:
    settings = yaml.safe_load((prepare_home(root) / "dagster.yaml").read_text(encoding="utf-8"))
    assert settings["telemetry"] == {"enabled": False}
    assert settings["nux"] == {"enabled": False}
    assert settings["run_monitoring"]["enabled"] is True
    assert settings["concurrency"]["pools"]["default_limit"] == 1


def test_dagster_accepts_the_settings(root: Path) -> None:
    import dagster as dg

    home = prepare_home(root)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False


def test_what_is_there_is_kept(root: Path) -> None:
    home = root / "elsewhere"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    (root / ".env").write_text(f"# mine\nDAGSTER_HOME={home}\nOPENAI_BASE_URL='http://127.0.0.1:9/v1'\n")
    before = (root / ".env").read_bytes()
    for _ in range(2):
        assert prepare_home(root) == home
    assert (root / ".env").read_bytes() == before
    assert (home / "dagster.yaml").read_text(encoding="utf-8") == "telemetry: {enabled: false}\n"
    assert os.environ["OPENAI_BASE_URL"] == "http://127.0.0.1:9/v1"


def test_the_environment_wins_over_the_file(root: Path) -> None:
    (root / ".env").write_text(f"DAGSTER_HOME={root / 'file'}\nHSAE_RESULTS_DIR={root / 'file'}\nOPENAI_API_KEY=\n")
    os.environ |= {"DAGSTER_HOME": str(root / "variable"), "HSAE_RESULTS_DIR": "/variable"}
    assert prepare_home(root) == root / "variable"
    assert os.environ["HSAE_RESULTS_DIR"] == "/variable"
    # An empty line of the template is not a setting.
    assert "OPENAI_API_KEY" not in os.environ


@pytest.mark.parametrize("where", ["variable", "file"])
def test_a_relative_home_is_refused_before_anything_is_written(root: Path, where: str) -> None:
    if where == "variable":
        os.environ["DAGSTER_HOME"] = "records"
    else:
        (root / ".env").write_text("DAGSTER_HOME=records\n", encoding="utf-8")
    before = sorted(root.rglob("*"))
    with pytest.raises(HsaeError, match=r"DAGSTER_HOME is `records`.*absolute.*\.env"):
        prepare_home(root)
    assert sorted(root.rglob("*")) == before
    assert not Path("records").exists()


def test_a_home_that_cannot_be_made_is_a_sentence(root: Path) -> None:
    (root / "taken").write_text("a file", encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(root / "taken" / "home")
    with pytest.raises(HsaeError, match=r"Cannot prepare .*taken.*writable"):
        prepare_home(root)


def test_env_lines(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_env(path) == {}
    path.write_text("# A=1\n\n B = 2 \nC=\"x=y\"\nD='z'\nno line\nE=\n", encoding="utf-8")
    assert read_env(path) == {"B": "2", "C": "x=y", "D": "z", "E": ""}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("export OPENAI_BASE_URL=http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
        ("\ufeffOPENAI_BASE_URL=x", "x"),
        ("OPENAI_BASE_URL=x  # the server in the cellar", "x"),
        ("OPENAI_BASE_URL='x # y'", "x # y"),
        ("  export   OPENAI_BASE_URL = x ", "x"),
        ("OPENAI_BASE_URL=~/folder", str(Path("~/folder").expanduser())),
        ("OPENAI_BASE_URL=a~b", "a~b"),
    ],
)
def test_env_lines_are_read_as_shells_and_dotenv_read_them(tmp_path: Path, line: str, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"{line}\n", encoding="utf-8")
    assert read_env(path) == {"OPENAI_BASE_URL": value}


def test_an_env_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(HsaeError, match=r"\.env is not in UTF-8.*Save it"):
        read_env(path)


def test_an_installation_that_is_not_mine_is_used_from_a_folder_of_mine(tmp_path: Path) -> None:
    # HSAE_HOME: nothing is there yet, not even the template of .env.
    home = prepare_home(tmp_path / "mine")
    assert read_env(tmp_path / "mine" / ".env") == {"DAGSTER_HOME": str(home)}


def test_a_closed_folder_is_a_sentence_unless_the_home_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def refused(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.name == ".env":
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, *args, **kwargs)

    # A mode would not do: root, who runs continuous integration, is refused nothing.
    monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(HsaeError, match=r"Cannot write .*\.env.*HSAE_HOME"):
        prepare_home(root)
    os.environ["DAGSTER_HOME"] = str(root / "named")
    assert prepare_home(root) == root / "named"


def test_datasets_of_users_are_ignored_by_git_and_declarations_of_samples_are_not() -> None:
    import subprocess

    root = EXAMPLE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")

    def ignored(path: str) -> bool:
        # With --no-index, so that what is tracked already is judged by the rules, too.
        asked = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=root, check=False)
        assert asked.returncode in (0, 1), "git cannot tell"
        return asked.returncode == 0

    assert all(ignored(f"data/mine/{name}") for name in ("texts.csv", "dataset.yaml", "README.md", ".gitignore"))
    tracked = subprocess.run(["git", "ls-files", "data"], cwd=root, check=True, capture_output=True, text=True).stdout
    assert tracked.split()
    assert not [path for path in tracked.split() if ignored(path)]
    assert ignored("data/yelp/texts.parquet")
