"""What the messages of trust=malicious hold, altered in every way by who may send them: refused by
reason, nothing is used up, and what comes of the good ones is the same byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS
from hyperlock.parties.messages import (
    MAX_COMMITMENT,
    Aggregate,
    Announced,
    Commitments,
    PublicKey,
    Roster,
    Tally,
    key_id_of,
)
from hyperlock.parties.proofs import Tallied, digest, sum_digest
from tests.parties.cast import NAMES
from tests.security.forge import opened, parts_of, resealed, with_parts
from tests.security.proved import LATE, ORDER, PLACES, Promise, Proved, Waiting

SHORT = bytes(31)
ZERO = bytes(32)
LONG = bytes(33)
TOO_LARGE = "bytes where at most|payload part"


@pytest.fixture(scope="module", params=["ckks", "bfv"])
def proved(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Proved:
    return Proved(schemes[request.param])


@dataclass
class Due:
    """One message that is due, and what it can be made of.

    Attributes:
        proved: the round.
        here: the party that waits.
    """

    proved: Proved
    here: Waiting

    @property
    def good(self) -> bytes:
        """The message; the last, where several are due."""
        return self.here.good[-1]

    @property
    def parts(self) -> list[bytes]:
        """Of its payload."""
        return parts_of(self.good)

    def made(self, *parts: bytes, of: bytes = b"", **changes: object) -> bytes:
        """It, or another message, with another payload, signed by its sender."""
        message = of or self.good
        sender = str(changes.get("sender", opened(message)[1]["sender"]))
        return with_parts(message, self.proved.parties[sender], *parts, **changes)

    def signed(self, message: bytes, **changes: object) -> bytes:
        """A message with other header fields."""
        sender = str(changes.get("sender", opened(message)[1]["sender"]))
        return resealed(message, self.proved.parties[sender], **changes)

    def key(self, *parts: bytes) -> bytes:
        """The attempt's key, with something else announced."""
        public, *_ = parts_of(self.proved.said.key)
        return self.made(public, *parts, of=self.proved.said.key)

    def announced(self, **changes: object) -> bytes:
        """What is announced, with something in it altered."""
        return msgpack.packb([*{**announcement(self.proved), **changes}.values()])

    def roster(self) -> dict[str, bytes]:
        """Who has committed to what."""
        return Roster.entries(parts_of(self.proved.said.roster)[0])

    def listed(self) -> list[bytes]:
        """The Commitments."""
        return list(self.proved.said.commitments)

    def summed(self, tally: bytes) -> bytes:
        """The Aggregate with another tally."""
        return self.made(*self.parts[:-1], tally)

    def tallied(self, **changes: Any) -> bytes:
        """The same with a tally that lies."""
        good = parts_of(self.proved.said.tally)[0]
        roster, total, names = honest_tally(good)
        lie = Tallied(
            changes.get("roster", roster), changes.get("total", total), changes.get("names", names)
        )
        return self.summed(self.made(lie.write(), of=self.proved.said.tally))


def announcement(proved: Proved) -> dict[str, object]:
    """Of the attempt."""
    found = Announced.read(parts_of(proved.said.key)[1])
    return {"cohort": list(found.cohort), "model": found.model, "cohorts": found.cohorts}


def honest_tally(payload: bytes) -> tuple[bytes, bytes, tuple[str, ...]]:
    names, roster, total = msgpack.unpackb(payload)
    return roster, total, tuple(names)


Alter = Callable[[Due], bytes]
HUGE = b"\xdd\xff\xff\xff\xff"
DEEP = b"\x91" * 1500

# By what an announcement is instead.
NOT_ANNOUNCED: dict[str, Alter] = {
    "nothing": lambda d: b"",
    "none": lambda d: msgpack.packb(None),
    "a number": lambda d: msgpack.packb(7),
    "three letters": lambda d: msgpack.packb("abc"),
    "a map of three": lambda d: msgpack.packb({b"": 1, ZERO: 2, bytes(range(32)): 3}),
    "two": lambda d: msgpack.packb([["client-0"], ZERO]),
    "four": lambda d: msgpack.packb([["client-0"], ZERO, ZERO, ZERO]),
    "a name for a cohort": lambda d: d.announced(cohort="client-3"),
    "a map for a cohort": lambda d: d.announced(cohort={"client-3": 1}),
    "a number for a cohort": lambda d: d.announced(cohort=3),
    "bytes for a cohort": lambda d: d.announced(cohort=b""),
    "bytes for a name": lambda d: d.announced(cohort=[b"client-3"]),
    "a list for a name": lambda d: d.announced(cohort=[["client-3"]]),
    "a name of 300 letters": lambda d: d.announced(cohort=["x" * 300]),
    **{
        f"{value!r:.12} of {len(value)} for the {name}": (
            lambda d, name=name, value=value: d.announced(**{name: value})
        )
        for name in ("model", "cohorts")
        for value in (b"", SHORT, LONG, "x" * 32, [0] * 32)
    },
    "something behind it": lambda d: d.announced() + b"\0",
    "a list of 2^32": lambda d: HUGE,
    "lists within lists": lambda d: DEEP,
    "more than names": lambda d: msgpack.packb([[""] * 2000, ZERO, ZERO]),
    "half of it": lambda d: d.announced()[:-40],
}

# By what a roster is instead.
NOT_A_ROSTER: dict[str, Alter] = {
    "nothing": lambda d: b"",
    "none": lambda d: msgpack.packb(None),
    "a list": lambda d: msgpack.packb([*d.roster().items()]),
    "bytes for a name": lambda d: msgpack.packb({b"client-3": ZERO}),
    "a number for a name": lambda d: msgpack.packb({3: ZERO}),
    "a name of 300 letters": lambda d: msgpack.packb({"x" * 300: ZERO}),
    **{
        f"{value!r:.12} for a commitment": (
            lambda d, value=value: msgpack.packb({**d.roster(), "client-3": value})
        )
        for value in (b"", SHORT, LONG, "x" * 32, 7, None, [ZERO], True)
    },
    "something behind it": lambda d: Roster.write(d.roster()) + b"\0",
    "a map of 2^32": lambda d: b"\xdf\xff\xff\xff\xff",
    "lists within lists": lambda d: DEEP,
    "half of it": lambda d: Roster.write(d.roster())[:-40],
}

# By what a list of commitments is instead.
NOT_A_LIST: dict[str, Alter] = {
    "nothing": lambda d: b"",
    "a map": lambda d: msgpack.packb({"client-3": d.listed()[0]}),
    "a number for a commitment": lambda d: msgpack.packb([*d.listed()[1:], 7]),
    "a list for a commitment": lambda d: msgpack.packb([*d.listed()[1:], d.listed()[:1]]),
    "more than the cohort": lambda d: Commitments.write([*d.listed(), d.listed()[0]]),
    "one that is too large": lambda d: Commitments.write([bytes(MAX_COMMITMENT + 1)]),
    "something behind it": lambda d: Commitments.write(d.listed()) + b"\0",
    "a list of 2^32": lambda d: HUGE,
    "lists within lists": lambda d: DEEP,
}

# By place and what is done: the message, and the reason.
Table = dict[str, tuple[Alter, str]]


def announcing(place: Callable[[Due, bytes], bytes]) -> Table:
    """Everything that is no announcement, where one stands."""
    return {
        name: (lambda d, made=made: place(d, d.key(made(d))), "not an announcement")
        for name, made in NOT_ANNOUNCED.items()
    } | {
        "a key alone": (lambda d: place(d, d.key()), "1 payload parts instead of 2"),
        "a part more": (
            lambda d: place(d, d.key(d.announced(), b"x")),
            "3 payload parts where at most 2",
        ),
        "another's key": (
            lambda d: place(d, d.made(b"key", d.announced(), of=d.proved.said.key)),
            "not the one that its key id names",
        ),
    }


def promising(data: Callable[[Due], list[bytes]], reason: str) -> tuple[Alter, str]:
    """A list of these commitments."""
    return (lambda d: d.made(Commitments.write(data(d))), reason)


def in_a_train(due: Due, key: bytes) -> bytes:
    return due.made(key, due.parts[1])


NO_ROSTER: Table = {
    name: (lambda d, made=made: d.made(made(d)), "not a roster")
    for name, made in NOT_A_ROSTER.items()
}
STATES: Table = {
    "no model behind its name": (lambda d: d.made(b"model"), "not a message"),
    "a Release that the server signed": (
        lambda d: d.made(d.signed(d.proved.said.release, sender=SERVER)),
        "'server' instead of 'keyholder'",
    ),
    "a Release that the key holder did not sign": (
        lambda d: d.made(resealed(d.proved.said.release, d.proved.parties[SERVER])),
        "signature is not that of 'keyholder'",
    ),
    "an Aggregate": (
        lambda d: d.made(d.proved.said.aggregate),
        f"kind 'aggregate'|{TOO_LARGE}",
    ),
    "garbage": (lambda d: d.made(bytes(1000)), "not a message"),
    "a Release of a round that is to come": (
        lambda d: d.made(d.proved.next.release),
        "round 2 instead of 1",
    ),
    "three Releases": (
        lambda d: d.made(*[d.proved.said.release] * 3),
        "3 payload parts where at most 2",
    ),
    "a Release of no updates": (
        lambda d: d.made(
            d.made(bytes(len(parts_of(d.proved.said.release)[0])), of=d.proved.said.release)
        ),
        "of no updates",
    ),
}

TABLES: dict[str, Table] = {
    "public_key to verified server": announcing(lambda d, key: key),
    "public_key to witness": announcing(lambda d, key: key),
    "train to committing client": announcing(in_a_train)
    | {
        "a key alone": (lambda d: d.made(d.parts[0]), "without a key and a model's digest"),
        "a part more": (lambda d: d.made(*d.parts, b""), "without a key and a model's digest"),
        "another model": (lambda d: d.made(d.parts[0], ZERO), "than the key holder's"),
        "half a digest": (lambda d: d.made(d.parts[0], d.parts[1][:16]), "than the key holder's"),
        "a model that it has not": (
            lambda d: d.made(d.key(d.announced(model=ZERO)), ZERO),
            "than the one that this client has stepped to",
        ),
        "a cohort without it": (
            lambda d: in_a_train(d, d.key(d.announced(cohort=NAMES[:3]))),
            "client-3 is not in the cohort",
        ),
        "a cohort of nobody": (
            lambda d: in_a_train(d, d.key(d.announced(cohort=[]))),
            "client-3 is not in the cohort",
        ),
        "a key of another attempt": (
            lambda d: in_a_train(d, d.proved.again.key),
            "attempt 2 instead of 1",
        ),
        "a key that the server signed": (
            lambda d: in_a_train(d, d.signed(d.proved.said.key, sender=SERVER)),
            "'server' instead of 'keyholder'",
        ),
        "a model, as where all are honest but curious": (
            lambda d: d.made(d.parts[0], bytes(4 * 320), bytes(8)),
            "without a key and a model's digest",
        ),
    },
    "commitment to verified server": {
        "no commitment": (lambda d: d.made(b""), "not a SHA-256"),
        "a short one": (lambda d: d.made(SHORT), "not a SHA-256"),
        "a long one": (lambda d: d.made(LONG), "payload part is not of at most 32"),
        "two": (lambda d: d.made(ZERO, ZERO), "2 payload parts where at most 1"),
        **{
            f"of the {party}": (
                lambda d, party=party: d.signed(d.good, sender=party),
                "not in this round's cohort",
            )
            for party in (SERVER, KEYHOLDER, WITNESS)
        },
    },
    "commitments to verifying key holder": {
        name: (lambda d, made=made: d.made(made(d)), "not a list of commitments")
        for name, made in NOT_A_LIST.items()
    }
    | {
        "none": promising(lambda d: [], "0 clients have committed"),
        "too few": promising(lambda d: d.listed()[:2], "2 clients have committed"),
        "one twice": promising(lambda d: [*d.listed()[:5], d.listed()[0]], "committed twice"),
        "garbage": promising(lambda d: [*d.listed()[:5], bytes(300)], "not a message"),
        "an Update": promising(lambda d: [d.proved.said.tally], "kind 'tally'"),
        "another attempt's": promising(
            lambda d: [*d.listed()[:5], d.proved.again.commitments[5]], "attempt 2 instead of 1"
        ),
        "another round's": promising(
            lambda d: [*d.listed()[:5], d.proved.next.commitments[5]], "round 2 instead of 1"
        ),
        "another key's": promising(
            lambda d: [*d.listed()[:5], d.signed(d.listed()[5], key_id="x")], "key_id 'x'"
        ),
        "another request's": promising(
            lambda d: [*d.listed()[:5], d.signed(d.listed()[5], train=ZERO)], "train 0000"
        ),
        "a short one": promising(
            lambda d: [*d.listed()[:5], d.made(SHORT, of=d.listed()[5])], "not a SHA-256"
        ),
        "one without a part": promising(
            lambda d: [*d.listed()[:5], d.made(of=d.listed()[5])], "not a SHA-256"
        ),
        "a forged name": promising(
            lambda d: [
                *d.listed()[:4],
                resealed(d.listed()[4], d.proved.parties[ORDER[4]], sender=ORDER[5]),
            ],
            "signature is not that of",
        ),
        "all equal": promising(
            lambda d: [d.made(ZERO, of=one) for one in d.listed()], "0 clients have committed"
        ),
        **{
            f"of the {party}": promising(
                lambda d, party=party: [d.signed(d.listed()[0], sender=party)], "not in the cohort"
            )
            for party in (SERVER, KEYHOLDER, WITNESS)
        },
    },
    "roster to verified server": NO_ROSTER
    | {
        "who was not asked": (
            lambda d: d.made(Roster.write({**d.roster(), KEYHOLDER: ZERO})),
            "a roster of what was not committed",
        ),
        "another commitment": (
            lambda d: d.made(Roster.write({**d.roster(), "client-3": ZERO})),
            "a roster of what was not committed",
        ),
    },
    "roster to witness": NO_ROSTER
    | {"another attempt's": (lambda d: d.proved.again.roster, "attempt 2 instead of 1")},
    "roster to committing client": NO_ROSTER
    | {
        "without it": (
            lambda d: d.made(Roster.write({k: v for k, v in d.roster().items() if k != LATE[-1]})),
            "or not at all",
        ),
        "with another commitment": (
            lambda d: d.made(Roster.write({**d.roster(), LATE[-1]: ZERO})),
            "with another update",
        ),
        "nobody's": (lambda d: d.made(Roster.write({})), "or not at all"),
        "of few": (
            lambda d: d.made(Roster.write({k: d.roster()[k] for k in LATE[1:]})),
            "a roster of 2 clients",
        ),
        "of two that are equal": (
            lambda d: d.made(Roster.write({**d.roster(), "mallory": d.roster()[LATE[-1]]})),
            "two clients have the same update",
        ),
        "another attempt's": (lambda d: d.proved.again.roster, "attempt 2 instead of 1"),
    },
    "update to verified server": {
        "another than was promised": (
            lambda d: d.made(*parts_of(d.proved.said.updates[0])),
            "had committed to another update",
        ),
        "the same, signed anew": (
            lambda d: d.signed(d.good, length=opened(d.good)[1]["length"], sender="client-1"),
            "client-1 had committed to another update",
        ),
    },
    "update to witness": {
        "another than was promised": (
            lambda d: d.made(*parts_of(d.proved.said.updates[0])),
            "had committed to another update",
        ),
        "one twice": (lambda d: d.proved.said.updates[0], "a second update of client-0"),
        "another attempt's": (lambda d: d.proved.again.updates[-1], "attempt 2 instead of 1"),
        "an Update of the key holder": (
            lambda d: d.signed(d.good, sender=KEYHOLDER),
            "keyholder had committed to another update",
        ),
    },
    "shown to server at the end": {
        "nothing": (lambda d: d.made(b""), "not a cohorts' seed"),
        "a byte less": (lambda d: d.made(d.parts[0][:-1]), "not a cohorts' seed"),
        "a byte more": (lambda d: d.made(d.parts[0] + b"\0"), "payload part is not of at most"),
        "another seed": (lambda d: d.made(d.parts[0][:-8] + b"\xff" * 8), "another seed than"),
        "another nonce": (lambda d: d.made(ZERO + d.parts[0][32:]), "another seed than"),
    },
    "state to client that missed a round": STATES,
    "state to client that missed many": STATES
    | {"three parts": (lambda d: d.made(*d.parts, b""), "3 payload parts where at most 2")},
}


def offered(handle: Callable[[bytes], object], data: bytes) -> str | None:
    """The reason if it was refused."""
    try:
        found = handle(data)
    except HyperLockError as error:
        return str(error)
    return found if isinstance(found, str) else None


@pytest.mark.parametrize("place", TABLES)
def test_content_is_refused_by_reason_and_the_round_ends_as_without_it(
    proved: Proved, place: str
) -> None:
    due = Due(proved, proved.wait(place))
    before = due.here.keeper.model
    for name, (alter, reason) in TABLES[place].items():
        text = offered(due.here.handle, alter(due))
        assert text is not None and re.search(reason, text), f"{name}: {text}"
        assert len(text) < 400, name
        assert due.here.keeper.model is before, name
    due.here.finish()


# Whatever is made of an Aggregate beyond its header: its key is used up by it.
LIES: Table = {
    "no tally": (lambda d: d.summed(b""), "the tally is refused: not a message"),
    "garbage": (lambda d: d.summed(bytes(300)), "the tally is refused: not a message"),
    "the roster for a tally": (
        lambda d: d.summed(d.proved.said.roster),
        "the tally is refused: kind 'roster'",
    ),
    "another attempt's": (
        lambda d: d.summed(d.proved.again.tally),
        "the tally is refused: attempt 2 instead of 1",
    ),
    "another request's": (
        lambda d: d.summed(d.signed(d.proved.said.tally, train=ZERO)),
        "the tally is refused: train",
    ),
    **{
        f"signed by {party}": (
            lambda d, party=party: d.summed(d.signed(d.proved.said.tally, sender=party)),
            f"the tally is refused: a tally message from '{party}'",
        )
        for party in (SERVER, KEYHOLDER, "client-3")
    },
    **{
        f"{name} for what it says": (
            lambda d, made=made: d.summed(d.made(made(d), of=d.proved.said.tally)),
            "the tally is refused: (not an announcement|a payload part)",
        )
        for name, made in NOT_ANNOUNCED.items()
        if name != "more than names"
    },
    "another roster": (lambda d: d.tallied(roster=ZERO), "the witness saw another roster"),
    "another sum": (lambda d: d.tallied(total=ZERO), "the witness came to another sum"),
    "fewer": (lambda d: d.tallied(names=ORDER[1:]), "added the updates of others"),
    "more": (lambda d: d.tallied(names=[*ORDER, "mallory"]), "added the updates of others"),
    "one twice": (lambda d: d.tallied(names=[*ORDER, "client-0"]), "added the updates of others"),
    "nobody": (lambda d: d.tallied(names=[]), "added the updates of others"),
    "sum and tally of another attempt": (
        lambda d: d.made(*parts_of(d.proved.again.aggregate)),
        "the manifest is refused",
    ),
    "a sum of one, and a tally of all": (
        lambda d: d.made(*parts_of(d.proved.said.updates[0]), *d.parts[-2:]),
        "came to another sum",
    ),
    "the parts in another order": (
        lambda d: d.made(*d.parts[:-2], d.parts[-1], d.parts[-2]),
        "the manifest is refused",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_sum_with_a_lie_behind_it_is_not_released_nor_is_the_good_one_then(
    proved: Proved, name: str
) -> None:
    alter, reason = LIES[name]
    due = Due(proved, proved.wait("aggregate to verifying key holder"))
    text = offered(due.here.handle, alter(due))
    assert text is not None and re.search(reason, text), text
    assert "its key is gone" in str(offered(due.here.handle, due.good))
    assert due.here.keeper.round == 0


@pytest.mark.parametrize("name", ["a part less", "a part more", "no tally and no manifest"])
def test_a_sum_in_another_number_of_parts_uses_nothing_up(proved: Proved, name: str) -> None:
    due = Due(proved, proved.wait("aggregate to verifying key holder"))
    parts = {
        "a part less": due.parts[:-1],
        "a part more": [*due.parts, b""],
        "no tally and no manifest": due.parts[:-2],
    }[name]
    assert "payload parts" in str(offered(due.here.handle, due.made(*parts)))
    due.here.finish()


def test_every_kind_of_the_proofs_is_altered_in_what_it_holds() -> None:
    """Close and Show hold nothing, an Open as at trust=curious; what an Aggregate's key does not
    outlive is in `LIES`, and a Tally is read there."""
    kinds = {PLACES[place][0] for place in TABLES}
    assert kinds | {"aggregate", "tally", "close", "show", "open"} == {
        k for k, _ in PLACES.values()
    }


# What a refused message must not have changed, and what the others would pay for


def test_a_roster_of_another_attempt_between_updates_changes_nothing(proved: Proved) -> None:
    """The network can send it again."""
    here = proved.wait("update to witness")
    for roster in (proved.again.roster, proved.said.roster, proved.next.roster):
        assert offered(here.handle, roster) is not None
    here.finish()


def test_a_witness_adds_once_an_attempt(proved: Proved) -> None:
    """Nor with the same roster after it has signed, of which the server could have it add fewer."""
    here = proved.wait("close to witness")
    here.finish()
    assert "a second roster of the same attempt" in str(offered(here.handle, proved.said.roster))


def test_a_roster_before_its_key(proved: Proved) -> None:
    here = proved.wait("public_key to witness")
    early = resealed(proved.said.roster, proved.parties[KEYHOLDER], round=0, attempt=0, key_id="")
    assert "a roster before the key" in str(offered(here.handle, early))
    here.finish()


def test_commitments_of_any_size_are_listed(proved: Proved) -> None:
    """A header has more than one form, so that a client decides how long its Commitment is; as do
    the names of who answers first."""
    here = proved.wait("commitment to verified server")
    server = here.cast.server
    for index, commitment in enumerate(proved.said.of("commitment")):
        payload, header, _ = opened(commitment)
        # A length that is written in one byte more, in two, or in four.
        wide = b"\xa6length" + [b"\xcc\0", b"\xcd\0\0", b"\xce\0\0\0\0"][index]
        packed = msgpack.packb(header).replace(b"\xa6length\0", wide)
        identity = proved.parties[str(header["sender"])]
        envelope = msgpack.packb([packed, identity.sign(packed)])
        data = payload + envelope + len(envelope).to_bytes(4, "little")
        assert len(data) > len(commitment) and server.commit(data) is None
    assert len({len(data) for data in server._commitments.values()}) == 4
    keyholder = proved.wait("commitments to verifying key holder")
    roster = keyholder.handle(server.commitments())
    assert sorted(server.install_roster(roster)) == NAMES  # type: ignore[arg-type]


def test_two_clients_with_the_same_ciphertexts_do_not_cost_the_others_the_round(
    proved: Proved,
) -> None:
    """Whose promises differ, for each has signed its own."""
    promise = Promise(proved)
    first, second, third = promise.good
    copied = with_parts(second, proved.parties[LATE[1]], *parts_of(first))
    assert promise.handle(first) is None
    assert "client-2 sent what another client sent" in str(promise.handle(copied))
    assert promise.handle(third) is None
    promise.close()
    totals = promise.cast.keepers[KEYHOLDER].totals
    assert totals is not None and totals.contributors == 5


def test_a_key_of_other_parameters_leaves_what_the_server_knows_of_cohorts(
    proved: Proved, schemes: dict[str, Scheme]
) -> None:
    here = proved.wait("public_key to verified server")
    (other,) = {"ckks", "bfv"} - {proved.scheme.name}  # type: ignore[attr-defined]
    key = schemes[other].generate_keys().public
    session = here.cast.session(KEYHOLDER).at(1, 1).under(key)
    lie = session.write(PublicKey, (key, Announced(tuple(NAMES), ZERO, ZERO).write()))
    assert "a public key of other parameters" in str(offered(here.handle, lie))
    here.finish()
    here.cast.server.check_cohorts(proved.shown)


def test_states_are_for_who_has_missed_something(proved: Proved) -> None:
    """One that holds nothing, and Releases that the client has, change nothing."""
    here = proved.wait("state to client that missed a round")
    empty = with_parts(here.good[0], proved.parties[SERVER])
    assert here.handle(empty) == b"" and here.keeper.round == 0
    here.finish()
    assert here.handle(here.good[0]) == b"" and here.keeper.round == 1


def test_a_model_that_nobody_vouches_for_is_not_held(proved: Proved) -> None:
    here = proved.wait("state to client that missed many")
    before = here.keeper.model
    for content in (b"", b"model", msgpack.packb([b"", b"", {}]), HUGE):
        state = with_parts(here.good[0], proved.parties[SERVER], b"model", content)
        assert here.handle(state) == b""
        with pytest.raises(MessageRefused, match="than the one that this client has stepped to"):
            proved_train(here)
        assert here.keeper.model is before
    here.finish()


def test_a_train_that_is_refused_leaves_what_the_client_was_told_before(proved: Proved) -> None:
    """The model that waits for the key holder's word, and from which seed it draws; whatever is
    wrong with the key."""
    here = proved.wait("state to client that missed many")
    here.handle(here.good[0])
    good = proved.next.train
    inner, model = parts_of(good)
    public, announced = parts_of(inner)
    lie = msgpack.packb([NAMES, model, ZERO])
    for content, other in ((lie, ZERO), (lie, model), (announced, ZERO)):
        for sealed in (public, public[:-1]):
            named = {"key_id": key_id_of(sealed)}
            made = with_parts(inner, proved.parties[KEYHOLDER], sealed, content, **named)
            train = with_parts(good, proved.parties[SERVER], made, other, **named)
            if (sealed, other) != (public, model):
                assert offered(here.after[0][1], train) is not None
    here.finish()


def proved_train(here: Waiting) -> object:
    """What comes after a State."""
    [(_, handle, train)] = here.after
    return handle(train)


def test_a_tally_of_the_sum_is_what_a_server_can_check(proved: Proved) -> None:
    """The control: what the witness signs is a hash of what the server sends."""
    *total, manifest, tally = parts_of(proved.said.aggregate)
    roster, summed, names = honest_tally(parts_of(tally)[0])
    assert (summed, names) == (sum_digest(total), tuple(ORDER))
    assert roster == digest(parts_of(proved.said.roster)[0])
    assert len(Aggregate.envelopes(manifest, 9)) == len(ORDER)
    assert opened(tally)[1]["kind"] == Tally.kind
