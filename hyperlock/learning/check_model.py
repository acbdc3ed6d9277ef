"""A user's own model: built, and refused with a reason before anything is trained if it cannot be.

A builder is any function of `shape` (of one sample), `classes` (their number) and the model group's
other keys that returns a Keras model mapping [batch, *shape] float32 to [batch, classes] logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.learning.network import Network
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Samples

_PROBE = 4  # samples that a model is tried on


def build(make: Callable[[], Any], target: str, samples: Samples) -> Any:
    """The Keras model that `make` returns.

    Raises:
        ConfigError: it raises, or what it returns cannot be trained as a federation's model.
    """
    due = f"a Keras model of samples {_batch(samples.shape)} to logits {_batch((samples.classes,))}"
    model = _made(make, target, due)
    outputs, state = _tried(model, target, samples.shape, due)

    # What comes out of it.
    got = getattr(outputs, "shape", None)
    if got is None or tuple(got) != (_PROBE, samples.classes):
        what = type(outputs).__name__ if got is None else _batch(tuple(got)[1:])
        raise _refusal(target, f"for samples {_batch(samples.shape)} the model gives {what}", due)

    # What it is made of; then what only a trained model's values would show.
    _refuse_state(model, target, state)
    _refuse_weights(model, target)
    values = np.asarray(outputs, np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-4):
        raise _refusal(target, "the model gives probabilities", due, "no softmax in its last layer")
    return model


def try_training(network: Network, target: str) -> None:
    """Train on one batch, which is thrown away: a model that only works outside of a graph is found
    out here.

    Raises:
        ConfigError: it raises.
    """
    x = np.zeros((1, *network.samples.shape), network.samples.dtype)
    y = np.zeros(1, np.int32)
    try:
        network.train(network.initial_weights(), x, y, np.arange(1), 0.0)
    except Exception as error:
        raise _refusal(
            target,
            f"training the model raised {said(error)}",
            "a model that TensorFlow can trace as a graph",
        ) from error


def refuse_unsaved(model: Any, target: str) -> None:
    """Refuse a model that Keras could not save at the run's end."""
    try:
        model.to_json()
    except Exception as error:
        raise _refusal(
            target,
            f"Keras cannot save the model ({said(error)})",
            "Sequential and functional models, and subclasses with get_config()",
            "tracking.log_model=false",
        ) from error


def said(error: Exception) -> str:
    """An error in one line: Keras' span pages, and TensorFlow's end with what matters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines[:1] == ["in user code:"] else " ".join(lines)
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"


def _made(make: Callable[[], Any], target: str, due: str) -> Any:
    """What `make` returns, if it is a Keras model."""
    try:
        model = make()
    except HyperLockError:
        raise
    except Exception as error:  # whatever a user's function raises
        keys = "model=own, then its keys as +model.KEY=VALUE"
        raise _refusal(
            target,
            f"it raised {said(error)}",
            f"a function of shape, classes and the model group's other keys that returns {due}",
            keys if isinstance(error, TypeError) else "",
        ) from error
    if not isinstance(model, tf.keras.Model):
        kind = type(model)
        raise _refusal(target, f"it returned {kind.__module__}.{kind.__name__}", due)
    return model


def _tried(model: Any, target: str, shape: tuple[int, ...], due: str) -> tuple[Any, list[Any]]:
    """Its outputs for a few samples, and its state beside the trained weights: all other variables,
    but for the states of random numbers that nothing draws from in training."""
    x = np.random.default_rng(0).random((_PROBE, *shape), np.float32)
    try:
        outputs = model(x, training=False)
        before = {variable.path: variable.numpy().tolist() for variable in _seeds(model)}
        model(x, training=True)
    except Exception as error:
        raise _refusal(target, f"the model raised {said(error)}", due) from error
    unused = {
        id(variable)
        for variable in _seeds(model)
        if before.get(variable.path) == variable.numpy().tolist()
    }
    state = [variable for variable in model.non_trainable_variables if id(variable) not in unused]
    return outputs, state


def _seeds(model: Any) -> list[Any]:
    """States of random numbers; recurrent layers have one even if they draw none."""
    return [
        variable for variable in model.non_trainable_variables if "seed_generator" in variable.path
    ]


def _refuse_state(model: Any, target: str, state: list[Any]) -> None:
    """ConfigError if there is state beside the trained weights, saying which layers have it."""
    if not state:
        return
    why = sorted({_why_untrained(model, variable) for variable in state})
    more = f", and {len(why) - 3} more" if len(why) > 3 else ""
    raise _refusal(
        target,
        "the model has state that is not trained, which cannot be averaged as an update: "
        f"{'; '.join(why[:3])}{more}",
        "layers whose weights are all trained",
        "GroupNormalization or LayerNormalization in place of BatchNormalization; no "
        "Dropout; nothing frozen",
    )


def _refuse_weights(model: Any, target: str) -> None:
    """ConfigError unless the weights are float32 and decided by the loss alone."""
    weights = model.trainable_variables
    if not weights:
        raise _refusal(target, "the model has no weights to train", "at least one trained layer")
    kinds = {str(variable.dtype) for variable in weights}
    if kinds != {"float32"}:
        raise _refusal(
            target, f"the model's weights are {', '.join(sorted(kinds))}", "weights of float32"
        )
    if model.losses or any(variable.constraint is not None for variable in weights):
        raise _refusal(
            target,
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
    if not owner.trainable:
        return f"{name} is frozen"
    return f"{name} keeps {variable.name}"


def _batch(shape: tuple[int, ...]) -> str:
    return f"[batch, {', '.join(map(str, shape))}]" if shape else "[batch]"


def _refusal(target: str, problem: str, allowed: str, hint: str = "") -> ConfigError:
    return ConfigError("model._target_", target, problem, allowed=allowed, hint=hint)
