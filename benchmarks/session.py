"""One way of aggregating updates, and one round of it.

A way is a `Session`: what one client does, what the server does with each update and with the sum,
and what whoever holds the secret key does. Every session checks its own result, so that nothing
broken is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UPDATE_SCALE = 0.02


def drawn_update(client: int, parameters: int) -> NDArray[np.float32]:
    """float32[parameters]: one client's update, always the same."""
    drawn = np.random.default_rng(client).standard_normal(parameters, np.float32)
    return drawn * np.float32(UPDATE_SCALE)


class Clock(Protocol):
    """Measures blocks by stage: their seconds or their peak memory."""

    def measure(self, stage: str) -> AbstractContextManager[None]:
        """Measure the block."""
        ...


class Session(Protocol):
    """One way, with its keys made."""

    def open(self) -> None:
        """Begin a round; not measured."""
        ...

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """What a client sends; its stages are quantise, encrypt and serialise."""
        ...

    def add(self, message: bytes, clock: Clock) -> None:
        """The server's work on one update; its stage is add."""
        ...

    def total(self, clock: Clock) -> bytes:
        """What the server sends back; its stage is total."""
        ...

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """What the receiver does, then, unmeasured, the check against the plaintext result; its
        stage is decrypt."""
        ...


def run_round(
    session: Session, updates: Iterable[NDArray[np.float32]], clock: Clock
) -> tuple[int, int]:
    """One round, updates folded in one at a time; bytes of the last update and of the sum."""
    session.open()
    for update in updates:
        message = session.client(update, clock)
        session.add(message, clock)
        up = len(message)
        del message
    total = session.total(clock)
    session.decrypt(total, clock)
    return up, len(total)


def in_turns(names: Sequence[str], repeat: int) -> list[str]:
    """All names, another one first in each repeat, so that none always runs after the same one."""
    first = repeat % len(names)
    return [*names[first:], *names[:first]]
