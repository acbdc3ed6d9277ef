"""How a cohort's updates are collected: asked for, or promised, listed, sent and witnessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from hyperlock.metrics import Stage
from hyperlock.parties.custody import answer_of
from hyperlock.parties.identity import KEYHOLDER, WITNESS
from hyperlock.parties.server import Server
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.runtime import Lost, Reply, Runtime
from hyperlock.runtime.bundle import MOST, bundle


class Exchange(Protocol):
    """One attempt's way.

    Attributes:
        moved: bytes so far to prove things, over all parties.
    """

    moved: int

    def updates(
        self, asked: Sequence[str], request: bytes, between: Callable[[], None]
    ) -> Iterator[tuple[str, Reply]]:
        """Who answered a Train message, and with what; `between` is called after each client that
        trained, and may end the run by an error."""
        ...

    def accepted(self, update: bytes) -> None:
        """The server took this one."""
        ...

    def close(self) -> None:
        """There are no more."""
        ...


class Plain:
    """trust=curious: every client answers with its Update."""

    def __init__(self, server: Server, runtime: Runtime) -> None:
        self.moved = 0
        self._server = server
        self._runtime = runtime

    def updates(
        self, asked: Sequence[str], request: bytes, between: Callable[[], None]
    ) -> Iterator[tuple[str, Reply]]:
        """One message there and one back."""
        replies = self._runtime.exchange(dict.fromkeys(asked, request))
        for answer in _watched(self._server, replies, len(asked)):
            between()
            yield answer

    def accepted(self, update: bytes) -> None:
        """Nobody else is told."""

    def close(self) -> None:
        """Nothing is proved."""


class Verified:
    """trust=malicious: commitments, the roster, updates, the witness.

    Messages that nothing is answered to wait for those that go the same way, and share their trip;
    each party is sent the same ones in the same order as if they did not.

    Args:
        server: what it does in between.
        runtime: reaches the others.
        opened: the attempt's PublicKey message.
    """

    def __init__(self, server: VerifiedServer, runtime: Runtime, opened: bytes) -> None:
        self.moved = 0
        self._server = server
        self._runtime = runtime
        self._opened = opened
        self._waiting: list[bytes] = []  # for the witness

    def updates(
        self, asked: Sequence[str], request: bytes, between: Callable[[], None]
    ) -> Iterator[tuple[str, Reply]]:
        """The model's missing rounds, promises, the roster; then what each sends who is on it."""
        server = self._server
        monitor = server.monitor

        # Who was not asked of late has rounds to catch up on; how many, it says when it joins.
        lost = set()
        for name, away in self._runtime.gather(asked):
            yield name, away
            lost.add(name)
        asked = [name for name in asked if name not in lost]
        states = {name: state for name in asked if (state := server.state(name))}
        caught_up = {state: bundle([state, request]) for state in set(states.values())}
        requests = {name: caught_up[states[name]] if name in states else request for name in asked}
        self.moved += sum(map(len, states.values()))

        # Promises, and the list of them that the key holder closes.
        replies = self._runtime.exchange(requests)
        for name, reply in _watched(server, replies, len(asked)):
            between()
            if isinstance(reply, Lost):
                yield name, reply
                continue
            with monitor.measure(Stage.VERIFY):
                server.commit(reply)
            self.moved += len(reply)
        roster = self._ask(KEYHOLDER, server.commitments())
        names = server.install_roster(roster)
        self._waiting = [self._opened, roster]
        self.moved += len(roster) * len(names)

        # What was promised.
        yield from self._runtime.exchange(dict.fromkeys(names, roster))

    def accepted(self, update: bytes) -> None:
        """The witness is given it too, with others: no more wait than are worth a trip."""
        if sum(map(len, self._waiting)) >= MOST:
            self._ask(WITNESS, bundle(self._waiting))
            self._waiting = []
        self._waiting.append(update)

    def close(self) -> None:
        """The witness says what it came to."""
        rest = bundle([*self._waiting, self._server.end()])
        self._waiting = []
        self._server.install_tally(self._ask(WITNESS, rest))

    def _ask(self, party: str, request: bytes) -> bytes:
        """The answer of somebody without whom there is no round, its bytes counted."""
        reply = answer_of(party, request, self._runtime)
        self.moved += len(request) + len(reply)
        return reply


def exchange_of(server: Server, runtime: Runtime, opened: bytes) -> Exchange:
    """The way of this server's attempt."""
    if isinstance(server, VerifiedServer):
        return Verified(server, runtime, opened)
    return Plain(server, runtime)


def _watched(
    server: Server, replies: Iterator[tuple[str, Reply]], total: int
) -> Iterator[tuple[str, Reply]]:
    """With a bar, if they take long."""
    yield from server.monitor.watch(replies, total, f"round {server.round}: clients")
