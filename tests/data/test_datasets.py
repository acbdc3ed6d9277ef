"""Datasets: what is read is what was written, and a file that cannot be used is refused by what is
wrong with it."""

from __future__ import annotations

import hashlib
import io
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hyperlock.data import datasets, download
from hyperlock.data.datasets import Dataset
from hyperlock.errors import ConfigError

MNIST = Path(__file__).parents[2] / "data" / "mnist.npz"
X = np.random.default_rng(0).random((20, 3, 2))
Y = np.arange(20) % 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.npz"


def read(file: Path, test_fraction: float = 0.25, seed: int = 0, **arrays: object) -> Dataset:
    if arrays:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return datasets.npz(str(file), test_fraction, seed)


def refused(file: Path, **arrays: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file, **arrays)
    assert caught.value.setting == "dataset.path"
    assert str(file) in str(caught.value).splitlines()[0]
    return str(caught.value)


def four(**changes: object) -> dict[str, object]:
    arrays = {"x_train": X[:15], "y_train": Y[:15], "x_test": X[15:], "y_test": Y[15:]}
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


# Files that can be used


def test_four_arrays_are_taken_as_they_are(file: Path) -> None:
    dataset = read(file, **four())
    assert (dataset.x_train == X[:15].astype(np.float32)).all() and (
        dataset.x_test == X[15:].astype(np.float32)
    ).all()
    assert (dataset.y_train == Y[:15]).all() and (dataset.y_test == Y[15:]).all()
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.float32
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int32
    assert dataset.classes == 4 and dataset.shape == (3, 2)


@pytest.mark.parametrize(("fraction", "tests"), [(0.25, 5), (0.5, 10), (0.001, 1), (0.6, 12)])
def test_two_arrays_are_split_at_random(file: Path, fraction: float, tests: int) -> None:
    numbered = np.arange(20.0)[:, None]
    dataset = read(file, fraction, x=numbered, y=np.arange(20) % 2)
    assert dataset.x_test.shape == (tests, 1) and dataset.x_train.shape == (20 - tests, 1)
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert (x[:, 0].astype(int) % 2 == y).all()
    assert sorted(np.concatenate([dataset.x_train, dataset.x_test])[:, 0]) == list(range(20))


def test_the_seed_decides_the_split(file: Path) -> None:
    arrays = {"x": np.arange(20.0)[:, None], "y": np.arange(20) % 2}
    first, again, other = (read(file, 0.3, seed, **arrays) for seed in (1, 1, 2))
    assert (first.x_test == again.x_test).all() and (first.x_train == again.x_train).all()
    assert set(first.x_test[:, 0]) != set(other.x_test[:, 0])


def test_a_rare_class_is_taken_whatever_the_seed(file: Path) -> None:
    y = np.array([2, *[0, 1] * 9, 0])
    assert [read(file, 0.3, seed, x=X, y=y).classes for seed in range(10)] == [3] * 10


def test_four_arrays_go_before_two(file: Path) -> None:
    assert len(read(file, **four(), x=X, y=Y).y_train) == 15


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, bool])
def test_uint8_stays_and_other_numbers_become_float32(file: Path, dtype: type) -> None:
    dataset = read(file, x=(X * 200).astype(dtype), y=Y)
    assert (
        dataset.x_train.dtype
        == dataset.x_test.dtype
        == (np.uint8 if dtype == np.uint8 else np.float32)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64])
def test_labels_of_any_integer_type_are_taken(file: Path, dtype: type) -> None:
    assert (read(file, **four(y_train=Y[:15].astype(dtype))).y_train == Y[:15]).all()


# Files that cannot


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named_and_so_are_those_there(file: Path, missing: str) -> None:
    text = refused(file, **four(**{missing: None}))
    there = sorted({"x_train", "y_train", "x_test", "y_test"} - {missing})
    assert f"lacks {missing}; it has {', '.join(there)}" in text


def test_a_file_with_other_arrays_is_refused(file: Path) -> None:
    for arrays in ({"images": X, "labels": Y}, {"x": X}, {"y": Y}):
        assert "lacks x_train, y_train, x_test, y_test" in refused(file, **arrays)
    with zipfile.ZipFile(file, "w"):
        pass
    assert "it has nothing" in refused(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": X[:19]}, {"y": Y[:19]}, {"x": X[:0], "y": Y[:0]}, {"x": np.arange(20.0)},
        {"x": np.float64(3)},
        {"y": Y[:, None]}, {"y": np.int64(3)}, {"y": np.eye(4)[Y].astype(int)},
    ],
    ids=lambda changes: " ".join(f"{k}{np.shape(v)}" for k, v in changes.items()),
)  # fmt: skip
def test_wrong_shapes_are_refused(file: Path, changes: dict) -> None:
    refused(file, **{"x": X, "y": Y, **changes})
    refused(file, **four(**{f"{k}_train": v for k, v in changes.items()}))


def test_samples_of_two_shapes_are_refused(file: Path) -> None:
    text = refused(file, **four(x_test=X[15:].reshape(5, 6)))
    assert "(3, 2)" in text and "(6,)" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sample", [0, 7, 14])
def test_nan_and_inf_are_refused_and_the_sample_named(file: Path, bad: float, sample: int) -> None:
    x = X.copy()
    x[sample, 2, 1] = x[14, 0, 0] = bad
    assert f"x contains NaN or Inf, first in sample {sample}" in refused(file, x=x, y=Y)
    assert f"x_train contains NaN or Inf, first in sample {sample}" in refused(
        file, **four(x_train=x[:15])
    )
    assert "x_test contains NaN or Inf, first in sample 2" in refused(
        file, **four(x_test=np.where(np.arange(5)[:, None, None] == 2, bad, X[15:]))
    )


@pytest.mark.filterwarnings("ignore:overflow")
def test_values_too_large_for_float32_are_refused(file: Path) -> None:
    refused(file, x=X * 1e300, y=Y)


def test_negative_labels_are_refused(file: Path) -> None:
    assert "negative class -1" in refused(file, x=X, y=Y - 1)
    assert "y_test contains the negative class -3" in refused(
        file, **four(y_test=np.array([0, 1, -3, 0, 1]))
    )


@pytest.mark.parametrize(
    "y", [Y.astype(float), Y > 1, Y.astype(str), Y.astype(complex)], ids=lambda y: str(y.dtype)
)
def test_labels_that_are_no_integers_are_refused(file: Path, y: np.ndarray) -> None:
    assert f"y is {y.dtype}" in refused(file, x=X, y=y)
    assert f"y_train is {y.dtype}" in refused(file, **four(y_train=y[:15]))


@pytest.mark.parametrize("form", ["two arrays", "four arrays"])
def test_labels_beyond_int32_are_refused(file: Path, form: str) -> None:
    y = Y + 2**32 * (Y > 0)
    refused(file, **({"x": X, "y": y} if form == "two arrays" else four(y_train=y[:15])))


@pytest.mark.parametrize(
    "x", [X.astype(str), X.astype(complex), X.astype("M8[s]")], ids=lambda x: str(x.dtype)
)
def test_features_that_are_no_real_numbers_are_refused(file: Path, x: np.ndarray) -> None:
    assert f"x is {x.dtype}" in refused(file, x=x, y=Y)


def test_classes_only_in_the_test_set_are_refused(file: Path) -> None:
    assert "y_test has classes that y_train lacks" in refused(
        file, **four(y_test=np.array([0, 1, 2, 3, 4]))
    )


def test_a_single_class_is_refused(file: Path) -> None:
    assert "only one class" in refused(file, x=X, y=Y * 0)


def test_pixels_of_two_types_are_refused(file: Path) -> None:
    pixels = (X * 255).astype(np.uint8)
    refused(file, **four(x_train=pixels[:15], x_test=pixels[15:].astype(np.float32)))


def test_object_arrays_are_refused_and_not_unpickled(file: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return open, (str(file.with_name("unpickled")), "w")

    np.savez(file, x=np.array([Bomb()] * 20), y=Y)
    assert "cannot be read as .npz" in refused(file)
    assert not file.with_name("unpickled").exists()


def test_a_file_that_is_no_zip_is_refused(file: Path) -> None:
    single = io.BytesIO()
    np.save(single, X)
    for content in (b"", b"not a zip", b"PK\x03\x04 but no more", bytes(1000), single.getvalue()):
        file.write_bytes(content)
        assert "cannot be read as .npz" in refused(file)


def test_a_truncated_file_is_refused(file: Path) -> None:
    np.savez_compressed(file, x=X, y=Y)
    whole = file.read_bytes()
    for cut in range(0, len(whole), 37):
        file.write_bytes(whole[:cut])
        assert "cannot be read as .npz" in refused(file)


def test_a_damaged_file_is_refused_or_read(file: Path) -> None:
    np.savez_compressed(file, x=X.round(1), y=Y)
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read(file)
        except ConfigError:
            continue


def test_a_zip_of_something_else_is_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "1,2,3")
        archive.writestr("y", "1,2,3")
    refused(file)


def test_a_missing_file_and_a_folder_are_refused(file: Path) -> None:
    assert "there is no such file" in refused(file) and "try: " in refused(file)
    file.mkdir()
    refused(file)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_test_fraction_that_leaves_nothing_is_refused(file: Path, fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.test_fraction="):
        read(file, fraction, x=X, y=Y)


# Subsets


def numbered(train: int = 30, test: int = 10) -> Dataset:
    def part(count: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.arange(start, start + count, dtype=np.float32)[:, None]
        return x, (x[:, 0].astype(np.int32) % 3)

    return Dataset(*part(train, 0), *part(test, 1000), 3)


def test_a_subset_keeps_samples_and_labels_together() -> None:
    dataset = numbered().take(12, 4, seed=0)
    assert len(dataset.y_train) == 12 and len(dataset.y_test) == 4 and dataset.classes == 3
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert len(set(x[:, 0])) == len(y) and (x[:, 0].astype(int) % 3 == y).all()


def test_the_seed_decides_the_subset() -> None:
    first, again, other = (numbered().take(12, None, seed) for seed in (1, 1, 2))
    assert (first.x_train == again.x_train).all() and (first.x_train != other.x_train).any()
    assert len(first.y_test) == 10


def test_all_or_as_many_as_there_are_is_everything() -> None:
    for count in (None, 30):
        assert (numbered().take(count, None, 0).x_train == numbered().x_train).all()


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("count", [0, -1, 31])
def test_a_subset_larger_than_the_set_or_empty_is_refused(part: str, count: int) -> None:
    counts = {"train": None, "test": None, part: count}
    with pytest.raises(ConfigError, match=rf"dataset\.{part}_samples={count}: the {part} set has"):
        numbered().take(counts["train"], counts["test"], 0)


# MNIST and digits


def test_mnist_is_mnist() -> None:
    dataset = datasets.mnist(str(MNIST))
    assert dataset.x_train.shape == (60000, 28, 28) and dataset.x_test.shape == (10000, 28, 28)
    assert dataset.x_train.dtype == np.uint8 and dataset.classes == 10
    assert list(dataset.y_train[:5]) == [5, 0, 4, 1, 9]


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_mnist_with_one_altered_value_is_refused(
    file: Path, key: str, mnist: dict[str, np.ndarray]
) -> None:
    altered = mnist[key].copy()
    altered.flat[-1] ^= 1
    np.savez(file, **{**mnist, key: altered})
    with pytest.raises(ConfigError, match="checksum mismatch"):
        datasets.mnist(str(file))


@pytest.fixture(scope="module")
def mnist() -> dict[str, np.ndarray]:
    with np.load(MNIST) as archive:
        return dict(archive)


def test_a_file_that_lacks_mnists_arrays_is_refused(file: Path) -> None:
    for arrays in ({"x": X, "y": Y}, four()):
        np.savez(file, **arrays)
        with pytest.raises(ConfigError, match=r"dataset\.path="):
            datasets.mnist(str(file))


def test_digits_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    dataset = datasets.digits(0.2, seed=0)
    assert (
        dataset.x_train.shape == (1438, 8, 8)
        and len(dataset.y_test) == 359
        and dataset.classes == 10
    )
    assert (
        dataset.x_train.dtype == np.float32
        and dataset.x_train.min() == 0
        and dataset.x_train.max() == 1
    )
    assert set(dataset.y_train) == set(dataset.y_test) == set(range(10))
    assert (datasets.digits(0.2, seed=1).y_test != dataset.y_test).any()


# MNIST's download


def served(
    monkeypatch: pytest.MonkeyPatch, content: bytes, folder: Path, keras: Path | None = None
) -> None:
    """This content at the address that MNIST is downloaded from, and Keras' folder elsewhere."""
    source = folder / "served.npz"
    source.write_bytes(content)
    monkeypatch.setattr(download, "MNIST_ADDRESS", source.as_uri())
    monkeypatch.setenv("KERAS_HOME", str(keras or folder / "no keras"))


def test_a_missing_mnist_is_downloaded_and_is_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = MNIST.read_bytes()
    served(monkeypatch, content, tmp_path)
    monkeypatch.setattr(download, "MNIST_FILE_SHA256", hashlib.sha256(content).hexdigest())
    file = tmp_path / "a folder" / "mnist.npz"
    assert len(datasets.mnist(str(file)).y_train) == 60000
    assert file.read_bytes() == content and list(file.parent.iterdir()) == [file]


def test_what_keras_downloaded_before_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = tmp_path / "keras"
    (keras / "datasets").mkdir(parents=True)
    (keras / "datasets" / "mnist.npz").write_bytes(MNIST.read_bytes())
    served(monkeypatch, b"", tmp_path, keras)
    monkeypatch.setattr(
        download, "MNIST_FILE_SHA256", hashlib.sha256(MNIST.read_bytes()).hexdigest()
    )
    assert len(datasets.mnist(str(tmp_path / "mnist.npz")).y_train) == 60000


@pytest.mark.parametrize("content", [b"", b"an error page", None], ids=repr)
def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    served(monkeypatch, content or b"", tmp_path)
    if content is None:
        monkeypatch.setattr(download, "MNIST_ADDRESS", (tmp_path / "nowhere").as_uri())
    file = tmp_path / "a folder" / "mnist.npz"
    with pytest.raises(ConfigError) as caught:
        datasets.mnist(str(file))
    text = str(caught.value)
    assert text.startswith(f"dataset.path={file}: there is no such file, and MNIST could not be")
    assert "copy mnist.npz there, or run with dataset=digits" in text
    assert not file.parent.exists()
