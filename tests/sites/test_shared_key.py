"""keys=clients across sites: the first one makes the key and seals it for the others; the server
has neither key nor model, and the sites' models are those of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from omegaconf import DictConfig

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment import run as experiment
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.report import Report
from hyperlock.parties.messages import kind_of
from hyperlock.runtime import Lost
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from hyperlock.sites.party import NotHere, Party
from tests.sites.project import LIMITS, Pipe, Project
from tests.sites.test_sites import DATA, once, sent

SHARED = ("keys=clients", "trust=curious", "keys.min_clients=2", "objective=train/loss")
FIRST = "hospital-a"
OTHERS = ("hospital-b", "hospital-c")
Across = Callable[..., Report]


@pytest.fixture
def project(tmp_path: Path, compose: Callable) -> Project:
    made = Project(tmp_path / "project")
    config = parse(compose(*DATA))
    dataset = simulation.load_dataset(config)
    limits = LIMITS + "  keys: [clients]\n"
    made.give(dataset, simulation.build_split(config, dataset), limits)
    return made


@pytest.fixture
def across(project: Project, compose: Callable, monkeypatch: pytest.MonkeyPatch) -> Across:
    """A run whose server is this process, and whose other parties are behind a pipe."""

    def run(pipe: Pipe, *settings: str, directory: Path | None = None, **others: Any) -> Report:
        monkeypatch.setattr(coordinator, "flower", lambda folder, timeout: pipe)
        composed: DictConfig = compose(
            *DATA, "runtime=flower", f"runtime.folder={project.path / 'server'}",
            "runtime.weight_unit=100", "runtime.patience=3", *SHARED, *settings,
        )  # fmt: skip
        return coordinator.run(composed, directory, **others)

    return run


@pytest.fixture(scope="module")
def alone(compose: Callable) -> Report:
    """The same run in one process."""
    return experiment.run(compose(*DATA, *SHARED))


def weights(project: Project, *names: str) -> set[bytes]:
    """The weights that these sites keep, of the last run."""
    found = set()
    for name in names or project.sites:
        runs = sorted((project.folders[name].path / "runs").iterdir())
        content = (runs[-1] / "model").read_bytes()[8:]
        found.add(msgpack.unpackb(content)[0])
    return found


def test_the_sites_models_are_those_of_one_process(
    project: Project, across: Across, alone: Report, tmp_path: Path
) -> None:
    pipe = Pipe(project.parties())
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    report = across(pipe, directory=directory)
    assert weights(project) == {alone.weights.astype("<f4").tobytes()}
    # What the sites say of the rounds, and that half a ciphertext is sent, is the same too.
    assert report.rounds == 3 and report.metrics["updates/accepted"] == 3
    for name in ("train/loss", "grid/saturated"):
        assert report.metrics[name] == alone.metrics[name]
    up = "bytes/uplink_per_client"
    assert report.metrics[up] == pytest.approx(alone.metrics[up], abs=10)  # of names
    # Nobody evaluates, nor says that it took no time; key holder and witness are not asked.
    assert report.weights.size == 0 and not report.accuracies
    assert not {"accuracy", "time/step_s", "time/evaluate_s"} & report.metrics.keys()
    assert {party for party, _ in pipe.seen} == set(project.sites)
    assert load(directory).weights.size == 0
