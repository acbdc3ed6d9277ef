"""Which encryption parameters suit a model, and what each choice costs on this machine.

Every preset is one that `python run.py` accepts, built by the same rules. Of every update, one full
ciphertext and the short last one are really encrypted, a few times; the size and time of the whole
follow from how many there are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import numpy as np

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.parameters import POLY_MODULI, SECURITY_LIMITS
from hyperlock.encryption.scheme import Chunk, Encryptor, KeyPair, Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.errors import ConfigError, HyperLockError, show
from hyperlock.monitor import Monitor
from hyperlock.parties.custody import CUSTODIES
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.messages import PublicKey, Train, Update
from hyperlock.parties.session import Session
from hyperlock.parties.terms import Terms
from hyperlock.settings.schema import (
    AUTO_VALUE_BITS,
    MAX_VALUE_BITS,
    MIN_VALUE_BITS,
    SCHEMAS,
    Config,
    FedAvg,
    Keys,
    MlpModel,
)

if TYPE_CHECKING:
    from hyperlock.encryption.ciphertexts import Parameters

_REPEATS = 7
_NOTES = (
    "levels: a value is one of -levels .. levels times its tensor's step; all sums are exact.",
    "of plain: times the bytes of the same grid in the clear (encryption=none).",
    "bytes/round: every client's update up, and the float32 model down to every client.",
    "margin: bits by which noise could grow and sums would still be certain to be exact (but for "
    "a chance of 2^-64).",
    "guard: a forged sum that gives away the key is released with a chance of 2^-guard at most.",
    "security: highest tabled level, bits. us/param, ms/update: to pack, encrypt and serialise "
    "at one client, here.",
)


class RingScheme(Scheme, Protocol):
    """A scheme over a ring: every one whose settings have a `poly_modulus`."""

    parameters: Parameters


@dataclass(frozen=True)
class Job:
    """What is to be encrypted.

    Attributes:
        tensors: coordinates of each tensor of the model.
        clients: updates that a round adds.
        value_bits: the precisions to compare.
        security: bits at least.
        custody: under clients these share the secret key, and encrypt with it; under authority they
            have the public key.
    """

    tensors: tuple[int, ...]
    clients: int = 10
    value_bits: tuple[int, ...] = (AUTO_VALUE_BITS,)
    security: int = 128
    custody: str = "authority"

    @property
    def parameters(self) -> int:
        """Coordinates of the model."""
        return sum(self.tensors)

    def config(self, encryption: Any) -> Config:
        """The part of a run's settings that decides its scheme."""
        return Config(federation=FedAvg(clients=self.clients), encryption=encryption)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One choice of parameters, and what it costs.

    Attributes:
        scheme, poly_modulus, coeff_mod_bits, value_bits, security_bits, fingerprint: as the scheme
            has them.
        margin_bits: log2 of what noise may be over the bound that the parameter modules give for
            `max_clients` ciphertexts: for BFV q / (4t) over the rule's other side, for CKKS the
            scale over the smallest.
        forgery_bits: -log2 of the probability that a sum forged against the key is released.
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
    forgery_bits: float
    update_bytes: int
    round_bytes: int
    update_seconds: float
    override: str


@dataclass(frozen=True)
class Column:
    """One column of the table: what stands above it, and a preset's cell."""

    heading: str
    cell: Callable[[Job, Preset], str]


_COLUMNS = (
    Column("scheme", lambda job, preset: preset.scheme),
    Column("poly_modulus", lambda job, preset: str(preset.poly_modulus)),
    Column("coeff_mod_bits", lambda job, preset: show(preset.coeff_mod_bits)),
    Column("value_bits", lambda job, preset: str(preset.value_bits)),
    Column("levels", lambda job, preset: f"{largest_value(preset.value_bits):,}"),
    Column("bytes/update", lambda job, preset: f"{preset.update_bytes:,}"),
    Column("bytes/round", lambda job, preset: f"{preset.round_bytes:,}"),
    Column("bytes/param", lambda job, preset: f"{preset.update_bytes / job.parameters:.2f}"),
    Column(
        "of plain", lambda job, preset: f"{preset.update_bytes / _plain_bytes(job, preset):.2f}"
    ),
    Column("margin", lambda job, preset: f"{preset.margin_bits:.1f}"),
    Column("guard", lambda job, preset: f"{preset.forgery_bits:.0f}"),
    Column("security", lambda job, preset: str(preset.security_bits)),
    Column("us/param", lambda job, preset: f"{preset.update_seconds * 1e6 / job.parameters:.3f}"),
    Column("ms/update", lambda job, preset: f"{preset.update_seconds * 1e3:.1f}"),
)


def advise(job: Job) -> tuple[list[Preset], list[str]]:
    """All presets that work, best first (fewest kilobytes, then the smaller ring, then time), and
    why the others do not, a line each."""
    from hyperlock.experiment.simulation import build_scheme

    presets: dict[str, Preset] = {}
    left_out: list[str] = []
    for encryption in _candidates(job):
        try:
            scheme = cast(RingScheme, build_scheme(job.config(encryption), job.tensors))
            # The ring that auto chose, given by name, is auto once more.
            if scheme.fingerprint not in presets:
                presets[scheme.fingerprint] = _measure(job, scheme, _override(job, encryption))
        except ConfigError as error:
            name = (
                f"{encryption.scheme} poly_modulus={encryption.poly_modulus} "
                f"value_bits={encryption.value_bits}"
            )
            left_out.append(f"{name}: {str(error).splitlines()[0].partition(': ')[2]}")
    return sorted(presets.values(), key=_cost), left_out


def _cost(preset: Preset) -> tuple[int, int, float]:
    return preset.update_bytes // 1000, preset.poly_modulus, preset.update_seconds


def tensor_sizes(model: str, inputs: int, classes: int, units: int, layers: int) -> tuple[int, ...]:
    """Weights and biases of each dense layer, as `hyperlock.learning.models` builds them."""
    hidden = [units] * layers if model == "mlp" else []
    widths = [inputs, *hidden, classes]
    sizes: list[int] = []
    for before, width in pairwise(widths):
        sizes += [before * width, width]
    return tuple(sizes)


def table(job: Job, presets: Sequence[Preset], left_out: Sequence[str]) -> str:
    """The advice as text: aligned columns, one line to paste for each row, and notes."""
    rows = [["", *(column.heading for column in _COLUMNS)]]
    for number, preset in enumerate(presets, 1):
        rows.append([f"{number}.", *(column.cell(job, preset) for column in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{job.parameters:,} parameters ({4 * job.parameters:,} bytes as float32), "
        f"{job.clients:,} clients a round, "
        f"at least {job.security}-bit security; best first",
        "",
    ]
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(cell.rjust(width) for cell, width in cells))
    lines.append("")
    for number, preset in enumerate(presets, 1):
        lines.append(f"{number:{widths[0] - 1}}. python run.py {preset.override}")
    lines += ["", *_NOTES, *(f"left out: {reason}" for reason in left_out)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    try:
        job = _job(arguments)
        presets, left_out = advise(job)
        if not presets:
            raise HyperLockError("no preset works:\n  " + "\n  ".join(left_out))
    except HyperLockError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(job, presets, left_out))
    return 0


# --- what is tried, and what it costs -------------------------------------------------------------


def _candidates(job: Job) -> Iterator[Any]:
    """Settings of every scheme over a ring: with the ring that it chooses itself, and with each
    that is tabled."""
    kinds = [kind for kind in SCHEMAS["encryption"].values() if hasattr(kind, "poly_modulus")]
    for bits in job.value_bits:
        for kind in kinds:
            for ring in ("auto", *POLY_MODULI):
                yield kind(poly_modulus=ring, value_bits=bits, security=job.security)


def _override(job: Job, encryption: Any) -> str:
    """The settings that make this preset of the default job."""
    parts = [f"encryption={encryption.scheme}"]
    if encryption.poly_modulus != "auto":
        parts.append(f"encryption.poly_modulus={encryption.poly_modulus}")
    if encryption.value_bits != AUTO_VALUE_BITS:
        parts.append(f"encryption.value_bits={encryption.value_bits}")
    if job.security != type(encryption).security:
        parts.append(f"encryption.security={job.security}")
    room = job.config(encryption).max_clients
    if room != Config(federation=FedAvg(), encryption=encryption).max_clients:
        parts.append(f"encryption.max_clients={room}")
    if job.custody != Job.custody:
        parts.append(f"keys={job.custody}")
    if job.clients < Keys.min_clients:
        parts.append(f"keys.min_clients={job.clients}")
    return " ".join(parts)


def _measure(job: Job, scheme: RingScheme, override: str) -> Preset:
    """Encrypt two ciphertexts of an update, and reckon the whole and the round from them."""
    parameters = scheme.parameters
    length = Vector(parameters.extent, job.tensors).length
    post = _Post(job, scheme, length)

    # All ciphertexts are full but the last one, which has what is left.
    full = scheme.chunk_count(length) - 1
    last_slots = parameters.packing.slots(length) - full * parameters.slots
    full_bytes, full_seconds = post.encrypt(parameters.slots) if full else (0.0, 0.0)
    last_bytes, last_seconds = post.encrypt(last_slots)
    update_bytes = round(post.empty_update + full * full_bytes + last_bytes)
    return Preset(
        scheme=scheme.name,
        poly_modulus=parameters.poly_modulus,
        coeff_mod_bits=parameters.coeff_mod_bits,
        value_bits=parameters.extent.value_bits,
        security_bits=parameters.security_bits,
        fingerprint=scheme.fingerprint,
        margin_bits=parameters.margin_bits,
        forgery_bits=parameters.forgery_bits,
        update_bytes=update_bytes,
        round_bytes=job.clients * (update_bytes + post.down),
        update_seconds=full * full_seconds + last_seconds,
        override=override,
    )


def _plain_bytes(job: Job, preset: Preset) -> int:
    """Of the same update as integers in the clear."""
    length = Vector(Extent(preset.value_bits), job.tensors).length
    return length * integer_type(largest_value(preset.value_bits)).itemsize


class _Post:
    """The messages between one client and the server, as they are in a run.

    Attributes:
        empty_update: bytes of an Update message without its ciphertexts.
        down: bytes that a client is sent in a round, but for the manifest where it gets the sum.
    """

    def __init__(self, job: Job, scheme: RingScheme, length: int) -> None:
        keys = scheme.generate_keys()
        # A run's id and names are as long as these.
        vector = Vector(scheme.extent, job.tensors)
        terms = Terms(weight_unit=600.0, initial_range=0.5, range_factor=4.0)
        sessions = {
            name: Session(identity, scheme, vector, terms, Monitor()).at(1, 1).under(keys.public)
            for name, identity in enrol("0" * 32, {"client-0": 600}).items()
        }
        self._client = sessions["client-0"].after(terms.digest)  # any digest is as long
        self._parameters = scheme.parameters
        self._encryptor = _clients_encryptor(job, scheme, keys)
        self._rng = np.random.default_rng(0)

        # Key and model, or, where the clients have both, the sum.
        key = sessions[KEYHOLDER].write(PublicKey, (keys.public,))
        down = len(key) + 4 * (job.parameters + len(job.tensors))  # float32
        if CUSTODIES[job.custody].clients_share:
            down = scheme.chunk_count(length) * scheme.max_chunk_bytes
        self.down = len(sessions[SERVER].write(Train, ())) + down
        self.empty_update = len(self._update(()))

    def encrypt(self, slots: int) -> tuple[float, float]:
        """Mean bytes and least seconds (other work on the machine counts little then) of one
        ciphertext, as sent."""
        levels = self._parameters.extent.largest_value
        count = slots * self._parameters.packing.fields
        values = self._rng.integers(-levels, levels, count, integer_type(levels), endpoint=True)
        sizes: list[int] = []
        seconds: list[float] = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            message = self._update(self._encryptor.encrypt(values))
            seconds.append(time.perf_counter() - start)
            sizes.append(len(message) - self.empty_update)
        return float(np.mean(sizes)), min(seconds)

    def _update(self, chunks: Iterable[Chunk]) -> bytes:
        return self._client.write(Update, chunks)


def _clients_encryptor(job: Job, scheme: Scheme, keys: KeyPair) -> Encryptor:
    """With the secret key where the clients share it and the scheme can."""
    if CUSTODIES[job.custody].clients_share:
        shared = scheme.symmetric_encryptor(keys.secret)
        if shared is not None:
            return shared
    return scheme.encryptor(keys.public)


# --- the command line -----------------------------------------------------------------------------


_SHAPE = {  # option: default, help
    "inputs": (784, "values of one sample"),
    "classes": (10, "classes"),
    "units": (MlpModel.units, "units of each hidden layer of the mlp"),
    "layers": (MlpModel.layers, "hidden layers of the mlp"),
}


class _Parser(argparse.ArgumentParser):
    """Reports what it cannot read as every other error is: one message, exit status 1."""

    def error(self, message: str) -> NoReturn:
        raise HyperLockError(f"{message}\n  try: {self.prog} --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m hyperlock.advise",
        description=(__doc__ or "").split("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--parameters", metavar="N", help="parameters of the model; or give its shape:"
    )
    parser.add_argument("--model", choices=("mlp", "logistic"), help="its architecture (mlp)")
    for name, (default, text) in _SHAPE.items():
        parser.add_argument(f"--{name}", metavar="N", help=f"{text} ({default})")
    parser.add_argument(
        "--clients", default="10", metavar="N", help="updates that a round adds (%(default)s)"
    )
    parser.add_argument(
        "--value-bits",
        default=str(AUTO_VALUE_BITS),
        metavar="N[,N]",
        help="of one value on the grid (%(default)s)",
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
    return parser


def _job(arguments: Sequence[str] | None) -> Job:
    """What the command line asks; ConfigError for a number that cannot be meant."""
    given = {
        name: text
        for name, text in vars(_parser().parse_args(arguments)).items()
        if text is not None
    }
    tensors = _tensors(given)
    clients = _integer("--clients", given["clients"], 2, 2**20, 10)
    value_bits = [
        _integer("--value-bits", text, MIN_VALUE_BITS, MAX_VALUE_BITS, 8)
        for text in given["value_bits"].split(",")
    ]
    return Job(
        tensors=tensors,
        clients=clients,
        value_bits=tuple(dict.fromkeys(value_bits)),  # each once
        security=_security(given["security"]),
        custody=given["keys"],
    )


def _tensors(given: Mapping[str, str]) -> tuple[int, ...]:
    """The model's tensors: one of `--parameters` coordinates, or those of the shape."""
    _refuse_two_models(given)
    if "parameters" in given:
        return (_integer("--parameters", given["parameters"], 1, 10**12, 101_770),)
    shape = {name: default for name, (default, _) in _SHAPE.items()}
    for name, default in shape.items():
        if name in given:
            shape[name] = _integer(f"--{name}", given[name], 1, 10**5, default)
    return tensor_sizes(given.get("model", "mlp"), **shape)


def _refuse_two_models(given: Mapping[str, str]) -> None:
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


def _security(text: str) -> int:
    levels = [str(level) for level in SECURITY_LIMITS]
    if text not in levels:
        raise ConfigError(
            "--security",
            text,
            "is no tabled level",
            allowed=", ".join(levels),
            hint="--security=128",
        )
    return int(text)


def _integer(option: str, text: str, smallest: int, largest: int, hint: int) -> int:
    if text.strip().isdecimal() and len(text) <= 20 and smallest <= int(text) <= largest:
        return int(text)
    allowed = f"{smallest} to {largest}"
    raise ConfigError(
        option, text, "is not a whole number in range", allowed=allowed, hint=f"{option}={hint}"
    )


if __name__ == "__main__":
    sys.exit(main())
