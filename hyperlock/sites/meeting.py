"""Where the parties of a project meet: the SuperLink at the coordinator, and each party's node."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from hyperlock.errors import HyperLockError
from hyperlock.runtime.flower import SOCKET
from hyperlock.sites import engine
from hyperlock.sites.child import Child
from hyperlock.sites.engine import Environment, SuperLink, Tls
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import Kit, PublicFile, make
from hyperlock.sites.serve import SOCKET as PARTY_SOCKET
from hyperlock.sites.tls import AUTHORITY, SERVER, SERVER_KEY, make_authority, make_server

log = logging.getLogger(__name__)

ENVIRONMENT = "HYPERLOCK_FLOWER_ENV"  # where Flower is installed; .venv-flower if it is not set
_LOOK = 1.0  # seconds between two looks at what runs
_RELAYS = 20.0  # seconds before Flower is asked whether the relay runs; each time twice as many,
_RELAYS_MOST = 600.0  # and no more than these
_PAUSE = 5.0  # seconds before a node is started again
_POLL = 0.3  # seconds between two looks of a node for messages


def flower_folder() -> Path:
    """Where Flower's environment is."""
    return Path(os.environ.get(ENVIRONMENT, ".venv-flower"))


def provision(server: Folder, project: str, superlink: str, files: list[Path]) -> Kit:
    """A project's kit, written to the server's folder, and what its SuperLink needs.

    Args:
        server: of the coordinator.
        project: its name.
        superlink: host and port where the parties reach it.
        files: the public files of all others.

    Raises:
        HyperLockError: an address or a file that cannot be, or parties that are no project.
    """
    host, _, port = superlink.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise HyperLockError(
            f"--superlink {superlink}: not a host and a port\n"
            "  try: --superlink fl.example.org:9092"
        )
    parties = [server.public, *(PublicFile.read(path) for path in files)]
    tls = server.path / "tls"
    if not (tls / AUTHORITY).exists():
        make_authority(tls, project)
    make_server(tls, [host.strip("[]")])
    kit = make(project, superlink, (tls / AUTHORITY).read_text(), parties)
    (server.path / "to-hand-over.json").write_text(kit.write())
    server.join(server.path / "to-hand-over.json")
    return kit


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
    kit = server.kit
    host, _, port = kit.superlink.rpartition(":")
    tls = server.path / "tls"
    paths = Tls(tls / AUTHORITY, tls / SERVER, tls / SERVER_KEY)
    home = server.path / "superlink"
    with SuperLink(environment, home, listen or _address(host), int(port), paths) as superlink:
        _register(superlink, kit, home)
        log.info("the SuperLink of project %s answers at %s", kit.project, superlink.address)
        _keep_relay(superlink, server.path / SOCKET, stop)


def _register(superlink: SuperLink, kit: Kit, home: Path) -> None:
    """Admit the nodes of the kit, and no others any more."""
    wanted = {name: party for name, party in kit.parties.items() if party.node}
    for name in sorted(superlink.registered() - wanted.keys()):
        superlink.unregister(name)
        log.info("%s is shut out", name)
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
            poll=_POLL,
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
            words = self._child.last_words()
            if words != self._said:
                log.warning("the node ended: %s", words)
                self._said = words
        if time.monotonic() > self._again:
            self._again = 0.0
            self._child.start()


def _address(host: str) -> str:
    """What to listen on, for a host by that name: itself if it is an address of loopback."""
    return host.strip("[]") if host.startswith(("127.", "[::1")) else "0.0.0.0"
