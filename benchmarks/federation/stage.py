"""A federation to be measured: real parties, each in a network namespace, and their coordinator."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.federation.network import Network
from benchmarks.federation.processes import those
from hyperlock.errors import HyperLockError
from hyperlock.sites import demo

ROOT = Path(__file__).resolve().parents[2]
PORT = 9092
SAMPLES = 60  # of a site: training is not what is measured
TEST = 100
# "123 bytes in 0.100 s, party 0.020 s, 456 bytes out 0.300 s", as a node says it.
_SERVED = re.compile(r"(\d+) bytes in [\d.]+ s, party ([\d.]+) s,")


class Coordinator:
    """The process of `coordinate`. A context: it ends with it.

    Args:
        command: what it is started by.
        folder: the server's.
        settings: of the run.
    """

    def __init__(self, command: Sequence[str], folder: Path, settings: Sequence[str]) -> None:
        self._log = folder / "coordinator.log"
        words = [*command, sys.executable, "-m", "benchmarks.federation.coordinate"]
        with open(self._log, "a") as log:
            self._process = subprocess.Popen(
                [*words, str(folder), *settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Coordinator:
        try:
            self.about = self._answer()
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        if exception[0] is None:
            self._process.stdin.close()
            self._process.wait()
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def rounds(self, count: int) -> list[dict[str, Any]]:
        """The next rounds, as `coordinate` tells of them."""
        return self._ask({"rounds": count})

    def empty(self, parties: Sequence[str], times: int, size: int = 1) -> list[float]:
        """Seconds of trips with so many bytes that parties refuse."""
        told = self._ask({"parties": list(parties), "times": times, "bytes": size})
        return [trip["waited"] for trip in told]

    def _ask(self, told: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            words = "\n".join(self._log.read_text().splitlines()[-8:])
            raise HyperLockError(f"the coordinator ended:\n{words}")
        return json.loads(line)


@dataclass(frozen=True)
class Federation:
    """Parties that wait.

    Attributes:
        network: between them.
        stage: their processes.
    """

    network: Network
    stage: demo.Stage

    def coordinator(self, settings: Sequence[str]) -> Coordinator:
        """A run's."""
        inside = self.network.inside("server")
        return Coordinator(inside, self.stage.server.path, settings)

    def served(self) -> dict[str, list[tuple[int, float]]]:
        """By party, of each message that its node handed on: bytes, and the party's seconds."""
        found = {}
        for name, folder in self.stage.folders.items():
            text = (folder.path / "node.log").read_text()
            found[name] = [(int(size), float(took)) for size, took in _SERVED.findall(text)]
        return found

    def processes(self) -> dict[str, list[int]]:
        """Process ids, by what they are."""
        home = f"FLWR_HOME={self.stage.server.path / 'superlink'}"
        found = {
            "SuperLink": those(home, "superlink.py"),
            "relay": those(home, "flwr-serverapp"),
        }
        for name, folder in self.stage.folders.items():
            found[name] = [self.stage.children[name].pid]
            found[f"{name}'s node"] = those(f"FLWR_HOME={folder.path / 'flower'}", "node.py")
        return found


def names(count: int) -> list[str]:
    """Of so many sites."""
    return [f"site-{i}" for i in range(count)]


@contextmanager
def federation(sites: Sequence[str]) -> Iterator[Federation]:
    """Parties in namespaces of their own, under a folder that is removed."""
    home = Path(tempfile.mkdtemp(prefix="hyperlock-"))
    try:
        with Network(["server", "keyholder", "witness", *sites]) as network:
            place = demo.Place(f"{network.address('server')}:{PORT}", network.inside)
            limits = f"{demo.LIMITS}  trust: curious\n"
            with demo.stage(home, data(len(sites)), sites, place=place, limits=limits) as stage:
                yield Federation(network, stage)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def data(sites: int) -> list[str]:
    """Settings of what is learned from."""
    return [f"dataset.train_samples={SAMPLES * sites}", f"dataset.test_samples={TEST}"]


def run_settings(model: str, trust: str, sites: int) -> list[str]:
    """Settings of a run, whatever its runtime."""
    return [
        *data(sites),
        f"model={model}",
        f"trust={trust}",
        f"federation.clients={sites}",
        "federation.rounds=99",
        "encryption=bfv",
    ]
