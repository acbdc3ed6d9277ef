"""A record in the background is the same record, a little later."""

from __future__ import annotations

import inspect
import threading

import pytest

from hyperlock.background import Background
from hyperlock.errors import ConfigError
from hyperlock.tracking.later import LaterTracker
from hyperlock.tracking.tracker import Tracker


class Notebook(Tracker):
    """Keeps what it is told."""

    run_id = "1234"
    records = True

    def __init__(self) -> None:
        self.pages: list[object] = []

    def log(self, metrics, step):
        self.pages.append((dict(metrics), step))

    def figure(self, name, draw):
        self.pages.append((name, draw()))

    def finish(self, status):
        self.pages.append(status)

    def last_step(self, metric):
        return len(self.pages)

    def where(self):
        return "on the desk"


def no_store() -> Tracker:
    raise ConfigError("tracking.uri", "x", "there is no such store")


def test_it_does_all_that_a_tracker_can_be_asked_for():
    for name, function in inspect.getmembers(Tracker, inspect.isfunction):
        assert name in vars(LaterTracker), name
        assert inspect.signature(function) == inspect.signature(vars(LaterTracker)[name])


def test_nobody_waits_and_all_is_written_in_order():
    gate = threading.Event()
    notebook = Notebook()
    with Background() as background:
        tracker = LaterTracker(lambda: gate.wait() and notebook, background)
        metrics = {"accuracy": 0.5}
        tracker.log(metrics, 1)
        metrics["accuracy"] = 0.0
        tracker.figure("split", lambda: "drawn")
        assert (tracker.records, tracker.run_id, notebook.pages) == (True, "", [])
        threading.Timer(0.05, gate.set).start()
        assert tracker.last_step("accuracy") == 2
        assert (tracker.run_id, tracker.where()) == ("1234", "on the desk")
        tracker.finish("FINISHED")
    assert notebook.pages == [({"accuracy": 0.5}, 1), ("split", "drawn"), "FINISHED"]


def test_a_store_that_is_not_there_is_one_clear_error(caplog):
    gate = threading.Event()
    with Background() as background:
        tracker = LaterTracker(lambda: gate.wait() and no_store(), background)
        tracker.log({}, 1)
        gate.set()
        with pytest.raises(ConfigError, match="no such store"):
            background.wait()
        # However the run ends by it, nothing is added to that.
        tracker.note("Failed")
        tracker.finish("FAILED")
    with Background() as background, pytest.raises(ConfigError, match="no such store"):
        LaterTracker(no_store, background).last_step("accuracy")
    assert not caplog.text


def test_a_write_that_failed_still_leaves_the_run_ended(caplog):
    notebook = Notebook()
    with Background() as background:
        tracker = LaterTracker(lambda: notebook, background)
        tracker.figure("split", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            background.wait()
        tracker.finish("FAILED")
    assert notebook.pages == ["FAILED"] and not caplog.text


def test_a_run_that_is_interrupted_is_ended_once_its_record_is_open():
    gate = threading.Event()
    notebook = Notebook()
    with pytest.raises(KeyboardInterrupt), Background() as background:
        tracker = LaterTracker(lambda: gate.wait() and notebook, background)
        tracker.log({"accuracy": 0.5}, 1)
        threading.Timer(0.05, gate.set).start()
        tracker.finish("KILLED")
        raise KeyboardInterrupt
    assert notebook.pages == [({"accuracy": 0.5}, 1), "KILLED"]
