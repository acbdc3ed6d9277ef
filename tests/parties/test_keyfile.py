"""Keys on a disk: for their owner alone, for the same parameters alone, and never where they spread
from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import ConfigError
from hyperlock.parties import keyfile
from hyperlock.parties.messages import PublicKey
from hyperlock.settings.parse import parse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "run.key"


def test_the_keys_that_were_written_are_read(path: Path, ckks: Ckks) -> None:
    made = keyfile.load_or_make(path, ckks)
    read = keyfile.load_or_make(path, ckks)
    assert (read.public, read.secret) == (made.public, made.secret)
    chunks = tuple(ckks.encryptor(made.public).encrypt(np.arange(9)))
    assert ckks.decryptor(read.secret).decrypt(chunks, 9).tolist() == list(range(9))


def test_only_the_owner_can_read_the_file_whatever_the_umask(path: Path, ckks: Ckks) -> None:
    before = os.umask(0)
    try:
        keyfile.load_or_make(path, ckks)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666])
def test_a_file_that_others_may_use_is_refused(path: Path, ckks: Ckks, mode: int) -> None:
    keyfile.load_or_make(path, ckks)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"others than its owner[\s\S]*chmod 600"):
        keyfile.load_or_make(path, ckks)


def test_keys_of_other_parameters_are_refused_and_kept(path: Path, ckks: Ckks) -> None:
    keyfile.load_or_make(path, ckks)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"its keys are for ckks/4096.*and this run uses bfv"):
        keyfile.load_or_make(path, Bfv(bfv_parameters("auto", "auto", "auto", 8, 16, 128)))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"garbage" * 100, b"\x81\xa7version\x01", b"\x81\xa7version\x02"]
)
def test_other_files_are_refused_and_not_quoted(path: Path, ckks: Ckks, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is not a key file") as caught:
        keyfile.load_or_make(path, ckks)
    assert "garbage" not in str(caught.value) and path.read_bytes() == content


def test_a_truncated_key_file_is_refused(path: Path, ckks: Ckks) -> None:
    keyfile.load_or_make(path, ckks)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ConfigError, match="is not a key file"):
        keyfile.load_or_make(path, ckks)


def test_a_folder_and_a_place_that_cannot_be_written_are_named(tmp_path: Path, ckks: Ckks) -> None:
    with pytest.raises(ConfigError, match=r"keys\.path.*cannot be used"):
        keyfile.load_or_make(tmp_path, ckks)
    with pytest.raises(ConfigError, match=r"keys\.path.*cannot be used"):
        keyfile.load_or_make(Path("/proc/none/run.key"), ckks)


def test_a_failed_write_leaves_nothing_behind(
    path: Path, ckks: Ckks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="no space left"):
        keyfile.load_or_make(path, ckks)
    assert list(path.parent.iterdir()) == []


def test_a_run_keeps_its_keys_where_it_is_told(federate: Callable, path: Path) -> None:
    runs = [federate(f"keys.path={path}").play().parties for _ in range(2)]
    read = [
        PublicKey.decode(
            r.public_key, r.server._session.identity, max_parts=1, max_part_bytes=2**24
        )
        for r in runs
    ]
    ids = [message.key_id for message in read]
    assert ids[0] == ids[1]
    assert "secret" not in repr(KeyPair(b"", b"secret")).replace("secret=", "")


def test_the_project_s_own_folder_is_refused(compose: Callable) -> None:
    root = compose().paths.root
    for inside in (f"{root}/run.key", f"{root}/outputs/../data/run.key"):
        with pytest.raises(ConfigError, match=r"lies in the project's folder[\s\S]*keys\.path="):
            parse(compose(f"keys.path={inside}"))


def test_no_keys_are_kept_where_there_are_none(compose: Callable, path: Path) -> None:
    with pytest.raises(ConfigError, match="no keys to keep"):
        parse(compose("encryption=none", f"keys.path={path}"))


def test_of_two_that_make_the_file_at_once_both_have_its_keys(
    path: Path, ckks: Ckks, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = keyfile.load_or_make(path.with_name("theirs.key"), ckks)
    link = os.link

    def slower(source: Path, target: Path) -> None:
        link(path.with_name("theirs.key"), target)
        link(source, target)

    monkeypatch.setattr(os, "link", slower)
    assert keyfile.load_or_make(path, ckks).secret == theirs.secret
    assert len(list(path.parent.iterdir())) == 2


def test_a_home_that_is_nobodys_is_no_trace(compose: Callable) -> None:
    with pytest.raises(ConfigError):
        parse(compose("keys.path=/", "encryption=none"))
    parse(compose("keys.path='~nobody-of-that-name/x.key'"))
