"""What an Invite says: a run's terms, typed, and what a site agrees to.

An offer is settings of five groups and what everybody may know of the samples. It is no command
line: nothing in it is composed, interpolated or looked up, and a function that it names is one of
HyperLock's or one that the site's own file lists; anything else is refused before it is imported.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import msgpack
import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperlock.errors import ConfigError, MessageRefused
from hyperlock.learning.types import Samples
from hyperlock.settings.checks import check
from hyperlock.settings.construct import OURS, TARGET, target
from hyperlock.settings.schema import (
    EVALUATION,
    SCHEMAS,
    Config,
    DigitsDataset,
    FlowerRuntime,
    LogisticModel,
    NoTracking,
    SitesSplit,
)
from hyperlock.version import VERSION

if TYPE_CHECKING:
    from hyperlock.sites.site import Limits

GROUPS = ("model", "federation", "encryption", "keys", "trust", "privacy")
_NAMED_BY = {"keys": "custody", "trust": "level", "privacy": "unit"}  # where no `_target_` says it
MOST_BYTES = 2**16
_MOST_TEXT = 512
_MOST_ITEMS = 4096
_DIMENSIONS = 8
_DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Offer:
    """The terms of one run.

    Attributes:
        settings: by group, as the schema has them; `seed` beside them.
        samples: shape, dtype and classes.
        sizes: coordinates of each tensor of the model.
        weight_unit: the sample count that gives a site weight 1.
        initial: SHA-256 of the initial weights.
        evaluation: on whose test samples, one of `EVALUATION`.
        version: of HyperLock.
    """

    settings: Mapping[str, Any] = field(repr=False)
    samples: Samples
    sizes: tuple[int, ...]
    weight_unit: float
    initial: bytes = field(repr=False)
    evaluation: str
    version: str = VERSION

    @classmethod
    def of(
        cls,
        config: Config,
        samples: Samples,
        sizes: Collection[int],
        weight_unit: float,
        initial: bytes,
    ) -> Offer:
        """The offer of a coordinator with these settings."""
        groups = {group: _plain(getattr(config, group)) for group in GROUPS}
        settings = {**groups, "seed": config.seed}
        by = config.runtime.evaluation
        return cls(settings, samples, tuple(sizes), weight_unit, initial, by)

    @cached_property
    def payload(self) -> bytes:
        """As an Invite carries it."""
        samples = [list(self.samples.shape), str(self.samples.dtype), self.samples.classes]
        content = [
            self.version,
            dict(self.settings),
            samples,
            list(self.sizes),
            self.weight_unit,
            self.initial,
            self.evaluation,
        ]
        return cast(bytes, msgpack.packb(content))

    @property
    def fingerprint(self) -> str:
        """Of all of it, to be named when it is approved."""
        return hashlib.sha256(self.payload).hexdigest()[:32]

    @classmethod
    def read(cls, payload: bytes | memoryview) -> Offer:
        """The inverse.

        Raises:
            MessageRefused: it is none, or of another version of HyperLock.
        """
        try:
            found = msgpack.unpackb(
                payload,
                max_str_len=_MOST_TEXT,
                max_bin_len=hashlib.sha256().digest_size,
                max_array_len=_MOST_ITEMS,
                max_map_len=_MOST_ITEMS,
                max_ext_len=0,
            )
            version, *others = found
            if type(found) is not list or type(version) is not str:
                raise ValueError("no offer")
        except Exception as error:  # msgpack raises many kinds for malformed input
            raise MessageRefused(f"not an offer ({type(error).__name__})") from None
        if version != VERSION:
            raise MessageRefused(
                f"the coordinator has HyperLock {version!r:.40}, and this party {VERSION}"
            )
        try:
            settings, (shape, dtype, classes), sizes, weight_unit, initial, evaluation = others
            if dtype not in _DTYPES or len(shape) > _DIMENSIONS:
                raise ValueError("no samples")
            whole = [*shape, classes, *sizes, len(sizes)]
            if not all(type(n) is int and 1 <= n < 2**31 for n in whole):
                raise ValueError("no sizes")
            if type(weight_unit) is not float or not 0 < weight_unit < 2**31:
                raise ValueError("no weight unit")
            if type(initial) is not bytes or len(initial) != hashlib.sha256().digest_size:
                raise ValueError("no digest")
            if evaluation not in EVALUATION:
                raise ValueError("nobody evaluates")
            if type(settings) is not dict or settings.keys() != {*GROUPS, "seed"}:
                raise ValueError("other settings than those of an offer")
        except (TypeError, ValueError) as error:
            raise MessageRefused(f"not an offer ({error})") from None
        samples = Samples(tuple(shape), np.dtype(dtype), classes)
        return cls(settings, samples, tuple(sizes), weight_unit, initial, evaluation)

    def config(self, sites: int, functions: Collection[str] = ()) -> Config:
        """Its settings, typed and checked as those of any run.

        Args:
            sites: how many there are.
            functions: a party's own that may be named, beside HyperLock's.

        Raises:
            MessageRefused: a setting is unknown, of another type or out of bounds, or names a
                function that is neither.
        """
        groups = {group: self._group(group, functions) for group in GROUPS}
        seed = self.settings["seed"]
        if type(seed) is not int:
            raise MessageRefused("the offer's seed is no number")
        config = Config(
            seed=seed,
            dataset=DigitsDataset(seed=0),
            split=SitesSplit(),
            runtime=FlowerRuntime(
                folder="", weight_unit=self.weight_unit, evaluation=self.evaluation
            ),
            tracking=NoTracking(),
            **groups,
        )
        try:
            check(config)
        except ConfigError as error:
            raise MessageRefused(f"the offer cannot work: {error}") from None
        if config.federation.clients != sites:
            raise MessageRefused(
                f"an offer for {config.federation.clients} sites, and the project has {sites}"
            )
        return config

    def refuse_larger(self, config: Config) -> None:
        """MessageRefused if HyperLock's own model of these settings has larger tensors than the
        offer says: before anything of that size is made."""
        largest = max(self.sizes)
        inputs = math.prod(self.samples.shape)
        model = config.model
        if not target(model).startswith(OURS):
            return  # a site's own, which it knows
        units = getattr(model, "units", 1)
        layers = getattr(model, "layers", 1)
        tensors = [units * inputs, units * units if layers > 1 else 0, self.samples.classes]
        if isinstance(model, LogisticModel):
            tensors.append(self.samples.classes * inputs)
        if max(tensors) > largest or layers > len(self.sizes):
            raise MessageRefused("the model has larger tensors than its offer says")

    def outside(self, config: Config, limits: Limits, today: datetime.date) -> list[str]:
        """What of it is outside a site's limits, one line each; none if it is within all."""
        late = limits.until is not None and today > limits.until
        federation = config.federation
        keys = config.keys
        encryption = config.encryption.scheme
        least = "malicious" if limits.trust == "malicious" else "curious"
        model = _model_name(target(config.model))
        steps = getattr(federation, "local_steps", None)
        epochs = getattr(federation, "local_epochs", None) or steps or 1
        parameters = sum(self.sizes)
        found = {
            f"model {model}, and the site's are {', '.join(limits.models)}": (
                model not in limits.models
            ),
            f"encryption={encryption}, and the site's are {', '.join(limits.encryption)}": (
                encryption not in limits.encryption
            ),
            f"keys={keys.custody}, and the site's are {', '.join(limits.keys)}": (
                keys.custody not in limits.keys
            ),
            f"trust={config.trust.level}, and the site wants {least}": (
                least == "malicious" and not config.trust.malicious
            ),
            f"{parameters} parameters, and the site's limit is {limits.parameters}": (
                parameters > limits.parameters
            ),
            f"{federation.rounds} rounds, and the site's limit is {limits.rounds}": (
                federation.rounds > limits.rounds
            ),
            f"{epochs} local epochs or steps, and the site's limit is {limits.local_epochs}": (
                epochs > limits.local_epochs
            ),
            f"keys.min_clients={keys.min_clients}, and the site wants {limits.min_clients}": (
                keys.min_clients < limits.min_clients
            ),
            f"keys.colluders={keys.colluders}, and the site wants {limits.colluders}": (
                keys.colluders < limits.colluders
            ),
            f"{_cost(config)}, and the site's limit is epsilon {limits.epsilon}": (
                limits.epsilon is not None and not _costs_at_most(config, limits.epsilon)
            ),
            f"today is {today}, and the site takes part until {limits.until}": late,
        }
        return [text for text, differs in found.items() if differs]

    def _group(self, group: str, functions: Collection[str]) -> Any:
        """A group's settings by its schema."""
        node = self.settings[group]
        if type(node) is not dict or not all(type(key) is str for key in node):
            raise MessageRefused(f"the offer's {group} is no group of settings")
        schema = _schema(group, node, functions)
        if schema is None:
            return {key: _scalar(f"{group}.{key}", value) for key, value in node.items()}
        known = {each.name for each in fields(schema)}
        unknown = sorted(node.keys() - known - {"options"})
        if unknown:
            raise MessageRefused(f"the offer sets {group}.{unknown[0]:.60}, which is no setting")
        values = {key: _scalar(f"{group}.{key}", value) for key, value in node.items()}
        try:
            return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise MessageRefused(f"the offer's {group} cannot be: {reason:.200}") from None


def _costs_at_most(config: Config, epsilon: float) -> bool:
    """Whether a run is private within this."""
    budget = config.privacy.epsilon if config.private else None
    return budget is not None and budget <= epsilon


def _cost(config: Config) -> str:
    """What a run costs, in words."""
    if not config.private:
        return "no differential privacy"
    if config.privacy.epsilon is None:
        return "privacy without a budget (privacy.epsilon=null)"
    return f"epsilon {config.privacy.epsilon:g} of one {config.privacy.unit}"


def _schema(group: str, node: Mapping[str, Any], functions: Collection[str]) -> Any:
    """What the group must be: by its `_target_`, or by the option that it names itself; None for a
    model of a user's own, whose keys only its function knows."""
    options = SCHEMAS[group]
    if group in _NAMED_BY:
        name = node.get(_NAMED_BY[group])
        if name not in options:
            raise MessageRefused(f"the offer's {group} is {name!r:.40}, which is no option")
        return options[name]
    function = node.get(TARGET)
    for schema in options.values():
        if function == getattr(schema, TARGET):
            return schema
    if function in functions:
        return options.get("own")
    raise MessageRefused(
        f"the offer's {group} names {function!r:.200}, which is neither HyperLock's nor in the "
        "`functions` of this site's own file"
    )


def _scalar(name: str, value: Any) -> Any:
    """A number, a word, or a list or group of such; nothing that OmegaConf would look up."""
    if type(value) is str:
        if "${" in value or value == "???":
            raise MessageRefused(f"the offer's {name} is {value!r:.60}, which is no value")
        return value
    if type(value) is list:
        return [_scalar(name, item) for item in value]
    if type(value) is dict:
        return {str(key): _scalar(f"{name}.{key}", item) for key, item in value.items()}
    if value is None or type(value) in (int, float, bool):
        return value
    raise MessageRefused(f"the offer's {name} is no value")


def _plain(node: Any) -> dict[str, Any]:
    """A group as msgpack takes it."""
    if is_dataclass(node):
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(node)))
    return dict(node)


def _model_name(function: str) -> str:
    """The option of a model of HyperLock's; a user's own by its function."""
    for name, schema in SCHEMAS["model"].items():
        if getattr(schema, TARGET) == function:
            return name
    assert not function.startswith(OURS)
    return function
