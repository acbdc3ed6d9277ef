"""Flower as the engine: its environment, a SuperLink, the relay and the nodes, as processes.

Flower does not install beside HyperLock, so it has an environment of its own, and all that is asked
of it goes through its command line there. A SuperLink's control answers its own machine alone
(runtime/relay/superlink.py): relays are started, and nodes registered, where it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hyperlock.errors import HyperLockError
from hyperlock.files import write_whole
from hyperlock.runtime import relay
from hyperlock.sites.child import Child
from hyperlock.sites.tls import NODE_KEY, check_certificate, check_private

FLOWER = "1.42.0"
RELAY = Path(relay.__file__).parent  # the app, and the programs of Flower's environment
_CONNECTION = "hyperlock"  # what Flower's configuration calls the SuperLink
_START = 60.0  # seconds in which a SuperLink answers
_COMMAND = 120.0  # seconds for one command of Flower's
_ENDING = 10.0  # seconds in which one ends whose parent was killed
_LEFTOVERS = 2.0  # seconds in which what a SuperLink started may end after it
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_FINISHED = "finished"  # how the status of a run begins that is over


@dataclass(frozen=True)
class Environment:
    """Where Flower is installed: the folder of a virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def flwr(self) -> Path:
        """Flower's command."""
        return self.folder / "bin" / "flwr"


@dataclass(frozen=True)
class Tls:
    """Paths of what `sites.tls` wrote for a SuperLink."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Pace:
    """How often a node asks the SuperLink.

    Attributes:
        poll: seconds between two looks for messages, at least.
        share: of the time since it had one, what it waits.
        most: seconds between two looks, at most.
        alive: seconds in which it shows that it is there; after twice as many it counts as gone.
    """

    poll: float
    share: float
    most: float
    alive: float

    def words(self) -> list[str]:
        """For a node's command."""
        return [
            f"--poll={self.poll}",
            f"--poll-share={self.share}",
            f"--poll-most={self.most}",
            f"--alive={self.alive}",
        ]


@dataclass(frozen=True)
class Run:
    """A relay as Flower lists it; the status is such as `running` or `finished:completed`."""

    number: str
    status: str

    @property
    def open(self) -> bool:
        """Whether it runs, or is going to."""
        return not self.status.startswith(_FINISHED)


def find_environment(folder: Path) -> Environment:
    """Flower's environment.

    Raises:
        HyperLockError: it is not there, or holds another version.
    """
    environment = Environment(folder.absolute())
    found = [path.name for path in folder.glob("lib/python3*/site-packages/flwr-*.dist-info")]
    if f"flwr-{FLOWER}.dist-info" in found and environment.flwr.exists():
        return environment
    said = f"has {', '.join(found)}" if found else "has no Flower"
    raise HyperLockError(
        f"{folder} {said}; flwr {FLOWER} is needed\n"
        f"  try: {sys.executable} -m venv {'--clear ' if found else ''}{folder} && "
        f"{folder}/bin/python -m pip install flwr=={FLOWER}"
    )


def make_environment(folder: Path) -> Environment:
    """Flower's environment, made if it is not there; from wherever pip is told to install from.

    Raises:
        HyperLockError: pip failed, with the end of what it said; or the folder is something else,
            which making an environment would empty.
    """
    with contextlib.suppress(HyperLockError):
        return find_environment(folder)
    if folder.exists() and not (folder / "pyvenv.cfg").exists() and any(folder.iterdir()):
        raise HyperLockError(
            f"{folder} is no environment, and Flower's would take the place of what is in it\n"
            "  try: HYPERLOCK_FLOWER_ENV=FOLDER, one that is not there yet"
        )
    environment = Environment(folder.absolute())
    pip: list[str | Path] = [
        environment.python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--quiet",
    ]
    _installing([sys.executable, "-m", "venv", "--clear", folder])
    _installing([*pip, f"flwr=={FLOWER}"])
    return find_environment(folder)


def _installing(command: list[str | Path]) -> None:
    done = subprocess.run(
        command, env=_bare(), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise HyperLockError(
            f"flwr {FLOWER} cannot be installed: {_end(done.stderr or done.stdout)}\n"
            "  try: the same command by hand: " + " ".join(str(word) for word in command)
        )


class SuperLink:
    """A SuperLink on this machine, and what is asked of it. A context: stopped at its end.

    Args:
        environment: Flower's.
        home: a folder of its own, made with mode 0700: its database, log and configuration. A
            SuperLink that is started again on it knows its nodes.
        host: the address it listens on.
        port: 0 for a free one.
        tls: checked at the start.
    """

    def __init__(
        self, environment: Environment, home: Path, host: str, port: int, tls: Tls
    ) -> None:
        self.environment = environment
        self.home = home.absolute()
        self.host = host
        self.port = port or free_port(host)
        self.tls = tls
        self._names = self.home / "nodes.json"
        self._child = Child(
            [environment.python, "-P", RELAY / "superlink.py", *self._arguments()],
            self._variables(),
            self.home / "superlink.log",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """HOST:PORT, as this machine reaches it."""
        host = _ANYWHERE.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id; 0 if it was not started here."""
        return self._child.pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            HyperLockError: a certificate or key that cannot work, a port in use, a SuperLink that
                runs on the same home, or it ended.
        """
        self._refuse_another()
        self._prepare()
        _check_port(self.host, self.port)
        _end_all(self.home, 0)  # what one that was killed left behind would turn to this one
        self._child.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _refuse_another(self) -> None:
        """HyperLockError if one runs on this home, and goes on to: who looked after it may have
        been killed a moment ago, and it is about to end."""
        deadline = time.monotonic() + _ENDING
        while found := [
            pid for pid, words in _processes_of(self.home).items() if b"superlink.py" in words
        ]:
            if time.monotonic() > deadline:
                raise HyperLockError(
                    f"a SuperLink runs on {self.home} already (process {found[0]})\n"
                    "  try: end it first"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and what it started."""
        self._child.stop()
        _end_all(self.home, _LEFTOVERS)

    def kill(self) -> None:
        """As a crash would end it: at once, without a word."""
        self._child.kill()

    def running(self) -> bool:
        """Whether it is; False as well if it was not started here."""
        return self._child.running()

    def register(self, name: str, public_key: Path) -> None:
        """Admit a node.

        Args:
            name: the party's; the relay finds its node by it.
            public_key: path of its node.pub. Told again, the same name and key change nothing.

        Raises:
            HyperLockError: the name or the key is another's, or the SuperLink does not answer.
        """
        try:
            key = public_key.read_text().split()[1]
        except (OSError, IndexError, UnicodeDecodeError):
            raise HyperLockError(f"{public_key} is no public key in OpenSSH's form") from None
        nodes = self._registered()
        if name in nodes and nodes[name]["key"] == key:
            return
        if name in nodes:
            raise HyperLockError(
                f"{name} is registered with another key\n  try: unregister it first, if the site "
                "made a new key and read its fingerprint to you"
            )
        for other, node in nodes.items():
            if node["key"] == key:
                raise HyperLockError(f"the key of {public_key} is registered as {other}")
        told = self._ask("supernode", "register", public_key, _CONNECTION, "--name", name)
        nodes[name] = {"id": str(told["node-id"]), "key": key}
        write_whole(self._names, json.dumps(nodes, indent=1).encode())

    def unregister(self, name: str) -> None:
        """Admit a node no longer; it is shut out at once.

        Raises:
            HyperLockError: there is none of this name, or the SuperLink does not answer.
        """
        nodes = self._registered()
        if name not in nodes:
            raise HyperLockError(f"no node is registered as {name}")
        self._ask("supernode", "unregister", nodes[name]["id"], _CONNECTION)
        del nodes[name]
        write_whole(self._names, json.dumps(nodes, indent=1).encode())

    def start_relay(self, path: Path, poll: float = 0.1, app: Path = RELAY) -> str:
        """Start the relay, in place of any that Flower still takes for running; its number.

        Args:
            path: the coordinator's Unix socket.
            poll: seconds between two looks for answers, at least.
            app: a folder with a Flower app.

        Raises:
            HyperLockError: the SuperLink does not answer, or refuses it.
        """
        for run in self.relays():
            if run.open:
                self.stop_relay(run.number)
        settings = f"socket={json.dumps(str(path.absolute()))} poll={poll}"
        told = self._ask("run", app, _CONNECTION, "--run-config", settings)
        return str(told["run-id"])

    def relays(self) -> list[Run]:
        """All that were ever started, the newest first.

        Raises:
            HyperLockError: the SuperLink does not answer.
        """
        runs = self._ask("list", _CONNECTION)["runs"]
        return [Run(str(run["run-id"]), str(run["status"])) for run in runs]

    def stop_relay(self, number: str) -> None:
        """Stop one; no error if it has ended meanwhile.

        Raises:
            HyperLockError: the SuperLink does not answer.
        """
        try:
            self._ask("stop", number, _CONNECTION)
        except HyperLockError:
            if any(run.number == number and run.open for run in self.relays()):
                raise

    def _prepare(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_certificate(self.tls.authority)
        check_certificate(self.tls.certificate, self.tls.authority)
        check_private(self.tls.key)
        lines = [
            "[superlink]",
            f'default = "{_CONNECTION}"',
            f"[superlink.{_CONNECTION}]",
            f"address = {json.dumps(self.address)}",
            f"root-certificates = {json.dumps(str(self.tls.authority.absolute()))}",
        ]
        write_whole(self.home / "config.toml", "\n".join([*lines, ""]).encode())

    def _arguments(self) -> list[str]:
        return [
            *("--host", self.host),
            *("--port", str(self.port)),
            *("--ssl-ca-certfile", str(self.tls.authority.absolute())),
            *("--ssl-certfile", str(self.tls.certificate.absolute())),
            *("--ssl-keyfile", str(self.tls.key.absolute())),
            *("--database", str(self.home / "superlink.db")),
            "--enable-supernode-auth",
        ]

    def _variables(self) -> dict[str, str]:
        """The environment variables of all that runs for this SuperLink."""
        return flower_variables(self.environment, self.home) | {
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
            "NO_PROXY": "*",  # it talks to itself alone
        }

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START
        trust = ssl.create_default_context(cafile=str(self.tls.authority))
        host = _ANYWHERE.get(self.host, self.host)
        while True:
            if not self._child.running():
                raise HyperLockError(
                    f"the SuperLink ended at its start (exit status {self._child.status()}): "
                    f"{self._child.last_words()}\n  try: see {self._child.log}"
                )
            try:
                with socket.create_connection((host, self.port), 5) as plain:
                    trust.wrap_socket(plain, server_hostname=host).close()
                    return
            except ssl.SSLCertVerificationError as error:
                raise HyperLockError(
                    f"the SuperLink's certificate does not hold for {host}: "
                    f"{error.verify_message}\n  try: a certificate made for {host}"
                ) from None
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise HyperLockError(
                    f"the SuperLink at {self.address} did not answer in {_START:g} s\n"
                    f"  try: see {self._child.log}"
                )
            time.sleep(0.1)

    def registered(self) -> dict[str, str]:
        """The nodes that are admitted: the key of each, by name."""
        return {name: node["key"] for name, node in self._registered().items()}

    def _registered(self) -> dict[str, dict[str, str]]:
        return json.loads(self._names.read_text()) if self._names.exists() else {}

    def _ask(self, *words: str | Path) -> dict[str, Any]:
        """A command of Flower's, and its answer."""
        if not self._answers():  # Flower's own commands try for seconds
            raise self._silent("nothing listens there")
        command = [self.environment.flwr, *words, "--format", "json"]
        try:
            done = subprocess.run(
                [str(word) for word in command],
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._silent(f"no answer in {_COMMAND:g} s") from None
        told = _json(done.stdout)
        if told.get("success"):
            return told
        why = str(told.get("error-message") or _end(done.stderr or done.stdout))
        raise HyperLockError(f"Flower refuses `flwr {words[0]}`: {why}")

    def _answers(self) -> bool:
        host = _ANYWHERE.get(self.host, self.host)
        try:
            socket.create_connection((host, self.port), 5).close()
        except OSError:
            return False
        return True

    def _silent(self, why: str) -> HyperLockError:
        return HyperLockError(
            f"the SuperLink at {self.address} cannot be reached: {why}\n"
            f"  try: whether it runs, and see {self._child.log}"
        )


def node(
    environment: Environment,
    folder: Path,
    superlink: str,
    ca: Path,
    party: Path,
    *,
    pace: Pace,
) -> Child:
    """A site's node, not started yet; it runs no code that a SuperLink ships.

    Args:
        environment: Flower's.
        folder: holds node.key; its log is written there too.
        superlink: HOST:PORT.
        ca: path of the authority's certificate.
        party: path of the party's socket.
        pace: how often it asks.

    Raises:
        HyperLockError: the key is missing or others can read it, or the authority's certificate is
            not valid by this machine's clock.
    """
    check_private(folder / NODE_KEY)
    check_certificate(ca)
    program: list[str | Path] = [environment.python, "-P", RELAY / "node.py"]
    told: list[str | Path] = ["--superlink", superlink, "--ca", ca.absolute()]
    told += ["--key", (folder / NODE_KEY).absolute(), "--party", party.absolute()]
    told += pace.words()
    variables = flower_variables(environment, folder.absolute() / "flower")
    return Child([*program, *told], variables, folder / "node.log")


def flower_variables(environment: Environment, home: Path) -> dict[str, str]:
    """What Flower's programs find in their environment: nothing of HyperLock's, and nothing that
    reports to anyone."""
    path = os.pathsep.join([str(environment.folder / "bin"), os.environ.get("PATH", os.defpath)])
    return _bare() | {
        "PATH": path,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def _bare() -> dict[str, str]:
    """This process' variables, without those that are meant for its own Python."""
    own = ("PYTHON", "VIRTUAL_ENV", "HYPERLOCK_", "FLWR_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def free_port(host: str) -> int:
    """A port of this address at which nobody listens yet."""
    with _listening(host, 0) as listener:
        return int(listener.getsockname()[1])


def _check_port(host: str, port: int) -> None:
    _listening(host, port).close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise HyperLockError(
            f"nothing can listen at {host}:{port}: {error.strerror}\n"
            "  try: another port, or end what uses it (ss -ltnp shows it)"
        ) from None
    return listener


def _end_all(home: Path, patience: float) -> None:
    """What a SuperLink started is in sessions of its own, and looks after it every 0.2 s: it is
    given so many seconds to end, and then killed."""
    deadline = time.monotonic() + patience
    while left := _processes_of(home):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def _processes_of(home: Path) -> dict[int, bytes]:
    """Those with this FLWR_HOME, and their commands; only Linux tells."""
    mark = f"FLWR_HOME={home}".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            # One that has ended and waits for its parent has no command any more.
            if command and mark in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = command
        except OSError:
            pass  # another user's, or gone
    found.pop(os.getpid(), None)
    return found


def _json(text: str) -> dict[str, Any]:
    """The JSON object that a command printed, perhaps after lines for people."""
    start = text.find("{")
    try:
        told = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _end(text: str) -> str:
    return " ".join(text.split())[-400:]
