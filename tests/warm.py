"""`python run.py` without its imports: `python -m tests.warm` makes them once, and each command is
a fork of it.

Importing takes most of a small run. A command that is forked is still a process of its own, with
its own arguments, folder, environment, signals, output and exit code, and runs `run.py` as
`__main__`. It differs in that everything is imported before it starts, and that it ends without the
interpreter's teardown; what is about starting, importing or being interrupted is therefore tested
with an interpreter of its own.

The process that is forked never uses what it imports: TensorFlow's threads, which a fork would not
have, come with its first use.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "tensorflow",
    "mlflow.tensorflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.datasets",
    "hyperlock.experiment.resume",
    "hyperlock.experiment.run",
    "hyperlock.experiment.simulation",
    "hyperlock.tracking.plots",
)


class Started:
    """A command that runs.

    Attributes:
        pid: its process.
    """

    def __init__(self, replies: Any, output: Path) -> None:
        self._replies = replies
        self._output = output
        self._code: int | None = None
        self.pid = int(replies.readline())

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self) -> tuple[int, str]:
        """Its exit code, negative for a signal's, and what it wrote to both streams."""
        if self._code is None:
            self._code = int(self._replies.readline())
        return self._code, self._output.read_text()

    def end(self) -> None:
        """Kill it if it still runs."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Warm:
    """The process that is forked, with one command at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._last: Started | None = None

    def start(self, *arguments: str, cwd: Path, env: Mapping[str, str]) -> Started:
        """`python run.py ARGUMENTS`; what it writes goes to a file in `cwd` while it runs."""
        self.end()
        output = Path(cwd, "output.txt")
        request = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "output": str(output)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        self._last = Started(self._process.stdout, output)
        return self._last

    def run(self, *arguments: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, str]:
        """The same, to its end."""
        return self.start(*arguments, cwd=cwd, env=env).wait()

    def end(self) -> None:
        """What a test that failed has left running must not be taken for the next one's."""
        if self._last is not None:
            self._last.end()


@contextmanager
def warm() -> Iterator[Warm]:
    """Start the process; it ends with the block."""
    command = [sys.executable, "-m", "tests.warm"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        forked = Warm(process)
        yield forked
        forked.end()
        process.communicate()  # closes its input


def serve() -> dict[str, Any]:
    """Fork for each line of input; only a fork returns, with what it was asked."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return dict(json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)


def become(asked: dict[str, Any]) -> None:
    """Be as a new interpreter would be."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(stream, number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(ROOT), *added]
    sys.argv = [str(ROOT / "run.py"), *asked["arguments"]]


def play() -> int:
    """Run `run.py`; its exit code."""
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> None:
    """Without the interpreter's teardown, which takes longer than most commands."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as hyperlock.learning.tensorflow does
    for name in HEAVY:
        importlib.import_module(name)
    assert "hyperlock.learning.tensorflow" not in sys.modules, "it begins TensorFlow's threads"
    gc.freeze()  # what is imported is not looked through again, and its pages stay shared
    become(serve())
    leave(play())
