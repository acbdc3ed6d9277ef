"""What a party is sent before it is in a run: by the server, by another party, by anybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.experiment import simulation
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import Accept, Invite
from hyperlock.parties.session import Session
from hyperlock.runtime.invited import InvitedRuntime
from hyperlock.settings.parse import parse
from hyperlock.sites import coordinator
from hyperlock.sites.folder import Folder
from hyperlock.sites.party import NotHere, Party
from tests.sites.project import Pipe, Project
from tests.sites.test_sites import DATA


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, compose: Callable) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    config = parse(compose(*DATA))
    dataset = simulation.load_dataset(config)
    made.give(dataset, simulation.build_split(config, dataset))
    return made


class Sent:
    """An invitation as a server sends it, and forms of it that it must not have."""

    def __init__(self, project: Project, compose: Callable) -> None:
        server = project.folders["server"]
        config = parse(
            compose(*DATA, "runtime=flower", f"runtime.folder={server.path}",
                    "runtime.weight_unit=100")
        )  # fmt: skip
        dataset = simulation.load_dataset(config)
        network = simulation.build_network(config, simulation.samples(dataset))
        scheme = simulation.build_scheme(config, network.sizes)
        self.pipe = Pipe({})
        parties = coordinator.assemble(
            config, simulation.samples(dataset), scheme, network,
            folder=coordinator.own_folder(config),
            pipe=lambda *_: self.pipe, run="run", monitor=Monitor(),
        )  # fmt: skip
        assert isinstance(parties.runtime, InvitedRuntime)
        self.runtime = parties.runtime
        self.good = parties.runtime._invite
        self.session: Session = parties.server._session
        self.message = Invite.decode(
            self.good, self.session.identity, max_parts=2, max_part_bytes=2**20
        )

    def by(self, identity: Identity, **changes: object) -> bytes:
        """Changed, and signed by this party as if it were the server."""
        message = replace(self.message, payload=tuple(map(bytes, self.message.parts)))
        changed = replace(message, **changes)  # type: ignore[arg-type]
        return changed.encode(replace(identity, run=changed.run, name=changed.sender))

    def with_offer(self, change: Callable[[list], object]) -> bytes:
        """With another offer, signed by the server."""
        offer, weights = map(bytes, self.message.parts)
        changed = change(msgpack.unpackb(offer))
        return self.by(self.session.identity, payload=(msgpack.packb(changed), weights))


@pytest.fixture(scope="module")
def invited(project: Project, compose: Callable) -> Sent:
    return Sent(project, compose)


@pytest.fixture(scope="module")
def party(project: Project) -> Party:
    return Party(project.folders["hospital-a"])


def other(project: Project, name: str) -> Identity:
    return project.folders[name].signer().join("run")


def test_a_good_one_is_accepted_again_and_again(invited: Sent, project: Project) -> None:
    for name in ("hospital-b", "keyholder", "witness"):
        fresh = Party(project.folders[name])
        answers = [fresh.handle(invited.good) for _ in range(2)]
        assert answers[0] == answers[1]
        message = invited.session.hear(Accept, answers[0])
        message.expect(sender=name)
        assert [bytes(part) for part in message.parts] == [invited.message.digest, bytes(8)]


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda s, p: s.by(other(p, "hospital-b")), "signature is not that of 'server'"),
        (
            lambda s, p: s.by(other(p, "hospital-b"), sender="hospital-b"),
            "a invite message from 'hospital-b' instead of 'server'",
        ),
        (lambda s, p: s.by(s.session.identity, run="../../elsewhere"), "is no run's id"),
        (lambda s, p: s.by(s.session.identity, run=""), "is no run's id"),
        (lambda s, p: s.by(s.session.identity, terms=bytes(32)), "terms 0000"),
        (lambda s, p: s.by(s.session.identity, fingerprint="other"), "fingerprint 'other'"),
        (lambda s, p: s.by(s.session.identity, payload=()), "without an offer and weights"),
        (
            lambda s, p: s.by(s.session.identity, payload=(bytes(s.message.parts[0]), b"1234")),
            "weights of another size",
        ),
        (
            lambda s, p: s.by(
                s.session.identity,
                payload=(bytes(s.message.parts[0]), bytes(len(s.message.parts[1]))),
            ),
            "other initial weights",
        ),
        (lambda s, p: s.good[:-1], "not a message|altered|were due|in no such run"),
        (lambda s, p: s.good[:50] + b"x" + s.good[51:], "altered on the way"),
        (lambda s, p: s.with_offer(lambda offer: [*offer[:2], [[9, 9], "float32", 10], *offer[3:]]),
         "9.*and the site's are"),
        (lambda s, p: s.with_offer(lambda offer: [*offer[:2], [[8, 8], "float32", 3], *offer[3:]]),
         "the run has 3 classes"),
        (lambda s, p: s.with_offer(lambda offer: [*offer[:3], [64, 586], *offer[4:]]),
         "larger tensors|other tensors"),
        (lambda s, p: s.with_offer(lambda offer: [*offer[:4], 50.0, *offer[5:]]), "terms"),
    ],
)  # fmt: skip
def test_what_is_no_good_invitation_is_refused(
    invited: Sent, project: Project, party: Party, alter: Callable, reason: str
) -> None:
    with pytest.raises(HyperLockError, match=reason):
        party.handle(alter(invited, project))
    assert party._joined is None or party._joined.run == "run"
    assert not (project.path / "elsewhere").exists()
    assert party.handle(invited.good)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_altered_anywhere_it_is_refused(invited: Sent, party: Party, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(invited.good) - 1))
    flipped = bytearray(invited.good)
    flipped[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(HyperLockError):
        party.handle(bytes(flipped))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
), where=st.integers(0, 6))  # fmt: skip
def test_any_part_of_an_offer_may_be_anything(
    invited: Sent, party: Party, change: object, where: int
) -> None:
    """Signed by the server, which may lie: refused, or the very same run."""

    def altered(offer: list) -> list:
        return [*offer[:where], change, *offer[where + 1 :]]

    try:
        party.handle(invited.with_offer(altered))
    except HyperLockError:
        return
    assert party._joined is not None


def test_before_it_is_in_a_run_nothing_else_is_answered(invited: Sent, project: Project) -> None:
    fresh = Party(project.folders["hospital-c"])
    release = invited.session.write(Accept, (bytes(32), bytes(8)))
    for data in (release, b"", b"garbage"):
        with pytest.raises(HyperLockError):
            fresh.handle(data)
    with pytest.raises(NotHere):
        fresh.handle(release)


def test_an_answer_of_another_party_or_offer_is_no_accept(invited: Sent, project: Project) -> None:
    """A party that answers in another's name, or agrees to something else, is not in the run."""
    party = Party(project.folders["hospital-b"])
    good = party.handle(invited.good)
    session = party._joined.session  # type: ignore[union-attr]
    for name, answer in (
        ("hospital-c", good),
        ("hospital-b", session.write(Accept, (bytes(32), bytes(8)))),
        ("hospital-b", session.write(Accept, ())),
        ("hospital-b", good[:-1]),
    ):
        with pytest.raises(MessageRefused):
            invited.runtime._accepted(name, answer)
    invited.runtime._accepted("hospital-b", good)


def test_a_site_without_its_samples_does_not_start(project: Project, tmp_path: Path) -> None:
    folder = Folder(project.folders["hospital-a"].path)
    file = folder.path / "site.yaml"
    before = file.read_text()
    data = folder.path / "data.npz"
    content = data.read_bytes()
    try:
        for arrays, reason in (
            ({"x": np.zeros((3, 8, 8), np.float32), "y": np.zeros(3, np.int64)}, "3 samples, and"),
            ({"x": np.zeros((70, 8, 8), np.float32)}, "the file has x"),
            (
                {"x": np.full((70, 8, 8), np.nan, np.float32), "y": np.zeros(70, np.int64)},
                "NaN or Inf",
            ),
        ):
            np.savez(data, **arrays)
            with pytest.raises(HyperLockError, match=reason):
                Party(folder)
        data.unlink()
        with pytest.raises(HyperLockError, match="there is no such file"):
            Party(folder)
    finally:
        data.write_bytes(content)
        file.write_text(before)
