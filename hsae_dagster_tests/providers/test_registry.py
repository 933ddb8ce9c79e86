import subprocess
import sys
from pathlib import Path

import pytest

from hsae_dagster.dataset.spec import Annotation, Embedding, Interpretation
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.minilm import MiniLM
from hsae_dagster.providers.openai.embedder import OpenAIEmbedder
from hsae_dagster.providers.openai.readers import OpenAIAnnotator, OpenAIInterpreter
from hsae_dagster.providers.registry import LexicalAnnotator, make_annotator, make_embedder, make_interpreter
from hsae_dagster_tests.providers.accounts import spare


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_defaults_are_offline() -> None:
    embedder = make_embedder(Embedding(max_tokens=100))
    assert isinstance(embedder, MiniLM)
    assert embedder.max_tokens == 100
    assert Interpretation().model == "lexical", "claims are found, and no interpreter is asked"
    assert isinstance(make_annotator(Annotation()), LexicalAnnotator)


def test_openai_models_take_the_fields_of_the_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    embedder = make_embedder(Embedding(model="openai:text-embedding-3-large", max_tokens=99, dimensions=256))
    assert isinstance(embedder, OpenAIEmbedder)
    assert (embedder.model, embedder.max_tokens, embedder.embedding_set.dimensions) == (
        "text-embedding-3-large",
        99,
        256,
    )
    interpreter = make_interpreter(Interpretation(model="openai:org/model:tag"))
    assert isinstance(interpreter, OpenAIInterpreter)
    assert interpreter.client.asker.model == "org/model:tag"
    annotator = make_annotator(Annotation(model="openai:m", concepts_per_call=3, max_words=50))
    assert isinstance(annotator, OpenAIAnnotator)
    assert (annotator.concepts_per_call, annotator.max_words) == (3, 50)
    assert annotator.client.server.base_url == "http://127.0.0.1:9/v1"


def test_each_stage_may_ask_elsewhere_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "usual-key")
    monkeypatch.setenv("JUDGE_KEY", "judge-key")
    elsewhere = {"url": "http://127.0.0.1:8/v1", "key": "JUDGE_KEY", "timeout": 7, "concurrency": 3}
    judge = make_annotator(Annotation(model="openai:m", server=elsewhere, temperature=0.5, effort="low"))
    assert isinstance(judge, OpenAIAnnotator)
    found = judge.client.server
    assert (found.endpoint, found.api_key, found.timeout, found.concurrency) == ("127.0.0.1:8/v1", "judge-key", 7, 3)
    body = judge.body(["is long"], "a text")
    assert (body["temperature"], body["reasoning_effort"]) == (0.5, "low")
    usual = make_interpreter(Interpretation(model="openai:m"))
    assert isinstance(usual, OpenAIInterpreter)
    assert (usual.client.server.endpoint, usual.client.server.api_key) == ("127.0.0.1:9/v1", "usual-key")
    # The usual key is for the usual server and goes to no other.
    other = make_embedder(Embedding(model="openai:m", server={"url": "http://127.0.0.1:7/v1"}))
    assert isinstance(other, OpenAIEmbedder)
    assert other.client.server.api_key is None


def test_a_server_section_that_cannot_be_used_is_a_sentence() -> None:
    with pytest.raises(ProviderError, match=r"`annotation\.server\.key` is `NO_SUCH`, and that variable is not set"):
        make_annotator(Annotation(model="openai:m", server={"key": "NO_SUCH"}))
    with pytest.raises(ProviderError, match=r"embedding\.server\.url is not the address of a server"):
        make_embedder(Embedding(model="openai:m", server={"url": "gpu:8000"}))
    with pytest.raises(ProviderError, match=r"`annotation\.model` names the model file .*nowhere\.gguf"):
        make_annotator(Annotation(model="local:/nowhere.gguf"))


@pytest.mark.parametrize("name", ["minilmm", "openai", "openai:", "openai: ", "OpenAI:gpt", "lexical:x", "anthropic:x"])
@pytest.mark.parametrize(
    ("make", "spec", "field", "offline"),
    [
        (make_embedder, Embedding, "embedding.model", "`minilm`"),
        (make_interpreter, Interpretation, "interpretation.model", "`lexical`"),
        (make_annotator, Annotation, "annotation.model", "`lexical`"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_choices(make, spec, field: str, offline: str, name: str) -> None:
    declared = spec(model=name)
    with pytest.raises(ProviderError) as error:
        make(declared)
    for part in (f"`{field}` is `{declared.model}`", offline, "`openai:<model>`"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("make", "spec", "field"),
    [
        (make_interpreter, Interpretation, "interpretation.model"),
        (make_annotator, Annotation, "annotation.model"),
    ],
)
def test_readers_without_key_are_refused_before_any_work(make, spec, field: str) -> None:
    with pytest.raises(ProviderError, match=rf"`{field}: openai:gpt-5-mini` needs a key .*OPENAI_API_KEY.*`lexical`"):
        make(spec(model="openai:gpt-5-mini"))


def test_the_embedder_without_key_knows_its_set_and_refuses_to_embed() -> None:
    embedder = make_embedder(Embedding(model="openai:text-embedding-3-small"), spare())
    assert embedder.embedding_set.dimensions == 1536
    with pytest.raises(ProviderError, match=r"`embedding\.model: .*` needs a key .*OPENAI_API_KEY.*`minilm`"):
        embedder.embed(["a text"])


def test_a_model_file_is_known_by_its_content(tmp_path: Path) -> None:
    made = {}
    for name, content in {"a/m.gguf": b"one", "b/m.gguf": b"one", "c/m.gguf": b"two"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
        made[name] = make_annotator(Annotation(model=f"local:{tmp_path / name}"), asks=False).client.server.endpoint
    assert made["a/m.gguf"] == made["b/m.gguf"] != made["c/m.gguf"]
    assert str(tmp_path) not in made["a/m.gguf"]


def test_minilm_has_no_choice_of_dimensions() -> None:
    with pytest.raises(ProviderError, match=r"`embedding\.dimensions` is 256, but `minilm` always gives 384"):
        make_embedder(Embedding(dimensions=256))


def test_choosing_imports_no_model_library() -> None:
    heavy = "import sys, hsae_dagster.providers.registry as r; from hsae_dagster.dataset.spec import Embedding\n"
    heavy += "r.make_embedder(Embedding(model='openai:m'))\n"
    heavy += "assert not {'openai', 'aiohttp', 'torch', 'onnxruntime', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", heavy], check=True)
