"""The cost model's arithmetic, by hand; and that nothing is lost where many nodes meet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.federation.cost import (
    Engine,
    Link,
    Trip,
    round_seconds,
    transfer,
    trip_seconds,
    waiting,
)

ROOT = Path(__file__).resolve().parents[1]
FREE = Link(0.0, 0.0)
SLOW = Link(2_500_000.0, 0.05)
NOTHING = Engine(one=0.0, each=0.0, per_byte=0.0, poll=0.0, share=0.0, most=3.0)
FLOWER = Engine(one=0.4, each=0.1, per_byte=1e-8, poll=0.1, share=0.05, most=3.0)


def trip(parties: int, sent: int = 0, back: int = 0, work: float = 0.0) -> Trip:
    names = [f"site-{i}" for i in range(parties)]
    return Trip(dict.fromkeys(names, sent), dict.fromkeys(names, back), work)


def test_an_empty_trip_without_a_network_is_the_engine_s() -> None:
    assert trip_seconds(trip(1), 0, FLOWER, FREE) == pytest.approx(0.4 + 0.1 / 2)
    assert trip_seconds(trip(5), 0, FLOWER, FREE) == pytest.approx(0.8 + 0.1 * 5 / 6)


def test_a_node_that_heard_nothing_for_long_asks_less_often() -> None:
    assert waiting(1, 1, FLOWER, FREE) == pytest.approx(0.05)
    assert waiting(10, 1, FLOWER, FREE) == pytest.approx(0.25)
    assert waiting(1000, 1, FLOWER, FREE) == pytest.approx(1.5)
    assert waiting(0, 1, FLOWER, SLOW) == pytest.approx(0.1)


def test_distance_costs_three_times_there_and_back_and_another_for_closed_connections() -> None:
    link = Link(0.0, 0.05)
    assert trip_seconds(trip(1), 0, NOTHING, link) == pytest.approx(0.05 + 6 * 0.05 + 0.1)
    assert trip_seconds(trip(1), 6, NOTHING, link) == pytest.approx(0.05 + 8 * 0.05 + 0.1)


def test_the_coordinator_s_link_is_shared() -> None:
    near = Link(1_514_000.0, 0.0)
    assert transfer(1_448_000, near) == pytest.approx(1.0)
    assert trip_seconds(trip(5, 1_448_000, 0), 0, NOTHING, near) == pytest.approx(5.0)
    assert trip_seconds(trip(5, 0, 1_448_000, 0.5), 0, NOTHING, near) == pytest.approx(5.5)


def test_what_flower_does_for_others_goes_on_while_bytes_move() -> None:
    near = Link(1_514_000.0, 0.0)
    busy = Engine(one=0.0, each=0.2, per_byte=1e-7, poll=0.0, share=0.0, most=3.0)
    assert trip_seconds(trip(5), 0, busy, near) == pytest.approx(0.8)
    assert trip_seconds(trip(5, 1_448_000), 0, busy, near) == pytest.approx(5 + 0.1448)
    assert trip_seconds(trip(5, 1_448_000), 0, busy, FREE) == pytest.approx(0.8 + 5 * 0.1448)


def test_a_round_is_its_trips_and_what_the_server_does() -> None:
    trips = [trip(1), trip(1)]
    still = Engine(one=0.4, each=0.1, per_byte=0.0, poll=0.1, share=0.0, most=3.0)
    assert round_seconds(trips, 0.3, still, FREE) == pytest.approx(2 * 0.45 + 0.3)


@pytest.mark.flower
def test_twenty_nodes_at_one_superlink_and_no_update_is_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "load", "--nodes=20", "--rounds=3"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split("|")[1:] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in row[2:6]] for row in rows] == [["20", "20", "0", "0"]] * 3
