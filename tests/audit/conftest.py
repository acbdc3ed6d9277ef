"""Small runs to attack, each played once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import hyperlock
from hyperlock.parties.client import Client

Quantised = dict[tuple[str, int], np.ndarray]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project's folder."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERLOCK_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def played(root: Path) -> Callable[..., Path]:
    """The directory of a run on digits with these settings; from nothing else."""

    def played(name: str, *overrides: str) -> Path:
        directory = root / "outputs" / name
        job = ["dataset=digits", *overrides, f"hydra.run.dir={directory}"]
        if not any(text.startswith("tracking") for text in overrides):
            job.append("tracking=none")
        hyperlock.run(*job)
        return directory

    return played


@contextmanager
def watching() -> Iterator[Quantised]:
    """What every client of the runs in a block puts on the grid, by its name and the round."""
    found: Quantised = {}
    before = Client._on_the_grid

    def watched(self: Client, *given: object) -> np.ndarray:
        vector = before(self, *given)
        head = self._session.vector.head
        found[self.name, self._memory.seen[0]] = vector[head:].copy()
        return vector

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_on_the_grid", watched)
        yield found
