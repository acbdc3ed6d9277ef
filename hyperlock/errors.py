"""The errors a user meets: one clear message each, and never a silent fallback.

    HyperLockError
    ├── ConfigError             a setting that cannot work
    ├── MessageRefused          bytes that are not the message that was due
    ├── CiphertextRefused       not a ciphertext of this scheme and key, or not an exact sum
    ├── ReleaseRefused          an aggregate that the key holder will not decrypt
    ├── ClientFailure           a client whose training gave no update
    └── RoundFailed             too few updates for a round

What another party sent (MessageRefused, CiphertextRefused) is counted and left out; a round that
failed may be tried again (`federation.round_attempts`); the others end the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperlock.addresses import NOT_SHOWN, carries_secret, withheld


class HyperLockError(Exception):
    """Base of every error that is reported as one message, without a traceback.

    Args:
        text: the message; an address in it that carries a password is not shown.
    """

    def __init__(self, text: str) -> None:
        super().__init__(withheld(text))


class ConfigError(HyperLockError):
    """A setting that cannot work.

    Args:
        setting: the full key as typed on the command line, such as `encryption.poly_modulus`.
        value: the value that was given; not shown if it is an address with a password.
        problem: what is wrong with it.
        allowed: what would be accepted.
        hint: what to try, best as an override to paste.
    """

    def __init__(
        self, setting: str, value: object, problem: str, *, allowed: str = "", hint: str = ""
    ) -> None:
        self.setting = setting
        shown = NOT_SHOWN if carries_secret(show(value), setting) else show(value)
        lines = [f"{setting}={shown}: {problem}"]
        if allowed:
            lines.append(f"allowed: {allowed}")
        if hint:
            lines.append(f"try: {hint}")
        super().__init__("\n  ".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders in a parallel sweep, and are rebuilt there from their
        text."""
        return _restore, (type(self), str(self), self.setting)


def _restore(kind: type[ConfigError], text: str, setting: str) -> ConfigError:
    error = kind.__new__(kind, text)
    error.setting = setting
    return error


class MessageRefused(HyperLockError):
    """Bytes that are not the message that was due; the text is the reason."""


class CiphertextRefused(HyperLockError):
    """Bytes that are not a ciphertext of this scheme and key, or a sum that did not decrypt to
    integers."""


class ReleaseRefused(HyperLockError):
    """The key holder will not release this aggregate; the text is the reason."""


class ClientFailure(HyperLockError):
    """A client could not produce an update; names the client and the round."""


class RoundFailed(HyperLockError):
    """Too few updates were accepted for the round to be aggregated."""


def show(value: object) -> str:
    """A value the way it is typed on Hydra's command line: `null`, `[60,40]`, `true`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + ",".join(show(item) for item in value) + "]"
    return str(value)
