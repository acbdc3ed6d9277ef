"""Datasets that are fetched if their file is missing."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from urllib.request import urlopen

_TIMEOUT = 60  # seconds without a byte

# Where Keras has it from, and the hash that it holds the file to.
MNIST_ADDRESS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_FILE_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def mnist(file: Path) -> None:
    """Write MNIST's arrays to `file`, whole or not at all: from Keras' folder of downloads if it is
    there, else from Keras' address.

    Raises:
        OSError: it cannot be reached or written.
        ValueError: what came is another file.
    """
    data = _read(_keras_copy("mnist.npz") or MNIST_ADDRESS)
    if hashlib.sha256(data).hexdigest() != MNIST_FILE_SHA256:
        raise ValueError("what was downloaded is not MNIST: checksum mismatch")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    partial.write_bytes(data)
    partial.replace(file)


def _keras_copy(name: str) -> str | None:
    """The address of what Keras downloaded before, if it did."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser().absolute()
    copy = home / "datasets" / name
    return copy.as_uri() if copy.is_file() else None


def _read(address: str) -> bytes:
    logging.getLogger(__name__).info("reading %s", address)
    with urlopen(address, timeout=_TIMEOUT) as answer:
        return answer.read()
