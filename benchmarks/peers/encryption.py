"""A round of encryption: HyperLock's beside NVFlare's own classes, and beside the masks of Flower's
SecAgg+."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from benchmarks.models import tensor_sizes
from benchmarks.peers import environments
from benchmarks.peers.environments import Worker
from benchmarks.session import in_turns
from benchmarks.tables import Samples, markdown, ratio, summary

PLAYERS = {  # peer: its environment and its module
    "nvflare": ("nvflare", "benchmarks.peers.encrypt_nvflare"),
    "secaggplus": ("flower", "benchmarks.peers.mask_flower"),
}
OURS = "HyperLock"
OUR_WAYS = ("bfv-8x16", "bfv-8x16-seeded", "ckks-8x16")
STAND_IN = "nvflare-stand-in"  # benchmarks.others.NvFlare
CLIENTS = 10
COLUMNS = {  # figure: heading
    "up": "bytes up",
    "down": "bytes down",
    "client": "client",
    "server": "server, per client",
    "decrypt": "decrypt",
    "opened": "server with a client's share of decrypt",
}


def measure(names: list[str], size: int, repeats: int) -> dict[str, Any]:
    """Turns of HyperLock and of those named; tables are printed, and what they are made of
    returned."""
    job = (str(size), str(CLIENTS))
    samples: Samples = {}
    with ExitStack() as stack:
        module = "benchmarks.peers.encrypt_hyperlock"
        ours = (sys.executable, "-m", module, *job, *OUR_WAYS, STAND_IN)
        workers = {OURS: Worker(OURS, ours)}
        for name in names:
            environment, module = PLAYERS[name]
            interpreter = environments.python_of(environment)
            workers[name] = Worker(name, (str(interpreter), "-m", module, *job))
        for worker in workers.values():
            stack.callback(worker.close)
            worker.turn()  # the first loads and warms up, and is not counted
        for repeat in range(repeats):
            for name in in_turns(list(workers), repeat):
                for way, figures in workers[name].turn().items():
                    # SecAgg+'s server takes the masks off, so only this compares with it.
                    figures["opened"] = figures["server"] + figures["decrypt"] / CLIENTS
                    for figure, value in figures.items():
                        samples.setdefault(way, defaultdict(list))[figure].append(value)
            print(f"turn {repeat + 1} of {repeats} done", file=sys.stderr)

    parameters = sum(tensor_sizes(size))
    print(
        f"## A round of encryption: {parameters:,} parameters, {CLIENTS} clients; bytes and "
        "processor microseconds per parameter\n"
    )
    print(table(samples), comparison(samples), "", sep="\n\n", flush=True)
    return {"parameters": parameters, "samples": samples}


def table(samples: Samples) -> str:
    """Markdown: every figure of every way."""
    rows = [
        [name, *(summary(seen[figure]) for figure in COLUMNS)] for name, seen in samples.items()
    ]
    return markdown(("way", *COLUMNS.values()), rows)


def comparison(samples: Samples) -> str:
    """Markdown: how many times each of ours every peer's figures are, and its stand-in's."""
    rows = []
    for other in samples:
        if other in (*OUR_WAYS, STAND_IN):
            continue
        known = [name for name in OUR_WAYS if name in samples]
        if other == "nvflare":
            known.append(STAND_IN)
        for name in known:
            cells = []
            for figure in COLUMNS:
                compares = figure not in ("server", "decrypt") or any(samples[other]["decrypt"])
                cells.append(summary(ratio(samples, other, name, figure)) if compares else "")
            rows.append([f"{other} / {name}", *cells])
    return markdown(("this / that", *COLUMNS.values()), rows)
