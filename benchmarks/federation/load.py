"""`python -m benchmarks load`: many nodes at one SuperLink, round after round.

The nodes share processes, and so do the sites' parties behind them; each speaks the node's protocol
with a key of its own, trains, and sends an Update that it encrypted. Key holder, witness, SuperLink
and coordinator are as anywhere.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.federation.processes import busy, memory, those
from benchmarks.federation.stage import ROOT, Coordinator, names, run_settings
from benchmarks.tables import markdown
from hyperlock.errors import HyperLockError
from hyperlock.process import end_on_signals
from hyperlock.runtime.flower import SOCKET
from hyperlock.sites import demo
from hyperlock.sites.child import Child
from hyperlock.sites.engine import (
    RELAY,
    Environment,
    SuperLink,
    Tls,
    find_environment,
    flower_variables,
)
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import SITE
from hyperlock.sites.meeting import (
    ENVIRONMENT,
    TLS,
    flower_folder,
    pace,
    provision,
)
from hyperlock.sites.serve import SOCKET as PARTY_SOCKET
from hyperlock.sites.tls import AUTHORITY, SERVER, SERVER_KEY

HOST = "127.0.0.1"
_PROCESSES = 2  # of sites, and of nodes: as many as this machine has cores
_START = 300.0  # seconds in which all of them are there
_IDLE = 10.0  # seconds in which nothing happens but polls


@dataclass(frozen=True)
class Crowd:
    """What runs.

    Attributes:
        server: the coordinator's folder.
        superlink: the SuperLink.
        children: everybody's processes, by what they are.
    """

    server: Folder
    superlink: SuperLink
    children: dict[str, Child]

    def processes(self, coordinator: Coordinator) -> dict[str, list[int]]:
        """Process ids, by what they are."""
        home = f"FLWR_HOME={self.superlink.home}"
        found = {"SuperLink": [self.superlink.pid], "relay": those(home, "flwr-serverapp")}
        found["coordinator"] = [coordinator.pid]
        return found | {who: [child.pid] for who, child in self.children.items()}


def add_command(commands: Any) -> None:
    """Add `load` to the command line."""
    parser = commands.add_parser("load", help="many nodes at one SuperLink: is memory flat?")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--trust", default="malicious")
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print what became of the updates, and the memory of each process after each round."""
    end_on_signals()
    sites = names(arguments.nodes)
    rows = []
    settings = [
        *run_settings(arguments.model, arguments.trust, len(sites)),
        "runtime.weight_unit=60",
        "runtime.timeout=590",
        f"keys.min_clients={len(sites)}",
    ]
    with crowd(sites) as made, coordinated(made, settings) as coordinator:
        for number in range(1, arguments.rounds + 1):
            [result] = coordinator.rounds(1)
            row = (number, result, made.processes(coordinator))
            rows.append([*_round(*row), f"{_stored(made) / 1e6:.1f}", f"{os.getloadavg()[0]:.1f}"])
            print(" | ".join(rows[-1]), file=sys.stderr)
        idle = polls_cost(made, coordinator)
    headings = ["round", "s", "asked", "accepted", "lost", "refused", "MB sent", "MB back"]
    headings += [f"{who}, MB" for who in row[2]]
    print(markdown([*headings, "database, MB", "load"], rows), end="\n\n")
    print(f"nothing but polls: the SuperLink computes {idle:.2f} of a core")


def _round(number: int, result: dict[str, Any], processes: dict[str, list[int]]) -> list[str]:
    trips = result["trips"]
    sent = sum(sum(trip["sent"].values()) for trip in trips)
    back = sum(sum(trip["back"].values()) for trip in trips)
    asked = max(len(trip["sent"]) for trip in trips)
    accepted = result["replies"] - result["refused"]
    fate = [asked, accepted, result["lost"], result["refused"]]
    held = [f"{memory(pids) / 1e6:.0f}" for pids in processes.values()]
    moved = [f"{sent / 1e6:.1f}", f"{back / 1e6:.1f}"]
    return [str(number), f"{result['seconds']:.1f}", *map(str, fate), *moved, *held]


def _stored(made: Crowd) -> int:
    """Bytes of the SuperLink's database."""
    return sum(path.stat().st_size for path in made.superlink.home.glob("superlink.db*"))


def polls_cost(made: Crowd, coordinator: Coordinator) -> float:
    """What part of a core the SuperLink takes while nobody is asked anything."""
    pids = made.processes(coordinator)["SuperLink"]
    before = busy(pids)
    time.sleep(_IDLE)
    return (busy(pids) - before) / _IDLE


@contextmanager
def crowd(sites: Sequence[str]) -> Iterator[Crowd]:
    """All parties of a project with these sites, under a folder that is removed."""
    home = Path(tempfile.mkdtemp(prefix="hyperlock-"))
    environment = find_environment(flower_folder())
    try:
        server, folders = _settle(home, sites)
        tls = server.path / TLS
        paths = Tls(tls / AUTHORITY, tls / SERVER, tls / SERVER_KEY)
        port = int(server.kit.superlink.rpartition(":")[2])
        with ExitStack() as running:
            link = SuperLink(environment, server.path / "superlink", HOST, port, paths)
            running.enter_context(link)
            children = _start(running, environment, link, folders)
            yield Crowd(server, link, children)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def coordinated(made: Crowd, settings: Sequence[str]) -> Iterator[Coordinator]:
    """A run's coordinator, with a relay."""
    coordinator = Coordinator([], made.server.path, settings)
    with coordinator:
        made.superlink.start_relay(made.server.path / SOCKET)
        yield coordinator


def _settle(home: Path, sites: Sequence[str]) -> tuple[Folder, dict[str, Folder]]:
    """Everybody's folder, with the project's kit."""
    server = Folder.make(home / "server", "server", "", 0)
    folders = {role: Folder.make(home / role, role, "", 0) for role in ("keyholder", "witness")}
    samples = [f"dataset.train_samples={20 * len(sites)}"]
    for name, count in demo.give_samples(home, samples, sites).items():
        folders[name] = Folder.make(home / name, SITE, name, count)
        limits = f"{demo.LIMITS}  trust: curious\n".format(path=home / f"{name}.npz")
        (folders[name].path / "site.yaml").write_text(limits)
    files = [folder.path / "public.json" for folder in folders.values()]
    provision(server, "load", f"{HOST}:{demo.free_port(HOST)}", files)
    for folder in folders.values():
        folder.join(server.path / "to-hand-over.json")
    return server, folders


def _start(
    running: ExitStack, environment: Environment, link: SuperLink, folders: dict[str, Folder]
) -> dict[str, Child]:
    """A process for the key holder and the witness each, and a few for all others."""
    children = {}
    ours = os.environ | {
        ENVIRONMENT: str(environment.folder),
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    flower = flower_variables(environment, link.home.parent / "nodes")
    home = link.home.parent.parent
    everybody = [folder.path for folder in folders.values()]
    script = Path(__file__).with_name("nodes.py")
    common: list[str | Path] = [environment.python, "-P", script, "--relay", RELAY]
    common += ["--superlink", link.address, "--ca", link.tls.authority]
    admitted = [*common, "--admit", link.home / "nodes.json", *everybody]
    done = subprocess.run([str(word) for word in admitted], env=flower, check=False)
    if done.returncode:
        raise HyperLockError("the nodes were not admitted")

    for role in ("keyholder", "witness"):
        words = [sys.executable, "-m", "hyperlock.sites", "serve", folders[role].path]
        child = Child(words, ours, home / f"{role}.log")
        children[role] = running.enter_context(child)
    sites = everybody[2:]
    asked = pace(len(everybody))
    told = ",".join(map(str, (asked.poll, asked.share, asked.most, asked.alive)))
    for i in range(_PROCESSES):
        part = sites[i::_PROCESSES]
        words = [sys.executable, "-m", "benchmarks.federation.crowd", *part]
        children[f"sites {i}"] = running.enter_context(Child(words, ours, home / f"sites{i}.log"))
    deadline = time.monotonic() + _START
    for folder in everybody:
        _wait(lambda path=folder / PARTY_SOCKET: path.exists(), deadline, children)
    for i in range(_PROCESSES):
        words = [*common, "--pace", told, *sites[i::_PROCESSES]]
        child = Child(words, flower, home / f"nodes{i}.log")
        children[f"nodes {i}"] = running.enter_context(child)
    for i in range(_PROCESSES):
        log = home / f"nodes{i}.log"
        _wait(lambda path=log: "joined" in path.read_text(), deadline, children)
    return children


def _wait(condition: Any, deadline: float, children: dict[str, Child]) -> None:
    while not condition():
        ended = [who for who, child in children.items() if not child.running()]
        if ended or time.monotonic() > deadline:
            who = ended[0] if ended else "a process"
            words = children[ended[0]].last_words() if ended else "it is too slow"
            raise HyperLockError(f"{who} did not start: {words}")
        time.sleep(0.1)
