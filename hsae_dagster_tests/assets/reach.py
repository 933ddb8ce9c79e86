"""Which modules of the package a stage's result depends on, read from the source.

Belongs here: following names from a stage's module through imports, at module level and inside functions, and a hash
of what was reached. Does not belong here: versions and the snapshot (`test_code_versions`).

Names are followed definition by definition, so a stage that takes one function of a module reaches what that function
names and not what its neighbours do. What is reached is then hashed as a whole module: somebody who changes any part
of it is asked. Only of another stage's module the definitions in use alone count.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# A place in the package: a module and a name in it, or None for the whole of it.
Place = tuple[str, str | None]


@dataclass(frozen=True)
class Module:
    """One module's source.

    Attributes:
        name: dotted.
        source: its text.
        is_package: whether it is an `__init__.py`.
    """

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """The module without docstrings; comments and layout are no part of a tree."""
        tree = ast.parse(self.source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
                body[0] = ast.Expr(ast.Constant(""))
        return tree

    @cached_property
    def definitions(self) -> dict[str, list[ast.stmt]]:
        """The statements at the module's level that bind a name, imports aside."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _bound(statement):
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def effects(self) -> list[ast.stmt]:
        """The statements that run on import and bind nothing, such as an entry in a registry."""
        plain = (ast.Import, ast.ImportFrom)
        return [statement for statement in self.tree.body if not isinstance(statement, plain) and not _bound(statement)]

    @cached_property
    def imported(self) -> dict[str, list[Place]]:
        """What every imported name stands for, wherever in the module it is imported."""
        found: dict[str, list[Place]] = {}
        for name, place in self._imports():
            found.setdefault(name, []).append(place)
        return found

    def _imports(self) -> Iterator[tuple[str, Place]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield (alias.asname, (alias.name, None)) if alias.asname else (alias.name, (alias.name, None))
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                for alias in node.names:
                    yield alias.asname or alias.name, (base, alias.name)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def hash(self, names: Iterable[str] | None = None) -> str:
        """Of the module, or of the named definitions alone; the same for every supported Python."""
        wanted = None if names is None else set(names)
        chosen = [s for s in self.tree.body if wanted is None or wanted & set(_bound(s))]
        return hashlib.sha256(ast.unparse(ast.Module(chosen, [])).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Package:
    """All modules by dotted name.

    Attributes:
        modules: the sources.
    """

    modules: Mapping[str, Module]

    @staticmethod
    def read(folder: Path) -> "Package":
        """The package at a folder."""
        modules = {}
        for path in folder.rglob("*.py"):
            parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules[name] = Module(name, path.read_text(encoding="utf-8"), is_package)
        return Package(modules)

    @cached_property
    def stages(self) -> dict[str, str]:
        """The modules that declare a CODE_VERSION, and it."""
        found = {}
        for module in self.modules.values():
            for statement in module.definitions.get("CODE_VERSION", []):
                found[module.name] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
        # A stage whose work is in another module has the version that is declared there.
        for module in self.modules.values():
            for base, name in module.imported.get("CODE_VERSION", []):
                if name == "CODE_VERSION" and base in found:
                    found[module.name] = found.pop(base)
        return dict(sorted(found.items()))

    def reached(self, stage: str, excluded: Iterable[str] = ()) -> dict[str, str]:
        """The hash of every module that a stage's result depends on.

        Args:
            stage: its module.
            excluded: modules, or packages of them, that are not followed.
        """
        blocked = tuple(excluded)
        places: set[Place] = set()
        ahead: list[Place] = [(stage, None)]
        while ahead:
            place = ahead.pop()
            if place not in places and not any(f"{place[0]}.".startswith(f"{name}.") for name in blocked):
                places.add(place)
                ahead.extend(self._named_by(place))
        hashes = {}
        for name in sorted({module for module, _ in places}):
            used = [definition for module, definition in places if module == name]
            whole = name not in self.stages or None in used
            hashes[name] = self.modules[name].hash(None if whole else [part for part in used if part])
        return hashes

    def _named_by(self, place: Place) -> Iterator[Place]:
        """The places that a definition, or a whole module, names."""
        module = self.modules[place[0]]
        name = place[1]
        statements = module.tree.body if name is None else [*module.definitions[name], *module.effects]
        for statement in statements:
            if name is None and isinstance(statement, ast.Import | ast.ImportFrom):
                continue  # an import is followed where its name is used
            for node in _mentions(statement):
                yield from self._meant(module, node)

    def _meant(self, module: Module, node: ast.AST) -> Iterator[Place]:
        dotted = _dotted(node)
        if dotted:
            yield from self._resolved(module, dotted)
        elif _is_text(node):
            # A registry may name its modules in strings: "package.module" or "package.module:name".
            path = node.value.partition(":")[0]  # type: ignore[attr-defined]
            if path in self.modules and "." in path:
                yield path, None

    def _resolved(self, module: Module, dotted: str) -> Iterator[Place]:
        """The place that `a.b.c` stands for in a module."""
        first, *rest = dotted.split(".")
        if first in module.definitions:
            yield module.name, first
        # `import a.b` binds a; the longest prefix that is a module is meant.
        for length in range(len(rest) + 1, 0, -1):
            name = ".".join([first, *rest[: length - 1]])
            if name in module.imported:
                for place in module.imported[name]:
                    yield from self._followed(place, rest[length - 1 :])
                return

    def _followed(self, place: Place, rest: list[str]) -> Iterator[Place]:
        """From an imported name to where it is defined, through packages that pass it on."""
        base, name = place
        if name is not None and f"{base}.{name}" in self.modules:
            base, name = f"{base}.{name}", None
        if base not in self.modules:
            return
        if name is None and rest:
            name = rest[0]
        module = self.modules[base]
        if name is None or name in module.definitions:
            yield base, name
        elif name in module.imported:
            for further in module.imported[name]:
                yield from self._followed(further, rest[1:])


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _mentions(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below; of `a.b.c` the whole, and not `a` once more."""
    yield node
    if _dotted(node) is None:
        for child in ast.iter_child_nodes(node):
            yield from _mentions(child)


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` of a name or a chain of attributes, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a statement at module level binds, also inside `if`, `try` and `with`; imports aside."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    found: list[str] = []
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt | ast.excepthandler):
            found += _bound(child)  # type: ignore[arg-type]
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            found += [
                node.id for node in ast.walk(child) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            ]
    return found
