"""Every row of the table, or those named: `python -m benchmarks.speed [row ...]`.

Each row is one command (`python -m benchmarks.speed lasso`); `--list` names them, `--full` runs the sizes that take the
reference ten minutes and 18 GB. Both sides work on the same data, in alternation, in processes of their own; what they
find is asserted equal, so a row that is shown is a row that agrees. Needs hypothesaes==2.0.1, installed without its
dependencies (requirements-reference.txt), and the dev tools. The table goes to the terminal, everything to JSON.

Real activations: those of the dataset of the demo, which the row `demo` makes, or of --results and --dataset.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed import embedder, half_samples, memory, project, selection, store, training
from benchmarks.speed.children import ROOT
from benchmarks.speed.machine import facts, roofline
from benchmarks.speed.made import real, save_codes, synthetic
from benchmarks.speed.outcome import Row, table
from hsae_dagster.core.sae.model import SAEConfig
from hsae_dagster.storage.objects import ObjectStore


class NotHereError(Exception):
    """A row that this machine has no means for, in a sentence."""


@dataclass(frozen=True)
class Bench:
    """What the rows need to know.

    Attributes:
        folder: scratch, removed at the end.
        full: the largest sizes.
        shrink: divides every size (for trying out).
        results: a project's results folder with `dataset`, or None for the demo's.
        dataset: whose embeddings are the real ones.
    """

    folder: Path
    full: bool
    shrink: int
    results: Path | None
    dataset: str

    def size(self, texts: int) -> int:
        """Texts of a row, shrunk."""
        return max(texts // self.shrink, 2000)

    def codes(self, texts: int, m: int, k: int = 32, *, dead: float = 0.01, skew: float = 0.6) -> Path:
        """Synthetic codes, made once for all rows that want them."""
        name = f"codes-{texts}-{m}-{k}-{dead}-{skew}"
        path = self.folder / f"{name}.npz"
        made = path.is_file() or save_codes(
            self.folder, name, synthetic(texts, 128, SAEConfig(m=m, k=k), dead=dead, skew=skew)
        )
        return path if made is True else Path(made)


def lasso(bench: Bench) -> list[Row]:
    n = bench.size(200_000)
    return [selection.row(f"lasso, {n:,} × 1,024, K 32, 20 neurons", bench.codes(n, 1024), "lasso", goal=200)]


def logistic(bench: Bench) -> list[Row]:
    n = bench.size(114_000 if bench.full else 28_500)
    made = synthetic(n, 384, SAEConfig(m=4096, k=32))
    size = f"{n:,} × 4,096, K 32" + ("" if bench.full else " (quarter)")
    return memory.rows(size, memory.store(bench.folder, made), 600)


def correlation(bench: Bench) -> list[Row]:
    n = bench.size(50_000)
    codes = bench.codes(n, 4096)
    return [selection.row(f"correlation, {n:,} × 4,096", codes, "correlation", goal=500, rounds=9)]


def separation(bench: Bench) -> list[Row]:
    # Every neuron fires on a hundred texts or more: the reference fills up rarer ones with silent texts.
    n = bench.size(50_000)
    codes = bench.codes(n, 4096 // bench.shrink, dead=0.0, skew=0.2)
    return [selection.row(f"separation, {n:,} × {4096 // bench.shrink:,}", codes, "separation", goal=100)]


def real_activations(bench: Bench) -> list[Row]:
    results = bench.results or bench.folder / "demo" / "results"
    if not (results.is_dir() and ObjectStore(results).has(bench.dataset, "embeddings")):
        raise NotHereError(
            f"no embeddings of `{bench.dataset}` in {results.name}/; run the row `demo` with it, or name --results"
        )
    made = real(results, bench.dataset, SAEConfig(m=1024, k=32))
    path = save_codes(bench.folder, "real", made)
    shown = f"{bench.dataset}, {len(made.outcome):,} × 1,024"
    return [
        selection.row(f"lasso, {shown}", path, "lasso", goal=None),
        selection.row(f"L1-logistic, {shown}", path, "lasso", task="classification", goal=None),
        selection.row(f"correlation, {shown}", path, "correlation", goal=None),
    ]


def step(bench: Bench) -> list[Row]:
    return [training.step_row("SAE step, d 1,536 M 1,024 K 32", 1536, 1024, 32, goal=4)]


def matryoshka(bench: Bench) -> list[Row]:
    prefixes = (64, 256, 1024)
    return [training.step_row("SAE step, Matryoshka 64/256/1,024", 1536, 1024, 32, goal=4, prefixes=prefixes)]


def small(bench: Bench) -> list[Row]:
    return [training.step_row("SAE step, d 384 M 256 K 8", 384, 256, 8, goal=2.5, rounds=7, steps=30)]


def guided(bench: Bench) -> list[Row]:
    return [
        training.guided_row("SAE step guided by pairs, d 384 M 256 K 8", 384, 256, 8, rounds=9, steps=40),
        training.guided_row("SAE step guided by pairs, d 1,536 M 1,024 K 32", 1536, 1024, 32),
    ]


def convergence(bench: Bench) -> list[Row]:
    texts, epochs = (bench.size(50_000), 30) if bench.full else (bench.size(12_000), 12)
    name = f"SAE to the same validation loss, {texts:,} × 1,536, M 1,024 K 32"
    return [training.convergence_row(name, texts, 1536, 1024, 32, epochs, goal=4)]


def embeddings(bench: Bench) -> list[Row]:
    return store.rows(bench.folder, bench.size(210_000), 1536, 2000)


def sentences(bench: Bench) -> list[Row]:
    return [embedder.row(max(2000 // bench.shrink, 100))]


def stability(bench: Bench) -> list[Row]:
    n = bench.size(200_000)
    return [half_samples.row(f"100 half-samples, {n:,} × 1,024, beside one selection", bench.codes(n, 1024))]


def definitions(bench: Bench) -> list[Row]:
    return [project.definitions_row(bench.folder)]


def demo(bench: Bench) -> list[Row]:
    return [project.demo_row(bench.folder)]


def growth(bench: Bench) -> list[Row]:
    dimensions, m, k = (384, 512, 16) if bench.full else (64, 128, 8)
    return project.growth_rows(tuple(bench.size(n) for n in (10_000, 100_000, 1_000_000)), dimensions, m, k)


def gpu(bench: Bench) -> list[Row]:
    import torch

    if not torch.cuda.is_available():
        raise NotHereError("no GPU")
    return [training.gpu_row("SAE step on the GPU, d 1,536 M 4,096 K 32, batch 4,096", 1536, 4096, 32, batch=4096)]


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "lasso": lasso,
    "logistic": logistic,
    "correlation": correlation,
    "separation": separation,
    "step": step,
    "matryoshka": matryoshka,
    "small": small,
    "guided": guided,
    "convergence": convergence,
    "embeddings": embeddings,
    "sentences": sentences,
    "stability": stability,
    "definitions": definitions,
    "demo": demo,
    "real": real_activations,
    "growth": growth,
    "gpu": gpu,
}


def run(bench: Bench, names: list[str], out: Path) -> tuple[list[Row], bool]:
    """Run rows one after another, whatever happens to one; what is finished is in `out`, and whether all agreed."""
    found: list[Row] = []
    record = {"machine": facts(), "roofline": roofline(), "full": bench.full, "shrink": bench.shrink}
    skipped, failed, seconds = {}, {}, {}
    for name in names:
        started = time.perf_counter()
        print(f"{time.strftime('%H:%M:%S')}  {name} …", file=sys.stderr, flush=True)
        try:
            found += ROWS[name](bench)
        except NotHereError as reason:
            skipped[name] = str(reason)
        except (AssertionError, RuntimeError) as reason:
            # The other rows are worth having all the same.
            failed[name] = str(reason)
        seconds[name] = round(time.perf_counter() - started, 1)
        rows = [row.record() for row in found]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(
            json.dumps(
                {**record, "seconds": seconds, "skipped": skipped, "failed": failed, "rows": rows},
                indent=1,
                default=str,
            ),
            encoding="utf-8",
        )
    for name, reason in skipped.items():
        print(f"not run: {name} ({reason})")
    for name, reason in failed.items():
        print(f"FAILED: {name}: {reason}")
    return found, not failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"any of: {', '.join(ROWS)}; all without one")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--full", action="store_true", help="the largest sizes: half an hour, 18 GB")
    parser.add_argument("--shrink", type=int, default=1, help="divide every number of texts (ratios shrink with it)")
    parser.add_argument("--results", type=Path, help="a project's results folder, for real activations")
    parser.add_argument("--dataset", default=project.DEMO_DATASET, help="whose embeddings are the real ones")
    parser.add_argument("--out", type=Path, help="JSON file (default: results/benchmarks/<date>.json)")
    parser.add_argument("--scratch", type=Path, help="where to put 5 GB for a while (default: the system's)")
    options = parser.parse_args()
    if options.list:
        print("\n".join(ROWS))
        return
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    out = options.out or ROOT / "results" / "benchmarks" / f"{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    if options.scratch is not None:
        options.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="speed-", dir=options.scratch))
    try:
        bench = Bench(folder, options.full, options.shrink, options.results, options.dataset)
        rows, agreed = run(bench, options.rows or list(ROWS), out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    machine = facts()
    print(f"\n{machine['date']}, {machine['processor']}, {machine['cores']} cores, load {machine['load'][0]}\n")
    print("\n".join(table(rows)))
    print(f"\n{sum(row.met is True for row in rows)} goals met, {sum(row.met is False for row in rows)} not; {out}")
    if not agreed:
        sys.exit(1)


if __name__ == "__main__":
    main()
