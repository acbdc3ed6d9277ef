"""The original demo's server, which holds the secret key itself."""

from __future__ import annotations

from hyperlock.encryption.scheme import Scheme
from hyperlock.identity import Identity
from hyperlock.roles.global_model import ModelKeeper
from hyperlock.roles.keyholder import KeyHolder
from hyperlock.roles.server import Server
from hyperlock.timing import Timings


class DecryptingServer(Server):
    """keys=server, the original demo's model: this server holds the secret key too and could read every update.

    For comparison only; a run with it warns and is tagged.
    """

    def __init__(
        self,
        identity: Identity,
        scheme: Scheme,
        length: int,
        min_clients: int,
        timings: Timings,
        keeper: ModelKeeper | None,
        keyholder: KeyHolder,
    ) -> None:
        super().__init__(identity, scheme, length, min_clients, timings, keeper)
        self.keyholder = keyholder
