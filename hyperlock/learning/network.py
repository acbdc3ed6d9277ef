"""A Keras model as pure functions of one flat weight vector.

Weights travel as float32[parameters], the concatenation of the trainable tensors in Keras' order.
Training and gradients run as one traced TensorFlow function over a block of batches, with the loop
inside the graph, so that a local epoch costs a few calls and no Python a step. Blocks have one
fixed shape: the last is padded with samples of weight zero, and the number of batches that count is
an argument. One trace therefore serves all clients, whatever their size. The functions hold no
state: several threads may run them at once.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.learning.local import Vector
from hyperlock.learning.tensorflow import tf

_BLOCK_SAMPLES = 1024  # samples in one call of the traced function
_EVALUATION_BATCH = 2000
_KEPT_TRACES = 8
_COMPILED = {"Sequential", "Functional", "InputLayer", "Flatten", "Dense"}

# The functions depend on the architecture alone, so that another run of it in this process need not
# trace and compile them again.
_traced: dict[tuple[Hashable, ...], tuple[Any, Any, Any, Any]] = {}


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in [0, 1] and mean cross-entropy (nats) over a labelled set."""

    accuracy: float
    loss: float


class Network:
    """Traced functions of one architecture.

    Args:
        model: a Keras model mapping [batch, *shape] to logits, as `check_model.build` lets through.
        shape: shape of one sample.
        dtype: of the samples: uint8, scaled to [0, 1] in the graph, or float32.
        batch_size: samples a batch.
    """

    def __init__(
        self, model: Any, shape: tuple[int, ...], dtype: np.dtype, batch_size: int
    ) -> None:
        self.model = model
        # A subclass may do without.
        self._has_modes = "training" in signature(model.call).parameters
        self._unused = [tf.constant(variable.numpy()) for variable in model.non_trainable_variables]
        self.shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes)
        self.parameters = sum(self.sizes)
        self._batch, self._steps = batch_size, max(1, _BLOCK_SAMPLES // batch_size)
        block = [
            tf.TensorSpec([self._steps, batch_size, *shape], tf.as_dtype(dtype)),
            tf.TensorSpec([self._steps, batch_size], tf.int32),
            tf.TensorSpec([self._steps, batch_size], tf.float32),
            tf.TensorSpec([], tf.int32),
        ]
        flat, scalar = tf.TensorSpec([self.parameters], tf.float32), tf.TensorSpec([], tf.float32)
        # XLA compiles small dense loops well and convolutions badly (ten times slower than plain
        # TensorFlow).
        architecture = _architecture(model)
        jit = architecture is not None and all(
            type(layer).__name__ in _COMPILED for layer in model._flatten_layers()
        )
        key = (architecture or object(), shape, np.dtype(dtype).str, batch_size)
        if key not in _traced:
            while len(_traced) >= _KEPT_TRACES:
                del _traced[next(iter(_traced))]
            _traced[key] = (
                tf.function(self._train, jit_compile=jit, input_signature=[flat, *block, scalar]),
                tf.function(
                    self._proximal,
                    jit_compile=jit,
                    input_signature=[flat, *block, scalar, flat, scalar],
                ),
                tf.function(self._gradient, jit_compile=jit, input_signature=[flat, flat, *block]),
                tf.function(self._logits, reduce_retracing=True),
            )
        self._train_block, self._proximal_block, self._gradient_block, self._predict = _traced[key]

    def initial_weights(self) -> Vector:
        """float32[parameters]: what the model's initialisers drew."""
        return np.concatenate([np.ravel(v.numpy()) for v in self.model.trainable_variables]).astype(
            np.float32
        )

    def train(
        self,
        weights: Vector,
        x: NDArray,
        y: NDArray,
        order: NDArray,
        rate: float,
        mu: float = 0.0,
        centre: Vector | None = None,
    ) -> tuple[Vector, float]:
        """SGD over the samples in `order`, in batches; new weights, and the loss summed over the
        samples.

        With `mu`, the objective has mu / 2 * |w - centre|² added to it; the loss is returned
        without it.
        """
        current, loss = tf.constant(weights), 0.0
        pull = () if mu == 0 else (tf.constant(weights if centre is None else centre), mu)
        step = self._train_block if mu == 0 else self._proximal_block
        for block in self._blocks(x, y, order):
            current, block_loss = step(current, *block, rate, *pull)
            loss += float(block_loss)
        return current.numpy(), loss

    def gradient(self, weights: Vector, x: NDArray, y: NDArray) -> tuple[Vector, float]:
        """The gradient of the mean loss over all samples, and the loss summed over the samples."""
        current, total, loss = tf.constant(weights), tf.zeros_like(weights), 0.0
        for block in self._blocks(x, y, np.arange(len(y))):
            total, block_loss = self._gradient_block(current, total, *block)
            loss += float(block_loss)
        return total.numpy() / np.float32(len(y)), loss

    def evaluate(self, weights: Vector, x: NDArray, y: NDArray) -> Evaluation:
        """Accuracy and mean loss over a labelled set."""
        right, loss = 0, 0.0
        for labels, logits in self._answers(weights, x, y):
            right += int(np.count_nonzero(np.argmax(logits.numpy(), axis=1) == labels))
            loss += float(
                tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            )
        return Evaluation(right / len(y), loss / len(y))

    def confusion(self, weights: Vector, x: NDArray, y: NDArray, classes: int) -> NDArray[np.int64]:
        """int64[classes, classes]: how many samples of a class (row) were taken for which
        (column)."""
        counts = np.zeros((classes, classes), np.int64)
        for labels, logits in self._answers(weights, x, y):
            np.add.at(counts, (labels, np.argmax(logits.numpy(), axis=1)), 1)
        return counts

    def load(self, weights: Vector) -> Any:
        """The Keras model, holding these weights."""
        parts = np.split(weights, np.cumsum(self.sizes)[:-1])
        for variable, part, shape in zip(
            self.model.trainable_variables, parts, self.shapes, strict=True
        ):
            variable.assign(part.reshape(shape))
        return self.model

    def _answers(
        self, weights: Vector, x: NDArray, y: NDArray
    ) -> Iterator[tuple[NDArray[np.int32], Any]]:
        """Labels and logits, some samples at a time."""
        flat = tf.constant(weights)
        for start in range(0, len(y), _EVALUATION_BATCH):
            batch = slice(start, start + _EVALUATION_BATCH)
            yield y[batch].astype(np.int32), self._predict(flat, x[batch])

    def _blocks(self, x: NDArray, y: NDArray, order: NDArray) -> Iterator[tuple[Any, ...]]:
        size = self._steps * self._batch
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded = np.zeros(size, np.int64)
            padded[: len(chosen)] = chosen
            counts = np.zeros(size, np.float32)
            counts[: len(chosen)] = 1
            grid = (self._steps, self._batch)
            batches = np.int32(-(-len(chosen) // self._batch))
            yield (
                x[padded].reshape(*grid, *x.shape[1:]),
                y[padded].reshape(grid),
                counts.reshape(grid),
                batches,
            )

    def _tensors(self, flat: Any) -> list[Any]:
        return [
            tf.reshape(p, s) for p, s in zip(tf.split(flat, self.sizes), self.shapes, strict=True)
        ]

    def _flat(self, tensors: Any) -> Any:
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)

    def _forward(self, tensors: Any, x: Any, training: bool) -> Any:
        x = tf.cast(x, tf.float32) / 255.0 if x.dtype == tf.uint8 else x
        mode = {"training": training} if self._has_modes else {}
        return self.model.stateless_call(tensors, self._unused, x, **mode)[0]

    def _logits(self, flat: Any, x: Any) -> Any:
        return self._forward(self._tensors(flat), x, training=False)

    def _batch_gradient(self, tensors: Any, x: Any, y: Any, counts: Any) -> tuple[list[Any], Any]:
        """Gradient of the summed loss of one batch, and that loss."""
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                y, self._forward(tensors, x, training=True)
            )
            loss = tf.reduce_sum(losses * counts)
        return tape.gradient(loss, tensors, unconnected_gradients="zero"), loss

    def _train(
        self, flat: Any, x: Any, y: Any, counts: Any, batches: Any, rate: Any
    ) -> tuple[Any, Any]:
        def step(i: Any, loss: Any, *tensors: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, x[i], y[i], counts[i])
            scale = rate / tf.reduce_sum(counts[i])
            return (
                i + 1,
                loss + batch_loss,
                *[w - scale * g for w, g in zip(tensors, gradients, strict=True)],
            )

        return self._loop(step, flat, batches)

    def _proximal(
        self, flat: Any, x: Any, y: Any, counts: Any, batches: Any, rate: Any, centre: Any, mu: Any
    ) -> tuple[Any, Any]:
        centres = self._tensors(centre)

        def step(i: Any, loss: Any, *tensors: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, x[i], y[i], counts[i])
            share = 1 / tf.reduce_sum(counts[i])
            moved = [
                w - rate * (share * g + mu * (w - c))
                for w, g, c in zip(tensors, gradients, centres, strict=True)
            ]
            return i + 1, loss + batch_loss, *moved

        return self._loop(step, flat, batches)

    def _gradient(
        self, flat: Any, total: Any, x: Any, y: Any, counts: Any, batches: Any
    ) -> tuple[Any, Any]:
        tensors = self._tensors(flat)

        def step(i: Any, loss: Any, *sums: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, x[i], y[i], counts[i])
            return i + 1, loss + batch_loss, *[s + g for s, g in zip(sums, gradients, strict=True)]

        return self._loop(step, total, batches)

    def _loop(self, step: Any, flat: Any, batches: Any) -> tuple[Any, Any]:
        """What `batches` steps make of a flat vector's tensors, flat again, and of the loss."""
        _, loss, *tensors = tf.while_loop(
            lambda i, *_: i < batches, step, (0, 0.0, *self._tensors(flat))
        )
        return self._flat(tensors), loss


def _architecture(model: Any) -> str | None:
    """What decides a model's functions: all but its layers' names, which Keras counts on from model
    to model.

    None if Keras' own layers and functions are not all: of others the text has only the names.
    """
    try:
        text = model.to_json()
    except Exception:  # a subclass without get_config
        return None
    if not _is_keras(json.loads(text)):
        return None
    for i, layer in enumerate(model._flatten_layers()):
        text = text.replace(f'"{layer.name}"', f'"#{i}"')
    return text


def _is_keras(node: Any) -> bool:
    """Whether a model's JSON names nothing but what Keras itself defines."""
    if isinstance(node, list):
        return all(map(_is_keras, node))
    if not isinstance(node, dict):
        return True
    known = "class_name" not in node or (
        str(node.get("module", "")).split(".")[0] == "keras" and node["class_name"] != "Lambda"
    )
    plain_values = not isinstance(node.get("activation"), dict)
    return known and plain_values and all(map(_is_keras, node.values()))
