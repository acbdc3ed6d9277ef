"""trust=malicious: nobody has to believe the server, nor any client.

The server may do anything here, together with clients: what it could gain by that is taken away
from it. Who takes part is drawn by the key holder. Clients start from the model that they stepped
themselves. Each commits to its whole Update before anybody's ciphertexts are seen, and the key
holder closes the roster of commitments, once for a key, so that none is made from another's. A
witness (`witness.py`) adds the same Updates, and only a sum that it added too is decrypted. What
stays possible is that the witness or the key holder helps the server (docs/security.md).

These are the three parties as they are then; each does all that it does otherwise.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.grid import Grid
from hyperlock.errors import MessageRefused, ReleaseRefused, RoundFailed
from hyperlock.metrics import Stage
from hyperlock.parties.client import Client
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import (
    Aggregate,
    Announced,
    Close,
    Commitment,
    Commitments,
    Roster,
    State,
    Tally,
    Train,
    kind_of,
)
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session

log = logging.getLogger(__name__)

Draw = Callable[[int, int], Sequence[str]]  # from round and attempt to a cohort
_RELEASES = 2  # that a client is sent to catch up with; who missed more is sent the model


def digest(data: bytes | memoryview) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class Cohorts:
    """Who is asked in which attempt, as the key holder draws it.

    Attributes:
        draw: from round and attempt.
        seed: what is drawn from, shown when the run is over.
        nonce: 32 bytes that hide it until then.
    """

    draw: Draw
    seed: int
    nonce: bytes

    @property
    def commitment(self) -> bytes:
        """What everybody is told before the first attempt."""
        return digest(b"hyperlock cohorts" + self.nonce + str(self.seed).encode())


class VerifyingKeyHolder(KeyHolder):
    """Draws cohorts, closes rosters, steps the model, and decrypts what the witness added too.

    Args:
        keeper: its own copy of the model.
        cohorts: how it draws.
        others: as any key holder's.
    """

    _proofs = 1  # the tally

    def __init__(
        self, session: Session, *, keeper: ModelKeeper, cohorts: Cohorts, **others: Any
    ) -> None:
        super().__init__(session, **others)
        self._keeper = keeper
        self._cohorts = cohorts
        self._cohort: tuple[str, ...] = ()
        self._roster: bytes | None = None

    def handle(self, data: bytes) -> bytes:
        """As any key holder; and Commitments with the attempt's Roster."""
        if kind_of(data) == Commitments.kind:
            return self._close(data)
        return super().handle(data)

    def _announced(self, session: Session) -> tuple[bytes, ...]:
        self._roster = None
        self._cohort = tuple(self._cohorts.draw(session.round, session.attempt))
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
        attempt.session = attempt.session.after(message.train)
        message.expect(
            round=attempt.session.round,
            attempt=attempt.session.attempt,
            key_id=attempt.session.key_id,
        )
        entries = self._committed(attempt.session, message)
        if len(entries) < self._min_clients:
            raise ReleaseRefused(
                f"round {message.round}: {len(entries)} clients have committed, and "
                f"keys.min_clients={self._min_clients}"
            )
        self._roster = Roster.write(entries)
        return attempt.session.write(Roster, (self._roster,))

    def _committed(self, session: Session, message: Commitments) -> dict[str, bytes]:
        """What each client of the cohort has committed to; two that are equal count for none."""
        entries: dict[str, bytes] = {}
        for part in message.parts:
            try:
                commitment = session.read(Commitment, bytes(part))
            except MessageRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None
            if commitment.sender not in self._cohort:
                raise ReleaseRefused(
                    f"round {message.round}: {commitment.sender!r:.80} is not in the cohort"
                )
            if commitment.sender in entries:
                raise ReleaseRefused(
                    f"round {message.round}: {commitment.sender!r:.80} has committed twice"
                )
            entries[commitment.sender] = b"".join(commitment.parts)
        values = list(entries.values())
        return {name: value for name, value in entries.items() if values.count(value) == 1}

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
        self._keeper.take(release, self._session)

    def reveal(self) -> Cohorts:
        """What cohorts were drawn from, once the run is over."""
        return self._cohorts


@dataclass(frozen=True)
class Tallied:
    """What a witness signs.

    Attributes:
        roster: SHA-256 of the roster's payload.
        total: `sum_digest` of what it added.
        names: whose Updates these were.
    """

    roster: bytes
    total: bytes
    names: tuple[str, ...]

    def write(self) -> bytes:
        """The payload of a Tally."""
        return Announced(self.names, self.roster, self.total).write()

    @classmethod
    def read(cls, message: Tally) -> Tallied:
        """Out of a Tally; MessageRefused if it is none."""
        found = Announced.read(b"".join(message.parts))
        return cls(found.model, found.cohorts, found.cohort)


def sum_digest(ciphertexts: Sequence[bytes | memoryview]) -> bytes:
    """SHA-256 of a sum's ciphertexts: addition modulo q has one result, and its residues are
    written in one form."""
    found = hashlib.sha256()
    for chunk in ciphertexts:
        found.update(chunk)
    return found.digest()


class CommittingClient(Client):
    """Steps the model itself, and commits to its Update before it sends it.

    Args:
        keeper: of the model; a simulation's clients share one.
        min_clients: a roster of fewer is refused.
        others: as any client's.
    """

    def __init__(
        self, session: Session, *, keeper: ModelKeeper, min_clients: int, **others: Any
    ) -> None:
        super().__init__(session, **others)
        self._keeper = keeper
        self._min_clients = min_clients
        self._cohorts = b""
        self._candidate = b""
        self._here: Session | None = None
        self._waiting: IO[bytes] | None = None
        self._committed = b""

    def handle(self, data: bytes) -> bytes:
        """As any client, but Train with a Commitment, Roster with the Update; State with nothing.

        Raises:
            MessageRefused: besides what any client refuses: a model that is not what it holds, a
                cohort or a roster without it, a second roster.
        """
        match kind_of(data):
            case State.kind:
                return self._catch_up(data)
            case Roster.kind:
                return self._upload(data)
        return super().handle(data)

    def _catch_up(self, data: bytes) -> bytes:
        """Step by the Releases that it missed; of a whole model the key holder says next whether
        it is the one."""
        first, *parts = map(bytes, self._session.hear(State, data).parts)
        if first == b"model" and len(parts) == 1:
            self._candidate = parts[0]
            return b""
        for release in (first, *parts):
            if self._keeper.lacks(release, self._session):
                self._keeper.take(release, self._session)
        return b""

    def _under_its_key(self, message: Train) -> tuple[Session, bytes]:
        session = self._session.at(message.round, message.attempt)
        message.expect(train=b"")
        if len(message.parts) != 2:
            raise MessageRefused("a Train message without a key and a model's digest")
        key, announced = session.read_announced(bytes(message.parts[0]))
        if self.name not in announced.cohort:
            raise MessageRefused(f"{self.name} is not in the cohort that the key holder drew")
        if self._cohorts not in (b"", announced.cohorts):
            raise MessageRefused("the key holder draws cohorts from another seed than it said")
        self._cohorts = announced.cohorts
        if bytes(message.parts[1]) != announced.model:
            raise MessageRefused("another model than the key holder's")
        self._settle(announced.model, message.round)
        session = session.under(key).after(message.digest)
        message.expect(key_id=session.key_id)
        return session, key

    def _settle(self, model: bytes, round_number: int) -> None:
        """Hold the model of this digest, or refuse."""
        candidate = self._candidate
        self._candidate = b""
        if self._keeper.model.digest == model:
            return
        if digest(candidate) != model:
            raise MessageRefused("another model than the one that this client has stepped to")
        self._keeper.put(self._keeper.model.decode(candidate), round_number - 1)

    def _read_model(self, message: Train) -> tuple[NDArray[np.float32], Grid]:
        model = self._keeper.model
        return model.weights, model.grid

    def _answer(self, session: Session, update: bytes) -> bytes:
        """Keep the Update on a disk until the roster is closed, so that memory does not grow with
        the cohort: it is ciphertext."""
        self._here = session
        with session.monitor.measure(Stage.VERIFY):
            self._committed = digest(update)
            self._waiting = tempfile.TemporaryFile(prefix="update")  # noqa: SIM115, closed when sent
            self._waiting.write(update)
            return session.write(Commitment, (self._committed,))

    def _upload(self, data: bytes) -> bytes:
        here = self._here
        if here is None or self._waiting is None:
            raise MessageRefused(f"{self.name} has committed to nothing, or sent it already")
        entries = Roster.entries(b"".join(here.read(Roster, data).parts))
        if entries.get(self.name) != self._committed:
            raise MessageRefused(f"{self.name} is on the roster with another update, or not at all")
        if len(entries) < self._min_clients:
            raise MessageRefused(f"a roster of {len(entries)} clients")
        if len(set(entries.values())) < len(entries):
            raise MessageRefused("a roster on which two clients have the same update")
        with self._waiting as file:
            file.seek(0)
            update = file.read()
        self._waiting = None
        return update


class VerifiedServer(Server):
    """Asks the cohort that the key holder drew, and proves its sum.

    Attributes:
        cohort: who is asked in the open attempt.
    """

    def __init__(self, session: Session, **others: Any) -> None:
        super().__init__(session, **others)
        self.cohort: tuple[str, ...] = ()
        self._roster: Mapping[str, bytes] = {}
        self._tally: tuple[bytes, ...] = ()
        self._commitments: dict[str, bytes] = {}
        self._releases: dict[int, bytes] = {}
        self._holds: dict[str, int] = {}  # by client, after which round it has the model

    def open(self, public_key: bytes, cohort: Collection[str]) -> bytes:
        """As any server, for the cohort that the key holder announces."""
        assert self.keeper is not None, "under keys=authority the server has the model"
        key, announced = self._session.read_announced(public_key)
        self.cohort = announced.cohort
        self._begin_sum(key, announced.cohort)
        self._roster = {}
        self._tally = ()
        self._commitments = {}
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
        return self._session.write(Commitments, list(self._commitments.values()))

    def install_roster(self, data: bytes) -> list[str]:
        """Take the Roster; the names of those on it."""
        self._roster = Roster.entries(b"".join(self._session.read(Roster, data).parts))
        return list(self._roster)

    def end(self) -> bytes:
        """The Close message for the witness."""
        return self._session.write(Close, ())

    def install_tally(self, data: bytes) -> None:
        """Take the witness' Tally, which the key holder reads."""
        self._session.read(Tally, data)
        self._tally = (data,)

    def take(self, release: bytes) -> None:
        """As any server; and keep the Release for clients that miss it."""
        super().take(release)
        assert self.keeper is not None
        self._releases[self.keeper.round] = release
        self._releases.pop(self.keeper.round - _RELEASES, None)

    def _read(self, data: bytes) -> Any:
        message = super()._read(data)
        if self._roster.get(message.sender) != digest(data):
            raise MessageRefused(f"{message.sender} had committed to another update")
        return message

    def _tallied(self) -> tuple[bytes, ...]:
        return self._tally


def check_cohorts(
    revealed: Cohorts, commitment: bytes, drawn: Mapping[tuple[int, int], Sequence[str]]
) -> None:
    """RoundFailed unless the seed is that of the commitment and every cohort came from it."""
    if revealed.commitment != commitment:
        raise RoundFailed("the key holder shows another seed than it had committed to")
    for (round_number, attempt), cohort in drawn.items():
        if tuple(revealed.draw(round_number, attempt)) != tuple(cohort):
            raise RoundFailed(f"round {round_number}: the cohort was not drawn from the seed shown")
