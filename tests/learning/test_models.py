"""The models: the papers' sizes, every shape of sample, and functions that are traced once an
architecture."""

import numpy as np
import pytest

from hyperlock.errors import ConfigError
from hyperlock.learning.graph import architecture
from hyperlock.learning.models import cnn, logistic, mlp, two_nn
from hyperlock.learning.network import Network
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Samples


def count(model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_the_papers_models_have_the_papers_sizes():
    """McMahan et al. 2017, section 3: "199,210 total parameters", "1,663,370 total parameters"."""
    assert count(two_nn((28, 28), 10)) == 199_210
    assert count(cnn((28, 28), 10)) == count(cnn((28, 28, 1), 10)) == 1_663_370
    assert count(mlp((28, 28), 10, 128, 1)) == 101_770
    assert count(logistic((28, 28), 10)) == 7_850


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (32, 32, 3), (8, 8), (7, 5, 2), (1, 1)])
def test_a_cnn_takes_images_with_and_without_channels(shape):
    tf.keras.utils.set_random_seed(0)
    network = Network(cnn(shape, 4), Samples(shape, np.dtype("uint8"), 4), 3)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (7, *shape), np.uint8)
    y = rng.integers(0, 4, 7).astype(np.int32)
    start = network.initial_weights()
    weights, loss = network.train(start, x, y, np.arange(7), 0.01)
    assert np.isfinite(loss) and (weights != start).any()
    assert network.evaluate(weights, x, y).loss < network.evaluate(start, x, y).loss


def test_the_convolutions_see_the_channels():
    """[H, W] is one channel: the same weights give the same logits for [H, W] and [H, W, 1]."""
    flat = cnn((12, 12), 4)
    channel = cnn((12, 12, 1), 4)
    channel.set_weights(flat.get_weights())
    x = np.random.default_rng(0).random((3, 12, 12), np.float32)
    assert np.allclose(flat(x), channel(x[..., None]), atol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
def test_a_cnn_of_what_is_no_image_is_refused(shape):
    with pytest.raises(
        ConfigError, match=r"model=cnn: samples of the dataset have shape \[.*no image"
    ) as caught:
        cnn(shape, 3)
    assert "[height, width]" in str(caught.value) and "model=mlp" in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda s, c: mlp(s, c, 8, 2), logistic, two_nn], ids=["mlp", "logistic", "2nn"]
)
@pytest.mark.parametrize("shape", [(5,), (4, 4), (4, 4, 3), (2, 2, 2, 2)])
def test_dense_models_take_samples_of_any_shape(make, shape):
    assert make(shape, 3)(np.zeros((2, *shape), np.float32)).shape == (2, 3)


def test_functions_are_kept_for_models_that_keras_describes_and_for_no_others():
    layers = tf.keras.layers

    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    def activation(x):
        return x

    def model(*inner):
        return tf.keras.Sequential([tf.keras.Input((4,)), *inner, layers.Dense(3)])

    assert architecture(model(layers.Dense(5))) == architecture(model(layers.Dense(5)))
    assert architecture(model(layers.Dense(5))) != architecture(model(layers.Dense(6)))
    assert architecture(model(layers.Dense(5, activation="relu"))) != architecture(
        model(layers.Dense(5))
    )
    assert architecture(cnn((4, 4), 3)) is not None
    unknown = [
        Twice(),
        layers.Dense(5, activation=activation),
        layers.Dense(5, activation=lambda x: x),
        layers.Lambda(lambda x: x),
    ]
    assert [architecture(model(layer)) for layer in unknown] == [None] * 4


def test_models_that_look_alike_are_not_taken_for_one_another():
    """Two functions of one name: their architectures' texts are equal."""

    def network(factor):
        def scale(x):
            return factor * x

        layers = [tf.keras.Input((4,)), tf.keras.layers.Dense(3, activation=scale)]
        return Network(tf.keras.Sequential(layers), Samples((4,), np.dtype("float32"), 3), 2)

    once = network(1.0)
    twice = network(2.0)
    weights = once.initial_weights()
    x = np.ones((2, 4), np.float32)
    y = np.zeros(2, np.int32)
    assert once.evaluate(weights, x, y).loss != pytest.approx(twice.evaluate(weights, x, y).loss)


def test_nothing_is_traced_again_after_the_first_round(federate):
    """Clients of other sizes, other rounds, another run of the same architecture: the functions are
    there."""
    first = federate("federation.rounds=1").play().parties.network
    functions = (first._train_block, first._gradient_block, first._predict)
    before = [function.experimental_get_tracing_count() for function in functions]
    again = federate("federation.rounds=4", "federation.clients=5", "seed=3").play().parties.network
    assert again._train_block is first._train_block and before[0] >= 1
    assert [function.experimental_get_tracing_count() for function in functions] == before
