"""Datasets: arrays in memory, checked on the way in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyperlock.data import download
from hyperlock.errors import ConfigError
from hyperlock.randomness import generator

# Of the bytes of x_train, y_train, x_test and y_test in this order: the same for every re-packed
# mnist.npz.
MNIST_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
_MOST_CLASSES = 2**20
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_DTYPES = ("uint8", "float32")
_MOST_DIMENSIONS = 8

Pair = tuple[NDArray, NDArray[np.int32]]  # samples and their labels


@dataclass(frozen=True)
class Dataset:
    """A labelled dataset.

    Attributes:
        x_train, x_test: uint8 or float32 [samples, *shape]; uint8 stands for [0, 1] in steps of
            1/255.
        y_train, y_test: int32[samples], classes from 0.
        classes: number of classes.
    """

    x_train: NDArray
    y_train: NDArray[np.int32]
    x_test: NDArray
    y_test: NDArray[np.int32]
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x_train.shape[1:]

    def take(self, train: int | None, test: int | None, seed: int) -> Dataset:
        """A random subset of `train` and `test` samples, in their order; None keeps all.

        Raises:
            ConfigError: there are not so many.
        """
        dataset = self
        if train is not None:
            chosen = _draw("train", len(self.y_train), train, seed)
            dataset = replace(dataset, x_train=self.x_train[chosen], y_train=self.y_train[chosen])
        if test is not None:
            chosen = _draw("test", len(self.y_test), test, seed)
            dataset = replace(dataset, x_test=self.x_test[chosen], y_test=self.y_test[chosen])
        return dataset

    def left_out(self, train: int | None, seed: int) -> Pair:
        """The training samples that `take` of so many leaves out, in their order."""
        chosen = slice(None) if train is None else _draw("train", len(self.y_train), train, seed)
        return np.delete(self.x_train, chosen, axis=0), np.delete(self.y_train, chosen)


def mnist(path: str) -> Dataset:
    """The 70,000 digits of MNIST (LeCun et al. 1998), from `path` or else downloaded there.

    Raises:
        ConfigError: neither worked, or the file is not MNIST.
    """
    file = Path(path).absolute()
    if not file.exists():
        _download_mnist(file)
    digest = hashlib.sha256()
    arrays = _read_npz(file)
    for key in _KEYS:
        digest.update(arrays.get(key, np.zeros(0)).tobytes())
    if digest.hexdigest() != MNIST_SHA256:
        raise ConfigError(
            "dataset.path",
            path,
            "the file's arrays are not MNIST's (checksum mismatch)",
            hint="delete the file and run again to download it, or use dataset=npz for data of "
            "your own",
        )
    return _checked(path, arrays)


def digits(test_fraction: float, seed: int) -> Dataset:
    """Scikit-learn's 1,797 digits of 8x8 pixels (UCI optdigits), scaled to [0, 1]; no file and no
    network."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _split_test((bunch.images / 16).astype(np.float32), bunch.target, test_fraction, seed)


def npz(path: str, test_fraction: float, seed: int) -> Dataset:
    """A user's own arrays: `x_train, y_train, x_test, y_test`, or `x, y` to be split at random.

    x is numeric [samples, *shape], y integer [samples] with classes from 0.

    Raises:
        ConfigError: the file is missing or unreadable, or keys, shapes, dtypes or values are not as
            above.
    """
    file = Path(path).absolute()
    if not file.exists():
        raise ConfigError(
            "dataset.path", path, "there is no such file", hint="an absolute path to a .npz file"
        )
    arrays = _read_npz(file)

    # Two arrays become four; four go before two.
    if {"x", "y"} <= arrays.keys() and not set(_KEYS) <= arrays.keys():
        _check_pair(path, arrays, "x", "y")
        split = _split_test(arrays["x"], arrays["y"], test_fraction, seed)
        arrays = {key: getattr(split, key) for key in _KEYS}

    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ConfigError(
            "dataset.path",
            path,
            f"the file lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}",
            allowed=f"keys {', '.join(_KEYS)}; or x and y",
        )
    return _checked(path, arrays)


def sites(shape: list[int], dtype: str, classes: int) -> Dataset:
    """What a coordinator without samples knows of those of the sites: none, of this kind.

    Raises:
        ConfigError: there can be none of this kind.
    """
    if dtype not in _DTYPES:
        allowed = "uint8, which stands for 0 to 1, or float32"
        raise ConfigError("dataset.dtype", dtype, "is no type of samples", allowed=allowed)
    if not 1 <= len(shape) <= _MOST_DIMENSIONS or min(shape) < 1:
        raise ConfigError(
            "dataset.shape",
            shape,
            "is no shape of one sample",
            allowed=f"1 to {_MOST_DIMENSIONS} numbers from 1",
            hint="dataset.shape=[28,28]",
        )
    x = np.zeros((0, *shape), dtype)
    y = np.zeros(0, np.int32)
    return Dataset(x, y, x, y, classes)


def local(path: Path) -> tuple[Pair, Pair | None]:
    """One site's samples and their labels, and those to test on if there are any: x and y of a .npz
    file, or x_train and y_train; x_test and y_test; as `npz` reads them.

    Raises:
        ConfigError: the file is missing or unreadable, or what is in it is not as it must be.
    """
    if not path.exists():
        raise ConfigError("dataset.path", path, "there is no such file")
    arrays = _read_npz(path)
    names = ("x", "y") if {"x", "y"} <= arrays.keys() else ("x_train", "y_train")
    missing = [name for name in names if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise _refusal(path, f"the file has {found}", "keys x and y, or x_train and y_train")
    tests = ("x_test", "y_test")
    there = [name for name in tests if name in arrays]
    if len(there) == 1:
        raise _refusal(path, f"the file has {there[0]} alone", "x_test and y_test, or neither")
    return _pair(path, arrays, *names), _pair(path, arrays, *tests) if there else None


def _pair(path: Path, arrays: dict[str, NDArray], x_name: str, y_name: str) -> Pair:
    """Samples and labels as the rest of HyperLock has them; ConfigError if they are none."""
    _check_pair(str(path), arrays, x_name, y_name)
    return _features(arrays[x_name]), arrays[y_name].astype(np.int32)


def _draw(part: str, samples: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` of a part's samples at random, as sorted indices."""
    if not 1 <= count <= samples:
        raise ConfigError(
            f"dataset.{part}_samples",
            count,
            f"the {part} set has {samples} samples",
            allowed=f"1 to {samples}, or null for all",
            hint=f"dataset.{part}_samples=null",
        )
    return np.sort(generator(seed, f"subset/{part}").permutation(samples)[:count])


def _checked(path: str, arrays: dict[str, NDArray]) -> Dataset:
    """The dataset of four arrays, or ConfigError: each pair by itself, then the two together."""
    _check_pair(path, arrays, "x_train", "y_train")
    _check_pair(path, arrays, "x_test", "y_test")
    train = arrays["x_train"]
    test = arrays["x_test"]
    if train.shape[1:] != test.shape[1:] or (train.dtype == np.uint8) != (test.dtype == np.uint8):
        raise _refusal(
            path,
            f"samples of x_train are {train.dtype}{train.shape[1:]} and of x_test "
            f"{test.dtype}{test.shape[1:]}",
            "one shape, and uint8 (read as 0 to 1) in both or in neither",
        )
    classes = int(arrays["y_train"].max()) + 1
    if int(arrays["y_test"].max()) >= classes:
        raise _refusal(
            path, f"y_test has classes that y_train lacks (largest in y_train: {classes - 1})"
        )
    if classes < 2:
        raise _refusal(path, "y_train has only one class", "two classes or more")
    return Dataset(
        x_train=_features(train),
        y_train=arrays["y_train"].astype(np.int32),
        x_test=_features(test),
        y_test=arrays["y_test"].astype(np.int32),
        classes=classes,
    )


def _check_pair(path: str, arrays: dict[str, NDArray], x_name: str, y_name: str) -> None:
    """ConfigError unless these are samples and their labels."""
    x = arrays[x_name]
    y = arrays[y_name]
    if x.ndim < 2 or 0 in x.shape[1:] or not _is_real(x):
        raise _refusal(
            path, f"{x_name} is {x.dtype}{list(x.shape)}", "real numbers [samples, *shape]"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise _refusal(
            path, f"{y_name} is {y.dtype}{list(y.shape)}", "integers [samples], classes from 0"
        )
    if len(x) != len(y) or len(x) == 0:
        raise _refusal(
            path,
            f"{x_name} has {len(x)} samples and {y_name} {len(y)}",
            "as many labels as samples, at least one",
        )
    _check_finite(path, x, x_name)
    _check_classes(path, y, y_name)


def _check_finite(path: str, x: NDArray, name: str) -> None:
    """ConfigError for a sample with a value that is no number, or too large for float32."""
    if np.issubdtype(x.dtype, np.integer):
        return
    finite = np.isfinite(_features(x).reshape(len(x), -1)).all(axis=1)
    if not finite.all():
        raise _refusal(
            path,
            f"{name} contains NaN or Inf, first in sample {np.argmin(finite)}",
            "finite float32 numbers",
        )


def _check_classes(path: str, y: NDArray, name: str) -> None:
    """ConfigError for a label that cannot be a class's number."""
    if y.min() < 0:
        raise _refusal(path, f"{name} contains the negative class {y.min()}", "classes from 0")
    if y.max() >= _MOST_CLASSES:
        raise _refusal(
            path,
            f"{name} contains the class {y.max()}",
            f"classes from 0, at most {_MOST_CLASSES} of them",
        )


def _is_real(x: NDArray) -> bool:
    number = np.issubdtype(x.dtype, np.number) or x.dtype == bool
    return number and not np.iscomplexobj(x)


def _refusal(path: str | Path, problem: str, allowed: str = "") -> ConfigError:
    return ConfigError("dataset.path", path, problem, allowed=allowed)


def _features(x: NDArray) -> NDArray:
    """uint8 as it is, all else as float32."""
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        return x if x.dtype == np.uint8 else x.astype(np.float32)


def _split_test(x: NDArray, y: NDArray, test_fraction: float, seed: int) -> Dataset:
    """A dataset of x and y, divided at random, but the training set gets one sample of every
    class."""
    if not 0 < test_fraction < 1:
        raise ConfigError(
            "dataset.test_fraction",
            test_fraction,
            "is no share of the samples",
            allowed="above 0 and below 1",
            hint="dataset.test_fraction=0.2",
        )
    # A sample of every class is kept for training; the others are divided.
    order = generator(seed, "test split").permutation(len(y))
    _, kept = np.unique(y[order], return_index=True)
    others = np.delete(order, kept)
    cut = min(max(round(len(y) * test_fraction), 1), len(others))
    if cut == 0:
        raise ConfigError(
            "dataset.test_fraction",
            test_fraction,
            "every class has a single sample, which leaves none to test on",
        )
    test = others[:cut]
    train = np.concatenate([others[cut:], order[kept]])
    x = _features(x)
    y = y.astype(np.int32)
    return Dataset(x[train], y[train], x[test], y[test], int(y.max()) + 1)


def _read_npz(file: Path) -> dict[str, NDArray]:
    """All arrays of a file, by name; nothing in it is unpickled."""
    allowed = "numpy.savez without pickled objects"
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # zip, zlib and NumPy raise a dozen kinds for a damaged file
        raise _refusal(file, f"the file cannot be read as .npz ({error})", allowed) from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise _refusal(file, f"{key} is not an array", allowed)
    return arrays


def _download_mnist(file: Path) -> None:
    """Fetch it to `file`, or ConfigError."""
    try:
        download.mnist(file)
    except Exception as error:  # every kind of network and file failure ends here
        raise ConfigError(
            "dataset.path",
            file,
            f"there is no such file, and MNIST could not be downloaded ({error})",
            hint="copy mnist.npz there, or run with dataset=digits, which needs no file",
        ) from None
