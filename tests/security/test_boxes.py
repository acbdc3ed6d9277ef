"""Who carries the sealed boxes with a run's key (keys=clients across sites) can neither open one
nor have a site take another key than the first site's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import MessageRefused
from hyperlock.parties.box import About, seal, unseal
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import key_id_of
from hyperlock.runtime import Reply
from hyperlock.sites.party import Party
from hyperlock.sites.shared import KEY
from tests.security.forge import opened, parts_of, resealed, with_parts
from tests.sites.project import Pipe, Project
from tests.sites.sharing import sharing_project, sharing_runs

VICTIM = "hospital-b"
FIRST = "hospital-a"
ABOUT = About("run", FIRST, VICTIM, bytes(32), "key")


@dataclass
class Recorder(Pipe):
    """Keeps the last bytes that were sent, by party and kind."""

    sent: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        for party, data in requests.items():
            self.sent[party, str(opened(data)[1]["kind"])] = data
        return super().exchange(requests)


@dataclass
class Carried:
    """What the coordinator has carried in two runs, of which the sites are asked once more.

    Attributes:
        project: the parties' folders.
        runs: messages of each run.
    """

    project: Project
    runs: list[dict[tuple[str, str], bytes]]

    def box(self, run: int = 1, party: str = VICTIM) -> bytes:
        return self.runs[run][party, "box"]

    def voice(self, party: str) -> Identity:
        """As which whoever has this party's signing key can sign in the second run."""
        run = str(opened(self.box())[1]["run"])
        return self.project.folders[party].signer().join(run)

    @property
    def kept(self) -> Path:
        """Where the victim keeps the key of the second run, once it has it."""
        return self.project.folders[VICTIM].run(self.voice(FIRST).run) / KEY

    def victim(self) -> Party:
        """Restarted, and in the second run."""
        party = Party(self.project.folders[VICTIM])
        party.handle(self.runs[1][VICTIM, "invite"])
        assert not self.kept.exists()
        return party

    def offered(self, box: bytes) -> str:
        """Why the victim refuses it; "" if it takes the key."""
        try:
            self.victim().handle(box)
        except MessageRefused as error:
            assert not self.kept.exists()
            return str(error)
        self.kept.unlink()
        return ""


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, compose: Callable) -> Carried:
    project = sharing_project(tmp_path_factory.mktemp("boxes") / "project", compose)
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        across = sharing_runs(project, compose, patch)
        for _ in range(2):
            pipe = Recorder(project.parties())
            across(pipe, "federation.rounds=1")
            runs.append(pipe.sent)
    return Carried(project, runs)


def test_the_first_sites_box_opens(carried: Carried) -> None:
    """The control of all that follows."""
    assert carried.offered(carried.box()) == ""
    # Signed anew by the first site itself, as the forgeries below are by others.
    assert carried.offered(resealed(carried.box(), carried.voice(FIRST))) == ""


def test_an_altered_box_is_refused(carried: Carried) -> None:
    party = carried.victim()
    box = carried.box()
    for at in range(0, len(box), len(box) // 40):
        altered = bytearray(box)
        altered[at] ^= 1
        with pytest.raises(MessageRefused):
            party.handle(bytes(altered))
    assert not carried.kept.exists()
    party.handle(box)
    carried.kept.unlink()


@pytest.mark.parametrize("part", [0, 1, 2], ids=["public", "ephemeral", "sealed"])
def test_a_box_does_not_open_even_if_the_first_sites_signature_were_on_it(
    carried: Carried, part: int
) -> None:
    """Altered, and signed anew: what it is bound to does not fit any more."""
    parts = parts_of(carried.box())
    altered = bytearray(parts[part])
    altered[len(altered) // 2] ^= 1
    parts[part] = bytes(altered)
    changes = {"key_id": key_id_of(parts[0])}
    forged = with_parts(carried.box(), carried.voice(FIRST), *parts, **changes)
    assert "does not open for hospital-b" in carried.offered(forged)


def test_anothers_box_is_refused(carried: Carried) -> None:
    swapped = carried.box(party="hospital-c")
    assert "does not open for hospital-b" in carried.offered(swapped)


def test_a_box_of_another_run_is_refused(carried: Carried) -> None:
    old = carried.box(run=0)
    assert "takes part in no such run" in carried.offered(old)
    run = carried.voice(FIRST).run
    # Not even if it were signed for this one.
    assert "does not open" in carried.offered(resealed(old, carried.voice(FIRST), run=run))


def own_making(carried: Carried, maker: str, sender: str) -> bytes:
    """A key that somebody made, sealed for the victim by its public key, which is in the kit."""
    joined: Any = carried.victim()._joined
    pair: KeyPair = joined.session.scheme.generate_keys()
    voice = carried.voice(maker)
    about = About(voice.run, sender, VICTIM, joined.offer, key_id_of(pair.public))
    sealed = seal(pair.secret, carried.project.kit.boxes[VICTIM], about)
    changes = {"key_id": about.key_id, "sender": sender}
    return with_parts(carried.box(), voice, pair.public, *sealed, **changes)


def test_a_key_of_somebodys_own_making_is_refused(carried: Carried) -> None:
    """The coordinator's, under its own name and under the first site's; another site's."""
    assert "a key from 'server', and hospital-a makes it" in carried.offered(
        own_making(carried, "server", "server")
    )
    assert "signature is not that of 'hospital-a'" in carried.offered(
        own_making(carried, "server", FIRST)
    )
    assert "a key from 'hospital-c', and hospital-a makes it" in carried.offered(
        own_making(carried, "hospital-c", "hospital-c")
    )
    # The very same by the first site is a key like any other.
    assert carried.offered(own_making(carried, FIRST, FIRST)) == ""


def test_a_second_key_is_refused_by_who_has_one(carried: Carried) -> None:
    another = own_making(carried, FIRST, FIRST)
    party = carried.victim()
    party.handle(carried.box())
    assert party.handle(carried.box()) == b""
    with pytest.raises(MessageRefused, match="another key than the one that hospital-b has"):
        party.handle(another)
    carried.kept.unlink()


def test_halves_that_do_not_belong_together_are_refused(carried: Carried) -> None:
    """Else the site would encrypt under a key of which it has the other half of another."""
    joined: Any = carried.victim()._joined
    scheme = joined.session.scheme
    public = scheme.generate_keys().public
    about = About(carried.voice(FIRST).run, FIRST, VICTIM, joined.offer, key_id_of(public))
    for secret in (scheme.generate_keys().secret, b"no key"):
        sealed = seal(secret, carried.project.kit.boxes[VICTIM], about)
        changes = {"key_id": about.key_id}
        forged = with_parts(carried.box(), carried.voice(FIRST), public, *sealed, **changes)
        assert carried.offered(forged)


def test_no_other_site_makes_a_key(carried: Carried) -> None:
    with pytest.raises(MessageRefused, match="hospital-b makes no key: hospital-a does"):
        carried.victim().handle(carried.runs[1][FIRST, "share"])


def test_the_key_holder_of_the_kit_has_no_part_in_it(carried: Carried) -> None:
    party = Party(carried.project.folders["keyholder"])
    with pytest.raises(MessageRefused, match="there is no key holder"):
        party.handle(carried.runs[1][VICTIM, "invite"])


# The box by itself.


def test_a_box_opens_for_its_reader_and_for_nothing_else() -> None:
    reader = X25519PrivateKey.generate()
    ephemeral, sealed = seal(b"secret", reader.public_key().public_bytes_raw(), ABOUT)
    assert unseal(ephemeral, sealed, reader, ABOUT) == b"secret"
    others: dict[str, Any] = {
        "run": "other", "sender": "c", "recipient": "c", "offer": bytes(31) + b"1", "key_id": "k",
    }  # fmt: skip
    for name, value in others.items():
        with pytest.raises(MessageRefused, match="does not open"):
            unseal(ephemeral, sealed, reader, replace(ABOUT, **{name: value}))
    with pytest.raises(MessageRefused, match="does not open"):
        unseal(ephemeral, sealed, X25519PrivateKey.generate(), ABOUT)
    for wrong in (b"", b"short", bytes(32)):
        with pytest.raises(MessageRefused, match="is none"):
            unseal(wrong, sealed, reader, ABOUT)
        with pytest.raises(MessageRefused, match="is none"):
            seal(b"secret", wrong, ABOUT)
    for cut in (b"", sealed[:-1], sealed[:10], sealed + b"0"):
        with pytest.raises(MessageRefused, match="does not open"):
            unseal(ephemeral, cut, reader, ABOUT)


def test_no_two_boxes_are_alike() -> None:
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    boxes = [seal(bytes(64), public, ABOUT) for _ in range(3)]
    assert len({part for box in boxes for part in box}) == 6
