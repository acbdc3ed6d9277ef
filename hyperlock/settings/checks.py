"""What settings must be, beyond their types, and between groups. Nothing heavy is imported to say
so."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from hyperlock.encryption.grid import MAX_VALUE_BITS, MIN_VALUE_BITS
from hyperlock.errors import ConfigError
from hyperlock.metrics import metric_names
from hyperlock.settings.parse import Config
from hyperlock.settings.schema import LocalTraining


def check(config: Config) -> None:
    """Raise ConfigError for the first setting that cannot work."""
    _check_learning(config)
    _check_federation(config)
    _check_keys(config)
    _check_encryption(config)


def _check(
    ok: bool, setting: str, value: object, problem: str, *, allowed: str = "", hint: str = ""
) -> None:
    if not ok:
        raise ConfigError(setting, value, problem, allowed=allowed, hint=hint)


def _at_least(minimum: float, setting: str, value: float | None, hint: str = "") -> None:
    if value is not None:
        _check(
            minimum <= value < float("inf"),
            setting,
            value,
            "is too small" if value < minimum else "is not finite",
            allowed=f"at least {minimum}",
            hint=hint,
        )


def _positive(setting: str, value: float) -> None:
    _check(
        0 < value < float("inf"),
        setting,
        value,
        "must be a positive number",
        allowed="above 0, finite",
    )


def _share(setting: str, value: float, hint: str) -> None:
    _check(
        0 <= value < 1, setting, value, "is out of range", allowed="0 or more, below 1", hint=hint
    )


def _check_learning(config: Config) -> None:
    _check(
        0 <= config.seed < 2**32, "seed", config.seed, "is out of range", allowed="0 to 4294967295"
    )
    for setting in ("units", "layers"):
        if hasattr(config.model, setting):
            _at_least(1, f"model.{setting}", getattr(config.model, setting), f"model.{setting}=128")
    _at_least(0, "checkpoint_every", config.checkpoint_every, "checkpoint_every=1")
    _at_least(1, "runtime.workers", config.runtime.workers, "runtime.workers=1")


def _check_federation(config: Config) -> None:
    federation = config.federation
    _at_least(1, "federation.rounds", federation.rounds, "federation.rounds=10")
    _at_least(1, "federation.clients", federation.clients, "federation.clients=10")
    _at_least(1, "federation.round_attempts", federation.round_attempts)
    _positive("federation.learning_rate", federation.learning_rate)
    _share("federation.dropout", federation.dropout, "federation.dropout=0.1")
    decay = federation.learning_rate_decay
    allowed = "above 0, at most 1; 1 for none"
    _check(0 < decay <= 1, "federation.learning_rate_decay", decay, "is no decay", allowed=allowed)
    _at_least(
        1, "federation.evaluate_every", federation.evaluate_every, "federation.evaluate_every=1"
    )
    _check_target(config)
    if isinstance(federation, LocalTraining):
        _check_local_training(federation)
    if federation.cohort is not None and federation.fraction is not None:
        raise ConfigError(
            "federation.fraction",
            federation.fraction,
            f"federation.cohort={federation.cohort} is set too",
            hint="one of the two",
        )
    if federation.fraction is not None:
        _check(
            0 < federation.fraction <= 1,
            "federation.fraction",
            federation.fraction,
            "is no share of the clients",
            allowed="above 0, at most 1",
            hint="federation.fraction=0.1",
        )
    if federation.cohort is not None:
        _check(
            1 <= federation.cohort <= federation.clients,
            "federation.cohort",
            federation.cohort,
            f"a cohort is drawn from federation.clients={federation.clients}",
            allowed=f"1 to {federation.clients}",
            hint=f"federation.clients={federation.cohort}",
        )


def _check_target(config: Config) -> None:
    target = config.federation.target_accuracy
    named = config.objective if isinstance(config.objective, list) else [config.objective]
    if target is not None:
        allowed = "above 0, at most 1; null for none"
        _check(
            0 < target <= 1, "federation.target_accuracy", target, "is no accuracy", allowed=allowed
        )
    elif "rounds_to_target" in named:
        problem = "objective=rounds_to_target counts the rounds to it"
        raise ConfigError(
            "federation.target_accuracy", None, problem, hint="federation.target_accuracy=0.97"
        )


def _check_local_training(federation: LocalTraining) -> None:
    epochs, steps = federation.local_epochs, federation.local_steps
    if steps is not None and epochs is not None:
        problem = f"federation.local_epochs={epochs} is set too"
        hint = f"federation.local_epochs=null federation.local_steps={steps}"
        raise ConfigError(
            "federation.local_steps", steps, problem, allowed="one of the two", hint=hint
        )
    if steps is None and epochs is None:
        problem = "federation.local_steps=null too, so that nobody would train"
        raise ConfigError(
            "federation.local_epochs", None, problem, hint="federation.local_epochs=1"
        )
    _at_least(1, "federation.local_epochs", epochs)
    _at_least(1, "federation.local_steps", steps)
    _at_least(1, "federation.batch_size", federation.batch_size)
    _positive("federation.server_learning_rate", federation.server_learning_rate)
    _at_least(0, "federation.mu", getattr(federation, "mu", None), "federation.mu=0.01")
    for name in ("server_momentum", "beta1", "beta2"):
        _share(f"federation.{name}", getattr(federation, name, 0.0), f"federation.{name}=0.9")
    _positive("federation.tau", getattr(federation, "tau", 1.0))


def _check_keys(config: Config) -> None:
    federation, keys = config.federation, config.keys
    cohort = federation.cohort_size
    _check(
        keys.min_clients >= 2,
        "keys.min_clients",
        keys.min_clients,
        "the sum of one update is that update",
        allowed="at least 2",
        hint="keys.min_clients=3",
    )
    what = (
        "federation.fraction"
        if federation.fraction
        else "federation.cohort"
        if federation.cohort
        else "federation.clients"
    )
    _check(
        keys.min_clients <= cohort,
        "keys.min_clients",
        keys.min_clients,
        f"a round has only {cohort} clients ({what}), so that nothing would ever be released",
        allowed=f"2 to {cohort}" if cohort >= 2 else f"a cohort of at least 2, by {what}",
        hint=f"keys.min_clients={cohort}"
        if cohort >= 2
        else "federation.fraction=null federation.cohort=3",
    )

    if keys.path is None:
        return
    _check(
        config.encryption.scheme != "none",
        "keys.path",
        keys.path,
        "encryption=none has no keys to keep",
        hint="keys.path=null",
    )
    _check(
        not Path(os.path.expanduser(keys.path))
        .resolve()
        .is_relative_to(Path(config.paths.root).resolve()),
        "keys.path",
        keys.path,
        "lies in the project's folder, from where keys get into version control and backups of "
        "outputs",
        allowed=f"a file outside {config.paths.root}",
        hint="keys.path=$HOME/.hyperlock/NAME.key",
    )


def _check_encryption(config: Config) -> None:
    encryption, cohort = config.encryption, config.federation.cohort_size
    _check(
        MIN_VALUE_BITS <= encryption.value_bits <= MAX_VALUE_BITS,
        "encryption.value_bits",
        encryption.value_bits,
        "is outside what the grid holds",
        allowed=f"{MIN_VALUE_BITS} to {MAX_VALUE_BITS}",
        hint="encryption.value_bits=8",
    )
    _check(
        1e-30 <= encryption.initial_range <= 1e30,
        "encryption.initial_range",
        encryption.initial_range,
        "is no range that float32 holds",
        allowed="1e-30 to 1e30",
        hint="encryption.initial_range=0.5",
    )
    _check(
        1 < encryption.range_factor < float("inf"),
        "encryption.range_factor",
        encryption.range_factor,
        "updates as large as the mean would already saturate",
        allowed="above 1",
        hint="encryption.range_factor=4",
    )
    if encryption.max_clients is not None:
        _check(
            cohort <= encryption.max_clients <= 2**20,
            "encryption.max_clients",
            encryption.max_clients,
            f"a cohort of {cohort} updates must fit into a sum",
            allowed=f"{cohort} to {2**20}",
            hint="encryption.max_clients=null",
        )


def objective_names(composed: DictConfig) -> list[str]:
    """What `objective` names, one metric or a list."""
    named = composed.objective
    return [str(name) for name in named] if isinstance(named, ListConfig) else [str(named)]


def check_objectives(names: Sequence[str], known: Collection[str] = ()) -> None:
    """Refuse an objective that no run has as a metric.

    Raises:
        ConfigError: names the objective, and the metrics that exist.
    """
    known = known or metric_names()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"objective={near[0]}" if near else "objective=accuracy"
            raise ConfigError(
                "objective",
                name,
                "the run has no such metric",
                allowed=", ".join(sorted(known)),
                hint=hint,
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            "objective",
            names,
            "must name one metric, or several different ones",
            hint="objective=accuracy",
        )
