"""The coordinator's end of the pipe, without Flower: what it says when others are gone."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.flower import FlowerRuntime
from hyperlock.runtime.invited import InvitedRuntime
from hyperlock.sites import meeting


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_a_socket_that_lost_its_relay_is_as_new(tmp_path: Path) -> None:
    """By that whoever looks after relays sees that another one is wanted."""
    path = tmp_path / "relay.sock"
    runtime = FlowerRuntime(path, 1.0)
    made = path.stat().st_mtime_ns
    with socket.socket(socket.AF_UNIX) as relay:
        relay.connect(str(path))
        until(lambda: runtime._relay is not None)
        assert path.stat().st_mtime_ns == made
    until(lambda: path.stat().st_mtime_ns != made)
    runtime.close()
    assert not path.exists()


class Relays:
    """A SuperLink that runs, and whose relays end at once."""

    def __init__(self) -> None:
        self.started: list[float] = []

    def running(self) -> bool:
        return True

    def relays(self) -> list[object]:
        return []

    def start_relay(self, path: Path) -> None:
        self.started.append(time.monotonic())


def test_the_socket_of_a_killed_coordinator_is_tried_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "_LOOK", 0.001)
    monkeypatch.setattr(meeting, "_RELAYS", 0.05)
    path = tmp_path / "relay.sock"
    path.touch()
    relays = Relays()
    meeting._keep_relay(relays, path, lambda: len(relays.started) == 4)  # type: ignore[arg-type]
    pauses = [b - a for a, b in zip(relays.started, relays.started[1:], strict=False)]
    assert pauses[0] > 0.04 and pauses[1] > 0.09 and pauses[2] > 0.19


def test_many_nodes_look_less_often_each() -> None:
    few = meeting.pace(8)
    assert (few.poll, few.alive) == (pytest.approx(0.1), 10)
    assert few.poll < few.most and 0 < few.share < 1
    many = meeting.pace(200)
    assert (many.poll, many.most, many.alive) == (2.5, 3, 40)


def test_who_does_not_answer_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Pipe:
        """Everybody joins, and `b` is silent after that."""

        def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
            for party, data in requests.items():
                yield party, Lost("no answer in 9 s") if (party, data) == ("b", b"x") else b"yes"

        def close(self) -> None:
            """Nothing is open."""

    runtime = InvitedRuntime(Pipe(), invite=b"?", accepted=lambda party, data: None)
    with caplog.at_level(logging.WARNING):
        replies = dict(runtime.exchange({"a": b"x", "b": b"x"}))
    assert replies == {"a": b"yes", "b": Lost("no answer in 9 s")}
    assert caplog.messages == ["b did not answer: no answer in 9 s"]
