"""Runs across organisations, by an in-memory pipe: the same model as in one process, whoever is
late, lost or restarted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from hyperlock.errors import RoundFailed
from hyperlock.experiment import run as experiment
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.report import Report
from hyperlock.parties.messages import kind_of
from hyperlock.runtime import Lost
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from hyperlock.sites.party import NotHere, Party
from tests.sites.project import Pipe, Project, keys_made

DIGITS = ("dataset=digits", "dataset.train_samples=300", "dataset.test_samples=200")
RUN = (
    "model=logistic", "tracking=none", "federation.clients=3", "federation.rounds=3",
    "encryption=bfv", "encryption.poly_modulus=4096",
)  # fmt: skip
DATA = (*DIGITS, *RUN)


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

    def run(
        pipe: Pipe,
        *settings: str,
        data: Sequence[str] = DIGITS,
        directory: Path | None = None,
        **others: Any,
    ) -> Report:
        monkeypatch.setattr(coordinator, "flower", lambda folder, timeout: pipe)
        composed: DictConfig = compose(
            *RUN, *data, "runtime=flower", f"runtime.folder={project.path / 'server'}",
            "runtime.weight_unit=100", "runtime.patience=5", *settings,
        )  # fmt: skip
        return coordinator.run(composed, directory, **others)

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


def sent(pipe: Pipe, party: str, kind: str) -> int:
    """How often a party was sent a message of a kind."""
    return pipe.seen.count((party, kind))


def once(fate: Lost | float) -> Callable[[], Lost | float | None]:
    """What happens to the first message, and to no other."""
    fates = [fate]
    return lambda: fates.pop() if fates else None


def models(project: Project, *names: str) -> set[bytes]:
    """What these parties keep of the model, of the only run."""
    found = set()
    for name in names or ("keyholder", *project.sites):
        [run] = (project.folders[name].path / "runs").iterdir()
        found.add((run / "model").read_bytes())
    return found


# Joining


def test_everybody_is_invited_once(project: Project, across: Callable) -> None:
    pipe = Pipe(project.parties())
    across(pipe)
    for party in pipe.parties:
        assert sent(pipe, party, "invite") == 1
    assert len(models(project)) == 1


def test_at_trust_curious_a_late_site_takes_part(project: Project, across: Callable) -> None:
    pipe = Pipe(project.parties())
    late = pipe.parties.pop("hospital-c")
    pipe.after["keyholder", "aggregate"] = lambda: pipe.parties.update({"hospital-c": late})
    report = across(pipe, "trust=curious", "keys.min_clients=2")
    assert report.metrics["updates/accepted"] == 3 and sent(pipe, "hospital-c", "train") == 2


def test_a_site_that_will_not_is_asked_and_left_in_peace(
    project: Project, across: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """Outside its limits; the others go on. Approved, it takes part."""
    file = project.folders["hospital-c"].path / "site.yaml"
    file.write_text(file.read_text().replace("rounds: 20", "rounds: 2"))
    settings = ("trust=curious", "keys.min_clients=2")
    pipe = Pipe(project.parties())
    report = across(pipe, *settings)
    assert report.metrics["updates/accepted"] == 2 and sent(pipe, "hospital-c", "train") == 0
    assert "3 rounds, and the site's limit is 2" in caplog.text
    offer = caplog.text.partition("refused offer ")[2].partition(":")[0]
    assert f"offer {offer} is outside the limits of hospital-c" in caplog.text
    project.folders["hospital-c"].approve(offer)
    report = across(Pipe(project.parties()), *settings)
    assert report.metrics["updates/accepted"] == 3


def test_two_runs_after_each_other(project: Project, across: Callable) -> None:
    pipe = Pipe(project.parties())
    first = across(pipe)
    second = across(pipe, "seed=1")
    assert first.weights.tobytes() != second.weights.tobytes()
    assert sent(pipe, "hospital-a", "invite") == 2


# Who is lost, late or restarted


def restart(project: Project, pipe: Pipe, name: str) -> Callable[[], None]:
    """Once, a process that ends and is there again."""
    left = [name]

    def again() -> None:
        if left:
            pipe.parties[left.pop()] = Party(project.folders[name])

    return again


@pytest.mark.parametrize(
    ("party", "kind"),
    [
        ("hospital-a", "invite"),
        ("keyholder", "invite"),
        ("witness", "invite"),
        ("witness", "public_key"),
        ("keyholder", "open"),
        ("hospital-b", "roster"),
    ],
)
def test_a_party_that_is_restarted_takes_part_again(
    project: Project, across: Callable, alone: Report, party: str, kind: str
) -> None:
    """After it has answered; what it must remember is on its disk."""
    pipe = Pipe(project.parties())
    pipe.after[party, kind] = restart(project, pipe, party)
    report = across(pipe)
    assert report.rounds == 3 and len(models(project)) == 1
    assert sent(pipe, party, "invite") >= 2
    # In the attempt that came to nothing batches were other ones.
    if kind == "invite" or party == "hospital-b":
        assert report.weights.tobytes() == alone.weights.tobytes()


def test_a_key_holder_that_released_and_is_restarted_gives_it_again(
    project: Project, across: Callable, alone: Report
) -> None:
    """Its answer was lost with it."""
    pipe = Pipe(project.parties())
    again = restart(project, pipe, "keyholder")
    handle = Party.handle

    def dies(self: Party, data: bytes) -> bytes:
        answer = handle(self, data)
        if self is first and kind_of(data) == "aggregate":
            again()
            raise NotHere("gone")
        return answer

    first = pipe.parties["keyholder"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Party, "handle", dies)
        report = across(pipe)
    assert report.weights.tobytes() == alone.weights.tobytes() and len(models(project)) == 1


def test_a_lost_message_costs_an_attempt(project: Project, across: Callable) -> None:
    for party, kind in (("witness", "update"), ("hospital-a", "train"), ("hospital-c", "roster")):
        pipe = Pipe(project.parties())
        pipe.before[party, kind] = once(Lost("lost on the way"))
        report = across(pipe, f"seed={len(kind)}")
        assert report.rounds == 3 and sent(pipe, "keyholder", "open") == 4


def test_a_slow_site_is_not_waited_for_and_comes_back(project: Project, across: Callable) -> None:
    pipe = Pipe(project.parties(), timeout=2.0)
    pipe.before["hospital-b", "train"] = once(4.0)
    report = across(pipe, "trust=curious", "keys.min_clients=2", "federation.rounds=8")
    assert report.rounds == 8 and report.metrics["updates/accepted"] == 3


def test_a_run_that_was_killed_goes_on(
    project: Project, across: Callable, alone: Report, tmp_path: Path
) -> None:
    """The coordinator, after a checkpoint of two rounds before; the parties know more than it."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    pipe = Pipe(project.parties())

    def killed() -> None:
        if sent(pipe, "keyholder", "aggregate") == 3:
            raise KeyboardInterrupt

    pipe.after["keyholder", "aggregate"] = killed
    with pytest.raises(KeyboardInterrupt):
        across(pipe, "checkpoint_every=2", directory=directory)
    pipe.after.clear()
    report = across(pipe, "checkpoint_every=2", directory=directory, start=load(directory))
    assert report.rounds == 3 and len(models(project)) == 1
    assert report.weights.tobytes() == alone.weights.tobytes()


# What a party keeps and says


def test_a_site_notes_what_it_sent_and_nothing_of_what_was_in_it(
    project: Project, across: Callable
) -> None:
    pipe = Pipe(project.parties())
    across(pipe)
    lines = (project.folders["hospital-a"].path / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    kinds = [entry["received"]["kind"] for entry in entries]
    assert kinds == ["invite", "train", "roster", *["state", "train", "roster"] * 2, "state"]
    for entry in entries:
        assert entry.keys() == {"time", "run", "received", "sent"}
        for about in (entry["received"], entry["sent"]):
            assert about is None or about.keys() == {"kind", "bytes", "sha256"}


def test_two_parties_notes_name_a_message_by_the_same_digest(
    project: Project, across: Callable
) -> None:
    """An auditor can compare what a site sent with what the witness read, and what the key holder
    sent with what a site did."""

    def noted(party: str, way: str, kind: str) -> set[str]:
        lines = (project.folders[party].path / "log.jsonl").read_text().splitlines()
        found = [json.loads(line)[way] for line in lines]
        return {each["sha256"] for each in found if each and each["kind"] == kind}

    across(Pipe(project.parties()))
    updates = set.union(*(noted(name, "sent", "update") for name in project.sites))
    assert len(updates) == 9 and updates == noted("witness", "received", "update")
    for name in project.sites:
        assert noted(name, "received", "roster") == noted("keyholder", "sent", "roster")


def test_what_parties_keep_is_theirs_alone_and_holds_no_key(
    project: Project, across: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret key of any attempt, anywhere in the project's folders."""
    pairs = keys_made(monkeypatch)
    across(Pipe(project.parties()))
    assert len(pairs) >= 3
    assert not project.holding(pairs)


# Evaluation by the sites


@pytest.mark.parametrize("trust", ["curious", "malicious"])
def test_their_right_answers_are_those_of_one_test_set(
    project: Project, across: Callable, alone: Report, trust: str
) -> None:
    """Their test samples are parts of that of one process; all three are in every cohort."""
    pipe = Pipe(project.parties())
    report = across(pipe, "runtime.evaluation=sites", f"trust={trust}", "dataset.test_samples=1")
    assert report.weights.tobytes() == alone.weights.tobytes()
    assert report.accuracies == alone.accuracies
    final = report.final()
    assert final["accuracy"] == alone.accuracy and final["sites/tested"] == 200
    assert "loss" not in final and "time/evaluate_s" not in final
    assert sent(pipe, "hospital-a", "train") == 4  # the last trains nobody


def test_both_may_say_how_good_the_model_is(
    project: Project, across: Callable, alone: Report
) -> None:
    report = across(Pipe(project.parties()), "runtime.evaluation=both")
    assert report.accuracies == alone.accuracies
    assert report.final()["sites/accuracy"] == report.final()["accuracy"] == alone.accuracy


def test_a_coordinator_needs_no_samples(project: Project, across: Callable, alone: Report) -> None:
    kind = ("dataset=sites", "dataset.shape=[8,8]", "dataset.dtype=float32", "dataset.classes=10")
    report = across(Pipe(project.parties()), "runtime.evaluation=sites", data=kind)
    assert report.weights.tobytes() == alone.weights.tobytes()
    assert report.accuracies == alone.accuracies


def test_a_target_is_seen_by_the_sites_a_round_later(
    project: Project, across: Callable, alone: Report
) -> None:
    target = alone.accuracies[1]
    report = across(
        Pipe(project.parties()),
        "runtime.evaluation=sites",
        f"federation.target_accuracy={target}",
    )
    assert report.rounds_to_target == 1 and report.rounds == 2
    assert report.accuracies == {n: alone.accuracies[n] for n in (1, 2)}


def test_a_site_without_test_samples_does_not_evaluate(
    project: Project, across: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """It would make of three sites' right answers those of two."""
    path = project.folders["hospital-b"].path / "data.npz"
    with np.load(path) as arrays:
        without = {name: arrays[name] for name in ("x", "y")}
    np.savez(path, **without)
    with pytest.raises(RoundFailed):
        across(Pipe(project.parties()), "runtime.evaluation=sites", "federation.round_attempts=1")
    assert "hospital-b has no x_test and y_test" in caplog.text
    across(Pipe(project.parties()))  # the control: nobody asks it to


def test_a_run_goes_on_to_its_evaluation(
    project: Project, across: Callable, alone: Report, tmp_path: Path
) -> None:
    """Killed after its last round; and one that was evaluated is not made longer."""
    pipe = Pipe(project.parties())
    rounds: list[int] = []

    def killed() -> None:
        rounds.append(1)
        if len(rounds) == 4:
            raise KeyboardInterrupt

    pipe.after["keyholder", "aggregate"] = killed
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        across(pipe, "runtime.evaluation=sites", directory=directory)
    pipe.after.clear()
    start = load(directory)
    assert start.round == 3
    report = across(pipe, "runtime.evaluation=sites", directory=directory, start=start)
    assert report.accuracies == alone.accuracies
    longer = ("runtime.evaluation=sites", "federation.rounds=4")
    with pytest.raises(RoundFailed, match="a new run of more rounds"):
        across(pipe, *longer, directory=directory, start=load(directory))
