"""Seconds by stage; bars for what takes long, on a terminal, else nothing but the items."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from hyperlock import monitor as module
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor

MONITOR = Monitor()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich takes for one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "PATIENCE", 0.0)


def shown() -> list[str]:
    """What the bars that are on the screen stand for."""
    assert MONITOR._bars is not None
    return [task.description for task in MONITOR._bars.tasks]


def test_a_step_that_takes_long_has_a_bar_under_that_of_the_rounds(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    with MONITOR.rounds(2) as advance:
        for item in MONITOR.watch(iter("abcd"), 4, "the key holder decrypts"):
            seen.append((item, shown()))
            MONITOR._bars.refresh()
        assert shown() == ["rounds"]
        advance(0.5)
    both = ["rounds", "the key holder decrypts"]
    assert seen == [("a", ["rounds"]), ("b", both), ("c", both), ("d", both)]
    output, errors = capsys.readouterr()
    assert (
        not output
        and "the key holder decrypts" in errors
        and "3/4" in errors
        and "accuracy 0.5000" in errors
    )


def test_a_step_that_is_through_in_time_has_none(
    terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3600.0)
    with MONITOR.rounds(1):
        for _ in MONITOR.watch(range(9), 9, "encrypts"):
            assert shown() == ["rounds"]


def test_a_bar_comes_only_when_patience_is_over(
    terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 1.4, 1.6])
    monkeypatch.setattr(module, "PATIENCE", 1.5)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with MONITOR.rounds(1):
        counts = [len(shown()) for _ in MONITOR.watch(range(6), 6, "encrypts")]
    assert counts == [1, 1, 1, 2, 2, 2]


def test_steps_within_steps_each_have_one(terminal: None) -> None:
    with MONITOR.rounds(1):
        for i in MONITOR.watch(range(3), 3, "clients"):
            for j in MONITOR.watch(range(3), 3, "encrypts"):
                assert shown() == ["rounds"] + ["clients"] * (i > 0) + ["encrypts"] * (j > 0)


def failing() -> Iterator[int]:
    yield from range(3)
    raise RuntimeError("the step failed")


def test_a_step_that_fails_or_is_given_up_leaves_no_bar(terminal: None) -> None:
    with MONITOR.rounds(1):
        with pytest.raises(RuntimeError, match="the step failed"):
            list(MONITOR.watch(failing(), 9, "decrypts"))
        assert shown() == ["rounds"]
        given_up = MONITOR.watch(range(9), 9, "decrypts")
        assert [next(given_up), next(given_up)] == [0, 1] and len(shown()) == 2
        given_up.close()
        assert shown() == ["rounds"]


def test_where_there_is_no_terminal_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with MONITOR.rounds(2) as advance:
        assert list(MONITOR.watch(iter("abcd"), 4, "decrypts")) == list("abcd")
        assert shown() == ["rounds"]
        advance(0.5)
    assert capsys.readouterr() == ("", "")


def test_outside_of_a_run_items_pass_through_as_they_are_made(terminal: None) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            made.append(i)
            yield i

    for item in MONITOR.watch(items(), 3, "decrypts"):
        assert made == list(range(item + 1))
    assert made == [0, 1, 2] and MONITOR._bars is None


def test_seconds_add_up_by_stage_and_are_drained() -> None:
    monitor = Monitor()
    for _ in range(2):
        with monitor.measure(Stage.ENCRYPT):
            pass
    seconds = monitor.drain()
    assert list(seconds) == [Stage.ENCRYPT] and seconds[Stage.ENCRYPT] > 0
    assert monitor.drain() == {}


def test_a_misspelt_stage_does_not_run() -> None:
    monitor = Monitor()
    with pytest.raises(ValueError, match="encrpyt"), monitor.measure("encrpyt"):  # type: ignore
        raise AssertionError("the block was entered")
    assert monitor.drain() == {}
