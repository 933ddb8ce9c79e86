"""Every command, link and declaration that README and docs show exists; the tutorial's own commands are run."""

import re
import shlex
import tomllib
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest
import yaml

from hsae_dagster.cli import main
from hsae_dagster.dataset.discovery import inherit, load_dataset, parse_declaration
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.test_cli import hsae, settle, spawn

pytestmark = pytest.mark.usefixtures("environment")

PAGES = sorted(
    [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md"), *(CHECKOUT / "data").glob("*/README.md")],
    key=str,
)
TUTORIAL = CHECKOUT / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^(?:[A-Z][A-Z0-9_]*=\S*\s+)+")
BASE = {"task": "regression", "files": "x.csv", "columns": {"text": "text", "label": "stars"}}


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def commands(page: Path) -> list[str]:
    """Shell lines of a page's blocks, and `code` in its prose that begins like a command; settings left out."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for language, body in FENCE.findall(text) if language in ("", "bash", "sh")]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    bare = [SETTING.sub("", line.split("  #")[0].split(" ## ")[0]).strip() for line in lines]
    return [line for line in bare if re.match(r"(\.venv/bin/)?(hsae|make|python|pip)\b(?! [=(])", line)]


ALL = [(page, command) for page in PAGES for command in dict.fromkeys(commands(page))]


def known_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def check_hsae(words: list[str]) -> None:
    assert words[0] in main.commands, f"hsae has no command {words[0]}"
    if len(words) > 1:  # a command named without arguments is not an example of its use
        with main.commands[words[0]].make_context(words[0], words[1:]):
            pass


@pytest.mark.parametrize(("page", "command"), ALL, ids=lambda value: named(value) if isinstance(value, Path) else value)
def test_every_command_exists_and_takes_its_arguments(page: Path, command: str) -> None:
    program, *words = shlex.split(re.sub(r"<[^>]*>", "NAME", command))
    program = program.removeprefix(".venv/bin/")
    if program == "hsae":
        if words:
            try:
                check_hsae(words)
            except click.UsageError as error:
                pytest.fail(f"{named(page)}: `{command}`: {error.format_message()}")
    elif program == "make":
        targets = [word for word in words if "=" not in word]
        assert set(targets) <= known_targets(), f"{named(page)}: `{command}`"
    elif program == "pip" and "-e" in words:
        extras = re.findall(r"\[([\w,]+)\]", command)
        declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert {name for extra in extras for name in extra.split(",")} <= set(declared["optional-dependencies"])
    elif program == "python":
        paths = [word for word in words if word.endswith(".py")]
        assert all((CHECKOUT / path).is_file() for path in paths), f"{named(page)}: `{command}`"


def test_commands_are_found_at_all() -> None:
    found = {command for _, command in ALL}
    assert {"make demo", "make ui", ".venv/bin/hsae new reviews.csv", ".venv/bin/hsae check reviews"} <= found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = (page.parent / target[0]).resolve() if target[0] else page
        assert path.exists(), f"{named(page)} links to {target[0]}"
        if target[1]:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert target[1] in anchors, f"{named(page)} links to {target[0]}#{target[1]}"


def test_every_page_is_in_the_index() -> None:
    index = (CHECKOUT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (CHECKOUT / "docs").glob("*.md")} - {"index.md"}
    assert pages == {name for name in pages if f"]({name})" in index}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_declarations_are_valid(page: Path) -> None:
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        fields = yaml.safe_load(body) if language == "yaml" else None
        if isinstance(fields, dict) and "extends" in fields:
            fields = inherit("variant", fields, BASE)
        if isinstance(fields, dict) and {"task", "files", "columns"} <= fields.keys():
            parse_declaration(fields, page)


def reviews(n: int = 600) -> pl.DataFrame:
    """A file as the tutorial has it."""
    rng = np.random.default_rng(5)
    good = rng.random(n) < 0.5
    liked = ["the sound is clear and I would buy it again", "it works well and the battery lasts a week"]
    disliked = ["it broke after a few days and nobody answered", "the screen is dark and it was a waste of money"]
    texts = [f"{(liked if g else disliked)[i % 2]}, said buyer n{i}n of the shop" for i, g in enumerate(good)]
    stars = np.clip(np.round(2 + 2 * good + rng.normal(0, 0.7, n)), 1, 5).astype(int)
    return pl.DataFrame({"Review Text": texts, "stars": stars, "product": [f"item {i % 120}" for i in range(n)]})


def tutorial(*verbs: str) -> list[list[str]]:
    lines = [command for command in commands(TUTORIAL) if command.startswith(".venv/bin/hsae ")]
    return [words for words in (shlex.split(line)[1:] for line in lines) if words[0] in verbs]


def test_the_tutorials_own_commands_make_the_datasets_it_speaks_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settle(tmp_path)
    monkeypatch.chdir(root)
    reviews().write_csv(root / "reviews.csv")
    for words in tutorial("new"):
        done = hsae(*words, "--dry-run")
        assert "Nothing was written" in done.output, done.output
        done = hsae(*words)
        assert done.exit_code == 0, done.output
    assert load_dataset(root / "data", "reviews").spec.columns.cluster_by == "product"
    assert load_dataset(root / "data", "reviews_2").spec.columns.text == "Review Text"
    for words in tutorial("check"):
        assert hsae(*words).exit_code == 0
    (body,) = [body for language, body in FENCE.findall(TUTORIAL.read_text(encoding="utf-8")) if language == "yaml"]
    (root / "data" / "reviews_small").mkdir()
    (root / "data" / "reviews_small" / "dataset.yaml").write_text(body, encoding="utf-8")
    done = hsae("check", "reviews_small")
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_tutorial_ends_with_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = settle(tmp_path)
    monkeypatch.chdir(root)
    reviews().write_csv(root / "reviews.csv")
    for words in [tutorial("new")[0], *tutorial("run")]:
        done = spawn(*words, HSAE_EXECUTOR="in_process")
        assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "results" / "reports" / "reviews.html").is_file()
    assert "hypotheses confirmed" in done.stdout
