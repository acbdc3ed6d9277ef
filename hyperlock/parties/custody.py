"""Key custody: who is handed the secret key, how a sum is released, and what a person is told.

This is the one place that hands the key holder to anyone. Under `authority` nobody is given it: it
is a party of its own, reached by bytes alone. Under `clients` the clients share it, with the model.
Under `server` the server has it, as in the original demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from hyperlock.errors import ReleaseRefused
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
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

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
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

    def release(
        self,
        round_number: int,
        aggregate: bytes,
        *,
        server: Server,
        clients: Sequence[str],
        runtime: Runtime,
    ) -> int:
        """Have the sum decrypted and the model stepped; bytes that every client was sent for it.

        Raises:
            ReleaseRefused: the key holder will not, or does not answer. Another try would be
                refused, should it have decrypted: it does so once a round.
        """
        ...


class _ReleasedToServer:
    """What `authority` and `server` have in common: a key holder answers the server alone."""

    clients_share: ClassVar[bool] = False

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> None:
        """Nothing: a client has the public key alone."""

    def handlers(self, keyholder: KeyHolder) -> dict[str, Handler]:
        """The key holder, wherever it lives."""
        return {KEYHOLDER: keyholder.handle}

    def release(
        self,
        round_number: int,
        aggregate: bytes,
        *,
        server: Server,
        clients: Sequence[str],
        runtime: Runtime,
    ) -> int:
        """The key holder decrypts, and the server steps by what it releases."""
        [(_, release)] = runtime.exchange({KEYHOLDER: aggregate})
        if isinstance(release, Lost):
            raise ReleaseRefused(
                f"round {round_number}: the key holder did not answer: {release.reason}"
            )
        server.take(release)
        return 0


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
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One with the model, and not with the key holder."""
        return Server(session, min_clients=min_clients, keeper=keeper)


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
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One that has the key holder inside."""
        assert keyholder is not None, "under keys=server the key holder lives where the server does"
        return DecryptingServer(
            session, min_clients=min_clients, keeper=keeper, keyholder=keyholder
        )


class Clients:
    """keys=clients: they share key and model and decrypt the sum; the server has neither."""

    key_held_by: ClassVar[str] = "the clients, who share it"
    warning: ClassVar[str] = ""
    clients_share: ClassVar[bool] = True

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """One without the model."""
        return Server(session, min_clients=min_clients, keeper=None)

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> Replica:
        """The shared key and model."""
        return Replica(session, keyholder, keeper, seeded)

    def handlers(self, keyholder: KeyHolder) -> dict[str, Handler]:
        """Nobody: the key holder is no party that bytes reach."""
        return {}

    def release(
        self,
        round_number: int,
        aggregate: bytes,
        *,
        server: Server,
        clients: Sequence[str],
        runtime: Runtime,
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

    Args:
        session, min_clients, keeper: as any server's.
        keyholder: as above.
    """

    def __init__(
        self, session: Session, *, min_clients: int, keeper: ModelKeeper, keyholder: KeyHolder
    ) -> None:
        super().__init__(session, min_clients=min_clients, keeper=keeper)
        self.keyholder = keyholder


CUSTODIES: dict[str, Custody] = {
    "authority": Authority(),
    "clients": Clients(),
    "server": OneServer(),
}
