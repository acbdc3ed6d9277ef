"""The figures of docs/key-recovery.md: `python -m tests.security.figures` prints them."""

from __future__ import annotations

import time

from hyperlock.encryption.bfv_parameters import BfvParameters, bfv_parameters
from hyperlock.encryption.ckks_parameters import CkksParameters, ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.noise import MOST_BITS, run_bits

COORDINATES = 101_770
ROUNDS = 10  # of the main job
CHOICES = [("ckks", "auto"), ("ckks", 8192), ("bfv", "auto")]
GRIDS = [(8, 16), (8, 128), (8, 1024), (16, 16), (16, 128)]  # value bits, max clients


def table() -> str:
    """What the parameters that are chosen automatically are exact to."""
    columns = [
        "scheme",
        "N",
        "coeff_mod bits",
        "value bits, clients",
        "scale or t",
        "a coordinate",
        "a run",
        "a forgery",
    ]
    rows = [columns, ["---"] * len(columns)]
    for scheme, ring in CHOICES:
        for value_bits, clients in GRIDS:
            choose = ckks_parameters if scheme == "ckks" else bfv_parameters
            rows.append(
                _row(scheme, choose(ring, "auto", "auto", Extent(value_bits), clients, 128))
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(scheme: str, p: CkksParameters | BfvParameters) -> list[str]:
    precision = (
        f"2^{p.scale_bits}"
        if isinstance(p, CkksParameters)
        else f"{p.plain_modulus.bit_length()} bits"
    )
    exact = p.exact_to_bits
    more = "over " if exact == MOST_BITS else ""
    return [
        scheme,
        str(p.poly_modulus),
        ", ".join(map(str, p.coeff_mod_bits)),
        f"{p.extent.value_bits}, {p.max_clients}",
        precision,
        f"{more}{exact:.0f}",
        f"{more}{run_bits(exact, COORDINATES, ROUNDS):.0f}",
        f"{p.forgery_bits:.0f}",
    ]


def seconds(n: int, chain: list[int]) -> list[float]:
    """CPU seconds of the attack on the demo's round, from ciphertexts and floats to the key; roots
    are kept."""
    from tests.security.attack import recover_ckks, secret_key
    from tests.security.rounds import DEMO_SCALE, demo

    shown = demo(n, chain, clients=8)
    key = secret_key(shown.owner)
    taken = []
    for _ in range(6):
        start = time.process_time()
        found = recover_ckks(shown.server, *shown.released, DEMO_SCALE)
        taken.append(time.process_time() - start)
        assert (found == key).all()
    return sorted(taken[1:])


if __name__ == "__main__":
    print(table(), "\n")
    for size, primes in ((4096, [60, 49]), (8192, [60, 40, 40, 60]), (16384, [60, 40, 40, 60])):
        taken = seconds(size, primes)
        print(f"N={size} {primes}: {taken[2]:.2f} s ({taken[0]:.2f} to {taken[-1]:.2f})")
