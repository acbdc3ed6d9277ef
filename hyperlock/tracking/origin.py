"""Whose run it is: the sweep that it is a trial of, and the process that writes it.

A sweep's trials run in processes of their own, wherever a launcher starts them. What they belong to
reaches them by the environment; that they ended without a word is seen by their process' tag.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_ENVIRONMENT = "HYPERLOCK_TRIAL"  # a `TrialRun` as JSON


@dataclass(frozen=True)
class TrialRun:
    """The run of one trial.

    Attributes:
        parent: id of the sweep's own run; "" where there is none.
        number: of the trial, from 0.
        overrides: what the trial was composed with, as typed.
    """

    parent: str
    number: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name."""
        return trial_name(self.number)

    @property
    def tags(self) -> dict[str, str]:
        """What nests the run under its parent and tells it from its siblings."""
        return {
            "mlflow.parentRunId": self.parent,
            "trial": str(self.number),
            "overrides": json.dumps(self.overrides),
        }

    @property
    def query(self) -> str:
        """The filter that finds the run, if its process came to begin it."""
        return f"{children_of(self.parent)} and tags.trial = '{self.number}'"

    def announce(self) -> None:
        """Tell this process, and those that it starts, that the next run is this one."""
        os.environ[_ENVIRONMENT] = json.dumps(asdict(self))


def announced() -> TrialRun | None:
    """The trial that this process' run is; None outside a sweep."""
    text = os.environ.get(_ENVIRONMENT)
    if text is None:
        return None
    told = json.loads(text)
    return TrialRun(told["parent"], told["number"], tuple(told["overrides"]))


def withdraw() -> TrialRun | None:
    """Take back what was announced: the trial has ended."""
    trial = announced()
    os.environ.pop(_ENVIRONMENT, None)
    return trial


def trial_name(number: int) -> str:
    """`trial-007`."""
    return f"trial-{number:03d}"


def children_of(parent: str) -> str:
    """The filter that finds a sweep's trials."""
    return f"tags.mlflow.parentRunId = '{parent}'"


def process_tag() -> dict[str, str]:
    """Marks a run as this process' own, so that it can be told later that the process ended without
    a word."""
    return {"process": f"{socket.gethostname()}:{os.getpid()}"}


def on_this_host(tags: Mapping[str, str]) -> bool:
    """Whether a run's process is, or was, one of this machine."""
    return tags.get("process", "").rpartition(":")[0] == socket.gethostname()


def process_ended(tags: Mapping[str, str]) -> bool:
    """Whether a run's process was one of this machine, and is no more."""
    if not on_this_host(tags):
        return False
    try:
        os.kill(int(tags["process"].rpartition(":")[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
