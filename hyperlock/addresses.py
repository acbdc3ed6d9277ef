"""Addresses of stores and servers, and whether they carry what nobody else should read.

Whatever an address has beside scheme, host and path may be a secret: a user, for a token is given
as one; a password; a query. Where a password ends cannot be told, for programs read addresses in
different ways (`user:pa/ss@host`), so that an address is shown whole or not at all.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

NOT_SHOWN = "(not shown)"
# Settings that take an address, by the last part of their names: there it may lack a scheme.
_SETTINGS = {"uri", "url", "address", "storage", "server", "endpoint", "dsn"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_FILES = {"sqlite", "file"}  # what follows their `:///` is a path, in which @ is a letter
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\w+\}")  # names a secret, and is none
_QUERY = re.compile(r"\?\S")
_PATH = re.compile(r"[./~]|sqlite:|file:|[a-z]:[\\/]", re.IGNORECASE)  # how one begins


def carries_secret(text: str, setting: str = "") -> bool:
    """Whether an address in a text has a user, a password or a query.

    Args:
        text: an address, or what contains some, such as an override.
        setting: the name of the setting whose value the text is, if it is one; without a scheme it
            takes one that takes addresses to know an address.
    """
    text = _FROM_ENVIRONMENT.sub("", text)
    if _has_secret(text) or _has_secret(text.replace("\\", "")):  # Hydra takes `\:` for `:`
        return True
    if setting.rpartition(".")[2].lower() not in _SETTINGS or _SCHEME.search(text):
        return False
    return _has_secret_without_scheme(text.strip(" '\""))


def withheld(text: str) -> str:
    """A text for people to read, without the addresses in it that carry a secret."""
    return "\n".join(map(_withheld, text.split("\n")))


def _has_secret(text: str) -> bool:
    for found in _SCHEME.finditer(text):
        rest = text[found.end() :]
        if _QUERY.search(rest):
            return True
        if found[1].lower().partition("+")[0] in _FILES and rest.startswith("/"):
            continue
        # Nothing is left of a user and a password that come from the environment.
        rest = re.sub(r"^:?@", "", rest)
        if "@" in rest or "@" in unquote(rest.partition("/")[0]):
            return True
    return False


def _has_secret_without_scheme(text: str) -> bool:
    if _PATH.match(text):
        return _QUERY.search(text) is not None
    return "@" in unquote(text) or _QUERY.search(text) is not None


def _withheld(line: str) -> str:
    for found in _SCHEME.finditer(line):
        if _has_secret(line[found.start() :]):
            last = max(line.rfind("@"), line.rfind("?"), found.end())
            rest = re.sub(r"^\S*", "", line[last:])
            return f"{line[: found.start()]}{NOT_SHOWN}{rest}"
    return line
