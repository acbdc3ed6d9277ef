"""keys=clients between processes: how the run's key and the sums come to every client."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from hyperlock.errors import HyperLockError, MessageRefused, RoundFailed
from hyperlock.parties.client import Replica
from hyperlock.parties.custody import Clients, answer_of
from hyperlock.parties.server import Server
from hyperlock.parties.sharing_server import SharingServer
from hyperlock.runtime import Lost, Runtime

log = logging.getLogger(__name__)

_TRIES = 2  # for who may have been restarted meanwhile, and was given its key again
_PAUSE = 1.0  # seconds between two looks for somebody who has stepped


class SharingClients(Clients):
    """keys=clients where each client is a process of its own.

    Args:
        server: the run's.
        clients: all of them.
        patience: seconds for which somebody without whom nothing goes on is waited for.
    """

    def __init__(self, server: SharingServer, clients: Sequence[str], patience: float) -> None:
        self._server = server
        self._clients = clients
        self._patience = patience

    def open(self, request: bytes, *, replica: Replica | None, runtime: Runtime) -> bytes:
        """Nothing, for an attempt has the run's key: with it, and with the model, is whoever can
        be reached.

        Raises:
            HyperLockError: the first client gave no key, or clients have different models.
        """
        self._level(runtime, self._gathered(runtime))
        return b""

    def release(
        self, aggregate: bytes, *, server: Server, clients: Sequence[str], runtime: Runtime
    ) -> int:
        """By all clients, who are sent the sum, and say what they have stepped to.

        Raises:
            HyperLockError: nobody has said so. There may be somebody who did step, so that no
                other sum of this round can be sent.
        """
        assert server is self._server, "made for this one"
        number = self._server.send(aggregate)
        # Whoever trained is there; in a run that goes on nobody is yet.
        away = self._gathered(runtime) if self._server.needed else {}
        deadline = time.monotonic() + self._patience
        while True:
            lost = self._level(runtime, away)
            if self._server.stepped:
                break
            coming = any(each.away for each in lost.values())
            if not coming or time.monotonic() > deadline:
                reasons = "; ".join(f"{name}: {each.reason}" for name, each in lost.items())
                raise HyperLockError(
                    f"round {number}: no client has taken the sum ({reasons})\n"
                    "  try: resume=DIRECTORY, once they are there"
                )
            time.sleep(_PAUSE)
            away = self._gathered(runtime)
        self._server.forget()
        return len(aggregate)

    def close(self, runtime: Runtime) -> None:
        """The run is over: whoever lacks the last sums is given them, if it can be reached."""
        if not self._server.needed:
            self._level(runtime, self._gathered(runtime))

    def _gathered(self, runtime: Runtime) -> dict[str, Lost]:
        """Have the key made, and everybody take part; who does not."""
        if self._server.needed:
            self._ask_for_the_key(runtime)
        return dict(runtime.gather(self._clients))

    def _ask_for_the_key(self, runtime: Runtime) -> None:
        """From the first client, and from nobody else: another key would be another run."""
        first = self._server.first
        try:
            self._server.take_boxes(answer_of(first, self._server.share(), runtime))
        except (RoundFailed, MessageRefused) as error:
            raise HyperLockError(
                f"{first}, the first site, makes the key that all share (keys=clients), and gave "
                f"none: {error}\n"
                f"  try: have {first} take part (it is waited for, runtime.patience="
                f"{self._patience:g} s), or a kit without it"
            ) from None
        log.info("%s has sealed the run's key for all other clients", first)

    def _level(self, runtime: Runtime, away: Mapping[str, Lost]) -> dict[str, Lost]:
        """Give every client that is there what it lacks, in order; who still lacks something.

        Raises:
            HyperLockError: clients have different models.
        """
        lost = dict(away)
        tries: Counter[str] = Counter()
        while True:
            asked = {
                name: lacks
                for name in sorted(self._server.present - lost.keys())
                if (lacks := self._server.lacking(name))
            }
            if not asked:
                break
            for name, reply in runtime.exchange(asked):
                try:
                    if isinstance(reply, Lost):
                        raise MessageRefused(reply.reason)
                    self._server.answered(name, asked[name], reply)
                except MessageRefused as error:
                    tries[name] += 1
                    if tries[name] == _TRIES:
                        lost[name] = reply if isinstance(reply, Lost) else Lost(str(error))
                        log.warning("%s has not the key and the model yet: %s", name, error)
        self._server.refuse_differences()
        return lost
