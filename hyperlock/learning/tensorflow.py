"""The one place that imports TensorFlow.

- Keras imports scikit-learn, pandas, matplotlib and SciPy if it finds them, for wrappers and plots
  that are not used here; hiding them for the time of the import halves it (4.1 s against 2.3 s seen
  on two cores).
- TensorFlow writes notices about missing GPUs to the process' stderr before any setting can stop
  it; they are held back, and shown if the import fails.
- One thread an operator: the bits of a matrix product depend on how it is divided among threads, so
  this is what makes a run's accuracy the same on a laptop and on a server. Cores are used by
  training several clients at a time instead (`runtime.workers`).
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_UNUSED_BY_US = ("sklearn", "pandas", "matplotlib", "scipy")


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Packages that the block cannot import, unless they were imported before."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # The documented way to make an import fail.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold what the process writes to file descriptor 2; show it only if the block raises."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _held_stderr(), _without(_UNUSED_BY_US):
    import tensorflow as tf

    # It takes a sweep's models, one after the other, for one function that is traced again and
    # again.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:  # a notebook that has used TensorFlow before
        logging.getLogger(__name__).warning(
            "TensorFlow is in use already: results may depend on its threads"
        )
    tf.config.list_logical_devices()

__all__ = ["tf"]
