"""A user's own model: built, and refused with a reason before anything is trained if it cannot be.

A builder is any function of `shape` (of one sample), `classes` (their number) and the model group's
other keys that returns a Keras model mapping [batch, *shape] float32 to [batch, classes] logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.learning.tensorflow import tf

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

_PROBE = 4  # samples that a model is tried on


def build(make: Callable[[], Any], target: str, shape: tuple[int, ...], classes: int) -> Any:
    """The Keras model that `make` returns.

    Raises:
        ConfigError: it raises, or what it returns cannot be trained as a federation's model.
    """

    def refuse(problem: str, allowed: str, hint: str = "") -> ConfigError:
        return ConfigError("model._target_", target, problem, allowed=allowed, hint=hint)

    due = f"a Keras model of samples {_batch(shape)} to logits {_batch((classes,))}"
    try:
        model = make()
    except HyperLockError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise refuse(
            f"it raised {_said(error)}",
            f"a function of shape, classes and the model group's other keys that returns {due}",
            "model=own, then its keys as +model.KEY=VALUE" if isinstance(error, TypeError) else "",
        ) from error
    if not isinstance(model, tf.keras.Model):
        raise refuse(f"it returned {type(model).__module__}.{type(model).__name__}", due)
    x = np.random.default_rng(0).random((_PROBE, *shape), np.float32)
    try:
        outputs = model(x, training=False)
        seeds = {variable.path: variable.numpy().tolist() for variable in _seeds(model)}
        model(x, training=True)
    except Exception as error:
        raise refuse(f"the model raised {_said(error)}", due) from error
    got = getattr(outputs, "shape", None)
    if got is None or tuple(got) != (_PROBE, classes):
        what = type(outputs).__name__ if got is None else _batch(tuple(got)[1:])
        raise refuse(f"for samples {_batch(shape)} the model gives {what}", due)
    unused = [
        variable
        for variable in _seeds(model)
        if seeds.get(variable.path) == variable.numpy().tolist()
    ]
    _refuse_untrainable(model, unused, refuse)
    values = np.asarray(outputs, np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-4):
        raise refuse("the model gives probabilities", due, "no softmax in its last layer")
    return model


def try_training(network: Network, target: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Train on one batch, which is thrown away: a model that only works outside of a graph is found
    out here.

    Raises:
        ConfigError: it raises.
    """
    x, y = np.zeros((1, *shape), dtype), np.zeros(1, np.int32)
    try:
        network.train(network.initial_weights(), x, y, np.arange(1), 0.0)
    except Exception as error:
        raise ConfigError(
            "model._target_",
            target,
            f"training the model raised {_said(error)}",
            allowed="a model that TensorFlow can trace as a graph",
        ) from error


def refuse_unsaved(model: Any, target: str) -> None:
    """Refuse a model that Keras could not save at the run's end."""
    try:
        model.to_json()
    except Exception as error:
        raise ConfigError(
            "model._target_",
            target,
            f"Keras cannot save the model ({_said(error)})",
            allowed="Sequential and functional models, and subclasses with get_config()",
            hint="tracking.log_model=false",
        ) from error


def _seeds(model: Any) -> list[Any]:
    """States of random numbers; recurrent layers have one even if they draw none."""
    return [
        variable for variable in model.non_trainable_variables if "seed_generator" in variable.path
    ]


def _refuse_untrainable(model: Any, unused: list[Any], refuse: Callable[..., ConfigError]) -> None:
    state = [
        _why_untrained(model, variable)
        for variable in model.non_trainable_variables
        if not any(variable is other for other in unused)
    ]
    if state:
        more = f", and {len(set(state)) - 3} more" if len(set(state)) > 3 else ""
        raise refuse(
            "the model has state that is not trained, which cannot be averaged as an update: "
            f"{'; '.join(sorted(set(state))[:3])}{more}",
            "layers whose weights are all trained",
            "GroupNormalization or LayerNormalization in place of BatchNormalization; no "
            "Dropout; nothing frozen",
        )
    if not model.trainable_variables:
        raise refuse("the model has no weights to train", "at least one trained layer")
    kinds = {str(variable.dtype) for variable in model.trainable_variables}
    if kinds != {"float32"}:
        raise refuse(f"the model's weights are {', '.join(sorted(kinds))}", "weights of float32")
    if model.losses or any(
        variable.constraint is not None for variable in model.trainable_variables
    ):
        raise refuse(
            "the model has regularisers or constraints, which local training would leave out",
            "neither",
        )


def _why_untrained(model: Any, variable: Any) -> str:
    """Which layer holds a variable that is not trained, and what for."""
    owner = [
        layer
        for layer in model._flatten_layers()
        if any(v is variable for v in layer.non_trainable_variables)
    ][-1]
    name = f"{type(owner).__name__} ({owner.name})"
    if "seed_generator" in variable.path:
        return f"{name} draws at random, which the run's seed does not decide"
    return f"{name} {'is frozen' if not owner.trainable else f'keeps {variable.name}'}"


def _batch(shape: tuple[int, ...]) -> str:
    return f"[batch, {', '.join(map(str, shape))}]" if shape else "[batch]"


def _said(error: Exception) -> str:
    """An error in one line: Keras' span pages, and TensorFlow's end with what matters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines[:1] == ["in user code:"] else " ".join(lines)
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"
