"""Gradient inversion: training samples out of the gradient of a model's first dense layer.

Of a dense layer with a bias, each unit's weight gradient over its bias gradient is the sample, if
the gradient is that of one sample (Phong et al., "Privacy-Preserving Deep Learning via Additively
Homomorphic Encryption", IEEE TIFS 2018, section 3). Of more samples it is a mean of those that the
unit answers to, each unit's own: with as many units as samples some often have one alone (Boenisch
et al., "When the Curious Abandon Honesty", EuroS&P 2023). Every unit gives a candidate, and an
oracle that has the sample chooses the closest, which flatters the attack: no attacker has one. How
much, the update of another client says, who has none of these samples: what is as close as that
looks like a sample, and is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hyperlock.audit.past import Past
from hyperlock.audit.replay import Round
from hyperlock.encryption.scheme import Scheme

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

WORST_CASE = (
    "Whose worst case: who reads one client's update in the clear (the server, under "
    "encryption=none or keys=server); who sees released sums (the server, or under keys=clients "
    "all clients). An oracle that has the sample chooses the closest of all candidates, as no "
    "attacker can."
)
SHOWN = 8  # samples
_WINDOW = 7  # pixels, of the structural similarity
_SHAPES_ONLY = {"InputLayer", "Flatten", "Reshape"}  # layers that hand a sample on as it is


@dataclass(frozen=True)
class Images:
    """How samples are seen: shape [height, width] or [height, width, channels], and the values that
    stand for black and white."""

    shape: tuple[int, ...]
    black: float
    white: float

    def seen(self, values: NDArray) -> NDArray[np.float64]:
        """Samples [k, *shape], or as many values, in [0, 1]."""
        scaled = (values.astype(np.float64) - self.black) / (self.white - self.black)
        return np.clip(scaled, 0, 1).reshape(-1, *self.shape)


@dataclass(frozen=True)
class Layer:
    """The model's first layer, dense and with a bias: its weights [inputs, units] and then its
    biases [units] stand in front of an update."""

    inputs: int
    units: int

    @property
    def length(self) -> int:
        """Coordinates of both."""
        return (self.inputs + 1) * self.units


@dataclass(frozen=True)
class Row:
    """What an attack on one message finds.

    Attributes:
        name: short, of its metric.
        meaning: what is attacked, in words.
        images: float64[samples, *shape], the closest candidate of each sample.
        similarity: float64[samples], its structural similarity to it.
    """

    name: str
    meaning: str
    images: NDArray[np.float64]
    similarity: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Of the similarities."""
        return float(np.median(self.similarity))


def what_is_missing(past: Past) -> str:
    """Why a run's samples cannot be shown out of its updates, in words; "" if they can be."""
    shape = past.dataset.shape
    if not _is_image(shape):
        return f"samples of shape {list(shape)} are no images"
    if first_dense(past.network) is None:
        return (
            "the model's first layer is not a dense one with a bias, from which samples follow in "
            "closed form; other attacks take hours and are not tried"
        )
    return ""


def invert(past: Past, played: Round, scheme: Scheme) -> list[Row]:
    """The attack on all that a round sent; `what_is_missing` must be "".

    The originals come first, and then the control: the gradient of each sample by itself, from
    which it follows.
    """
    layer = first_dense(past.network)
    assert layer is not None, "what_is_missing says so"
    model = played.model
    watched = played.watched
    # Of samples that are drawn there may be none.
    data = watched.data if len(watched.data.y) else past.part(watched.client)
    x, y = data.x[:SHOWN], data.y[:SHOWN]
    images = _images(past)
    originals = images.seen(x / np.float32(255) if x.dtype == np.uint8 else x)

    # The control, and the same attack on each message.
    alone = [
        past.network.gradient(model.weights, x[i : i + 1], y[i : i + 1])[0] for i in range(len(y))
    ]
    guesses = [
        _closest(_candidates(gradient, layer, images), image)
        for gradient, image in zip(alone, originals, strict=True)
    ]
    rows = [_row("control", "control: the gradient\nof this one sample", guesses)]
    for (name, meaning), vector in _messages(past, played, scheme, layer).items():
        candidates = _candidates(vector, layer, images)
        rows.append(_row(name, meaning, [_closest(candidates, image) for image in originals]))
    original = Row("original", "samples of one client", originals, np.ones(len(y)))
    return [original, *rows]


def _messages(
    past: Past, played: Round, scheme: Scheme, layer: Layer
) -> Mapping[tuple[str, str], NDArray[np.float64]]:
    """What is attacked, by its name and meaning, as vectors that begin with the first layer."""
    dequantise = played.model.grid.dequantise
    watched = played.watched
    private = past.guarantee is not None
    own = ", its noise on it" if private else ""
    samples = len(watched.data.y)
    count = f"{samples:,} sample" + ("s" if samples != 1 else "")
    clients = f"{len(played.clients):,} clients' updates"
    found = {("update", f"that client's update\n({count}{own})"): dequantise(watched.values)}
    if played.another is not None:
        vector = dequantise(played.another.values)
        found["other", "another client's, who has\nnone of these samples"] = vector
    if private:
        found["sum", f"the sum of {clients},\nif there were no noise"] = dequantise(played.bare)
        found["dp", "that sum as it is released\n(noise drawn here)"] = dequantise(played.total)
    else:
        found["sum", f"the released sum of\n{clients}"] = dequantise(played.total)
    if scheme.security_bits:
        name = ("ciphertext", f"that update's ciphertext\n({scheme.name}), its bytes")
        found[name] = _ciphertext(scheme, watched.values, layer.length)
    return found


def _ciphertext(scheme: Scheme, update: NDArray[np.integer], length: int) -> NDArray[np.float64]:
    """float64[length]: bytes of an update's ciphertexts under a key of the audit's own, as signed
    numbers."""
    chunks = scheme.encryptor(scheme.generate_keys().public).encrypt(update)
    most = -(-length // scheme.max_chunk_bytes) + 1
    found = np.frombuffer(b"".join(islice(chunks, most)), np.int8)
    return np.resize(found, length).astype(np.float64)


def first_dense(network: Network) -> Layer | None:
    """The first layer with weights, if it is dense, has a bias and sees samples as they are."""
    for layer in network.model.layers:
        kind = type(layer).__name__
        if kind == "Dense" and layer.use_bias and layer.trainable:
            inputs, units = network.shapes[0]
            whole = inputs == int(np.prod(network.samples.shape))
            return Layer(inputs, units) if whole else None
        if kind not in _SHAPES_ONLY:
            return None
    return None


def _candidates(vector: NDArray, layer: Layer, images: Images) -> NDArray[np.float64]:
    """float64[k, *shape]: what every unit's gradients say the sample is, as it stands and stretched
    from black to white; nothing of a unit whose bias has none."""
    weights = vector[: layer.inputs * layer.units].reshape(layer.inputs, layer.units)
    biases = vector[layer.inputs * layer.units : layer.length]
    moved = np.abs(biases) > 1e-12
    if not moved.any():
        return np.zeros((1, *images.shape))
    found = (weights[:, moved] / biases[moved]).T.astype(np.float64)
    low = found.min(axis=1, keepdims=True)
    high = found.max(axis=1, keepdims=True)
    stretched = (found - low) / np.maximum(high - low, 1e-12)
    return np.concatenate([images.seen(found), stretched.reshape(-1, *images.shape)])


def _closest(candidates: NDArray, image: NDArray) -> tuple[NDArray[np.float64], float]:
    scores = structural_similarity(candidates, image)
    best = int(np.argmax(scores))
    return candidates[best], float(scores[best])


def _row(name: str, meaning: str, guesses: list[tuple[NDArray[np.float64], float]]) -> Row:
    images, scores = zip(*guesses, strict=True)
    return Row(name, meaning, np.stack(images), np.array(scores))


def structural_similarity(images: NDArray, image: NDArray) -> NDArray[np.float64]:
    """float64[k]: the mean structural similarity of images [k, *shape] in [0, 1] to one of them
    (Wang et al., "Image Quality Assessment", IEEE TIP 2004, equation 13), over windows of 7 pixels,
    all alike, that lie within the image; of colours the mean."""
    window = min(_WINDOW, *image.shape[:2])
    one = image[None].astype(np.float64)
    many = images.astype(np.float64)
    mean_one, mean_many = _means(one, window), _means(many, window)
    spread_one = _means(one * one, window) - mean_one**2
    spread_many = _means(many * many, window) - mean_many**2
    together = _means(one * many, window) - mean_one * mean_many
    light = (2 * mean_one * mean_many + 1e-4) / (mean_one**2 + mean_many**2 + 1e-4)
    form = (2 * together + 9e-4) / (spread_one + spread_many + 9e-4)
    return (light * form).reshape(len(images), -1).mean(axis=1)


def _means(images: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of every window within images [k, height, width, ...]."""
    for axis in (1, 2):
        sums = np.cumsum(images, axis=axis)
        sums = np.insert(sums, 0, 0.0, axis=axis)
        length = sums.shape[axis]
        ends = np.take(sums, range(window, length), axis=axis)
        starts = np.take(sums, range(length - window), axis=axis)
        images = (ends - starts) / window
    return images


def _is_image(shape: tuple[int, ...]) -> bool:
    sides = len(shape) >= 2 and min(shape[:2]) > 1
    return sides and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def _images(past: Past) -> Images:
    """As the model is given samples: uint8 in [0, 1]."""
    x = past.dataset.x_train
    if x.dtype == np.uint8:
        return Images(past.dataset.shape, 0.0, 1.0)
    low, high = float(x.min()), float(x.max())
    return Images(past.dataset.shape, low, high if high > low else low + 1.0)
