"""The key holder under trust=malicious (`proofs.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hyperlock.errors import MessageRefused, ReleaseRefused
from hyperlock.metrics import Stage
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import (
    Aggregate,
    Announced,
    Commitment,
    Commitments,
    Open,
    Roster,
    Show,
    Shown,
    Tally,
    kind_of,
)
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.proofs import Cohorts, Draw, Tallied, digest, sum_digest, unequal
from hyperlock.parties.session import Session


class VerifyingKeyHolder(KeyHolder):
    """Draws cohorts, closes rosters, steps the model, and decrypts what the witness added too.

    Args:
        keeper: its own copy of the model.
        cohorts: what it draws from.
        draw: how.
        showing: called before `cohorts` are shown, so that who is restarted commits anew.
        others: as any key holder's.
    """

    def __init__(
        self,
        session: Session,
        *,
        keeper: ModelKeeper,
        cohorts: Cohorts,
        draw: Draw,
        showing: Callable[[], None] = lambda: None,
        **others: Any,
    ) -> None:
        super().__init__(session, **others)
        self._keeper = keeper
        self._cohorts = cohorts
        self._draw = draw
        self._showing = showing
        self._over = False
        self._cohort: tuple[str, ...] = ()
        self._roster: bytes | None = None

    def handle(self, data: bytes) -> bytes:
        """As any key holder; Commitments with the attempt's Roster, and Show with what cohorts were
        drawn from, after which it opens nothing more."""
        match kind_of(data):
            case Commitments.kind:
                with self._session.monitor.measure(Stage.VERIFY):
                    return self._close(data)
            case Show.kind:
                return self._show(data)
        return super().handle(data)

    def _show(self, data: bytes) -> bytes:
        message = self._session.hear(Show, data)
        self._over = True
        self._showing()
        return self._session.at(message.round, message.attempt).write(
            Shown, (self._cohorts.write(),)
        )

    def _open(self, data: bytes) -> bytes:
        if self._over:
            raise ReleaseRefused("the run is over: its cohorts' seed has been shown")
        return super()._open(data)

    def _next_attempt(self, message: Open) -> int:
        """The first that was not opened before, whichever is asked for: nothing is skipped, or the
        server would choose among cohorts; and one whose Open was lost on the way goes on."""
        if message.round != self._keeper.round + 1:
            raise ReleaseRefused(
                f"round {message.round} instead of {self._keeper.round + 1}: rounds come in order"
            )
        return super()._next_attempt(replace(message, attempt=1))

    def _announced(self, session: Session) -> tuple[bytes, ...]:
        self._roster = None
        self._cohort = tuple(self._draw(self._cohorts.seed, session.round, session.attempt))
        model = self._keeper.model.digest
        return (Announced(self._cohort, model, self._cohorts.commitment).write(),)

    def _close(self, data: bytes) -> bytes:
        """The roster of this attempt; there is one for a key, ever."""
        attempt = self._attempt
        if attempt is None:
            raise ReleaseRefused("no attempt is open, and no roster is closed")
        if self._roster is not None:
            raise ReleaseRefused(f"round {attempt.session.round}: its roster is closed already")
        message = attempt.session.hear(Commitments, data)
        session = attempt.session.after(message.train)
        message.expect(round=session.round, attempt=session.attempt, key_id=session.key_id)
        entries = self._committed(session, message)
        if len(entries) < self._policy.min_clients:
            raise ReleaseRefused(
                f"round {message.round}: {len(entries)} clients have committed, and "
                f"keys.min_clients={self._policy.min_clients}"
            )
        self._roster = Roster.write(entries)
        attempt.session = session
        return session.write(Roster, (self._roster,))

    def _committed(self, session: Session, message: Commitments) -> dict[str, bytes]:
        """What each client of the cohort has committed to; two that are equal count for none."""
        entries: dict[str, bytes] = {}
        cohort = set(self._cohort)
        listed = Commitments.commitments(b"".join(message.parts), len(self._cohort))
        for data in listed:
            try:
                commitment = session.read(Commitment, data)
            except MessageRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None
            if commitment.sender not in cohort:
                raise ReleaseRefused(
                    f"round {message.round}: {commitment.sender!r:.80} is not in the cohort"
                )
            if commitment.sender in entries:
                raise ReleaseRefused(
                    f"round {message.round}: {commitment.sender!r:.80} has committed twice"
                )
            entries[commitment.sender] = b"".join(commitment.parts)
        return unequal(entries)

    def _check_manifest(self, session: Session, message: Aggregate) -> list[str]:
        """The clients of the sum, who are on the roster and whom the witness added."""
        names = super()._check_manifest(session, message)
        where = f"round {message.round}"
        roster = self._roster
        self._roster = None
        if roster is None:
            raise ReleaseRefused(f"{where}: no roster was closed")
        if not set(names) <= Roster.entries(roster).keys():
            raise ReleaseRefused(f"{where}: a client that is not on the roster")
        ciphertexts, _, tallied = self._parts(message)
        try:
            tally = Tallied.read(session.read(Tally, bytes(tallied[0])))
        except MessageRefused as error:
            raise ReleaseRefused(f"{where}: the tally is refused: {error}") from None
        if tally.roster != digest(roster):
            raise ReleaseRefused(f"{where}: the witness saw another roster")
        if sorted(tally.names) != sorted(names):
            raise ReleaseRefused(f"{where}: the witness added the updates of others")
        if tally.total != sum_digest(ciphertexts):
            raise ReleaseRefused(f"{where}: the witness came to another sum")
        return names

    def _released(self, release: bytes) -> None:
        self._keeper.catch_up(release, self._session)
