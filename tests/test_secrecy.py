"""Who can read what: nothing that the server holds leads to a secret key, and what it receives it
cannot read."""

from __future__ import annotations

import gc
import itertools
import logging
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hyperlock.encryption import ckks as ckks_module
from hyperlock.encryption.ciphertexts import SeededEncryptor, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import CiphertextRefused
from hyperlock.experiment.rounds import play_round
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.custody import DecryptingServer
from hyperlock.parties.keyholder import KeyHolder, Policy
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import Update
from hyperlock.parties.server import Server
from hyperlock.parties.verified_server import VerifiedServer

OVERRIDES = ("federation.rounds=9", "federation.round_attempts=99")  # of which one is played
ATTEMPTS: dict[int, Iterator[int]] = {}  # of a second round, by federation, in order


def ours(module: str | None) -> bool:
    return (module or "").split(".")[0] == "hyperlock"


def children(thing: object) -> list[object]:
    """Whatever the code that holds `thing` could reach from it in one step.

    Attributes, containers, closures, defaults, caches, bound objects; of modules and classes only
    HyperLock's own, and no loggers: through others everything in a process hangs together.
    """
    if isinstance(thing, types.ModuleType):
        return list(vars(thing).values()) if ours(thing.__name__) else []
    if isinstance(thing, type):
        return list(vars(thing).values()) if ours(thing.__module__) else []
    if isinstance(thing, types.FunctionType):
        cells = list(thing.__closure__ or ())
        own = [thing.__globals__] if ours(thing.__module__) else []
        return [*cells, thing.__defaults__, thing.__kwdefaults__, vars(thing), *own]
    if isinstance(thing, logging.Logger | logging.Handler):
        return []
    return gc.get_referents(thing)


def reachable(root: object) -> Iterator[object]:
    """Every object that can be reached from `root`, itself included."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        yield thing
        waiting += children(thing)


def secrets(root: object, *known: bytes) -> list[str]:
    """What can be reached from `root` and decrypts: names of types, or of the secret bytes in
    `known`."""
    from hyperlock.encryption._tenseal import sealapi
    from hyperlock.encryption._tenseal import tenseal as ts

    keyed = (KeyHolder, KeyPair, SeededEncryptor, sealapi.Decryptor, sealapi.SecretKey)
    found = []
    for thing in reachable(root):
        decrypts = ours(type(thing).__module__) and hasattr(thing, "decrypt")
        if (
            decrypts
            or isinstance(thing, keyed)
            or (
                isinstance(thing, ts.Context | ts._ts_cpp.TenSEALContext) and thing.has_secret_key()
            )
        ):
            found.append(type(thing).__name__)
        if isinstance(thing, bytes | bytearray) and any(secret in thing for secret in known):
            found.append("secret bytes")
    return found


@dataclass(frozen=True)
class Played:
    """A federation after a round.

    Attributes:
        federation: as it is then.
        pairs: all keys that its key holder made: that of the round first, then, unless it is one
            for the run, that of the next.
        updates: what its server received.
    """

    federation: Any
    pairs: list[KeyPair]
    updates: list[bytes]

    @property
    def server(self) -> Server:
        return self.federation.parties.server

    @property
    def secrets(self) -> list[bytes]:
        return [pair.secret for pair in self.pairs]


def opened(federation: Any) -> tuple[bytes, bytes]:
    """The PublicKey and the Train message of another attempt."""
    parties = federation.parties
    attempts = ATTEMPTS.setdefault(id(federation), itertools.count(1))
    begun = parties.server.begin(2, next(attempts))
    key = parties.custody.open(begun, replica=parties.replica, runtime=parties.runtime)
    return key, parties.server.open(key, parties.clients)


@pytest.fixture(scope="module")
def custody(federate: Callable) -> Callable[[str], Played]:
    """A federation after a round, by who holds the key; or at trust=malicious."""
    known: dict[str, Played] = {}

    def custody(name: str) -> Played:
        if name not in known:
            pairs: list[KeyPair] = []
            updates: list[bytes] = []
            with pytest.MonkeyPatch.context() as patch:
                generate = Ckks.generate_keys
                receive = Server.receive
                patch.setattr(
                    Ckks, "generate_keys", lambda self: pairs.append(generate(self)) or pairs[-1]
                )
                patch.setattr(
                    Server,
                    "receive",
                    lambda self, data: updates.append(data) or receive(self, data),
                )
                group = "trust" if name == "malicious" else "keys"
                federation = federate(*OVERRIDES, f"{group}={name}")
                config = federation.config
                play_round(1, federation.parties, config.federation, config.seed)
                deadline = time.monotonic() + 60
                while len(pairs) < (1 if name == "clients" else 2):  # made in a thread
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            known[name] = Played(federation, list(pairs), updates)
        return known[name]

    return custody


@pytest.mark.parametrize("name", ["authority", "clients", "malicious"])
def test_nothing_that_the_server_holds_leads_to_a_secret_key(custody: Callable, name: str) -> None:
    played = custody(name)
    for _ in range(2):  # between attempts, and in one
        assert type(played.server) is (VerifiedServer if name == "malicious" else Server)
        assert secrets(played.server, *played.secrets) == []
        opened(played.federation)


def test_a_server_that_decrypts_is_found_out(custody: Callable) -> None:
    played = custody("server")
    opened(played.federation)
    assert type(played.server) is DecryptingServer
    found = set(secrets(played.server, *played.secrets))
    assert {"KeyHolder", "PackedDecryptor", "Decryptor"} <= found


def test_nothing_that_the_witness_holds_leads_to_a_secret_key(custody: Callable) -> None:
    played = custody("malicious")
    handlers = played.federation.parties.runtime._handlers
    assert secrets(handlers["witness"].__self__, *played.secrets) == []
    # The search would find one through the key holder.
    assert secrets(handlers["keyholder"].__self__, *played.secrets)


@pytest.mark.parametrize("name", ["authority", "server", "malicious"])
def test_nothing_leads_to_a_key_that_was_used(custody: Callable, name: str) -> None:
    """Not from the key holder either, nor from whoever has it; to the next key it does."""
    played = custody(name)
    keyholder = played.federation.parties.runtime._handlers["keyholder"].__self__
    used, *following = played.secrets
    assert following and isinstance(keyholder, KeyHolder)
    for holder in (keyholder, played.server, played.federation):
        assert "secret bytes" not in secrets(holder, used)
    opened(played.federation)
    found = secrets(keyholder, used)
    assert "PackedDecryptor" in found and "secret bytes" not in found


def test_the_search_goes_through_the_server_and_not_past_it(custody: Callable) -> None:
    """It sees the model, the contexts, the caches of the module that loads them; else finding
    nothing means nothing."""
    from hyperlock.encryption._tenseal import tenseal as ts

    played = custody("authority")
    opened(played.federation)
    things = {id(thing): thing for thing in reachable(played.server)}
    assert played.server.keeper is not None
    assert id(played.server.keeper.model.weights) in things
    assert id(vars(ckks_module)) in things
    assert any(isinstance(thing, ts._ts_cpp.TenSEALContext) for thing in things.values())
    assert not any(isinstance(thing, Client | Replica) for thing in things.values())


class Slotted:
    __slots__ = ("inside",)

    def __init__(self, inside: object) -> None:
        self.inside = inside


def generator_over(thing: object) -> Iterator[object]:
    yield thing
    yield thing


PLANTED: dict[str, Callable[[Any], object]] = {
    "attribute": lambda secret: secret,
    "list in a dict": lambda secret: {"a": [1, (secret,)]},
    "dict's key": lambda secret: {
        (1, id(secret)): 1,
        secret if isinstance(secret, bytes) else id: secret,
    },
    "closure": lambda secret: lambda: secret,
    "closure of a closure": lambda secret: lambda: lambda: secret,
    "default": lambda secret: lambda key=secret: key,
    "keyword default": lambda secret: lambda *, key=secret: key,
    "slot": Slotted,
    "bound method": lambda secret: Slotted(secret).__init__,
    "class attribute": lambda secret: type(
        "Holder", (), {"inside": secret, "__module__": "hyperlock.somewhere"}
    ),
    "generator": lambda secret: started(generator_over(secret)),
}


def started(generator: Iterator[object]) -> Iterator[object]:
    next(generator)
    return generator


@pytest.mark.parametrize("place", PLANTED)
@pytest.mark.parametrize("kind", ["key holder", "decryptor", "key pair", "context", "bytes"])
def test_the_search_finds_what_is_planted(
    custody: Callable, ckks: Ckks, place: str, kind: str
) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    played = custody("authority")
    server = played.server
    secret = played.secrets[0]
    planted = {
        "key holder": lambda: KeyHolder(server._session, policy=Policy(3, 1, 1), ledger=Ledger()),
        "decryptor": lambda: ckks.decryptor(secret),
        "key pair": lambda: KeyPair(public=b"", secret=b""),
        "context": lambda: ts.context_from(secret),
        "bytes": lambda: b"before" + secret,
    }[kind]()
    server.planted = PLANTED[place](planted)  # type: ignore[attr-defined]
    try:
        assert secrets(server, secret)
    finally:
        del server.planted  # type: ignore[attr-defined]
    assert secrets(server, secret) == []


def test_the_search_finds_what_a_module_keeps(
    custody: Callable, ckks: Ckks, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = custody("authority")
    secret = played.secrets[0]
    monkeypatch.setattr(ckks_module, "_kept", [ckks.decryptor(secret)], raising=False)
    assert secrets(played.server, secret)


def read(federation: Any, update: bytes) -> Update:
    return Update.decode(
        update, federation.parties.server._session.identity, max_parts=9, max_part_bytes=2**20
    )


def chunks(federation: Any, update: bytes) -> list[bytes]:
    return [bytes(part) for part in read(federation, update).parts]


@pytest.mark.parametrize("name", ["authority", "clients", "malicious"])
def test_what_the_server_receives_does_not_decrypt_with_what_it_holds(
    custody: Callable, name: str
) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    public_context.cache_clear()  # an earlier test's, of another ring, could not even read them
    played = custody(name)
    federation = played.federation
    assert len(played.updates) == 4
    opened(federation)
    contexts = [thing for thing in reachable(played.server) if isinstance(thing, ts.Context)]
    assert contexts
    for context in contexts:
        for update in played.updates:
            assert chunks(federation, update)
            with pytest.raises(ValueError, match="Secret key"):
                context.secret_key()
    # With the key of the round they do: these are the updates. With that of the next they do not.
    message = read(federation, played.updates[0])
    scheme = played.server._session.scheme
    accumulator = scheme.accumulator(played.pairs[0].public, message.length)
    accumulator.add(message.parts)
    total = list(accumulator.total())
    vector = scheme.decryptor(played.secrets[0]).decrypt(total, message.length)
    assert vector[0] == 1 and np.abs(vector).max() <= 127 and np.count_nonzero(vector) > 100
    for other in played.secrets[1:]:
        with pytest.raises(CiphertextRefused):
            scheme.decryptor(other).decrypt(total, message.length)


def federation_update(federation: Any) -> bytes:
    _, request = opened(federation)
    ((_, update),) = federation.parties.runtime.exchange({"client-0": request})
    return update


def test_without_encryption_the_server_reads_every_update(federate: Callable) -> None:
    """The control: the same look at the same messages."""
    federation = federate(*OVERRIDES, "encryption=none")
    vector = np.frombuffer(b"".join(read(federation, federation_update(federation)).parts), np.int8)
    assert vector[0] == 1 and np.count_nonzero(vector) > 100


def test_under_clients_the_server_never_sees_the_model(custody: Callable) -> None:
    played = custody("clients")
    server = played.server
    keeper = played.federation.parties.keeper
    model = keeper.model
    assert server.keeper is None
    weights = model.weights.tobytes()
    for thing in reachable(server):
        assert thing is not model and thing is not keeper
        assert not (isinstance(thing, np.ndarray) and thing.size == model.weights.size)
        assert not (isinstance(thing, bytes) and weights[:64] in thing)
    # The server's own model, under authority, is found by the same look.
    other = custody("authority")
    theirs = other.federation.parties.keeper
    assert any(thing is theirs for thing in reachable(other.server))


@pytest.mark.parametrize("name", ["authority", "server"])
def test_clients_without_the_key_do_not_lead_to_it(custody: Callable, name: str) -> None:
    played = custody(name)
    parties = played.federation.parties
    for client in parties.clients:
        assert secrets(parties.runtime._handlers[client], *played.secrets) == []


def test_clients_that_share_the_key_lead_to_it(custody: Callable) -> None:
    played = custody("clients")
    handlers = played.federation.parties.runtime._handlers
    assert set(handlers) == set(played.federation.parties.clients)
    found = secrets(handlers["client-0"], *played.secrets)
    assert {"SharedKeyHolder", "PackedDecryptor", "secret bytes"} <= set(found)


def test_the_key_holder_sees_neither_model_nor_data(custody: Callable) -> None:
    federation = custody("authority").federation
    keyholder = federation.parties.runtime._handlers["keyholder"]
    assert any(isinstance(thing, KeyHolder) for thing in reachable(keyholder))
    for thing in reachable(keyholder):
        assert thing is not federation.parties.keeper and thing is not federation.dataset
        assert not isinstance(thing, Client | Server)
        assert not (isinstance(thing, np.ndarray) and thing.size >= 650)


def test_no_message_of_a_round_holds_a_secret_key(custody: Callable) -> None:
    played = custody("authority")
    sent = [*opened(played.federation), *played.updates]
    assert len(sent) == 6
    for secret in played.secrets:
        assert not any(secret[200:264] in data for data in sent)
        assert secret[200:264] in secret
