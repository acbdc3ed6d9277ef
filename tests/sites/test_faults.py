"""One run of five sites, from its first round to its last, through everything that can break.

Every party is a process of its own, and is killed, held up or made to fail for real. The tests go
on from one another, in order: each says which rounds may lack whom, and the last ones that the
model is what one process computes from the same attempts, bit for bit, at every party.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hyperlock.experiment import checkpoint
from hyperlock.sites.demo import stage
from hyperlock.sites.engine import find_environment
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import Kit
from hyperlock.sites.meeting import ENVIRONMENT
from hyperlock.sites.tls import make_authority, make_node_key
from tests.sites.federation import DATA, ROOT, SITES, TIMEOUT, Federation, alone, processes

pytestmark = [pytest.mark.flower, pytest.mark.timeout(400)]
log = logging.getLogger(__name__)

PARTY = Path(__file__).with_name("faulty_party.py")
LARGE = 5000  # bytes, which no answer of a site's has but an Update
COMMITTED = ("site-a", "site-b", "site-c", "site-d")


@pytest.fixture(scope="module")
def interruptible() -> Iterator[None]:
    """Ctrl-C ends what is started here, even if it does not end this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def federation(
    interruptible: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    path = tmp_path_factory.mktemp("f")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        if ENVIRONMENT not in os.environ:
            patch.setenv(ENVIRONMENT, str(ROOT / ".venv-flower"))
        find_environment(Path(os.environ[ENVIRONMENT]))
        began = time.monotonic()
        with stage(path, DATA, SITES, (PARTY,)) as made:
            log.info("the stage stands after %.0f s", time.monotonic() - began)
            federation = Federation(made, path / "run", path / "coordinator.log")
            yield federation
            process = federation.coordinator
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(30)


@contextmanager
def timed(federation: Federation, fault: str) -> Iterator[None]:
    """Log how long it took, and how many rounds and attempts were played meanwhile."""
    began = time.monotonic()
    round_before = federation.finished()
    yield
    rounds = federation.finished() - round_before
    later = {one.round: one for one in federation.releases() if one.round > round_before}
    lacking = sum(len(SITES) - len(one.names) for one in later.values())
    again = sum(one.attempt - 1 for one in later.values())
    log.info(
        "%s: %.0f s, %d rounds, %d updates missing, %d attempts more",
        fault, time.monotonic() - began, rounds, lacking, again,
    )  # fmt: skip


def test_a_late_site_takes_part(federation: Federation) -> None:
    federation.interrupt("site-e")
    with timed(federation, "late site"):
        federation.begin()
        federation.next_round(*COMMITTED, beyond=0)
        assert "site-e does not take part: its node is not online" in federation.said()
        federation.child("site-e").start()
        federation.next_round()
    assert "site-e takes part" in federation.said()


@pytest.mark.parametrize("fault", ["training", f"sending {LARGE}", f"uploading {LARGE}"])
def test_a_site_is_killed_and_returns(federation: Federation, fault: str) -> None:
    """In training; in the midst of handing its update to its node; and with its node, in the midst
    of handing it to the SuperLink."""
    if fault.startswith("uploading"):  # that is another node, from the start
        federation.interrupt("site-b")
        federation.prepare("site-b", fault)
        federation.child("site-b").start()
    before = len(federation.said())
    with timed(federation, f"site killed, {fault}"):
        federation.hurt("site-b", fault)
        federation.until_dead("site-b")
        federation.until_said("site-b", before)
        federation.child("site-b").start()
        federation.next_round()
    assert "site-b did not answer" in federation.said()[before:]
    assert "site-b takes part" in federation.said()[before:]


def test_a_slow_site_is_not_waited_for(federation: Federation) -> None:
    before = len(federation.said())
    with timed(federation, "site slower than the timeout"):
        federation.hurt("site-c", f"slow {TIMEOUT + 8}")
        federation.until_said("site-c did not answer: no answer in", before)
        federation.next_round()


def test_a_site_with_a_full_disk_is_done_without(federation: Federation) -> None:
    before = len(federation.said())
    with timed(federation, "full disk"):
        federation.hurt("site-d", "full")
        federation.until_said("site-d did not answer: No space left on device", before)
        federation.next_round()
    assert "site-d could not answer" in federation.log_of("site-d")
    assert "No space left on device" in federation.log_of("site-d")


@pytest.mark.parametrize(
    ("party", "fault", "again"),
    [
        ("witness", "adding", False),
        ("keyholder", "releasing", True),
        ("keyholder", "released", False),
    ],
)
def test_who_is_needed_is_killed_and_waited_for(
    federation: Federation, party: str, fault: str, again: bool
) -> None:
    """The witness is given all of its bundle again; what the key holder had not released is another
    attempt, and what it had is found in the ledger."""
    before = len(federation.said())
    with timed(federation, f"{party} killed, {fault}"):
        federation.hurt(party, fault)
        number = federation.finished() + 1
        federation.until_dead(party)
        federation.child(party).start()
        federation.next_round()
    [*_, last] = [one for one in federation.releases() if one.round == number]
    assert last.attempt == 1 + again
    assert f"{party} takes part" in federation.said()[before:]


@pytest.mark.parametrize("program", ["flwr-serverapp", "superlink.py", "hyperlock.sites superlink"])
def test_where_parties_meet_is_killed(federation: Federation, program: str) -> None:
    """The relay and the SuperLink are started again by who looks after them, and that one by us."""
    server = federation.stage.server.path
    before = len(federation.said())
    with timed(federation, f"{program} killed"):
        number = federation.finished() + 1
        if program.startswith("hyperlock"):
            os.kill(federation.child("superlink").pid, signal.SIGKILL)
            federation.until_dead("superlink")
            federation.child("superlink").start()
        else:
            [pid] = processes(server, program)
            os.kill(pid, signal.SIGKILL)
        federation.until_said("the relay is gone", before)
        federation.until_said("a relay is there", before)
        federation.next_round()
    assert [one.round for one in federation.played()][:number] == list(range(1, number + 1))


def wrong_ca(folder: Folder) -> None:
    """The kit of who was told another authority."""
    path = folder.path / "kit.json"
    make_authority(folder.path / "other", "other")
    ca = (folder.path / "other" / "ca.crt").read_text()
    path.write_text(replace(Kit.read(path), ca=ca).write())


def wrong_node(folder: Folder) -> None:
    """Another key of the node's than the SuperLink was told."""
    (folder.path / "other").mkdir()
    make_node_key(folder.path / "other")
    shutil.copy(folder.path / "other" / "node.key", folder.path / "node.key")


def wrong_signing(folder: Folder) -> None:
    """Another signing key than the project was told, and a folder that says it is the right one."""
    key = Ed25519PrivateKey.generate()
    path = folder.path
    public = replace(Folder(path).public, signing=key.public_key().public_bytes_raw().hex())
    kit = Kit.read(path / "kit.json")
    (path / "kit.json").write_text(
        replace(kit, parties={**kit.parties, public.name: public}).write()
    )
    (path / "public.json").write_text(public.write(key))
    (path / "signing.key").write_text(key.private_bytes_raw().hex())


def few_rounds(folder: Folder) -> None:
    """Limits that the run is outside of."""
    with open(folder.path / "site.yaml", "a") as file:
        file.write("  rounds: 2\n")


def fault(text: str) -> Callable[[Folder], None]:
    """One of `faulty_party`."""

    def happens(folder: Folder) -> None:
        (folder.path / "fault").write_text(text)

    return happens


@contextmanager
def altered(
    federation: Federation, wrongs: Sequence[tuple[str, Callable[[Folder], None]]]
) -> Iterator[None]:
    """Sites that are started again with something wrong; and right again afterwards."""
    kept = ("kit.json", "public.json", "signing.key", "node.key", "box.key", "site.yaml")
    for name, alter in wrongs:
        federation.interrupt(name)
        folder = federation.folder(name)
        for file in kept:
            shutil.copy(folder.path / file, folder.path / f"{file}.kept")
        alter(folder)
        federation.child(name).start()
    yield
    for name, _ in wrongs:
        federation.interrupt(name)
        path = federation.folder(name).path
        shutil.rmtree(path / "other", ignore_errors=True)
        for file in kept:
            (path / f"{file}.kept").replace(path / file)
        federation.child(name).start()


def approve(federation: Federation, name: str) -> None:
    """As the refusal in the site's log says."""
    [*_, fingerprint] = re.findall(r"refused offer (\w+):", federation.log_of(name))
    command = [sys.executable, "-m", "hyperlock.sites", "approve"]
    subprocess.run([*command, federation.folder(name).path, fingerprint], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "wrongs",
    [
        {
            "site-d": (wrong_ca, "is not trusted", "its node is not online"),
            "site-e": (wrong_node, "does not admit this node's key", "its node is not online"),
        },
        {
            "site-d": (wrong_signing, "", "its answer to the invitation is refused"),
            "site-e": (fault("version"), "has HyperLock", "the coordinator has HyperLock"),
        },
        {
            "site-d": (fault("terms"), "refused", "terms"),
            "site-e": (few_rounds, "99 rounds, and the site's limit is 2", "outside the limits"),
        },
    ],
    ids=["ca and node key", "signing key and version", "terms and limits"],
)
def test_who_is_not_of_the_project_does_not_take_part(
    federation: Federation,
    wrongs: dict[str, tuple[Callable[[Folder], None], str, str]],
    request: pytest.FixtureRequest,
) -> None:
    before = len(federation.said())
    with timed(federation, f"wrong {request.node.callspec.id}"):
        with altered(federation, [(name, wrong) for name, (wrong, _, _) in wrongs.items()]):
            federation.next_round("site-a", "site-b", "site-c")
            for name, (_, here, there) in wrongs.items():
                federation.until(lambda n=name, t=here: t in federation.log_of(n), here)  # type: ignore[misc]
                refusals = [line for line in federation.said()[before:].splitlines()
                            if f"{name} does not take part" in line]  # fmt: skip
                assert any(there in line for line in refusals), refusals
            if wrongs["site-e"][0] is few_rounds:  # a person there lets this one through
                approve(federation, "site-e")
                federation.next_round("site-a", "site-b", "site-c", "site-e")
        federation.next_round()


def test_a_signing_key_that_public_json_does_not_name_ends_the_site(federation: Federation) -> None:
    federation.interrupt("site-d")
    path = federation.folder("site-d").path / "signing.key"
    kept = path.read_text()
    path.write_text(Ed25519PrivateKey.generate().private_bytes_raw().hex())
    federation.child("site-d").start()
    federation.until_dead("site-d")
    assert federation.child("site-d").status() == 1
    assert "not the key that public.json names" in federation.child("site-d").last_words()
    path.write_text(kept)
    federation.child("site-d").start()
    federation.next_round()


def test_the_coordinator_is_killed_and_resumed(federation: Federation) -> None:
    with timed(federation, "coordinator killed"):
        # Between two rounds' ends, with clients at work.
        federation.hurt("site-a", "slow 2")
        assert federation.coordinator is not None
        federation.coordinator.kill()
        assert federation.ended() == -signal.SIGKILL
        number = federation.finished()
        before = len(federation.said())
        federation.resume()
        federation.until_said(f"going on after round {number}", before)
        federation.next_round()


def test_ctrl_c_at_the_coordinator_ends_it_and_a_resumed_one_ends_well(
    federation: Federation,
) -> None:
    assert federation.coordinator is not None
    with timed(federation, "Ctrl-C at the coordinator"):
        os.kill(federation.coordinator.pid, signal.SIGINT)
        assert federation.ended() == 128 + signal.SIGINT
        server = federation.stage.server.path
        federation.until(lambda: not processes(server, "flwr-serverapp"), "the relay ends")
        assert not (server / "relay.sock").exists()
    with timed(federation, "two rounds more"):
        federation.resume(f"federation.rounds={federation.finished() + 2}")
        assert federation.ended() == 0, federation.said()[-2000:]
    assert json.loads((federation.directory / "metrics.json").read_text())


def test_the_model_is_that_of_one_process_at_every_party(federation: Federation) -> None:
    played = federation.played()
    kept = checkpoint.load(federation.directory)
    assert kept.round == len(played)
    models = alone(played)
    assert kept.weights.tobytes() == models[-1].weights.tobytes()
    for name in (*SITES, "keyholder"):
        data = (federation.folder(name).run(kept.run) / "model").read_bytes()
        reached = int.from_bytes(data[:8], "little")
        # Sites are given the last model when the run ends.
        assert reached == kept.round
        assert data[8:] == models[reached].encode(), name


def test_ctrl_c_at_each_party_leaves_nothing_running(federation: Federation) -> None:
    for name in federation.stage.children:
        began = time.monotonic()
        federation.interrupt(name)
        log.info("Ctrl-C at %s: %.1f s", name, time.monotonic() - began)
    path = federation.stage.server.path.parent
    federation.until(lambda: not processes(path), "nothing runs any more", 10)
