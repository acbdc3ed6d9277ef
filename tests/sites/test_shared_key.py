"""keys=clients across sites: the first one makes the key and seals it for the others; the server
has neither key nor model, and the sites' models are those of one process."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from omegaconf import DictConfig

from hyperlock.errors import HyperLockError
from hyperlock.experiment import run as experiment
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.report import Report
from hyperlock.parties.model import GlobalModel
from hyperlock.runtime import Lost
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from hyperlock.sites.party import Party
from tests.sites.project import LIMITS, Pipe, Project
from tests.sites.test_sites import DATA, restart, sent

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


# Who is away, lost or restarted


@pytest.mark.parametrize(
    ("party", "kind"),
    [
        (FIRST, "share"),
        (FIRST, "aggregate"),
        ("hospital-b", "invite"),
        ("hospital-b", "box"),
        ("hospital-b", "train"),
        ("hospital-c", "aggregate"),
    ],
)
def test_a_site_that_is_restarted_has_the_key_again(
    project: Project, across: Across, alone: Report, party: str, kind: str
) -> None:
    """And no round is without it."""
    pipe = Pipe(project.parties())
    pipe.after[party, kind] = restart(project, pipe, party)
    across(pipe)
    assert weights(project) == {alone.weights.astype("<f4").tobytes()}
    assert sent(pipe, party, "invite") == 2 and sent(pipe, FIRST, "share") == 1


def test_a_sum_that_a_site_missed_is_given_it_later(
    project: Project, across: Across, alone: Report
) -> None:
    """The last one too; it trains on in the next round on the model that all have."""
    pipe = Pipe(project.parties())
    lost = [Lost("lost on the way")] * 3
    pipe.before["hospital-c", "aggregate"] = lambda: lost.pop() if lost else None
    report = across(pipe)
    assert report.metrics["updates/accepted"] == 3
    assert weights(project) == {alone.weights.astype("<f4").tobytes()}


def test_a_late_site_catches_up_from_the_first_round(project: Project, across: Across) -> None:
    pipe = Pipe(project.parties())
    late = pipe.parties.pop("hospital-c")
    rounds = [lambda: None, lambda: pipe.parties.update({"hospital-c": late})]
    pipe.after["hospital-b", "aggregate"] = lambda: rounds.pop(0)() if rounds else None
    report = across(pipe)
    assert report.metrics["updates/accepted"] == 3 and len(weights(project)) == 1
    assert sent(pipe, "hospital-c", "aggregate") == 3 and sent(pipe, "hospital-c", "train") == 1


def test_nothing_begins_without_the_first_site(project: Project, across: Across) -> None:
    pipe = Pipe(project.parties())
    del pipe.parties[FIRST]
    with pytest.raises(HyperLockError, match=f"{FIRST}, the first site, makes the key") as refused:
        across(pipe, "runtime.patience=1")
    assert f"try: have {FIRST} take part" in str(refused.value)
    # Nobody else was asked to make one.
    assert {kind for _, kind in pipe.seen} == {"invite"}


def test_rounds_go_on_without_the_first_site_once_all_have_the_key(
    project: Project, across: Across
) -> None:
    pipe = Pipe(project.parties())
    pipe.after[FIRST, "aggregate"] = lambda: pipe.parties.pop(FIRST, None) and None
    report = across(pipe)
    assert report.rounds == 3 and report.metrics["updates/accepted"] == 2
    assert len(weights(project, *OTHERS)) == 1 and len(weights(project)) == 2


@pytest.mark.parametrize("when", [("hospital-c", "train"), ("hospital-c", "aggregate")], ids=str)
def test_a_run_that_was_killed_goes_on(
    project: Project, across: Across, alone: Report, tmp_path: Path, when: tuple[str, str]
) -> None:
    """The coordinator, two rounds after its checkpoint; the sites are further than it."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    pipe = Pipe(project.parties())

    def killed() -> None:
        if sent(pipe, *when) == 4:
            raise KeyboardInterrupt

    settings = ("checkpoint_every=2", "federation.rounds=4")
    pipe.after[when] = killed
    with pytest.raises(KeyboardInterrupt):
        across(pipe, *settings, directory=directory)
    pipe.after.clear()
    assert load(directory).round == 2
    report = across(pipe, *settings, directory=directory, start=load(directory))
    assert report.rounds == 4 and len(weights(project)) == 1
    assert sent(pipe, FIRST, "share") == 2
    # Where the sum had been written down, it is the one that counts.
    if when[1] == "aggregate":
        assert sent(pipe, FIRST, "train") == 4


def test_models_that_differ_end_the_run_and_are_named(project: Project, across: Across) -> None:
    pipe = Pipe(project.parties())
    step = GlobalModel.step
    here = threading.local()

    def otherwise(self: GlobalModel, *given: Any) -> GlobalModel:
        stepped = step(self, *given)
        wrong = getattr(here, "party", "") == "hospital-b"
        return replace(stepped, weights=stepped.weights * np.float32(2)) if wrong else stepped

    handle = Party.handle

    def known(self: Party, data: bytes) -> bytes:
        here.party = self.name
        return handle(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlobalModel, "step", otherwise)
        patch.setattr(Party, "handle", known)
        with pytest.raises(HyperLockError, match="stepped to different models") as found:
            across(pipe)
    assert re.search("round 1: .*hospital-a, hospital-c [0-9a-f]{16}; hospital-b", str(found.value))
