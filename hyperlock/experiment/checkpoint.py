"""A run's state after a round, so that it can go on where it was killed: never a key, and never a
client's update.

A round's randomness derives from (seed, round, client), so that weights, ranges, the optimiser's
slots and the number of the round are all that the next round needs to be what it would have been.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hyperlock.errors import ConfigError
from hyperlock.experiment.directory import own_file
from hyperlock.files import write_whole
from hyperlock.parties.model import GlobalModel

FILE = "checkpoint.npz"
_VERSION = 2
_SLOT = "slot."
# What reading a file raises that is none, or was cut off.
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """State after a round.

    Attributes:
        round: the last one that is done.
        weights: float32[parameters].
        ranges: of the grid, a float32 a tensor.
        slots: the server optimiser's arrays and counters, by field.
        overrides: what the run was started with.
        settings: all of them, by name, as the run's record has them.
        run: its id, which its messages bear.
        run_id: of its record in MLflow; "" if it is not tracked.
        report: what the run came to so far, JSON.
    """

    round: int
    weights: NDArray[np.float32]
    ranges: tuple[float, ...]
    slots: dict[str, NDArray]
    overrides: list[str]
    settings: dict[str, str]
    run: str
    run_id: str
    report: dict[str, Any]

    def restore(self, model: GlobalModel) -> GlobalModel:
        """The global model of this checkpoint, from one of the same settings before its first
        round.

        Raises:
            ConfigError: it is of another architecture or optimiser.
        """
        restored = model.restored(self.weights, self.ranges, self.slots)
        if restored is None:
            raise ConfigError("resume", FILE, "the checkpoint is of another model or optimiser")
        return restored


def save(directory: Path, checkpoint: Checkpoint) -> None:
    """Write it to `directory`, whole or not at all: a kill at any moment leaves the one before."""
    meta = {
        "version": _VERSION,
        "round": checkpoint.round,
        "overrides": checkpoint.overrides,
        "settings": checkpoint.settings,
        "run": checkpoint.run,
        "run_id": checkpoint.run_id,
        "report": checkpoint.report,
    }
    arrays: dict[str, Any] = {
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        "weights": checkpoint.weights,
        "ranges": np.array(checkpoint.ranges, np.float32),
        **{_SLOT + name: value for name, value in checkpoint.slots.items()},
    }
    data = io.BytesIO()
    np.savez(data, **arrays)
    write_whole(directory / FILE, data.getbuffer())


def look(directory: Path) -> None:
    """Whether there is a checkpoint of the user's own in a directory, without reading it.

    Raises:
        ConfigError: there is none, or others than the user can have written it.
    """
    with _opened(directory):
        pass


def load(directory: Path) -> Checkpoint:
    """The checkpoint in a run's directory.

    Raises:
        ConfigError: there is none, it cannot be read, or others than the user can have written it.
    """
    with _opened(directory) as file:
        return _read(file)


@contextmanager
def _opened(directory: Path) -> Iterator[BinaryIO]:
    """Its file; what goes wrong with it in the block is a ConfigError."""
    try:
        with own_file(directory, FILE) as file:
            yield file
    except FileNotFoundError:
        raise ConfigError(
            "resume",
            directory,
            f"there is no {FILE}: no round was finished, or it is no run's directory",
            allowed="a directory under outputs/runs, or the id of a run in MLflow",
        ) from None
    except _DAMAGED as error:
        raise ConfigError("resume", directory, f"{FILE} cannot be read ({error})") from None


def _read(file: BinaryIO) -> Checkpoint:
    with np.load(file, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes())
        version = meta.pop("version")
        if version != _VERSION:
            raise ConfigError(
                "resume",
                FILE,
                f"is of version {version} and this HyperLock writes version {_VERSION}: its "
                "parties would not understand each other",
                hint="the HyperLock that began it, or a new run",
            )
        texts = [*meta["overrides"], *meta["settings"].values(), meta["run"], meta["run_id"]]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a setting that is no text")
        slots = {
            name.removeprefix(_SLOT): stored[name]
            for name in stored.files
            if name.startswith(_SLOT)
        }
        ranges = tuple(float(value) for value in stored["ranges"])
        return Checkpoint(weights=stored["weights"], ranges=ranges, slots=slots, **meta)
