"""Who imports whom, read from the sources: late imports and those for types alone count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A package imports lower layers and itself. Those of one layer do not import each other.
LAYERS = (
    ("addresses", "version"),
    ("errors", "files", "randomness", "metrics", "process"),
    ("monitor", "background"),
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
    "flwr": "hyperlock.runtime.relay",
    "dp_accounting": "hyperlock.privacy.accounting",
}
# Modules that load a library for seconds, and so are imported late; and who may, beside their own
# package.
HEAVY = {
    "hyperlock.learning.tensorflow": {"experiment"},
    "hyperlock.encryption._tenseal": set[str](),
}
AT_IMPORT = "when the module is"
FOR_TYPES = "for types alone"
LATE = "within a function"
# What stands beside the package, and is no part of it.
BESIDE = {"run", "benchmarks", "tests"}
BY_NAME = {"import_module", "__import__"}  # imports that no rule sees, but for the one that is told
MAY_IMPORT_BY_NAME = {"hyperlock.settings.construct"}


def sources() -> dict[str, str]:
    """The text of every module of hyperlock, by its dotted name: a package is NAME.__init__."""
    found = {}
    for file in sorted((ROOT / "hyperlock").rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        found[name] = file.read_text()
    return found


def violations(modules: Mapping[str, str]) -> list[str]:
    """What breaks the rules above, a line each."""
    found = []
    graph: dict[str, set[str]] = {}
    known = {name.removesuffix(".__init__") for name in modules}
    for file, text in modules.items():
        module = file.removesuffix(".__init__")
        imported = set(_imports(file, text, known))
        graph[module] = {name for name, _ in imported if name in known and name != module}
        for name, when in sorted(imported):
            found += _misplaced(module, name, when)
        if _calls(text) & BY_NAME and module not in MAY_IMPORT_BY_NAME:
            found.append(f"{module} imports by name, past every rule")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(error.args[1])}")
    return found


def _misplaced(module: str, imported: str, when: str) -> Iterator[str]:
    library = imported.split(".")[0]
    if library in BESIDE:
        yield f"{module} imports {imported}, which is no part of hyperlock"
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
    if imported in HEAVY and mine not in {theirs, *HEAVY[imported]}:
        yield f"{module} imports {imported}, which is for {theirs}"
    if module == "hyperlock" and when == AT_IMPORT:
        yield f"{module} imports {imported} before it is asked to run anything"
    if when == LATE and mine == theirs and imported not in HEAVY:
        yield f"{module} imports {imported} late, from its own package"


def _package(module: str) -> str:
    """What has a layer: the first name below hyperlock, or hyperlock itself."""
    return module.split(".")[1] if "." in module else module


def _calls(text: str) -> set[str]:
    """The names of all functions that are called."""
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return {getattr(call, "id", getattr(call, "attr", "")) for call in calls}


def _imports(file: str, text: str, known: Set[str]) -> Iterator[tuple[str, str]]:
    """Every name that is imported anywhere in a module, and when."""
    tree = ast.parse(text)
    when = dict.fromkeys(map(id, ast.walk(tree)), AT_IMPORT)
    for outer in ast.walk(tree):
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test):
            when |= dict.fromkeys(map(id, ast.walk(outer)), FOR_TYPES)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when |= dict.fromkeys(map(id, ast.walk(outer)), LATE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, when[id(node)]
        if isinstance(node, ast.ImportFrom):
            origin = _origin(file, node)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                # `from hyperlock import errors` is hyperlock.errors, if that is a module.
                yield (whole if whole in known else origin), when[id(node)]


def _origin(file: str, node: ast.ImportFrom) -> str:
    """The dotted name behind `from`, relative ones resolved."""
    if not node.level:
        return node.module or ""
    base = file.split(".")[: -node.level]  # the last part is the module, or __init__
    return ".".join([*base, *([node.module] if node.module else [])])
