"""Imports: TenSEAL and TensorFlow live together in either order, and come only when they are
used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "tenseal", "mlflow")
MODULES = sorted((ROOT / "hyperlock").rglob("*.py"))

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


def imports(tree: ast.AST) -> set[str]:
    """Top-level names of all that is imported anywhere below."""
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def test_tenseal_and_tensorflow_are_imported_in_one_place_each() -> None:
    where: dict[str, list[str]] = {"tenseal": [], "tensorflow": [], "keras": []}
    for file in MODULES:
        found = imports(ast.parse(file.read_text()))
        for name, files in where.items():
            if name in found:
                files.append(str(file.relative_to(ROOT)))
    assert where == {
        "tenseal": ["hyperlock/encryption/_tenseal.py"],
        "tensorflow": ["hyperlock/learning/tensorflow.py"],
        "keras": [],
    }


def modules_of(name: str) -> set[str]:
    """HyperLock's modules that the sources of a package import, anywhere in them."""
    found = set()
    for file in (ROOT / "hyperlock" / name).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hyperlock."):
                found.add(node.module.split(".")[1])
    return found


def test_training_and_encryption_know_nothing_of_each_other() -> None:
    assert modules_of("learning") <= {"learning", "errors"}
    assert modules_of("encryption") <= {"encryption", "errors"}
