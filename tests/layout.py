"""The layout that CONTRIBUTING shows: `python -m tests.layout` draws it from the tree."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.imports import LAYER

ROOT = Path(__file__).resolve().parents[1]
_COLUMN = 28  # where what is said of a file begins
_WIDTH = 118


def layout() -> str:
    """Every module of hyperlock with the first sentence of its docstring, packages by layer."""
    return "\n".join(_lines(ROOT / "hyperlock", 0))


def _lines(folder: Path, depth: int) -> Iterator[str]:
    yield from _line(f"{folder.name}/", _first_sentence(folder / "__init__.py"), depth)
    packages = sorted(
        (path.parent for path in folder.glob("*/__init__.py")),
        key=lambda path: LAYER[path.name] if depth == 0 else path.name,
    )
    for package in packages:
        yield from _lines(package, depth + 1)
    for module in sorted(folder.glob("*.py")):
        if module.name != "__init__.py":
            yield from _line(module.name, _first_sentence(module), depth + 1)


def _line(name: str, said: str, depth: int) -> Iterator[str]:
    start = f"{'  ' * depth}{name}".ljust(_COLUMN)
    yield from textwrap.wrap(
        said, _WIDTH, initial_indent=f"{start} ", subsequent_indent=" " * (_COLUMN + 1)
    )


def _first_sentence(file: Path) -> str:
    """Of a module's docstring, without what follows its first full stop or blank line."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


if __name__ == "__main__":
    print(layout())
