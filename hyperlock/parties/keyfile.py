"""Keys on a disk, where a user asks for it by `keys.path`: one file that only its owner can
read."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import msgpack

from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import ConfigError

_SETTING = "keys.path"
_VERSION = 1
_MAX_BYTES = 2**26


def load_or_make(path: Path, scheme: Scheme) -> KeyPair:
    """The keys in the file, or new ones, written to it.

    Args:
        path: of the file; folders that are missing are made, for the owner alone.
        scheme: what the keys are for; a file with keys of other parameters is refused.

    Raises:
        ConfigError: the file cannot be read or written, is not such a file, or others may read it.
    """
    try:
        if path.exists():
            return _read(path, scheme)
        keys = scheme.generate_keys()
        try:
            _write(path, keys, scheme)
        except FileExistsError:  # another process was faster: its keys are the file's
            return _read(path, scheme)
        return keys
    except OSError as error:
        raise ConfigError(_SETTING, path, f"cannot be used ({error.strerror or error})") from None


def _read(path: Path, scheme: Scheme) -> KeyPair:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(
                _SETTING, path, "is no file", hint="keys.path=$HOME/.hyperlock/NAME.key"
            )
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
            mode = stat.filemode(status.st_mode)
            raise ConfigError(
                _SETTING,
                path,
                f"others than its owner may use it ({mode}, owner {status.st_uid}), so that its "
                "key is no secret",
                allowed="a file of your own with mode 0600",
                hint=f"chmod 600 {path} if nobody has read it; else another file, and new keys",
            )
        data = file.read(_MAX_BYTES)
    try:
        content = msgpack.unpackb(data)
        if content["version"] != _VERSION:
            raise ValueError("another version")
        fingerprint = content["fingerprint"]
        keys = KeyPair(content["public"], content["secret"])
    except Exception:
        # msgpack raises many kinds for malformed input; none may show the file's content
        raise ConfigError(
            _SETTING, path, "is not a key file of HyperLock", hint="another file"
        ) from None
    if fingerprint != scheme.fingerprint:
        problem = f"its keys are for {fingerprint}, and this run uses {scheme.fingerprint}"
        raise ConfigError(
            _SETTING, path, problem, hint="another file, or the settings that it was made with"
        )
    return keys


def _write(path: Path, keys: KeyPair, scheme: Scheme) -> None:
    """Wholly or not at all; never readable by others, not even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = {
        "version": _VERSION,
        "fingerprint": scheme.fingerprint,
        "public": keys.public,
        "secret": keys.secret,
    }
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    part = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(msgpack.packb(content))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, it never replaces a file that came in between
    finally:
        part.unlink(missing_ok=True)
