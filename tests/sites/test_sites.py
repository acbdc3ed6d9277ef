"""Runs across organisations, by an in-memory pipe: the same model as in one process, whoever is
late, lost or restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from hyperlock.experiment import run as experiment
from hyperlock.experiment import simulation
from hyperlock.experiment.report import Report
from hyperlock.settings.parse import parse
from tests.sites.project import Pipe, Project

DATA = (
    "dataset=digits", "dataset.train_samples=300", "dataset.test_samples=200", "model=logistic",
    "tracking=none", "federation.clients=3", "federation.rounds=3", "encryption=bfv",
    "encryption.poly_modulus=4096",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, compose: Callable) -> Project:
    made = Project(tmp_path / "project")
    config = parse(compose(*DATA))
    dataset = simulation.load_dataset(config)
    made.give(dataset, simulation.build_split(config, dataset))
    return made


@pytest.fixture
def across(
    project: Project, compose: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Report]:
    """A run whose server is this process, and whose other parties are behind a pipe."""

    def run(pipe: Pipe, *settings: str, directory: Path | None = None, **others: Any) -> Report:
        monkeypatch.setattr(experiment, "flower", lambda folder, timeout: pipe)
        composed: DictConfig = compose(
            *DATA, "runtime=flower", f"runtime.folder={project.path / 'server'}",
            "runtime.weight_unit=100", "runtime.patience=5", *settings,
        )  # fmt: skip
        return experiment.run(composed, directory, **others)

    return run


@pytest.fixture(scope="module")
def alone(compose: Callable) -> Report:
    """The same run in one process."""
    return experiment.run(compose(*DATA, "trust=malicious"))


def test_the_model_is_that_of_one_process(
    project: Project, across: Callable, alone: Report
) -> None:
    pipe = Pipe(project.parties())
    report = across(pipe)
    assert report.weights.tobytes() == alone.weights.tobytes()
    assert report.accuracies == alone.accuracies and pipe.closed
    bytes_up = report.metrics["bytes/uplink_per_client"]
    assert bytes_up == pytest.approx(alone.metrics["bytes/uplink_per_client"], abs=10)  # of names
    # What other processes do is not measured here, and is not said to be nothing.
    assert "time/train_s" not in report.metrics and "time/aggregate_s" in report.metrics
