"""What settings must be under differential privacy, beyond what any run's must be."""

from __future__ import annotations

from difflib import get_close_matches

from hyperlock.errors import ConfigError
from hyperlock.settings.schema import SAMPLING, Config, FedSgd, LocalTraining, SamplePrivacy

# Figures of clients that are not noised, and so are not told.
WITHHELD = ("train/loss", "grid/saturated", "sites/accuracy", "sites/tested")


def check_privacy(config: Config) -> None:
    """Raise ConfigError for the first setting with which nothing would be private, or nothing be
    learned."""
    if not config.private:
        return
    _check_noise(config)
    _check_sampling(config)
    _check_shares(config)
    _check_figures(config)
    if isinstance(config.privacy, SamplePrivacy):
        _check_one_gradient(config)
    else:
        _check_delta(config)


def _check_noise(config: Config) -> None:
    """One of the two is given, or both: then the run ends at the budget."""
    if config.privacy.epsilon is None and config.privacy.noise_multiplier is None:
        raise ConfigError(
            "privacy.epsilon",
            None,
            "privacy.noise_multiplier=null too, so that nothing says how much noise there is",
            hint="privacy.epsilon=8",
        )


def _check_sampling(config: Config) -> None:
    by = config.privacy.sampling
    federation = config.federation
    options = SAMPLING if config.privacy.unit == "client" else ("all", "balanced")
    if by not in options:
        near = get_close_matches(by, options, 1)
        chance = by == "poisson" and "clients draw their samples by chance already, in secret"
        raise ConfigError(
            "privacy.sampling",
            by,
            chance or "is no way to draw cohorts",
            allowed=", ".join(options),
            hint=f"privacy.sampling={near[0] if near else options[0]}",
        )
    if by == "all" and federation.cohort_size < federation.clients:
        setting = "cohort" if federation.cohort is not None else "fraction"
        raise ConfigError(
            f"federation.{setting}",
            getattr(federation, setting),
            "privacy.sampling=all asks every client in every round",
            hint="privacy.sampling=balanced",
        )
    if by == "poisson" and config.trust.malicious:
        raise ConfigError(
            "privacy.sampling",
            by,
            "under trust=malicious cohorts are shown when the run is over, and chance hides nobody",
            allowed="balanced, all",
            hint="privacy.sampling=balanced",
        )


def _check_shares(config: Config) -> None:
    """Two honest clients' noise at least: one would know its own, and read the other's."""
    keys = config.keys
    if keys.min_clients - keys.colluders < 2:
        raise ConfigError(
            "keys.min_clients",
            keys.min_clients,
            f"each client of a sum adds a share of its noise; with keys.colluders={keys.colluders} "
            "known, fewer than two shares are left",
            allowed=f"at least {keys.colluders + 2}; the closer to the cohort "
            f"({config.federation.cohort_size}), the less noise",
            hint=f"keys.min_clients={max(config.federation.cohort_size, keys.colluders + 2)}",
        )


def _check_delta(config: Config) -> None:
    clients = config.federation.clients
    if config.privacy.delta >= 1 / clients:
        raise ConfigError(
            "privacy.delta",
            config.privacy.delta,
            f"one client in {clients} might be read in the clear",
            allowed=f"below 1/{clients}",
            hint=f"privacy.delta={0.1 / clients:.0e}",
        )


def _check_figures(config: Config) -> None:
    if config.clients_evaluate:
        raise ConfigError(
            "runtime.evaluation",
            config.runtime.evaluation,
            "right answers at the sites would be told exactly, beside sums that are noised",
            allowed="coordinator",
            hint="runtime.evaluation=coordinator",
        )
    for name in config.objectives:
        if name in WITHHELD:
            problem = "of clients' data nothing is told that is not noised"
            raise ConfigError("objective", name, problem, hint="objective=accuracy")


def _check_one_gradient(config: Config) -> None:
    """What one sample moves is bounded in one gradient; over several steps nobody knows."""
    federation = config.federation
    if isinstance(federation, FedSgd):
        return
    one = isinstance(federation, LocalTraining) and federation.local_steps == 1
    if not one:
        steps = getattr(federation, "local_steps", None)
        epochs = getattr(federation, "local_epochs", None)
        setting, value = ("local_steps", steps) if steps else ("local_epochs", epochs)
        raise ConfigError(
            f"federation.{setting}",
            value,
            "privacy=sample bounds what one sample does to one gradient; what it does to several "
            "local steps has no bound",
            allowed="federation=fedsgd; or one step, for the servers' optimisers",
            hint="federation=fedsgd, or federation.local_epochs=null federation.local_steps=1",
        )
    if federation.learning_rate_decay != 1:
        raise ConfigError(
            "federation.learning_rate_decay",
            federation.learning_rate_decay,
            "would shrink the clip with the rounds, and not the noise",
            allowed="1, or federation=fedsgd",
            hint="federation.learning_rate_decay=1",
        )
