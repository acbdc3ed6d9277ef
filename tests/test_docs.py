"""The guides name files, settings and commands that exist."""

import re
from pathlib import Path

import pytest

from hyperlock.metrics import CATALOGUE
from tests.imports import LAYER
from tests.layout import layout

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_files_that_are_named_exist(guide: Path) -> None:
    named = set(re.findall(r"`((?:tests|hyperlock|benchmarks|docs)/[\w./]+)`", guide.read_text()))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_between_the_guides_lead_somewhere(guide: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", guide.read_text()):
        path = (guide.parent / target) if target else guide
        assert path.exists(), target
        if anchor:
            headings = [
                line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")
            ]
            assert anchor in [
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            ]


def test_modules_that_are_named_can_be_run() -> None:
    for guide in GUIDES:
        for module in re.findall(
            r"python -m ((?:benchmarks|hyperlock|tests)[\w.]*)", guide.read_text()
        ):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_contributings_layout_is_the_trees() -> None:
    (_, drawn, _) = (ROOT / "CONTRIBUTING.md").read_text().split("```")
    assert drawn.strip() == layout().strip(), "python -m tests.layout draws it anew"


def test_a_package_imports_what_stands_above_it_in_the_layout() -> None:
    """The list is in the order of the layers, so that it reads as the story goes."""
    packages = re.findall(r"^  (\w+)/ ", layout(), re.MULTILINE)
    assert packages == sorted(packages, key=LAYER.__getitem__) and len(packages) >= 9


def test_the_readme_explains_every_metric_of_a_round() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [metric.name for metric in CATALOGUE if f"`{metric.name}`" not in text]
    assert all(name.startswith("total/") for name in missing), missing
