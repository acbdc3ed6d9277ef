"""A user's own model: from a module outside of the package, by the command line or a file; or
refused with a reason."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hyperlock.errors import ConfigError
from hyperlock.learning import check_model
from hyperlock.learning.network import Network
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Samples

ROOT = Path(__file__).parents[2]
keras = tf.keras
layers = tf.keras.layers
SHAPE = (4, 4)
CLASSES = 3
SAMPLES = Samples(SHAPE, np.dtype("float32"), CLASSES)

MODULE = '''
import keras

def small(shape, classes, width, activation="relu"):
    """Its own imports, names and settings."""
    print(f"built with width {width} and {activation}")
    layers = [keras.layers.Flatten(), keras.layers.Dense(width, activation=activation),
        keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(shape), *layers])

def wrong(shape, classes):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(classes)])
'''


@pytest.fixture
def folder(tmp_path):
    """A folder that is not the project's, with a module and an option of its own."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "models.py").write_text(MODULE)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "small.yaml").write_text(
        "_target_: theirs.models.small\nwidth: 6\nactivation: relu\n"
    )
    return tmp_path


SMOKE = ("debug=smoke", "federation.rounds=1", "encryption=none")


def environment(folder, path=True):
    return {
        **os.environ,
        "HYPERLOCK_ROOT": str(folder),
        "PYTHONPATH": str(folder) if path else "",
    }


def command(folder, *overrides):
    """`python run.py` in the folder."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *SMOKE, *overrides], env=environment(folder),
        cwd=folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def forked(folder, forks):
    """The same without its imports."""

    def forked(*overrides, path=True):
        return forks.run(*SMOKE, *overrides, cwd=folder, env=environment(folder, path))

    return forked


def test_a_model_of_ones_own_by_the_command_line(folder):
    code, output = command(
        folder, "model=own", "model._target_=theirs.models.small", "+model.width=5"
    )
    assert code == 0, output
    assert "built with width 5 and relu" in output and "small-none-3c" in output


def test_a_model_of_ones_own_by_a_file(folder, forked):
    code, output = forked(
        "model=small", "model.activation=tanh", "--config-dir", str(folder / "conf")
    )
    assert code == 0, output
    assert "built with width 6 and tanh" in output and "small-none-3c" in output


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["model=own"], True, ["model._target_=???: a value must be given"]),
        (
            ["model=own", "model._target_=theirs.models.small"],
            False,
            [
                "model._target_=theirs.models.small: cannot be imported",
                "No module named",
                "PYTHONPATH=",
            ],
        ),
        (
            ["model=own", "model._target_=theirs.models.smal"],
            True,
            ["model._target_=theirs.models.smal: cannot be imported", "no attribute"],
        ),
        (
            ["model._target_=theirs.models.small"],
            True,
            ["it raised TypeError", "unexpected keyword argument 'units'", "try: model=own"],
        ),
        (
            ["model=own", "model._target_=theirs.models.wrong"],
            True,
            ["[batch, 8, 8] the model gives [batch, 8, 10]", "logits [batch, 10]"],
        ),
    ],
    ids=["no target", "not found", "no such function", "keys of another model", "wrong output"],
)
def test_what_cannot_work_gets_one_clear_message(forked, overrides, path, words):
    code, output = forked(*overrides, path=path)
    assert code == 1
    for word in words:
        assert word in output
    assert "Traceback" not in output and output.count("ERROR") == 1


def test_the_readmes_model_works():
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [code] = [code for code in codes if "def mymodel" in code]
    module = {}
    exec(code, module)
    make = partial(module["mymodel"], SHAPE, CLASSES, width=5)
    assert check_model.build(make, "mypackage.mymodel", SAMPLES).count_params() == 17 * 5 + 6 * 3


def sequential(*inner, head=None):
    return keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), *inner, head or layers.Dense(CLASSES)]
    )


def frozen():
    layer = layers.Dense(5)
    layer.trainable = False
    return sequential(layer)


class Subclass(keras.Model):
    def __init__(self, functions):
        super().__init__()
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(CLASSES)
        self.functions = functions

    def call(self, x):
        for function in self.functions:
            x = function(x)
        return self.dense(self.flatten(x))


def raising():
    raise RuntimeError("no\nmodel " * 200)


REFUSED = {
    "raises": (raising, ["it raised RuntimeError: no model no"]),
    "no model": (
        lambda: "a text",
        ["it returned builtins.str", "[batch, 4, 4] to logits [batch, 3]"],
    ),
    "other shape": (lambda: sequential(head=layers.Dense(7)), ["gives [batch, 7]"]),
    "a shape too many": (lambda: sequential(layers.Reshape((4, 4))), ["gives [batch, 4, 3]"]),
    "one number": (lambda: sequential(head=layers.Dense(1)), ["gives [batch, 1]"]),
    "two outputs": (lambda: Subclass([lambda x: (x, x)]), ["the model raised"]),
    "no weights": (
        lambda: keras.Sequential([keras.Input(SHAPE), layers.Lambda(lambda x: x[:, :3, 0])]),
        ["no weights"],
    ),
    "other input": (
        lambda: keras.Sequential([keras.Input((5,)), layers.Dense(3)]),
        ["the model raised ValueError"],
    ),
    "softmax": (
        lambda: sequential(head=layers.Dense(3, activation="softmax")),
        ["probabilities", "no softmax"],
    ),
    "dropout": (
        lambda: sequential(layers.Dropout(0.5)),
        ["Dropout (dropout", "draws at random", "no Dropout"],
    ),
    "batch statistics": (
        lambda: sequential(layers.BatchNormalization()),
        ["BatchNormalization (", "keeps moving_mean", "GroupNormalization"],
    ),
    "frozen": (frozen, ["Dense (", "is frozen"]),
    "float16": (
        lambda: sequential(layers.Dense(4, dtype="float16")),
        ["float16, float32", "weights of float32"],
    ),
    "regulariser": (
        lambda: sequential(layers.Dense(4, kernel_regularizer="l2")),
        ["regularisers or constraints"],
    ),
    "constraint": (
        lambda: sequential(layers.Dense(4, kernel_constraint="non_neg")),
        ["regularisers or constraints"],
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_cannot_be_trained_is_refused(kind):
    make, words = REFUSED[kind]
    with pytest.raises(ConfigError) as caught:
        check_model.build(make, "theirs.model", SAMPLES)
    assert (
        str(caught.value).startswith("model._target_=theirs.model: ")
        and len(str(caught.value)) < 900
    )
    for word in words:
        assert word in str(caught.value)


def test_an_error_of_ours_in_a_builder_comes_out_as_it_is():
    def make():
        raise ConfigError("model.width", 0, "is too small")

    with pytest.raises(ConfigError, match=r"model\.width=0: is too small"):
        check_model.build(make, "theirs.model", SAMPLES)


ACCEPTED = {
    "sequential": lambda: sequential(layers.Dense(5, activation="gelu")),
    "layer normalisation": lambda: sequential(layers.LayerNormalization()),
    "no dropout": lambda: sequential(layers.Dropout(0.0)),
    "convolution": lambda: keras.Sequential(
        [keras.Input(SHAPE), layers.Reshape((4, 4, 1)), layers.Conv2D(2, 3),
            layers.GroupNormalization(1),
         layers.GlobalMaxPooling2D(), layers.Dense(CLASSES)]
    ),
    "recurrent": lambda: keras.Sequential([keras.Input(SHAPE), layers.GRU(5),
        layers.Dense(CLASSES)]),
    "embedding": lambda: sequential(layers.Embedding(3, 2), layers.Flatten()),
    "a subclass that is not built yet": lambda: Subclass([tf.square, lambda x: x + 1.0]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_other_models_train(kind):
    model = check_model.build(ACCEPTED[kind], "theirs.model", SAMPLES)
    network = Network(model, SAMPLES, 4)
    check_model.try_training(network, "theirs.model")
    rng = np.random.default_rng(0)
    x = rng.random((12, *SHAPE), np.float32)
    y = rng.integers(0, CLASSES, 12).astype(np.int32)
    start = weights = network.initial_weights()
    for _ in range(20):
        weights, _ = network.train(weights, x, y, np.arange(12), 0.1)
    assert network.evaluate(weights, x, y).loss < network.evaluate(start, x, y).loss


def test_a_model_that_works_outside_of_a_graph_only_is_refused_before_training():
    model = check_model.build(
        partial(Subclass, [lambda x: x + float(tf.reduce_sum(x).numpy())]), "m", SAMPLES
    )
    network = Network(model, SAMPLES, 4)
    with pytest.raises(
        ConfigError, match=r"model\._target_=m: training the model raised"
    ) as caught:
        check_model.try_training(network, "m")
    assert "as a graph" in str(caught.value)


def test_a_model_that_could_not_be_kept_is_refused():
    with pytest.raises(ConfigError, match="Keras cannot save the model") as caught:
        check_model.refuse_unsaved(Subclass([]), "m")
    assert "tracking.log_model=false" in str(caught.value)
    check_model.refuse_unsaved(sequential(), "m")
