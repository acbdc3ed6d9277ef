"""A project of sites, a key holder, a witness and a server, each in a folder of its own, whose
parties meet through a pipe in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hyperlock.data.datasets import Dataset
from hyperlock.data.split import Parts
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import HyperLockError
from hyperlock.parties.messages import kind_of
from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.bundle import opened
from hyperlock.sites import kit
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import SITE
from hyperlock.sites.party import NotHere, Party

LIMITS = """
dataset: {{path: {path}}}
limits:
  models: [logistic, mlp]
  rounds: 20
  trust: curious
  min_clients: 2
"""


@dataclass
class Project:
    """Folders, and the kit that all have joined.

    Attributes:
        path: of all.
        sites: their names.
        ca: PEM.
    """

    path: Path
    sites: Sequence[str] = ("hospital-a", "hospital-b", "hospital-c")
    witness: bool = True
    samples: Mapping[str, int] = field(default_factory=dict)
    ca: str = "the CA"

    def __post_init__(self) -> None:
        roles = ["server", "keyholder", *(["witness"] if self.witness else [])]
        self.folders = {role: Folder.make(self.path / role, role, "", 0) for role in roles}
        for name in self.sites:
            count = self.samples.get(name, 100)
            self.folders[name] = Folder.make(self.path / name, SITE, name, count)
        self.kit = kit.make(
            "project", "127.0.0.1:9092", self.ca, [one.public for one in self.folders.values()]
        )
        self.kit_file = self.path / "kit.json"
        self.kit_file.write_text(self.kit.write())
        for folder in self.folders.values():
            folder.join(self.kit_file)

    def give(self, dataset: Dataset, parts: Parts, limits: str = LIMITS) -> None:
        """Each site has its part of a dataset, and of what it is tested on."""
        tests = np.array_split(np.arange(len(dataset.y_test)), len(self.kit.sites))
        for name, part, test in zip(self.kit.sites, parts, tests, strict=True):
            path = self.folders[name].path / "data.npz"
            np.savez(
                path,
                x=dataset.x_train[part],
                y=dataset.y_train[part],
                x_test=dataset.x_test[test],
                y_test=dataset.y_test[test],
            )
            (self.folders[name].path / "site.yaml").write_text(limits.format(path=path))

    def holding(self, pairs: Sequence[KeyPair], below: Path | None = None) -> set[Path]:
        """Files, below this folder or the project's, that hold a piece of one of these keys."""
        pieces = [
            pair.secret[i : i + 32] for pair in pairs for i in range(200, len(pair.secret), 5000)
        ]
        files = [path for path in (below or self.path).rglob("*") if path.is_file()]
        return {
            path
            for path in files
            if path.suffix != ".npz" and any(piece in path.read_bytes() for piece in pieces)
        }

    def parties(self) -> dict[str, Party]:
        """All but the server, as processes would be."""
        return {name: Party(one) for name, one in self.folders.items() if name != "server"}


def keys_made(patch: pytest.MonkeyPatch) -> list[KeyPair]:
    """All pairs that BFV makes from now on."""
    pairs: list[KeyPair] = []
    generate = Bfv.generate_keys

    def noted(self: Bfv) -> KeyPair:
        pairs.append(generate(self))
        return pairs[-1]

    patch.setattr(Bfv, "generate_keys", noted)
    return pairs


@dataclass
class Pipe:
    """Moves bytes between the server and parties in this process, late or not at all.

    Attributes:
        parties: by name; who is not there is away.
        timeout: seconds.
        before: by party and kind, what happens to a message on its way; a Lost loses it, seconds
            keep it so long.
        seen: what was sent, by party and kind.
    """

    parties: dict[str, Party]
    timeout: float = 20.0
    before: dict[tuple[str, str], Callable[[], Lost | float | None]] = field(default_factory=dict)
    after: dict[tuple[str, str], Callable[[], None]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """Each party answers in a thread of its own."""
        answers: dict[str, Reply | BaseException] = {}
        threads = [
            threading.Thread(target=self._ask, args=(answers, *each), daemon=True)
            for each in requests.items()
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + self.timeout
        given: set[str] = set()
        while len(given) < len(requests) and time.monotonic() < deadline:
            for party in [name for name in answers if name not in given]:
                given.add(party)
                reply = answers[party]
                if isinstance(reply, BaseException):
                    raise reply
                yield party, reply
            time.sleep(0.002)
        for party in requests.keys() - given:
            yield party, Lost(f"no answer in {self.timeout:g} s")

    def close(self) -> None:
        """The run is over."""
        self.closed = True

    def _ask(self, answers: dict[str, Reply | BaseException], party: str, request: bytes) -> None:
        answer: Reply | BaseException = b""
        for message in opened(request):
            answer = self._answer(party, message)
            if not isinstance(answer, bytes):
                break
        answers[party] = answer

    def _answer(self, party: str, request: bytes) -> Reply | BaseException:
        """To one message of those that share a trip; the process may be another for each."""
        kind = kind_of(request)
        self.seen.append((party, kind))
        fate = self.before.get((party, kind), lambda: None)()
        if isinstance(fate, Lost):
            return fate
        if fate is not None:
            time.sleep(fate)
        there = self.parties.get(party)
        if there is None:
            return Lost("the party's process is not running", away=True)
        try:
            answer: Reply = there.handle(request)
        except NotHere as error:
            answer = Lost(str(error), away=True)
        except HyperLockError as error:
            answer = Lost(str(error))
        try:
            self.after.get((party, kind), lambda: None)()
        except BaseException as error:
            return error
        return answer
