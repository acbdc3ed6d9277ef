"""Key custody: who is handed the secret key, how a sum is released, and what a person is told.

This is the one place that hands the key holder to anyone. Under `authority` nobody is given it: it
is a party of its own, reached by bytes alone. Under `clients` the clients share it, with the model.
Under `server` the server has it, as in the original demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperlock.errors import ReleaseRefused
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.runtime import Lost, Runtime

Handler = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Authority:
    """keys=authority: a key holder apart from the server decrypts sums, and only sums.

    Attributes:
        key_held_by: for the summary.
        warning: for the log, when a run begins; "" for none.
        clients_share: whether all clients hold the key, and so may encrypt symmetrically.
    """

    key_held_by: str = "a key holder apart from the server"
    warning: str = ""
    clients_share: bool = False

    def server(
        self,
        session: Session,
        *,
        min_clients: int,
        keeper: ModelKeeper,
        keyholder: KeyHolder | None = None,
    ) -> Server:
        """The server, with no more than it may have of the rest."""
        return Server(session, min_clients=min_clients, keeper=keeper)

    def replica(
        self, session: Session, *, keeper: ModelKeeper, keyholder: KeyHolder, seeded: bool
    ) -> Replica | None:
        """What the clients are given beside their data; None where that is nothing."""
        return None

    def handlers(self, server: Server, keyholder: KeyHolder) -> dict[str, Handler]:
        """Who answers what is sent to the key holder, if it can be sent anything."""
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
        """Have the sum decrypted and the model stepped; bytes that every client was sent for it.

        Raises:
            ReleaseRefused: the key holder will not, or does not answer. Another try would be
                refused, should it have decrypted: it does so once a round.
        """
        [(_, release)] = runtime.exchange({KEYHOLDER: aggregate})
        if isinstance(release, Lost):
            raise ReleaseRefused(
                f"round {round_number}: the key holder did not answer: {release.reason}"
            )
        server.take(release)
        return 0


@dataclass(frozen=True)
class Clients(Authority):
    """keys=clients: they share key and model and decrypt the sum themselves; the server has
    neither."""

    key_held_by: str = "the clients, who share it"
    clients_share: bool = True

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

    def handlers(self, server: Server, keyholder: KeyHolder) -> dict[str, Handler]:
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
        """Give all clients the sum, which they decrypt and step by."""
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


@dataclass(frozen=True)
class OneServer(Authority):
    """keys=server, the original demo's model: the server holds key and model."""

    key_held_by: str = "the server itself, which can read every update"
    warning: str = (
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
        server = DecryptingServer(session, min_clients=min_clients, keeper=keeper)
        server.keyholder = keyholder
        return server


CUSTODIES = {"authority": Authority(), "clients": Clients(), "server": OneServer()}
