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
        here = [name for name in asked if name not in lost]
        states = {name: state for name in here if (state := server.state(name))}
        for name, reply in self._runtime.exchange(states) if states else ():
            if isinstance(reply, Lost):
                yield name, reply
                lost.add(name)
        asked = [name for name in asked if name not in lost]
        self.moved += sum(map(len, states.values()))

        # Promises, and the list of them that the key holder closes.
        replies = self._runtime.exchange(dict.fromkeys(asked, request))
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
        self._ask(WITNESS, self._opened)
        self._ask(WITNESS, roster)
        self.moved += len(roster) * len(names)

        # What was promised.
        yield from self._runtime.exchange(dict.fromkeys(names, roster))

    def accepted(self, update: bytes) -> None:
        """The witness is given it too."""
        self._ask(WITNESS, update)

    def close(self) -> None:
        """The witness says what it came to."""
        self._server.install_tally(self._ask(WITNESS, self._server.end()))

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
