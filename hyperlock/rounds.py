"""The round loop: it moves bytes between the server and the other parties, and understands none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperlock.errors import RoundFailed
from hyperlock.identity import KEYHOLDER
from hyperlock.progress import track
from hyperlock.randomness import generator
from hyperlock.roles.server import Server
from hyperlock.runtime import Lost, Runtime


@dataclass(frozen=True)
class RoundReport:
    """What a round moved.

    Attributes:
        uplink: mean bytes a client sent.
        downlink: bytes a client was sent.
        replies: clients that answered.
        refused: updates that the server refused.
        lost: clients that did not answer.
    """

    uplink: float
    downlink: int
    replies: int
    refused: int
    lost: int


def distribute_key(public_key: bytes, server: Server, clients: Sequence[str], runtime: Runtime) -> None:
    """Give everyone the key holder's PublicKey message."""
    server.install_key(public_key)
    for _ in runtime.exchange(dict.fromkeys(clients, public_key)):
        pass


def sample_cohort(clients: Sequence[str], size: int, seed: int, round_number: int) -> list[str]:
    """`size` distinct clients, uniformly, by (seed, round); in the clients' own order."""
    chosen = generator(seed, "cohort", round_number).choice(len(clients), size, replace=False)
    return [clients[i] for i in np.sort(chosen)]


def run_round(
    number: int, cohort: Sequence[str], clients: Sequence[str], server: Server, runtime: Runtime
) -> RoundReport:
    """One round: train, encrypt, add, decrypt, step.

    Raises:
        RoundFailed: too few updates were accepted.
        ReleaseRefused: the key holder will not release the sum.
    """
    request = server.open(number, cohort)
    uplink: list[int] = []
    lost = 0
    replies = runtime.exchange(dict.fromkeys(cohort, request))
    for _, reply in track(replies, len(cohort), f"round {number}: clients"):
        if isinstance(reply, Lost):
            lost += 1
            continue
        uplink.append(len(reply))
        server.receive(reply)
    aggregate = server.close()
    downlink = len(request)
    if server.keeper is None:
        downlink += len(aggregate)
        for _ in runtime.exchange(dict.fromkeys(clients, aggregate)):
            pass
    else:
        [(_, release)] = runtime.exchange({KEYHOLDER: aggregate})
        if isinstance(release, Lost):
            raise RoundFailed(f"round {number}: the key holder did not answer: {release.reason}")
        server.step(release)
    return RoundReport(float(np.mean(uplink)), downlink, len(uplink), server.refused, lost)
