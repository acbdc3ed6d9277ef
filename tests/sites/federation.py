"""Five sites, a key holder and a witness as processes, a SuperLink, and one run that goes on until
it is ended; and what the same attempts come to in one process."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperlock.experiment import checkpoint, simulation
from hyperlock.experiment.rounds import run_round
from hyperlock.monitor import Monitor
from hyperlock.parties.model import GlobalModel
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import parse
from hyperlock.sites.child import Child
from hyperlock.sites.demo import Stage
from hyperlock.sites.folder import Folder

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
SAMPLES = 2000
TIMEOUT = 15  # seconds in which a party must have answered
DATA = (
    f"dataset.train_samples={SAMPLES}", "dataset.test_samples=500", "model=logistic",
    "encryption=bfv", f"federation.clients={len(SITES)}", "federation.batch_size=32",
    "federation.rounds=99", "federation.round_attempts=20", "keys.min_clients=3", "tracking=none",
)  # fmt: skip
_PATIENCE = 120.0  # seconds in which what is waited for must come about


@dataclass(frozen=True)
class Released:
    """A sum that the key holder decrypted: of which attempt, and of whose updates."""

    round: int
    attempt: int
    names: tuple[str, ...]


@dataclass
class Federation:
    """A stage, and the run on it.

    Attributes:
        stage: the parties' processes.
        directory: the run's.
        output: what its coordinator said.
        coordinator: its process; None before the first.
    """

    stage: Stage
    directory: Path
    output: Path
    coordinator: subprocess.Popen[bytes] | None = field(default=None)

    def begin(self) -> None:
        """Start the run's coordinator."""
        self._coordinate(
            "runtime=flower",
            f"runtime.folder={self.stage.server.path}",
            f"runtime.weight_unit={SAMPLES / len(SITES)}",
            f"runtime.timeout={TIMEOUT}",
            "runtime.patience=90",
            f"hydra.run.dir={self.directory}",
            *DATA,
        )

    def resume(self, *settings: str) -> None:
        """Start it again where it stopped."""
        folder = ("runtime=flower", f"runtime.folder={self.stage.server.path}")  # said again
        self._coordinate(f"resume={self.directory}", *folder, *settings)

    def _coordinate(self, *settings: str) -> None:
        with open(self.output, "ab") as output:
            self.coordinator = subprocess.Popen(
                [sys.executable, "run.py", *settings],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def ended(self) -> int:
        """The coordinator's exit status, once it has ended."""
        process = self.coordinator
        assert process is not None
        self.until(lambda: process.poll() is not None, "the coordinator ends")
        return process.returncode

    # The parties.

    def folder(self, name: str) -> Folder:
        """A party's."""
        return self.stage.folders[name]

    def child(self, name: str) -> Child:
        """A party's process."""
        return self.stage.children[name]

    def hurt(self, name: str, fault: str) -> None:
        """Have a fault happen at a party (`faulty_party`), and wait for it."""
        self.prepare(name, fault)
        self.until(lambda: not self.fault(name).exists(), f"{fault} at {name}")

    def prepare(self, name: str, fault: str) -> None:
        """Have a fault happen."""
        part = self.fault(name).with_suffix(".part")
        part.write_text(fault)
        part.rename(self.fault(name))

    def fault(self, name: str) -> Path:
        """Where it is told."""
        return self.folder(name).path / "fault"

    def until_dead(self, name: str) -> None:
        """A process has ended."""
        self.until(lambda: not self.child(name).running(), f"{name} ends")

    def interrupt(self, name: str) -> None:
        """Ctrl-C at a party, which ends as it should."""
        os.kill(self.child(name).pid, signal.SIGINT)
        self.until_dead(name)
        assert self.child(name).status() == 0, self.child(name).last_words()

    def log_of(self, name: str) -> str:
        """What a party's process said."""
        return self.child(name).log.read_text()

    # The run.

    def releases(self) -> list[Released]:
        """All sums that the key holder was about to release; of a round the last one counts."""
        path = self.folder("keyholder").path / "released.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [Released(one["round"], one["attempt"], tuple(one["names"])) for one in entries]

    def played(self) -> list[Released]:
        """By round, what its model was stepped by."""
        last = {one.round: one for one in self.releases()}
        assert sorted(last) == list(range(1, len(last) + 1)), "a round is missing"
        return [last[number] for number in sorted(last)]

    def finished(self) -> int:
        """The last round that the coordinator has kept; 0 before the first."""
        if not (self.directory / checkpoint.FILE).exists():
            return 0
        return checkpoint.load(self.directory).round

    def next_round(self, *names: str, beyond: int | None = None) -> Released:
        """The next sum of exactly these sites' updates, and no other if none is named, of a round
        that is begun from now on, once the coordinator has kept it."""
        number = self.finished() + 1 if beyond is None else beyond
        wanted = names or SITES

        def found() -> list[Released]:
            done = self.finished()
            return [one for one in self.releases() if number < one.round <= done
                    and one.names == tuple(sorted(wanted))]  # fmt: skip

        self.until(found, f"a round of {', '.join(wanted)} after round {number}")
        return found()[0]

    def said(self) -> str:
        """All that the coordinator said."""
        return self.output.read_text() if self.output.exists() else ""

    def until_said(self, text: str, since: int = 0) -> None:
        """The coordinator says it, beyond so many characters."""
        self.until(lambda: text in self.said()[since:], f"the coordinator says {text!r}")

    def until(self, condition: Callable[[], object], what: str, seconds: float = _PATIENCE) -> None:
        """Wait for it; if it does not come about, say what everybody said last."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come about: {what}\n{self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        texts = ["coordinator: " + "\n".join(self.said().splitlines()[-12:])]
        texts += [f"{name}: {child.last_words()}" for name, child in self.stage.children.items()]
        return "\n".join(texts)


def processes(mark: Path, program: str = "") -> dict[int, str]:
    """Those in whose command or environment a path occurs, and a word in their command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            told = (path / "environ").read_bytes()
        except OSError:
            continue
        if str(mark).encode() in command + told and program.encode() in command and command:
            found[int(path.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    found.pop(os.getpid(), None)
    return found


def alone(played: list[Released]) -> list[GlobalModel]:
    """The models of one process: before the first round, and after each, played by the same sites
    in the same attempts."""
    texts = [*DATA, "dataset=mnist", "split=shards", "trust=malicious"]
    composed, _ = compose(texts)
    config = parse(composed)
    dataset = simulation.load_dataset(config)
    parts = simulation.build_split(config, dataset)
    network = simulation.build_network(config, simulation.samples(dataset))
    scheme = simulation.build_scheme(config, network.sizes)
    given: dict[str, Any] = {"run": "alone", "monitor": Monitor()}
    parties = simulation.assemble(config, dataset, parts, scheme, network, **given)
    names = dict(zip(SITES, parties.clients, strict=True))
    models = [parties.keeper.model]
    for one in played:
        for attempt in range(1, one.attempt):  # that came to nothing
            begun = parties.server.begin(one.round, attempt)
            parties.custody.open(begun, replica=parties.replica, runtime=parties.runtime)
        absent = [client for name, client in names.items() if name not in one.names]
        run_round(one.round, parties, parties.clients, absent, one.attempt)
        models.append(parties.keeper.model)
    return models
