"""The server under trust=malicious (`proofs.py`): what an honest one does."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from hyperlock.errors import MessageRefused, RoundFailed
from hyperlock.parties.messages import (
    Close,
    Commitment,
    Commitments,
    Roster,
    Show,
    Shown,
    State,
    Tally,
    Update,
)
from hyperlock.parties.proofs import Cohorts, Draw, digest
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session

log = logging.getLogger(__name__)

_RELEASES = 2  # that a client is sent to catch up with; who missed more is sent the model


class VerifiedServer(Server):
    """Asks the cohort that the key holder drew, and proves its sum.

    Attributes:
        cohort: who is asked in the open attempt.

    Args:
        draw: how the key holder draws cohorts.
        others: as any server's.
    """

    def __init__(self, session: Session, *, draw: Draw, **others: Any) -> None:
        super().__init__(session, **others)
        self._draw = draw
        self._drawn: dict[tuple[int, int], tuple[str, ...]] = {}
        self._cohorts = b""
        self.cohort: tuple[str, ...] = ()
        self._roster: Mapping[str, bytes] = {}
        self._tally: tuple[bytes, ...] = ()
        self._commitments: dict[str, bytes] = {}
        self._promised: dict[str, bytes] = {}
        self._digests: set[bytes] = set()  # of the Updates in the sum
        self._releases: dict[int, bytes] = {}
        self._holds: dict[str, int] = {}  # by client, after which round it has the model

    def open(self, public_key: bytes, cohort: Collection[str]) -> bytes:
        """As any server, for the cohort that the key holder announces."""
        assert self.keeper is not None, "under keys=authority the server has the model"
        key, announced = self._session.read_announced(public_key)
        self._begin_sum(key, announced.cohort)
        self.cohort = announced.cohort
        self._drawn[self._session.round, self._session.attempt] = announced.cohort
        self._cohorts = self._cohorts or announced.cohorts
        self._roster = {}
        self._tally = ()
        self._commitments = {}
        self._promised = {}
        self._digests = set()
        return self._train((public_key, self.keeper.model.digest))

    def state(self, client: str) -> bytes:
        """What a client lacks of the model before it can answer; empty if nothing."""
        assert self.keeper is not None
        held = self._holds.get(client, 0)
        missed = range(held + 1, self.keeper.round + 1)
        if not missed:
            return b""
        if len(missed) <= _RELEASES and all(number in self._releases for number in missed):
            return self._session.write(State, [self._releases[number] for number in missed])
        return self._session.write(State, (b"model", self.keeper.model.encode()))

    def commit(self, data: bytes) -> str | None:
        """Take one client's Commitment; the reason if it was refused."""
        try:
            message = self._session.read(Commitment, data)
            self._check_sender(message.sender)
            if message.sender in self._commitments:
                raise MessageRefused(f"{message.sender} has committed already")
        except MessageRefused as error:
            self.refused += 1
            log.warning("round %d: a commitment was refused: %s", self._session.round, error)
            return str(error)
        self._commitments[message.sender] = data
        self._promised[message.sender] = b"".join(message.parts)
        if self.keeper is not None:
            self._holds[message.sender] = self.keeper.round
        return None

    def commitments(self) -> bytes:
        """The Commitments message for the key holder.

        Raises:
            RoundFailed: fewer than `min_clients` have committed.
        """
        if len(self._commitments) < self._min_clients:
            raise RoundFailed(
                f"round {self._session.round}: {len(self._commitments)} clients have committed, "
                f"but keys.min_clients={self._min_clients}"
            )
        listed = Commitments.write(list(self._commitments.values()))
        return self._session.write(Commitments, (listed,))

    def install_roster(self, data: bytes) -> list[str]:
        """Take the Roster; the names of those on it, who have committed to that."""
        entries = Roster.entries(b"".join(self._session.read(Roster, data).parts))
        if not entries.items() <= self._promised.items():
            raise MessageRefused("a roster of what was not committed to")
        self._roster = entries
        return list(entries)

    def end(self) -> bytes:
        """The Close message for the witness."""
        return self._session.write(Close, ())

    def install_tally(self, data: bytes) -> None:
        """Take the witness' Tally, which the key holder reads."""
        self._session.read(Tally, data)
        self._tally = (data,)

    def show(self) -> bytes:
        """The Show message for the key holder, once the last round is done."""
        return self._session.write(Show, ())

    def check_cohorts(self, data: bytes) -> None:
        """Take what the key holder shows.

        Raises:
            RoundFailed: it is not what it had committed to, or not what cohorts were drawn from.
        """
        shown = Cohorts.read(b"".join(self._session.hear(Shown, data).parts))
        if self._drawn and shown.commitment != self._cohorts:
            raise RoundFailed("the key holder shows another seed than it had committed to")
        for (number, attempt), cohort in self._drawn.items():
            if tuple(self._draw(shown.seed, number, attempt)) != cohort:
                raise RoundFailed(f"round {number}: its cohort was not drawn from the seed shown")

    def take(self, release: bytes) -> None:
        """As any server; and keep the Release for clients that miss it."""
        super().take(release)
        assert self.keeper is not None
        self._releases[self.keeper.round] = release
        self._releases.pop(self.keeper.round - _RELEASES, None)

    def _read(self, data: bytes) -> Update:
        message = super()._read(data)
        if self._roster.get(message.sender) != digest(data):
            raise MessageRefused(f"{message.sender} had committed to another update")
        self._check_sender(message.sender)
        # The witness and the key holder would refuse it, and with it the round.
        if message.digest in self._digests:
            raise MessageRefused(f"{message.sender} sent what another client sent")
        return message

    def _accepted(self, message: Update) -> None:
        super()._accepted(message)
        self._digests.add(message.digest)

    def _tallied(self) -> tuple[bytes, ...]:
        return self._tally
