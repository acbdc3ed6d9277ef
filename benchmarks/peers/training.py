"""A round of training, in plaintext: HyperLock's beside fedjax's, pfl's and Flower's, from the same
weights over the same samples."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import environments
from benchmarks.peers.environments import HOME, ROOT, Worker
from benchmarks.peers.exchange import BATCH, RATE, Exchange, accuracy
from benchmarks.session import in_turns
from benchmarks.tables import Samples, markdown, ratio, summary

MODULES = {name: f"benchmarks.peers.round_{name}" for name in ("fedjax", "pfl", "flower")}
ISOLATED = frozenset({"flower"})  # only where there is no network: Ray opens ports
GOALS = {"fedjax": 1.3, "pfl": 2.5, "flower": 4.0}  # times HyperLock's processor seconds, at least
OURS = "HyperLock"
OURS_ENCRYPTED = "HyperLock, encrypted (BFV)"
# How far a peer's first step may be from ours, as a share of its length. One client in a hundred
# was seen to end elsewhere by some percents of its step, the others by millionths: a rectified unit
# within float32's rounding of zero is on in one library and off in the other.
CLOSE = 0.005
APART = 0.01  # how far apart accuracies may end


def measure(names: list[str], clients: int, repeats: int) -> dict[str, Any]:
    """Turns of HyperLock and of those named; tables are printed, and what they are made of
    returned."""
    samples: Samples = {}
    with tempfile.TemporaryDirectory(dir=HOME) as folder, ExitStack() as stack:
        start = str(Path(folder, "start.npz"))
        ours = (sys.executable, "-m", "benchmarks.peers.round_hyperlock", "--clients", str(clients))
        subprocess.run([*ours, "--out", start], cwd=ROOT, check=True)
        given = Exchange.load(start)
        workers = {}
        for name, encryption in ((OURS, "none"), (OURS_ENCRYPTED, "bfv")):
            command = (*ours, "--encryption", encryption, "--out", _kept(folder, name))
            workers[name] = Worker(name, command)
        for name in names:
            interpreter = environments.python_of(name)
            command = (str(interpreter), "-m", MODULES[name], start, _kept(folder, name))
            workers[name] = Worker(name, command, isolated=name in ISOLATED)
        for worker in workers.values():
            stack.callback(worker.close)

        # Every way's first round compiles, and is not counted. It has the same batches in all of
        # them, so that peers have to come to the same weights.
        first = {name: worker.turn() for name, worker in workers.items()}
        apart = {name: _apart(given, _kept(folder, name)) for name in workers}
        for name in names:
            if apart[name] > CLOSE:
                raise SystemExit(f"{name} steps elsewhere: {apart[name]:.2g} of the step's length")

        for repeat in range(repeats):
            for name in in_turns(list(workers), repeat):
                for figure, value in workers[name].turn().items():
                    samples.setdefault(name, defaultdict(list))[figure].append(value)
            print(f"turn {repeat + 1} of {repeats} done", file=sys.stderr)
        reached = {name: _accuracy(_kept(folder, name)) for name in workers}
    if max(reached.values()) - min(reached.values()) > APART:
        raise SystemExit(f"accuracies are more than {APART} apart: {reached}")

    figures = {"samples": samples, "first": first, "apart": apart, "accuracy": reached}
    print(
        f"## A round of training: 2NN, {clients} clients of 600 samples, one epoch in batches of "
        f"{BATCH}, SGD at {RATE}\n"
    )
    print(table(figures), goals(samples), "", sep="\n\n", flush=True)
    return figures


def _kept(folder: str, name: str) -> str:
    """Where a way leaves its weights."""
    return str(Path(folder, f"{name}.npy"))


def _apart(given: Exchange, path: str) -> float:
    """How far a way's first step is from ours without a grid, as a share of its length."""
    step = np.linalg.norm(given.after - given.weights)
    return float(np.linalg.norm(np.load(path) - given.after) / step)


def _accuracy(path: str) -> float:
    """On MNIST's test set."""
    from hyperlock.data.datasets import mnist

    data = mnist(str(ROOT / "data" / "mnist.npz"))
    x = data.x_test.reshape(len(data.x_test), -1).astype(np.float32) / np.float32(255)
    return accuracy(np.load(path), x, data.y_test)


def table(figures: dict[str, Any]) -> str:
    """Markdown: seconds of every way, and what it came to."""
    samples: Samples = figures["samples"]
    rows = [
        [
            name,
            summary(seen["cpu"]),
            summary(seen["wall"]),
            summary(ratio(samples, name, OURS, "cpu")),
            f"{figures['apart'][name]:.2%}",
            f"{figures['accuracy'][name]:.4f}",
        ]
        for name, seen in samples.items()
    ]
    rounds = 1 + len(samples[OURS]["cpu"])
    headings = (
        "way",
        "CPU seconds",
        "wall seconds",
        f"CPU, times {OURS}'s",
        "first step, from float32's without a grid",
        f"test accuracy after {rounds} rounds",
    )
    return markdown(headings, rows)


def goals(samples: Samples) -> str:
    """Markdown: how much less processor time HyperLock is to take, and does."""
    rows = []
    for name, goal in GOALS.items():
        if name in samples:
            seen = ratio(samples, name, OURS, "cpu")
            reached = "yes" if statistics.median(seen) >= goal else "no"
            rows.append([name, f"at least {goal}", summary(seen), reached])
    return markdown((f"CPU, times {OURS}'s", "goal", "seen", "reached, by median"), rows)
