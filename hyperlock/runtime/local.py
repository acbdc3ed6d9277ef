"""All parties in one process. They still meet only in bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.bundle import answered


class LocalRuntime:
    """Calls each party's handler.

    Args:
        handlers: by party name, what answers its messages. An error that a handler raises ends the
            run: in one process it is a mistake to be seen and not a machine that was lost.
        workers: how many parties may answer at once. Training releases Python's lock and so uses
            other cores; results do not depend on it, for sums are exact in any order.
    """

    def __init__(self, handlers: Mapping[str, Callable[[bytes], bytes]], workers: int = 1) -> None:
        self._handlers = handlers
        self._workers = workers

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """Yield (party, reply) as replies come; no more than `workers` replies wait in memory."""
        if self._workers == 1 or len(requests) == 1:
            for party, request in requests.items():
                yield party, answered(self._handlers[party], request)
            return
        pending: dict[Future[bytes], str] = {}
        pool = ThreadPoolExecutor(self._workers)
        try:
            for party, request in requests.items():
                if len(pending) == self._workers:
                    yield from _finished(pending)
                pending[pool.submit(answered, self._handlers[party], request)] = party
            while pending:
                yield from _finished(pending)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def gather(self, parties: Collection[str]) -> Iterator[tuple[str, Lost]]:
        """All are here."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


def _finished(pending: dict[Future[bytes], str]) -> Iterator[tuple[str, Reply]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        yield pending.pop(future), future.result()
