"""A Keras model as traced TensorFlow functions of one flat weight vector, kept by architecture.

The functions read no variable: weights are an argument. They depend on the architecture alone, so
that another run of it in this process need not trace and compile them again. What is kept holds the
first model of each architecture, with its weights, for a function is traced by calling its layers,
a new size of batch in evaluation even later, and Keras' layers come with their variables. At most
`_KEPT` are held.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from hyperlock.learning.per_sample import clipped_any, clipped_dense, dense_chain
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Samples

BLOCK_SAMPLES = 1024  # samples in one call of a traced function
_KEPT = 8
_COMPILED = {"Sequential", "Functional", "InputLayer", "Flatten", "Dense"}


class Block(NamedTuple):
    """A fixed number of batches, the last ones perhaps empty or padded.

    Attributes:
        x: [steps, batch_size, *shape].
        y: int32[steps, batch_size].
        counts: float32[steps, batch_size]: 1 for a sample, 0 for padding.
        batches: int32: how many batches, from the first, are not empty.
    """

    x: Any
    y: Any
    counts: Any
    batches: Any


class Graph:
    """The functions of one architecture, traced when they are first called.

    Attributes:
        steps: batches in a block.
        train: weights, block and rate to new weights and the summed loss.
        train_near: the same with a centre and mu, which pulls towards it.
        add_gradient: weights, a sum of gradients and a block to the next sum and the summed loss.
        clipped: weights, block and norm to the sum of its samples' gradients, each clipped to that.
        predict: weights and x [samples, *shape] to logits [samples, classes].

    Args:
        model: a Keras model mapping [batch, *shape] to logits, as `check_model.build` lets through.
        samples: what the model is of.
        batch_size: samples a batch.
        compiled: whether XLA compiles the functions.
    """

    def __init__(self, model: Any, samples: Samples, batch_size: int, compiled: bool) -> None:
        self.steps = max(1, BLOCK_SAMPLES // batch_size)
        self._model = model
        # A subclass may do without.
        self._has_modes = "training" in signature(model.call).parameters
        self._unused = [tf.constant(variable.numpy()) for variable in model.non_trainable_variables]
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]

        # One shape for all clients, so that there is one trace.
        flat = tf.TensorSpec([sum(self._sizes)], tf.float32)
        scalar = tf.TensorSpec([], tf.float32)
        labels = [self.steps, batch_size]
        block = Block(
            x=tf.TensorSpec([*labels, *samples.shape], tf.as_dtype(samples.dtype)),
            y=tf.TensorSpec(labels, tf.int32),
            counts=tf.TensorSpec(labels, tf.float32),
            batches=tf.TensorSpec([], tf.int32),
        )

        def traced(function: Any, *arguments: Any) -> Any:
            return tf.function(function, jit_compile=compiled, input_signature=arguments)

        self.train = traced(self._train, flat, block, scalar)
        self.train_near = traced(self._train_near, flat, block, scalar, flat, scalar)
        self.add_gradient = traced(self._add_gradient, flat, flat, block)
        # Vectorised over samples it is not for XLA, which would compile for minutes.
        self._dense = dense_chain(model) if compiled else None
        self.clipped = tf.function(
            self._clipped,
            jit_compile=self._dense is not None,
            input_signature=(flat, block, scalar),
        )
        self.predict = tf.function(self._logits, reduce_retracing=True)

    def _train(self, flat: Any, block: Block, rate: Any) -> tuple[Any, Any]:
        """w <- w - rate * gradient of the batch's mean loss, batch after batch."""

        def step(i: Any, loss: Any, *tensors: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, block, i)
            scale = rate / tf.reduce_sum(block.counts[i])
            moved = [w - scale * g for w, g in zip(tensors, gradients, strict=True)]
            return i + 1, loss + batch_loss, *moved

        return self._loop(step, flat, block.batches)

    def _train_near(
        self, flat: Any, block: Block, rate: Any, centre: Any, mu: Any
    ) -> tuple[Any, Any]:
        """As `_train`, with mu * (w - centre) added to the gradient."""
        centres = self._tensors(centre)

        def step(i: Any, loss: Any, *tensors: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, block, i)
            share = 1 / tf.reduce_sum(block.counts[i])
            moved = [
                w - rate * (share * g + mu * (w - c))
                for w, g, c in zip(tensors, gradients, centres, strict=True)
            ]
            return i + 1, loss + batch_loss, *moved

        return self._loop(step, flat, block.batches)

    def _add_gradient(self, flat: Any, total: Any, block: Block) -> tuple[Any, Any]:
        """total + the gradients of the block's samples' losses, all at the same weights."""
        tensors = self._tensors(flat)

        def step(i: Any, loss: Any, *sums: Any) -> tuple[Any, ...]:
            gradients, batch_loss = self._batch_gradient(tensors, block, i)
            return i + 1, loss + batch_loss, *[s + g for s, g in zip(sums, gradients, strict=True)]

        return self._loop(step, total, block.batches)

    def _clipped(self, flat: Any, block: Block, clip: Any) -> Any:
        """The sum of the gradients of the block's samples, none of a larger norm than `clip`."""
        tensors = self._tensors(flat)

        def step(i: Any, *sums: Any) -> tuple[Any, ...]:
            x = self._scaled(block.x[i])
            about = (block.y[i], block.counts[i], clip)
            if self._dense is not None:
                rows = tf.reshape(x, [x.shape[0], -1])
                clipped = clipped_dense(self._dense, tensors, rows, *about)
            else:
                clipped = clipped_any(self._in_training, tensors, x, *about)
            return i + 1, *[s + g for s, g in zip(sums, clipped, strict=True)]

        nothing = map(tf.zeros_like, tensors)
        _, *sums = tf.while_loop(lambda i, *_: i < block.batches, step, (0, *nothing))
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in sums], 0)

    def _logits(self, flat: Any, x: Any) -> Any:
        return self._forward(self._tensors(flat), x, training=False)

    def _loop(self, step: Any, flat: Any, batches: Any) -> tuple[Any, Any]:
        """What `batches` steps make of a flat vector's tensors, flat again, and of the loss."""
        _, loss, *tensors = tf.while_loop(
            lambda i, *_: i < batches, step, (0, 0.0, *self._tensors(flat))
        )
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0), loss

    def _batch_gradient(self, tensors: Any, block: Block, i: Any) -> tuple[list[Any], Any]:
        """Gradient of the summed loss of one batch, and that loss."""
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                block.y[i], self._forward(tensors, block.x[i], training=True)
            )
            loss = tf.reduce_sum(losses * block.counts[i])
        return tape.gradient(loss, tensors, unconnected_gradients="zero"), loss

    def _forward(self, tensors: Any, x: Any, training: bool) -> Any:
        mode = {"training": training} if self._has_modes else {}
        return self._model.stateless_call(tensors, self._unused, self._scaled(x), **mode)[0]

    def _in_training(self, tensors: Any, x: Any) -> Any:
        return self._forward(tensors, x, training=True)

    def _scaled(self, x: Any) -> Any:
        """What the model is given for samples as they are kept."""
        return tf.cast(x, tf.float32) / 255.0 if x.dtype == tf.uint8 else x

    def _tensors(self, flat: Any) -> list[Any]:
        parts = tf.split(flat, self._sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]


_graphs: dict[Hashable, Graph] = {}


def graph_of(model: Any, samples: Samples, batch_size: int) -> Graph:
    """The functions of a model's architecture: those that are there, or new ones."""
    described = architecture(model)
    key = (described or object(), samples.shape, np.dtype(samples.dtype).str, batch_size)
    if key not in _graphs:
        while len(_graphs) >= _KEPT:
            del _graphs[next(iter(_graphs))]
        # XLA compiles small dense loops well and convolutions badly (ten times slower than plain
        # TensorFlow).
        compiled = described is not None and all(
            type(layer).__name__ in _COMPILED for layer in model._flatten_layers()
        )
        _graphs[key] = Graph(model, samples, batch_size, compiled)
    return _graphs[key]


def architecture(model: Any) -> str | None:
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
