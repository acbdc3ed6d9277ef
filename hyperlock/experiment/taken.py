"""What a checkpoint decides by itself: plain settings, and options by their names; for code, files
and stores only those of the project.

Whoever can write a checkpoint can put anything into it. Settings are composed and functions called
by it, so that all else is taken only if it is given again on the command line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from hyperlock.errors import ConfigError
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.settings.construct import TARGET
from hyperlock.settings.overrides import Override, Overrides
from hyperlock.settings.schema import SCHEMAS

_GROUPS = {*SCHEMAS, "experiment", "debug", "hparams_search"}
_NUMBERS_AT_TOP = {"seed", "checkpoint_every"}
# Where a text is no more than a word. What is not here, of a user's own function for one, may name
# a file.
_WORDS = {
    "task_name", "tags", "objective", "runtime.engine", "runtime.evaluation", "dataset.dtype",
    "privacy.unit", "privacy.sampling",
    "federation.algorithm", "keys.custody", "trust.level", "tracking.sink", "tracking.experiment",
    "tracking.run_name", "encryption.scheme", "encryption.value_bits", "encryption.poly_modulus",
    "encryption.coeff_mod_bits", "encryption.scale_bits", "encryption.fields",
}  # fmt: skip
# The project's own functions, each in its group.
_FUNCTIONS = {
    (f"{group}.{TARGET}", getattr(schema, TARGET, None))
    for group, options in SCHEMAS.items()
    for schema in options.values()
}
_PATHS = {"dataset.path", "runtime.folder", "paths.root", "paths.data", "paths.outputs"}

_OVERRIDE = re.compile(r"\+{0,2}\w+(\.\w+)*=")
_OPTION = re.compile(r"\w[\w-]*")  # of a group, and no path to a file
_NUMBER = r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|true|false|null"
_NUMBERS = re.compile(rf"({_NUMBER})|\[\s*({_NUMBER})(\s*,\s*({_NUMBER}))*\s*\]", re.IGNORECASE)
_WORD = re.compile(r"[^${}]*")  # neither another setting's or the environment's value, nor a tree


@dataclass(frozen=True)
class Taken:
    """What is used of a checkpoint.

    Attributes:
        overrides: to compose settings from, in its order.
        paths: settings beside them, by name: files in the project's folder, where that is now.
    """

    overrides: list[str] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)


def taken(named: str, checkpoint: Checkpoint, typed: Overrides, root: str) -> Taken:
    """What of a checkpoint's overrides is used.

    Args:
        named: what `resume` was set to.
        checkpoint: whose.
        typed: all that was typed, in which it may be given again.
        root: the project's folder.

    Raises:
        ConfigError: something must be given again; names all of it.
    """
    found = Taken()
    missing = []
    again = {(override.key, override.value): override.text for override in typed}
    for override in Overrides(checkpoint.overrides):
        text = again.get((override.key, override.value))
        path = own_path(override.key, checkpoint.settings, root)
        if text is not None:
            found.overrides.append(text)
        elif _is_plain(override):
            found.overrides.append(override.text)
        elif path is not None:
            found.paths[override.key] = path
        else:
            missing.append(override.text)
    if missing:
        # Only runtime=flower has a folder, and it is not what is composed by itself.
        flower = any(text.startswith("runtime.") for text in missing)
        options = [text for text in found.overrides if flower and text.startswith("runtime=")]
        all_of_it = as_typed([*options, *missing])
        raise ConfigError(
            "resume",
            named,
            "its settings name code, files or stores of their own, or other things that a "
            "checkpoint does not decide by itself",
            hint=f"if these are yours, give them again: resume={named} {all_of_it}",
        )
    return found


def may_set(key: str, value: str) -> bool:
    """Whether a checkpoint decides this value of a setting, in the text that it has there."""
    return _is_plain(Override.read(f"{key}={value}"))


def is_option(value: str) -> bool:
    """Whether a text can be no more than the name of a group's option."""
    return _OPTION.fullmatch(value) is not None


def own_path(key: str, settings: Mapping[str, str], root: str) -> str | None:
    """Where a file or folder of a checkpoint's settings is by now, if it is in the project's
    folder, which may have moved; None if it is not, or the setting is no path."""
    if key not in _PATHS or "${" in settings.get(key, "${"):
        return None
    path = moved(settings[key], settings.get("paths.root"), root)
    return path if Path(path).resolve().is_relative_to(Path(root).resolve()) else None


def moved(path: str, before: str | None, root: str) -> str:
    """A path of a checkpoint, where it is by now if it is in the project's folder.

    Args:
        path: or any other text.
        before: the project's folder then.
        root: the project's folder.
    """
    if before and path.startswith(f"{before}/"):
        return f"{root}{path.removeprefix(before)}"
    return path


def as_typed(overrides: list[str]) -> str:
    """Overrides to paste into a shell, which runs nothing that stands in them."""
    return " ".join(shlex.quote(text) if text.isprintable() else ascii(text) for text in overrides)


def _is_plain(override: Override) -> bool:
    key = override.key
    value = override.value
    group, _, rest = key.partition(".")
    if not _OVERRIDE.match(override.text):
        return False
    if key in _GROUPS:
        return is_option(value)
    if (key, value) in _FUNCTIONS and value != MISSING:
        return True
    if key in _WORDS and _WORD.fullmatch(value):
        return True
    number = group in SCHEMAS and rest and not re.search(r"(^|\.)_", rest)
    return bool((number or key in _NUMBERS_AT_TOP) and _NUMBERS.fullmatch(value))
