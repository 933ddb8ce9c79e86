"""A variant computes what differs and shares what is equal, without copying vectors."""

import yaml

from hsae_dagster_tests.assets.workspace import NAMES, Workspace


def test_only_what_differs_is_computed(copied: Workspace) -> None:
    folder = copied.root / "data" / "strict"
    folder.mkdir()
    own = {"extends": "ratings", "interpretation": {"seed": 1}, "inference": {"alpha": 0.01}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    vectors = sorted(path.name for path in (copied.root / "results" / "lancedb").iterdir())
    run = copied.run("strict")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    for name in NAMES[: NAMES.index("interpretations")]:
        mine, other = copied.current("strict", name), copied.current("ratings", name)
        assert run.metadata(name)["reused"], name
        assert mine.folder == other.folder, name
    assert run.metadata("embeddings")["new"] == 0
    assert sorted(path.name for path in (copied.root / "results" / "lancedb").iterdir()) == vectors
    assert not run.metadata("interpretations")["reused"]
    assert copied.current("strict", "interpretations").folder != copied.current("ratings", "interpretations").folder
    assert copied.current("strict", "evaluation_report").json("evaluation.json")["alpha"] == 0.008
    # The report bears the variant's own name.
    assert (copied.root / "results" / "reports" / "strict.html").is_file()
