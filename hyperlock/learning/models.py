"""Model builders. Each takes the shape of one sample and the number of classes, and returns a Keras model
that maps [batch, *shape] float32 to [batch, classes] logits."""

from __future__ import annotations

from typing import Any

from hyperlock.learning.tensorflow import tf


def mlp(shape: tuple[int, ...], classes: int, units: int, layers: int) -> Any:
    """`layers` dense layers of `units` rectified units each; 784-128-10 by default on MNIST."""
    dense = [tf.keras.layers.Dense(units, activation="relu") for _ in range(layers)]
    return tf.keras.Sequential(
        [tf.keras.Input(shape), tf.keras.layers.Flatten(), *dense, tf.keras.layers.Dense(classes)], name="mlp"
    )


def logistic(shape: tuple[int, ...], classes: int) -> Any:
    """Multinomial logistic regression."""
    layers = [tf.keras.Input(shape), tf.keras.layers.Flatten(), tf.keras.layers.Dense(classes)]
    return tf.keras.Sequential(layers, name="logistic")
