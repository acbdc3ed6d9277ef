"""Studies and runs in a real PostgreSQL, installed if need be and started on loopback: `pytest -m
postgres`."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_sweeps import Store, command, environment

PASSWORD = "hunter2"
pytestmark = pytest.mark.postgres


def _binaries() -> Path:
    """The folder of PostgreSQL's programs."""
    for attempt in range(2):
        found = shutil.which("initdb") or next(
            iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[::-1]), None
        )
        if found:
            return (
                Path(found).resolve().parent
                if Path(found).resolve().name == "initdb"
                else Path(found).parent
            )
        if attempt == 0 and shutil.which("apt-get") and os.geteuid() == 0:
            quiet = {"check": False, "capture_output": True, "timeout": 240}
            subprocess.run(["apt-get", "update"], **quiet)
            subprocess.run(
                ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"], **quiet
            )
    pytest.skip("PostgreSQL is neither here nor could it be installed")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """`USER:PASSWORD@HOST:PORT` of a server with the databases `studies` and `tracking`."""
    if "postgres" not in (request.config.getoption("-m") or ""):
        pytest.skip("only when asked for: pytest -m postgres")
    psycopg2 = pytest.importorskip("psycopg2")
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="hyperlock-postgres-"))
    # The server refuses to run as root.
    other = {"user": "nobody"} if os.geteuid() == 0 else {}
    if other:
        shutil.chown(folder, "nobody")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        log = (folder.parent / f"{folder.name}.log").open("a")
        subprocess.run(
            [binaries / program, *arguments],
            check=True,
            cwd="/",
            stdout=log,
            stderr=log,
            timeout=120,
            **other,
        )

    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "hyperlock", "--auth=scram-sha-256", f"--pwfile={secret}")
    run("pg_ctl", "-D", data, "-w", "-o", f"-h 127.0.0.1 -p {port} -k {folder}", "start")
    try:
        with contextlib.closing(
            psycopg2.connect(
                host="127.0.0.1", port=port, user="hyperlock", password=PASSWORD, dbname="postgres"
            )
        ) as connection:
            connection.autocommit = True
            for name in ("studies", "tracking"):
                connection.cursor().execute(f"create database {name}")
        yield f"hyperlock:{PASSWORD}@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_a_study_and_its_runs_in_postgresql(server: str, tmp_path: Path) -> None:
    """Begun by one process, continued by two at once as two machines would; the password is written
    nowhere."""
    tracking = f"postgresql://{server}/tracking"
    shared = environment(
        tmp_path, HYPERLOCK_STUDIES=f"postgresql://{server}/studies", MLFLOW_TRACKING_URI=tracking
    )

    def begin(trials: int) -> subprocess.Popen[str]:
        arguments = command("hydra.sweeper.study_name=shared", f"hydra.sweeper.n_trials={trials}")
        return subprocess.Popen(
            arguments,
            env=shared,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(process: subprocess.Popen[str]) -> str:
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text
        return text

    texts = [end(begin(2))]
    texts += [end(process) for process in [begin(6), begin(6)]]
    store = Store(tmp_path, tracking)
    [parent] = store.parents()
    assert parent.info.status == "FINISHED"
    children = store.children(parent)
    numbers = [int(run.data.tags["trial"]) for run in children]
    assert numbers == list(range(len(numbers))) and len(numbers) in (6, 7)
    assert {run.info.status for run in children} == {"FINISHED"}
    assert "2 trials done, 4 to go" in texts[1] or "2 trials done, 4 to go" in texts[2]

    assert PASSWORD not in "".join(texts)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(PASSWORD.encode() in path.read_bytes() for path in files)
    for run in store.runs():
        assert PASSWORD not in repr(run.to_dictionary())


def test_a_wrong_password_is_one_message(server: str, tmp_path: Path) -> None:
    wrong = server.replace(PASSWORD, "hunter3")
    done = subprocess.run(
        command("hydra.sweeper.n_trials=1"),
        env=environment(tmp_path, HYPERLOCK_STUDIES=f"postgresql://{wrong}/studies"),
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert "hydra.sweeper.storage.url=(not shown): cannot be opened" in text
    assert "hunter3" not in text
