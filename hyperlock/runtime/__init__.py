"""How bytes get from one party to another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Lost:
    """A party that did not answer.

    Attributes:
        reason: why.
        away: whether it has not been reached at all, and may be asked again once it is back.
    """

    reason: str
    away: bool = False


Reply = bytes | Lost


class Pipe(Protocol):
    """What moves bytes to parties, wherever they live."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """Send each party its bytes, a message or a bundle of them (`bundle`), and yield
        (party, reply) as replies come."""
        ...

    def close(self) -> None:
        """Nobody is asked any more."""
        ...


class Runtime(Pipe, Protocol):
    """All that the round loop knows of where parties live."""

    def gather(self, parties: Collection[str]) -> Iterator[tuple[str, Lost]]:
        """Have these take part, and yield those who do not, and why."""
        ...
