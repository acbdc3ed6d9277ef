"""What a lying server or client tries, in its own words, and what comes of it; each with a control
that shows what it would have, were the measure not there.

The victim is client-0: an attack succeeds if what is released is its update.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption import totals
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused, ReleaseRefused
from hyperlock.parties import client as client_module
from hyperlock.parties.identity import SERVER
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import Aggregate, PublicKey, Train, Update, key_id_of
from hyperlock.parties.session import Session
from tests.parties.cast import NAMES, SAMPLES, TERMS, Cast, Trainer, envelope_of

LIAR = "client-5"
HONEST = NAMES[:5]


@pytest.fixture(params=["bfv", "ckks"])
def cast(request: pytest.FixtureRequest) -> Cast:
    if request.param == "bfv":
        return Cast(Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128)))
    return Cast(Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), 16, 128)))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Take measures of the key holder away, by name."""

    def take_away(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(KeyHolder, name, MEASURES[name])

    return take_away


def _no_manifest(self: KeyHolder, session: Session, message: Aggregate) -> list[str]:
    """Whoever is named is believed."""
    envelopes = Aggregate.envelopes(message.parts[-1], 10**6)
    return [f"somebody-{i}" for i in range(len(envelopes))]


MEASURES = {
    "_check_manifest": _no_manifest,
    "_check_sums": lambda self, session, clients, sums: None,
}


def update_of(cast: Cast, release: bytes) -> np.ndarray:
    """What a release says of the summed update."""
    return cast.layout.split(cast.sums(release))[1]


def sent(cast: Cast, names: list[str] = HONEST) -> dict[str, tuple[Update, np.ndarray]]:
    """What clients send in the open attempt, and what is in it."""
    found = {}
    for i, name in enumerate(names):
        vector = cast.vector(seed=i)
        found[name] = (cast.message(name, vector), vector)
    return found


def summed(
    cast: Cast, updates: list[Update], envelopes: list[bytes] | None = None, **changes: object
) -> bytes:
    """An Aggregate of these ciphertexts, with their own envelopes or others, signed by the
    server."""
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    for update in updates:
        accumulator.add(update.parts)
    named = [cast.envelope(update) for update in updates] if envelopes is None else envelopes
    payload = (*accumulator.total(), Aggregate.manifest(named))
    return cast.sign(replace(cast.of(Aggregate, SERVER, payload), **changes), SERVER)  # type: ignore[arg-type]


def without(cast: Cast, others: list[Update]) -> tuple[bytes, ...]:
    """Minus the sum of these ciphertexts, whole."""
    layout = cast.scheme.layout  # type: ignore[attr-defined]
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    for update in others:
        accumulator.add(update.parts)
    primes = np.array(layout.primes, np.uint64)[:, np.newaxis]
    chunks = []
    for total in accumulator.total():
        both = layout.open_sum(total)
        chunks.append(layout.write_whole((primes - both) % primes))
    return tuple(chunks)


def plus(cast: Cast, one: tuple[bytes, ...], other: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The sum of two ciphertexts as an Update carries it."""
    layout = cast.scheme.layout  # type: ignore[attr-defined]
    primes = np.array(layout.primes, np.uint64)[:, np.newaxis]
    return tuple(
        layout.write_whole((layout.open_update(a).both + layout.open_update(b).both) % primes)
        for a, b in zip(one, other, strict=True)
    )


# The server makes a sum of its own


def test_one_update_as_often_as_there_are_clients(cast: Cast, unchecked: Callable) -> None:
    """ "I add client-0 three times and divide." """
    victim, vector = sent(cast)["client-0"]
    forged = summed(cast, [victim] * 3)
    with pytest.raises(ReleaseRefused, match="a client is named twice"):
        cast.keyholder.handle(forged)

    unchecked("_check_manifest", "_check_sums")
    cast.open(attempt=2)
    victim = cast.message("client-0", vector)
    released = update_of(cast, cast.keyholder.handle(summed(cast, [victim] * 3)))
    assert (released == 3 * cast.layout.split(vector)[1]).all()


def test_one_update_under_the_names_of_others(cast: Cast) -> None:
    """ "I add client-0 three times, and show the envelopes of three clients." """
    updates = sent(cast)
    envelopes = [cast.envelope(updates[name][0]) for name in HONEST[:3]]
    # Their totals are those of three clients with client-0's samples: nothing in the sum tells.
    victim, vector = updates["client-0"]
    release = cast.keyholder.handle(summed(cast, [victim] * 3, envelopes))
    # Only a second adder notices, which is why the server is trusted to add (trust=curious).
    assert (update_of(cast, release) == 3 * cast.layout.split(vector)[1]).all()


def test_made_up_contributors(cast: Cast, unchecked: Callable) -> None:
    """ "I add client-0 to a zero of my own that says that it is of two clients." """
    victim, vector = sent(cast)["client-0"]
    filler = np.zeros(cast.length, np.int64)
    width = totals.width(8)
    filler[:width] = totals.encode(Totals(1, 20, 1.0, 0), 8)
    filler[0] = 2
    made_up = cast.message(SERVER, filler)
    with pytest.raises(ReleaseRefused, match="not enrolled as a client"):
        cast.keyholder.handle(summed(cast, [victim, made_up]))
    cast.open(attempt=2)
    victim, made_up = cast.message("client-0", vector), cast.message(SERVER, filler)
    with pytest.raises(ReleaseRefused, match=r"of fewer than keys\.min_clients=3"):
        cast.keyholder.handle(summed(cast, [victim, made_up], [cast.envelope(victim)]))

    unchecked("_check_manifest", "_check_sums")
    cast.open(attempt=3)
    victim, made_up = cast.message("client-0", vector), cast.message(SERVER, filler)
    released = update_of(cast, cast.keyholder.handle(summed(cast, [victim, made_up])))
    assert (released == cast.layout.split(vector)[1]).all()


def test_the_sum_of_last_round_again(cast: Cast) -> None:
    """ "Round 1 was of five; in round 2 I send four of them again, and subtract." """
    updates = sent(cast)
    five = [update for update, _ in updates.values()]
    cast.keyholder.handle(summed(cast, five))
    again = summed(cast, five[1:])
    with pytest.raises(ReleaseRefused, match="round 1 was released before"):
        cast.keyholder.handle(again)
    cast.open(2)
    with pytest.raises(ReleaseRefused, match="manifest is refused: round 1 instead of 2"):
        cast.keyholder.handle(summed(cast, five[1:]))

    # Were the key that of the run, and were rounds not counted.
    other = Cast(cast.scheme)
    decryptor = other.keyholder._attempt.decryptor  # type: ignore[union-attr]
    others = [update for update, _ in sent(other).values()]
    both = []
    for chosen in (others, others[1:]):
        accumulator = other.scheme.accumulator(other.public, other.length)
        for update in chosen:
            accumulator.add(update.parts)
        both.append(decryptor.decrypt(accumulator.total(), other.length))
    victim = updates["client-0"][1]
    assert (both[0] - both[1] == victim).all()


def test_a_second_attempt_of_the_round(cast: Cast) -> None:
    """ "Attempt 1 fails, as far as anybody knows; in attempt 2 a friend among the clients sends
    what takes the others of attempt 1 away." """
    first = sent(cast)
    friend = np.zeros(cast.length, np.int64)
    five_times = totals.encode(Totals(1, SAMPLES, 1.5, 2), 8) * 5
    friend[: five_times.size] = five_times
    lies = cast.message(LIAR, friend)
    takes_away = without(cast, [first[name][0] for name in HONEST[1:]])
    chunks = plus(cast, tuple(map(bytes, lies.parts)), takes_away)

    # Under the key of attempt 1, all of attempt 2 would be client-0 alone.
    decryptor = cast.keyholder._attempt.decryptor  # type: ignore[union-attr]
    accumulator = cast.scheme.accumulator(cast.public, cast.length)
    for name in HONEST:
        accumulator.add(cast.message(name, first[name][1]).parts)
    accumulator.add(chunks)
    sums = decryptor.decrypt(accumulator.total(), cast.length)
    assert (sums[five_times.size :] == first["client-0"][1][five_times.size :]).all()

    # Under a key of its own the friend's ciphertexts are noise.
    cast.open(attempt=2)
    second = [cast.message(name, first[name][1]) for name in HONEST]
    forged = replace(cast.message(LIAR, friend), payload=chunks)
    with pytest.raises(ReleaseRefused):
        cast.keyholder.handle(summed(cast, [*second, forged]))


# The server tells clients different things


def test_two_train_messages(cast: Cast, unchecked: Callable) -> None:
    """ "client-0 gets the true ranges, and the others such that all they have rounds to zero." """

    def play() -> bytes:
        """client-0's update as it is, and the others', which rounded to nothing."""
        good = cast.message("client-0", cast.vector(seed=0))
        none = cast.vector(seed=1)
        none[totals.width(8) :] = 0
        others = [cast.message(name, none, train=bytes(32)) for name in HONEST[1:]]
        return summed(cast, [good, *others])

    with pytest.raises(ReleaseRefused, match="manifest is refused: train"):
        cast.keyholder.handle(play())
    unchecked("_check_manifest", "_check_sums")
    cast.open(attempt=2)
    released = update_of(cast, cast.keyholder.handle(play()))
    assert (released == cast.layout.split(cast.vector(seed=0))[1]).all()


@pytest.mark.parametrize("factor", [1e30, 17.0, 1 / 17, 1e-30])
def test_ranges_that_jump(cast: Cast, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "All get the same ranges, but such that nearly everything rounds to zero." """
    client = cast.client(Trainer(np.zeros(cast.layout.parameters, np.float32)))
    message = cast.session("client-3").hear(Train, cast.request)
    key, weights, ranges = (bytes(part) for part in message.parts)
    wrong = (np.frombuffer(ranges, "<f4") * np.float32(factor)).tobytes()
    forged = cast.sign(replace(message, payload=(key, weights, wrong)))
    with pytest.raises(MessageRefused, match=r"ranges that cannot have|not finite"):
        client.handle(forged)
    if 1e-3 < factor < 1e3:
        monkeypatch.setattr(client_module, "ranges_follow", lambda *_: True)
        assert client.handle(forged)


def test_terms_that_differ(cast: Cast) -> None:
    """ "client-0 joins with the true learning rate, and the others with one of 1e-30." """
    client = cast.client(Trainer(np.zeros(cast.layout.parameters, np.float32)))
    other_terms = replace(TERMS, settings={"federation.learning_rate": "1e-30"})
    client._session = replace(cast.session("client-3"), terms=other_terms)
    with pytest.raises(MessageRefused, match="terms"):
        client.handle(cast.request)
    good = [cast.message(name, cast.vector(seed=i)) for i, name in enumerate(HONEST)]
    other = [good[0], *[replace(update, terms=other_terms.digest) for update in good[1:]]]
    with pytest.raises(ReleaseRefused, match="manifest is refused: terms"):
        cast.keyholder.handle(summed(cast, other))


def test_another_key_for_some(cast: Cast) -> None:
    """ "client-0 gets a key that I made, or that of an earlier attempt." """
    client = cast.client(Trainer(np.zeros(cast.layout.parameters, np.float32)))
    message = cast.session("client-3").hear(Train, cast.request)
    _, *model = (bytes(part) for part in message.parts)

    # Only the key holder says what the key is.
    mine = cast.scheme.generate_keys().public
    said = replace(cast.of(PublicKey, SERVER, (mine,)), key_id=key_id_of(mine), length=0, train=b"")
    forged = replace(message, key_id=key_id_of(mine), payload=(cast.sign(said), *model))
    with pytest.raises(MessageRefused, match="a public_key message from 'server'"):
        client.handle(cast.sign(forged))

    # And for which attempt it is.
    stale = replace(message, attempt=2, payload=(cast.key_message, *model))
    with pytest.raises(MessageRefused, match="attempt 1 instead of 2"):
        client.handle(cast.sign(stale))
    assert client.handle(cast.request)


# A client lies about itself


@pytest.mark.parametrize(
    ("digits", "why"),
    [
        ({0: 2}, "the sum does not hold the 5 updates that are named"),
        ({0: 0}, "the sum does not hold the 5 updates that are named"),
        ({1: 127, 2: 127}, "not as many samples as these clients are enrolled with"),
        ({1: -100}, "a digit of their totals is none|not as many samples"),
        ({6: -127, 7: -127}, "a digit of their totals is none"),
    ],
    ids=[
        "twice itself",
        "nobody",
        "too many samples",
        "negative samples",
        "negative loss",
    ],
)
def test_totals_that_cannot_be(
    cast: Cast, digits: dict[int, int], why: str, unchecked: Callable
) -> None:
    def play() -> bytes:
        honest = [cast.message(name, cast.vector(seed=i)) for i, name in enumerate(HONEST[:4])]
        vector = cast.vector(seed=9)
        for place, value in digits.items():
            vector[place] = value
        return summed(cast, [*honest, cast.message(LIAR, vector)])

    with pytest.raises(ReleaseRefused, match=why):
        cast.keyholder.handle(play())
    unchecked("_check_sums")
    cast.open(attempt=2)
    assert cast.keyholder.handle(play())


def test_a_coordinate_beyond_what_a_client_can_have(cast: Cast, unchecked: Callable) -> None:
    """ "I move the model by more than any of us can." """

    def play() -> bytes:
        honest = [cast.message(name, cast.vector(seed=i)) for i, name in enumerate(HONEST[:4])]
        vector = cast.vector(seed=9)
        vector[-1] = 1000
        return summed(cast, [*honest, cast.message(LIAR, vector)])

    with pytest.raises(ReleaseRefused, match="a coordinate is larger than 5 updates can make it"):
        cast.keyholder.handle(play())
    unchecked("_check_sums")
    cast.open(attempt=2)
    assert cast.keyholder.handle(play())


def test_a_client_that_sees_the_others_ciphertexts_takes_them_away(cast: Cast) -> None:
    """ "I send minus the others": at trust=curious it isolates client-0, if the server lets it see
    what others sent. The control of the attack that commitments are against."""
    updates = sent(cast)
    own = np.zeros(cast.length, np.int64)
    digits = totals.encode(Totals(1, SAMPLES, 1.5, 2), 8)
    own[: digits.size] = digits * 5
    lies = cast.message(LIAR, own)
    takes_away = without(cast, [updates[name][0] for name in HONEST[1:]])
    forged = replace(lies, payload=plus(cast, tuple(map(bytes, lies.parts)), takes_away))
    release = cast.keyholder.handle(
        summed(cast, [*[update for update, _ in updates.values()], forged])
    )
    victim = updates["client-0"][1]
    assert (update_of(cast, release) == cast.layout.split(victim)[1]).all()


# Who is in the sum


def test_a_client_that_is_not_enrolled(cast: Cast) -> None:
    stranger = "client-9"
    with pytest.raises((KeyError, MessageRefused)):
        cast.message(stranger, cast.vector()).encode(cast.parties[stranger])
    good = sent(cast)
    envelopes = [cast.envelope(update) for update, _ in good.values()]
    forged = cast.sign(replace(good["client-0"][0], sender=stranger), "client-0")
    envelopes.append(envelope_of(forged))
    with pytest.raises(ReleaseRefused, match="'client-9' is not enrolled"):
        cast.keyholder.handle(summed(cast, [update for update, _ in good.values()], envelopes))


def test_one_ciphertext_under_two_names(cast: Cast) -> None:
    """ "I send what client-0 sent, under my own name and signature." """
    good = sent(cast)
    copy = replace(good["client-0"][0], sender=LIAR)
    with pytest.raises(ReleaseRefused, match="two clients sent the same ciphertexts"):
        cast.keyholder.handle(summed(cast, [*[update for update, _ in good.values()], copy]))


# The key


def secrets_of(keyholder: KeyHolder) -> Iterator[object]:
    """Everything that can be reached from a key holder."""
    seen: set[int] = set()
    heap: list[object] = [keyholder]
    while heap:
        found = heap.pop()
        if id(found) in seen or isinstance(found, type) or callable(found):
            continue
        seen.add(id(found))
        yield found
        heap.extend(gc.get_referents(found))


def test_a_key_is_out_of_reach_once_its_sum_was_looked_at(cast: Cast) -> None:
    """Whether it was released or refused; before, it is there to be found."""
    for bad in (False, True):
        cast.open(*((2, 1) if bad else (1, 2)))
        decryptor = cast.keyholder._attempt.decryptor  # type: ignore[union-attr]
        target = id(decryptor)
        assert any(id(found) == target for found in secrets_of(cast.keyholder))
        del decryptor
        updates = [update for update, _ in sent(cast).values()]
        if bad:
            with pytest.raises(ReleaseRefused):
                cast.keyholder.handle(summed(cast, updates[:2]))
        else:
            cast.keyholder.handle(summed(cast, updates))
        gc.collect()
        assert not any(id(found) == target for found in secrets_of(cast.keyholder))


def test_a_key_holder_that_stops_between_decryption_and_release(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "It was killed, and decrypts again": not what it gave, and not without having written it."""
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    cast.open()
    updates = [update for update, _ in sent(cast).values()]
    request = summed(cast, updates)

    # Killed before the ledger is on the disk: nothing was released, and the key is gone.
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "keep", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            cast.keyholder.handle(request)
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    with pytest.raises(ReleaseRefused, match="its key is gone"):
        cast.keyholder.handle(request)

    # Killed after: the same bytes to who asks for the same, and nothing else.
    cast.open()
    updates = [update for update, _ in sent(cast).values()]
    request = summed(cast, updates)
    release = cast.keyholder.handle(request)
    cast.keyholder = cast.another_keyholder(Ledger(tmp_path))
    assert cast.keyholder.handle(request) == release
    with pytest.raises(ReleaseRefused, match="round 1 was released before"):
        cast.keyholder.handle(summed(cast, updates[1:]))
    assert cast.keyholder.handle(cast.server.begin(1, 2)) == release


def test_no_attempt_is_opened_twice_or_after_the_release(cast: Cast) -> None:
    """The same request gets the same key, and another one the next attempt's."""
    assert cast.keyholder.handle(cast.server.begin(1, 1)) == cast.key_message
    first = cast.key_id
    cast.open(1, 2)
    again = cast.keyholder.handle(cast.server.begin(1, 1))
    message = cast.session(SERVER).hear(PublicKey, again)
    message.expect(attempt=3)
    assert len({first, cast.key_id, message.key_id}) == 3
    with pytest.raises(ReleaseRefused, match="none of this run's 9"):
        cast.keyholder.handle(cast.server.begin(10, 1))
