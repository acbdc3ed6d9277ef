"""Work beside the run: in order, one at a time, and no error is lost."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from hyperlock import background as module
from hyperlock.background import Background


def failing() -> None:
    raise OSError("the disk is full")


def test_tasks_are_done_in_order_beside_the_caller() -> None:
    done: list[int] = []
    gate = threading.Event()
    with Background() as background:
        background.give(gate.wait)
        for i in range(5):
            background.give(lambda i=i: done.append(i))
        assert not done
        gate.set()
        background.wait()
        assert done == list(range(5))
        assert background.give(threading.current_thread).result() != threading.main_thread()


def test_an_error_is_raised_once_and_ends_what_waits_behind_it() -> None:
    done: list[str] = []
    gate = threading.Event()
    with Background() as background:
        background.give(gate.wait)
        failed = background.give(failing)
        background.check()  # nothing failed yet
        gate.set()
        while not failed.done():
            time.sleep(0.001)
        with pytest.raises(OSError, match="disk is full"):
            background.give(lambda: done.append("what was given too late"))
        background.give(lambda: done.append("what is given afterwards"))
        background.wait()
    assert done == ["what is given afterwards"]


def test_whoever_gives_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKLOG", 2)
    gate = threading.Event()
    threading.Timer(0.1, gate.set).start()
    with Background() as background:
        for _ in range(2):
            background.give(gate.wait)
        assert not gate.is_set()
        background.give(gate.wait)
        assert gate.is_set()
        background.wait()


def test_after_an_error_nothing_is_begun_before_it_is_raised() -> None:
    """Else a round would be recorded behind one that could not be, and never be made good."""
    done: list[str] = []
    gate = threading.Event()
    with Background() as background:
        background.give(lambda: gate.wait() and failing())
        behind = background.give(lambda: done.append("behind it"))
        gate.set()
        while not behind.done():
            time.sleep(0.001)
        with pytest.raises(OSError, match="disk is full"):
            background.wait()
    assert not done


def test_what_is_given_as_the_last_is_done_whatever_failed() -> None:
    done: list[str] = []
    gate = threading.Event()
    with pytest.raises(OSError, match="disk is full"), Background() as background:
        background.give(lambda: gate.wait() and failing())
        background.give(lambda: done.append("behind it"))
        background.give_last(lambda: done.append("the last"))
        gate.set()
    assert done == ["the last"]


def test_the_block_ends_when_all_is_done() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Background() as background:
        background.give(lambda: time.sleep(0.05))
        background.give(lambda: done.append("written"))
        raise KeyError
    assert done == ["written"]


def test_an_error_that_another_one_hides_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), Background() as background:
        background.give(failing)
        raise KeyError
    assert "not all was written: the disk is full" in caplog.text


def test_an_interrupt_waits_for_what_ends_and_not_for_what_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    monkeypatch.setattr(module, "_DEAF", 0.1)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.give(lambda: done.append("written"))
        raise KeyboardInterrupt
    assert done == ["written"] and not caplog.text

    gate = threading.Event()
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.give(gate.wait)
        last = background.give(lambda: done.append("later"))
        raise KeyboardInterrupt
    assert "not waited for" in caplog.text and not last.done()
    gate.set()
    last.result(10)  # if the process is still there


def test_a_second_interrupt_at_once_leaves_a_whole_record() -> None:
    done: list[str] = []

    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append("written")

    with pytest.raises(KeyboardInterrupt), Background() as background:
        gate = threading.Event()
        background.give(gate.wait)
        background.give_last(slow)
        threading.Timer(0.1, gate.set).start()
        raise KeyboardInterrupt
    assert done == ["written"]


def test_what_waits_holds_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_BACKLOG", 100)
    gate = threading.Event()
    threading.Timer(0.1, gate.set).start()
    with Background() as background:
        background.give(gate.wait, 60)
        background.give(gate.wait, 40)
        assert not gate.is_set()
        background.give(gate.wait, 1)
        assert gate.is_set()
        background.give(gate.wait, 1000)  # alone, anything may


def test_seconds_are_the_processors_own() -> None:
    with Background() as background:
        background.give(lambda: time.sleep(0.2))
        background.give(lambda: sum(range(100_000)))
        background.wait()
    assert 0 < background.seconds < 0.15
