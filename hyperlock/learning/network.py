"""A Keras model as pure functions of one flat weight vector.

Weights travel as float32[parameters], the concatenation of the trainable tensors in Keras' order.
Training and gradients run as one traced TensorFlow function (`graph.py`) over a block of batches,
with the loop inside the graph, so that a local epoch costs a few calls and no Python a step. Blocks
have one fixed shape: the last is padded with samples of weight zero, and the number of batches that
count is an argument. One trace therefore serves all clients, whatever their size. The functions
hold no state: several threads may run them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.learning.graph import Block, graph_of
from hyperlock.learning.tensorflow import tf
from hyperlock.learning.types import Evaluation, Samples, Weights

_EVALUATION_BATCH = 2000


class Network:
    """A model, and what can be done with weights for it.

    Attributes:
        sizes: coordinates of each trainable tensor.
        parameters: of all together.

    Args:
        model: a Keras model mapping [batch, *shape] to logits, as `check_model.build` lets through.
        samples: what the model is of; uint8 is scaled to [0, 1] in the graph.
        batch_size: samples a batch of training.
    """

    def __init__(self, model: Any, samples: Samples, batch_size: int) -> None:
        self.model = model
        self.samples = samples
        self.batch_size = batch_size
        self.shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes)
        self.parameters = sum(self.sizes)
        graph = graph_of(model, samples, batch_size)
        self._steps = graph.steps
        self._train_block = graph.train
        self._proximal_block = graph.train_near
        self._gradient_block = graph.add_gradient
        self._clipped_block = graph.clipped
        self._predict = graph.predict

    def batched(self, batch_size: int) -> Network:
        """The same model, trained in batches of this size."""
        if batch_size == self.batch_size:
            return self
        return Network(self.model, self.samples, batch_size)

    def initial_weights(self) -> Weights:
        """float32[parameters]: what the model's initialisers drew."""
        tensors = [np.ravel(variable.numpy()) for variable in self.model.trainable_variables]
        return np.concatenate(tensors).astype(np.float32)

    def train(
        self,
        weights: Weights,
        x: NDArray,
        y: NDArray,
        order: NDArray,
        rate: float,
        mu: float = 0.0,
        centre: Weights | None = None,
    ) -> tuple[Weights, float]:
        """SGD over the samples in `order`, in batches; new weights, and the loss summed over the
        samples.

        With `mu`, the objective has mu / 2 * |w - centre|² added to it; the loss is returned
        without it.
        """
        current = tf.constant(weights)
        loss = 0.0
        pull = () if mu == 0 else (tf.constant(weights if centre is None else centre), mu)
        step = self._train_block if mu == 0 else self._proximal_block
        for block in self._blocks(x, y, order):
            current, block_loss = step(current, block, rate, *pull)
            loss += float(block_loss)
        return current.numpy(), loss

    def gradient(self, weights: Weights, x: NDArray, y: NDArray) -> tuple[Weights, float]:
        """The gradient of the mean loss over all samples, and the loss summed over the samples."""
        current = tf.constant(weights)
        total = tf.zeros_like(weights)
        loss = 0.0
        for block in self._blocks(x, y, np.arange(len(y))):
            total, block_loss = self._gradient_block(current, total, block)
            loss += float(block_loss)
        return total.numpy() / np.float32(len(y)), loss

    def clipped_gradient(
        self, weights: Weights, x: NDArray, y: NDArray, chosen: NDArray, clip: float
    ) -> NDArray[np.float64]:
        """float64[parameters]: the sum of the gradients of the losses of the samples `chosen`, each
        clipped to this L2 norm."""
        current = tf.constant(weights)
        total = np.zeros(self.parameters)
        for block in self._blocks(x, y, chosen):
            total += self._clipped_block(current, block, clip).numpy()
        return total

    def evaluate(self, weights: Weights, x: NDArray, y: NDArray) -> Evaluation:
        """Accuracy and mean loss over a labelled set."""
        right = 0
        loss = 0.0
        for labels, logits in self._answers(weights, x, y):
            right += int(np.count_nonzero(np.argmax(logits.numpy(), axis=1) == labels))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss += float(tf.reduce_sum(losses))
        return Evaluation(right / len(y), loss / len(y))

    def losses(self, weights: Weights, x: NDArray, y: NDArray) -> NDArray[np.float32]:
        """float32[samples]: the cross-entropy (nats) of each sample."""
        each = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
            for labels, logits in self._answers(weights, x, y)
        ]
        return np.concatenate(each)

    def confusion(
        self, weights: Weights, x: NDArray, y: NDArray, classes: int
    ) -> NDArray[np.int64]:
        """int64[classes, classes]: how many samples of a class (row) were taken for which
        (column)."""
        counts = np.zeros((classes, classes), np.int64)
        for labels, logits in self._answers(weights, x, y):
            np.add.at(counts, (labels, np.argmax(logits.numpy(), axis=1)), 1)
        return counts

    def load(self, weights: Weights) -> Any:
        """The Keras model, holding these weights."""
        parts = np.split(weights, np.cumsum(self.sizes)[:-1])
        for variable, part, shape in zip(
            self.model.trainable_variables, parts, self.shapes, strict=True
        ):
            variable.assign(part.reshape(shape))
        return self.model

    def _answers(
        self, weights: Weights, x: NDArray, y: NDArray
    ) -> Iterator[tuple[NDArray[np.int32], Any]]:
        """Labels and logits, some samples at a time."""
        flat = tf.constant(weights)
        for start in range(0, len(y), _EVALUATION_BATCH):
            batch = slice(start, start + _EVALUATION_BATCH)
            yield y[batch].astype(np.int32), self._predict(flat, x[batch])

    def _blocks(self, x: NDArray, y: NDArray, order: NDArray) -> Iterator[Block]:
        """The samples in `order` as blocks, the last one padded with sample 0, which counts 0."""
        size = self._steps * self.batch_size
        grid = (self._steps, self.batch_size)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded = np.zeros(size, np.int64)
            padded[: len(chosen)] = chosen
            counts = np.zeros(size, np.float32)
            counts[: len(chosen)] = 1
            yield Block(
                x=x[padded].reshape(*grid, *x.shape[1:]),
                y=y[padded].reshape(grid),
                counts=counts.reshape(grid),
                batches=np.int32(-(-len(chosen) // self.batch_size)),
            )
