"""One simulated round of local training by HyperLock, by `model.fit`, and by a Python loop over a
traced step."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
BATCH = 10
RATE = 0.05
Update = NDArray[np.float32]


def add_command(commands: Any) -> None:
    """Add `simulation` to the command line."""
    parser = commands.add_parser(
        "simulation", help="seconds of a round of 600-sample clients, against model.fit"
    )
    parser.add_argument("--model", choices=("2nn", "cnn"), default="2nn")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(run=measure)


def measure(arguments: argparse.Namespace) -> None:
    """Print wall and CPU seconds of each way, medians with the smallest and largest; the ways take
    turns."""
    from hyperlock.data.datasets import mnist
    from hyperlock.learning import models
    from hyperlock.learning.tensorflow import tf

    data = mnist(str(ROOT / "data" / "mnist.npz"))
    x = data.x_train[: 600 * arguments.clients]
    y = data.y_train[: 600 * arguments.clients]
    tf.keras.utils.set_random_seed(0)
    build: Callable[..., Any] = {"2nn": models.two_nn, "cnn": models.cnn}[arguments.model]
    ways = {"HyperLock": ours, "model.fit": keras_fit, "traced step": traced_step}
    rounds = {name: way(build(data.shape, data.classes), x, y) for name, way in ways.items()}
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    means: dict[str, Update] = {}
    for repeat in range(arguments.repeats + 1):
        for name, play in rounds.items():
            start = time.perf_counter()
            busy = time.process_time()
            means[name] = np.mean(list(play(arguments.clients)), axis=0, dtype=np.float64)
            if repeat:  # the first traces and compiles
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - busy)
        print(f"repeat {repeat} of {arguments.repeats} done", file=sys.stderr)
    reference = means["HyperLock"]
    print(
        f"{arguments.model}, {arguments.clients} clients of 600 samples, one epoch in batches of "
        f"{BATCH}: a round\n"
    )
    print("| way | wall seconds | CPU seconds | CPU, times HyperLock's | norm of the mean update |")
    print("| --- | --- | --- | --- | --- |")
    for name in ways:
        ratio = [a / b for a, b in zip(cpu[name], cpu["HyperLock"], strict=True)]
        norm = np.linalg.norm(means[name]) / np.linalg.norm(reference)
        print(
            f"| {name} | {_summary(wall[name])} | {_summary(cpu[name])} | {_summary(ratio)} | "
            f"{norm:.3f} |"
        )


Round = Callable[[int], Iterator[Update]]


def ours(model: Any, x: NDArray, y: NDArray) -> Round:
    """As a client of a run trains."""
    from hyperlock.learning.local import LearningRate, sgd_epochs
    from hyperlock.learning.network import Network
    from hyperlock.learning.types import LocalData, Samples

    network = Network(model, Samples(x.shape[1:], x.dtype, 10), BATCH)
    train = sgd_epochs(network, 1, LearningRate(RATE))
    weights = network.initial_weights()

    def play(clients: int) -> Iterator[Update]:
        for i in range(clients):
            part = slice(600 * i, 600 * (i + 1))
            yield train(weights, LocalData(x[part], y[part]), 1, np.random.default_rng(i)).vector

    return play


def keras_fit(model: Any, x: NDArray, y: NDArray) -> Round:
    """One compiled model, given the global weights and fitted, client after client."""
    from hyperlock.learning.tensorflow import tf

    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.SGD(RATE), loss=loss)
    scaled = (x / 255.0).astype(np.float32)
    initial = [weight.copy() for weight in model.get_weights()]

    def play(clients: int) -> Iterator[Update]:
        for i in range(clients):
            part = slice(600 * i, 600 * (i + 1))
            model.set_weights(initial)
            model.fit(scaled[part], y[part], batch_size=BATCH, epochs=1, verbose=0)
            yield _difference(initial, model.get_weights())

    return play


def traced_step(model: Any, x: NDArray, y: NDArray) -> Round:
    """A `tf.function` a batch, called from Python."""
    from hyperlock.learning.tensorflow import tf

    scaled = (x / 255.0).astype(np.float32)
    initial = [weight.copy() for weight in model.get_weights()]
    shapes = [tf.TensorSpec([None, *x.shape[1:]], tf.float32), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=shapes)
    def step(images: Any, labels: Any) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
            loss = tf.reduce_mean(losses)
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            variable.assign_sub(RATE * gradient)

    def play(clients: int) -> Iterator[Update]:
        for i in range(clients):
            model.set_weights(initial)
            order = 600 * i + np.random.default_rng(i).permutation(600)
            for start in range(0, 600, BATCH):
                batch = order[start : start + BATCH]
                step(scaled[batch], y[batch].astype(np.int32))
            yield _difference(initial, model.get_weights())

    return play


def _difference(before: list[NDArray], after: list[NDArray]) -> Update:
    return np.concatenate([np.ravel(a - b) for a, b in zip(before, after, strict=True)])


def _summary(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
