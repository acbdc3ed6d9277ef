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

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment import run as experiment
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.report import Report
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.runtime import Lost
from hyperlock.sites.party import NotHere, Party
from tests.sites.project import Pipe, Project, keys_made
from tests.sites.sharing import SHARED, Across, sharing_project, sharing_runs
from tests.sites.test_sites import DATA, restart, sent

FIRST = "hospital-a"
OTHERS = ("hospital-b", "hospital-c")


@pytest.fixture
def project(tmp_path: Path, compose: Callable) -> Project:
    return sharing_project(tmp_path / "project", compose)


@pytest.fixture
def across(project: Project, compose: Callable, monkeypatch: pytest.MonkeyPatch) -> Across:
    return sharing_runs(project, compose, monkeypatch)


@pytest.fixture(scope="module")
def alone(compose: Callable) -> Report:
    """The same run in one process."""
    return experiment.run(compose(*DATA, *SHARED))


def weights(project: Project, *names: str) -> set[bytes]:
    """The weights that these sites keep, of all runs."""
    found = set()
    for name in names or project.sites:
        for run in (project.folders[name].path / "runs").iterdir():
            found.add(msgpack.unpackb((run / "model").read_bytes()[8:])[0])
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
        ("hospital-c", "aggregate"),
        pytest.param(FIRST, "aggregate", marks=pytest.mark.slow),
        pytest.param("hospital-b", "invite", marks=pytest.mark.slow),
        pytest.param("hospital-b", "box", marks=pytest.mark.slow),
        pytest.param("hospital-b", "train", marks=pytest.mark.slow),
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_rounds_go_on_without_the_first_site_once_all_have_the_key(
    project: Project, across: Across
) -> None:
    pipe = Pipe(project.parties())
    pipe.after[FIRST, "aggregate"] = lambda: pipe.parties.pop(FIRST, None) and None
    report = across(pipe)
    assert report.rounds == 3 and report.metrics["updates/accepted"] == 2
    assert len(weights(project, *OTHERS)) == 1 and len(weights(project)) == 2


@pytest.mark.parametrize(
    "when",
    [
        ("hospital-c", "aggregate"),
        pytest.param(("hospital-c", "train"), marks=pytest.mark.slow),
    ],
    ids=str,
)
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


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
def test_a_finished_run_is_given_more_rounds(
    project: Project, across: Across, compose: Callable, tmp_path: Path, restarted: bool
) -> None:
    """The key is gone with the last round; the first site makes another one for those to come."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    pipe = Pipe(project.parties())
    across(pipe, "federation.rounds=2", directory=directory)
    if restarted:
        pipe = Pipe(project.parties())
    across(pipe, "federation.rounds=4", directory=directory, start=load(directory))
    whole = experiment.run(compose(*DATA, *SHARED, "federation.rounds=4"))
    assert weights(project) == {whole.weights.astype("<f4").tobytes()}


@pytest.mark.slow
def test_a_new_run_in_the_same_directory_finds_nothing_of_the_one_before(
    project: Project, across: Across, compose: Callable, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    pipe = Pipe(project.parties())
    for rate in ("0.1", "0.2"):
        report = across(pipe, f"federation.learning_rate={rate}", directory=directory)
        whole = experiment.run(compose(*DATA, *SHARED, f"federation.learning_rate={rate}"))
        assert report.metrics["train/loss"] == whole.metrics["train/loss"]
        assert whole.weights.astype("<f4").tobytes() in weights(project)


@pytest.mark.slow
def test_a_site_that_is_killed_before_it_steps_takes_the_same_sum_again(
    project: Project, across: Across, alone: Report
) -> None:
    """It is in its ledger, and not in its model yet."""
    pipe = Pipe(project.parties())
    take = ModelKeeper.take
    folder = str(project.folders["hospital-c"].path)
    again = restart(project, pipe, "hospital-c")
    killed: list[int] = []

    def dies(self: ModelKeeper, *given: Any) -> None:
        if folder in str(self._file) and self.round == 1 and not killed:
            killed.append(self.round)
            again()
            raise NotHere("gone")
        take(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelKeeper, "take", dies)
        across(pipe)
    assert killed and weights(project) == {alone.weights.astype("<f4").tobytes()}


@pytest.mark.slow  # tests/parties/test_sharing.py has it by itself
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


# What is refused


def test_what_cannot_be_is_refused_before_anybody_is_asked(
    project: Project, across: Across
) -> None:
    pipe = Pipe(project.parties())
    for settings, said in {
        ("trust=malicious", "keys.min_clients=3"): "the clients share the key",
        ("federation.target_accuracy=0.9",): "the sites alone have the model",
        ("objective=accuracy",): "try: runtime.evaluation=sites, or objective=train/loss",
        ("keys=server",): "the server would read every site's update",
    }.items():
        with pytest.raises(ConfigError, match=said):
            across(pipe, *settings)
    assert not pipe.seen


def test_a_site_shares_a_key_if_its_own_file_says_so(
    project: Project, across: Across, caplog: pytest.LogCaptureFixture
) -> None:
    file = project.folders["hospital-c"].path / "site.yaml"
    file.write_text(file.read_text().replace("  keys: [clients]\n", ""))
    report = across(Pipe(project.parties()))
    assert report.metrics["updates/accepted"] == 2
    assert "keys=clients, and the site's are authority" in caplog.text


# Who has the key


def test_the_key_is_at_the_sites_until_the_last_round_and_nowhere_else(
    project: Project, across: Across, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = keys_made(monkeypatch)

    def holding() -> set[str]:
        """Which of the folders holds a piece of the secret key."""
        found = project.holding(pairs, tmp_path)
        return {str(path.relative_to(tmp_path)).replace(run, "RUN") for path in found}

    seen: list[set[str]] = []
    run = ""

    def look() -> None:
        nonlocal run
        [folder] = (project.folders[FIRST].path / "runs").iterdir()
        run = folder.name
        seen.append(holding())

    pipe = Pipe(project.parties())
    pipe.after[FIRST, "train"] = look
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    across(pipe, directory=directory)
    assert len(pairs) == 1 and len(list((directory / "server" / run).iterdir())) >= 3
    due = {f"project/{name}/runs/RUN/shared.key" for name in project.sites}
    assert seen == [due] * 3 and holding() == set()
    [folder] = (project.folders[FIRST].path / "runs").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_sites_that_alone_have_the_model_evaluate_it(
    project: Project, across: Across, alone: Report
) -> None:
    pipe = Pipe(project.parties())
    report = across(pipe, "runtime.evaluation=sites", "objective=accuracy")
    assert weights(project) == {alone.weights.astype("<f4").tobytes()}
    assert report.accuracies == alone.accuracies and report.weights.size == 0
    assert report.final()["accuracy"] == alone.accuracy


def test_a_coordinator_without_the_model_cannot_evaluate_it(
    project: Project, across: Across
) -> None:
    with pytest.raises(ConfigError, match=r"^runtime\.evaluation=both: with keys=clients"):
        across(Pipe(project.parties()), "runtime.evaluation=both")
