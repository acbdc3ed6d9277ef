"""Killed between a round's release and its checkpoint: the round is not played again but taken from
the key holder's ledger, or its sum is sent again, and the run ends at the same weights."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hyperlock.errors import ReleaseRefused
from hyperlock.experiment import checkpoint, rounds
from hyperlock.experiment.checkpoint import FILE, load
from hyperlock.experiment.journal import Journal, Traffic
from hyperlock.experiment.report import Report
from hyperlock.experiment.rounds import Parties, run_round
from hyperlock.experiment.run import run
from hyperlock.parties.client import Client
from hyperlock.parties.custody import CUSTODIES
from hyperlock.parties.keyholder import KeyHolder, Policy
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import Train
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.server import Server
from tests.warm import Warm

SMALL = (
    "dataset=digits", "dataset.train_samples=300", "model=logistic", "tracking=none",
    "federation.clients=4", "encryption.poly_modulus=4096",
)  # fmt: skip
ROUNDS = 7


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of all updates that clients make, as long as the test takes."""
    seen: list[int] = []
    vector = Client._vector

    def noted(self: Client, *given: Any) -> Any:
        seen.append(self._memory.seen[0])
        return vector(self, *given)

    monkeypatch.setattr(Client, "_vector", noted)
    return seen


def killed_in(number: int, moment: str) -> pytest.MonkeyPatch:
    """Have the process end in a round, at a moment of it."""
    patch = pytest.MonkeyPatch()
    step = ModelKeeper.take
    close = Server.close
    save = checkpoint.save

    def before_the_step(self: ModelKeeper, *given: Any) -> None:
        if self.round == number - 1:
            raise Killed
        step(self, *given)

    def before_the_request(self: Server) -> bytes:
        aggregate = close(self)
        if self._session.round == number:
            raise Killed
        return aggregate

    def before_the_checkpoint(directory: Path, state: checkpoint.Checkpoint) -> None:
        if state.round >= number:
            raise Killed
        save(directory, state)

    match moment:
        case "released":
            patch.setattr(ModelKeeper, "take", before_the_step)
        case "closed":
            patch.setattr(Server, "close", before_the_request)
        case "stepped":
            patch.setattr(checkpoint, "save", before_the_checkpoint)
    return patch


@pytest.fixture(scope="module")
def whole(compose: Callable) -> Report:
    """What a run comes to that nobody kills."""
    return run(compose(*SMALL, f"federation.rounds={ROUNDS}"))


@pytest.mark.parametrize(
    ("custody", "every", "number", "moment", "kept", "taken"),
    [
        ("authority", 1, 5, "released", 4, [5]),
        ("authority", 3, 6, "released", 3, [4, 5, 6]),
        ("authority", 3, 6, "stepped", 3, [4, 5, 6]),
        ("authority", 1, 5, "closed", 4, []),  # the sum was never asked for; its key is gone
        ("authority", 3, 5, "closed", 3, [4]),
        ("server", 3, 5, "released", 3, [4, 5]),
    ],
)
def test_released_rounds_are_taken_from_the_ledger(
    compose: Callable,
    tmp_path: Path,
    whole: Report,
    trained: list[int],
    custody: str,
    every: int,
    number: int,
    moment: str,
    kept: int,
    taken: list[int],
) -> None:
    settings = (*SMALL, f"keys={custody}", f"federation.rounds={ROUNDS}")
    patch = killed_in(number, moment)
    try:
        with pytest.raises(Killed):
            run(compose(*settings, f"checkpoint_every={every}"), tmp_path)
    finally:
        patch.undo()
    start = load(tmp_path)
    assert start.round == kept
    trained.clear()
    again = run(compose(*settings, f"checkpoint_every={every}"), tmp_path, (), start)
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert again.accuracies == whole.accuracies and again.rounds == ROUNDS
    played = [each for each in range(kept + 1, ROUNDS + 1) if each not in taken]
    assert trained == [each for each in played for _ in range(4)]
    # What they moved, they moved before.
    assert again.uplink_bytes == pytest.approx(whole.uplink_bytes, rel=1e-3)
    assert load(tmp_path).run == start.run and load(tmp_path).round == ROUNDS


def test_where_clients_hold_the_key_what_is_not_in_a_checkpoint_is_played_again(
    compose: Callable, tmp_path: Path, whole: Report, trained: list[int]
) -> None:
    """Their key and what they decrypted end with the process."""
    settings = (*SMALL, "keys=clients", f"federation.rounds={ROUNDS}", "checkpoint_every=3")
    patch = killed_in(5, "released")
    try:
        with pytest.raises(Killed):
            run(compose(*settings), tmp_path)
    finally:
        patch.undo()
    trained.clear()
    again = run(compose(*settings), tmp_path, (), load(tmp_path))
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert sorted(set(trained)) == [4, 5, 6, 7]


def test_a_resumed_run_may_be_killed_again(
    compose: Callable, tmp_path: Path, whole: Report, trained: list[int]
) -> None:
    settings = (*SMALL, f"federation.rounds={ROUNDS}", "checkpoint_every=3")
    start = None
    for number in (4, 5, 5, 7):
        patch = killed_in(number, "released")
        try:
            with pytest.raises(Killed):
                run(compose(*settings), tmp_path, (), start)
        finally:
            patch.undo()
        start = load(tmp_path)
    again = run(compose(*settings), tmp_path, (), start)
    assert again.weights.tobytes() == whole.weights.tobytes()
    # No round's clients were asked twice, however often the process ended.
    assert trained == [each for each in range(1, ROUNDS + 1) for _ in range(4)]


def test_a_new_run_in_the_same_directory_finds_nothing_of_the_one_before(
    compose: Callable, tmp_path: Path, whole: Report, trained: list[int]
) -> None:
    settings = (*SMALL, f"federation.rounds={ROUNDS}")
    for number in (3, 5):
        patch = killed_in(number, "closed")
        try:
            with pytest.raises(Killed):
                run(compose(*settings), tmp_path)
        finally:
            patch.undo()
    trained.clear()
    again = run(compose(*settings), tmp_path)
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert len(trained) == 4 * ROUNDS


def test_releases_are_kept_no_longer_than_a_restart_may_ask_for_them(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a long run's would fill memory and disk with a model a round."""
    left: list[int] = []
    keep = Ledger.keep

    def noted(self: Ledger, *given: Any) -> None:
        keep(self, *given)
        left.append(sum(1 for entry in self._entries.values() if entry.release))

    monkeypatch.setattr(Ledger, "keep", noted)

    def most(*settings: str, directory: Path | None = None) -> int:
        left.clear()
        run(compose(*SMALL, "federation.rounds=4", *settings), directory)
        return max(left)

    assert most() == most("keys=clients") == 1
    assert most("checkpoint_every=0", directory=tmp_path) == 1
    # A checkpoint may be on its way to the disk.
    assert most("checkpoint_every=1", directory=tmp_path) <= 3


@pytest.mark.slow
def test_a_killed_process_goes_on_without_what_it_had_released(
    forks: Warm, compose: Callable, tmp_path: Path
) -> None:
    """By SIGKILL, at any moment after the first checkpoint."""
    settings = (*SMALL, "federation.rounds=30", "checkpoint_every=5")
    environment = {**os.environ, "HYPERLOCK_ROOT": str(tmp_path)}
    started = forks.start(*settings, cwd=tmp_path, env=environment)
    while started.runs:
        found = list(tmp_path.glob("outputs/runs/*/*/keyholder/*/round-8"))
        if found:
            os.kill(started.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    code, output = started.wait()
    assert code == -signal.SIGKILL, f"the run ended before it was killed: {output}"
    [path] = tmp_path.glob(f"outputs/runs/*/*/{FILE}")
    before = load(path.parent)
    [ledger] = (path.parent / "keyholder").iterdir()
    assert ledger.name == before.run
    code, output = forks.run(f"resume={path.parent}", cwd=tmp_path, env=environment)
    assert code == 0, output
    if before.round < 8:
        assert "released before: it is in the key holder's ledger" in output
    due = run(compose(*settings))
    assert load(path.parent).weights.tobytes() == due.weights.tobytes()


# A server that is restarted alone


class Dead:
    """A custody whose key holder is not reached any more, from a moment on."""

    def __init__(self, custody: Any, after: bool) -> None:
        self._custody = custody
        self._after = after
        self.clients_share = custody.clients_share

    def open(self, request: bytes, **given: Any) -> bytes:
        """As ever."""
        return self._custody.open(request, **given)  # type: ignore[no-any-return]

    def release(self, aggregate: bytes, *, server: Server, **given: Any) -> int:
        """The server dies before it asks, or before it takes the answer."""
        if self._after:
            self._custody.release(aggregate, server=Deaf(), **given)
        raise Killed


class Deaf:
    """A server that hears no answer."""

    def take(self, release: bytes) -> None:
        """Nothing."""


def restarted(parties: Parties, keeper: ModelKeeper, directory: Path) -> Parties:
    """The same parties with a new process of the server, as it was after the last checkpoint."""
    shared = CUSTODIES["clients"] is parties.custody
    session = parties.server._session.at(0, 0)
    server = Server(
        session, min_clients=3, keeper=None if shared else keeper, outbox=Outbox(directory)
    )
    return replace(parties, server=server, keeper=parties.keeper if shared else keeper)


@pytest.mark.parametrize("after", [False, True], ids=["before it asks", "before it hears"])
@pytest.mark.parametrize("custody", ["authority", "clients"])
def test_a_server_that_is_restarted_alone_sends_the_sum_again(
    federate: Callable, tmp_path: Path, trained: list[int], custody: str, after: bool
) -> None:
    """The key holder lives, and so does the attempt's key, or what it has given is in its
    ledger."""
    due = federate("federation.rounds=1", f"keys={custody}").play().weights[-1]
    parties = federate("federation.rounds=1", f"keys={custody}").parties
    parties.server._outbox = Outbox(tmp_path)
    first = ModelKeeper(parties.keeper.model)
    with pytest.raises(Killed):
        run_round(1, replace(parties, custody=Dead(parties.custody, after)), parties.clients)

    trained.clear()
    again = restarted(parties, first, tmp_path)
    moved = run_round(1, again, parties.clients)
    assert trained == []
    assert again.keeper.model.weights.tobytes() == due.tobytes() and again.keeper.round == 1
    assert moved.replies == 4 and moved.uplink > 1000


def test_a_sum_whose_key_is_gone_is_made_anew(
    federate: Callable, tmp_path: Path, trained: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The key holder was restarted too, under the signing key that it had."""
    due = federate("federation.rounds=1").play().weights[-1]
    parties = federate("federation.rounds=1").parties
    parties.server._outbox = Outbox(tmp_path)
    first = ModelKeeper(parties.keeper.model)
    with pytest.raises(Killed):
        run_round(1, replace(parties, custody=Dead(parties.custody, False)), parties.clients)

    old = parties.runtime._handlers["keyholder"].__self__  # type: ignore[attr-defined]
    new = KeyHolder(old._session, policy=Policy(3, 1, 1), ledger=Ledger())
    parties.runtime._handlers["keyholder"] = new.handle  # type: ignore[attr-defined]
    again = restarted(parties, first, tmp_path)
    for name in parties.clients:  # they were restarted as well, and know of no attempt
        handler = parties.runtime._handlers[name]  # type: ignore[attr-defined]
        handler.__self__._memory.seen = (0, 0)
    trained.clear()
    with caplog.at_level("INFO"):
        run_round(1, again, parties.clients)
    assert "round 1 is played again: round 1, attempt 1: its key is gone" in caplog.text
    assert trained == [1] * 4 and again.keeper.model.weights.tobytes() == due.tobytes()


def test_every_attempt_is_another_one(federate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cohort, numbers and a key of its own, and its number in every message."""
    federation = federate("federation.rounds=1", "federation.round_attempts=3")
    parties = federation.parties
    seen: list[tuple[int, str]] = []
    opened = Server.open
    close = Server.close
    failures = iter([True, True, False])

    def noted(self: Server, key: bytes, cohort: Sequence[str], *others: Any) -> bytes:
        train = opened(self, key, cohort, *others)
        message = self._session.hear(Train, train)
        seen.append((message.attempt, message.key_id))
        return train

    def failing(self: Server) -> bytes:
        self._min_clients = 5 if next(failures) else 3
        return close(self)

    monkeypatch.setattr(Server, "open", noted)
    monkeypatch.setattr(Server, "close", failing)
    config = federation.config
    rounds.play_round(1, parties, config.federation, config.seed)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({key for _, key in seen}) == 3
    assert parties.keeper.round == 1


def test_a_key_holder_that_refuses_ends_the_round(federate: Callable) -> None:
    """Another try of the same attempt would be refused too."""
    parties = federate("federation.rounds=1").parties
    run_round(1, parties, parties.clients)
    with pytest.raises(ReleaseRefused, match="none of this run's 1"):
        run_round(2, parties, parties.clients)


# The journal

MOVED = Traffic(uplink=10.5, downlink=20, replies=3, refused=1, lost=2)


def test_a_journal_knows_after_a_restart_what_rounds_moved(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.keep(1, MOVED)
    journal.keep(2, replace(MOVED, lost=0))
    journal.keep(2, replace(MOVED, lost=3))  # a later attempt of the round
    for found in (journal, Journal(tmp_path)):
        assert found.find(1) == MOVED and found.find(2).lost == 3
        assert found.find(3) == Traffic(0.0, 0, 0, 0, 0)
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"round": 1, **asdict(MOVED)} and len(lines) == 3


def test_without_a_directory_a_journal_is_in_memory() -> None:
    journal = Journal()
    journal.keep(1, MOVED)
    assert journal.find(1) == MOVED and Journal().find(1) != MOVED


def test_a_line_that_was_not_written_to_its_end_costs_that_round_alone(tmp_path: Path) -> None:
    """As where a machine lost its power: figures are no reason not to go on."""
    Journal(tmp_path).keep(1, MOVED)
    path = tmp_path / "rounds.jsonl"
    for torn in ('{"round": 2, "upl', '{"round": 2}', "[1]", "\0\0\0"):
        path.write_text(path.read_text().splitlines()[0] + "\n" + torn)
        journal = Journal(tmp_path)
        assert journal.find(1) == MOVED and journal.find(2).replies == 0
        journal.keep(3, MOVED)
        assert Journal(tmp_path).find(3) == MOVED
