"""A project whose sites agree to share a key, and runs in which they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from hyperlock.experiment import simulation
from hyperlock.experiment.report import Report
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from tests.sites.project import LIMITS, Pipe, Project
from tests.sites.test_sites import DATA

SHARED = ("keys=clients", "trust=curious", "keys.min_clients=2", "objective=train/loss")
Across = Callable[..., Report]


def sharing_project(path: Path, compose: Callable) -> Project:
    """Sites with their part of the data each."""
    made = Project(path)
    config = parse(compose(*DATA))
    dataset = simulation.load_dataset(config)
    limits = LIMITS + "  keys: [clients]\n"
    made.give(dataset, simulation.build_split(config, dataset), limits)
    return made


def sharing_runs(project: Project, compose: Callable, patch: pytest.MonkeyPatch) -> Across:
    """Runs whose server is this process, and whose other parties are behind a pipe."""

    def run(pipe: Pipe, *settings: str, directory: Path | None = None, **others: Any) -> Report:
        patch.setattr(coordinator, "flower", lambda folder, timeout: pipe)
        composed: DictConfig = compose(
            *DATA, "runtime=flower", f"runtime.folder={project.path / 'server'}",
            "runtime.weight_unit=100", "runtime.patience=3", *SHARED, *settings,
        )  # fmt: skip
        return coordinator.run(composed, directory, **others)

    return run
