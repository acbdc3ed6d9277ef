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
from hyperlock.parties.proofs import Cohorts, Draw, digest, unequal
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session

log = logging.getLogger(__name__)

_RELEASES = 2  # that a client is sent to catch up with; who missed more is sent the model


class VerifiedServer(Server):
    """Asks the cohort that the key holder drew, and proves its sum.

    Args:
        draw: how the key holder draws cohorts.
        others: as any server's.
    """

    def __init__(self, session: Session, *, draw: Draw, **others: Any) -> None:
        super().__init__(session, **others)
        self._draw = draw
        self._drawn: dict[tuple[int, int], tuple[str, ...]] = {}
        self._cohorts = b""
        self._roster: Mapping[str, bytes] = {}
        self._tally: tuple[bytes, ...] = ()
        self._commitments: dict[str, bytes] = {}
        self._promised: dict[str, bytes] = {}
        self._releases: dict[int, bytes] = {}
        self._states: dict[int, bytes] = {}  # of this attempt, by the first round in it
        # By client, after which round it has the model: all begin where the server does.
        assert self.keeper is not None, "under keys=authority the server has the model"
        self._begun = self.keeper.round
        self._holds: dict[str, int] = {}

    def open(self, public_key: bytes, cohort: Collection[str], evaluates: bool = False) -> bytes:
        """As any server, for the cohort that the key holder announces."""
        assert self.keeper is not None
        session = self._opened(public_key)
        key, announced = session.read_announced(public_key)
        self._begin_sum(session, key, announced.cohort)
        self._drawn[self._session.round, self._session.attempt] = announced.cohort
        self._cohorts = self._cohorts or announced.cohorts
        self._roster = {}
        self._tally = ()
        self._commitments = {}
        self._promised = {}
        self._states = {}
        return self._train((public_key, self.keeper.model.digest), evaluates)

    def state(self, client: str) -> bytes:
        """What a client lacks of the model before it can answer, the same bytes for all who lack
        the same; empty if nothing."""
        assert self.keeper is not None
        missed = range(self._holds.get(client, self._begun) + 1, self.keeper.round + 1)
        if not missed:
            return b""
        recent = len(missed) <= _RELEASES and all(number in self._releases for number in missed)
        since = missed.start if recent else 0
        if since not in self._states:
            lacking = [self._releases[number] for number in missed] if recent else self._whole()
            self._states[since] = self._session.write(State, lacking)
        return self._states[since]

    def _whole(self) -> list[bytes]:
        """The model itself, for who cannot step to it."""
        assert self.keeper is not None
        return [b"model", self.keeper.model.encode()]

    def joined(self, client: str, round_number: int) -> None:
        """A client has joined, with the model after this round."""
        self._holds[client] = round_number

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
        assert self.keeper is not None
        self._holds[message.sender] = self.keeper.round
        return None

    def commitments(self) -> bytes:
        """The Commitments message for the key holder.

        Raises:
            RoundFailed: fewer than `min_clients` have committed.
        """
        alone = unequal(self._promised)
        if len(alone) < self._min_clients:
            copies = len(self._promised) - len(alone)
            besides = f", and {copies} to what another has" if copies else ""
            raise RoundFailed(
                f"round {self._session.round}: {len(alone)} clients have committed to an "
                f"update{besides}, but keys.min_clients={self._min_clients}"
            )
        for name in self._promised.keys() - alone.keys():
            self.refused += 1
            log.warning("round %d: %s committed to what another has", self._session.round, name)
        listed = Commitments.write([self._commitments[name] for name in alone])
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
        return message

    def _tallied(self) -> tuple[bytes, ...]:
        return self._tally
