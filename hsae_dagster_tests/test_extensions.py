"""What a user adds from outside the package, by import path: found, used, known by its source, refused in words."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from hsae_dagster import extensions
from hsae_dagster.core.concepts.candidates import SOURCES, text_pools
from hsae_dagster.core.concepts.claims import WordGroup
from hsae_dagster.core.selection.methods import METHODS, select_neurons
from hsae_dagster.dataset.spec import Annotation, DatasetSpec, Embedding
from hsae_dagster.errors import HsaeError, MethodError, ProviderError
from hsae_dagster.orchestration.stage import check_names
from hsae_dagster.providers.registry import ANNOTATORS, EMBEDDERS, INTERPRETERS, make_annotator, make_embedder
from hsae_dagster.report.page import OWN_SECTIONS, render_report
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.report.make_content import make_content

REGISTRIES = (METHODS, EMBEDDERS, SOURCES, INTERPRETERS, ANNOTATORS, OWN_SECTIONS)
# A package that is nowhere in this one: every kind of extension, over two modules that share a third.
FILES = {
    "__init__.py": "",
    "sizes.py": "BINS = 4\n",
    "method.py": """
import numpy as np
from .sizes import BINS

def information(column, target):
    fires, level = column != 0, np.digitize(target, np.quantile(target, np.linspace(0, 1, BINS + 1)[1:-1]))
    joint = np.histogram2d(fires, level, bins=(2, BINS))[0] / len(target)
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    kept = joint > 0
    return float((joint[kept] * np.log(joint[kept] / alone[kept])).sum())
""",
    "vectors.py": """
import zlib
import numpy as np

def embed(texts):
    found = np.zeros((len(texts), 64))
    for row, text in enumerate(texts):
        for word in text.lower().replace(".", "").split():
            found[row, zlib.crc32(word.encode()) % 64] += 1.0 / (1.0 + (len(word) < 4))
    return found
""",
    "claims.py": """
from hsae_dagster.core.concepts.claims import WordGroup

def kitchen(texts):
    return [WordGroup(("soup", "oven", "garlic", "recipe", "flour", "butter"))]
""",
    "page.py": """
import polars as pl
from hsae_dagster.report.figures import draw
from hsae_dagster.report.page import Section

def prevalence(content):
    shares = [h.test.prevalence for h in content.hypotheses]
    figure = draw("prevalence", "Shares of texts.", (5.0, 2.0), lambda sheet: sheet.subplots().hist(shares))
    table = pl.DataFrame({"claim": [h.claim for h in content.hypotheses], "share": shares})
    return Section("How often <claims> hold", ["Some hold & some do not.", figure, table])
""",
}


def forget() -> None:
    """What a new process would not know."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]
    extensions._source_hash.cache_clear()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package `lab` on the path, as if it were installed."""
    folder = tmp_path / "elsewhere" / "lab"
    folder.mkdir(parents=True)
    for name, source in FILES.items():
        (folder / name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    forget()


def test_one_run_with_a_method_an_embedder_a_source_and_a_section_from_outside(lab: Path, workspace: Workspace) -> None:
    extended = {
        "embedding": {"model": "lab.vectors:embed"},
        "selection": {"n": 4, "method": "lab.method:information"},
        "interpretation": {"sources": ["lab.claims:kitchen"]},
        "report": {"sections": ["lab.page:prevalence"]},
    }
    workspace.declare("ratings", tiny_texts(), **extended)
    run = workspace.run("ratings")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    record = workspace.current("ratings", "embeddings").json("embeddings.json")
    assert (record["model"], record["dimensions"]) == ("lab.vectors:embed", 64)
    selected = workspace.current("ratings", "selected_neurons")
    assert selected.json("selection.json")["method"] == "lab.method:information"
    assert (read_frame(selected.file("neurons.parquet"))["score"] > 0).all(), "information is never negative"
    report = workspace.current("ratings", "evaluation_report")
    found = {row["concept"]["predicate"]: row["made_from"] for row in concepts(workspace) if row["concept"]}
    assert "lab.claims:kitchen" in found.values()
    page = report.file("_report.html").read_text(encoding="utf-8")
    assert "your own source `lab.claims:kitchen`" in page
    section = re.search(r'<section id="own-1".*?</section>', page, re.DOTALL)
    assert section
    assert "How often &lt;claims&gt; hold" in section[0]
    assert "Some hold &amp; some do not." in section[0]
    assert section[0].count("<svg") == 1
    assert section[0].count("<tr>") == 1 + read_frame(report.file("hypotheses.parquet")).height
    assert '<a href="#own-1">How often &lt;claims&gt; hold</a>' in page
    before = {name: workspace.current("ratings", name).data_version for name in ("embeddings", "selected_neurons")}

    # A new process after an edit of a module that only the method imports.
    (lab / "sizes.py").write_text("BINS = 2  # was four\n", encoding="utf-8")
    forget()
    run = workspace.run("ratings")
    assert run.success
    assert [name for name in before if workspace.current("ratings", name).data_version != before[name]] == [
        "selected_neurons"
    ]
    assert run.metadata("embeddings")["new"] == 0

    # And after one of the section alone.
    kept = workspace.current("ratings", "annotation_matrix").data_version
    edited = FILES["page.py"].replace("Some hold", "Many hold")
    (lab / "page.py").write_text(edited, encoding="utf-8")
    forget()
    assert workspace.run("ratings").success
    page = workspace.current("ratings", "evaluation_report").file("_report.html").read_text(encoding="utf-8")
    assert "Many hold &amp; some do not." in page
    assert workspace.current("ratings", "annotation_matrix").data_version == kept


def concepts(workspace: Workspace) -> list[dict]:
    return workspace.current("ratings", "interpretations").json("concepts.json")


def test_the_source_is_known_in_one_process_as_it_was_imported(lab: Path) -> None:
    first = METHODS.sources("lab.method:information")
    assert METHODS.sources("lasso") == {}
    (lab / "sizes.py").write_text("BINS = 9\n", encoding="utf-8")
    assert METHODS.sources("lab.method:information") == first, "the code that runs is the one that was imported"
    (lab / "page.py").write_text("", encoding="utf-8")
    forget()
    second = METHODS.sources("lab.method:information")
    assert list(second) == list(first) == ["selection.method lab.method:information"]
    assert second != first
    (lab / "vectors.py").write_text("", encoding="utf-8")
    forget()
    assert METHODS.sources("lab.method:information") == second, "what a method does not import does not count"


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.field)
def test_a_name_that_stands_for_nothing_is_answered_with_those_that_do(registry, lab: Path) -> None:
    for name, said in {
        "magic": "is not known",
        "lab.nowhere:embed": "cannot be imported: ModuleNotFoundError",
        "lab.method:absent": "cannot be imported: AttributeError",
        "lab.sizes:BINS": "is of type int, not a function",
    }.items():
        with pytest.raises(registry.error) as error:
            registry.find(name)
        sentence = str(error.value)
        assert sentence.startswith(f"`{registry.field}`")
        assert name in sentence
        assert said in sentence
        if "type int" not in said:
            assert all(f"`{known}`" in sentence for known in (*registry.shipped, "package.module:function"))


def test_a_module_that_breaks_on_import_is_a_sentence(lab: Path) -> None:
    (lab / "method.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(MethodError, match=r"`lab.method:information`, which cannot be imported: ZeroDivisionError"):
        METHODS.find("lab.method:information")


def own(lab: Path, body: str) -> str:
    """A module of the user's with one function, and its path."""
    (lab / "mine.py").write_text(f"import numpy as np\n\ndef fn(*given):\n    {body}\n", encoding="utf-8")
    forget()
    return "lab.mine:fn"


def select(path: str) -> None:
    dense = np.random.default_rng(0).random((40, 5))
    select_neurons(sparse.csr_matrix(dense), dense[:, 0], 2, method=path)


def embed(path: str) -> None:
    make_embedder(Embedding(model=path)).embed(["one", "two", "three"])


def propose(path: str) -> None:
    text_pools([path], ["one", "two"])


def judge(path: str) -> None:
    make_annotator(Annotation(model=path)).annotate([CONCEPT], ["one", "two"], print_nothing)


def show(path: str) -> None:
    render_report(make_content(settings={"report": {"sections": [path]}}))


def print_nothing(message: str) -> None:
    """For what reports."""


class CONCEPT:
    predicate = "is long"


USES = {
    "selection.method": (select, MethodError),
    "embedding.model": (embed, ProviderError),
    "interpretation.sources": (propose, MethodError),
    "annotation.model": (judge, ProviderError),
    "report.sections": (show, MethodError),
}


CLAIMS = "from hsae_dagster.core.concepts.claims import Cue, Length, WordGroup"
SECTION = "from hsae_dagster.report.page import Section"


@pytest.mark.parametrize("field", USES)
def test_a_function_of_other_arguments_is_told_those_it_must_take(field: str, lab: Path) -> None:
    path = own(lab, "return 1")
    source = (lab / "mine.py").read_text(encoding="utf-8")
    (lab / "mine.py").write_text(source.replace("*given", "one, two, three"), encoding="utf-8")
    forget()
    use, kind = USES[field]
    registry = next(registry for registry in REGISTRIES if registry.field == field)
    with pytest.raises(kind) as error:
        use(path)
    said = str(error.value)
    assert said.startswith(f"`{field}`: `lab.mine:fn` cannot be called: TypeError: fn() missing")
    assert registry.signature in said
    assert "extensions.py" not in said


@pytest.mark.parametrize("body", ["np.linalg.inv('a')", "import sys; sys.exit(2)"])
def test_what_a_library_raises_is_a_sentence_with_the_users_own_line(body: str, lab: Path) -> None:
    with pytest.raises(ProviderError, match=r"`lab.mine:fn` raised .* \(mine.py, line 4\)"):
        embed(own(lab, body))


@pytest.mark.parametrize("field", USES)
def test_a_function_that_raises_is_a_sentence_with_its_line(field: str, lab: Path) -> None:
    use, kind = USES[field]
    with pytest.raises(kind) as error:
        use(own(lab, "raise KeyError('weight')"))
    said = "`lab.mine:fn` raised KeyError: 'weight' (mine.py, line 4). Correct it there and run again"
    assert str(error.value).startswith(f"`{field}`: {said}")


@pytest.mark.parametrize(
    ("field", "body", "said"),
    [
        ("selection.method", "return given[0]", "ndarray of shape (40,) for neuron 0"),
        ("selection.method", "return None", "NoneType"),
        ("embedding.model", "return np.ones(3)", "an array of shape (3,) for"),
        ("embedding.model", "return np.ones((2, 4))", "an array of shape (2, 4) for"),
        ("embedding.model", "return 'vectors'", "str that holds no rows of numbers"),
        (
            "embedding.model",
            "import torch; return torch.ones((len(given[0]), 4), requires_grad=True)",
            "Tensor that holds no rows of numbers",
        ),
        ("embedding.model", "return np.full((len(given[0]), 4), np.nan)", "numbers that are missing or infinite"),
        ("embedding.model", "return np.ones((len(given[0]), 3 + len(given[0])))", "6 numbers for a text, and 4"),
        ("interpretation.sources", "return ['soup']", "list that is no list of WordGroup"),
        ("interpretation.sources", f"{CLAIMS}; return [WordGroup('soup')]", "WordGroup(terms='soup'), whose terms are"),
        ("interpretation.sources", f"{CLAIMS}; return [WordGroup(['soup'])]", "WordGroup(terms=['soup']), whose terms"),
        (
            "interpretation.sources",
            f"{CLAIMS}; return [WordGroup(())]",
            "WordGroup(terms=()), whose terms are no tuple",
        ),
        ("interpretation.sources", f"{CLAIMS}; return [WordGroup((1,))]", "WordGroup(terms=(1,)), whose terms are no"),
        ("interpretation.sources", f"{CLAIMS}; return [WordGroup(('Soup',))]", "the term 'Soup', which no text"),
        ("interpretation.sources", f"{CLAIMS}; return [Cue('absent')]", "Cue(name='absent'), a cue that is not"),
        ("interpretation.sources", f"{CLAIMS}; return [Length('9', True)]", "Length(words='9', most=True), whose"),
        (
            "annotation.model",
            "import torch; return torch.ones((len(given[1]), len(given[0])), requires_grad=True)",
            "Tensor that holds no numbers",
        ),
        ("annotation.model", "return np.ones((1, 2))", "shape (1, 2) for 2 texts and 1 claims"),
        ("annotation.model", "return [[0.5], [1]]", "answers other than 1 (yes)"),
        ("report.sections", "return '<script>'", "str"),
        ("report.sections", f"{SECTION}; return Section('T', 'one paragraph')", "a Section whose title is of type str"),
        ("report.sections", f"{SECTION}; return Section('T', None)", "a Section whose title is of type str and whose"),
        ("report.sections", f"{SECTION}; return Section(None, ['a'])", "a Section whose title is of type NoneType"),
    ],
)
def test_a_result_of_the_wrong_kind_is_a_sentence_with_what_it_must_be(
    field: str, body: str, said: str, lab: Path
) -> None:
    use, kind = USES[field]
    registry = next(registry for registry in REGISTRIES if registry.field == field)
    with pytest.raises(kind) as error:
        use(own(lab, body))
    assert str(error.value).startswith(f"`{field}`: `lab.mine:fn` returned {said}")
    assert registry.signature in str(error.value)


def test_vectors_of_ones_own_have_unit_length_and_other_fields_are_refused(lab: Path) -> None:
    path = own(lab, "return [[3.0, 4.0] if text else [0.0, 0.0] for text in given[0]]")
    embedder = make_embedder(Embedding(model=path))
    np.testing.assert_allclose(embedder.embed(["a", ""]), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert embedder.embed([]).shape == (0, 2)
    with pytest.raises(ProviderError, match=r"`embedding.max_tokens` has no effect on your own `lab.mine:fn`"):
        make_embedder(Embedding(model=path, max_tokens=64))


def test_claims_of_ones_own_source_are_judged_here_and_taken_once(lab: Path) -> None:
    pool = text_pools(["lab.claims:kitchen", "style"], ["the soup", "a boat", "Butter!"])["lab.claims:kitchen"]
    assert pool.meanings == (WordGroup(("soup", "oven", "garlic", "recipe", "flour", "butter")),)
    assert pool.columns.toarray().ravel().tolist() == [1.0, 0.0, 1.0]


def test_an_unknown_name_stops_the_first_stage_before_anything_is_computed(lab: Path, workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts(60), report={"sections": ["lab.page:absent"]})
    run = workspace.run("ratings")
    assert list(run.failures) == ["corpus"]
    assert "`report.sections` is `lab.page:absent`, which cannot be imported" in run.sentence("corpus")


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.field)
def test_every_field_that_names_something_is_looked_at_before_the_first_stage(registry) -> None:
    section, _, field = registry.field.partition(".")
    declared = {"annotation": {"model": "openai:m"}}
    declared[section] = {field: ["x:"] if registry in (SOURCES, OWN_SECTIONS) else "x:"}
    spec = DatasetSpec(task="regression", files="a.csv", columns={"text": "t", "label": "y"}, **declared)
    with pytest.raises(HsaeError, match=f"`{registry.field}` is `x:`, which is not known"):
        check_names(spec)


def test_a_table_of_ones_own_section_shows_missing_values_as_nothing(lab: Path) -> None:
    path = own(
        lab,
        "from hsae_dagster.report.page import Section; import polars as pl; "
        "return Section('T', [pl.DataFrame({'a': [None, 0.25], 'b': ['<b>', None]})])",
    )
    page = render_report(make_content(settings={"report": {"sections": [path]}}))
    assert "<td></td><td>&lt;b&gt;</td>" in page
    assert '<td class="figure">0.25</td><td></td>' in page


def test_what_ships_is_listed_in_the_field_that_chooses_it() -> None:
    from hsae_dagster_tests.dataset.field_reference import field_reference

    page = field_reference()
    for registry in REGISTRIES:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{registry.field}` |")]
        assert all(f"`{name}`" in row for name in registry.shipped), row
        assert "`package.module:function`" in row
