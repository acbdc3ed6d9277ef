"""The advice: predictions against whole encrypted updates, lines against the job's own settings,
refusals."""

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from hyperlock.advise import Job, Preset, advise, main, table, tensor_sizes
from hyperlock.encryption import totals
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.experiment.simulation import build_scheme
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.messages import DIGEST_BYTES, Aggregate, PublicKey, Train, Update
from hyperlock.parties.session import Session
from hyperlock.parties.terms import Terms
from hyperlock.settings.parse import parse
from hyperlock.settings.schema import BfvEncryption, CkksEncryption

ROOT = Path(__file__).resolve().parents[1]
MLP = (784 * 128, 128, 1280, 10)
advice = functools.cache(advise)  # each job is measured once


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for sizes; the one test of times has all."""
    monkeypatch.setattr("hyperlock.advise._REPEATS", 1)


def scheme_of(job: Job, preset: Preset) -> Scheme:
    """What the preset's line asks for, read without Hydra, which is slow."""
    settings = [part.partition("encryption.")[2] for part in preset.override.split()]
    options: dict[str, Any] = dict(setting.split("=") for setting in settings if setting)
    kind = {"bfv": BfvEncryption, "ckks": CkksEncryption}[preset.scheme]
    chosen = kind(**{name: int(value) for name, value in options.items()})
    return build_scheme(job.config(chosen), job.tensors)


def real_sizes(job: Job, scheme: Scheme) -> tuple[int, int]:
    """Bytes of a whole Update message, and of what a client is sent in a round: a Train message,
    and the sum where the clients hold key and model."""
    keys = scheme.generate_keys()
    levels = largest_value(scheme.extent.value_bits)
    values = (
        np.random.default_rng(1)
        .normal(0, levels / 4, job.parameters)
        .clip(-levels, levels)
        .astype(np.int64)
    )
    vector = np.concatenate(
        [totals.encode(totals.Totals(1, 6000, 1234.5, 7), scheme.extent.value_bits), values]
    )
    encryptor = (
        scheme.symmetric_encryptor(keys.secret)
        if job.custody == "clients"
        else scheme.encryptor(keys.public)
    )
    terms = Terms(weight_unit=6000.0, initial_range=0.5, range_factor=4.0)
    layout = Vector(scheme.extent, job.tensors)
    sessions = {
        name: Session(identity, scheme, layout, terms, Monitor()).at(3, 1)
        for name, identity in enrol("a" * 32, {"client-7": 6000}).items()
    }
    client = sessions["client-7"].under(keys.public).after(bytes(DIGEST_BYTES))
    server = sessions[SERVER].under(keys.public)
    chunks = list(encryptor.encrypt(vector))
    update = len(client.write(Update, chunks))
    if job.custody == "clients":
        accumulator = scheme.accumulator(keys.public, vector.size)
        accumulator.add(chunks)
        aggregate = server.write(Aggregate, (*accumulator.total(), Aggregate.manifest([])))
        return update, len(server.write(Train, ())) + len(aggregate)
    key = sessions[KEYHOLDER].under(keys.public).write(PublicKey, (keys.public,))
    model = (bytes(4 * job.parameters), bytes(4 * len(job.tensors)))
    return update, len(server.write(Train, (key, *model)))


@pytest.mark.parametrize(
    "job",
    [
        Job((40,), 3, (8,)),  # less than one ciphertext, whatever the ring
        Job((2410,), 10, (4, 16)),
        Job((30_000,), 100, (8, 24)),
        Job((30_000,), 40, (12,), security=192),
        Job(MLP, 10, (8,)),
        Job((30_000,), 10, (16,), security=256),
        Job((30_000,), 2, (8,), custody="clients"),
    ],
    ids=str,
)
def test_predicted_bytes_are_those_of_whole_updates(job: Job) -> None:
    presets, left_out = advice(job)
    # auto is one of the rings: 10 choices a precision, each tried or explained
    refused = [line for line in left_out if "poly_modulus=auto" not in line]
    assert len(presets) + len(refused) == 10 * len(job.value_bits)
    for preset in presets:
        scheme = scheme_of(job, preset)
        update, down = real_sizes(job, scheme)
        assert preset.fingerprint == scheme.fingerprint
        assert preset.update_bytes == pytest.approx(update, rel=0.01)
        # Public keys compress a little otherwise every time.
        assert preset.round_bytes == pytest.approx(job.clients * (update + down), rel=0.03)
        assert (
            preset.security_bits >= job.security
            and preset.margin_bits >= 0
            and preset.update_seconds > 0
        )


def test_a_scheme_that_has_a_ring_is_advised_as_soon_as_it_has_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass
    class Mine(CkksEncryption):
        scheme: str = "mine"
        security: int = 192

    job = Job((40,), 3, (8,))
    before, _ = advise(job)
    monkeypatch.setattr("hyperlock.advise.SCHEMAS", {"encryption": {"mine": Mine}})
    presets, left_out = advise(job)
    rings = [preset.poly_modulus for preset in presets if "encryption=mine " in preset.override]
    assert sorted(rings) == sorted(p.poly_modulus for p in before if p.scheme == "ckks")
    assert len(rings) == len(presets) and not left_out
    # What differs from the scheme's own settings is said.
    assert all(" encryption.security=128" in preset.override for preset in presets)


def test_best_first_and_auto_without_a_ring() -> None:
    presets, left_out = advice(Job(MLP))
    assert not left_out
    costs = [(preset.update_bytes // 1000, preset.poly_modulus) for preset in presets]
    assert costs == sorted(costs)
    (auto,) = (preset for preset in presets if preset.override == "encryption=bfv")
    assert auto.update_bytes <= 1.07 * presets[0].update_bytes
    assert {p.override for p in presets} >= {
        "encryption=ckks",
        "encryption=ckks encryption.poly_modulus=8192",
    }
    assert len({p.fingerprint for p in presets}) == len(presets)


@pytest.mark.parametrize(
    "job",
    [
        Job((650,)),
        Job((650,), 100, (16,), security=192),
        Job((650,), 2),
        Job((650,), 2, (4,), custody="clients"),
        Job((650,), 20, (8,), custody="clients"),
    ],
    ids=str,
)
def test_lines_are_settings_of_the_job(job: Job, compose: Callable[..., DictConfig]) -> None:
    presets, _ = advice(job)
    for preset in (presets[0], presets[-1]):
        config = parse(
            compose(*preset.override.split(), f"federation.clients={job.clients}", "tracking=none")
        )
        assert build_scheme(config, job.tensors).fingerprint == preset.fingerprint
        assert config.keys.custody == job.custody
        assert config.keys.min_clients == min(3, job.clients)


def test_two_clients_that_share_the_key_are_said_so_in_every_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["--model", "logistic", "--inputs", "64", "--clients", "2", "--keys", "clients"]) == 0
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "python run.py" in line]
    assert lines and all(line.endswith(" keys=clients keys.min_clients=2") for line in lines)


def test_lines_carry_what_differs_from_the_default_job() -> None:
    presets, left_out = advice(Job((650,), 100, (16,), security=192))
    for preset in presets:
        assert preset.override.endswith(
            "encryption.value_bits=16 encryption.security=192 encryption.max_clients=128"
        )
    assert any(line.startswith("bfv poly_modulus=2048 value_bits=16: ") for line in left_out)
    assert not any("\n" in line for line in left_out)


def test_time_is_that_of_whole_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a factor of four either way: machines that do other work are no clocks."""
    monkeypatch.setattr("hyperlock.advise._REPEATS", 7)
    monkeypatch.setattr("hyperlock.advise.POLY_MODULI", (4096,))
    from time import perf_counter

    from hyperlock.encryption.bfv import Bfv
    from hyperlock.encryption.bfv_parameters import bfv_parameters

    [preset] = [
        p
        for p in advise(Job(MLP, value_bits=(8,)))[0]
        if p.override == "encryption=bfv encryption.value_bits=8"
    ]
    scheme = Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128))
    encryptor = scheme.encryptor(scheme.generate_keys().public)
    seconds = []
    for _ in range(7):
        start = perf_counter()
        assert list(encryptor.encrypt(np.ones(sum(MLP), np.int8)))
        seconds.append(perf_counter() - start)
    assert 1 / 4 < preset.update_seconds / min(seconds) < 4


def test_shapes_count_as_the_models_do() -> None:
    assert tensor_sizes("mlp", 784, 10, 128, 1) == MLP
    assert sum(tensor_sizes("mlp", 784, 10, 128, 1)) == 101_770
    assert tensor_sizes("mlp", 784, 10, 32, 2) == (784 * 32, 32, 32 * 32, 32, 320, 10)
    assert tensor_sizes("logistic", 784, 10, 128, 1) == (7840, 10)


def test_the_command_prints_a_row_and_a_line_for_every_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(["--model", "logistic", "--inputs", "64", "--clients", "20", "--value-bits", "8,16"])
        == 0
    )
    output, errors = capsys.readouterr()
    assert not errors and output.startswith(
        "650 parameters (2,600 bytes as float32), 20 clients a round"
    )
    rows = [line.split() for line in output.splitlines() if line.split(".")[0].strip().isdecimal()]
    paste = [row for row in rows if row[1:3] == ["python", "run.py"]]
    assert len(rows) == 2 * len(paste) and len(paste) >= 16
    assert [row[0] for row in rows] == 2 * [f"{i}." for i in range(1, len(paste) + 1)]
    assert all("encryption.max_clients=32" in row for row in paste)


def test_columns_line_up() -> None:
    preset = Preset(
        scheme="bfv",
        poly_modulus=4096,
        coeff_mod_bits=(60, 30),
        value_bits=8,
        security_bits=128,
        fingerprint="",
        margin_bits=0.8,
        forgery_bits=101.4,
        update_bytes=459_948,
        round_bytes=8_672_810,
        update_seconds=0.0157,
        override="encryption=bfv",
    )
    lines = table(
        Job(MLP), [preset] * 12, ["ckks poly_modulus=2048 value_bits=8: why"]
    ).splitlines()
    assert len({len(line) for line in lines[2:15]}) == 1
    assert lines[3].split()[-7:] == ["4.52", "4.52", "0.8", "101", "128", "0.154", "15.7"]
    assert lines[16].strip() == "1. python run.py encryption=bfv"
    assert lines[-1] == "left out: ckks poly_modulus=2048 value_bits=8: why"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--clients 1", "--clients=1: "),
        ("--clients many", "--clients=many: "),
        ("--clients 1048577", "2 to 1048576"),
        ("--parameters 0", "--parameters=0: "),
        ("--parameters 1.5", "--parameters=1.5: "),
        ("--parameters -3", "--parameters=-3: "),
        ("--parameters 10 --units 3", "--units is given too"),
        ("--model logistic --layers 2", "no hidden layers"),
        ("--model cnn", "cnn"),
        ("--units 0", "--units=0: "),
        ("--value-bits 3", "4 to 24"),
        ("--value-bits 8,", "4 to 24"),
        ("--value-bits 8,25", "--value-bits=25: "),
        ("--security 100", "128, 192, 256"),
        ("--keys server", "--keys"),
        ("--nonsense", "--nonsense"),
        ("--clients", "--clients"),
    ],
)
def test_errors_are_one_message(
    arguments: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 1
    output, errors = capsys.readouterr()
    assert (
        not output and text in errors and "Traceback" not in errors and errors.count("try: ") == 1
    )


def test_nothing_that_works_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hyperlock.advise.POLY_MODULI", (2048,))
    monkeypatch.setattr("hyperlock.encryption.parameters.POLY_MODULI", (2048,))
    assert main(["--security", "256", "--value-bits", "16"]) == 1
    output, errors = capsys.readouterr()
    assert not output and errors.startswith("no preset works:\n  ")
    assert "\n  bfv poly_modulus=auto value_bits=16: " in errors


def test_help_loads_neither_tenseal_nor_tensorflow() -> None:
    code = (
        "import sys; from hyperlock.advise import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'tenseal', 'tensorflow', 'mlflow'} & {name.split('.')[0] for "
        "name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--value-bits" in done.stdout and done.stdout.endswith("[]\n")


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "hyperlock.advise", "--parameters", "100", "--clients", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("--clients=1: ") and not done.stdout
