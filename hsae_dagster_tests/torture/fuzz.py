"""Thousands of inputs that nobody would write on purpose: each is handled, or refused in one sentence.

A sentence is one of our errors that names the file (or what was read) and offers a remedy. Anything else that is raised
is wrong; each kind of it is listed once.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hsae_dagster.dataset.discovery import Dataset, files_fingerprint, load_dataset, load_yaml, parse_declaration
from hsae_dagster.dataset.new.intake import take_in, write_plain
from hsae_dagster.dataset.new.proposal import propose, render
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import HsaeError
from hsae_dagster.providers.openai.readers import read_concept, read_judgements
from hsae_dagster.providers.replies import read_content, read_response
from hsae_dagster.storage.artifacts import load_legacy_checkpoint
from hsae_dagster_tests.assets.workspace import declaration, tiny_texts
from hsae_dagster_tests.torture import odd
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import Yard

REMEDY = re.compile(
    r"\b(correct|check|complete|give|name|remove|add|use|make|put|set|write|export|rename|choose|wait|create|move)\b",
    re.IGNORECASE,
)
GOOD = (
    "text,label,who\n"
    + "\n".join(f'"a text, number {n}",{n % 5},{"ann" if n % 2 else "bob"}' for n in range(12))
    + "\n"
)


class Fuzz:
    """One reader: `attempt(input)` for many inputs, each judged."""

    def __init__(self, test: str, yard: Yard, named: str) -> None:
        self.tally = Tally(test)
        self.yard, self.named = yard, named
        self.seen: set[str] = set()
        self.refused = 0

    def run(self, inputs: st.SearchStrategy[Any], attempt: Callable[[Any], None], full: int, short: int) -> Tally:
        @seed(int(self.yard.rng.integers(2**32)))
        @settings(
            max_examples=self.yard.some(full, short),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def each(value: Any) -> None:
            self.judge(value, attempt)

        each()
        self.tally.note = f"{self.refused:,} refused in a sentence, the others handled"
        return self.tally

    def judge(self, value: Any, attempt: Callable[[Any], None]) -> None:
        self.tally.tries += 1
        try:
            attempt(value)
        except HsaeError as error:
            self.refused += 1
            said = str(error)
            if self.named not in said or not REMEDY.search(said) or "Traceback (most" in said:
                self.wrong("a sentence without file or remedy", said, value)
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - this is what is looked for
            self.wrong(type(error).__name__, str(error), value)

    def wrong(self, kind: str, said: str, value: Any) -> None:
        """Remember a defect, once per kind."""
        mark = f"{kind}: {re.sub(r'[^a-z ]+', '', said.lower())[:40]}"
        if mark not in self.seen:
            self.seen.add(mark)
            self.tally.wrong.append(f"{kind}: {said[:400]!r} of {value!r:.400}")


def fuzz(yard: Yard) -> list[Tally]:
    """All readers."""
    return [
        _declarations(yard),
        _yaml_text(yard),
        *_tables(yard),
        *_formats(yard),
        _parquet(yard),
        *_answers(yard),
        _checkpoints(yard),
    ]


def _declarations(yard: Yard) -> Tally:
    folder = yard.folder / "data" / "d"
    folder.mkdir(parents=True)
    tiny_texts(30).write_parquet(folder / "texts.parquet")

    def attempt(value: Any) -> None:
        text = yaml.safe_dump(value, allow_unicode=True)
        (folder / "dataset.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        files_fingerprint(load_dataset(folder.parent, "d"))

    return Fuzz("dataset.yaml: odd fields", yard, "d").run(odd.declarations(declaration()), attempt, 3000, 150)


def _yaml_text(yard: Yard) -> Tally:
    folder = yard.folder / "data" / "d"
    good = yaml.safe_dump(declaration()).encode()

    def attempt(data: bytes) -> None:
        (folder / "dataset.yaml").write_bytes(data)
        files_fingerprint(load_dataset(folder.parent, "d"))

    inputs = st.one_of(odd.mangled(good), odd.texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
    return Fuzz("dataset.yaml: mangled bytes", yard, "d").run(inputs, attempt, 3000, 150)


def table(yard: Yard, name: str, **columns: Any) -> Dataset:
    """A dataset of one file."""
    spec = DatasetSpec.model_validate(
        {"task": "regression", "files": name, "columns": {"text": "text", "label": "label", **columns}}
    )
    return Dataset("d", yard.folder, spec)


def made_new(path: Path) -> None:
    """What `hsae new` does with a file: read, propose, write plainly, and read as every stage will."""
    taken = take_in(path)
    proposal = propose(taken.frame, taken.files, notes=taken.notes)
    with tempfile.TemporaryDirectory() as aside:
        write_plain(taken, Path(aside))
        folder = Path(aside) if taken.rewritten else path.parent
        spec = parse_declaration(load_yaml(render(proposal, path.name)), Path("dataset.yaml"))
        read_rows(Dataset("d", folder, spec))


def _tables(yard: Yard) -> list[Tally]:
    found = []
    lines = "".join(json.dumps({"text": f"a text, number {n}", "label": n % 3, "who": "ann"}) + "\n" for n in range(12))
    jsons = odd.records.map(lambda rows: "\n".join(json.dumps(row, default=str) for row in rows).encode())
    arrays = odd.records.map(lambda rows: json.dumps(rows, default=str).encode())
    cells = st.lists(st.lists(odd.texts, max_size=4).map(",".join), max_size=6).map(
        lambda rows: "\n".join(["text,label,who", *rows]).encode("utf-8", "surrogatepass")
    )
    for suffix, inputs in {
        ".csv": st.one_of(odd.mangled(GOOD.encode()), cells, odd.mangled(GOOD.encode("utf-16"))),
        ".tsv": odd.mangled(GOOD.replace(",", "\t").encode()),
        ".jsonl": st.one_of(odd.mangled(lines.encode()), jsons),
        ".json": st.one_of(odd.mangled(f"[{','.join(lines.split(chr(10))[:-1])}]".encode()), arrays),
    }.items():
        path = yard.folder / f"odd{suffix}"

        def strictly(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            read_rows(table(yard, path.name))

        def leniently(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            made_new(path)

        found.append(Fuzz(f"{suffix}: the reader", yard, path.name).run(inputs, strictly, 2000, 80))
        found.append(Fuzz(f"{suffix}: hsae new", yard, "").run(inputs, leniently, 1000, 40))
    return found


def _formats(yard: Yard) -> list[Tally]:
    """Workbooks, Parquet and files of Stata and SPSS, as `hsae new` reads them."""
    import openpyxl
    import pandas as pd
    import pyreadstat

    rows = [(f"a text, number {n}", n % 3) for n in range(12)]
    book = openpyxl.Workbook()
    for row in [("text", "label"), *rows]:
        book.active.append(row)
    book.save(yard.folder / "odd.xlsx")
    frame = pd.DataFrame(rows, columns=["text", "label"])
    pyreadstat.write_sav(frame, str(yard.folder / "odd.sav"))
    pyreadstat.write_dta(frame, str(yard.folder / "odd.dta"))
    found = []
    pl.from_pandas(frame).write_parquet(yard.folder / "odd.parquet")
    for suffix in (".xlsx", ".sav", ".dta", ".parquet"):
        path = yard.folder / f"odd{suffix}"

        def leniently(value: bytes | pl.DataFrame, path: Path = path) -> None:
            if isinstance(value, bytes):
                path.write_bytes(value)
            else:
                value.write_parquet(path)
            made_new(path)

        inputs: st.SearchStrategy[Any] = odd.mangled(path.read_bytes())
        inputs = st.one_of(inputs, odd.frames()) if suffix == ".parquet" else inputs
        found.append(Fuzz(f"{suffix}: hsae new", yard, "").run(inputs, leniently, 1000, 40))
    return found


def _parquet(yard: Yard) -> Tally:
    path = yard.folder / "odd.parquet"
    tiny_texts(30).rename({"score": "label"}).write_parquet(path)
    good = path.read_bytes()

    def attempt(value: pl.DataFrame | bytes) -> None:
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            value.write_parquet(path)
        read_rows(table(yard, path.name))

    inputs: st.SearchStrategy[Any] = st.one_of(odd.frames(), odd.mangled(good))
    return Fuzz(".parquet: the reader", yard, "odd.parquet").run(inputs, attempt, 3000, 100)


def _answers(yard: Yard) -> list[Tally]:
    def content(text: str) -> None:
        reply = read_content(text)
        assert all(isinstance(said, bool | str) for said in read_judgements(reply, 3))
        predicate, reason = read_concept(reply)
        assert (predicate is None) != (reason is None)

    def body(value: Any) -> None:
        for count in (None, 2):
            reply = read_response(value, count)
            assert (reply.value is None) == (reply.reason is not None)

    written = st.one_of(
        odd.texts,
        odd.values.map(lambda value: json.dumps(value, default=str)),
        st.dictionaries(st.sampled_from(("c1", "c2", "c3", "concept", "c0")), odd.values, max_size=4).map(
            lambda value: json.dumps(value, default=str)
        ),
        st.integers(1, 100_000).map(lambda n: "[" * n),
    )
    choice = st.fixed_dictionaries({}, optional={"message": odd.values, "finish_reason": odd.words})
    item = st.fixed_dictionaries({}, optional={"index": odd.values, "embedding": odd.values})
    sent = {"choices": st.lists(choice, max_size=2), "data": st.lists(item, max_size=3)}
    fields = {name: st.one_of(odd.values, usual) for name, usual in sent.items()}
    messages = st.fixed_dictionaries({}, optional={**fields, "usage": odd.values, "model": odd.values})
    return [
        Fuzz("what a model wrote", yard, "").run(written, content, 5000, 300),
        Fuzz("what a server sent", yard, "").run(st.one_of(messages, odd.values), body, 5000, 300),
    ]


def _checkpoints(yard: Yard) -> Tally:
    import numpy as np
    import torch

    path, rng = yard.folder / "odd.pt", np.random.default_rng(0)
    shapes = {"encoder.weight": (6, 4), "decoder.weight": (4, 6), "input_bias": (4,), "neuron_bias": (6,)}
    state = {name: torch.tensor(rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
    config = {"input_dim": 4, "m_total_neurons": 6, "k_active_neurons": 2, "use_batch_topk": False}
    torch.save({"config": config, "state_dict": state}, path)
    good = path.read_bytes()

    def attempt(value: bytes | dict[str, Any]) -> None:
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            torch.save({"config": {**config, **value}, "state_dict": state}, path)
        load_legacy_checkpoint(path, input_dim=4)

    configs = st.dictionaries(st.sampled_from([*config, "prefix_lengths", "aux_k", "multi_k"]), odd.plain, min_size=1)
    inputs: st.SearchStrategy[Any] = st.one_of(odd.mangled(good), configs)
    return Fuzz("checkpoints of others", yard, "odd.pt").run(inputs, attempt, 2000, 80)
