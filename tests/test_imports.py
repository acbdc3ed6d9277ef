"""Imports: TenSEAL and TensorFlow live together in either order, and come only when they are
used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import LAYER, sources, violations

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "tenseal", "mlflow")

TENSEAL = "from hyperlock.encryption._tenseal import tenseal as ts"
TENSORFLOW = "from hyperlock.learning.tensorflow import tf"
USE_BOTH = """
context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[60, 30])
context = ts.context_from(context.serialize(save_secret_key=True))
vector = ts.ckks_vector(context, [1.0, 2.0], 2.0**25)
again = ts.ckks_vector_from(context, vector.serialize())
assert [round(value) for value in again.decrypt()] == [1, 2]
assert float(tf.reduce_sum(tf.linalg.matmul(tf.ones([3, 3]), tf.ones([3, 3])))) == 27
assert sys.getdlopenflags() == flags
print("both work")
"""


def python(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    """In a process and a folder of its own."""
    environment = {**os.environ, "HYPERLOCK_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("first", ["TensorFlow", "TenSEAL"])
def test_tenseal_and_tensorflow_work_in_either_order(first: str, tmp_path: Path) -> None:
    imports = [TENSORFLOW, TENSEAL] if first == "TensorFlow" else [TENSEAL, TENSORFLOW]
    code = "\n".join(["import sys", "flags = sys.getdlopenflags()", *imports, USE_BOTH])
    done = python("-c", code, root=tmp_path)
    assert (done.returncode, done.stdout) == (0, "both work\n"), done.stderr


def test_a_process_that_used_tensorflow_before_can_still_use_us(tmp_path: Path) -> None:
    """A notebook, or one that loaded a recorded model."""
    done = python("-c", f"import tensorflow\ntensorflow.ones(3) + 1\n{TENSORFLOW}", root=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("arguments", [("--help",), ("--cfg", "job")], ids=" ".join)
def test_looking_at_settings_imports_nothing_heavy(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = python("-X", "importtime", str(ROOT / "run.py"), *arguments, root=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "encryption" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "hyperlock" in imported and "hydra" in imported
    assert imported.isdisjoint(HEAVY)
    assert list(tmp_path.iterdir()) == []  # nor is anything written


def test_every_import_goes_down_and_none_in_a_circle() -> None:
    assert violations(sources()) == []


def test_every_package_has_a_layer() -> None:
    packages = {name.split(".")[1] for name in sources()} - {"__init__"}
    assert packages <= LAYER.keys()


PLANTED = {
    "a higher layer": (
        "hyperlock.parties.server",
        "from hyperlock.experiment.rounds import Traffic",
        "hyperlock.parties.server imports hyperlock.experiment.rounds, which is no lower layer",
    ),
    "the same layer": (
        "hyperlock.learning.local",
        "from hyperlock.encryption.grid import Grid",
        "hyperlock.learning.local imports hyperlock.encryption.grid, which is no lower layer",
    ),
    "the same layer, from hyperlock itself": (
        "hyperlock.learning.local",
        "from hyperlock import encryption",
        "hyperlock.learning.local imports hyperlock.encryption, which is no lower layer",
    ),
    "a higher layer, for types alone": (
        "hyperlock.encryption.grid",
        "if TYPE_CHECKING:\n    from hyperlock.parties.messages import Update",
        "hyperlock.encryption.grid imports hyperlock.parties.messages",
    ),
    "a higher layer, late": (
        "hyperlock.data.split",
        "def f():\n    import hyperlock.learning.network",
        "hyperlock.data.split imports hyperlock.learning.network, which is no lower layer",
    ),
    "a higher layer, relative": (
        "hyperlock.data.split",
        "from ..parties import client",
        "hyperlock.data.split imports hyperlock.parties.client, which is no lower layer",
    ),
    "the top": (
        "hyperlock.sweep.callback",
        "from hyperlock import run",
        "hyperlock.sweep.callback imports hyperlock, which is no lower layer",
    ),
    "settings in a party": (
        "hyperlock.parties.client",
        "from hyperlock.settings.schema import Config",
        "parties may not know settings",
    ),
    "tracking in a party": (
        "hyperlock.parties.client",
        "from hyperlock.tracking import plots",
        "hyperlock.parties.client imports hyperlock.tracking.plots, which is no lower layer",
    ),
    "a circle": (
        "hyperlock.encryption.scheme",
        "from hyperlock.encryption.bfv import Bfv",
        "a circle: ",
    ),
    "a circle, for types alone": (
        "hyperlock.learning.types",
        "if TYPE_CHECKING:\n    from hyperlock.learning.local import sgd_epochs",
        "a circle: ",
    ),
    "a circle, late": (
        "hyperlock.settings.schema",
        "def f():\n    from hyperlock.settings import checks",
        "a circle: ",
    ),
    "a late import in its own package": (
        "hyperlock.experiment.run",
        "def f():\n    from hyperlock.experiment.report import Report",
        "hyperlock.experiment.run imports hyperlock.experiment.report late",
    ),
    "a higher layer, relative, from a package": (
        "hyperlock.data.__init__",
        "from .. import parties",
        "hyperlock.data imports hyperlock.parties, which is no lower layer",
    ),
    "TensorFlow by our own module": (
        "hyperlock.parties.client",
        "def f():\n    from hyperlock.learning.tensorflow import tf",
        "hyperlock.parties.client imports hyperlock.learning.tensorflow, which is for learning",
    ),
    "TenSEAL by our own module": (
        "hyperlock.parties.server",
        "def f():\n    from hyperlock.encryption._tenseal import tenseal",
        "hyperlock.parties.server imports hyperlock.encryption._tenseal, which is for encryption",
    ),
    "what is imported with the package itself": (
        "hyperlock.__init__",
        "from hyperlock.experiment.run import run",
        "before it is asked to run anything",
    ),
    "an import by name": (
        "hyperlock.parties.client",
        "importlib.import_module('hyperlock.settings.parse')",
        "hyperlock.parties.client imports by name",
    ),
    "what stands beside the package": (
        "hyperlock.advise",
        "from benchmarks import models",
        "hyperlock.advise imports benchmarks, which is no part of hyperlock",
    ),
    "TensorFlow": ("hyperlock.learning.models", "import tensorflow as tf", "tensorflow, whose"),
    "Keras": ("hyperlock.learning.models", "from keras import layers", "keras, whose"),
    "TenSEAL": ("hyperlock.parties.server", "import tenseal.sealapi", "tenseal, whose"),
    "MLflow": (
        "hyperlock.experiment.run",
        "def f():\n    import mlflow",
        "mlflow, whose",
    ),
    "dp-accounting": (
        "hyperlock.experiment.run",
        "def f():\n    import dp_accounting.pld",
        "dp_accounting, whose",
    ),
    "Optuna": (
        "hyperlock.experiment.run",
        "from optuna import Study",
        "optuna, whose",
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_breaks_the_rule_is_found(kind: str) -> None:
    module, planted, said = PLANTED[kind]
    modules = sources()
    modules[module] = f"{modules[module]}\n\n{planted}\n"
    found = violations(modules)
    assert any(said in line for line in found), found
