"""Where a run begins: anew, or by `resume=...` where another one stopped."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.checkpoint import Checkpoint, load, look
from hyperlock.experiment.claim import claimed
from hyperlock.experiment.directory import make
from hyperlock.experiment.report import Report
from hyperlock.experiment.taken import as_typed, is_option, may_set, moved, own_path, taken
from hyperlock.settings.overrides import Overrides
from hyperlock.settings.parse import STORE, flatten
from hyperlock.settings.schema import Config
from hyperlock.tracking.mlflow import directory_of

log = logging.getLogger(__name__)

FINISHED = "metrics.json"  # what a run writes last
# What may be given anew, for it does not change what the rounds before would have been.
FREE = (
    "federation.rounds",
    "federation.target_accuracy",
    "runtime.workers",
    "runtime.timeout",
    "runtime.patience",
    STORE,
)

# The key that has the option's own name, where a group has one.
_NAMED_BY = {
    "federation": "algorithm",
    "encryption": "scheme",
    "keys": "custody",
    "trust": "level",
    "privacy": "unit",
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


@contextmanager
def begin(
    composed: DictConfig, directory: Path, overrides: Sequence[str], compose: Compose
) -> Iterator[Beginning]:
    """A new run in `directory`, or the run that `resume` names, which is complete no more; for the
    block it is this process' alone.

    Args:
        composed: what Hydra composed.
        directory: for a new run; is made if it is not there.
        overrides: all that was typed; beside `resume` it may set what is in `FREE`, and repeat what
            the run was begun with.
        compose: settings from overrides, as Hydra made `composed`.

    Raises:
        ConfigError: there is no such run, it is complete, another process has it, others than the
            user can have written it, its settings would change, or they name what must be given
            again. A run whose rounds are all done but that was killed before its end is not
            complete: what is left is its record.
    """
    typed = Overrides(overrides)
    if composed.resume is None:
        make(directory)
        with claimed(directory, "hydra.run.dir"):
            yield Beginning(composed, directory, typed.of_the_job.texts, None)
        return
    directory = directory_named(composed)
    look(directory)  # before anything is written there
    with claimed(directory, "resume"):
        beginning = as_it_was(composed, directory, overrides, compose)
        if (directory / FINISHED).exists():
            _refuse_complete(str(composed.resume), beginning)
        (directory / FINISHED).unlink(missing_ok=True)
        yield beginning


def directory_named(composed: DictConfig) -> Path:
    """Where the run is that `resume` names, by its directory or by its id.

    Raises:
        ConfigError: there is no such run.
    """
    named = str(composed.resume)
    return Path(named) if Path(named).exists() else _directory(named, composed)


def as_it_was(
    composed: DictConfig, directory: Path, overrides: Sequence[str], compose: Compose
) -> Beginning:
    """The run in a directory with its own settings, complete or not; nothing is written.

    Args:
        composed: as of `begin`; so are `overrides` and `compose`.
        directory: where the run that its `resume` names is.

    Raises:
        ConfigError: as of `begin`.
    """
    named = str(composed.resume)
    checkpoint = load(directory)
    if not Path(named).exists() and checkpoint.run_id != named:
        problem = f"the directory that its record names, {directory}, is another run's"
        raise ConfigError("resume", named, problem, hint="resume=DIRECTORY")
    return _resumed(composed, directory, checkpoint, Overrides(overrides), compose)


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


def _resumed(
    composed: DictConfig,
    directory: Path,
    checkpoint: Checkpoint,
    typed: Overrides,
    compose: Compose,
) -> Beginning:
    named = str(composed.resume)
    free = typed.of_the_job.only(*FREE)
    again = typed.of_the_job.without("resume", *FREE)
    _refuse_change(named, checkpoint, again)

    # Its settings, whatever the settings' files say by now, with what may be given anew.
    used = taken(named, checkpoint, typed, composed.paths.root)
    files = typed.only("hydra.searchpath").texts
    beside = [text for text in again.texts if text not in used.overrides]
    choices = _choices_of(named, checkpoint)
    try:
        settings = compose([*files, *choices, *used.overrides, *beside, *free.texts])
    except (HydraException, HyperLockError) as error:  # the command's, the library's
        problem = f"its settings cannot be composed again ({str(error).splitlines()[0]})"
        hint = "the same --config-dir as the run had"
        raise ConfigError("resume", named, problem, hint=hint) from None
    for key, path in used.paths.items():
        with suppress(OmegaConfBaseException):
            OmegaConf.update(settings, key, path)
    _set_as_they_were(settings, checkpoint, free)
    changed = _changed(settings, checkpoint, free)
    if changed:
        differences = "; ".join(f"{key} was {was}, is {now}" for key, was, now in changed)
        problem = f"the settings' files have changed since: {differences}"
        before = as_typed([f"{key}={was}" for key, was, _ in changed])
        hint = f"the files as they were; or, if you know it, what was then: {before}"
        raise ConfigError("resume", named, problem, hint=hint)
    with open_dict(settings):
        settings.resume = str(directory)

    overrides = [*checkpoint.overrides, *free.without(STORE).texts]
    return Beginning(settings, directory, overrides, checkpoint)


def _refuse_change(named: str, checkpoint: Checkpoint, again: Overrides) -> None:
    """What is given again must be what the run was begun with, or had by default."""
    begun = {(override.key, override.value) for override in Overrides(checkpoint.overrides)}
    begun |= set(checkpoint.settings.items())
    other = [override.text for override in again if (override.key, override.value) not in begun]
    if other:
        problem = f"a run goes on with its own settings; {' '.join(other)} would change them"
        allowed = f"{', '.join(FREE)}, and what it was begun with"
        raise ConfigError("resume", named, problem, allowed=allowed)


def _choices_of(named: str, checkpoint: Checkpoint) -> list[str]:
    """The options that a run had by default, as overrides: defaults may be others by now."""
    typed = Overrides(checkpoint.overrides).keys
    choices = {
        group: checkpoint.settings[f"{group}.{key}"]
        for group, key in _NAMED_BY.items()
        if group not in typed and f"{group}.{key}" in checkpoint.settings
    }
    for group, option in choices.items():
        if not is_option(option):
            raise ConfigError("resume", named, f"its {group} is no option's name")
    return [f"{group}={option}" for group, option in choices.items()]


def _set_as_they_were(settings: DictConfig, checkpoint: Checkpoint, free: Overrides) -> None:
    """Give every setting the value that the run had; what has come since keeps its default.

    What a checkpoint does not decide by itself, and what cannot be set, stays as it is.
    """
    root = settings.paths.root
    for key, was, now in _changed(settings, checkpoint, free):
        own = may_set(key, was) or own_path(key, checkpoint.settings, root) is not None
        if not own or now == _NOT_SET:
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
        here = moved(was, before, now["paths.root"])
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


def _refuse_complete(named: str, beginning: Beginning) -> None:
    """A run that ended has nothing to go on to, unless it is given more rounds."""
    checkpoint = beginning.start
    assert checkpoint is not None, "a run that is resumed"
    federation = beginning.composed.federation
    rounds = federation.rounds
    target = federation.target_accuracy
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
