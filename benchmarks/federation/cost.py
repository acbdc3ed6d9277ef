"""What a round costs on a network: seconds, from bytes, trips and polling.

A round is a sequence of trips: the server asks one party or several at once, and goes on when all
have answered. A trip of m parties takes

    engine.one + engine.per_byte * (sent + back)    what Flower does with one message and its answer
    + period * m / (m + 1)                          until the last of m nodes asks for it
    + ways * delay + _LOOK / 2                      there and back, as often as a node asks
    + max(moved, others)                            the bytes of all, while Flower serves the others
    + work                                          of the party that takes longest

with moved = m * (sent + back) over the rate of the coordinator's link, which all share;
others = (m - 1) * (engine.each + engine.per_byte * (sent + back)); and
period = min(max(poll, share * idle), most) + 2 * delay, where idle is how long a party has heard
nothing. Between trips the server works itself. The constants of `Engine` are those of empty
trips and of trips that are all bytes on a network without limits, and `work` is what parties took
there: nothing is fitted to what is predicted.

TCP's slow start is no part of it: polls keep a node's connection open and its window as wide as the
last round left it (`ss -ti` shows 370 to 1,500 segments). The first round has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Of a message at a node: the answer to its pull (1), the body (2), the reply announced (2) and sent
# (1). What goes beside these needs connections of its own, and they are closed after _KEPT seconds.
_WAYS = 6
_WAYS_ANEW = 8
_KEPT = 5.0
_LOOK = 0.2  # seconds between two looks of the relay for an answer that is still on its way
_SEGMENT = 1448  # bytes of a body in a frame
_FRAME = 1514  # bytes of the frame


@dataclass(frozen=True)
class Link:
    """Of each party, the coordinator among them.

    Attributes:
        rate: bytes a second, in each direction; 0 for no limit.
        delay: seconds from one party to another.
    """

    rate: float
    delay: float


@dataclass(frozen=True)
class Engine:
    """Flower on this machine, without a network's limits.

    Attributes:
        one: seconds of an empty trip to one party, less its wait for the node's poll.
        each: seconds for each further party on the same trip.
        per_byte: seconds a byte.
        poll: seconds between two polls of a node, at least.
        share: of the time since it heard something, what it waits.
        most: seconds between two polls, at most.
    """

    one: float
    each: float
    per_byte: float
    poll: float
    share: float
    most: float


@dataclass(frozen=True)
class Trip:
    """Parties that are asked at once.

    Attributes:
        sent: bytes to each party, by name.
        back: bytes of each one's answer.
        work: seconds of the party that takes longest.
    """

    sent: Mapping[str, int]
    back: Mapping[str, int]
    work: float


def round_seconds(trips: Sequence[Trip], server: float, engine: Engine, link: Link) -> float:
    """Seconds of a round.

    Args:
        trips: in order.
        server: seconds in which the server itself works.
        engine: what carries them.
        link: of each party.
    """
    return server + sum(seconds_of_trips(trips, server, engine, link))


def seconds_of_trips(
    trips: Sequence[Trip], server: float, engine: Engine, link: Link
) -> list[float]:
    """Seconds of each trip of a round; the arguments are those of `round_seconds`."""
    clock = 0.0
    heard: dict[str, float] = {}
    for _ in range(2):  # how long a party has heard nothing, the round before tells
        seconds = []
        for trip in trips:
            idle = max((clock - heard.get(name, clock) for name in trip.sent), default=0.0)
            seconds.append(trip_seconds(trip, idle, engine, link))
            clock += seconds[-1]
            heard |= dict.fromkeys(trip.sent, clock)
        clock += server
    return seconds


def trip_seconds(trip: Trip, idle: float, engine: Engine, link: Link) -> float:
    """Seconds of a trip to parties that have heard nothing for `idle` seconds."""
    parties = len(trip.sent)
    sent = sum(trip.sent.values())
    back = sum(trip.back.values())
    ways = (_WAYS_ANEW if idle > _KEPT else _WAYS) * link.delay
    ways += _LOOK / 2 if link.delay else 0.0
    moved = transfer(sent + back, link)
    handled = engine.per_byte * (sent + back) / parties
    others = (parties - 1) * (engine.each + handled)
    carried = engine.one + handled + max(moved, others)
    return carried + waiting(idle, parties, engine, link) + ways + trip.work


def waiting(idle: float, parties: int, engine: Engine, link: Link) -> float:
    """Seconds until the last of so many nodes polls, each at a time of its own; expected."""
    pause = min(max(engine.poll, engine.share * idle), engine.most)
    period = pause + 2 * link.delay
    return period * parties / (parties + 1)


def transfer(size: int, link: Link) -> float:
    """Seconds in which so many bytes go over a link, frames' headers beside them."""
    return size * _FRAME / _SEGMENT / link.rate if link.rate else 0.0
