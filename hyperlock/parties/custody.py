"""The original demo's server, which holds the secret key itself."""

from __future__ import annotations

from hyperlock.encryption.scheme import Scheme
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server


class DecryptingServer(Server):
    """keys=server, the original demo's model: this server holds the secret key too and could read
    every update.

    For comparison only; a run with it warns and is tagged.
    """

    def __init__(
        self,
        identity: Identity,
        scheme: Scheme,
        length: int,
        min_clients: int,
        monitor: Monitor,
        keeper: ModelKeeper | None,
        keyholder: KeyHolder,
    ) -> None:
        super().__init__(identity, scheme, length, min_clients, monitor, keeper)
        self.keyholder = keyholder
