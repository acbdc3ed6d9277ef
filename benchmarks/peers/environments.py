"""The environments that peers run in: one folder and one requirements file each, for they exclude
each other and HyperLock's own pins."""

from __future__ import annotations

import functools
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "outputs" / "benchmarks" / "peers"
REQUIREMENTS = Path(__file__).resolve().parent
LIMIT = 900  # seconds a turn may take
# A process in its own network, with loopback at most, and its own process numbers, all of which end
# with it. Whoever is not root becomes it in there.
_ISOLATED = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT = ("--user", "--map-root-user")


def requirements(name: str) -> Path:
    """The file that says what an environment holds."""
    return REQUIREMENTS / f"{name}.txt"


def python_of(name: str) -> Path:
    """The environment's interpreter; the process ends with what to do if it is not there."""
    interpreter = HOME / name / "bin" / "python"
    if not installed(name):
        raise SystemExit(
            f"{name}: no environment in {HOME / name} that holds what {name}.txt asks for\n"
            f"  try: python -m benchmarks peers --install-only --peers {name}"
        )
    return interpreter


def installed(name: str) -> bool:
    """Whether all that the file asks for now was installed."""
    note = _note(name)
    return note.is_file() and note.read_text() == requirements(name).read_text()


def install(name: str) -> None:
    """Make the environment, or bring it up to date; nothing is done if it is."""
    if installed(name):
        return
    print(f"installing {name} into {HOME / name}", file=sys.stderr)
    HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", HOME / name], check=True)
    pip = [HOME / name / "bin" / "python", "-m", "pip", "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--requirement", requirements(name)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise SystemExit(f"{name}: pip could not install {requirements(name)}:\n{said}")
    _note(name).write_text(requirements(name).read_text())


def _note(name: str) -> Path:
    """What was installed, as its file said then."""
    return HOME / name / "installed.txt"


@functools.cache
def isolation() -> tuple[str, ...]:
    """The command before a command that is to have no network; empty if the machine refuses."""
    for isolated in (_ISOLATED, (*_ISOLATED, *_AS_ROOT)):
        try:
            done = subprocess.run([*isolated, "true"], capture_output=True, check=False)
        except FileNotFoundError:
            return ()
        if done.returncode == 0:
            return isolated
    return ()


class Worker:
    """A way's own process, which plays when it is told to (`turns.py`).

    Args:
        name: of the way; its log is named so too.
        command: the interpreter, the module and its arguments.
        isolated: in a network of its own.
    """

    def __init__(self, name: str, command: Sequence[str | Path], isolated: bool = False) -> None:
        self.name = name
        self._log = HOME / f"{name}.log"
        before = isolation() if isolated else ()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*before, *map(str, command)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def turn(self) -> dict[str, Any]:
        """Have it play once, and return what it says."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = ""
        try:
            print("play", file=process.stdin, flush=True)
            if select.select([process.stdout], [], [], LIMIT)[0]:
                line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            self.close()
            said = "\n".join(self._log.read_text().strip().splitlines()[-5:])
            raise SystemExit(f"{self.name} did not play; {self._log} ends so:\n{said}")
        figures: dict[str, Any] = json.loads(line)
        return figures

    def close(self) -> None:
        """No more turns."""
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
