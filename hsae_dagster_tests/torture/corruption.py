"""A flipped byte, and a torn last write, in every kind of file that a run leaves.

Afterwards a run must give what an undisturbed one gives, or stop with a sentence that names the file and the remedy. A
traceback, a sentence that names neither, and a result that differs are wrong.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hsae_dagster_tests.assets.workspace import NAMES, Workspace
from hsae_dagster_tests.torture.children import Said
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import Yard, asked_server, differences, finished

# What a sentence must offer.
REMEDY = re.compile(r"\b(materialize|restore|remove|correct|check|run again|make room|put it|replace)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it lies under results/, and from which stage on a run has to read it again."""

    name: str
    pattern: str
    first: str

    def files(self, workspace: Workspace) -> list[Path]:
        found = sorted(path for path in workspace.project.results.glob(self.pattern) if path.stat().st_size)
        assert found, f"there is no {self.pattern}"
        return found


KINDS = (
    Kind("corpus table", "objects/corpus/*/*.parquet", "embeddings"),
    Kind("vectors of a corpus", "objects/embeddings/*/_vectors.npy", "sae_checkpoints"),
    Kind("checkpoint", "objects/sae_checkpoints/*/*.safetensors", "activations"),
    Kind("shared checkpoint", "objects/sae/*/*.safetensors", "sae_checkpoints"),
    Kind("codes", "objects/activations/*/*.safetensors", "selected_neurons"),
    Kind("JSON of a result", "objects/interpretations/*/[a-z]*.json", "annotation_matrix"),
    Kind("annotations", "objects/annotation_matrix/*/*.parquet", "evaluation_report"),
    Kind("tables of the evaluation", "objects/evaluation_report/*/*.parquet", "evaluation_report"),
    Kind("manifest", "objects/*/*/manifest.json", "evaluation_report"),
    Kind("vectors: fragment", "lancedb/asked__*/data/*.lance", "sae_checkpoints"),
    Kind("vectors: version", "lancedb/asked__*/_versions/*.manifest", "sae_checkpoints"),
    Kind("records", "records.sqlite", "interpretations"),
    Kind("page", "reports/**/*.html", "evaluation_report"),
)


def flip(path: Path, yard: Yard) -> str:
    """Change one bit of one byte."""
    data = bytearray(path.read_bytes())
    place = int(yard.rng.integers(len(data)))
    data[place] ^= 1 << int(yard.rng.integers(8))
    path.write_bytes(data)
    return f"byte {place} of {path.name} flipped"


def tear(path: Path, yard: Yard) -> str:
    """Keep the beginning, as a write that the power cut short."""
    data = path.read_bytes()
    place = int(yard.rng.integers(len(data)))
    path.write_bytes(data[:place])
    return f"{path.name} torn after {place} bytes"


def corruption(yard: Yard) -> list[Tally]:
    """Each kind of file, damaged in both ways, before a run of everything and before one of what reads it."""
    with asked_server(0.0):
        calm = finished(yard, "calm")
        return [_torment(yard, calm, kind) for kind in KINDS]


def _torment(yard: Yard, calm: Workspace, kind: Kind) -> Tally:
    tally = Tally(f"damaged {kind.name}")
    ends = {"healed": 0, "refused": 0}
    for damage, stages in _ways(yard, kind):
        hurt = yard.project("hurt")
        calm.copy_to(hurt.root)
        _forget(hurt, kind.first)
        files = kind.files(hurt)
        path = files[int(yard.rng.integers(len(files)))]
        done = damage(path, yard)
        said = yard.run(hurt, *stages)
        tally.tries += 1
        problem = _judge(said, hurt, calm, path, stages)
        if stages and not said.success and not problem:
            # What a user does next; it may need more than that, but must never end in another result.
            problem = _judge(yard.run(hurt), hurt, calm, path, [])
        ends["healed" if said.success else "refused"] += 1
        if problem:
            tally.wrong.append(f"{done}, then {' '.join(stages) or 'a whole run'}: {problem}")
    tally.note = f"{ends['healed']} ended in the same result, {ends['refused']} in a sentence"
    return tally


def _ways(yard: Yard, kind: Kind) -> Iterator[tuple[Callable[[Path, Yard], str], list[str]]]:
    rest = NAMES[NAMES.index(kind.first) :]
    # In the short form each kind of file meets one of the two.
    for damage in (flip, tear) if not yard.short else ((flip, tear)[KINDS.index(kind) % 2],):
        for turn in range(yard.some(3, 1)):
            # Half of the runs begin where the file is read, so that nothing upstream can make it again.
            yield damage, rest if (turn + (damage is tear)) % 2 == 0 else []


def _forget(workspace: Workspace, first: str) -> None:
    """Let the results from a stage on be made again; the evaluation reads what it rests on in any case."""
    for stage in NAMES[NAMES.index(first) :]:
        if stage != "evaluation_report":
            shutil.rmtree(workspace.project.results / "objects" / stage, ignore_errors=True)


def _judge(said: Said, hurt: Workspace, calm: Workspace, path: Path, stages: list[str]) -> str | None:
    """What is wrong with how it ended, or None."""
    if said.success:
        different = differences(hurt, calm, *(stages or NAMES))
        return f"a result that differs: {', '.join(different)}" if different else None
    if said.crash or not said.sentences:
        return f"no sentence but {said.crash[-1500:]}"
    words = " ".join(said.sentences.values())
    if not REMEDY.search(words):
        return f"no remedy in: {words}"
    folders = (path.name, *(folder.name for folder in list(path.parents)[:2]))
    names = (str(path), *(name.removesuffix(".lance") for name in folders))
    return None if any(name in words for name in names) else f"{path} is not named in: {words}"
