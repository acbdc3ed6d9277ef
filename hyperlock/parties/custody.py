"""Key custody: who is handed the secret key, how a sum is released, and what a person is told.

This is the one place that hands the key holder to anyone. Under `authority` nobody is given it: it
is a party of its own, reached by bytes alone. Under `clients` the clients share it, with the model;
those that are processes of their own pass it on in sealed boxes (`sharing_client`).
Under `server` the server has it, as in the original demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from hyperlock.errors import RoundFailed
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import KeyHolder, Policy, SharedKeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.memory import Memory
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.parties.spending import Spending
from hyperlock.runtime import Lost, Runtime

Handler = Callable[[bytes], bytes]


class Custody(Protocol):
    """One answer to who has the secret key.

    Attributes:
        key_held_by: for the summary.
        warning: for the log, when a run begins; "" for none.
        clients_share: whether all clients hold the key, and so may encrypt symmetrically.
    """

    key_held_by: ClassVar[str]
    warning: ClassVar[str]
    clients_share: ClassVar[bool]

    def keyholder(
        self,
        session: Session,
        *,
        policy: Policy,
        ledger: Ledger,
        memory: Memory | None = None,
        spending: Spending | None = None,
    ) -> KeyHolder:
        """Who makes the keys."""
        ...

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        outbox: Outbox,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """The server, with no more of the rest than it may have."""
        ...

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> Replica | None:
        """What the clients are given beside their data; None where that is nothing."""
        ...

    def handlers(self, keyholder: KeyHolder) -> dict[str, Handler]:
        """Who answers what is sent to the key holder, if it can be sent anything."""
        ...

    def open(self, request: bytes, *, replica: Replica | None, runtime: Runtime) -> bytes:
        """The answer to the server's Open: the attempt's PublicKey message, or the Release of a
        round that was released before.

        Raises:
            ReleaseRefused: the key holder will not.
            RoundFailed: it does not answer.
        """
        ...

    def release(
        self, aggregate: bytes, *, server: Server, clients: Sequence[str], runtime: Runtime
    ) -> int:
        """Have the sum decrypted and the model stepped; bytes that every client was sent for it.

        Raises:
            ReleaseRefused: the key holder will not. Another try of the same attempt would be
                refused, for its key is gone.
            RoundFailed: it does not answer.
        """
        ...


class _ReleasedToServer:
    """What `authority` and `server` have in common: a key holder answers the server alone."""

    clients_share: ClassVar[bool] = False

    def keyholder(
        self,
        session: Session,
        *,
        policy: Policy,
        ledger: Ledger,
        memory: Memory | None = None,
        spending: Spending | None = None,
    ) -> KeyHolder:
        """One with a key for each attempt."""
        return KeyHolder(session, policy=policy, ledger=ledger, memory=memory, spending=spending)

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> None:
        """Nothing: a client has public keys alone."""

    def handlers(self, keyholder: KeyHolder) -> dict[str, Handler]:
        """The key holder, wherever it lives."""
        return {KEYHOLDER: keyholder.handle}

    def open(self, request: bytes, *, replica: Replica | None, runtime: Runtime) -> bytes:
        """By the key holder."""
        return answer_of(KEYHOLDER, request, runtime)

    def release(
        self, aggregate: bytes, *, server: Server, clients: Sequence[str], runtime: Runtime
    ) -> int:
        """The key holder decrypts, and the server steps by what it releases."""
        server.take(answer_of(KEYHOLDER, aggregate, runtime))
        return 0


def answer_of(party: str, request: bytes, runtime: Runtime) -> bytes:
    """The answer of somebody without whom there is no round.

    Raises:
        RoundFailed: there is none; another attempt may be made.
    """
    [(_, answer)] = runtime.exchange({party: request})
    if isinstance(answer, Lost):
        who = "key holder" if party == KEYHOLDER else party
        raise RoundFailed(f"the {who} did not answer: {answer.reason}")
    return answer


class Authority(_ReleasedToServer):
    """keys=authority: a key holder apart from the server decrypts sums, and only sums."""

    key_held_by: ClassVar[str] = "a key holder apart from the server"
    warning: ClassVar[str] = ""

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        outbox: Outbox,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One with the model, and not with the key holder."""
        return Server(session, min_clients=min_clients, keeper=keeper, outbox=outbox)


class OneServer(_ReleasedToServer):
    """keys=server, the original demo's model: the server holds key and model."""

    key_held_by: ClassVar[str] = "the server itself, which can read every update"
    warning: ClassVar[str] = (
        "keys=server: the server holds the secret key and can read every update; "
        "for comparison only"
    )

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        outbox: Outbox,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One that has the key holder inside."""
        assert keyholder is not None, "under keys=server the key holder lives where the server does"
        server = DecryptingServer(session, min_clients=min_clients, keeper=keeper, outbox=outbox)
        server.keyholder = keyholder
        return server


class Clients:
    """keys=clients: they share key and model and decrypt the sum; the server has neither.

    The key lives for the run. Between processes it takes a sealed box for each client to share one
    (`sharing`), and in every attempt it would take as many again.
    """

    key_held_by: ClassVar[str] = "the clients, who share it"
    warning: ClassVar[str] = ""
    clients_share: ClassVar[bool] = True

    def keyholder(
        self,
        session: Session,
        *,
        policy: Policy,
        ledger: Ledger,
        memory: Memory | None = None,
        spending: Spending | None = None,
    ) -> SharedKeyHolder:
        """One with a key for the run; what it has released, the clients know."""
        last = Ledger(last=ledger.last)
        return SharedKeyHolder(session, policy=policy, ledger=last, spending=spending)

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        outbox: Outbox,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One without the model."""
        return Server(session, min_clients=min_clients, keeper=None, outbox=outbox)

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> Replica:
        """The shared key and model."""
        assert isinstance(keyholder, SharedKeyHolder), "made by this custody"
        return Replica(session, keyholder, keeper, seeded)

    def handlers(self, keyholder: KeyHolder) -> dict[str, Handler]:
        """Nobody: the key holder is no party that bytes reach."""
        return {}

    def open(self, request: bytes, *, replica: Replica | None, runtime: Runtime) -> bytes:
        """By the clients, who have one key for all attempts."""
        assert replica is not None, "made by this custody"
        return replica.open(request)

    def release(
        self, aggregate: bytes, *, server: Server, clients: Sequence[str], runtime: Runtime
    ) -> int:
        """By all clients, who are sent the sum."""
        for _ in runtime.exchange(dict.fromkeys(clients, aggregate)):
            pass
        return len(aggregate)


class DecryptingServer(Server):
    """A server that holds the secret key too and could read every update.

    For comparison only; a run with it warns and is tagged.

    Attributes:
        keyholder: what it decrypts with.
    """

    keyholder: KeyHolder


CUSTODIES: dict[str, Custody] = {
    "authority": Authority(),
    "clients": Clients(),
    "server": OneServer(),
}
