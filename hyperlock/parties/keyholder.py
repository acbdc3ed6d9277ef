"""The key holder: decrypts sums, never single updates, and is silent on what it does not release.

A key lives for one attempt of one round: it is made for the attempt, and forgotten, which is to say
unreachable, when its sum was looked at, released or not, and when another attempt begins. So
refusals are no oracle, what is decrypted in one attempt says nothing of another's ciphertexts, and
no two sums are ever decrypted under one key. A round is released once: the ledger gives the same
bytes again to who asks for the same, and nothing to who asks for anything else.

What is released is the sum of Updates that are named in the manifest, each signed by an enrolled
client for this attempt, these terms and the same Train; as many as the sum itself says it holds, at
least `min_clients`; no coordinate larger than they can make it, no digit of their totals that they
cannot have, and as many samples as they are enrolled with.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.scheme import Decryptor, Encryptor, KeyPair
from hyperlock.errors import CiphertextRefused, MessageRefused, ReleaseRefused
from hyperlock.metrics import Stage
from hyperlock.parties.ledger import Entry, Ledger
from hyperlock.parties.memory import Memory
from hyperlock.parties.messages import (
    Aggregate,
    Open,
    Part,
    PublicKey,
    Release,
    kind_of,
    signed_again,
)
from hyperlock.parties.session import Session
from hyperlock.parties.spending import Spending


@dataclass(frozen=True)
class Policy:
    """What a key holder agrees to before a run.

    Attributes:
        min_clients: sums of fewer updates are not released.
        rounds: of the run; nothing is decrypted for a later one.
        attempts: of one round, each with a key and, under trust=malicious, a cohort of its own.
        participations: under privacy, the releases that one client may be in; None for any number.
    """

    min_clients: int
    rounds: int
    attempts: int
    participations: int | None = None


@dataclass
class Attempt:
    """What a key holder knows while an attempt is under way, and forgets with it.

    Attributes:
        session: its voice there.
        decryptor: the key.
        request, answer: the Open message, by its SHA-256, and the PublicKey message: the same again
            gets the same again, for a pipe may deliver twice.
    """

    session: Session
    decryptor: Decryptor = field(repr=False)
    request: bytes = field(default=b"", repr=False)
    answer: bytes = field(default=b"", repr=False)


class KeyHolder:
    """Makes a key for each attempt; sees the encrypted sum and who is in it, no data and no model.

    Args:
        session: its voice in the run.
        policy: what it releases.
        ledger: what it has released.
        memory: which attempt it opened last; nothing that outlives it, if None.
        spending: of whom it has released sums; nothing that outlives it, if None.

    Attributes:
        spending: the same.
    """

    def __init__(
        self,
        session: Session,
        *,
        policy: Policy,
        ledger: Ledger,
        memory: Memory | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.spending = spending or Spending()
        self._session = session
        self._policy = policy
        self._ledger = ledger
        self._memory = memory or Memory()
        self._attempt: Attempt | None = None
        self._maker = ThreadPoolExecutor(1, "keys")
        self._next: Future[KeyPair] | None = None

    def handle(self, data: bytes) -> bytes:
        """Answer Open with the attempt's PublicKey, or the Release of a round that was released
        already; Aggregate with the Release.

        Raises:
            MessageRefused: it is neither, or not of this run, its terms and this attempt.
            ReleaseRefused: the round may not be opened, or its sum not be released.
        """
        match kind_of(data):
            case Open.kind:
                return self._open(data)
            case Aggregate.kind:
                return self._answer(data)
            case kind:
                raise MessageRefused(f"a key holder does not take messages of kind {kind!r:.40}")

    def _open(self, data: bytes) -> bytes:
        message = self._session.hear(Open, data)
        message.expect(key_id="", train=b"")
        released = self._ledger.find(message.round)
        if released is not None and released.release:
            return self._given_again(released)
        request = hashlib.sha256(message.envelope).digest()
        if self._attempt is not None and self._attempt.request == request:
            return self._attempt.answer
        self._refuse_round(message.round)
        attempt = self._next_attempt(message)
        self._forget(message)
        self._memory.note((message.round, attempt))
        return self._new_attempt(request)

    def _forget(self, message: Open) -> None:
        """Drop the Releases that nobody will ask for again."""
        kept = int.from_bytes(b"".join(message.parts), "little")
        self._ledger.forget(min(kept, message.round - 1))

    def _given_again(self, released: Entry) -> bytes:
        """The Release of the ledger."""
        release = signed_again(released.release, self._session.identity)
        self._released(release)
        return release

    def _new_attempt(self, request: bytes) -> bytes:
        """The attempt's PublicKey; the key of the one before is gone."""
        keys = self._new_keys()
        session = self._session.at(*self._memory.seen).under(keys.public)
        answer = session.write(PublicKey, (keys.public, *self._announced(session)))
        decryptor = self._session.scheme.decryptor(keys.secret)
        self._attempt = Attempt(session, decryptor, request, answer)
        return answer

    def _announced(self, session: Session) -> tuple[bytes, ...]:
        """What everybody is told beside the key."""
        return ()

    def _new_keys(self) -> KeyPair:
        """A pair that was made while clients trained, the first one now; and the next is begun."""
        made = self._session.scheme.generate_keys() if self._next is None else self._next.result()
        self._next = self._maker.submit(self._session.scheme.generate_keys)
        return made

    def _answer(self, data: bytes) -> bytes:
        """The Release of a sum, from the ledger if it is there."""
        message = self._session.hear(Aggregate, data)
        request = hashlib.sha256(message.envelope).digest()
        released = self._ledger.find(message.round)
        if released is not None and released.request == request and released.release:
            return self._given_again(released)
        self._refuse_round(message.round)
        session, decryptor = self._spend(message)
        clients = self._check_manifest(session, message)
        self._check_budget(message, clients)
        sums = self._decrypt(decryptor, message)
        self._check_sums(session, clients, sums)
        self.spending.note(message.round, clients)
        release = session.write(Release, (sums.tobytes(),))
        self._ledger.keep(message.round, Entry(request, release))
        self._released(release)
        return release

    def _released(self, release: bytes) -> None:
        """It is in the ledger, and given now."""

    def _refuse_round(self, number: int) -> None:
        """ReleaseRefused for a round that was released, or is none of the run's."""
        last = self._ledger.last
        evaluation = int(self._session.vector.evaluated)  # of what the last round came to
        if not last < number <= self._policy.rounds + evaluation:
            raise ReleaseRefused(
                f"round {number} was released before, or is none of this run's "
                f"{self._policy.rounds}; the last was {last}, and a key holder releases a round "
                "once"
            )

    def _next_attempt(self, message: Open) -> int:
        """The attempt that is opened: the one that is asked for, or the first that was not opened
        before, which a server that was restarted cannot know; ReleaseRefused if it is one too
        many."""
        number, last = self._memory.seen
        if message.round < number:
            raise ReleaseRefused(f"round {message.round} comes after round {number}")
        attempt = max(message.attempt, last + 1 if message.round == number else 1)
        if attempt > self._policy.attempts:
            raise ReleaseRefused(
                f"round {message.round}, attempt {attempt}: a round has {self._policy.attempts} "
                "(federation.round_attempts)"
            )
        return attempt

    def _spend(self, message: Aggregate) -> tuple[Session, Decryptor]:
        """The attempt's key, which nobody has from then on but who decrypts this sum."""
        attempt = self._attempt
        if attempt is None:
            raise ReleaseRefused(
                f"round {message.round}, attempt {message.attempt}: its key is gone; a key lives "
                "for one attempt and decrypts once"
            )
        session = attempt.session.after(message.train)
        message.expect(round=session.round, attempt=session.attempt, key_id=session.key_id)
        self._attempt = None
        return session, attempt.decryptor

    def _check_manifest(self, session: Session, message: Aggregate) -> list[str]:
        """The clients whose Updates are in the sum; ReleaseRefused unless all are what they must
        be."""
        where = f"round {message.round}"
        try:
            _, manifest, _ = self._parts(message)
            envelopes = Aggregate.envelopes(manifest, session.scheme.max_clients)
            updates = [session.read_envelope(envelope) for envelope in envelopes]
        except MessageRefused as error:
            raise ReleaseRefused(f"{where}: the manifest is refused: {error}") from None
        names = [update.sender for update in updates]
        strangers = [name for name in names if name not in session.identity.clients]
        if strangers:
            raise ReleaseRefused(f"{where}: {strangers[0]!r:.80} is not enrolled as a client")
        if len(set(names)) < len(names):
            raise ReleaseRefused(f"{where}: a client is named twice")
        digests: set[bytes] = set()
        for update in updates:
            if session.copied(update.digest, digests):
                raise ReleaseRefused(f"{where}: two clients sent the same ciphertexts")
            digests.add(update.digest)
        if len(names) < self._policy.min_clients:
            raise ReleaseRefused(
                f"{where}: the sum is of {len(names)} updates; of fewer than "
                f"keys.min_clients={self._policy.min_clients} nothing is released"
            )
        return names

    def _check_budget(self, message: Aggregate, clients: list[str]) -> None:
        """ReleaseRefused where a client would be in more releases than was promised it."""
        most = self._policy.participations
        over = [name for name in clients if most is not None and self.spending.of(name) >= most]
        if over:
            raise ReleaseRefused(
                f"round {message.round}: {over[0]} was in {most} releases, which is all that "
                "privacy.epsilon allows"
            )

    def _parts(self, message: Aggregate) -> tuple[tuple[Part, ...], Part, tuple[Part, ...]]:
        """The ciphertexts, the manifest, and what follows."""
        count = self._session.scheme.chunk_count(self._session.vector.length)
        return message.parts[:count], message.parts[count], message.parts[count + 1 :]

    def _decrypt(self, decryptor: Decryptor, message: Aggregate) -> NDArray[np.integer]:
        """The exact sums, int[length], before anything is known to be right with them."""
        monitor = self._session.monitor
        ciphertexts, _, _ = self._parts(message)
        chunks = monitor.watch(ciphertexts, len(ciphertexts), "the key holder decrypts")
        with monitor.measure(Stage.DECRYPT):
            try:
                return decryptor.decrypt(chunks, self._session.vector.length)
            except CiphertextRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None

    def _check_sums(self, session: Session, clients: list[str], sums: NDArray[np.integer]) -> None:
        """Refuse what is not the sum of one update of each of these clients, and say nothing of
        what it is."""
        where = f"round {session.round}"
        totals, update = session.vector.split(sums)
        if totals.contributors != len(clients):
            raise ReleaseRefused(
                f"{where}: the sum does not hold the {len(clients)} updates that are named"
            )
        if not session.vector.possible(sums, len(clients)):
            raise ReleaseRefused(
                f"{where}: a coordinate is larger than {len(clients)} updates can make it, or a "
                "digit of their totals is none"
            )
        if session.vector.counted:
            return  # of their data nothing is told
        limits = [session.identity.clients[name] for name in clients]
        least = sum(limit[0] for limit in limits)
        most = sum(limit[1] for limit in limits)
        if not totals.right <= totals.tested <= most:
            raise ReleaseRefused(
                f"{where}: more test samples than these clients can have, {most}, or more right "
                "answers than samples"
            )
        if session.vector.evaluated and not (totals.samples or update.any()):
            return  # nobody trained
        if not least <= totals.samples <= most or session.round > self._policy.rounds:
            raise ReleaseRefused(
                f"{where}: not as many samples as these clients are enrolled with, {least} to "
                f"{most}"
            )


class SharedKeyHolder(KeyHolder):
    """keys=clients: the clients share one key, which lives for the run.

    Attributes:
        public: the public half of that key, serialised.

    Args:
        session, policy, ledger, spending: as any key holder's.
        keys: the pair; a new one if None.
    """

    def __init__(
        self,
        session: Session,
        *,
        policy: Policy,
        ledger: Ledger,
        keys: KeyPair | None = None,
        spending: Spending | None = None,
    ) -> None:
        super().__init__(session, policy=policy, ledger=ledger, spending=spending)
        keys = keys or session.scheme.generate_keys()
        self.public = keys.public
        self._secret = keys.secret
        self._shared = session.scheme.decryptor(keys.secret)

    def symmetric_encryptor(self) -> Encryptor | None:
        """For the clients."""
        return self._session.scheme.symmetric_encryptor(self._secret)

    def _open(self, data: bytes) -> bytes:
        raise MessageRefused("clients that share a key open attempts themselves")

    def open(self, data: bytes, model: bytes) -> bytes:
        """The PublicKey message that answers an Open, in the header the digest of the model that
        the clients hold."""
        message = self._session.hear(Open, data)
        self._forget(message)
        session = self._session.at(message.round, message.attempt).under(self.public).after(model)
        return session.write(PublicKey, (self.public,))

    def forget(self, round_number: int) -> None:
        """Drop the Releases up to this round, which nobody will ask for again."""
        self._ledger.forget(round_number)

    def _spend(self, message: Aggregate) -> tuple[Session, Decryptor]:
        """The run's key, once for each round."""
        at = (message.round, message.attempt)
        if at <= self._memory.seen:
            raise ReleaseRefused(f"round {message.round} was decrypted before")
        session = self._session.at(*at).under(self.public).after(message.train)
        message.expect(key_id=session.key_id)
        self._memory.note(at)
        return session, self._shared
