"""What a sweep searches, over Hydra's configuration: which keys vary and how, which are fixed, and
which of them a trial's groups have at all."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    DiscreteUniformDistribution,
    IntUniformDistribution,
)

from hyperlock.errors import ConfigError
from hyperlock.settings.overrides import Overrides

ANOTHER_STUDY = "hydra.sweeper.study_name=ANOTHER"  # what to try


class Composer:
    """What Hydra composes out of a trial's overrides, and which keys there are then.

    Args:
        loader: Hydra's own.
        config: the sweep's, which the trials' are composed like.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self.loader = loader
        self._config = config
        # Most trials choose among few combinations of groups.
        self._composed_groups = functools.cache(self._compose)
        # Hydra looks for a group's options on the disk, through every place it searches.
        self._options = functools.cache(self.loader.get_group_options)

    def is_group(self, key: str) -> bool:
        """Whether a key names a folder under `conf/`, not a setting."""
        return bool(self._options(key.lstrip("+").partition("@")[0]))

    def groups_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The choices of groups among them."""
        return {key: value for key, value in values.items() if self.is_group(key)}

    def applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether a key is one of a trial's, given the groups that are chosen for it."""
        if key[0] in "+~" or self.is_group(key):
            return True
        parent, _, leaf = key.rpartition(".")
        groups = tuple(f"{group}={option}" for group, option in chosen.items())
        node: Any = self._composed_groups(groups)
        if parent:
            node = OmegaConf.select(node, parent, throw_on_missing=False)
        # `in` alone misses keys whose value is `???`.
        return not isinstance(node, DictConfig) or leaf in set(node.keys())

    def refusal(self, overrides: Sequence[str]) -> ConfigError | None:
        """Why a trial's overrides do not compose; None if they do."""
        try:
            self._compose(tuple(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            return ConfigError("trial", " ".join(overrides), str(error).splitlines()[0])
        return None

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig:
        return self.loader.load_sweep_config(self._config, list(overrides))


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        searched: what varies, groups first, since which other keys there are depends on them.
        fixed: what all trials are given alike.
    """

    searched: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any]

    def choices(self) -> dict[str, list[Any]]:
        """Every value of every key, for a grid.

        Raises:
            ConfigError: a key is searched over an interval.
        """
        return {key: _choices(key, distribution) for key, distribution in self.searched.items()}

    def refuse_other(self, begun: Mapping[str, BaseDistribution]) -> None:
        """Refuse to continue a study whose trials drew a key in another way: an interval may be
        another one now, choices must be the same, since Optuna knows them by their place.

        Raises:
            ConfigError: names the key, and what it was searched over.
        """
        for key, before in begun.items():
            now = self.searched.get(key, before)
            other_choices = isinstance(now, CategoricalDistribution) and now != before
            if type(now) is not type(before) or other_choices:
                raise ConfigError(
                    key,
                    getattr(now, "choices", now),
                    f"the study was begun with {getattr(before, 'choices', before)}",
                    hint=ANOTHER_STUDY,
                )


def read_space(own: Sequence[str], typed: Sequence[str], composer: Composer) -> Space:
    """The search's own overrides and the command line's, which take the place of those of the same
    key.

    Raises:
        ConfigError: there is nothing to search, or a key that no trial has.
    """
    # Hydra's own parser reads both, so that the search's file may say what the command line may.
    left = Overrides(own).without(*Overrides(typed).keys).texts
    parser = OverridesParser.create(config_loader=composer.loader)
    parsed = parser.parse_overrides([*left, *typed])
    searched, fixed = create_params_from_overrides([_without_glob(each) for each in parsed])
    if not searched:
        raise ConfigError(
            "hydra.sweeper.params",
            {},
            "there is nothing to search",
            hint="hparams_search=original, or a choice such as encryption.value_bits=8,16",
        )

    # Sorted and checked: a misspelt key would be left out of every trial without a word.
    groups_first = sorted(searched, key=lambda key: not composer.is_group(key))
    space = Space({key: searched[key] for key in groups_first}, fixed)
    for key in space.searched:
        _check_key(key, space, composer)
    return space


def _check_key(key: str, space: Space, composer: Composer) -> None:
    """Refuse a key that no trial has, whichever option of its own group is chosen."""
    chosen = composer.groups_in(space.fixed)
    group = key.partition(".")[0]
    cases = [chosen]
    distribution = space.searched.get(group)
    if isinstance(distribution, CategoricalDistribution):
        cases = [{**chosen, group: option} if option else chosen for option in distribution.choices]
    if not any(composer.applies(key, case) for case in cases):
        raise ConfigError(
            key,
            "...",
            "the search names a setting that there is not",
            hint="python run.py --cfg job",
        )


def _without_glob(override: Override) -> str:
    """`group=glob(*)` as the choice that it stands for; anything else as it is."""
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return f"{override.get_key_element()}=choice({','.join(override.sweep_string_iterator())})"
    return str(override.input_line)


def _choices(key: str, distribution: BaseDistribution) -> list[Any]:
    match distribution:
        case CategoricalDistribution():
            return list(distribution.choices)
        case IntUniformDistribution():
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        case DiscreteUniformDistribution():
            count = round((distribution.high - distribution.low) / distribution.q) + 1
            return [distribution.low + i * distribution.q for i in range(count)]
    raise ConfigError(
        "hydra/sweeper/sampler",
        "grid",
        f"{key} is searched over an interval, not over choices",
        hint="hydra/sweeper/sampler=tpe",
    )
