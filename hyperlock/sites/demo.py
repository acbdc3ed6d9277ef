"""`make federation`: a whole federation on this machine, every party a process with a folder of its
own; three hospitals, a key holder, a witness and the coordinator, who meet through Flower.

Where one user runs everything, nobody is kept from anything: it shows how it works, and protects
nobody.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperlock.errors import HyperLockError
from hyperlock.experiment import simulation
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import parse
from hyperlock.sites.child import Child
from hyperlock.sites.engine import free_port, make_environment
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import SITE
from hyperlock.sites.meeting import ENVIRONMENT, flower_folder, provision

log = logging.getLogger("hyperlock")

HOST = "127.0.0.1"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
SAMPLES = 6000  # of all hospitals together
TESTS = "dataset.test_samples=3000"
PROGRAM = ("-m", "hyperlock.sites")
RUN = (
    f"federation.clients={len(HOSPITALS)}",
    "federation.rounds=3",
    "encryption=bfv",
    TESTS,
    "runtime.evaluation=both",
    "runtime.timeout=120",
    "runtime.patience=120",
)
# The same in one process: what hospitals have is split so, and the same settings learn from it.
LOCAL = (f"dataset.train_samples={SAMPLES}", TESTS, "split=shards")
_START = 120.0  # seconds in which a process is ready
LIMITS = """\
dataset:
  path: {path}
limits:
  models: [mlp, logistic, 2nn, cnn]
"""


@dataclass(frozen=True)
class Stage:
    """The processes of a federation, and where they live.

    Attributes:
        server: the coordinator's folder.
        folders: of all other parties, by name.
        children: their processes, and the SuperLink's as `superlink`.
    """

    server: Folder
    folders: dict[str, Folder]
    children: dict[str, Child]


def _nowhere_else(party: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Place:
    """Where processes run.

    Attributes:
        superlink: HOST:PORT, where they meet.
        inside: what a command begins with that is to run where a party is.
    """

    superlink: str
    inside: Callable[[str], Sequence[str]] = _nowhere_else


def demo(overrides: Sequence[str]) -> None:
    """Play a run, and leave nothing behind but `outputs/` and the environments.

    Raises:
        HyperLockError: something could not be started; the text says what, and where its log is.
    """
    began = time.monotonic()
    environment = make_environment(flower_folder())
    log.info("Flower is in %s (%.0f s)", environment.folder, time.monotonic() - began)
    path = Path(tempfile.mkdtemp(prefix="hyperlock-"))
    try:
        with stage(path, overrides) as made:
            log.info("everybody waits (%.0f s)", time.monotonic() - began)
            status = coordinate(made.server, overrides)
            _show(made)
    except BaseException:
        for file in sorted(path.glob("*/*.log")):
            log.error("%s:\n%s", file.parent.name, "\n".join(file.read_text().splitlines()[-5:]))
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
    log.info("all of it took %.0f s", time.monotonic() - began)
    if status:
        raise HyperLockError(f"the run ended with status {status}")


@contextmanager
def stage(
    path: Path,
    overrides: Sequence[str] = (),
    hospitals: Sequence[str] = HOSPITALS,
    program: Sequence[str | Path] = PROGRAM,
    place: Place | None = None,
    limits: str = LIMITS,
) -> Iterator[Stage]:
    """Folders under `path`, and a process for every party but the server.

    Args:
        path: a folder.
        overrides: of the run, for what hospitals have.
        hospitals: their names, in order.
        program: Python's arguments for a party, before `serve` and its folder.
        place: where processes run; on this machine's loopback if None.
        limits: each site's file, with `{path}` for its data.
    """
    place = place or Place(f"{HOST}:{free_port(HOST)}")
    # Each party makes its own keys; the coordinator gathers what is public.
    server = Folder.make(path / "server", "server", "", 0)
    folders = {role: Folder.make(path / role, role, "", 0) for role in ("keyholder", "witness")}
    for name, count in give_samples(path, overrides, hospitals).items():
        folders[name] = Folder.make(path / name, SITE, name, count)
        file = limits.format(path=path / f"{name}.npz")
        (folders[name].path / "site.yaml").write_text(file)
    files = [folder.path / "public.json" for folder in folders.values()]
    kit = provision(server, "demonstration", place.superlink, files)
    for folder in folders.values():
        folder.join(server.path / "to-hand-over.json")
        log.info("%s joined the project; fingerprint %s", folder.name, folder.kit.fingerprint)
    log.info("they meet at %s", kit.superlink)

    # And then a process.
    with ExitStack() as running:
        link = _child([*place.inside(server.name), sys.executable, *PROGRAM], "superlink", server)
        children = {"superlink": running.enter_context(link)}
        for name, folder in folders.items():
            words = [*place.inside(name), sys.executable, *program]
            children[name] = running.enter_context(_child(words, "serve", folder))
        for name, folder in folders.items():
            _wait_for(folder.path / "party.sock", children[name], name)
        yield Stage(server, folders, children)


def give_samples(
    path: Path, overrides: Sequence[str] = (), hospitals: Sequence[str] = HOSPITALS
) -> dict[str, int]:
    """A file of shards of MNIST for each hospital, and a part of its test set; how many samples
    each has to train on."""
    local = [text for text in overrides if not text.startswith("runtime.")]
    composed, _ = compose([*LOCAL, f"federation.clients={len(hospitals)}", *local])
    config = parse(composed)
    dataset = simulation.load_dataset(config)
    counts = {}
    tests = np.array_split(np.arange(len(dataset.y_test)), len(hospitals))
    split = simulation.build_split(config, dataset)
    for name, part, test in zip(hospitals, split, tests, strict=True):
        np.savez(
            path / f"{name}.npz",
            x=dataset.x_train[part],
            y=dataset.y_train[part],
            x_test=dataset.x_test[test],
            y_test=dataset.y_test[test],
        )
        counts[name] = len(part)
    return counts


def coordinate(server: Folder, overrides: Sequence[str] = ()) -> int:
    """The coordinator's run, as a person would type it; its exit status."""
    unit = SAMPLES / len(HOSPITALS)
    command = [
        sys.executable,
        "run.py",
        "runtime=flower",
        f"runtime.folder={server.path}",
        f"runtime.weight_unit={unit}",
        *RUN,
        *overrides,
    ]
    log.info("%s", " ".join(["python", *command[1:]]))
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _show(made: Stage) -> None:
    """What each party's own log says that it sent."""
    for name, folder in sorted(made.folders.items()):
        sent = 0
        received = 0
        for line in (folder.path / "log.jsonl").read_text().splitlines():
            entry = json.loads(line)
            received += entry["received"]["bytes"]
            sent += entry["sent"]["bytes"] if entry["sent"] else 0
        log.info("%s received %s bytes and sent %s", name, f"{received:,}", f"{sent:,}")


def _child(program: Sequence[str | Path], command: str, folder: Folder) -> Child:
    variables = os.environ | {ENVIRONMENT: str(flower_folder().absolute())}
    return Child([*program, command, folder.path], variables, folder.path / "process.log")


def _wait_for(path: Path, child: Child, name: str) -> None:
    deadline = time.monotonic() + _START
    while not path.exists():
        if not child.running() or time.monotonic() > deadline:
            raise HyperLockError(f"{name} did not start: {child.last_words()}")
        time.sleep(0.1)
