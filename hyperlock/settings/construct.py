"""Calling what a group's `_target_` names, be it HyperLock's function or a user's own.

Like `hydra.utils.instantiate`, but an error of ours comes out as it is instead of wrapped, and a
function that cannot take a group's keys is refused by the setting that named it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from hyperlock.errors import ConfigError

TARGET = "_target_"
OURS = "hyperlock."  # what does not begin so is a user's own, and is tried before it is relied on
_PYTHONPATH = "PYTHONPATH=/folder/of/the/package python run.py ..."


def target(node: Any) -> str:
    """What `_target_` of a group names, be it one of the schemas or a user's own keys."""
    return str(_all_keys(node)[TARGET])


def construct_group(
    group: str, node: Any, given: Mapping[str, Any], without: Collection[str] = ()
) -> Any:
    """What a group's function makes of its keys, but those left out, and of what it is given."""
    left_out = {TARGET, *without}
    keys = {key: value for key, value in _all_keys(node).items() if key not in left_out}
    return construct(group, target(node), keys, given)


def construct(group: str, name: str, keys: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """What a function makes of a group's keys and of what a run gives it beside them.

    Args:
        group: its name, for the errors.
        name: the function's, as `_target_` has it.
        keys: the group's.
        given: arguments that are no settings.

    Raises:
        ConfigError: there is no such function; a key has the name of what the run gives; ours does
            not take these keys. And whatever the function raises itself.
    """
    for key in sorted(keys.keys() & given.keys()):
        problem = f"{group}._target_ is called with what the run has by this name"
        raise ConfigError(f"{group}.{key}", keys[key], problem, hint="another name")
    function = _imported(group, name)
    arguments = {**keys, **given}
    if name.startswith(OURS):
        try:
            signature(function).bind(**arguments)
        except TypeError as error:
            problem = f"cannot be called with this option's keys ({error})"
            hint = f"{group}=NAME, which chooses the function and its keys"
            raise ConfigError(f"{group}.{TARGET}", name, problem, hint=hint) from None
    return function(**arguments)


def _imported(group: str, name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # whatever importing a user's module raises
        raise ConfigError(
            f"{group}.{TARGET}",
            name,
            f"cannot be imported ({type(error).__name__}: {error})",
            allowed="package.module.function",
            hint=_PYTHONPATH if isinstance(error, ImportError) else "",
        ) from None


def _all_keys(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else vars(node)
