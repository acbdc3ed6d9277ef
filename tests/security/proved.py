"""A round at trust=malicious whose messages are known, and its parties as each waits for one of
them.

Keys are the same in every party that is brought to a place of the round, and so are ciphertexts of
one vector: what comes of the good messages can be compared by bytes, whatever was refused between
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from hyperlock.encryption.scheme import Encryptor, KeyPair, Scheme
from hyperlock.errors import HyperLockError, MessageRefused, ReleaseRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, Identity
from hyperlock.parties.messages import Roster, State
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.proofs import digest
from hyperlock.parties.session import Session
from hyperlock.parties.verifying_keyholder import VerifyingKeyHolder
from tests.parties.cast import NAMES
from tests.parties.verified_cast import VerifiedCast
from tests.security.forge import opened, parts_of

# Whose Commitments and Updates have come before, and whose are waited for.
EARLY = ["client-0", "client-4", "client-5"]
LATE = ["client-1", "client-2", "client-3"]
ORDER = [*EARLY, *LATE]

Step = tuple[str, Callable[[bytes], object], bytes]  # a kind, what takes it, a good message

# By what they are called: a message's kind, and a party that reads it.
PLACES: dict[str, tuple[str, str]] = {
    f"{kind} to {reader}": (kind, reader)
    for reader, kinds in {
        "verified server": ("public_key", "commitment", "roster", "update", "tally"),
        "server at the end": ("shown",),
        "verifying key holder": ("open", "commitments", "aggregate"),
        "key holder at the end": ("show",),
        "witness": ("public_key", "roster", "update", "close"),
        "committing client": ("train", "roster"),
        "client that missed a round": ("state",),
        "client that missed many": ("state",),
    }.items()
    for kind in kinds
}


class Remembered:
    """In the place of a scheme's encryptors: the same ciphertexts for the same vector and key."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._made: dict[tuple[bytes, bytes], list[bytes]] = {}

    def under(self, public: bytes) -> Any:
        """An encryptor."""
        return _Again(public, self._scheme.encryptor(public), self._made)


@dataclass
class _Again:
    public: bytes
    encryptor: Encryptor
    made: dict[tuple[bytes, bytes], list[bytes]]

    def encrypt(self, vector: NDArray) -> Iterable[bytes]:
        """As any encryptor."""
        about = (self.public, vector.tobytes())
        if about not in self.made:
            self.made[about] = list(self.encryptor.encrypt(vector))
        return self.made[about]


@dataclass
class KnownKeys:
    """In the place of what makes a key holder's keys."""

    keys: KeyPair

    def submit(self, _: object) -> Future[KeyPair]:
        """The same keys, always."""
        made = Future[KeyPair]()
        made.set_result(self.keys)
        return made


@dataclass
class Said:
    """What honest parties say in one attempt."""

    at: tuple[int, int]
    keys: KeyPair
    begun: bytes
    key: bytes
    train: bytes
    commitments: list[bytes]
    listed: bytes
    roster: bytes
    updates: list[bytes]
    close: bytes
    tally: bytes
    aggregate: bytes
    release: bytes

    def of(self, kind: str) -> list[bytes]:
        """Good messages of a kind that parties wait for."""
        late = len(EARLY)
        by_kind = {
            "open": [self.begun],
            "public_key": [self.key],
            "train": [self.train],
            "commitment": self.commitments[late:],
            "commitments": [self.listed],
            "roster": [self.roster],
            "update": self.updates[late:],
            "close": [self.close],
            "tally": [self.tally],
            "aggregate": [self.aggregate],
            "release": [self.release],
        }
        return by_kind.get(kind, [])

    @property
    def all(self) -> list[bytes]:
        """Every message."""
        ones = [self.begun, self.key, self.train, self.listed, self.roster, self.close, self.tally]
        return [*ones, self.aggregate, self.release, *self.commitments, *self.updates]


@dataclass
class Waiting:
    """A party that has come to where a message is due.

    Attributes:
        cast: it, and the others, for whom nothing has happened yet.
        kind: of the message.
        good: those of the kind that are still to come.
        handle: hands it bytes; raises, or returns a reason, if they are refused.
        after: what comes then.
        last: what is made of the last answer.
        due: what that is after good messages.
        keeper: its model, or that of somebody who has nothing to do with it.
    """

    cast: VerifiedCast
    kind: str
    good: list[bytes]
    handle: Callable[[bytes], object]
    after: list[Step]
    last: Callable[[object], object]
    due: object
    keeper: ModelKeeper = field(repr=False)

    def finish(self) -> None:
        """Good messages, and what comes of them, byte for byte."""
        answer = None
        for message in self.good:
            answer = self.handle(message)
            assert not isinstance(answer, str), answer
        for _, handle, message in self.after:
            answer = handle(message)
            assert not isinstance(answer, str), answer
        assert self.last(answer) == self.due

    def go_on(self) -> None:
        """The good messages that are still taken after another was."""
        for message in self.good:
            with suppress(HyperLockError):
                self.handle(message)
        for _, handle, message in self.after:
            with suppress(HyperLockError):
                handle(message)
        with suppress(HyperLockError):
            self.last(None)


class Proved:
    """An attempt that is under way, another of the same round, and one of the next.

    Args:
        scheme: of the run.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.parties: dict[str, Identity] = VerifiedCast(scheme).parties
        self._remembered = Remembered(scheme)
        self._releases: list[bytes] = []
        self.said = self._say(1, 1)
        self.again = self._say(1, 2)
        self._releases = [self.said.release]
        self.next = self._say(2, 1)
        self.shown = self._key_holder(self.fresh(self.said), self.said.keys).handle(self._show())

    def session(self, name: str) -> Session:
        """A party's, before there is an attempt."""
        return VerifiedCast(self.scheme, parties=self.parties).session(name)

    @property
    def states(self) -> list[bytes]:
        """States for the second round: of a Release, and of the model."""
        server = self.session(SERVER).at(*self.next.at)
        model = self.fresh(self.next).keepers[SERVER].model
        return [
            server.write(State, (self.said.release,)),
            server.write(State, (b"model", model.encode())),
        ]

    @property
    def all(self) -> list[bytes]:
        """Every message of every attempt."""
        said = [message for one in (self.said, self.again, self.next) for message in one.all]
        return [*said, *self.states, self._show(), self.shown]

    def good(self, place: str) -> list[bytes]:
        """What is due there."""
        return self.wait(place).good

    def earlier(self, place: str) -> list[bytes]:
        """Of the same kind, of other attempts."""
        kind, reader = PLACES[place]
        missed = "missed" in reader
        others = (self.said, self.again) if missed else (self.again, self.next)
        return [message for one in others for message in one.of(kind)]

    def wait(self, place: str) -> Waiting:
        """A party, brought to where this is due to it."""
        kind, reader = PLACES[place]
        cast = self.fresh(self.said)
        steps, last, due, name = self._way(reader, cast)
        start = next(i for i, (named, _, _) in enumerate(steps) if named == kind)
        for _, handle, message in steps[:start]:
            handle(message)
        good = [message for named, _, message in steps if named == kind]
        after = steps[start + len(good) :]
        return Waiting(cast, kind, good, steps[start][1], after, last, due, cast.keepers[name])

    def fresh(self, said: Said | tuple[int, int]) -> VerifiedCast:
        """Parties for whom nothing has happened yet in this attempt's round."""
        cast = VerifiedCast(self.scheme, parties=self.parties)
        for client in cast.clients.values():
            client._encryptor = self._remembered.under
        round_number, _ = said.at if isinstance(said, Said) else said
        for name, keeper in cast.keepers.items():
            for release in self._releases[: round_number - 1]:
                keeper.take(release, cast.session(name))
        return cast

    def _way(
        self, reader: str, cast: VerifiedCast
    ) -> tuple[list[Step], Callable[[object], object], object, str]:
        """All that a party is sent in order, what is made of its last answer, what that has to be,
        and whose model is looked at."""
        said = self.said
        match reader:
            case "verified server":
                return (
                    self._server_steps(cast),
                    lambda _: cast.server.close(),
                    said.aggregate,
                    SERVER,
                )
            case "server at the end":
                self._server_steps(cast)[0][1](said.key)
                shown: Step = ("shown", cast.server.check_cohorts, self.shown)
                return [shown], _itself, None, SERVER
            case "verifying key holder" | "key holder at the end":
                return *self._key_holder_steps(cast, reader), KEYHOLDER
            case "witness":
                handle = cast.witness.handle
                early = [("", handle, update) for update in said.updates[: len(EARLY)]]
                late = [("update", handle, update) for update in said.of("update")]
                key: Step = ("public_key", handle, said.key)
                roster: Step = ("roster", handle, said.roster)
                close: Step = ("close", handle, said.close)
                return [key, roster, *early, *late, close], _itself, said.tally, SERVER
            case "committing client":
                handle = cast.clients[LATE[-1]].handle
                steps = [("train", handle, said.train), ("roster", handle, said.roster)]
                return steps, _itself, said.updates[-1], LATE[-1]
            case _:
                handle = cast.clients[LATE[-1]].handle
                state = self.states[0 if reader == "client that missed a round" else 1]
                steps = [("state", handle, state), ("", handle, self.next.train)]
                return steps, _itself, self.next.commitments[-1], LATE[-1]

    def _server_steps(self, cast: VerifiedCast) -> list[Step]:
        """After it has asked for a key."""
        said = self.said
        server = cast.server
        server.begin(*said.at)
        kinds = [*[""] * len(EARLY), *["commitment"] * len(LATE)]
        commitments = [
            (kind, server.commit, message)
            for kind, message in zip(kinds, said.commitments, strict=True)
        ]
        updates = [
            (kind and "update", server.receive, message)
            for kind, message in zip(kinds, said.updates, strict=True)
        ]
        return [
            ("public_key", lambda data: _nothing(server.open(data, NAMES)), said.key),
            *commitments,
            ("roster", server.install_roster, said.roster),
            *updates,
            ("tally", server.install_tally, said.tally),
        ]

    def _key_holder_steps(
        self, cast: VerifiedCast, reader: str
    ) -> tuple[list[Step], Callable[[object], object], object]:
        said = self.said
        handle = self._key_holder(cast, said.keys).handle
        begun: Step = ("open", handle, said.begun)
        if reader == "key holder at the end":
            return [begun, ("show", handle, self._show())], _itself, self.shown
        listed: Step = ("commitments", handle, said.listed)
        aggregate: Step = ("aggregate", handle, said.aggregate)
        return [begun, listed, aggregate], _itself, said.release

    def _key_holder(self, cast: VerifiedCast, keys: KeyPair) -> VerifyingKeyHolder:
        """With keys that are told."""
        known: Any = KnownKeys(keys)
        cast.keyholder._maker = known
        cast.keyholder._next = known.submit(None)
        return cast.keyholder

    def _show(self) -> bytes:
        cast = self.fresh(self.said)
        cast.server.begin(*self.said.at)
        return cast.server.show()

    def _say(self, *at: int) -> Said:
        """All of an attempt."""
        cast = self.fresh((at[0], at[1]))
        for earlier in range(1, at[1]):
            cast.keyholder.handle(cast.server.begin(at[0], earlier))
        keys = self.scheme.generate_keys()
        self._key_holder(cast, keys)
        begun = cast.server.begin(*at)
        key = cast.keyholder.handle(begun)
        train = cast.server.open(key, NAMES)
        commitments = [cast.clients[name].handle(train) for name in ORDER]
        for commitment in commitments:
            cast.server.commit(commitment)
        listed = cast.server.commitments()
        roster = cast.keyholder.handle(listed)
        cast.server.install_roster(roster)
        cast.witness.handle(key)
        cast.witness.handle(roster)
        updates = [cast.clients[name].handle(roster) for name in ORDER]
        for update in updates:
            assert cast.server.receive(update) is None
            cast.witness.handle(update)
        close = cast.server.end()
        tally = cast.witness.handle(close)
        cast.server.install_tally(tally)
        aggregate = cast.server.close()
        release = cast.keyholder.handle(aggregate)
        return Said(
            (at[0], at[1]), keys, begun, key, train, commitments, listed, roster, updates, close,
            tally, aggregate, release,
        )  # fmt: skip


class Promise:
    """Server, witness and key holder when Updates are due, of whose clients some turned hostile and
    have promised whatever they send.

    Args:
        proved: the round.
    """

    def __init__(self, proved: Proved) -> None:
        said = proved.said
        self.cast = proved.fresh(said)
        self.good = said.of("update")
        self.due = said.release
        self._roster = Roster.entries(parts_of(said.roster)[0])
        keyholder = proved._key_holder(self.cast, said.keys)
        for message in (said.begun, said.listed):
            keyholder.handle(message)
        for message in (said.key, said.roster):
            self.cast.witness.handle(message)
        for _, handle, message in proved._server_steps(self.cast)[: 2 + len(ORDER)]:
            handle(message)
        for update in said.updates[: len(EARLY)]:
            assert self.handle(update) is None

    def handle(self, data: bytes) -> str | None:
        """The server's reason if it refuses; what it takes, the witness has to take too."""
        good = self._roster
        self._promised({**good, _sender(data): digest(data)})
        reason = self.cast.server.receive(data)
        if reason is not None:
            self._promised(good)
            return reason
        try:
            self.cast.witness.handle(data)
        except MessageRefused as error:
            raise AssertionError("the witness refuses what the server took") from error
        return None

    def close(self) -> bytes:
        """The Release of what was taken."""
        server = self.cast.server
        server.install_tally(self.cast.witness.handle(server.end()))
        return self.cast.keyholder.handle(server.close())

    def finish(self) -> None:
        """The late clients send what is good, if they have not sent before."""
        for update in self.good:
            self.handle(update)
        assert self.close() == self.due

    def go_on(self) -> None:
        """The same after something else was taken: its sum is released or refused."""
        for update in self.good:
            self.handle(update)
        with suppress(ReleaseRefused):
            self.close()

    def _promised(self, entries: dict[str, bytes]) -> None:
        """This roster was closed."""
        self._roster = entries
        roster = Roster.write(entries)
        self.cast.server._roster = entries
        self.cast.witness._entries = entries
        self.cast.witness._roster = roster
        self.cast.keyholder._roster = roster


def _sender(data: bytes) -> str:
    """Whom a message names, or a client that is late."""
    try:
        named = str(opened(data)[1]["sender"])
    except Exception:  # whatever a mutation left
        named = ""
    return named if named in ORDER else LATE[-1]


def _itself(answer: object) -> object:
    return answer


def _nothing(_: object) -> None:
    """Of an answer that is no reason to refuse."""
