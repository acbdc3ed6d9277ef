"""A site's own file: its data, its limits, and the functions of its own that an Invite may name."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hyperlock.errors import HyperLockError
from hyperlock.settings.schema import SCHEMAS

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_LEAST = {"parameters": 1, "rounds": 1, "local_epochs": 1, "min_clients": 2, "colluders": 0}


@dataclass
class SiteData:
    """`dataset:`."""

    path: str = MISSING


@dataclass
class SiteLimits:
    """`limits:`."""

    models: list[str] = field(default_factory=list)
    encryption: list[str] = field(default_factory=lambda: ["bfv", "ckks"])
    keys: list[str] = field(default_factory=lambda: ["authority"])
    trust: str = "malicious"
    parameters: int = 10_000_000
    rounds: int = 100
    local_epochs: int = 10
    min_clients: int = 3
    colluders: int = 1
    epsilon: float | None = None
    until: str | None = None


@dataclass
class SiteFile:
    """The whole."""

    dataset: SiteData = field(default_factory=SiteData)
    limits: SiteLimits = field(default_factory=SiteLimits)
    functions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """What a site agrees to.

    Attributes:
        models: HyperLock's by their options' names, its own by their functions'.
        encryption: schemes.
        keys: who may have the key.
        trust: malicious, or curious.
        parameters, rounds, local_epochs: at most.
        min_clients, colluders: at least.
        epsilon: what a run may cost, which must be private then; None for any.
        until: the last day; None for no end.
    """

    models: tuple[str, ...]
    encryption: tuple[str, ...]
    keys: tuple[str, ...]
    trust: str
    parameters: int
    rounds: int
    local_epochs: int
    min_clients: int
    colluders: int
    epsilon: float | None
    until: datetime.date | None


@dataclass(frozen=True)
class Site:
    """What the file says.

    Attributes:
        data: the file with its samples.
        limits: as above.
        functions: that an Invite may name.
    """

    data: Path
    limits: Limits
    functions: tuple[str, ...]


def read(path: Path) -> Site:
    """A site's own file.

    Raises:
        HyperLockError: it is not there, or says what cannot be.
    """
    # Typed, as a run's settings are.
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SiteFile), _document(path))
        found: Any = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise HyperLockError(
            f"{path}: {_reason(error)}\n  try: as `init` wrote it; docs/deployment.md has it too"
        ) from None

    # And such as a site can have.
    data = Path(found.dataset.path)
    if not data.is_absolute():
        raise HyperLockError(
            f"{path}: dataset.path={data} is not absolute\n  try: dataset.path: /data/mine.npz"
        )
    limits: SiteLimits = found.limits
    if limits.trust not in ("malicious", "curious"):
        raise HyperLockError(
            f"{path}: limits.trust={limits.trust}\n  allowed: malicious, or curious for both"
        )
    for name, least in _LEAST.items():
        if getattr(limits, name) < least:
            raise HyperLockError(f"{path}: limits.{name}={getattr(limits, name)} is below {least}")
    if limits.epsilon is not None and not 0 < limits.epsilon < math.inf:
        raise HyperLockError(f"{path}: limits.epsilon={limits.epsilon} is no budget")
    for function in found.functions:
        if type(function) is not str or not _FUNCTION.fullmatch(function):
            raise HyperLockError(
                f"{path}: functions has {function!r:.60}, which is no function's name\n"
                "  try: such as my_package.models.net"
            )
    known = {
        "models": [name for name in SCHEMAS["model"] if name != "own"] + found.functions,
        "encryption": list(SCHEMAS["encryption"]),
        "keys": ["authority", "clients"],
    }
    for name, allowed in known.items():
        for each in getattr(limits, name):
            if each not in allowed:
                raise HyperLockError(
                    f"{path}: limits.{name} has {each!r:.60}, which nothing is called\n"
                    f"  allowed: {', '.join(allowed)}"
                    + ("; your own once they stand in `functions`" if name == "models" else "")
                )
    try:
        until = None if limits.until is None else datetime.date.fromisoformat(limits.until)
    except ValueError:
        raise HyperLockError(
            f"{path}: limits.until={limits.until} is no date\n"
            "  allowed: such as 2027-06-30, or null"
        ) from None
    values = {**vars(limits), "until": until}
    lists = {name: tuple(values[name]) for name in known}
    return Site(data, Limits(**{**values, **lists}), tuple(found.functions))


def _reason(error: Exception) -> str:
    """What is wrong, in one line, with the key that it is wrong with."""
    key = getattr(error, "full_key", None)
    text = str(error).splitlines()[0][:200]
    if isinstance(error, MissingMandatoryValue):
        text = "has no value yet"
    return f"{key}: {text}" if key and key not in text else text


def _document(path: Path) -> Any:
    """The YAML of a file, dates in it as text."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise HyperLockError(
            f"{path}: there is no such file\n"
            "  try: the one that `init` wrote; docs/deployment.md has it too"
        ) from None
    except OSError as error:
        raise HyperLockError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise HyperLockError(f"{path}: no text in UTF-8") from None
    try:
        document = OmegaConf.create(text)
    except Exception as error:  # of PyYAML's many kinds, and OmegaConf's
        why = " ".join(str(error).split()) or "a value alone"
        raise HyperLockError(f"{path}: not YAML ({why:.200})") from None
    if not isinstance(document, DictConfig):
        raise HyperLockError(
            f"{path}: no settings in it\n  try: as `init` wrote it; docs/deployment.md has it too"
        )
    limits = document.get("limits")
    if isinstance(limits, DictConfig) and limits.get("until") is not None:
        limits["until"] = str(limits["until"])
    return document
