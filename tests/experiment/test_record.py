"""A run whose record is opened and written beside its rounds."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest

from hyperlock.errors import ConfigError
from hyperlock.experiment import checkpoint
from hyperlock.experiment.checkpoint import Checkpoint, load
from hyperlock.experiment.run import run
from hyperlock.tracking.mlflow import MlflowTracker, Store

SMALL = (
    "dataset=digits", "dataset.train_samples=300", "model=logistic", "federation.clients=3",
    "encryption=none",
)  # fmt: skip
QUICK = "tracking.log_model=false"


@pytest.fixture
def address(tmp_path: Path, empty_store: Path) -> str:
    """Of an empty store of the test's own."""
    (tmp_path / "store.db").write_bytes(empty_store.read_bytes())
    return f"sqlite:///{tmp_path}/store.db"


class Slow:
    """A store that does not open at once.

    Attributes:
        asked: set when it is asked to.
        answers: to be set for it to open.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()

    def answer_after(self, seconds: float, act: Callable[[], None] = lambda: None) -> None:
        """Do something in the middle of the time."""

        def wait() -> None:
            self.asked.wait(60)
            time.sleep(seconds / 2)
            act()
            time.sleep(seconds / 2)
            self.answers.set()

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Every store is."""
    slow = Slow()
    opened = Store.open

    def open_slowly(*arguments: str) -> Store:
        slow.asked.set()
        slow.answers.wait(60)
        return opened(*arguments)

    monkeypatch.setattr(Store, "open", open_slowly)
    return slow


def stored(address: str) -> tuple[mlflow.MlflowClient, list]:
    client = mlflow.MlflowClient(address)
    found = client.get_experiment_by_name("hyperlock")
    return client, [] if found is None else client.search_runs([found.experiment_id])


def test_every_round_is_recorded_though_the_store_opens_late(
    compose: Callable, tmp_path: Path, address: str, slow: Slow
) -> None:
    slow.answer_after(1)
    composed = compose(*SMALL, QUICK, "federation.rounds=40", f"tracking.uri={address}")
    report = run(composed, tmp_path)
    client, [record] = stored(address)
    assert record.info.status == "FINISHED" and load(tmp_path).run_id == record.info.run_id
    history = client.get_metric_history(record.info.run_id, "accuracy")
    assert {entry.step: entry.value for entry in history} == report.accuracies
    assert len(report.accuracies) == 40 and load(tmp_path).round == 40
    # All seconds by the clock are some stage's, but for a few between them.
    assert sum(report.seconds.values()) == pytest.approx(report.wall, rel=0.25)
    assert report.beside > 0


def test_a_store_that_cannot_be_used_ends_the_run_at_the_next_client(
    compose: Callable, tmp_path: Path, slow: Slow
) -> None:
    slow.answer_after(1)
    composed = compose(*SMALL, QUICK, "federation.rounds=100000", "tracking.uri=nowhere://there")
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"tracking\.uri=\(not shown\): MLflow cannot use it"):
        run(composed, tmp_path)
    assert time.monotonic() - start < 30
    assert not (tmp_path / checkpoint.FILE).exists()


def test_a_server_that_is_not_there_is_one_clear_error(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "tracking.uri=http://me:hunter2@127.0.0.1:9"
    with pytest.raises(ConfigError, match=r"\(not shown\): MLflow cannot use it") as caught:
        run(compose(*SMALL, QUICK, "federation.rounds=100000", uri), tmp_path)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / checkpoint.FILE).exists()


def test_a_round_that_could_not_be_recorded_is_recorded_by_the_run_that_goes_on(
    compose: Callable, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MlflowTracker.log

    def fail(tracker: MlflowTracker, metrics: Mapping[str, float], step: int) -> None:
        if step == 3:
            time.sleep(0.3)  # rounds are played meanwhile
            raise ConfigError("tracking.uri", "(not shown)", "the store is locked")
        log(tracker, metrics, step)

    settings = (*SMALL, QUICK, "federation.rounds=40", f"tracking.uri={address}")
    monkeypatch.setattr(MlflowTracker, "log", fail)
    with pytest.raises(ConfigError, match="the store is locked"):
        run(compose(*settings), tmp_path)
    client, [record] = stored(address)
    assert record.info.status == "FAILED" and load(tmp_path).round == 3
    monkeypatch.undo()
    run(compose(*settings), tmp_path, (), load(tmp_path))
    client, [record] = stored(address)
    history = client.get_metric_history(record.info.run_id, "accuracy")
    assert sorted(entry.step for entry in history) == list(range(1, 41))
    assert record.info.status == "FINISHED"


def test_an_untracked_run_that_is_interrupted_leaves_its_last_round(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    saved: list[int] = []

    def slow(directory: Path, state: Checkpoint) -> None:
        time.sleep(0.05)
        save(directory, state)
        saved.append(state.round)

    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(KeyboardInterrupt):
        run(compose(*SMALL, "tracking=none", "federation.rounds=100000"), tmp_path)
    assert saved and load(tmp_path).round == saved[-1]
    kept = len(saved)
    time.sleep(0.2)
    assert len(saved) == kept  # nothing is under way any more


def test_a_disk_that_is_full_ends_the_run(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="no space left"):
        run(compose(*SMALL, "tracking=none", "federation.rounds=100000"), tmp_path)


def test_an_interrupt_before_the_record_is_open_is_recorded(
    compose: Callable, tmp_path: Path, address: str, slow: Slow
) -> None:
    slow.answer_after(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    composed = compose(*SMALL, QUICK, "federation.rounds=100000", f"tracking.uri={address}")
    with pytest.raises(KeyboardInterrupt):
        run(composed, tmp_path)
    client, [record] = stored(address)
    assert record.info.status == "KILLED"
    # What its rounds had given up to then was not dropped.
    done = len(client.get_metric_history(record.info.run_id, "accuracy"))
    assert done > 0 and load(tmp_path).round - done in (0, 1)
