"""Model builders. Each takes the shape of one sample and the number of classes, and returns a Keras
model that maps [batch, *shape] float32 to [batch, classes] logits."""

from __future__ import annotations

from typing import Any

from hyperlock.errors import ConfigError
from hyperlock.learning.tensorflow import tf


def mlp(shape: tuple[int, ...], classes: int, units: int, layers: int) -> Any:
    """`layers` dense layers of `units` rectified units each; 784-128-10 by default on MNIST."""
    return _dense("mlp", shape, classes, [units] * layers)


def two_nn(shape: tuple[int, ...], classes: int) -> Any:
    """The "2NN" of McMahan et al. 2017, section 3: two hidden layers of 200; 199,210 parameters on
    MNIST."""
    return _dense("2nn", shape, classes, [200, 200])


def logistic(shape: tuple[int, ...], classes: int) -> Any:
    """Multinomial logistic regression: one dense layer; 7,850 parameters on MNIST."""
    return _dense("logistic", shape, classes, [])


def cnn(shape: tuple[int, ...], classes: int) -> Any:
    """The CNN of McMahan et al. 2017, section 3: two 5x5 convolutions of 32 and 64 channels, each
    followed by 2x2 max pooling, then 512 rectified units; 1,663,370 parameters on MNIST, the
    paper's number, which same padding gives.

    Args:
        shape: [height, width] or [height, width, channels].
        classes: number of classes.
    """
    if len(shape) not in (2, 3):
        raise ConfigError(
            "model",
            "cnn",
            f"samples of the dataset have shape {list(shape)}, which is no image",
            allowed="samples [height, width] or [height, width, channels]",
            hint="model=mlp",
        )
    keras = tf.keras.layers
    blocks = [
        keras.Conv2D(32, 5, padding="same", activation="relu"),
        keras.MaxPooling2D(2, padding="same"),
        keras.Conv2D(64, 5, padding="same", activation="relu"),
        keras.MaxPooling2D(2, padding="same"),
    ]
    image = [keras.Reshape((*shape, 1))] if len(shape) == 2 else []
    head = [keras.Flatten(), keras.Dense(512, activation="relu"), keras.Dense(classes)]
    return tf.keras.Sequential([tf.keras.Input(shape), *image, *blocks, *head], name="cnn")


def _dense(name: str, shape: tuple[int, ...], classes: int, units: list[int]) -> Any:
    """A flattened sample, hidden layers of so many rectified units, and logits."""
    keras = tf.keras.layers
    hidden = [keras.Dense(width, activation="relu") for width in units]
    return tf.keras.Sequential(
        [tf.keras.Input(shape), keras.Flatten(), *hidden, keras.Dense(classes)], name=name
    )
