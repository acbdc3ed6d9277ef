"""`python run.py resume=...`: which run, with which settings, from which round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from hyperlock.errors import ConfigError
from hyperlock.experiment.checkpoint import Checkpoint, load
from hyperlock.settings.parse import flatten

FINISHED = "metrics.json"  # what a run writes last
# What may be given anew, for it does not change what the rounds before would have been.
FREE = ("federation.rounds", "federation.target_accuracy", "runtime.workers", "tracking.uri")


def resumed(composed: DictConfig, overrides: list[str]) -> tuple[DictConfig, Path, Checkpoint]:
    """The settings of the run that `resume` names, its directory, and where it stopped.

    Args:
        composed: what Hydra composed, with `resume` set to a run's directory or its id in MLflow.
        overrides: the command line; beside `resume` it may set what is in `FREE`.

    Raises:
        ConfigError: there is no such run, it is complete, or its settings would change. A run whose
            rounds are all done but that was killed before its end is not complete: what is left is
            its record.
    """
    named = str(composed.resume)
    free = [text for text in overrides if text.partition("=")[0] in FREE]
    if fixed := [
        text for text in overrides if text not in free and text.partition("=")[0] != "resume"
    ]:
        raise ConfigError(
            "resume",
            named,
            f"a run goes on with its own settings; {' '.join(fixed)} would change them",
            allowed=", ".join(FREE),
        )
    directory = Path(named) if Path(named).exists() else _directory(named, composed)
    checkpoint = load(directory)
    try:
        settings = compose("config", [*checkpoint.overrides, *free])
    except HydraException as error:
        text = f"its settings cannot be composed again ({str(error).splitlines()[0]})"
        raise ConfigError(
            "resume", named, text, hint="the same --config-dir as the run had"
        ) from None
    given = {text.partition("=")[0] for text in free}
    changed = [
        f"{key} was {was}, is {now}"
        for key, was, now in _differences(checkpoint.settings, flatten(settings))
        if key not in given
        and not key.startswith("paths.")
        and key not in ("resume", "tracking.uri")
    ]
    if changed:
        text = f"the settings' files have changed since: {'; '.join(changed)}"
        raise ConfigError("resume", named, text, hint="the files as they were, or a new run")
    rounds, aim = settings.federation.rounds, settings.federation.target_accuracy
    accuracies = checkpoint.report.get("accuracies", {}).values()
    if (directory / FINISHED).exists():
        if aim is not None and any(accuracy >= aim for accuracy in accuracies):
            text, hint = (
                f"it reached its federation.target_accuracy={aim}",
                "federation.target_accuracy=null",
            )
            raise ConfigError("resume", named, text, hint=f"{hint}, or a higher one, to go further")
        if checkpoint.round >= rounds:
            text = f"all of its federation.rounds={rounds} are done"
            raise ConfigError(
                "resume", named, text, hint=f"federation.rounds={2 * rounds}, to go further"
            )
    with open_dict(settings):
        settings.resume = str(directory)
    (directory / FINISHED).unlink(missing_ok=True)
    kept = [text for text in free if not text.startswith("tracking.uri=")]
    return settings, directory, replace(checkpoint, overrides=[*checkpoint.overrides, *kept])


def _directory(named: str, composed: DictConfig) -> Path:
    """Of a run that is known by its id."""
    from hyperlock.tracking.mlflow import directory_of

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


def _differences(before: dict[str, str], now: dict[str, str]) -> list[tuple[str, str, str]]:
    keys = sorted(before.keys() | now.keys())
    missing = "not set"
    return [
        (key, before.get(key, missing), now.get(key, missing))
        for key in keys
        if before.get(key, missing) != now.get(key, missing)
    ]
