"""Work beside the run: in order, one at a time, and no error is lost."""

from __future__ import annotations

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


def test_what_is_not_begun_when_the_block_ends_is_not_done() -> None:
    done: list[str] = []
    begun = threading.Event()
    gate = threading.Event()
    with Background() as background:
        background.give(lambda: (begun.set(), gate.wait()))
        background.give(lambda: done.append("too late"))
        begun.wait()
    gate.set()
    background._pool.shutdown(wait=True)
    assert not done


def test_seconds_are_the_processors_own() -> None:
    with Background() as background:
        background.give(lambda: time.sleep(0.2))
        background.give(lambda: sum(range(100_000)))
        background.wait()
    assert 0 < background.seconds < 0.15
