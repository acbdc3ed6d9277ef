"""The round loop: it moves bytes between the server and the other parties, and understands none of
them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hyperlock.errors import ReleaseRefused, RoundFailed
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.server import Server
from hyperlock.randomness import generator
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


def distribute_key(
    public_key: bytes, server: Server, clients: Sequence[str], runtime: Runtime
) -> None:
    """Give everyone the key holder's PublicKey message."""
    server.install_key(public_key)
    for _ in runtime.exchange(dict.fromkeys(clients, public_key)):
        pass


def sample_cohort(
    clients: Sequence[str], size: int, seed: int, round_number: int, attempt: int = 1
) -> list[str]:
    """`size` distinct clients, uniformly, by (seed, round) and from the second attempt on by it
    too; in the clients' own order."""
    chosen = generator(seed, "cohort", round_number, *_again(attempt)).choice(
        len(clients), size, replace=False
    )
    return [clients[i] for i in np.sort(chosen)]


def drop_out(
    cohort: Sequence[str],
    clients: Sequence[str],
    probability: float,
    seed: int,
    round_number: int,
    attempt: int = 1,
) -> set[str]:
    """Who of the cohort will not answer: each client with this probability, by (seed, round,
    client) and attempt."""
    if probability == 0:
        return set()
    number = {client: i for i, client in enumerate(clients)}
    draws = {
        name: generator(seed, "dropout", round_number, number[name], *_again(attempt)).random()
        for name in cohort
    }
    return {name for name, draw in draws.items() if draw < probability}


def _again(attempt: int) -> tuple[int, ...]:
    return () if attempt == 1 else (attempt,)


def run_round(
    number: int,
    cohort: Sequence[str],
    clients: Sequence[str],
    server: Server,
    runtime: Runtime,
    monitor: Monitor,
    absent: Collection[str] = (),
) -> RoundReport:
    """One round: train, encrypt, add, decrypt, step.

    Args:
        number: the round, from 1.
        cohort: who is asked for an update.
        clients: all of them.
        server: the server.
        runtime: reaches the others.
        monitor: shows how many have answered.
        absent: who of the cohort is to be lost, to simulate it; these are not asked at all.

    Raises:
        RoundFailed: too few updates were accepted.
        ReleaseRefused: the key holder will not release the sum.
    """
    request = server.open(number, cohort)
    uplink: list[int] = []
    asked = [name for name in cohort if name not in absent]
    lost = len(cohort) - len(asked)
    replies = runtime.exchange(dict.fromkeys(asked, request))
    for _, reply in monitor.watch(replies, len(asked), f"round {number}: clients"):
        if isinstance(reply, Lost):
            lost += 1
            continue
        uplink.append(len(reply))
        server.receive(reply)
    try:
        aggregate = server.close()
    except RoundFailed as error:
        raise RoundFailed(f"{error}; {lost} of {len(cohort)} clients did not answer") from None
    downlink = len(request)
    if server.keeper is None:
        downlink += len(aggregate)
        for _ in runtime.exchange(dict.fromkeys(clients, aggregate)):
            pass
    else:
        [(_, release)] = runtime.exchange({KEYHOLDER: aggregate})
        if isinstance(release, Lost):
            # Not RoundFailed: another try would be refused, should it have decrypted; it does so
            # once a round.
            raise ReleaseRefused(f"round {number}: the key holder did not answer: {release.reason}")
        server.step(release)
    return RoundReport(float(np.mean(uplink)), downlink, len(uplink), server.refused, lost)
