"""The two files that make records persist: .env and $DAGSTER_HOME/dagster.yaml.

Belongs here: creating them and reading .env. Does not belong here: Dagster itself, so that commands which need only the
folders start fast.
"""

import os
import shutil
from pathlib import Path

from hsae_dagster.errors import HsaeError

# Not called dagster.yaml here: Dagster warns of one in the working folder that is not in its home.
TEMPLATE = Path(__file__).with_name("instance.yaml")


def prepare_home(root: Path) -> Path:
    """Create .env and the Dagster home where they are missing, set DAGSTER_HOME, and return it.

    Raises:
        HsaeError: DAGSTER_HOME is set to a relative path, or a folder cannot be written.
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
    """Write .env where it is missing and needed: without it, another command would not know the home.

    Raises:
        HsaeError: it cannot be written, and DAGSTER_HOME is not set to do without.
    """
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

    A folder may begin with `~`, which only a shell would expand.

    Raises:
        HsaeError: it is no text in UTF-8.
    """
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HsaeError(f"{path} is not in UTF-8 (byte {error.start:,}). Save it as UTF-8.") from error
    return {
        name: str(Path(value).expanduser()) if _is_at_home(value) else value
        for name, value in found.items()
        if value is not None
    }


def _is_at_home(value: str) -> bool:
    return value == "~" or value.startswith("~/")
