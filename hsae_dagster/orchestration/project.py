"""Where the project keeps its data and its results; the partitions; .env and $DAGSTER_HOME/dagster.yaml."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import dagster as dg

from hsae_dagster.dataset.discovery import Dataset, parse_declaration
from hsae_dagster.errors import HsaeError
from hsae_dagster.storage.files import bind
from hsae_dagster.storage.objects import ObjectStore
from hsae_dagster.storage.records import address_here, bind_records

# Not called dagster.yaml here: Dagster warns of one in the working folder that is not in its home.
TEMPLATE = Path(__file__).with_name("instance.yaml")


def prepare_home(root: Path) -> Path:
    """Create .env and the Dagster home where they are missing, set DAGSTER_HOME, and return it.

    Raises:
        HsaeError: DAGSTER_HOME is set to a relative path, or a folder or .env cannot be written.
    """
    settings = read_env(root / ".env")
    named = os.environ.get("DAGSTER_HOME") or settings.get("DAGSTER_HOME") or str(root / ".dagster_home")
    home = Path(named)
    if not home.is_absolute():
        raise HsaeError(
            f"DAGSTER_HOME is `{named}`, but Dagster needs an absolute path. Correct it in {root / '.env'}."
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(TEMPLATE, home / "dagster.yaml")
    except OSError as error:
        raise HsaeError(f"Cannot prepare {home}: {error}. Make the folder writable, or set DAGSTER_HOME.") from error
    _write_env(root, home)
    for name, value in read_env(root / ".env").items():
        if value:
            os.environ.setdefault(name, value)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _write_env(root: Path, home: Path) -> None:
    """Write .env where it is missing and needed: without it, another command would not know the home."""
    if (root / ".env").exists():
        return
    named = f"DAGSTER_HOME={home}\n"
    example = root / ".env.example"
    try:
        text = example.read_text(encoding="utf-8").replace("DAGSTER_HOME=\n", named, 1) if example.exists() else named
        (root / ".env").write_text(text, encoding="utf-8")
    except OSError as error:
        if os.environ.get("DAGSTER_HOME"):
            return
        raise HsaeError(
            f"Cannot write {root / '.env'}: {error}. Make the folder writable, or set HSAE_HOME to a folder of yours, "
            "which then holds data, results, records and .env."
        ) from error


def read_env(path: Path) -> dict[str, str]:
    """The settings of a .env file as python-dotenv, Dagster and shells read them; names without a value are left out.

    A folder may begin with `~`, which only a shell would expand. Raises HsaeError where it is no text in UTF-8.
    """
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HsaeError(f"{path} is not in UTF-8 (byte {error.start:,}). Save it as UTF-8.") from error
    given = {name: value for name, value in found.items() if value is not None}
    return {name: str(Path(v).expanduser()) if v == "~" or v.startswith("~/") else v for name, v in given.items()}


KEY_PREFIX = "hsae"
DATASETS = "hsae_datasets"

Sensor = Literal["dataset_arrivals", "lost_runs", "watch", "refresh", "batch_answers", "nightly"]
# What a project may have run by itself.
SENSORS: tuple[Sensor, ...] = get_args(Sensor)

datasets = dg.DynamicPartitionsDefinition(name=DATASETS)


def project_root() -> Path:
    """HSAE_HOME if set, else the checkout this package is installed from, else the current folder."""
    named = os.environ.get("HSAE_HOME")
    if named:
        return Path(named).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


class ModelServer(dg.ConfigurableResource):
    """The OpenAI-compatible server that `openai:` models are asked of, where dataset.yaml names no other.

    Its address goes up to and including `/v1`. What is empty is as OPENAI_BASE_URL (else OpenAI's own), OPENAI_API_KEY
    and HSAE_CONCURRENCY (else 512) say.
    """

    base_url: str = ""
    api_key: str = ""
    concurrency: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment as providers read it, with what is set here in it."""
        here = {VARIABLES[name]: value for name in VARIABLES if (value := getattr(self, name))}
        return {**os.environ, **here}

    @staticmethod
    def here() -> "ModelServer":
        """As the environment says when a run begins; the UI shows the names of variables, never a key."""
        return ModelServer(**{name: dg.EnvVar(at) for name, at in VARIABLES.items() if os.environ.get(at)})


WEBHOOK = "HSAE_WEBHOOK"
VARIABLES = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY", "concurrency": "HSAE_CONCURRENCY"}


class RunSettings(dg.ConfigurableResource):
    """Settings of one run that override dataset.yaml: in its run config, where it is recorded and shown.

    `n` is of `selection.n`, the models of the fields `model` of their sections, the budgets of `spending`.
    """

    n: int | None = None
    interpretation_model: str | None = None
    annotation_model: str | None = None
    budget_usd: float | None = None
    budget_calls: int | None = None

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """The overrides, as they would stand in dataset.yaml."""
        fields: dict[str, dict[str, Any]] = {
            "selection": {"n": self.n},
            "interpretation": {"model": self.interpretation_model},
            "annotation": {"model": self.annotation_model},
            "spending": {"budget_usd": self.budget_usd, "budget_calls": self.budget_calls},
        }
        given = {name: {k: v for k, v in own.items() if v is not None} for name, own in fields.items()}
        return {name: own for name, own in given.items() if own}

    def applied(self, dataset: Dataset) -> Dataset:
        """The dataset as this run takes it.

        Raises:
            DatasetError: an override is not valid in dataset.yaml.
        """
        if not self.told:
            return dataset
        raw = dataset.spec.model_dump(exclude_unset=True)
        merged = raw | {name: {**raw.get(name, {}), **own} for name, own in self.told.items()}
        return replace(dataset, spec=parse_declaration(merged, dataset.folder / "dataset.yaml"))


class Project(dg.ConfigurableResource):
    """Folders of the project, and the names under which Dagster knows its assets and datasets.

    Attributes:
        data_dir, results_dir: one folder per dataset, each with its dataset.yaml; everything the pipeline makes.
        store_url: the object store that it shares with other machines (`s3://bucket/prefix`), or empty.
        records_url: the database of what is no result (`postgresql://host/name`), or empty for a file in `results_dir`.
            User and password are in HSAE_RECORDS, or where libpq finds them.
        key_prefix: first part of every asset's key.
        partitions_name: of the dynamic partitions, one per dataset, which all code locations of an instance share.
        webhook: where `watch` tells what it finds, or empty.
        refresh_new: whether what runs by itself also runs datasets that nobody has run yet, samples included.
    """

    data_dir: str
    results_dir: str
    store_url: str = ""
    records_url: str = ""
    key_prefix: str = KEY_PREFIX
    partitions_name: str = DATASETS
    refresh_new: bool = False
    webhook: str = ""
    model_server: ModelServer
    run_settings: RunSettings

    def __init__(self, **fields: Any) -> None:
        # Dagster knows no default of a resource within a resource.
        super().__init__(**{"model_server": ModelServer(), "run_settings": RunSettings(), **fields})

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
        """`results_dir` as a path, bound to its store and its database.

        Raises:
            StorageError: it belongs to others.
        """
        return bind_records(bind(Path(self.results_dir), self.store_url), self.records_url)

    @property
    def store(self) -> ObjectStore:
        """The finished results."""
        return ObjectStore(self.results)

    @staticmethod
    def here() -> "Project":
        """The project at `project_root()`; HSAE_DATA_DIR and HSAE_RESULTS_DIR move its folders.

        HSAE_STORE names the object store that it shares with other machines, HSAE_RECORDS their database.
        HSAE_REFRESH_NEW=1 has new datasets run by what runs by itself.
        """
        root = project_root()
        return Project(
            data_dir=os.environ.get("HSAE_DATA_DIR", str(root / "data")),
            results_dir=os.environ.get("HSAE_RESULTS_DIR", str(root / "results")),
            store_url=os.environ.get("HSAE_STORE", ""),
            records_url=address_here(),
            refresh_new=os.environ.get("HSAE_REFRESH_NEW", "") == "1",
        )
