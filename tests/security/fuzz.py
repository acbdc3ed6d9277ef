"""Fuzzing of the parties: `python -m tests.security.fuzz --inputs 100000 --seed 0` prints what
became of every input.

Each input is a good message of a round with mutations, made from (seed, number) alone but for the
ciphertexts' own randomness. Those that need no signature are the network's; the others are signed
anew, as by an enrolled party that turned hostile, so that the signature does not hide the checks
behind it: a client, whose promise may be of whatever it sends; a server or a key holder; a witness,
alone or with the server. Inputs are offered in a child process: one that ends it, or that takes
longer than `PATIENCE`, is counted, and the next child goes on behind it. Between inputs, rounds end
with the exact sum of the good updates.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.security.mutations import MUTATIONS
from tests.security.proved_stages import AllStages, ProvedStage
from tests.security.stages import OUTCOMES

PATIENCE = 20.0  # seconds for one input
_ROUND = 200  # inputs, after which a round ends and its sum is compared
_PROVED = 20  # and one at trust=malicious, in which a single party is offered anything


def child(first: int, inputs: int, seed: int) -> None:
    """Offer inputs `first` to `inputs`; one line of JSON before and after each."""
    logging.disable()
    stages = AllStages()
    for number in range(first, inputs):
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(sorted(MUTATIONS))
        stage = stages.choose(rng, name)
        data = MUTATIONS[name](rng, stage)
        print(json.dumps([number, name, stage.name]), flush=True)
        outcome = stage.offer(data)
        if number % _ROUND == _ROUND - 1:
            for server in stages.servers:
                server.finish()
        if number % _PROVED == 0 and isinstance(stage, ProvedStage):
            stage.finish()
        print(
            json.dumps([number, outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]),
            flush=True,
        )
    stages.finish()


def lines(process: subprocess.Popen[bytes]) -> Iterator[Any]:
    """What a child says, until it ends or says nothing for too long, which ends it."""
    assert process.stdout is not None
    pending = b""
    while select.select([process.stdout], [], [], PATIENCE)[0]:
        data = os.read(process.stdout.fileno(), 2**16)
        if not data:
            return
        *whole, pending = (pending + data).split(b"\n")
        yield from map(json.loads, whole)
    process.kill()


def fuzz(inputs: int, seed: int = 0) -> tuple[Counter[tuple[str, str, str]], dict[str, float]]:
    """How many inputs of each (mutation, party, outcome) there were; seconds, and kilobytes of
    memory at most."""
    found: Counter[tuple[str, str, str]] = Counter()
    start = time.monotonic()
    first = 0
    memory = list[int]()
    began = None
    while first < inputs:
        command = [
            sys.executable,
            "-m",
            "tests.security.fuzz",
            "--child",
            f"{first},{inputs},{seed}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            began = None
            for number, what, more in lines(process):
                if began is None:
                    began = (what, more)
                    first = number + 1
                else:
                    found[*began, what] += 1
                    began = None
                    memory.append(more)
        if began is not None:
            found[*began, f"ended by {process.returncode}"] += 1
        elif process.returncode:
            raise RuntimeError(f"the child ended by {process.returncode} before input {first}")
    return found, {
        "seconds": time.monotonic() - start,
        "kilobytes": max(memory),
        "at first": memory[0],
    }


def table(found: Counter[tuple[str, str, str]], column: int) -> list[str]:
    """Rows of what was done (0) or to whom (1), columns of outcomes."""
    outcomes = [*OUTCOMES, *sorted({key[2] for key in found} - {*OUTCOMES})]
    names = sorted({key[column] for key in found})
    width = max(map(len, [*names, "in all"]))
    rows = [" " * width + "".join(f"{outcome:>21}" for outcome in ("inputs", *outcomes))]
    for name in [*names, "in all"]:
        counts = Counter[str]()
        for key, count in found.items():
            if name in (key[column], "in all"):
                counts[key[2]] += count
        rows.append(
            f"{name:<{width}}"
            + "".join(f"{n:>21,}" for n in (counts.total(), *(counts[o] for o in outcomes)))
        )
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Mutated messages against the real parties.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(*map(int, given.child.split(",")))
    found, cost = fuzz(given.inputs, given.seed)
    print("\n".join([*table(found, 0), "", *table(found, 1), ""]))
    rate = found.total() / cost["seconds"]
    first = cost["at first"] / 1024
    most = cost["kilobytes"] / 1024
    print(f"{found.total():,} inputs in {cost['seconds']:.0f} s, {rate:.0f} a second")
    print(f"memory: {most:.1f} MiB at most, {first:.1f} MiB after the first input")
    return None


if __name__ == "__main__":
    main()
