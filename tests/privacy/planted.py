"""The mechanism with a fault planted: what an audit has to catch."""

import numpy as np
from numpy.typing import NDArray

from hyperlock.privacy.mechanism import Mechanism, Promise


class Halved(Mechanism):
    """Half of the noise that was promised."""

    @property
    def spread(self) -> float:
        return super().spread / 2


class Unchecked(Mechanism):
    """Clipped, then rounded, and that was it."""

    def round(self, values: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int32]:
        scaled = values.astype(np.float64)
        scaled *= min(1.0, self.promise.clip / float(np.linalg.norm(scaled))) / self.step
        return np.floor(scaled + rng.random(values.size)).astype(np.int32)


class Weighted(Unchecked):
    """Clipped, rounded, and then weighted by how many samples the client has."""

    def round(self, values: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int32]:
        return np.floor(super().round(values, rng) * 1.2 + rng.random(values.size)).astype(np.int32)


def promise(fewest: int, noise: float = 1.0) -> Promise:
    return Promise("client", clip=0.5, noise=noise, fewest=fewest)
