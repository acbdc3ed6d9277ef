"""Where the parties of a project meet: the SuperLink at the coordinator, and each party's node."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hyperlock.errors import HyperLockError
from hyperlock.files import write_whole
from hyperlock.parties.identity import SERVER as PARTY
from hyperlock.runtime.flower import SOCKET
from hyperlock.sites import engine
from hyperlock.sites.child import Child
from hyperlock.sites.engine import Environment, Pace, SuperLink, Tls
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import Kit, PublicFile, host_and_port, make
from hyperlock.sites.serve import SOCKET as PARTY_SOCKET
from hyperlock.sites.tls import (
    AUTHORITY,
    SERVER,
    SERVER_KEY,
    check_certificate,
    make_authority,
    make_server,
)

log = logging.getLogger(__name__)

ENVIRONMENT = "HYPERLOCK_FLOWER_ENV"  # where Flower is installed; .venv-flower if it is not set
TLS = "tls"  # in the server's folder, as the next
HAND_OVER = "to-hand-over.json"
_LOOK = 1.0  # seconds between two looks at what runs
_RELAYS = 20.0  # seconds before Flower is asked whether the relay runs; each time twice as many,
_RELAYS_MOST = 600.0  # and no more than these
_PAUSE = 5.0  # seconds before a node is started again
_POLL = 0.1  # seconds between two looks of a node for messages, at least,
_POLL_SHARE = 0.05  # and this part of the time since it had one,
_POLL_MOST = 3.0  # and no more than these: it is what Flower's own nodes wait
_ALIVE = 10.0  # seconds in which a node shows that it is there, at least
_TOGETHER = 80.0  # looks a second of all nodes, and
_ALL_ALIVE = 5.0  # signs of life a second, at most: each costs the SuperLink milliseconds


def flower_folder() -> Path:
    """Where Flower's environment is."""
    return Path(os.environ.get(ENVIRONMENT, ".venv-flower"))


def pace(parties: int) -> Pace:
    """How often each node of so many asks: a short silence is ended soon, and a long one costs
    little; many ask less often each."""
    poll = max(_POLL, parties / _TOGETHER)
    return Pace(poll, _POLL_SHARE, max(_POLL_MOST, poll), max(_ALIVE, parties / _ALL_ALIVE))


def provision(server: Folder, project: str, superlink: str, files: list[Path]) -> Kit:
    """A project's kit, written to the server's folder, and what its SuperLink needs.

    Args:
        server: of the coordinator.
        project: its name.
        superlink: host and port where the parties reach it.
        files: the public files of all others.

    Raises:
        HyperLockError: an address or a file that cannot be, or parties that are no project; then
            all is as it was.
    """
    # What can be wrong, before anything is written.
    host, _ = host_and_port(superlink, "--superlink")
    parties = [server.public, *(PublicFile.read(path) for path in files)]
    make(project, superlink, "", parties)

    # An authority for as long as this kit: whoever is not given it has no way in.
    tls = server.path / TLS
    new = server.path / f"{TLS}.new"
    shutil.rmtree(new, ignore_errors=True)
    make_authority(new, project)
    make_server(new, [host])
    kit = make(project, superlink, (new / AUTHORITY).read_text(), parties)
    shutil.rmtree(tls, ignore_errors=True)
    new.rename(tls)
    write_whole(server.path / HAND_OVER, kit.write().encode())
    server.join(server.path / HAND_OVER)
    return kit


def take_kit(folder: Folder, path: Path) -> tuple[Kit, datetime]:
    """A party takes a project's kit; with the day on which it ends.

    Raises:
        HyperLockError: the kit is none, another project's, or not valid today.
    """
    with tempfile.TemporaryDirectory() as scratch:
        authority = Path(scratch) / AUTHORITY
        authority.write_text(Kit.read(path).ca)
        try:
            certificate = check_certificate(authority)
        except HyperLockError as error:
            text = str(error).replace(str(authority), f"{path}: its certificate")
            raise HyperLockError(text) from None
    return folder.join(path), certificate.not_valid_after_utc


def run_superlink(
    server: Folder, environment: Environment, listen: str = "", stop: Callable[[], bool] = bool
) -> None:
    """Run the coordinator's SuperLink, and a relay whenever a run waits for one, until `stop`.

    Args:
        server: the coordinator's folder.
        environment: Flower's.
        listen: an address of this machine; that of the kit, or all, if "".
        stop: asked every second.

    Raises:
        HyperLockError: it cannot be started.
    """
    if server.public.role != PARTY:
        raise HyperLockError(
            f"{server.path}: a {server.public.role}'s folder, not the server's\n"
            "  try: the coordinator's own; other parties `serve`"
        )
    kit = server.kit
    host, port = host_and_port(kit.superlink, server.path)
    tls = server.path / TLS
    paths = Tls(tls / AUTHORITY, tls / SERVER, tls / SERVER_KEY)
    home = server.path / "superlink"
    with SuperLink(environment, home, listen or _address(host), port, paths) as superlink:
        _register(superlink, kit, home)
        log.info("the SuperLink of project %s answers at %s", kit.project, kit.superlink)
        _keep_relay(superlink, server.path / SOCKET, stop)


def _register(superlink: SuperLink, kit: Kit, home: Path) -> None:
    """Admit the nodes of the kit by the keys that it names, and no others any more."""
    wanted = {name: party for name, party in kit.parties.items() if party.node}
    for name, key in sorted(superlink.registered().items()):
        if name not in wanted or wanted[name].node.split()[1] != key:
            superlink.unregister(name)
            log.info("%s is shut out%s", name, " with its old key" if name in wanted else "")
    for name, party in sorted(wanted.items()):
        file = home / f"{name}.pub"
        file.write_text(f"{party.node}\n")
        superlink.register(name, file)


def _keep_relay(superlink: SuperLink, path: Path, stop: Callable[[], bool]) -> None:
    """A relay for every run that waits at this socket, and the SuperLink again if it ends."""
    served = 0
    asked = 0.0
    pause = _RELAYS
    while not stop():
        time.sleep(_LOOK)
        if not superlink.running():
            log.warning("the SuperLink has ended, and is started again")
            superlink.start()
            served = 0
        try:
            waiting = path.stat().st_mtime_ns  # when it was made, or lost its relay
        except FileNotFoundError:
            served = 0
            continue
        if waiting == served and time.monotonic() - asked < pause:
            continue
        asked = time.monotonic()
        # A coordinator that was killed leaves its socket behind, and no relay lives there.
        pause = min(2 * pause, _RELAYS_MOST) if waiting == served else _RELAYS
        if waiting != served or not any(run.open for run in superlink.relays()):
            superlink.start_relay(path)
            served = waiting
            log.info("a relay serves the run at %s", path)


class Node:
    """A party's way to the SuperLink: a process that is started again when it ends. A context.

    Args:
        folder: the party's.
        environment: Flower's.
    """

    def __init__(self, folder: Folder, environment: Environment) -> None:
        ca = folder.path / "ca.crt"
        ca.write_text(folder.kit.ca)
        self._child: Child = engine.node(
            environment,
            folder.path,
            folder.kit.superlink,
            ca,
            folder.path / PARTY_SOCKET,
            pace=pace(len(folder.kit.parties)),
        )
        self._again = 0.0
        self._said = ""

    def __enter__(self) -> Node:
        self._child.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.stop()

    def look(self) -> None:
        """Start it again, some seconds after it ended; say why once."""
        if self._child.running():
            return
        if not self._again:
            self._again = time.monotonic() + _PAUSE
            words = _last_message(self._child.last_words())
            if words != self._said:
                log.warning("the node ended: %s", words)
                self._said = words
        if time.monotonic() > self._again:
            self._again = 0.0
            self._child.start()


def _last_message(words: str) -> str:
    """The last that a node said, of one line or two."""
    start = words.rfind("node: ")
    return words[start + len("node: ") :] if start >= 0 else words


def _address(host: str) -> str:
    """What to listen on, for a host by that name: itself if it is an address of loopback."""
    if host.startswith("127.") or host == "::1":
        return host
    return "::" if ":" in host else "0.0.0.0"
