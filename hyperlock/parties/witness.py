"""The witness: adds what the server adds, and signs what it came to.

A party of another owner than the server, with public keys only. Addition modulo q is deterministic:
two that add the same Updates come to the same bytes. It is given each Update after the server took
it, checks it against the roster that the key holder signed, and says in the end whose Updates it
added and the SHA-256 of their sum.
"""

from __future__ import annotations

from collections.abc import Mapping

from hyperlock.encryption.scheme import Accumulator
from hyperlock.errors import CiphertextRefused, MessageRefused
from hyperlock.metrics import Stage
from hyperlock.parties.messages import Close, PublicKey, Roster, Tally, Update, kind_of
from hyperlock.parties.proofs import Tallied, digest, sum_digest
from hyperlock.parties.session import Session


class Witness:
    """Holds nothing that outlives the next attempt.

    Args:
        session: its voice in the run.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened = (0, 0)
        self._key = b""
        self._roster = b""
        self._entries: Mapping[str, bytes] = {}
        self._added: dict[str, bytes] = {}  # payload digests, by client
        self._digests: set[bytes] = set()  # the same
        self._sum: Accumulator | None = None

    def handle(self, data: bytes) -> bytes:
        """Answer PublicKey, Roster and Update with nothing, Close with a Tally.

        Raises:
            MessageRefused: it is none of these, not of this attempt, or an Update that is not on
                the roster as it is.
        """
        with self._session.monitor.measure(Stage.VERIFY):
            match kind_of(data):
                case PublicKey.kind:
                    self._open(data)
                case Roster.kind:
                    self._begin(data)
                case Update.kind:
                    self._add(data)
                case Close.kind:
                    return self._tally(data)
                case kind:
                    raise MessageRefused(f"a witness does not take messages of kind {kind!r:.40}")
            return b""

    def _open(self, data: bytes) -> None:
        """A new attempt, later than the last."""
        message = self._session.hear(PublicKey, data)
        at = (message.round, message.attempt)
        if at <= self._opened:
            raise MessageRefused(f"round {at[0]}, attempt {at[1]} was witnessed before")
        session = self._session.at(*at)
        self._key, _ = session.read_announced(data)
        self._session = session.under(self._key)
        self._opened = at
        self._roster = b""
        self._sum = None

    def _begin(self, data: bytes) -> None:
        """The roster, once an attempt; with it the Train that all have seen."""
        message = self._session.hear(Roster, data)
        if not self._key:
            raise MessageRefused("a roster before the key")
        message.expect(round=self._opened[0], attempt=self._opened[1], key_id=self._session.key_id)
        # Nor after the tally: it adds once.
        if self._roster:
            raise MessageRefused("a second roster of the same attempt")
        roster = b"".join(message.parts)
        self._entries = Roster.entries(roster)
        self._added = {}
        self._digests = set()
        length = self._session.vector.length
        self._sum = self._session.scheme.accumulator(self._key, length)
        self._session = self._session.after(message.train)
        self._roster = roster

    def _add(self, data: bytes) -> None:
        if self._sum is None:
            raise MessageRefused("an update before the roster")
        message = self._session.read(Update, data)
        if message.sender in self._added:
            raise MessageRefused(f"a second update of {message.sender}")
        if self._entries.get(message.sender) != digest(data):
            raise MessageRefused(f"{message.sender} had committed to another update")
        if self._session.copied(message.digest, self._digests):
            raise MessageRefused(f"{message.sender} sent what another client sent")
        try:
            self._sum.add(message.parts)
        except CiphertextRefused as error:
            raise MessageRefused(f"an update of {message.sender}: {error}") from None
        self._added[message.sender] = message.digest
        self._digests.add(message.digest)

    def _tally(self, data: bytes) -> bytes:
        self._session.read(Close, data)
        if self._sum is None:
            raise MessageRefused("nothing was added")
        total = sum_digest(tuple(self._sum.total()))
        self._sum = None
        tallied = Tallied(digest(self._roster), total, tuple(self._added))
        return self._session.write(Tally, (tallied.write(),))
