"""A runtime whose parties have to be asked whether they take part.

Whoever is not in the run is invited before anything else is asked of it: before the first message,
and again after it was lost, for it may have been restarted meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from hyperlock.errors import MessageRefused
from hyperlock.runtime import Lost, Pipe, Reply

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between two looks for somebody who is away


class InvitedRuntime:
    """Invites, then asks.

    Args:
        pipe: what moves the bytes.
        invite: what an invitation says.
        accepted: takes the answer of a party; MessageRefused if it is not that.
        needed: those without whom there is no round: if they are away, they are waited for. Who
            that is may change, and is looked at each time.
        patience: seconds for which they are.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        invite: bytes,
        accepted: Callable[[str, bytes], None],
        needed: Collection[str] = (),
        patience: float = 0.0,
    ) -> None:
        self._pipe = pipe
        self._invite = invite
        self._accepted = accepted
        self._needed = needed
        self._patience = patience
        self.joined: set[str] = set()

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """Yield (party, reply) as replies come."""
        waiting = dict(requests)
        again: set[str] = set()
        deadline = time.monotonic() + self._patience
        while waiting:
            # Those who are not in the run.
            for party, lost in self._join([name for name in waiting if name not in self.joined]):
                if not self._waits_for(party, lost, deadline):
                    del waiting[party]
                    yield party, lost

            # The others.
            ready = {name: data for name, data in waiting.items() if name in self.joined}
            for party, reply in self._pipe.exchange(ready) if ready else ():
                if isinstance(reply, Lost):
                    self.joined.discard(party)
                    # It was restarted, or is about to be.
                    first = reply.away and party not in again
                    again.add(party)
                    if first or self._waits_for(party, reply, deadline):
                        continue
                    log.warning("%s did not answer: %s", party, reply.reason)
                del waiting[party]
                yield party, reply
            if waiting and not ready:
                time.sleep(_PAUSE)

    def gather(self, parties: Collection[str]) -> Iterator[tuple[str, Lost]]:
        """Invite those who are not in the run; yield those who stay away, and why."""
        yield from self._join([name for name in parties if name not in self.joined])

    def close(self) -> None:
        """Nobody is asked any more."""
        self._pipe.close()

    def _join(self, newcomers: Collection[str]) -> list[tuple[str, Lost]]:
        """Invite these; who does not come, and why."""
        lost = []
        requests = dict.fromkeys(newcomers, self._invite)
        for party, reply in self._pipe.exchange(requests) if requests else ():
            if isinstance(reply, Lost):
                lost.append((party, reply))
                continue
            try:
                self._accepted(party, reply)
            except MessageRefused as error:
                lost.append((party, Lost(f"its answer to the invitation is refused: {error}")))
                continue
            self.joined.add(party)
            log.info("%s takes part", party)
        for party, why in lost:
            log.warning("%s does not take part: %s", party, why.reason)
        return lost

    def _waits_for(self, party: str, lost: Lost, deadline: float) -> bool:
        return party in self._needed and lost.away and time.monotonic() < deadline
