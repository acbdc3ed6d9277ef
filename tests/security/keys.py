"""The keys of the attempt that a cast has open: who forges ciphertexts, or looks for a key, is
given them here, and nowhere else does a key leave its key holder."""

from __future__ import annotations

from concurrent.futures import Future
from copy import copy

from hyperlock.encryption.scheme import KeyPair
from hyperlock.parties.keyholder import Attempt, KeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.model import ModelKeeper
from tests.parties.cast import Cast


def known_keys(cast: Cast) -> KeyPair:
    """Have another key holder open the attempt, under keys that are told."""
    keys = cast.scheme.generate_keys()
    made = Future[KeyPair]()
    made.set_result(keys)
    cast.keyholder = cast.another_keyholder()
    cast.keyholder._next = made
    cast.open(*cast.at)
    return keys


def in_the_attempt(cast: Cast, keys: KeyPair) -> KeyHolder:
    """A key holder that has opened the attempt under these keys, and released nothing."""
    keyholder = cast.another_keyholder(Ledger())
    session = keyholder._session.at(*cast.at).under(keys.public)
    keyholder._attempt = Attempt(session, cast.scheme.decryptor(keys.secret))
    keyholder._memory.seen = cast.at
    return keyholder


def begun_again(cast: Cast, keys: KeyPair) -> Cast:
    """The same parties in the same attempt, before anything was sent in it."""
    fresh = copy(cast)
    fresh.keeper = ModelKeeper(cast.keeper.model)
    fresh.ledger = Ledger()
    fresh.keyholder = in_the_attempt(fresh, keys)
    fresh.server = fresh.another_server(fresh.keeper)
    return fresh
