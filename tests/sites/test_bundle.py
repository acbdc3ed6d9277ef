"""Messages that share a trip: the same ones, in the same order, and never more than are bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from hyperlock.errors import MessageRefused
from hyperlock.experiment import exchange
from hyperlock.experiment.exchange import Verified
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER, WITNESS
from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.bundle import answered, bundle, opened

MESSAGES = [b"first", b"", b"third" * 100]


def test_what_was_bundled_is_there_again() -> None:
    assert opened(bundle(MESSAGES)) == MESSAGES


def test_one_message_is_itself() -> None:
    message = b"whole"
    assert bundle([message]) is message
    assert opened(message) == [message]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"\x02\0\0\0\xff\xff\xff\xff",
        bundle(MESSAGES)[1:],
        b"x" + bundle(MESSAGES),
        bundle(MESSAGES)[:-8] + b"\x02\0\0\0\xff\xff\xff\xff",
        bundle(MESSAGES)[:-8] + b"\xff\xff\xff\xff" * 2,
        bundle([b"one"] * (2**16 + 1)),
    ],
)
def test_what_is_malformed_is_one_message(data: bytes) -> None:
    """Which whoever reads it refuses."""
    assert opened(data) == [data]


def test_the_answer_is_that_to_the_last_and_nothing_follows_a_refusal() -> None:
    seen = []

    def handle(message: bytes) -> bytes:
        seen.append(message)
        if message == b"":
            raise MessageRefused("empty")
        return message[:1]

    assert answered(handle, bundle([b"ab", b"cd"])) == b"c"
    with pytest.raises(MessageRefused, match="empty"):
        answered(handle, bundle(MESSAGES))
    assert seen == [b"ab", b"cd", b"first", b""]


class Server:
    """Of which only order matters: who promised is on the roster."""

    monitor = Monitor()
    round = 1

    def state(self, client: str) -> bytes:
        return b"state" if client != "a" else b""

    def commit(self, reply: bytes) -> None:
        """Any."""

    def commitments(self) -> bytes:
        return b"commitments"

    def install_roster(self, roster: bytes) -> Sequence[str]:
        return ["a", "b", "c"]

    def end(self) -> bytes:
        return b"close"

    def install_tally(self, tally: bytes) -> None:
        assert tally == b"tally"


class Pipe:
    """Notes what shared each trip."""

    def __init__(self) -> None:
        self.trips: list[tuple[str, list[bytes]]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        for party, request in requests.items():
            self.trips.append((party, opened(request)))
        for party in requests:
            yield party, b"tally" if party == WITNESS else b"update of " + party.encode()

    def gather(self, parties: Any) -> Iterator[tuple[str, Lost]]:
        return iter(())


def collected(monkeypatch: pytest.MonkeyPatch, most: int) -> list[tuple[str, list[bytes]]]:
    """The trips of an attempt in which all updates are accepted."""
    monkeypatch.setattr(exchange, "MOST", most)
    pipe = Pipe()
    attempt = Verified(Server(), pipe, b"key")  # type: ignore[arg-type]
    for _, update in attempt.updates(["a", "b", "c"], b"train", lambda: None):
        assert isinstance(update, bytes)
        attempt.accepted(update)
    attempt.close()
    return pipe.trips


def test_a_round_is_four_trips_beside_the_key_and_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    trips = collected(monkeypatch, 10_000)
    roster = b"update of " + KEYHOLDER.encode()
    updates = [b"update of a", b"update of b", b"update of c"]
    assert trips == [
        ("a", [b"train"]),
        ("b", [b"state", b"train"]),
        ("c", [b"state", b"train"]),
        (KEYHOLDER, [b"commitments"]),
        *[(name, [roster]) for name in "abc"],
        (WITNESS, [b"key", roster, *updates, b"close"]),
    ]


def test_no_more_waits_than_is_worth_a_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    trips = [messages for party, messages in collected(monkeypatch, 10) if party == WITNESS]
    roster = b"update of " + KEYHOLDER.encode()
    assert trips == [
        [b"key", roster],
        [b"update of a"],
        [b"update of b"],
        [b"update of c", b"close"],
    ]
