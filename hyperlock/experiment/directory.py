"""A run's directory: made for its owner alone, and gone on from only if nobody else can have
written to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hyperlock.errors import ConfigError

_FOLDER = getattr(os, "O_DIRECTORY", 0)


def make(directory: Path, setting: str = "hydra.run.dir") -> None:
    """Make a directory that is its owner's alone (mode 0700), if it is not there.

    Raises:
        ConfigError: it cannot be made; names the setting that chose it.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made ({error.strerror or error})"
        raise ConfigError(setting, directory, problem) from None


@contextmanager
def own_file(directory: Path, name: str) -> Iterator[BinaryIO]:
    """A file in a run's directory, to read.

    What is checked is what is read, whatever is put in its place meanwhile.

    Raises:
        ConfigError: the directory, or the file, is another user's, or others may write to it.
        OSError: it cannot be opened.
    """
    if not hasattr(os, "geteuid"):  # a system without owners and modes
        with open(directory / name, "rb") as file:
            yield file
        return
    folder = os.open(directory, os.O_RDONLY | _FOLDER)
    try:
        _refuse_others(folder, directory, directory)
        with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
            _refuse_others(file.fileno(), directory / name, directory)
            yield file
    finally:
        os.close(folder)


def _refuse_others(opened: int, path: Path, directory: Path) -> None:
    status = os.fstat(opened)
    mode = stat.filemode(status.st_mode)
    if status.st_uid != os.geteuid():
        raise ConfigError(
            "resume",
            path,
            f"belongs to another user ({status.st_uid}, mode {mode}), who could have any code run",
            allowed="a directory of your own, and in it files of your own",
            hint=f"if you trust who made it: cp -r {directory} COPY, and resume=COPY",
        )
    group = status.st_mode & stat.S_IWGRP and not _is_own_group(opened, status.st_gid)
    if group or status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            "resume",
            path,
            f"others than its owner may write to it (mode {mode}), and could have any code run",
            allowed="what only you, or your own private group, may write to",
            hint=f"chmod -R go-w {directory}, if nobody else did write to it",
        )


def _is_own_group(opened: int, number: int) -> bool:
    """Whether a group is the user's private one: of his name, his first, and with nobody else in
    it."""
    import grp
    import pwd

    with suppress(KeyError, OSError):
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(number)
        others = {each.pw_name for each in pwd.getpwall() if each.pw_gid == number}
        others = (others | set(group.gr_mem)) - {user.pw_name}
        # Under an access list, the group's bits are the most that anybody on the list may do.
        listed = "system.posix_acl_access" in getattr(os, "listxattr", lambda _: [])(opened)
        return user.pw_gid == number and group.gr_name == user.pw_name and not others and not listed
    return False
