"""Kits, public files, folders and a site's own file: what is wrong with one is one message, and
never anything else."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperlock.errors import HyperLockError
from hyperlock.sites import kit as kits
from hyperlock.sites import meeting, site
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import SITE, Kit, PublicFile
from tests.sites.project import Project
from tests.sites.refused import refusal

FEW = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    if path:
        yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with something else in one place."""
    new = copy.deepcopy(content)
    inner = new
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return new


# --- kits


def test_a_kit_is_read_as_it_was_written(project: Project) -> None:
    again = Kit.read(project.kit_file)
    assert again == project.kit and again.fingerprint == project.kit.fingerprint
    assert again.sites == ["hospital-a", "hospital-b", "hospital-c"]
    assert re.fullmatch(r"\d{5}( \d{5}){11}", again.fingerprint)


@FEW
@given(data=st.data(), value=VALUES)
def test_whatever_is_changed_in_a_kit_is_refused_or_shows_in_its_fingerprint(
    project: Project, tmp_path: Path, data: st.DataObject, value: Any
) -> None:
    content = json.loads(project.kit_file.read_text())
    place = data.draw(st.sampled_from(list(places(content))))
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(changed(content, place, value)))
    try:
        found = Kit.read(file)
    except HyperLockError:
        return
    assert found == project.kit or found.fingerprint != project.kit.fingerprint


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("project",), "another"),
        (("superlink",), "127.0.0.1:9093"),
        (("ca",), "another CA"),
        (("parties", 0, "name"), "hospital-z"),
        (("parties", 0, "signing"), "00" * 32),
        (("parties", 0, "box"), "09" + "00" * 31),
        (("parties", 0, "samples"), [64, 129]),
    ],
)
def test_the_fingerprint_is_of_all_of_it(
    project: Project, tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(changed(json.loads(project.kit.write()), place, value)))
    assert Kit.read(file).fingerprint != project.kit.fingerprint


@pytest.mark.parametrize("read", [Kit.read, PublicFile.read])
@FEW
@given(data=st.binary(max_size=80) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused(tmp_path: Path, read: Callable[[Path], Any], data: bytes) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(data)
    assert str(file) in refusal(lambda: read(file))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", "[" * 100_000, '{"hyperlock": 2}', '{"hyperlock": true}',
        '{"hyperlock": ' + "9" * 5000 + "}", '{"hyperlock": NaN}', '{"hyperlock": 2, "parties": 5}',
        '{"hyperlock": 2, "parties": [1]}', '{"hyperlock": 2, "parties": "abc"}',
        '{"hyperlock": 2, "parties": [], "project": 1, "superlink": [], "ca": {}}',
        '{"hyperlock": 2, "parties": [], "project": "\\ud800", "superlink": "", "ca": ""}',
    ],
)  # fmt: skip
def test_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kit.json"
    file.write_text(text)
    assert len(refusal(lambda: Kit.read(file))) < 500
    assert len(refusal(lambda: PublicFile.read(file))) < 500


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(lambda: Kit.read(tmp_path / "none"))
    assert "not a file" in refusal(lambda: Kit.read(tmp_path))
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    assert "not a file" in refusal(lambda: Kit.read(tmp_path / "pipe"))
    with open(tmp_path / "large", "wb") as file:
        file.truncate(kits.MOST_BYTES + 1)
    assert "not a file" in refusal(lambda: Kit.read(tmp_path / "large"))


def test_another_version_is_named(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(json.loads(project.kit.write()) | {"hyperlock": 3}))
    said = refusal(lambda: Kit.read(file))
    assert said.endswith("reads 2\n  try: the same version of HyperLock at all parties")


def test_kits_from_before_sites_had_keys_for_boxes_are_made_anew(
    project: Project, tmp_path: Path
) -> None:
    content = json.loads(project.kit.write()) | {"hyperlock": 1}
    for party in content["parties"]:
        del party["box"]
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(content))
    said = refusal(lambda: Kit.read(file))
    assert "of version 1, and this HyperLock reads 2" in said
    assert "`init` anew at every party, and a new kit" in said


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("project",), "", "is no name of a project"),
        (("project",), "a\x1b[2J", "is no name of a project"),
        (("project",), "p" * 81, "is no name of a project"),
        (("superlink",), "fl.example.org", "not a host and a port"),
        (("superlink",), "fl.example.org:70000", "not a host and a port"),
        (("superlink",), "::1:9092", "not a host and a port"),
        (("superlink",), "--database:9092 ", "not a host and a port"),
        (("superlink",), "host:\u0669", "not a host and a port"),
        (("ca",), "\u00e9", "certificate is none"),
        (("parties", 0, "name"), "Hospital A", "is no name of a site"),
        (("parties", 0, "name"), "../x", "is no name of a site"),
        (("parties", 0, "name"), "keyholder", "is no name of a site"),
        (("parties", 0, "role"), "king", "role 'king' is none of"),
        (("parties", 0, "role"), "witness", "the witness is named 'hospital-a'"),
        (("parties", 0, "signing"), "00", "is none"),
        (("parties", 0, "node"), "", "is none"),
        (("parties", 0, "node"), "ssh-rsa AAAA", "is none"),
        (("parties", 0, "node"), "ecdsa-sha2-nistp256 AAAA", "is none"),
        (("parties", 0, "box"), "", "is none"),
        (("parties", 0, "box"), "00" * 32, "is none"),  # of small order: all agree on zeros
        (("parties", 3, "box"), "09" + "00" * 31, "is none"),  # a key holder has none
        (("parties", 0, "samples"), [0, 0], "which cannot be"),
        (("parties", 0, "samples"), [True, True], "not a party's public file"),
        (("parties", 0, "samples"), [128, 64], "which cannot be"),
        (("parties", 0, "samples"), [1], "not a party's public file"),
        (("parties", 0), 5, "not a party's public file"),
    ],
)
def test_each_field_of_a_kit_is_held_to_what_it_can_be(
    project: Project, tmp_path: Path, place: tuple[Any, ...], value: Any, said: str
) -> None:
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(changed(json.loads(project.kit.write()), place, value)))
    assert said in refusal(lambda: Kit.read(file))


def test_a_key_with_a_comment_does_not_pass_for_another(project: Project, tmp_path: Path) -> None:
    content = json.loads(project.kit.write())
    content["parties"][1]["node"] = content["parties"][0]["node"] + " other"
    file = tmp_path / "kit.json"
    file.write_text(json.dumps(content))
    assert "is none" in refusal(lambda: Kit.read(file))


# --- a project's parties


def test_a_name_or_a_key_occurs_once(project: Project) -> None:
    files = list(project.kit.parties.values())

    def make(*more: PublicFile) -> Callable[[], Kit]:
        return lambda: kits.make("p", "127.0.0.1:1", "", [*files, *more])

    again = project.folders["hospital-a"].public
    assert "two parties are named 'hospital-a'\n  try: each public file once" in refusal(
        make(again)
    )
    copied = replace(again, name="hospital-d")
    assert "the same signing key: a folder was copied\n  try: " in refusal(make(copied))


@pytest.mark.parametrize("role", ["server", "keyholder"])
def test_a_role_that_is_missing_is_named(project: Project, role: str) -> None:
    files = [party for name, party in project.kit.parties.items() if name != role]
    assert f"no {role} among the parties" in refusal(
        lambda: kits.make("p", "127.0.0.1:1", "", files)
    )


def test_one_site_is_no_project(project: Project) -> None:
    files = [party for name, party in project.kit.parties.items() if name not in project.sites[1:]]
    assert "at least two sites" in refusal(lambda: kits.make("p", "127.0.0.1:1", "", files))


# --- public files


@FEW
@given(data=st.data(), value=VALUES)
def test_an_altered_public_file_is_refused(
    project: Project, tmp_path: Path, data: st.DataObject, value: Any
) -> None:
    content = json.loads((project.folders["hospital-a"].path / "public.json").read_text())
    place = data.draw(st.sampled_from(list(places(content))))
    new = changed(content, place, value)
    file = tmp_path / "public.json"
    file.write_text(json.dumps(new))
    with contextlib.suppress(HyperLockError):
        assert PublicFile.read(file) == project.folders["hospital-a"].public and new == content


def test_what_was_altered_says_so(project: Project, tmp_path: Path) -> None:
    content = json.loads((project.folders["hospital-a"].path / "public.json").read_text())
    file = tmp_path / "public.json"
    file.write_text(json.dumps(content | {"samples": [1024, 2048]}))
    assert "altered on the way\n  try: have it sent again" in refusal(lambda: PublicFile.read(file))


# --- folders


def test_keys_are_their_owners_alone_and_a_folder_is_a_partys_own(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "a", SITE, "a", 100)
    for name in ("signing.key", "node.key", "box.key", "public.json", "site.yaml"):
        assert (folder.path / name).stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert "a party lives there already" in refusal(lambda: Folder.make(folder.path, SITE, "a", 1))
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letter").touch()
    assert "something else in it" in refusal(lambda: Folder.make(tmp_path / "home", SITE, "a", 1))
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755


def test_a_name_that_cannot_be_leaves_nothing_behind(tmp_path: Path) -> None:
    for name, samples in (("A b", 1), ("", 1), ("server", 1), ("a", 2**40), ("a", 0)):
        refusal(lambda name=name, samples=samples: Folder.make(tmp_path / "a", SITE, name, samples))
    assert not (tmp_path / "a").exists()


def test_a_kit_of_another_project_is_refused(project: Project, tmp_path: Path) -> None:
    stranger = Folder.make(tmp_path / "stranger", SITE, "hospital-a", 100)
    said = refusal(lambda: stranger.join(project.kit_file))
    assert "project 'project' does not have 'hospital-a' with this party's keys" in said
    assert "in no project yet\n  try: " in refusal(lambda: stranger.kit)
    (stranger.path / "kit.json").write_text(project.kit.write())  # put there by hand
    assert "with this party's keys" in refusal(lambda: stranger.kit)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "the party's key is not there\n  try: "),
        (lambda path: path.chmod(0o640), "others can read it (mode 0640)\n  try: chmod 600"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "what is in it is no key\n  try: "),
        (lambda path: path.write_text("00" * 31), "what is in it is no key\n  try: "),
        (lambda path: path.write_text("00" * 32), "not the key that public.json names\n  try: "),
        (lambda path: path.unlink() or path.mkdir(mode=0o700), "cannot be read"),
    ],
    ids=["missing", "readable", "bytes", "short", "another's", "a folder"],
)
def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    folder = Project(tmp_path / "p").folders["hospital-a"]
    spoil(folder.path / "signing.key")
    assert said in refusal(folder.signer)


def test_a_key_for_boxes_is_the_one_that_the_folder_hands_over(tmp_path: Path) -> None:
    folder = Project(tmp_path / "p").folders["hospital-a"]
    assert folder.box_key().public_key().public_bytes_raw() == folder.kit.boxes["hospital-a"]
    (folder.path / "box.key").write_text("01" * 32)
    assert "box.key: not the key that public.json names\n  try: " in refusal(folder.box_key)
    assert not (tmp_path / "p" / "keyholder" / "box.key").exists()


def test_what_was_approved_is_a_fingerprint_of_a_sites(project: Project, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "a", SITE, "a", 100)
    folder.approve("0123456789abcdef")
    assert folder.approved == ["0123456789abcdef"]
    for text in ("", "0123456789ABCDEF", "all", "../../x"):
        assert "is no fingerprint of an offer\n  try: " in refusal(
            lambda text=text: folder.approve(text)
        )
    assert "a witness has no limits" in refusal(
        lambda: project.folders["witness"].approve("0123456789abcdef")
    )
    for text in ("5", "{", "[" * 100_000):
        (folder.path / "approved.json").write_text(text)
        assert "approved.json: cannot be read" in refusal(lambda: folder.approved)


def test_a_party_is_one_process(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "a", SITE, "a", 100)
    with folder.held():
        said = refusal(lambda: folder.held().__enter__())
        assert "another process is this party already\n  try: " in said
    with folder.held():
        pass


# --- provision


@pytest.fixture
def files(project: Project) -> list[Path]:
    return [one.path / "public.json" for name, one in project.folders.items() if name != "server"]


def test_each_kit_has_an_authority_of_its_own(tmp_path: Path, files: list[Path]) -> None:
    server = Folder.make(tmp_path / "server", "server", "", 0)
    first = meeting.provision(server, "p", "fl.example.org:9092", files)
    again = meeting.provision(server, "p", "fl.example.org:9092", files)
    assert first.ca != again.ca and first.fingerprint != again.fingerprint
    assert (server.path / "tls" / "ca.crt").read_text() == again.ca
    assert Kit.read(server.path / "to-hand-over.json") == again == Folder(server.path).kit
    assert "PRIVATE" not in again.write()
    for name in ("ca.key", "server.key"):
        assert (server.path / "tls" / name).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_provisioned_changes_nothing(tmp_path: Path, files: list[Path]) -> None:
    server = Folder.make(tmp_path / "server", "server", "", 0)
    kit = meeting.provision(server, "p", "[::1]:9092", files)
    for given_files in ([*files, files[0]], files[:1], [tmp_path / "none"]):
        refusal(lambda wrong=given_files: meeting.provision(server, "p", "[::1]:9092", wrong))
    refusal(lambda: meeting.provision(server, "p", "nowhere", files))
    assert Folder(server.path).kit == kit
    assert (server.path / "tls" / "ca.crt").read_text() == kit.ca


class Registry:
    """A SuperLink's, without one."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.nodes = nodes

    def registered(self) -> dict[str, str]:
        return dict(self.nodes)

    def unregister(self, name: str) -> None:
        del self.nodes[name]

    def register(self, name: str, public_key: Path) -> None:
        key = public_key.read_text().split()[1]
        assert (self.nodes.get(name, key) == key and self.nodes.get(name)) or (
            key not in self.nodes.values()
        )
        self.nodes[name] = key


def test_the_superlink_admits_the_nodes_of_the_kit_and_no_others(
    project: Project, tmp_path: Path
) -> None:
    """Who was removed is shut out, and so is an old key of somebody who has a new one; also if two
    parties have changed their places."""
    keys = {name: one.node.split()[1] for name, one in project.kit.parties.items() if one.node}
    swapped = {"hospital-a": keys["hospital-b"], "hospital-b": keys["hospital-a"]}
    registry: Any = Registry({**keys, **swapped, "hospital-c": "old", "hospital-z": "removed"})
    meeting._register(registry, project.kit, tmp_path)
    assert registry.nodes == keys


# --- a site's own file


PATH = "dataset: {path: /data/mine.npz}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "dataset.path: has no value yet"),
        ("limits: {}", "dataset.path: has no value yet"),
        ("5", "not YAML"),
        ("[]", "no settings in it"),
        ("a: [", "not YAML"),
        ("\0", "not YAML"),
        ("a: &a [*a]", "not YAML"),
        ("!!python/object/apply:os.system [echo]", "not YAML"),
        ("dataset: /data/mine.npz", "is not a subclass of SiteData"),
        ("dataset: {path: mine.npz}", "dataset.path=mine.npz is not absolute\n  try: "),
        ("dataset: {path: '${oc.env:NOT_THERE}'}", "dataset.path: "),
        (PATH + "dataset: {path: /x}", "not YAML"),
        (PATH + "limit: {}", "Key 'limit' not in 'SiteFile'"),
        (PATH + "limits: {round: 3}", "limits.round: "),
        (PATH + "limits: {rounds: many}", "limits.rounds: "),
        (PATH + "limits: {rounds: 1.5}", "limits.rounds: "),
        (PATH + "limits: {rounds: 0}", "limits.rounds=0 is below 1"),
        (PATH + "limits: {min_clients: 1}", "limits.min_clients=1 is below 2"),
        (PATH + "limits: {colluders: -1}", "limits.colluders=-1 is below 0"),
        (PATH + "limits: {trust: blind}", "limits.trust=blind\n  allowed: malicious"),
        (PATH + "limits: {models: mlp}", "limits.models: "),
        (PATH + "limits: {models: [mpl]}", "limits.models has 'mpl', which nothing is called"),
        (PATH + "limits: {models: null}", "limits.models"),
        (PATH + "limits: {encryption: [bfv, aes]}", "limits.encryption has 'aes'"),
        (PATH + "limits: {keys: [server]}", "limits.keys has 'server'"),
        (PATH + "limits: {until: tomorrow}", "limits.until=tomorrow is no date\n  allowed: "),
        (PATH + "limits: null", "limits"),
        (PATH + "functions: [net]", "functions has 'net', which is no function's name\n  try: "),
        (PATH + "functions: [{a: 1}]", "which is no function's name"),
        (PATH + "functions: my.net", "functions: "),
    ],
)
def test_a_sites_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    found = refusal(lambda: site.read(file))
    assert found.startswith(f"{file}: ") and said in found and len(found) < 600


def test_a_sites_file_that_is_no_text(tmp_path: Path) -> None:
    assert "there is no such file\n  try: " in refusal(lambda: site.read(tmp_path / "none"))
    assert "cannot be read" in refusal(lambda: site.read(tmp_path))
    (tmp_path / "site.yaml").write_bytes(b"\xff\xfe\x00")
    assert "no text in UTF-8" in refusal(lambda: site.read(tmp_path / "site.yaml"))


def test_the_guide_has_the_file_that_init_writes(tmp_path: Path) -> None:
    """But for the path and the last day."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text()
    file = tmp_path / "site.yaml"
    file.write_text(guide.split("```yaml\n")[1].split("```")[0])
    shown = site.read(file)
    made = Folder.make(tmp_path / "a", SITE, "a", 100).path / "site.yaml"
    written = made.read_text().replace("???", "/var/lib/hyperlock/mine.npz")
    made.write_text(written.replace("until: null", "until: 2027-06-30"))
    assert site.read(made) == shown
