"""Processor seconds by stage, of processes that know nothing of HyperLock."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Processor seconds by stage; a stage within another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the block's seconds."""
        self._settle()
        self._open.append(stage)
        yield
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        """Give the seconds since the last change to the stage that they were spent in."""
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
