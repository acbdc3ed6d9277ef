"""What settings must be, beyond their types: bounds of one number, and what several say together.

Nothing heavy is imported to say so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig

from hyperlock.errors import ConfigError
from hyperlock.metrics import metric_names
from hyperlock.settings.private import check_privacy
from hyperlock.settings.schema import (
    EVALUATION,
    MAX_CLIENTS,
    SCHEMAS,
    Config,
    Federation,
    FlowerRuntime,
    LocalTraining,
    SitesDataset,
    SitesSplit,
)


def check(config: Config) -> None:
    """Raise ConfigError for the first setting that cannot work."""
    _check_bounds(config)
    check_objectives([str(name) for name in config.objectives])
    _check_evaluated(config)
    _check_cohort(config.federation)
    _check_target(config)
    if isinstance(config.federation, LocalTraining):
        _check_local_training(config.federation)
    _check_option("keys.custody", config.keys.custody, SCHEMAS["keys"])
    _check_option("trust.level", config.trust.level, SCHEMAS["trust"])
    _check_trust(config)
    _check_min_clients(config)
    _check_max_clients(config)
    _check_runtime(config)
    _check_option("privacy.unit", config.privacy.unit, SCHEMAS["privacy"])
    check_privacy(config)


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
            raise ConfigError(
                "objective",
                name,
                "the run has no such metric",
                allowed=", ".join(sorted(known)),
                hint=f"objective={near[0]}" if near else "objective=accuracy",
            )
    if not names or len(set(names)) < len(names):
        problem = "must name one metric, or several different ones"
        raise ConfigError("objective", names, problem, hint="objective=accuracy")


def _check_option(name: str, value: str, options: Collection[str]) -> None:
    """A word that decides what a group is: one of its options."""
    if value not in options:
        group = name.partition(".")[0]
        near = get_close_matches(value, options, 1)
        raise ConfigError(
            name,
            value,
            f"is no option of {group}",
            allowed=", ".join(options),
            hint=f"{group}={near[0] if near else next(iter(options))}",
        )


def _check_bounds(node: Any, path: str = "") -> None:
    """The bounds that stand in the schema, for every number of every group."""
    for field in fields(node):
        name = f"{path}{field.name}"
        value = getattr(node, field.name)
        if is_dataclass(value):
            _check_bounds(value, f"{name}.")
        bounds = field.metadata.get("bounds")
        unset = value is None and "None" in str(field.type)
        if bounds is None or unset or bounds.hold(value):
            continue
        finite = not isinstance(value, float) or math.isfinite(value) or not bounds.not_finite
        problem = bounds.problem if finite else bounds.not_finite
        hint = f"{name}={bounds.hint}" if bounds.hint else ""
        raise ConfigError(name, value, problem, allowed=bounds.allowed, hint=hint)


def _check_cohort(federation: Federation) -> None:
    cohort = federation.cohort
    if cohort is None:
        return
    if federation.fraction is not None:
        raise ConfigError(
            "federation.fraction",
            federation.fraction,
            f"federation.cohort={cohort} is set too",
            hint="one of the two",
        )
    if not 1 <= cohort <= federation.clients:
        raise ConfigError(
            "federation.cohort",
            cohort,
            f"a cohort is drawn from federation.clients={federation.clients}",
            allowed=f"1 to {federation.clients}",
            hint=f"federation.clients={cohort}",
        )


def _check_target(config: Config) -> None:
    if config.federation.target_accuracy is None and "rounds_to_target" in config.objectives:
        problem = "objective=rounds_to_target counts the rounds to it"
        hint = "federation.target_accuracy=0.97"
        raise ConfigError("federation.target_accuracy", None, problem, hint=hint)


def _check_local_training(federation: LocalTraining) -> None:
    epochs = federation.local_epochs
    steps = federation.local_steps
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


def _check_min_clients(config: Config) -> None:
    least = config.keys.min_clients
    cohort = config.federation.cohort_size
    fewest = config.keys.colluders + 2 if config.trust.malicious else 2
    if least < 2:
        raise ConfigError(
            "keys.min_clients",
            least,
            "the sum of one update is that update",
            allowed="at least 2",
            hint="keys.min_clients=3",
        )
    if least > cohort:
        decided_by = _what_decides_the_cohort(config.federation)
        enough = cohort >= fewest
        raise ConfigError(
            "keys.min_clients",
            least,
            f"a round has only {cohort} clients ({decided_by}), so that nothing would ever be "
            "released",
            allowed=f"{fewest} to {cohort}"
            if enough
            else f"a cohort of at least {fewest}, by {decided_by}",
            hint=f"keys.min_clients={cohort}" if enough else _larger_cohort(config, fewest),
        )


def _larger_cohort(config: Config, least: int) -> str:
    """What makes a round of at least so many clients."""
    federation = config.federation
    if least <= federation.cohort_size:
        return ""
    clients = max(least, 3)
    more = [] if federation.clients >= clients else [f"federation.clients={clients}"]
    if federation.fraction is not None:
        more.append("federation.fraction=null")
    if federation.fraction is not None or federation.cohort is not None:
        more.append(f"federation.cohort={clients}")
    return " ".join(more)


def _check_trust(config: Config) -> None:
    if not config.trust.malicious:
        return
    custody = config.keys.custody
    if custody != "authority":
        held = "the clients share the key" if custody == "clients" else "the server has the key"
        raise ConfigError(
            "trust",
            "malicious",
            f"keys={custody}: {held}, and no commitment or witness can keep a sum from it",
            allowed="keys=authority",
            hint="keys=authority, or trust=curious",
        )
    least = config.keys.colluders + 2
    if config.keys.min_clients < least:
        raise ConfigError(
            "keys.min_clients",
            config.keys.min_clients,
            f"of a sum of so few, keys.colluders={config.keys.colluders} clients can subtract "
            "their own and are left with one client's update",
            allowed=f"at least {least}",
            hint=f"{_larger_cohort(config, least)} keys.min_clients={least}".strip(),
        )


def _check_runtime(config: Config) -> None:
    """Across sites nobody has everybody's samples, and nobody's loss is to be simulated."""
    remote = isinstance(config.runtime, FlowerRuntime)
    if remote != isinstance(config.split, SitesSplit):
        raise ConfigError(
            "split",
            "sites" if not remote else "of one dataset",
            "each site has its own samples"
            if remote
            else "there are no sites: runtime=local has all samples in one process",
            allowed="split=sites with runtime=flower, and any other with runtime=local",
            hint="the same without split=" if remote else "split=iid, or runtime=flower",
        )
    if not remote:
        if isinstance(config.dataset, SitesDataset):
            raise ConfigError(
                "dataset",
                "sites",
                "there are no sites: runtime=local has all samples in one process",
                hint="dataset=mnist, or runtime=flower",
            )
        return
    _check_evaluation(config)
    federation = config.federation
    if federation.dropout:
        problem = "sites are lost by themselves; dropout simulates it where all live in one process"
        raise ConfigError(
            "federation.dropout", federation.dropout, problem, hint="federation.dropout=0"
        )
    if config.keys.custody == "server":
        raise ConfigError(
            "keys",
            "server",
            "the server would read every site's update",
            allowed="keys=authority, or keys=clients with trust=curious",
        )


def _check_evaluated(config: Config) -> None:
    """Objectives that nobody's evaluation gives."""
    both = "of runs across sites in which coordinator and sites evaluate (runtime.evaluation)"
    absent: dict[str, str] = {}
    if not config.clients_evaluate:
        absent = {"sites/accuracy": both, "sites/tested": both}
    elif not config.coordinator_evaluates:
        absent = {"sites/accuracy": both, "loss": "sites tell right answers alone"}
    for name in config.objectives:
        if name in absent:
            raise ConfigError("objective", name, absent[name], hint="objective=accuracy")


def _check_evaluation(config: Config) -> None:
    """Who can say how good the model is, across sites."""
    by = config.runtime.evaluation
    if by not in EVALUATION:
        near = get_close_matches(by, EVALUATION, 1)
        raise ConfigError(
            "runtime.evaluation",
            by,
            "nobody evaluates the model then",
            allowed=", ".join(EVALUATION),
            hint=f"runtime.evaluation={near[0] if near else EVALUATION[0]}",
        )
    if by == "both" and config.keys.custody == "clients":
        raise ConfigError(
            "runtime.evaluation",
            by,
            "with keys=clients the sites alone have the model, and the coordinator cannot test it",
            allowed="sites; or coordinator, where nobody tests it",
            hint="runtime.evaluation=sites",
        )
    if config.coordinator_evaluates and isinstance(config.dataset, SitesDataset):
        raise ConfigError(
            "runtime.evaluation",
            by,
            "with dataset=sites the coordinator has no test set",
            hint="runtime.evaluation=sites; or dataset=npz dataset.path=..., its own test set",
        )


def _what_decides_the_cohort(federation: Federation) -> str:
    for setting in ("fraction", "cohort"):
        if getattr(federation, setting):
            return f"federation.{setting}"
    return "federation.clients"


def _check_max_clients(config: Config) -> None:
    most = config.encryption.max_clients
    cohort = config.federation.cohort_size
    if most is not None and not cohort <= most <= MAX_CLIENTS:
        raise ConfigError(
            "encryption.max_clients",
            most,
            f"a cohort of {cohort} updates must fit into a sum",
            allowed=f"{cohort} to {MAX_CLIENTS}",
            hint="encryption.max_clients=null",
        )
