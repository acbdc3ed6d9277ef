"""What people type: every mistake is one message that says what is wrong and what to do."""

from __future__ import annotations

import datetime
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperlock import process
from hyperlock.sites import __main__ as command_line
from hyperlock.sites import folder as folders
from hyperlock.sites import meeting, tls
from hyperlock.sites.engine import Environment, find_environment, make_environment
from hyperlock.sites.folder import Folder
from tests.sites.refused import refusal


@dataclass
class Typed:
    """What a command came to."""

    status: int
    said: str
    error: str


Command = Callable[..., Typed]


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m hyperlock.sites`, in this process."""
    monkeypatch.setattr(process, "end_on_signals", lambda: None)
    monkeypatch.setattr(os, "umask", lambda mode: mode)

    def run(*words: object) -> Typed:
        monkeypatch.setattr(sys, "argv", ["sites", *map(str, words)])
        status = 0
        try:
            command_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        said, error = capsys.readouterr()
        assert "Traceback" not in said + error
        assert error.count("ERROR ") == (status == 1)
        return Typed(status, said, error)

    return run


@dataclass
class Trial:
    """A project made by its commands: folders by party, and the kit."""

    path: Path
    kit: Path

    def __getitem__(self, name: str) -> Path:
        return self.path / name


@pytest.fixture
def trial(sites: Command, tmp_path: Path) -> Trial:
    for role in ("server", "keyholder", "witness"):
        assert sites("init", tmp_path / role, "--role", role).status == 0
    for name in ("a", "b"):
        assert sites("init", tmp_path / name, "--name", name, "--samples", 100).status == 0
    made = Trial(tmp_path, tmp_path / "server" / "to-hand-over.json")
    assert provision(sites, made).status == 0
    return made


OTHERS = ("keyholder", "witness", "a", "b")


def provision(
    sites: Command, trial: Trial, *more: Path, superlink: str = "127.0.0.1:9092", project: str = "p"
) -> Typed:
    files = [trial[name] / "public.json" for name in OTHERS]
    told = ("--project", project, "--superlink", superlink)
    return sites("provision", trial["server"], *told, *files, *more)


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What looks like Flower's environment; its interpreter says what a node without a SuperLink
    does."""
    path = tmp_path / "flower"
    (path / "bin").mkdir(parents=True)
    (path / "lib" / "python3.11" / "site-packages" / "flwr-1.42.0.dist-info").mkdir(parents=True)
    (path / "bin" / "flwr").touch()
    python = path / "bin" / "python"
    python.write_text(
        "#!/bin/sh\necho 'node: the SuperLink at 127.0.0.1:9 cannot be reached (refused)' >&2\n"
        "echo '  try: its address and port' >&2\nexit 10\n"
    )
    python.chmod(0o700)
    monkeypatch.setenv("HYPERLOCK_FLOWER_ENV", str(path))
    return path


def test_a_project_is_made_by_three_commands(sites: Command, trial: Trial) -> None:
    fingerprints = set()
    for name in OTHERS:
        joined = sites("join", trial[name], trial.kit)
        assert joined.status == 0 and "they meet at 127.0.0.1:9092, until 20" in joined.said
        fingerprints.add(joined.said.splitlines()[-1].strip())
    told = sites("fingerprint", trial["server"]).said.splitlines()[-1].strip()
    assert fingerprints == {told} and len(told) == 71


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["init"], "the following arguments are required: folder"),
        (["init", "x", "--role", "king"], "invalid choice: 'king'"),
        (["init", "x", "--name", "a", "--samples", "many"], "invalid int value: 'many'"),
        (["provision", "x", "--project", "p"], "--superlink, public"),
        (["join", "x"], "the following arguments are required: kit"),
        (["serve"], "the following arguments are required: folder"),
        (["serve", "x", "--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_a_command_line_that_is_wrong(sites: Command, words: list[str], said: str) -> None:
    found = sites(*words)
    assert found.status == 2 and found.error.count("error: ") == 1 and said in found.error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "a"], "a site has a name and samples\n  try: --name NAME --samples NUMBER"),
        (["--samples", "5"], "a site has a name and samples\n  try: "),
        (["--name", "a", "--samples", "-5"], "-5 samples\n  allowed: 1 to "),
        (["--name", "a", "--samples", "9" * 30], "allowed: 1 to "),
        (["--name", "A b", "--samples", "5"], "is no name of a site\n  allowed: "),
        (["--name", "server", "--samples", "5"], "is no name of a site\n  allowed: "),
        (["--role", "witness", "--name", "w"], "is named 'w'\n  allowed: witness"),
        (["--role", "witness", "--samples", "5"], "--samples of a witness\n  allowed: "),
    ],
)
def test_a_party_that_cannot_be(
    sites: Command, tmp_path: Path, words: list[str], said: str
) -> None:
    found = sites("init", tmp_path / "x", *words)
    assert found.status == 1 and said in found.error
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_none(sites: Command, trial: Trial, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    role = ("--role", "witness")
    assert "a party lives there already" in sites("init", trial["witness"], *role).error
    assert "cannot be made (File exists)" in sites("init", file, *role).error
    assert "cannot be made (Not a directory)" in sites("init", file / "x", *role).error
    for command in (["fingerprint"], ["serve"], ["superlink"]):
        found = sites(*command, tmp_path / "none")
        assert found.status == 1 and "try: " in found.error
    assert "no party lives there\n  try: " in sites("fingerprint", tmp_path / "none").error
    assert "in no project yet\n  try: " in sites("fingerprint", trial["a"]).error


def test_what_cannot_be_provisioned(sites: Command, trial: Trial, tmp_path: Path) -> None:
    for address in ("fl.example.org", "fl.example.org:0", ":9092", "a b:9092", "host:99999"):
        found = provision(sites, trial, superlink=address)
        assert "is not a host and a port\n  try: " in found.error
    found = provision(sites, trial, trial["a"] / "public.json")
    assert "two parties are named 'a'\n  try: " in found.error
    again = tmp_path / "again"
    sites("init", again, "--name", "a", "--samples", 7)
    found = provision(sites, trial, again / "public.json")
    assert "two parties are named 'a'\n  try: " in found.error
    assert "no such file" in provision(sites, trial, tmp_path / "none").error
    assert "is no name of a project" in provision(sites, trial, project="").error
    witness = sites(
        "provision", trial["witness"], "--project", "p", "--superlink", "h:1", trial.kit
    )
    assert "a witness's folder, not the server's\n  try: " in witness.error
    altered = (trial["a"] / "public.json").read_text().replace('"a"', '"c"')
    (tmp_path / "altered.json").write_text(altered)
    found = provision(sites, trial, tmp_path / "altered.json")
    assert "altered on the way\n  try: have it sent again" in found.error


def test_a_kit_that_is_not_this_partys(sites: Command, trial: Trial, tmp_path: Path) -> None:
    assert "no such file" in sites("join", trial["a"], tmp_path / "none").error
    assert "not a file of HyperLock's" in sites("join", trial["a"], trial["a"]).error
    public = sites("join", trial["a"], trial["a"] / "public.json").error
    assert "not a project's kit" in public
    stranger = tmp_path / "stranger"
    sites("init", stranger, "--name", "a", "--samples", 100)
    found = sites("join", stranger, trial.kit)
    assert "does not have 'a' with this party's keys" in found.error and "try: " in found.error
    assert not (stranger / "kit.json").exists()


@pytest.mark.parametrize(
    ("days", "said"), [(-1, "set this machine's clock"), (91, "a new kit from the coordinator")]
)
def test_a_clock_that_is_off_and_a_kit_that_is_old(
    sites: Command, trial: Trial, monkeypatch: pytest.MonkeyPatch, days: int, said: str
) -> None:
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    monkeypatch.setattr(tls, "_now", lambda: now)
    found = sites("join", trial["a"], trial.kit)
    assert found.status == 1 and said in found.error and str(trial.kit) in found.error


def test_an_offer_that_is_none_is_not_approved(sites: Command, trial: Trial) -> None:
    assert "is no fingerprint of an offer\n  try: " in sites("approve", trial["a"], "all").error
    assert "has no limits" in sites("approve", trial["witness"], "0" * 16).error
    assert "let through" in sites("approve", trial["a"], "0123456789abcdef").said


# --- serve and superlink


def spoiled_site(path: Path, text: str) -> None:
    (path / "site.yaml").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: (path / "signing.key").chmod(0o644), "mode 0644)\n  try: chmod 600"),
        (lambda path: (path / "signing.key").unlink(), "the party's key is not there\n  try: "),
        (lambda path: (path / "site.yaml").unlink(), "there is no such file\n  try: "),
        (lambda path: spoiled_site(path, "a: ["), "not YAML"),
        (lambda path: spoiled_site(path, "dataset: {path: /none.npz}"), "there is no such file"),
        (lambda path: (path / "kit.json").unlink(), "in no project yet\n  try: "),
    ],
    ids=["readable", "no key", "no file", "no YAML", "no data", "no kit"],
)
def test_a_party_that_is_not_as_it_must_be_does_not_serve(
    sites: Command, trial: Trial, flower: Path, spoil: Callable[[Path], object], said: str
) -> None:
    sites("join", trial["a"], trial.kit)
    spoil(trial["a"])
    found = sites("serve", trial["a"])
    assert found.status == 1 and said in found.error


def test_who_does_not_serve(sites: Command, trial: Trial, flower: Path) -> None:
    assert "the server's folder\n  try: " in sites("serve", trial["server"]).error
    assert "a site's folder, not the server's\n  try: " in sites("superlink", trial["a"]).error
    sites("join", trial["witness"], trial.kit)
    with Folder(trial["witness"]).held():
        found = sites("serve", trial["witness"])
        assert "another process is this party already\n  try: " in found.error


def test_a_port_in_use(sites: Command, trial: Trial, flower: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert provision(sites, trial, superlink=f"127.0.0.1:{port}").status == 0
        found = sites("superlink", trial["server"])
    assert f"nothing can listen at 127.0.0.1:{port}" in found.error
    assert "try: another port" in found.error


def test_a_superlink_that_cannot_be_reached_is_told_once(
    sites: Command,
    trial: Trial,
    flower: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the node is started again."""
    sites("join", trial["witness"], trial.kit)
    monkeypatch.setattr(meeting, "_PAUSE", 0.0)
    caplog.set_level(logging.WARNING)
    with meeting.Node(Folder(trial["witness"]), Environment(flower)) as node:
        for _ in range(3):
            assert node._child._process is not None
            node._child._process.wait(10)
            node.look()
    [warning] = caplog.messages
    assert warning == (
        "the node ended: the SuperLink at 127.0.0.1:9 cannot be reached (refused)\n"
        "  try: its address and port"
    )
    said = (trial["witness"] / "node.log").read_text()
    assert said.count("cannot be reached") > 1


def test_an_environment_of_flowers_that_is_missing_or_another(
    sites: Command, trial: Trial, flower: Path
) -> None:
    sites("join", trial["witness"], trial.kit)
    info = next(flower.glob("lib/*/*/flwr-*"))
    info.rename(info.with_name("flwr-1.41.0.dist-info"))
    for command in (["serve", trial["witness"]], ["superlink", trial["server"]]):
        found = sites(*command)
        assert "has flwr-1.41.0.dist-info; flwr 1.42.0 is needed\n  try: " in found.error
    info.with_name("flwr-1.41.0.dist-info").rmdir()
    assert "has no Flower; flwr 1.42.0 is needed\n  try: " in sites("serve", trial["witness"]).error


def test_an_environment_does_not_take_the_place_of_anything_else(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    assert "is no environment" in refusal(lambda: make_environment(tmp_path / "home"))
    assert "--clear" not in refusal(lambda: find_environment(tmp_path / "home"))
    assert (tmp_path / "home" / "letter").read_text() == "dear"


def test_a_full_disk_is_one_message(
    sites: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(folders, "write_whole", full)
    found = sites("init", tmp_path / "x", "--role", "server")
    assert found.error == f"ERROR {tmp_path / 'x' / 'public.json'}: No space left on device\n"
