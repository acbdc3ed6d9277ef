"""What a run leaves behind: neither outputs, logs, MLflow's store and artifacts nor what the server
got tell a secret.

A job runs for real while everything that must stay secret is noted: the secret key and every
client's update, as floats and as grid integers. Pieces of these are then looked for in every file,
raw, in hexadecimal and in base64, in archives and in the database; the key holder's ledger and the
server's outbox are among them. Each place is tested with a piece that was planted, so that finding
nothing means something.
"""

from __future__ import annotations

import base64
import io
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np
import pytest

from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.grid import Grid
from hyperlock.parties.messages import Aggregate
from hyperlock.parties.server import Server
from tests.parties.cast import envelope_of
from tests.security.forge import opened, parts_of
from tests.test_secrecy import reachable

SIZE = 32
PIECES = 40  # bytes of a piece, and how many are looked for


@dataclass
class Seen:
    """What a run kept secret, and what its server received."""

    keys: list[bytes] = field(default_factory=list)
    publics: list[bytes] = field(default_factory=list)
    updates: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)

    @property
    def public(self) -> bytes:
        """All public keys, which have their parameters in common with the secret ones."""
        return b"".join(self.publics)


# Values of eight bits, so that a few of them are told from chance.
MODEL = ["model=mlp", "model.units=16", "encryption.value_bits=8"]


def pieces(secret: bytes, public: bytes = b"") -> list[bytes]:
    """Parts of a secret that nothing else would contain by chance."""
    rng = np.random.default_rng(0)
    found: list[bytes] = []
    for start in rng.integers(0, len(secret) - SIZE, 4000):
        piece = secret[start : start + SIZE]
        if len(set(piece)) >= 12 and piece not in public:
            found.append(piece)
        if len(found) == PIECES:
            break
    assert len(found) >= 10, "too little to look for"
    return found


def spellings(piece: bytes) -> list[bytes]:
    """A piece as it may be written: raw, hexadecimal, and base64 at any offset."""
    texts = [base64.b64encode(piece[shift : shift + (SIZE - shift) // 3 * 3]) for shift in range(3)]
    return [piece, piece.hex().encode(), piece.hex().upper().encode(), *texts]


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under a folder, and every member of an archive, and every value of a database,
    with a name."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield str(path), data
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from ((f"{path}!{name}", archive.read(name)) for name in archive.namelist())
        if data.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as database:
                yield f"{path}!dump", "\n".join(database.iterdump()).encode()


def leaks(
    secrets: list[bytes], places: Iterator[tuple[str, bytes]], public: bytes = b""
) -> list[str]:
    """The places that hold a piece of a secret."""
    needles = [
        text for secret in secrets for piece in pieces(secret, public) for text in spellings(piece)
    ]
    return [name for name, data in places if any(needle in data for needle in needles)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """A tracked run with everything on, in a root of its own."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from hyperlock.experiment import run as experiment
    from hyperlock.settings.schema import register
    from tests.conftest import ROOT, SMALL

    root = tmp_path_factory.mktemp("job")
    seen = Seen()
    register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPERLOCK_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        generate = Ckks.generate_keys
        receive = Server.receive
        quantise = Grid.quantise

        def note_keys(self: Ckks) -> object:
            keys = generate(self)
            seen.keys.append(keys.secret)
            seen.publics.append(keys.public)
            return keys

        def note_message(self: Server, data: bytes) -> object:
            seen.received.append(data)
            seen.servers.append(self)
            return receive(self, data)

        def note_update(self: Grid, values: np.ndarray, rng: np.random.Generator) -> object:
            integers, saturated = quantise(self, values, rng)
            seen.updates.extend([values.tobytes(), integers.tobytes()])
            return integers, saturated

        patch.setattr(Ckks, "generate_keys", note_keys)
        patch.setattr(Server, "receive", note_message)
        patch.setattr(Grid, "quantise", note_update)
        small = [s for s in SMALL if s != "tracking=none"]
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            composed = compose("config", overrides=[*small, *MODEL])
        OmegaConf.resolve(composed)
        directory(root).mkdir(parents=True)
        experiment.run(composed, directory(root))
    return root, seen


def directory(root: Path) -> Path:
    """The run's."""
    return root / "outputs" / "runs" / "it"


def released(root: Path) -> list[Path]:
    """The key holder's ledger, by round."""
    return sorted((directory(root) / "keyholder").rglob("round-*"))


def test_the_run_left_what_is_searched(job: tuple[Path, Seen]) -> None:
    root, seen = job
    names = [name for name, _ in contents(root)]
    assert any(name.endswith("mlflow.db!dump") for name in names)
    assert any(".keras!" in name for name in names), "the model's archive is opened"
    assert any(name.endswith(".png") for name in names) and any(
        name.endswith("public_parameters.json") for name in names
    )
    # A key for each of two rounds, and one that was made ahead.
    assert len(seen.keys) == 3 and len(seen.received) == 8 and len(seen.updates) == 16
    assert {path.name for path in released(root)} == {"round-1", "round-2"}
    assert (directory(root) / "server" / "aggregate").is_file()
    assert len((directory(root) / "rounds.jsonl").read_text().splitlines()) == 2


def test_no_file_holds_the_secret_key(job: tuple[Path, Seen]) -> None:
    root, seen = job
    assert leaks(seen.keys, contents(root), seen.public) == []


def test_no_file_holds_a_clients_update(job: tuple[Path, Seen]) -> None:
    root, seen = job
    assert leaks(seen.updates, contents(root)) == []


def test_no_file_holds_a_clients_ciphertext(job: tuple[Path, Seen]) -> None:
    """But for the envelopes of the last round's, which say who was in it and not what it sent."""
    root, seen = job
    payloads = [opened(message)[0] for message in seen.received]
    assert leaks(payloads, contents(root)) == []
    envelopes = [envelope_of(message) for message in seen.received]
    held = [name for name, data in contents(root) if any(one in data for one in envelopes)]
    assert held == [str(directory(root) / "server" / "aggregate")]


def test_the_server_keeps_the_last_sum_and_its_manifest_alone(job: tuple[Path, Seen]) -> None:
    root, seen = job
    kept = (directory(root) / "server" / "aggregate").read_bytes()
    assert int.from_bytes(kept[:8], "little") == 2
    *chunks, manifest = parts_of(kept[8:])
    assert Aggregate.envelopes(manifest, 4) == [envelope_of(data) for data in seen.received[4:]]
    assert all(chunk not in message for chunk in chunks for message in seen.received)


def test_the_key_holder_keeps_what_it_released_and_no_more(job: tuple[Path, Seen]) -> None:
    """Sums of all clients, until the server has the model that came of them; and nobody else reads
    its folder."""
    root, _ = job
    for number, path in enumerate(released(root), 1):
        assert path.parent.stat().st_mode & 0o077 == 0
        entry = msgpack.unpackb(path.read_bytes())
        assert entry.keys() == {"version", "request", "release"} and len(entry["request"]) == 32
        if entry["release"]:
            header = opened(entry["release"])[1]
            assert (header["kind"], header["round"]) == ("release", number)


def test_what_the_server_received_holds_neither(job: tuple[Path, Seen]) -> None:
    _, seen = job
    received = [(f"message {i}", data) for i, data in enumerate(seen.received)]
    assert leaks(seen.updates, iter(received)) == []
    assert leaks(seen.keys, iter(received), seen.public) == []


def test_what_the_server_reaches_holds_neither(job: tuple[Path, Seen]) -> None:
    _, seen = job

    def held() -> Iterator[tuple[str, bytes]]:
        for thing in reachable(seen.servers[0]):
            if isinstance(thing, np.ndarray):
                yield "array", thing.tobytes()
            elif isinstance(thing, bytes | bytearray | memoryview):
                yield type(thing).__name__, bytes(thing)

    assert sum(1 for _ in held()) > 10
    assert leaks(seen.updates, held()) == []
    assert leaks(seen.keys, held(), seen.public) == []


def planted(root: Path) -> Path:
    return root / "outputs" / "planted.bin"


PLANT: dict[str, Callable[[Path, bytes], None]] = {
    "a file": lambda root, secret: planted(root).write_bytes(b"x" * 7 + secret),
    "a log, in hexadecimal": lambda root, secret: planted(root).write_text(f"key {secret.hex()}\n"),
    "a log, in base64": lambda root, secret: planted(root).write_bytes(
        base64.b64encode(b"k" + secret)
    ),
    "a round of the ledger": lambda root, secret: planted(root).write_bytes(
        msgpack.packb({"version": 1, "request": bytes(32), "release": secret})
    ),
    "an archive": lambda root, secret: zip_of(planted(root), secret),
    "the database, as text": lambda root, secret: table_of(planted(root), secret.hex()),
    "the database, as bytes": lambda root, secret: table_of(planted(root), secret),
}


def zip_of(path: Path, secret: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", secret)


def table_of(path: Path, secret: bytes | str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute("create table t (v)")
        database.execute("insert into t values (?)", (secret,))
    database.close()


@pytest.mark.parametrize("place", PLANT)
@pytest.mark.parametrize("what", ["key", "update as floats", "update as integers"])
def test_what_is_planted_is_found(job: tuple[Path, Seen], place: str, what: str) -> None:
    root, seen = job
    secret = {
        "key": seen.keys[0],
        "update as floats": seen.updates[0],
        "update as integers": seen.updates[1],
    }[what]
    PLANT[place](root, secret)
    try:
        found = leaks([secret], contents(root), seen.public)
        assert found and all("planted.bin" in name for name in found)
    finally:
        planted(root).unlink()
