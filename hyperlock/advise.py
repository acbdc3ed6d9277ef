"""Which encryption parameters suit a model, and what each choice costs on this machine.

Every preset is one that `python run.py` accepts, built by the same rules. Of every update, one full
ciphertext and the short last one are really encrypted, a few times; the size and time of the whole
follow from how many there are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.grid import MAX_VALUE_BITS, MIN_VALUE_BITS, integer_type, largest_value
from hyperlock.encryption.parameters import POLY_MODULI, SECURITY_LIMITS
from hyperlock.errors import ConfigError, HyperLockError, show
from hyperlock.settings.parse import (
    BfvEncryption,
    CkksEncryption,
    Config,
    FedAvg,
    Keys,
    MlpModel,
    max_clients,
)

if TYPE_CHECKING:
    from hyperlock.encryption.bfv import Bfv
    from hyperlock.encryption.ckks import Ckks

_REPEATS = 7
_SHAPE = {"inputs": 784, "classes": 10, "units": MlpModel.units, "layers": MlpModel.layers}
_COLUMNS = (
    "scheme,poly_modulus,coeff_mod_bits,value_bits,levels,"
    "bytes/update,bytes/round,bytes/param,margin,security"
)
_NOTES = (
    "levels: a value is one of -levels .. levels times its tensor's step; all sums are exact.",
    "bytes/round: every client's update up, and the float32 model down to every client.",
    "margin: bits by which noise could grow and sums would still be certain to be exact (but for "
    "a chance of 2^-64).",
    "security: highest tabled level, bits. us/param, ms/update: to pack, encrypt and serialise "
    "at one client, here.",
)


@dataclass(frozen=True)
class Job:
    """What is to be encrypted: tensors of so many coordinates each, by so many clients a round, at
    these precisions; under keys=clients they share the secret key, under keys=authority they do
    not."""

    tensors: tuple[int, ...]
    clients: int = 10
    value_bits: tuple[int, ...] = (8,)
    security: int = 128
    custody: str = "authority"

    @property
    def parameters(self) -> int:
        """Coordinates of the model."""
        return sum(self.tensors)

    def config(self, encryption: BfvEncryption | CkksEncryption) -> Config:
        """The part of a run's settings that decides its scheme."""
        return Config(federation=FedAvg(clients=self.clients), encryption=encryption)


@dataclass(frozen=True)
class Preset:
    """One choice of parameters, and what it costs.

    Attributes:
        scheme, poly_modulus, coeff_mod_bits, value_bits, security_bits, fingerprint: as the scheme
            has them.
        margin_bits: log2 of what noise may be over the bound that the parameter modules give for
            `max_clients` ciphertexts: for BFV q / (4t) over the rule's other side, for CKKS the
            scale over the smallest.
        update_bytes: predicted size of one client's Update message.
        round_bytes: predicted size of all messages between server and clients in a round.
        update_seconds: to pack, encrypt and serialise one update, measured.
        override: what to paste after `python run.py`.
    """

    scheme: str
    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    value_bits: int
    security_bits: int
    fingerprint: str
    margin_bits: float
    update_bytes: int
    round_bytes: int
    update_seconds: float
    override: str


def advise(job: Job) -> tuple[list[Preset], list[str]]:
    """All presets that work, best first (fewest bytes, then time), and why the others do not, a
    line each."""
    from hyperlock.experiment.simulation import build_scheme

    presets: dict[str, Preset] = {}
    left_out: list[str] = []
    for encryption in _candidates(job):
        try:
            scheme: Bfv | Ckks = build_scheme(job.config(encryption))  # type: ignore[assignment]
            # The ring that auto chose, given by name, is auto once more.
            if scheme.fingerprint not in presets:
                presets[scheme.fingerprint] = _measure(job, scheme, _override(job, encryption))
        except ConfigError as error:
            name = (
                f"{encryption.scheme} poly_modulus={encryption.poly_modulus} "
                f"value_bits={encryption.value_bits}"
            )
            left_out.append(f"{name}: {str(error).splitlines()[0].partition(': ')[2]}")
    return sorted(presets.values(), key=lambda p: (p.update_bytes, p.update_seconds)), left_out


def tensor_sizes(model: str, inputs: int, classes: int, units: int, layers: int) -> tuple[int, ...]:
    """Weights and biases of each dense layer, as `hyperlock.learning.models` builds them."""
    widths = [inputs, *([units] * layers if model == "mlp" else []), classes]
    return tuple(size for i, width in enumerate(widths[1:]) for size in (widths[i] * width, width))


def table(job: Job, presets: Sequence[Preset], left_out: Sequence[str]) -> str:
    """The advice as text: aligned columns, one line to paste for each row, and notes."""
    rows = [("", *_COLUMNS.split(","), "us/param", "ms/update")]
    for i, p in enumerate(presets, 1):
        sizes = (
            f"{p.update_bytes:,}",
            f"{p.round_bytes:,}",
            f"{p.update_bytes / job.parameters:.2f}",
        )
        times = (f"{p.update_seconds * 1e6 / job.parameters:.3f}", f"{p.update_seconds * 1e3:.1f}")
        grid = (str(p.value_bits), f"{largest_value(p.value_bits):,}")
        ring = (p.scheme, str(p.poly_modulus), show(p.coeff_mod_bits))
        rows.append(
            (f"{i}.", *ring, *grid, *sizes, f"{p.margin_bits:.1f}", str(p.security_bits), *times)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{job.parameters:,} parameters ({4 * job.parameters:,} bytes as float32), "
        f"{job.clients:,} clients a round, "
        f"at least {job.security}-bit security; best first",
        "",
        *(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ),
        "",
        *(f"{i:{widths[0] - 1}}. python run.py {p.override}" for i, p in enumerate(presets, 1)),
        "",
        *_NOTES,
        *(f"left out: {reason}" for reason in left_out),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    try:
        job = _parse(arguments)
        presets, left_out = advise(job)
        if not presets:
            raise HyperLockError("no preset works:\n  " + "\n  ".join(left_out))
    except HyperLockError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(job, presets, left_out))
    return 0


def _candidates(job: Job) -> Iterator[BfvEncryption | CkksEncryption]:
    for bits in job.value_bits:
        for ring in ("auto", *POLY_MODULI):
            yield BfvEncryption(poly_modulus=ring, value_bits=bits, security=job.security)
        for ring in POLY_MODULI:
            yield CkksEncryption(poly_modulus=ring, value_bits=bits, security=job.security)


def _override(job: Job, encryption: BfvEncryption | CkksEncryption) -> str:
    """The settings that make this preset of the default job."""
    ring = (
        ""
        if encryption.poly_modulus == "auto"
        else f" encryption.poly_modulus={encryption.poly_modulus}"
    )
    security = (
        f" encryption.security={job.security}" if job.security != CkksEncryption.security else ""
    )
    room, default = (
        max_clients(Job((1,), n).config(encryption)) for n in (job.clients, FedAvg.clients)
    )
    clients = f" encryption.max_clients={room}" if room != default else ""
    keys = " keys=clients" if job.custody == "clients" else ""
    keys += f" keys.min_clients={job.clients}" if job.clients < Keys.min_clients else ""
    return (
        f"encryption={encryption.scheme}{ring} encryption.value_bits={encryption.value_bits}"
        f"{security}{clients}{keys}"
    )


def _measure(job: Job, scheme: Bfv | Ckks, override: str) -> Preset:
    from hyperlock.encryption.ckks_parameters import CkksParameters, min_scale_bits
    from hyperlock.parties.identity import SERVER, enrol
    from hyperlock.parties.messages import Train, Update, key_id_of

    keys, p, rng = scheme.generate_keys(), scheme.parameters, np.random.default_rng(0)
    shared = scheme.symmetric_encryptor(keys.secret) if job.custody == "clients" else None
    encryptor = shared or scheme.encryptor(keys.public)
    parties = enrol("0" * 32, ("client-0", SERVER))  # a run's id and names as long as in a run
    client, server = (
        (who.run, 1, who.name, key_id_of(keys.public), scheme.fingerprint)
        for who in parties.values()
    )
    levels, length = largest_value(p.value_bits), totals.width(p.value_bits) + job.parameters
    empty = len(Update(*client, length, ()).encode(parties["client-0"]))

    def encrypt(slots: int) -> tuple[float, float]:
        """Mean bytes and least seconds (other work on the machine counts little then) of one
        ciphertext, as sent."""
        values = rng.integers(
            -levels, levels, slots * p.packing.fields, integer_type(levels), endpoint=True
        )
        sizes, seconds = [], []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            message = Update(*client, length, encryptor.encrypt(values)).encode(parties["client-0"])
            seconds.append(time.perf_counter() - start)
            sizes.append(len(message) - empty)
        return float(np.mean(sizes)), min(seconds)

    full = scheme.chunk_count(length) - 1
    full_bytes, full_seconds = encrypt(p.slots) if full else (0.0, 0.0)
    last_bytes, last_seconds = encrypt(p.packing.slots(length) - full * p.slots)
    update_bytes = round(empty + full * full_bytes + last_bytes)
    model = len(Train(*server, 0, ()).encode(parties[SERVER])) + 4 * (
        job.parameters + len(job.tensors)
    )
    if isinstance(p, CkksParameters):
        margin: float = p.scale_bits - min_scale_bits(p.poly_modulus, p.max_clients)
    else:
        margin = p.margin_bits
    costs = (update_bytes, job.clients * (update_bytes + model), full * full_seconds + last_seconds)
    chosen = (
        scheme.name,
        p.poly_modulus,
        p.coeff_mod_bits,
        p.value_bits,
        p.security_bits,
        scheme.fingerprint,
    )
    return Preset(*chosen, margin, *costs, override)


class _Parser(argparse.ArgumentParser):
    """Reports what it cannot read as every other error is: one message, exit status 1."""

    def error(self, message: str) -> NoReturn:
        raise HyperLockError(f"{message}\n  try: {self.prog} --help")


def _parse(arguments: Sequence[str] | None) -> Job:
    parser = _Parser(
        prog="python -m hyperlock.advise",
        description=(__doc__ or "").split("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--parameters", metavar="N", help="parameters of the model; or give its shape:"
    )
    parser.add_argument("--model", choices=("mlp", "logistic"), help="its architecture (mlp)")
    texts = (
        "values of one sample",
        "classes",
        "units of each hidden layer of the mlp",
        "hidden layers of the mlp",
    )
    for (name, default), text in zip(_SHAPE.items(), texts, strict=True):
        parser.add_argument(f"--{name}", metavar="N", help=f"{text} ({default})")
    parser.add_argument(
        "--clients", default="10", metavar="N", help="updates that a round adds (%(default)s)"
    )
    parser.add_argument(
        "--value-bits", default="8", metavar="N[,N]", help="of one value on the grid (%(default)s)"
    )
    parser.add_argument(
        "--security", default="128", metavar="N", help="128, 192 or 256 bits at least (%(default)s)"
    )
    parser.add_argument(
        "--keys",
        choices=("authority", "clients"),
        default="authority",
        help="who holds the secret key (%(default)s)",
    )
    given = {
        name: text for name, text in vars(parser.parse_args(arguments)).items() if text is not None
    }

    shape = [name for name in ("model", *_SHAPE) if name in given]
    if "parameters" in given and shape:
        raise ConfigError(
            "--parameters", given["parameters"], f"--{shape[0]} is given too", hint="one of the two"
        )
    for name in ("units", "layers"):
        if given.get("model") == "logistic" and name in given:
            raise ConfigError(
                f"--{name}",
                given[name],
                "the logistic model has no hidden layers",
                hint="--model=mlp",
            )
    if "parameters" in given:
        tensors: tuple[int, ...] = (
            _integer("--parameters", given["parameters"], 1, 10**12, 101_770),
        )
    else:
        sizes = {
            n: _integer(f"--{n}", given[n], 1, 10**5, d) if n in given else d
            for n, d in _SHAPE.items()
        }
        tensors = tensor_sizes(given.get("model", "mlp"), **sizes)
    clients = _integer("--clients", given["clients"], 2, 2**20, 10)
    bits = [
        _integer("--value-bits", t, MIN_VALUE_BITS, MAX_VALUE_BITS, 8)
        for t in given["value_bits"].split(",")
    ]
    if given["security"] not in map(str, SECURITY_LIMITS):
        levels = ", ".join(map(str, SECURITY_LIMITS))
        raise ConfigError(
            "--security",
            given["security"],
            "is no tabled level",
            allowed=levels,
            hint="--security=128",
        )
    return Job(tensors, clients, tuple(dict.fromkeys(bits)), int(given["security"]), given["keys"])


def _integer(option: str, text: str, smallest: int, largest: int, hint: int) -> int:
    if text.strip().isdecimal() and len(text) <= 20 and smallest <= int(text) <= largest:
        return int(text)
    allowed = f"{smallest} to {largest}"
    raise ConfigError(
        option, text, "is not a whole number in range", allowed=allowed, hint=f"{option}={hint}"
    )


if __name__ == "__main__":
    sys.exit(main())
