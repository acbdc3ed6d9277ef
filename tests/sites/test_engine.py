"""Flower for real: a SuperLink with TLS and node authentication, nodes, parties, and faults.

Every process here is one of its own; what is missing is HyperLock's coordinator, for which a socket
stands in.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperlock.errors import HyperLockError
from hyperlock.runtime.relay.frames import receive_frame, send_frame
from hyperlock.sites.child import Child
from hyperlock.sites.engine import (
    RELAY,
    Environment,
    Pace,
    SuperLink,
    Tls,
    find_environment,
    flower_variables,
    node,
)
from hyperlock.sites.tls import make_authority, make_node_key, make_server

pytestmark = pytest.mark.flower

ROOT = Path(__file__).resolve().parents[2]
PACE = Pace(poll=0.2, share=0.02, most=3.0, alive=10.0)
Answer = tuple[dict[str, Any], bytes]


@pytest.fixture(scope="module")
def environment() -> Environment:
    return find_environment(Path(os.environ.get("HYPERLOCK_FLOWER_ENV", ROOT / ".venv-flower")))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder, "tests")
    make_server(folder, [])
    return Tls(folder / "ca.crt", folder / "server.crt", folder / "server.key")


class Coordinator:
    """Listens as HyperLock's does, and asks through whichever relay is connected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(60)
        self._relay: socket.socket | None = None
        self.nodes: dict[str, str] = {}
        self._number = 0

    def accept(self) -> None:
        self._relay, _ = self._listener.accept()
        self._relay.settimeout(90)
        assert self.read()[0] == {"hello": 1, "flwr": "1.42.0"}

    def read(self) -> Answer:
        """The next frame; those about nodes are kept."""
        assert self._relay is not None
        while True:
            header, body = receive_frame(self._relay)
            if "nodes" not in header:
                return header, bytes(body)
            self.nodes = header["nodes"]

    def wait_for(self, name: str, state: str) -> None:
        assert self._relay is not None
        while self.nodes.get(name) != state:
            header, _ = receive_frame(self._relay)
            self.nodes = header["nodes"]

    def send(self, party: str, body: bytes, timeout: float = 60, number: int = 0) -> int:
        assert self._relay is not None
        self._number += 1
        number = number or self._number
        send_frame(self._relay, {"id": number, "party": party, "timeout": timeout}, body)
        return number

    def say(self, header: dict[str, Any]) -> None:
        assert self._relay is not None
        send_frame(self._relay, header)

    def ask(self, party: str, body: bytes, timeout: float = 60) -> Answer:
        number = self.send(party, body, timeout)
        header, answer = self.read()
        assert header.pop("id") == number
        return header, answer

    def close(self) -> None:
        self._listener.close()
        if self._relay is not None:
            self._relay.close()


@contextmanager
def party(path: Path) -> Iterator[Child]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    script = ROOT / "tests" / "sites" / "echo_party.py"
    with Child([sys.executable, script, path], variables, path.with_name("party.log")) as child:
        until(path.exists)
        yield child
    path.unlink(missing_ok=True)


class Federation:
    """A SuperLink, a coordinator, and a site `a` with a node and a party."""

    def __init__(self, environment: Environment, tls: Tls, folder: Path) -> None:
        self.folder = folder
        self.environment = environment
        self.tls = tls
        self.link = SuperLink(environment, folder / "link", "127.0.0.1", 0, tls)
        self.coordinator = Coordinator(folder / "coordinator")
        self.node = self.make_node("a")

    def make_node(self, name: str) -> Child:
        if not (self.folder / name).exists():
            make_node_key(self.folder / name)
        return node(
            self.environment,
            self.folder / name,
            self.link.address,
            self.tls.authority,
            self.folder / name / "party",
            pace=PACE,
        )

    def start_relay(self, app: Path = RELAY) -> str:
        number = self.link.start_relay(self.coordinator.path, app=app)
        self.coordinator.accept()
        return number

    def status(self, number: str) -> str:
        return {run.number: run.status for run in self.link.relays()}[number]

    def relay_pid(self) -> int:
        [pid] = processes(self.link.home, "flwr-serverapp")
        return pid


@pytest.fixture(scope="module")
def federation(
    environment: Environment, tls: Tls, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    with ExitStack() as stack:
        made = Federation(environment, tls, tmp_path_factory.mktemp("f"))
        stack.callback(made.coordinator.close)
        stack.enter_context(made.link)
        made.link.register("a", made.folder / "a" / "node.pub")
        stack.enter_context(party(made.folder / "a" / "party"))
        stack.enter_context(made.node)
        made.start_relay()
        made.coordinator.wait_for("a", "online")
        yield made


def processes(home: Path, program: str = "") -> list[int]:
    """Those of a SuperLink, by their FLWR_HOME, and by a word of their command."""
    mark = f"FLWR_HOME={home}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "environ").read_bytes().split(b"\0")
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in told and program.encode() in words and words:
            found.append(int(path.name))
    return found


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_a_message_goes_there_and_back(federation: Federation) -> None:
    assert federation.coordinator.ask("a", b"there") == ({"ok": True}, b"ereht")
    assert federation.coordinator.ask("a", b"") == ({"ok": True}, b"")


def test_large_bodies_arrive_whole(federation: Federation) -> None:
    for size in (3_000_000, 3_000_001, 20_000_000):
        body = os.urandom(size)
        assert federation.coordinator.ask("a", body) == ({"ok": True}, body[::-1])


def test_what_a_party_refuses_is_told(federation: Federation) -> None:
    said = {"ok": False, "kind": "failed", "reason": "not today"}
    assert federation.coordinator.ask("a", b"refuse") == (said, b"")


def test_the_relay_is_killed_and_the_next_one_serves(federation: Federation) -> None:
    federation.coordinator.send("a", b"sleep 1 lost with the relay")
    time.sleep(0.5)
    os.kill(federation.relay_pid(), signal.SIGKILL)
    with pytest.raises(EOFError):
        federation.coordinator.read()
    federation.start_relay()
    assert federation.coordinator.ask("a", b"again") == ({"ok": True}, b"niaga")


def test_an_unknown_party_and_an_absent_one_are_unreachable(federation: Federation) -> None:
    began = time.monotonic()
    header, _ = federation.coordinator.ask("nobody", b"x", timeout=2)
    assert (header["kind"], header["reason"]) == ("unreachable", "its node is not online")
    assert time.monotonic() - began < 5


def test_a_cancelled_request_is_not_delivered(federation: Federation) -> None:
    coordinator = federation.coordinator
    before = int(coordinator.ask("a", b"count")[1])
    federation.node.stop()
    coordinator.wait_for("a", "offline")
    number = coordinator.send("a", b"never")
    coordinator.say({"id": number, "cancel": True})
    time.sleep(0.5)
    federation.node.start()
    coordinator.wait_for("a", "online")
    assert int(coordinator.ask("a", b"count")[1]) == before + 1


def test_a_node_that_was_stopped_comes_back_at_once(federation: Federation) -> None:
    federation.node.stop()
    assert federation.node.status() == 0
    began = time.monotonic()
    federation.node.start()
    assert federation.coordinator.ask("a", b"back") == ({"ok": True}, b"kcab")
    assert time.monotonic() - began < 10


def test_a_slow_party_catches_up(federation: Federation) -> None:
    """The first request takes longer than its timeout, and meanwhile others come and expire."""
    coordinator = federation.coordinator
    first = coordinator.send("a", b"sleep 5 x", timeout=1.5)
    header, _ = coordinator.read()
    assert (header["id"], header["kind"]) == (first, "expired")
    stale = coordinator.send("a", b"stale", timeout=1)
    header, _ = coordinator.read()
    assert (header["id"], header["kind"]) == (stale, "expired")
    began = time.monotonic()
    assert coordinator.ask("a", b"fresh", timeout=30) == ({"ok": True}, b"hserf")
    assert time.monotonic() - began < 8


def test_the_newest_of_several_requests_is_served(federation: Federation) -> None:
    coordinator = federation.coordinator
    coordinator.send("a", b"sleep 2 x")
    time.sleep(1)
    older = coordinator.send("a", b"older")
    time.sleep(0.2)
    newer = coordinator.send("a", b"newer")
    answers = {header["id"]: (header, body) for header, body in (coordinator.read() for _ in "abc")}
    assert answers[newer] == ({"id": newer, "ok": True}, b"rewen")
    assert answers[older][0]["reason"] == "superseded"


def test_a_party_that_is_away_and_returns(
    federation: Federation, environment: Environment, tls: Tls
) -> None:
    away = federation.make_node("away")
    federation.link.register("away", federation.folder / "away" / "node.pub")
    said = {"ok": False, "kind": "away", "reason": "the party's process is not running"}
    with away:
        federation.coordinator.wait_for("away", "online")
        assert federation.coordinator.ask("away", b"x") == (said, b"")
        with party(federation.folder / "away" / "party") as process:
            assert federation.coordinator.ask("away", b"here") == ({"ok": True}, b"ereh")
            federation.coordinator.send("away", b"sleep 30 x")
            time.sleep(1.5)
            process.kill()
            reason = federation.coordinator.read()[0]["reason"]
            assert reason == "the party's process ended before it answered"
        with party(federation.folder / "away" / "party"):
            assert federation.coordinator.ask("away", b"back") == ({"ok": True}, b"kcab")


def refused(federation: Federation, child: Child, *more: str) -> tuple[int | None, str]:
    """How a node that cannot join ends."""
    child._arguments += [*more, "--patience", "1"]
    with child:
        until(lambda: not child.running())
        return child.status(), child.last_words(3)


def test_an_unknown_key_is_refused(federation: Federation) -> None:
    status, said = refused(federation, federation.make_node("stranger"))
    assert status == 12
    assert "does not admit this node's key" in said
    assert "node.pub" in said


def test_another_authority_is_not_trusted(federation: Federation) -> None:
    other = federation.folder / "other"
    make_authority(other, "others")
    status, said = refused(
        federation, federation.make_node("deceived"), "--ca", str(other / "ca.crt")
    )
    assert status == 11
    assert "is not trusted: " in said


def test_a_port_without_tls_and_one_where_nothing_listens(federation: Federation) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        lost = federation.make_node("lost")
        status, said = refused(federation, lost, "--superlink", f"127.0.0.1:{port}")
    assert (status, "cannot be reached" in said) == (10, True)
    plain = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=PORT, bind='127.1')"
    code = plain.replace("PORT", str(port))
    log = federation.folder / "plain.log"
    with Child([sys.executable, "-c", code], os.environ, log):
        until(lambda: _listens(port))
        lost = federation.make_node("lost")
        status, said = refused(federation, lost, "--superlink", f"127.0.0.1:{port}")
    assert (status, "speaks no TLS" in said) == (13, True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_missing_key_is_named(federation: Federation) -> None:
    child = federation.make_node("keyless")
    (federation.folder / "keyless" / "node.key").unlink()
    status, said = refused(federation, child)
    assert status == 2
    assert "No such file" in said


def test_a_node_runs_no_shipped_code(federation: Federation) -> None:
    """An app whose ClientApp writes a file when it is loaded: nothing loads it."""
    app = federation.folder / "hostile"
    shutil.copytree(RELAY, app, ignore=shutil.ignore_patterns("__pycache__"))
    proof = federation.folder / "it-ran"
    for file in ("app.py", "letters.py", "frames.py"):
        text = (app / file).read_text()
        line = "from __future__ import annotations\n"
        write = f"import sys\nopen({str(proof)!r}, 'a').write(sys.argv[0] + chr(10))\n"
        (app / file).write_text(text.replace(line, line + write, 1))
    federation.coordinator.say({"id": 0})
    federation.start_relay(app)
    assert federation.coordinator.ask("a", b"there") == ({"ok": True}, b"ereht")
    ran = {Path(line).name for line in proof.read_text().splitlines()}
    assert ran == {"flwr-serverapp"}, "and so the test can tell"


def test_a_stock_supernode_serves_as_well(federation: Federation) -> None:
    """Where it runs as a user of its own, for it does run what is shipped."""
    make_node_key(federation.folder / "stock")
    federation.link.register("stock", federation.folder / "stock" / "node.pub")
    path = federation.folder / "stock" / "party"
    command: list[str | Path] = [federation.environment.folder / "bin" / "flower-supernode"]
    command += ["--root-certificates", federation.tls.authority]
    command += ["--superlink", federation.link.address, "--port", str(free_port())]
    command += ["--auth-supernode-private-key", federation.folder / "stock" / "node.key"]
    command += ["--node-config", f'party="{path}"']
    variables = flower_variables(federation.environment, federation.folder / "stock" / "flower")
    with party(path), Child(command, variables, path.with_name("node.log")):
        federation.coordinator.wait_for("stock", "online")
        body = os.urandom(400_000)
        assert federation.coordinator.ask("stock", body) == ({"ok": True}, body[::-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_goodbye_finishes_the_run_well(federation: Federation) -> None:
    federation.coordinator.say({"id": 0})
    number = federation.start_relay()
    assert federation.status(number) == "running"
    federation.coordinator.say({"id": 0})
    until(lambda: federation.status(number) == "finished:completed")
    number = federation.start_relay()
    federation.coordinator.wait_for("a", "online")
    federation.link.stop_relay(number)
    federation.link.stop_relay(number)
    assert federation.status(number) == "finished:stopped"
    with pytest.raises(EOFError):
        federation.coordinator.read()
    federation.start_relay()


def test_the_superlink_is_killed_and_goes_on_from_its_database(federation: Federation) -> None:
    federation.coordinator.send("a", b"sleep 1 lost")
    time.sleep(0.5)
    federation.link.kill()
    with pytest.raises(EOFError):
        federation.coordinator.read()
    with pytest.raises(HyperLockError, match=r"cannot be reached[\s\S]*try: whether it runs"):
        federation.link.relays()
    federation.link.start()
    federation.start_relay()
    assert federation.coordinator.ask("a", b"again") == ({"ok": True}, b"niaga")
    assert federation.node.running()


def test_names_and_keys_are_registered_once(federation: Federation) -> None:
    link = federation.link
    make_node_key(federation.folder / "b")
    link.register("b", federation.folder / "b" / "node.pub")
    link.register("b", federation.folder / "b" / "node.pub")
    with pytest.raises(HyperLockError, match="registered as b"):
        link.register("c", federation.folder / "b" / "node.pub")
    with pytest.raises(HyperLockError, match="registered with another key"):
        link.register("b", federation.folder / "a" / "node.pub")
    with pytest.raises(HyperLockError, match="no public key"):
        link.register("d", federation.folder / "b" / "none.pub")


def test_an_unregistered_node_is_shut_out(federation: Federation) -> None:
    with federation.make_node("leaver") as leaver:
        federation.link.register("leaver", federation.folder / "leaver" / "node.pub")
        federation.coordinator.wait_for("leaver", "online")
        federation.link.unregister("leaver")
        until(lambda: not leaver.running())
        assert leaver.status() == 12
    with pytest.raises(HyperLockError, match="no node is registered as leaver"):
        federation.link.unregister("leaver")


def test_a_port_in_use_is_named(federation: Federation, tmp_path: Path) -> None:
    port = federation.link.port
    second = SuperLink(federation.environment, tmp_path / "l", "127.0.0.1", port, federation.tls)
    with pytest.raises(HyperLockError, match=rf"127.0.0.1:{port}: Address already in use"):
        second.start()
    with pytest.raises(HyperLockError, match=r"runs on .* already"):
        SuperLink(
            federation.environment, federation.link.home, "127.0.0.1", 0, federation.tls
        ).start()


def test_control_is_for_this_machine_alone(environment: Environment) -> None:
    code = """
import asyncio, superlink
answers = []
async def app(scope, receive, send): answers.append(200)
async def send(message): answers.append(message.get("status")) if "status" in message else None
gate = superlink.OwnMachineOnly(app)
for path, client, server in CASES:
    scope = {"type": "http", "path": path, "client": client and (client, 1), "server": (server, 2)}
    asyncio.run(gate(scope, None, send))
print(answers)
"""
    cases = [
        ("/v1/fleet/pull-messages", "192.0.2.9", "192.0.2.1", 200),
        ("/v1/control/start-run", "192.0.2.9", "192.0.2.1", 403),
        ("/v1/runtime/acquire-task", "192.0.2.9", "192.0.2.1", 403),
        ("/v1/fleet/../control/start-run", "192.0.2.9", "192.0.2.1", 200),  # routed as it stands
        ("/docs", "2001:db8::9", "2001:db8::1", 403),
        ("/v1/control/start-run", "192.0.2.1", "192.0.2.1", 200),
        ("/v1/control/start-run", "127.0.0.1", "127.0.0.1", 200),
        ("/v1/control/start-run", "::1", "::1", 200),
        ("/v1/control/start-run", None, "192.0.2.1", 403),
    ]
    code = code.replace("CASES", repr([case[:3] for case in cases]))
    assert told(environment, code) == str([case[3] for case in cases])


def test_only_letters_are_opened(environment: Environment) -> None:
    code = """
import letters
from flwr.app import ConfigRecord, MetricRecord, RecordDict
letters._PART = 4
for body in (b"", b"1234", b"12345", b"123456789"):
    assert letters.opened(letters.letter(body)) == ("", "", body)
first = {"problem": "", "reason": "", "parts": 2, "body": b""}
bad = [
    {}, {"0": ConfigRecord({})}, {"0": MetricRecord({"parts": 1})}, {"0": ConfigRecord(first)},
    {"0": ConfigRecord(first), "2": ConfigRecord({"body": b""})},
    {"0": ConfigRecord(first), "1": ConfigRecord({"body": "text"})},
    {"0": ConfigRecord(first | {"parts": True})}, {"0": ConfigRecord(first | {"parts": 0})},
]
for records in bad:
    try:
        letters.opened(RecordDict(records))
    except ValueError as error:
        print(error)
"""
    assert told(environment, code).splitlines() == 8 * ["a message that is no letter of this relay"]


def told(environment: Environment, code: str) -> str:
    """What a program in Flower's environment prints, beside the relay's files."""
    done = subprocess.run(
        [environment.python, "-c", code],
        cwd=RELAY,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_outlives_a_parent_that_is_killed(
    environment: Environment, tls: Tls, tmp_path: Path
) -> None:
    code = f"""
import socket, time
from pathlib import Path
from hyperlock.sites.engine import *
tls = Tls(*map(Path, {[str(tls.authority), str(tls.certificate), str(tls.key)]!r}))
link = SuperLink(Environment(Path({str(environment.folder)!r})), Path("link"), "127.0.0.1", 0, tls)
with link:
    link.register("a", Path("site/node.pub"))
    pace = {PACE!r}
    with node(link.environment, Path("site"), link.address, tls.authority, Path("p"), pace=pace):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("coordinator")
        listener.listen()
        link.start_relay(Path("coordinator"))
        connection, _ = listener.accept()
        print("up", flush=True)
        time.sleep(300)
"""
    make_node_key(tmp_path / "site")
    homes = [tmp_path / "link", tmp_path / "site" / "flower"]
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    assert all(processes(home) for home in homes)
    assert processes(homes[0], "flwr-serverapp")
    parent.kill()
    parent.wait()
    until(lambda: not any(processes(home) for home in homes))


def test_an_environment_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HyperLockError, match=r"has no Flower; flwr 1.42.0 is needed\n  try: .*pip"):
        find_environment(tmp_path)
