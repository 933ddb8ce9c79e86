"""Declarations of datasets that come with the checkout, for a data folder that is elsewhere.

Belongs here: copying them. Does not belong here: the data (`registry`, `published`).
"""

import shutil
from pathlib import Path


def declare(name: str, data_dir: Path) -> None:
    """Put a dataset's dataset.yaml, as it lies in the checkout, into a data folder that is elsewhere.

    What is there is left as it is.
    """
    declared = Path(__file__).resolve().parents[2] / "data" / name / "dataset.yaml"
    target = data_dir / name / "dataset.yaml"
    if declared.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(declared, target)
