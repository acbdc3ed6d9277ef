"""Who imports whom, read from the sources: late imports and those for types alone count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A package imports lower layers and itself. Those of one layer do not import each other.
LAYERS = (
    ("errors", "randomness", "metrics", "process"),
    ("monitor",),
    ("settings", "data", "learning", "encryption"),
    ("privacy", "runtime"),
    ("parties",),
    ("tracking",),
    ("experiment",),
    ("sites", "sweep", "advise", "audit"),
    ("hyperlock",),  # hyperlock/__init__.py: what a notebook calls
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# Beyond the layers: parties are told values, and know neither settings nor where figures go.
FORBIDDEN = {"parties": {"settings", "experiment", "tracking"}}
# A library, and the one module or package that imports it.
HOMES = {
    "tensorflow": "hyperlock.learning.tensorflow",
    "keras": "tf.keras",  # no module: TensorFlow's own Keras is used
    "tenseal": "hyperlock.encryption._tenseal",
    "mlflow": "hyperlock.tracking.mlflow",
    "optuna": "hyperlock.sweep",
    "flwr": "hyperlock.runtime.flower",
}
# Modules that load a library for seconds, and so are imported late by their own package.
HEAVY = {"hyperlock.learning.tensorflow", "hyperlock.encryption._tenseal"}


def sources() -> dict[str, str]:
    """The text of every module of hyperlock, by its dotted name."""
    found = {}
    for file in sorted((ROOT / "hyperlock").rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file.read_text()
    return found


def violations(modules: Mapping[str, str]) -> list[str]:
    """What breaks the rules above, a line each."""
    found = []
    graph: dict[str, set[str]] = {}
    for module, text in modules.items():
        imported = set(_imports(module, text, modules))
        graph[module] = {name for name, _ in imported if name in modules and name != module}
        for name, late in sorted(imported):
            found += _misplaced(module, name, late)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(error.args[1])}")
    return found


def _misplaced(module: str, imported: str, late: bool) -> Iterator[str]:
    library = imported.split(".")[0]
    if library != "hyperlock":
        home = HOMES.get(library)
        if home is not None and module != home and not module.startswith(f"{home}."):
            yield f"{module} imports {library}, whose one place is {home}"
        return
    mine = _package(module)
    theirs = _package(imported)
    if mine not in LAYER or theirs not in LAYER:
        yield f"{module} imports {imported}: {mine} or {theirs} has no layer"
    elif mine != theirs and LAYER[theirs] >= LAYER[mine]:
        yield f"{module} imports {imported}, which is no lower layer"
    elif theirs in FORBIDDEN.get(mine, ()):
        yield f"{module} imports {imported}: {mine} may not know {theirs}"
    if late and mine == theirs and imported not in HEAVY:
        yield f"{module} imports {imported} late, from its own package"


def _package(module: str) -> str:
    """What has a layer: the first name below hyperlock, or hyperlock itself."""
    return module.split(".")[1] if "." in module else module


def _imports(module: str, text: str, modules: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Every name that is imported anywhere in a module, and whether that is within a function."""
    tree = ast.parse(text)
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in late
        if isinstance(node, ast.ImportFrom):
            origin = _origin(module, node, modules)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                # `from hyperlock import errors` is hyperlock.errors, if that is a module.
                yield (whole if whole in modules else origin), id(node) in late


def _origin(module: str, node: ast.ImportFrom, modules: Mapping[str, str]) -> str:
    """The dotted name behind `from`, relative ones resolved."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    if not any(name.startswith(f"{module}.") for name in modules):
        package = package[:-1]  # a module stands in its package; a package is its own
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
