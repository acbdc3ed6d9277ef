"""A user's own algorithm: built, tried once, and refused with a reason before a round is played if
it cannot work.

It is any function of a network and the federation group's training keys that returns an
`Algorithm`. What it is tried on, one sample of zeros with the label 0, is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

import numpy as np

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.learning.check_model import said
from hyperlock.learning.network import Network
from hyperlock.learning.types import Algorithm, LocalData, LocalUpdate, Mean, Weights

_FUNCTION = (
    "a function of network, learning_rate, learning_rate_decay, batch_size and the keys of "
    "federation.options that returns hyperlock.learning.types.Algorithm(trainer, optimizer)"
)
_TRAINER = (
    "a function of weights (float32[parameters], read-only), data (x, y), round and rng that "
    "returns hyperlock.learning.types.LocalUpdate(vector, loss)"
)
_OPTIMIZER = "a frozen dataclass with step(weights, mean) that returns weights and the next of it"
_STATE = "fields of arrays and numbers for what changes from step to step, which checkpoints keep"


def build(make: Callable[[], Any], target: str, network: Network) -> Algorithm:
    """The algorithm that `make` returns.

    Raises:
        ConfigError: it raises, or what it returns is not an algorithm that a run can play and
            resume.
    """
    algorithm = _made(make, target)
    weights = network.initial_weights()
    weights.setflags(write=False)  # as they arrive at a client
    update = _trained(algorithm, target, network, weights)
    _refuse_optimizer(algorithm.optimizer, target)
    mean = update.vector.astype(np.float64)
    mean.setflags(write=False)  # the grid's next ranges follow it too
    following = _stepped(algorithm, target, weights, mean)
    _refuse_lost_state(algorithm.optimizer, following, target)
    return algorithm


def _made(make: Callable[[], Any], target: str) -> Algorithm:
    """What `make` returns, if it is an algorithm."""
    try:
        algorithm = make()
    except HyperLockError:
        raise
    except Exception as error:  # whatever a user's function raises
        hint = "+federation.options.KEY=VALUE for each argument beyond these; docs/own-algorithm.md"
        raise _refusal(
            target,
            f"it raised {said(error)}",
            _FUNCTION,
            hint if isinstance(error, TypeError) else "run it by itself, in Python",
        ) from error
    if not isinstance(algorithm, Algorithm):
        hint = "return Algorithm(trainer, optimizer)"
        raise _refusal(target, f"it returned {_kind(algorithm)}", _FUNCTION, hint)
    return algorithm


def _trained(algorithm: Algorithm, target: str, network: Network, weights: Weights) -> LocalUpdate:
    """What its trainer makes of one sample of zeros, if it is an update of this network."""
    samples = network.samples
    data = LocalData(np.zeros((1, *samples.shape), samples.dtype), np.zeros(1, np.int32))
    try:
        update = algorithm.trainer(weights, data, 1, np.random.default_rng(0))
    except Exception as error:
        raise _refusal(
            target,
            f"its trainer raised {said(error)}",
            _TRAINER,
            "hyperlock.learning.local.sgd_epochs(network, 1, LearningRate(0.1)) to begin with",
        ) from error
    if not isinstance(update, LocalUpdate):
        hint = "return LocalUpdate(weights - trained, loss)"
        raise _refusal(target, f"its trainer returned {_kind(update)}", _TRAINER, hint)
    _refuse_other_vector(update.vector, "its trainer's update is", target, weights.size)
    if not isinstance(update.loss, Real):
        hint = "float(loss)"
        raise _refusal(target, f"its trainer's loss is {_kind(update.loss)}", "a number", hint)
    return update


def _refuse_optimizer(optimizer: Any, target: str) -> None:
    """ConfigError unless it is a frozen dataclass whose fields can be given to it again."""
    kind = type(optimizer)
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise _refusal(
            target,
            f"its optimizer, {_kind(optimizer)}, is no frozen dataclass",
            _OPTIMIZER,
            "@dataclass(frozen=True), and dataclasses.replace(self, ...) in step",
        )
    if not callable(getattr(optimizer, "step", None)):
        hint = "hyperlock.learning.optimizers.Sgd(1.0) to begin with"
        raise _refusal(target, f"its optimizer, {_kind(optimizer)}, has no step", _OPTIMIZER, hint)
    unset = [field.name for field in fields(optimizer) if not field.init]
    if unset:
        raise _refusal(
            target,
            f"its optimizer's field {unset[0]} cannot be given to it, as resuming a run does",
            _STATE,
            "no field(init=False)",
        )


def _stepped(algorithm: Algorithm, target: str, weights: Weights, mean: Mean) -> Any:
    """The optimiser after one step by this mean."""
    optimizer = algorithm.optimizer
    try:
        stepped = optimizer.step(weights, mean)
    except Exception as error:
        raise _refusal(
            target,
            f"its optimizer's step raised {said(error)}",
            "step(weights float32[parameters], mean float64[parameters]), which writes to neither",
            "return (weights - mean).astype(np.float32), self",
        ) from error
    if not isinstance(stepped, tuple) or len(stepped) != 2:
        hint = "return after, dataclasses.replace(self, ...)"
        raise _refusal(target, f"its optimizer's step returned {_kind(stepped)}", _OPTIMIZER, hint)
    after, following = stepped
    _refuse_other_vector(after, "its optimizer's step gives weights of", target, weights.size)
    if type(following) is not type(optimizer):
        raise _refusal(
            target,
            f"its optimizer's step turns {_kind(optimizer)} into {_kind(following)}",
            _OPTIMIZER,
            "return after, dataclasses.replace(self, ...)",
        )
    return following


def _refuse_lost_state(before: Any, after: Any, target: str) -> None:
    """ConfigError if a step changes what a checkpoint would not keep."""
    for field in fields(after):
        value = getattr(after, field.name)
        kept = isinstance(value, float | int)
        if isinstance(value, np.ndarray):
            kept = not value.dtype.hasobject
        if not kept and value is not getattr(before, field.name):
            raise _refusal(
                target,
                f"its optimizer's step changes the field {field.name}, which is {_kind(value)}",
                _STATE,
                "a NumPy array, a float or an int, in a field of its own",
            )


def _refuse_other_vector(value: Any, what: str, target: str, parameters: int) -> None:
    """ConfigError unless it is float32[parameters]; that its numbers are finite is not asked."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.float32 and value.shape == (parameters,):
            return
        found = f"{value.dtype}{list(value.shape)}"
    else:
        found = _kind(value)
    raise _refusal(
        target,
        f"{what} {found}",
        f"a NumPy array, float32[{parameters}]",
        ".astype(np.float32) and .ravel() at the end",
    )


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def _refusal(target: str, problem: str, allowed: str, hint: str) -> ConfigError:
    return ConfigError("federation._target_", target, problem, allowed=allowed, hint=hint)
