"""The coordinator of a benchmark: it plays what it is told, and says what every trip cost.

    python -m benchmarks.federation.coordinate FOLDER SETTING...

Each line of standard input is a JSON object: `{"rounds": 3}` plays the next rounds; `{"bytes": 1,
"parties": [...], "times": 10}` sends so many messages that parties refuse, and which therefore cost
what a trip costs. Each is answered by one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperlock.experiment import simulation
from hyperlock.experiment.rounds import close_run, play_round
from hyperlock.monitor import Monitor
from hyperlock.runtime import Pipe, Reply
from hyperlock.settings.compose import compose
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from hyperlock.sites.folder import Folder

if TYPE_CHECKING:
    from hyperlock.experiment.rounds import Parties
    from hyperlock.settings.schema import Config


class Recorded:
    """A pipe, and a note of each trip: by party the bytes there and back, and the seconds for which
    it was waited; not those of a trip within it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.trips: list[dict[str, Any]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """As the pipe does."""
        sent = {party: len(request) for party, request in requests.items()}
        back: dict[str, int] = {}
        trip = {"sent": sent, "back": back, "waited": 0.0}
        self.trips.append(trip)
        replies = iter(self._pipe.exchange(requests))
        while True:
            began = time.perf_counter()
            found = next(replies, None)
            trip["waited"] += time.perf_counter() - began
            if found is None:
                return
            party, reply = found
            back[party] = len(reply) if isinstance(reply, bytes) else 0
            yield party, reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def close(self) -> None:
        """As the pipe does."""
        self._pipe.close()

    def drain(self) -> list[dict[str, Any]]:
        """The trips since the last call."""
        trips = self.trips
        self.trips = []
        return trips


def main(folder: Path, overrides: list[str]) -> None:
    """Answer each line until there are no more."""
    config = _config(folder, overrides)
    logging.basicConfig(level=logging.INFO)
    pipe: Recorded | None = None

    def recorded(server: Folder, timeout: float) -> Pipe:
        nonlocal pipe
        pipe = Recorded(coordinator.flower(server, timeout))
        return pipe

    parties, about = _parties(config, coordinator.own_folder(config), recorded)
    assert pipe is not None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps(about), file=answers, flush=True)
    played = 0
    for line in sys.stdin:
        told = json.loads(line)
        if "rounds" not in told:
            for _ in range(told["times"]):
                for _ in pipe.exchange(dict.fromkeys(told["parties"], bytes(told["bytes"]))):
                    pass
            print(json.dumps(pipe.drain()), file=answers, flush=True)
            continue
        results = []
        for number in range(played + 1, played + told["rounds"] + 1):
            began = time.perf_counter()
            traffic = play_round(number, parties, config.federation, config.seed)
            parties.server.kept = number
            result = {"seconds": time.perf_counter() - began, "replies": traffic.replies}
            result |= {"lost": traffic.lost, "refused": traffic.refused}
            results.append(result | {"trips": pipe.drain()})
        played += told["rounds"]
        print(json.dumps(results), file=answers, flush=True)
    close_run(parties)
    parties.runtime.close()


def _config(folder: Path, overrides: list[str]) -> Config:
    settings = ["runtime=flower", f"runtime.folder={folder}", "tracking=none", *overrides]
    composed, _ = compose(settings)
    return parse(composed)


def _parties(config: Config, folder: Folder, pipe: Any) -> tuple[Parties, dict[str, Any]]:
    """The server's side, and what it is about."""
    dataset = simulation.load_dataset(config)
    samples = simulation.samples(dataset)
    network = simulation.build_network(config, samples)
    scheme = simulation.build_scheme(config, network.sizes)
    given: dict[str, Any] = {"run": uuid.uuid4().hex, "monitor": Monitor()}
    parties = coordinator.assemble(
        config, samples, scheme, network, folder=folder, pipe=pipe, **given
    )
    about = {"parameters": sum(network.sizes), "security_bits": scheme.security_bits}
    return parties, about


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
