"""The ledger: what it says was released is on the disk, and what it cannot read is no reason to
release again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock import files
from hyperlock.errors import ConfigError
from hyperlock.parties.ledger import Entry, Ledger

ONE = Entry(b"r" * 32, b"the first release")
TWO = Entry(b"s" * 32, b"the second release")


def test_what_was_kept_is_found_also_by_the_next(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a" / "b")
    assert ledger.last == 0 and ledger.find(1) is None
    ledger.keep(1, ONE)
    ledger.keep(3, TWO)
    for found in (ledger, Ledger(tmp_path / "a" / "b")):
        assert found.find(1) == ONE and found.find(3) == TWO
        assert found.find(2) is None and found.find(0) is None
        assert found.last == 3


def test_without_a_folder_it_remembers_as_long_as_it_lives() -> None:
    ledger = Ledger()
    ledger.keep(2, ONE)
    assert ledger.find(2) == ONE and ledger.last == 2
    assert Ledger().last == 0


@given(kept=st.sets(st.integers(1, 99), max_size=5), last=st.integers(0, 99))
def test_the_last_round_is_the_latest_that_is_known(kept: set[int], last: int) -> None:
    ledger = Ledger(last=last)
    for number in kept:
        ledger.keep(number, ONE)
    assert ledger.last == max([*kept, last])


def test_a_release_that_is_forgotten_was_given_all_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in (1, 2, 3):
        ledger.keep(number, ONE)
    ledger.forget(2)
    for found in (ledger, Ledger(tmp_path)):
        forgotten = Entry(ONE.request, b"")
        assert found.find(1) == found.find(2) == forgotten and found.find(3) == ONE
        assert found.last == 3
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    assert sum(ONE.release in content for content in contents) == 1


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_round_that_could_not_be_written_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep(1, ONE)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, moment, fail)
    for number in (1, 2):
        with pytest.raises(OSError, match="no space"):
            ledger.keep(number, TWO)
    monkeypatch.undo()
    for found in (ledger, Ledger(tmp_path)):
        assert found.find(1) == ONE and found.find(2) is None and found.last == 1
    assert [path.name for path in tmp_path.iterdir()] == ["round-1"]


def test_content_and_name_are_on_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: the content, the name for it, the folder that holds the name."""
    done: list[str] = []
    fsync = os.fsync
    replace = os.replace

    def synced(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content"
        done.append(kind)
        fsync(handle)

    def named(old: Path, new: Path) -> None:
        done.append(new.name)
        replace(old, new)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", named)
    Ledger(tmp_path).keep(7, ONE)
    assert done == ["content", "round-7", "folder"]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        ledger = Ledger(tmp_path / "ledger")
        ledger.keep(1, ONE)
        ledger.keep(2, TWO)
        ledger.forget(1)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o700
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ledger").iterdir()]
    assert modes == [0o600] * 2


WHOLE = {"version": 1, "request": b"r" * 32, "release": b"x"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        msgpack.packb(WHOLE)[:-1],
        msgpack.packb(WHOLE) + b"x",
        msgpack.packb([1, 2]),
        msgpack.packb({**WHOLE, "version": 2}),
        msgpack.packb({"version": 1, "request": b"r"}),
        msgpack.packb({"version": 1, "release": b"r"}),
        msgpack.packb({**WHOLE, "request": "text"}),
        msgpack.packb({**WHOLE, "release": None}),
    ],
    ids=lambda content: content[:12].hex(),
)
def test_an_entry_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """Passed over, it would let the round be decrypted a second time."""
    Ledger(tmp_path).keep(1, ONE)
    (tmp_path / "round-2").write_bytes(content)
    with pytest.raises(ConfigError, match=r"resume=.*round-2: .*cannot be read") as caught:
        Ledger(tmp_path)
    assert "could be decrypted twice" in str(caught.value) and "try: " in str(caught.value)


def test_what_is_no_entry_is_let_lie(tmp_path: Path) -> None:
    """A file that was being written when the process was killed, and others' files."""
    for name in (".round-3.abcdef", "round-", "round-4.bak", "notes"):
        (tmp_path / name).write_bytes(b"garbage")
    assert Ledger(tmp_path).last == 0
