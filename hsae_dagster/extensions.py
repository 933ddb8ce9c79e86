"""What dataset.yaml chooses by name: what is shipped, and what users add from outside the package, by import path."""

import ast
import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Generic, TypeVar

from hsae_dagster.errors import HsaeError
from hsae_dagster.keys import hash_bytes, hash_json

T = TypeVar("T")


@dataclass(frozen=True)
class Own:
    """A user's own function at `package.module:function`, and the sentences about what it does wrong.

    `registry` is that of the field which names it, `source` the hash of its module and of what that imports from its
    own package.
    """

    registry: "Registry[Any]"
    path: str
    function: Callable[..., Any]
    source: str

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns; what it raises becomes a sentence with its line."""
        try:
            return self.function(*arguments)
        except HsaeError:
            raise
        except (Exception, SystemExit) as error:
            # The first frame is this one; without another the call did not reach the function.
            frames = list(traceback.walk_tb(error.__traceback__))[1:]
            if not frames:
                raise self._error(
                    f"cannot be called: {_said(error)}. It must be {self.registry.signature}; see CONTRIBUTING.md."
                ) from error
            # The last line of the user's own package, not of a library that it called.
            theirs = [each for each in frames if _top(each[0].f_globals.get("__name__", "")) == _top(self.path)]
            frame, line = (theirs or frames)[-1]
            place = f"{Path(frame.f_code.co_filename).name}, line {line}"
            raise self._error(
                f"raised {_said(error)} ({place}). Correct it there and run again; finished stages are kept."
            ) from error

    def wrong(self, returned: str) -> HsaeError:
        """The error for a result of the wrong kind; `returned` says what came."""
        return self._error(f"returned {returned}. It must be {self.registry.signature}; see CONTRIBUTING.md.")

    def _error(self, did: str) -> HsaeError:
        return self.registry.error(f"`{self.registry.field}`: `{self.path}` {did}")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All that one field of dataset.yaml may name.

    Attributes:
        field: with its section, `selection.method`; it holds one name or several.
        shipped: by name. A key such as `openai:<model>` stands for every name that begins with `openai:`.
        own: makes the same of a user's function, which must have this `signature`.
        error: class of the errors about names and functions.
    """

    field: str
    shipped: Mapping[str, T]
    own: Callable[[Own], T]
    signature: str
    error: type[HsaeError]

    def find(self, name: str) -> T:
        """What a name stands for.

        Raises:
            HsaeError: of the registry's class: neither shipped nor the import path of a function.
        """
        key = self._key(name)
        return self.own(self.load(name)) if key is None else self.shipped[key]

    def load(self, path: str) -> Own:
        """The user's function at `package.module:function`."""
        module, _, attribute = path.partition(":")
        if not module or not attribute.strip():
            raise self.error(f"`{self.field}` is `{path}`, which is not known. Write {self.choices}.")
        try:
            function = getattr(importlib.import_module(module), attribute)
            source = _source_hash(module)
        except (Exception, SystemExit) as error:
            raise self.error(
                f"`{self.field}` is `{path}`, which cannot be imported: {_said(error)}. Write {self.choices}; its "
                "package must be installed in the environment that runs this."
            ) from error
        if not callable(function):
            raise self.error(f"`{self.field}`: `{path}` is of type {type(function).__name__}, not a function.")
        return Own(self, path, function, source)

    @property
    def choices(self) -> str:
        """What may be written, in words."""
        named = ", ".join(f"`{name}`" for name in self.shipped)
        return f"{named}{' or ' if named else ''}the import path of your own (`package.module:function`)"

    def names(self, spec: Any) -> tuple[str, ...]:
        """What a declaration names."""
        for part in self.field.split("."):
            spec = getattr(spec, part)
        return (spec,) if isinstance(spec, str) else tuple(spec)

    def _key(self, name: str) -> str | None:
        head, _, rest = name.partition(":")
        for key in self.shipped:
            family, colon, _ = key.partition(":")
            if name == key or (colon and head == family and rest.strip()):
                return key
        return None

    def sources(self, *names: str) -> dict[str, str]:
        """Field and path of each of these that is a user's own, and the hash of its source."""
        paths = [name for name in names if self._key(name) is None]
        return {f"{self.field} {path}": self.load(path).source for path in paths}


def own_sources(spec: Any, *registries: Registry[Any]) -> dict[str, str]:
    """What a result depends on beside the names: empty where a declaration names nothing of the user's own."""
    return {key: source for registry in registries for key, source in registry.sources(*registry.names(spec)).items()}


# Once in a process, when the module is imported: an edit afterwards changes the file, not the code that runs.
@cache
def _source_hash(module: str) -> str:
    """Hash of the files of a module and of the modules that it imports from its own top-level package."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = None if name in found else _spec(name)
        if spec is None:
            continue
        data = Path(spec.origin).read_bytes() if spec.origin and Path(spec.origin).is_file() else b""
        found[name] = hash_bytes(data)
        waiting.append(name.rpartition(".")[0] or name)
        if str(spec.origin).endswith(".py"):
            package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
            waiting += [other for other in _imports(data, package) if f"{other}.".startswith(f"{_top(module)}.")]
    return hash_json(found)


def _top(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # an attribute of a module, not a module
        return None


def _imports(source: bytes, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
