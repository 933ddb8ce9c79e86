"""Where the project keeps its data and its results.

Belongs here: the one resource that assets share. Does not belong here: models that are asked; their settings are in
each dataset's declaration and in the environment.
"""

import os
from pathlib import Path

import dagster as dg

from hsae_dagster.partitions import DATASETS, KEY_PREFIX
from hsae_dagster.storage.objects import ObjectStore


def project_root() -> Path:
    """HSAE_HOME if set, else the checkout this package is installed from, else the current folder."""
    named = os.environ.get("HSAE_HOME")
    if named:
        return Path(named).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


class Project(dg.ConfigurableResource):
    """Folders of the project, and the names under which Dagster knows its assets and datasets.

    Attributes:
        data_dir: one folder per dataset, each with its dataset.yaml.
        results_dir: everything the pipeline makes.
        key_prefix: first part of every asset's key.
        partitions_name: of the dynamic partitions, one per dataset, which all code locations of an instance share.
        refresh_new: whether what runs by itself also runs datasets that nobody has run yet, samples included.
    """

    data_dir: str
    results_dir: str
    key_prefix: str = KEY_PREFIX
    partitions_name: str = DATASETS
    refresh_new: bool = False

    def key(self, asset: str) -> dg.AssetKey:
        """Key of one of our assets."""
        return dg.AssetKey([self.key_prefix, asset])

    @property
    def cards_name(self) -> str:
        """Name of the dynamic partitions of hypotheses."""
        return f"{self.partitions_name}_hypotheses"

    @property
    def data(self) -> Path:
        """`data_dir` as a path."""
        return Path(self.data_dir)

    @property
    def results(self) -> Path:
        """`results_dir` as a path."""
        return Path(self.results_dir)

    @property
    def store(self) -> ObjectStore:
        """The finished results."""
        return ObjectStore(self.results)

    @staticmethod
    def here() -> "Project":
        """The project at `project_root()`; HSAE_DATA_DIR and HSAE_RESULTS_DIR move its folders.

        HSAE_REFRESH_NEW=1 has new datasets run by what runs by itself.
        """
        root = project_root()
        return Project(
            data_dir=os.environ.get("HSAE_DATA_DIR", str(root / "data")),
            results_dir=os.environ.get("HSAE_RESULTS_DIR", str(root / "results")),
            refresh_new=os.environ.get("HSAE_REFRESH_NEW", "") == "1",
        )
