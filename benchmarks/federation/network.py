"""A network of namespaces: each party behind a link of its own, with a rate and a delay.

Every party is in a network namespace with one interface. Its other end is in the namespace of the
wire (`wire.py`). Both ends send at the link's rate, so that a party's upload and its download are
each limited. Linux, its root, and `ip` and `tc` (iproute2).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from hyperlock.errors import HyperLockError
from hyperlock.sites.child import Child

_PREFIX = "hyperlock"
_SUBNET = "10.77.0"  # in these namespaces alone
_BURST = "16kb"  # that goes at once
_QUEUE = "4mb"  # that waits at a link


class Network:
    """A context: its namespaces are removed at its end, with whatever runs in them by then.

    Args:
        parties: names, in the order of their addresses.
    """

    def __init__(self, parties: Sequence[str]) -> None:
        self._parties = list(parties)
        self._wire: Child | None = None
        self._log = Path(tempfile.mkdtemp(prefix="hyperlock-wire-"))

    def __enter__(self) -> Self:
        self._ip = _tool("ip")
        _remove_leftovers(self._ip)
        try:
            self._lay()
            self.shape(0, 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._wire is not None:
            self._wire.stop()
        for name in [self._space(""), *map(self._space, self._parties)]:
            subprocess.run([self._ip, "netns", "del", name], check=False, capture_output=True)
        shutil.rmtree(self._log, ignore_errors=True)

    def address(self, party: str) -> str:
        """Its IPv4 address."""
        return f"{_SUBNET}.{self._parties.index(party) + 1}"

    def inside(self, party: str) -> list[str]:
        """What a command begins with that is to run at a party."""
        return [self._ip, "netns", "exec", self._space(party)]

    def shape(self, rate: float, delay: float) -> None:
        """Change all links.

        Args:
            rate: of each, in each direction, in Mbit/s; 0 for no limit.
            delay: seconds from one party to another.
        """
        for i, party in enumerate(self._parties):
            for space, device in ((self._space(party), "uplink"), (self._space(""), f"port{i}")):
                tc = [*self._in(space), _tool("tc"), "qdisc"]
                words = ["root", "tbf", "rate", f"{rate}mbit", "burst", _BURST, "limit", _QUEUE]
                if rate:
                    _do([*tc, "replace", "dev", device, *words])
                else:
                    subprocess.run(
                        [*tc, "del", "dev", device, "root"], check=False, capture_output=True
                    )
        if self._wire is not None:
            self._wire.stop()
        ports = [f"port{i}" for i in range(len(self._parties))]
        program = [sys.executable, Path(__file__).with_name("wire.py"), str(delay), *ports]
        self._wire = Child(
            [*self._in(self._space("")), *program], os.environ, self._log / "wire.log"
        )
        self._wire.start()

    def _lay(self) -> None:
        wire = self._space("")
        _do([self._ip, "netns", "add", wire])
        for i, party in enumerate(self._parties):
            space = self._space(party)
            _do([self._ip, "netns", "add", space])
            link = ["link", "add", "uplink", "netns", space, "type", "veth"]
            _do([self._ip, *link, "peer", "name", f"port{i}", "netns", wire])
            _do(
                [self._ip, "-n", space, "addr", "add", f"{self.address(party)}/24", "dev", "uplink"]
            )
            for where, device in ((space, "lo"), (space, "uplink"), (wire, f"port{i}")):
                _do([self._ip, "-n", where, "link", "set", device, "up"])

    def _space(self, party: str) -> str:
        return f"{_PREFIX}-{os.getpid()}-{party}".rstrip("-")

    def _in(self, space: str) -> list[str]:
        return [self._ip, "netns", "exec", space]


def _remove_leftovers(ip: str) -> None:
    """Of a process that was killed."""
    for name in Path("/run/netns").glob(f"{_PREFIX}-*"):
        owner = name.name.split("-")[1]
        if not Path("/proc", owner).exists():
            with contextlib.suppress(HyperLockError):
                _do([ip, "netns", "del", name.name])


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise HyperLockError(f"no {name} on this machine\n  try: apt-get install iproute2")
    return found


def _do(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        text = " ".join(str(word) for word in command)
        raise HyperLockError(
            f"`{text}`: {done.stderr.strip()}\n  try: as root of a Linux with network namespaces"
        )
