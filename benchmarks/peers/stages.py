"""Processor seconds by stage, and a client's update, as `benchmarks.aggregation` has them, for
processes that know nothing of HyperLock."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

UPDATE_SCALE = 0.02


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


def update(client: int, parameters: int) -> NDArray[np.float32]:
    """One client's, always the same."""
    drawn = np.random.default_rng(client).standard_normal(parameters, np.float32)
    return drawn * np.float32(UPDATE_SCALE)
