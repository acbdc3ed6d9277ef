"""One thread beside the one that trains, for what nobody waits for: it does what it is given, in
order.

Training releases Python's lock, so that what is done here takes no time of the run's own where a
second core is free. Tasks are done in the order in which they were given and one at a time: at any
moment, a first part of them is done and the rest is not begun, as if the run had died a little
earlier. Signals are the main thread's, so that none ever falls into a task.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_BACKLOG = 32  # tasks that wait to be done; they may hold weights


class Background:
    """The thread, until the `with` block ends; what is not begun by then is not done.

    A task's error is raised by the next call of `check`, `give` or `wait`; what was given after
    that task and is not begun is dropped.

    Attributes:
        seconds: of the processor, in all tasks so far; not those that it waited.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pool = ThreadPoolExecutor(1, "background")  # its thread begins with the first task
        self._given: deque[Future[Any]] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def give(self, task: Callable[[], T]) -> Future[T]:
        """Have it done after all that was given before; wait if that is too much already."""
        self.check()
        while len(self._given) >= _BACKLOG:
            self._take_first()
        future = self._pool.submit(self._timed, task)
        self._given.append(future)
        return future

    def check(self) -> None:
        """Raise the error of a task that failed; does not wait."""
        while self._given and self._given[0].done():
            self._take_first()

    def wait(self) -> None:
        """Return when all is done."""
        while self._given:
            self._take_first()

    def _timed(self, task: Callable[[], T]) -> T:
        start = time.thread_time()
        try:
            return task()
        finally:
            self.seconds += time.thread_time() - start

    def _take_first(self) -> None:
        try:
            self._given[0].result()
        except Exception:
            for future in self._given:
                future.cancel()
            self._given.clear()
            raise
        self._given.popleft()
