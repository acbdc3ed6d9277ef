"""A run's directory is its owner's alone, and a run goes on only from one that nobody else can have
written to."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hyperlock.errors import ConfigError
from hyperlock.experiment import directory
from hyperlock.experiment.checkpoint import FILE, Checkpoint, load, look, save
from hyperlock.experiment.directory import make

EXAMPLE = Checkpoint(1, np.ones(3, np.float32), (0.5,), {}, [], {}, "run", "", {})
ME = SimpleNamespace(pw_name="me", pw_gid=os.getgid())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A run's directory."""
    path = tmp_path / "run"
    make(path)
    save(path, EXAMPLE)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make(tmp_path / "new" / "run")
        save(tmp_path / "new" / "run", EXAMPLE)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "run") == 0o700
    assert mode(tmp_path / "new" / "run" / FILE) == 0o600
    make(tmp_path)  # that is there already stays as it is
    assert load(tmp_path / "new" / "run").round == 1


@pytest.mark.parametrize("who", [0o757, 0o775, 0o702])
def test_one_that_others_may_write_to_is_refused(
    mine: Path, monkeypatch: pytest.MonkeyPatch, who: int
) -> None:
    monkeypatch.setattr(directory, "_is_own_group", lambda *_: False)
    mine.chmod(0o755)
    assert load(mine).round == 1
    mine.chmod(who)
    for use in (look, load):
        with pytest.raises(
            ConfigError, match=r"others than its owner may write[\s\S]*chmod -R go-w"
        ):
            use(mine)


def test_a_file_that_others_may_write_to_is_refused(mine: Path) -> None:
    (mine / FILE).chmod(0o644)
    look(mine)
    (mine / FILE).chmod(0o646)
    with pytest.raises(ConfigError, match=rf"{FILE}: others than its owner may write"):
        look(mine)


def test_another_users_is_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match=r"belongs to another user.*\n.*\n.* cp -r"):
        look(mine)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("given", ["run", f"run/{FILE}"])
def test_root_does_not_take_another_users(mine: Path, given: str) -> None:
    os.chown(mine.parent / given, 65534, 65534)
    with pytest.raises(ConfigError, match=r"belongs to another user \(65534"):
        look(mine)


def test_what_is_checked_is_what_is_read(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put another directory in its place between the check and the reading."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save(theirs, Checkpoint(2, np.ones(3, np.float32), (0.5,), {}, [], {}, "run", "", {}))
    check = directory._refuse_others

    def swap(*arguments: object) -> None:
        check(*arguments)
        if theirs.exists():
            mine.rename(tmp_path / "aside")
            theirs.rename(mine)

    monkeypatch.setattr(directory, "_refuse_others", swap)
    assert load(mine).round == 1
    monkeypatch.undo()
    assert load(mine).round == 2


GROUPS = {
    "my own": (True, "me", [], [ME], []),
    "my own, with me named": (True, "me", ["me"], [ME], []),
    "another's name": (False, "staff", [], [ME], []),
    "with another in it": (False, "me", ["me", "mallory"], [ME], []),
    "another's first": (
        False, "me", [], [ME, SimpleNamespace(pw_name="mallory", pw_gid=os.getgid())], [],
    ),
    "under an access list": (False, "me", [], [ME], ["system.posix_acl_access"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", GROUPS)
def test_ones_own_private_group_is_oneself(
    mine: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import grp
    import pwd

    accepted, name, members, users, listed = GROUPS[kind]
    os.chown(mine, -1, os.getgid())
    mine.chmod(0o770)
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: ME)
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(directory.os, "listxattr", lambda _: listed, raising=False)
    if accepted:
        look(mine)
    else:
        with pytest.raises(ConfigError, match="others than its owner may write"):
            look(mine)


def test_a_link_to_ones_own_is_followed(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mine)
    assert load(tmp_path / "link").round == 1
    shutil.rmtree(mine)
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        look(tmp_path / "link")
