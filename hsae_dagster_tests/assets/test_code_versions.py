"""A stage whose code changed must say so, or finished results of the old code would be kept as if they were new.

The snapshot holds, per stage, its declared code version and a hash of the code it computes with (docstrings, comments
and formatting aside). When a test here fails, raise the stage's CODE_VERSION if results change, then write the new
snapshot:  HSAE_ACCEPT_CODE=1 python -m pytest hsae_dagster_tests/assets/test_code_versions.py
"""

import ast
import hashlib
import importlib
import json
import os
from pathlib import Path

import pytest

import hsae_dagster

SNAPSHOT = Path(__file__).with_name("code_versions.json")
PACKAGE = Path(hsae_dagster.__file__).parent

# What each stage computes with, beyond reading and writing.
STAGES = {
    "corpus": [
        "keys.py",
        "dataset/rows.py",
        "dataset/percents.py",
        "dataset/classes.py",
        "dataset/units.py",
        "core/corpus.py",
    ],
    "embeddings": ["keys.py", "providers/minilm.py", "providers/openai_embedder.py"],
    "sae_checkpoints": [
        "assets/autoencoders.py",
        "assets/sae_sizes.py",
        "core/sae_choice.py",
        "core/sae_grid.py",
        "assets/imported_sae.py",
        "core/guidance.py",
        "core/observations.py",
        "storage/legacy_checkpoint.py",
        "core/sae.py",
        "core/sae_loss.py",
        "core/sae_training.py",
        "core/sparse_decode.py",
    ],
    "activations": ["assets/text_units.py", "core/codes.py", "core/pooling.py"],
    "selected_neurons": [
        "assets/near_neurons.py",
        "core/distinct.py",
        "core/across_clusters.py",
        "core/pooling.py",
        "core/seed_matches.py",
        "core/selection.py",
        "core/selection_scores.py",
        "core/lasso.py",
        "core/logistic.py",
        "core/l1_quadratic.py",
        "core/standardised.py",
        "core/observations.py",
        "core/stability.py",
        "core/covariates.py",
        "assets/covariates.py",
    ],
    "interpretations": [
        "core/lexicon.py",
        "core/terms.py",
        "core/fidelity.py",
        "core/hard_negatives.py",
        "core/sampling.py",
        "providers/lexical.py",
        "providers/openai_interpreter.py",
        "providers/openai_annotator.py",
        "providers/prompt.py",
    ],
    "annotation_matrix": ["core/lexicon.py", "core/terms.py", "providers/openai_annotator.py", "providers/prompt.py"],
    "evaluation_report": [
        "assets/evaluation.py",
        "assets/ladder.py",
        "core/ladder.py",
        "core/inference.py",
        "core/cluster_robust.py",
        "core/partial_effects.py",
        "core/joint_fit.py",
        "core/badges.py",
        "core/analysis_plan.py",
        "core/power.py",
        "core/annotation_error.py",
        "assets/gold.py",
        "assets/concepts_to_test.py",
        "core/redundancy.py",
        "core/negative_controls.py",
        "assets/negative_controls.py",
        "core/evidence.py",
        "core/observations.py",
    ],
}


def code_hash(files: list[str]) -> str:
    digest = hashlib.sha256()
    for file in [*files]:
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
                body[0] = ast.Expr(ast.Constant(""))
        # unparse forgets comments and layout and is the same for every supported Python
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def current() -> dict[str, dict[str, str]]:
    found = {}
    for stage, files in STAGES.items():
        version = importlib.import_module(f"hsae_dagster.assets.{stage}").CODE_VERSION
        found[stage] = {"code_version": version, "code": code_hash([f"assets/{stage}.py", *files])}
    return found


def test_changed_code_has_a_new_version_or_is_accepted() -> None:
    if os.environ.get("HSAE_ACCEPT_CODE"):
        SNAPSHOT.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    known = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    stale = [stage for stage, found in current().items() if found != known[stage]]
    assert not stale, f"the code of {', '.join(stale)} changed: see this file's docstring"


@pytest.mark.parametrize("stage", STAGES)
def test_every_listed_file_exists(stage: str) -> None:
    assert all((PACKAGE / file).is_file() for file in STAGES[stage])
