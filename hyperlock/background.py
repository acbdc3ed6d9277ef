"""One thread beside the one that trains, for what nobody waits for: it does what it is given, in
order.

Training releases Python's lock, so that what is done here takes no time of the run's own where a
second core is free. Tasks are done in the order in which they were given and one at a time: at any
moment, a first part of them is done and the rest is not begun, as if the run had died a little
earlier. Signals are the main thread's, so that none ever falls into a task.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from hyperlock.process import held_back

T = TypeVar("T")

log = logging.getLogger(__name__)

_BACKLOG = 32  # tasks that wait to be done
_LARGEST_BACKLOG = 256_000_000  # bytes that they hold
_PATIENCE = 10.0  # seconds that an interrupted run waits for what does not end
_DEAF = 1.0  # the first of them, in which a second interrupt is not heard either


class _Skipped(Exception):
    """A task is not begun, since one before it failed."""


class _Given(NamedTuple):
    future: Future[Any]
    size: int


class Background:
    """The thread, until the `with` block ends and all that was given is done.

    A task's error is raised by the next call of `check`, `give` or `wait`, or by the end of the
    block; where the block ends by an error of its own, it is logged. What was given after the task
    that failed, and before its error was raised, is not done, but for `give_last`.

    An interrupt waits ten seconds at most for what is left.

    Attributes:
        seconds: of the processor, in all tasks so far; not those that it waited.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pool = ThreadPoolExecutor(1, "background")  # its thread begins with the first task
        self._given: deque[_Given] = deque()
        self._failed = threading.Event()  # of what was given since the last error was raised
        self._last: Future[Any] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False)
        if kind is None:
            self._wait(None)
            self._end()
            return
        interrupted = not issubclass(kind, Exception)
        if interrupted:
            # Who asks twice at once, such as a shell and its terminal, still gets a whole record.
            with held_back():
                self._wait(_DEAF)
        if not self._wait(_PATIENCE if interrupted else None):
            log.warning("what is still to be written is not waited for")
            return
        try:
            self._end()
        except Exception as another:
            log.warning("not all was written: %s", another)

    def give(self, task: Callable[[], T], size: int = 0) -> Future[T]:
        """Have it done after all that was given before; wait if that is too much already.

        Args:
            task: what is to be done.
            size: bytes that it keeps in memory until then.
        """
        self.check()
        while self._given and self._is_full(size):
            self._take_first()
        future = self._pool.submit(self._do, task, self._failed)
        self._given.append(_Given(future, size))
        return future

    def give_last(self, task: Callable[[], object]) -> None:
        """Have it done after all that was given before, whatever became of that."""
        self._last = self._pool.submit(self._do, task, threading.Event())

    def check(self) -> None:
        """Raise the error of a task that failed; does not wait."""
        while self._given and self._given[0].future.done():
            self._take_first()

    def wait(self) -> None:
        """Return when all is done."""
        while self._given:
            self._take_first()

    def _is_full(self, size: int) -> bool:
        held = sum(given.size for given in self._given)
        return len(self._given) >= _BACKLOG or held + size > _LARGEST_BACKLOG

    def _do(self, task: Callable[[], T], failed: threading.Event) -> T:
        if failed.is_set():
            raise _Skipped
        start = time.thread_time()
        try:
            return task()
        except BaseException:
            failed.set()
            raise
        finally:
            self.seconds += time.thread_time() - start

    def _take_first(self) -> None:
        future = self._given[0].future
        wait([future])
        error = future.exception()
        if error is not None:
            # What is behind it is skipped, and nobody asks for it.
            self._given.clear()
            self._failed = threading.Event()
            raise error
        self._given.popleft()

    def _wait(self, seconds: float | None) -> bool:
        """Until all is done, or so long; whether it is."""
        left = [given.future for given in self._given]
        if self._last is not None:
            left.append(self._last)
        return not wait(left, seconds).not_done

    def _end(self) -> None:
        """Raise what is to be raised, now that all is done."""
        self.wait()
        if self._last is not None:
            self._last.result()
