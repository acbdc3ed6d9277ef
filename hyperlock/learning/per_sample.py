"""Gradients of single samples, clipped and summed: what a client of privacy=sample sends

(Abadi et al. 2016, Deep Learning with Differential Privacy, algorithm 1, without its noise.) Where
a model is a chain of dense layers, no sample's gradient is ever made: of a layer with input a and
gradient d at its output it is their outer product, whose norm is |a| |d| (Goodfellow 2015,
Efficient Per-Example Gradient Computations), and the clipped sum is one product of matrices. For
any other model it is vectorised over the samples of a batch, which takes the memory of a model for
each.

A sample whose gradient is not finite counts as zero: to fail would tell of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hyperlock.learning.tensorflow import tf

_TINY = 1e-30


def dense_chain(model: Any) -> list[Any] | None:
    """The dense layers of a model that is nothing else, in order; None of another."""
    if type(model).__name__ != "Sequential":
        return None
    kinds = [type(layer).__name__ for layer in model.layers]
    dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"]
    flat = "Flatten" not in kinds or kinds.index("Flatten") == 0
    plain = all(layer.trainable and not layer.losses for layer in dense)
    one_axis = flat and (kinds[:1] == ["Flatten"] or len(model.input_shape) == 2)
    if set(kinds) <= {"Flatten", "Dense"} and kinds.count("Flatten") <= 1 and one_axis and plain:
        return dense
    return None


def clipped_dense(
    layers: Sequence[Any], tensors: Sequence[Any], x: Any, y: Any, counts: Any, clip: Any
) -> list[Any]:
    """The sum of the samples' gradients, each clipped to an L2 norm, of a chain of dense layers.

    Args:
        layers: as `dense_chain` gives them.
        tensors: kernels and biases, in order.
        x: float32[samples, features].
        y: int32[samples].
        counts: float32[samples], 1 for a sample and 0 for padding.
        clip: the largest norm.

    Returns:
        float32 tensors like `tensors`.
    """
    # The forward pass, with what each layer is given and gives before its activation.
    rest = iter(tensors)
    given = []
    before = []
    with tf.GradientTape() as tape:
        flowing = x
        for layer in layers:
            given.append(flowing)
            linear = flowing @ next(rest)
            if layer.use_bias:
                linear += next(rest)
            tape.watch(linear)
            before.append(linear)
            flowing = layer.activation(linear)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, flowing)
    back = tape.gradient(losses, before, unconnected_gradients="zero")

    # Each sample's norm, and what it is scaled by.
    squares = [
        (tf.reduce_sum(a * a, 1) + float(layer.use_bias)) * tf.reduce_sum(d * d, 1)
        for layer, a, d in zip(layers, given, back, strict=True)
    ]
    scale, finite = _scale(tf.add_n(squares), counts, clip)

    # The sum, of finite samples alone.
    summed = []
    for layer, a, d in zip(layers, given, back, strict=True):
        scaled = tf.where(finite[:, None], d, 0.0) * scale[:, None]
        summed.append(tf.matmul(tf.where(finite[:, None], a, 0.0), scaled, transpose_a=True))
        if layer.use_bias:
            summed.append(tf.reduce_sum(scaled, 0))
    return summed


def clipped_any(
    forward: Callable[[Any, Any], Any],
    tensors: Sequence[Any],
    x: Any,
    y: Any,
    counts: Any,
    clip: Any,
) -> list[Any]:
    """The same of any model, by `forward` from tensors and x to logits."""

    def gradient(sample: tuple[Any, Any]) -> list[Any]:
        features, label = sample
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            logits = forward(tensors, features[None])
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(label[None], logits)
        return tape.gradient(loss, tensors, unconnected_gradients="zero")

    each = tf.vectorized_map(gradient, (x, y))
    axes = [list(range(1, len(one.shape))) for one in each]
    squares = [tf.reduce_sum(one * one, axis) for one, axis in zip(each, axes, strict=True)]
    scale, finite = _scale(tf.add_n(squares), counts, clip)
    return [
        tf.tensordot(scale, tf.where(tf.reshape(finite, [-1, *[1] * len(axis)]), one, 0.0), 1)
        for one, axis in zip(each, axes, strict=True)
    ]


def _scale(squares: Any, counts: Any, clip: Any) -> tuple[Any, Any]:
    """What each sample's gradient is multiplied by, from its squared norm; and whether that is
    finite."""
    finite = tf.math.is_finite(squares)
    norms = tf.sqrt(tf.maximum(tf.where(finite, squares, 0.0), _TINY))
    return counts * tf.minimum(1.0, clip / norms), finite
