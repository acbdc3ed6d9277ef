"""Where a run begins: anew, or by `resume=...` where another one stopped."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.checkpoint import Checkpoint, load
from hyperlock.experiment.report import Report
from hyperlock.settings.construct import TARGET
from hyperlock.settings.overrides import Overrides
from hyperlock.settings.parse import STORE, flatten
from hyperlock.settings.schema import Config
from hyperlock.tracking.mlflow import directory_of

log = logging.getLogger(__name__)

FINISHED = "metrics.json"  # what a run writes last
# What may be given anew, for it does not change what the rounds before would have been.
FREE = ("federation.rounds", "federation.target_accuracy", "runtime.workers", STORE)

# The key that has the option's own name, where a group has one.
_NAMED_BY = {
    "federation": "algorithm",
    "encryption": "scheme",
    "keys": "custody",
    "trust": "level",
    "tracking": "sink",
}
_NOT_SET = "not set"

Compose = Callable[[list[str]], DictConfig]


@dataclass(frozen=True)
class Beginning:
    """What a run begins from.

    Attributes:
        composed: its settings.
        directory: where it writes.
        overrides: what the settings were composed with.
        start: where it stopped before; None for a new run.
    """

    composed: DictConfig
    directory: Path
    overrides: Sequence[str]
    start: Checkpoint | None


def begin(
    composed: DictConfig, directory: Path, overrides: Sequence[str], compose: Compose
) -> Beginning:
    """A new run in `directory`, or the run that `resume` names, which is complete no more.

    Args:
        composed: what Hydra composed.
        directory: for a new run.
        overrides: the command line; beside `resume` it may set what is in `FREE`.
        compose: settings from overrides, as Hydra made `composed`.

    Raises:
        ConfigError: there is no such run, it is complete, or its settings would change. A run
            whose rounds are all done but that was killed before its end is not complete: what is
            left is its record.
    """
    if composed.resume is None:
        return Beginning(composed, directory, overrides, None)
    beginning = _resumed(composed, Overrides(overrides), compose)
    (beginning.directory / FINISHED).unlink(missing_ok=True)
    return beginning


def finish(directory: Path, report: Report) -> None:
    """Write a run's last figures, which also say that it is complete."""
    Path(directory, FINISHED).write_text(json.dumps(report.final(), indent=2))


def go_on(report: Report, start: Checkpoint, config: Config) -> None:
    """Take in what the run had come to when it stopped."""
    report.restore(start.report)
    # Of a last round that is the last no more: a run of the new length would not have made it.
    every = config.federation.evaluate_every
    last = config.federation.rounds
    report.accuracies = {
        number: accuracy
        for number, accuracy in report.accuracies.items()
        if number % every == 0 or number == last
    }
    log.info("going on after round %d", start.round)


def _resumed(composed: DictConfig, given: Overrides, compose: Compose) -> Beginning:
    named = str(composed.resume)
    fixed = given.without("resume", *FREE).texts
    if fixed:
        problem = f"a run goes on with its own settings; {' '.join(fixed)} would change them"
        raise ConfigError("resume", named, problem, allowed=", ".join(FREE))
    directory = Path(named) if Path(named).exists() else _directory(named, composed)
    checkpoint = load(directory)

    # Its settings, whatever the settings' files say by now, with what may be given anew.
    free = given.only(*FREE)
    choices = _choices_of(checkpoint)
    try:
        settings = compose([*choices, *checkpoint.overrides, *free.texts])
    except (HydraException, HyperLockError) as error:  # the command's, the library's
        problem = f"its settings cannot be composed again ({str(error).splitlines()[0]})"
        hint = "the same --config-dir as the run had"
        raise ConfigError("resume", named, problem, hint=hint) from None
    _set_as_they_were(settings, checkpoint, free)
    changed = _changed(settings, checkpoint, free)
    if changed:
        differences = "; ".join(f"{key} was {was}, is {now}" for key, was, now in changed)
        problem = f"the settings' files have changed since: {differences}"
        raise ConfigError("resume", named, problem, hint="the files as they were, or a new run")
    if (directory / FINISHED).exists():
        _refuse_complete(named, checkpoint, settings)
    with open_dict(settings):
        settings.resume = str(directory)

    overrides = [*checkpoint.overrides, *free.without(STORE).texts]
    return Beginning(settings, directory, overrides, checkpoint)


def _choices_of(checkpoint: Checkpoint) -> list[str]:
    """The options that a run had by default, as overrides: defaults may be others by now."""
    named = Overrides(checkpoint.overrides).keys
    return [
        f"{group}={checkpoint.settings[f'{group}.{key}']}"
        for group, key in _NAMED_BY.items()
        if group not in named and f"{group}.{key}" in checkpoint.settings
    ]


def _set_as_they_were(settings: DictConfig, checkpoint: Checkpoint, free: Overrides) -> None:
    """Give every setting the value that the run had; what has come since keeps its default.

    A user's own function is not chosen again for him, and what cannot be set stays as it is.
    """
    for key, was, now in _changed(settings, checkpoint, free):
        if TARGET in key or now == _NOT_SET:
            continue
        log.info("%s is %s in the settings' files; the run goes on with %s", key, now, was)
        with suppress(OmegaConfBaseException):
            OmegaConf.update(settings, key, _value(was))


def _changed(
    settings: DictConfig, checkpoint: Checkpoint, free: Overrides
) -> list[tuple[str, str, str]]:
    """Settings that are not what the run had: their names, what they were and what they are.

    But for what was given anew, and for where the run is: what lay in its project's folder may lie
    in this one.
    """
    now = flatten(settings)
    before = checkpoint.settings.get("paths.root")
    changed = []
    for key, was in checkpoint.settings.items():
        if key in ("resume", STORE, *free.keys) or key.startswith("paths."):
            continue
        here = was
        if before and was.startswith(f"{before}/"):
            here = f"{now['paths.root']}{was.removeprefix(before)}"
        found = now.get(key, _NOT_SET)
        if found not in (was, here):
            changed.append((key, here, found))
    return changed


def _value(text: str) -> Any:
    """A setting out of its text in a checkpoint, where a chain of primes reads 60-40-60."""
    if re.fullmatch(r"\d+(-\d+)+", text):
        return [int(part) for part in text.split("-")]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"null": None, "true": True, "false": False}.get(text, text)


def _refuse_complete(named: str, checkpoint: Checkpoint, settings: DictConfig) -> None:
    """A run that ended has nothing to go on to, unless it is given more rounds."""
    rounds = settings.federation.rounds
    target = settings.federation.target_accuracy
    accuracies = checkpoint.report.get("accuracies", {}).values()
    if target is not None and any(accuracy >= target for accuracy in accuracies):
        problem = f"it reached its federation.target_accuracy={target}"
        hint = "federation.target_accuracy=null, or a higher one, to go further"
        raise ConfigError("resume", named, problem, hint=hint)
    if checkpoint.round >= rounds:
        problem = f"all of its federation.rounds={rounds} are done"
        hint = f"federation.rounds={2 * rounds}, to go further"
        raise ConfigError("resume", named, problem, hint=hint)


def _directory(named: str, composed: DictConfig) -> Path:
    """Of a run that is known by its id."""
    if composed.tracking.sink == "mlflow" and named.isalnum():
        found = directory_of(named, composed.paths.root, composed.tracking.uri)
        if found is not None:
            return Path(found)
    raise ConfigError(
        "resume",
        named,
        "there is no such directory, and no run of this id with one",
        allowed="a run's directory under outputs/, or its id in MLflow",
    )
