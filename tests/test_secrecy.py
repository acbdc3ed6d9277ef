"""Who can read what: nothing that the server holds leads to a secret key, and what it receives it
cannot read."""

from __future__ import annotations

import gc
import logging
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hyperlock.encryption import ckks as ckks_module
from hyperlock.encryption.ciphertexts import SeededEncryptor, public_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.scheme import KeyPair
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.custody import DecryptingServer
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.messages import Update
from hyperlock.parties.server import Server

OVERRIDES = ("federation.rounds=1",)


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


@pytest.fixture(scope="module")
def custody(federate: Callable) -> Callable[[str], tuple[Any, bytes, list[bytes]]]:
    """A federation after a round, the secret key that its key holder made, and what its server
    received."""
    known: dict[str, tuple[Any, bytes, list[bytes]]] = {}

    def custody(name: str) -> tuple[Any, bytes, list[bytes]]:
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
                federation = federate(*OVERRIDES, f"keys={name}").play()
            (pair,) = pairs
            known[name] = federation, pair.secret, updates
        return known[name]

    return custody


@pytest.mark.parametrize("name", ["authority", "clients"])
def test_nothing_that_the_server_holds_leads_to_a_secret_key(custody: Callable, name: str) -> None:
    federation, secret, _ = custody(name)
    server = federation.parties.server
    assert type(server) is Server
    assert secrets(server, secret) == []


def test_a_server_that_decrypts_is_found_out(custody: Callable) -> None:
    federation, secret, _ = custody("server")
    server = federation.parties.server
    assert type(server) is DecryptingServer
    assert {"KeyHolder", "PackedDecryptor", "Decryptor"} <= set(secrets(server, secret))


def test_the_search_goes_through_the_server_and_not_past_it(custody: Callable) -> None:
    """It sees the model, the contexts, the caches of the module that loads them; else finding
    nothing means nothing."""
    from hyperlock.encryption._tenseal import tenseal as ts

    federation, _, _ = custody("authority")
    server = federation.parties.server
    server.open(2, federation.parties.clients)
    things = {id(thing): thing for thing in reachable(server)}
    assert id(server.keeper.model.weights) in things
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

    federation, secret, _ = custody("authority")
    server = federation.parties.server
    planted = {
        "key holder": lambda: KeyHolder(server._session, min_clients=3, rounds=1),
        "decryptor": lambda: ckks.decryptor(secret),
        "key pair": lambda: KeyPair(public=b"", secret=b""),
        "context": lambda: ts.context_from(secret),
        "bytes": lambda: b"before" + secret,
    }[kind]()
    server.planted = PLANTED[place](planted)
    try:
        assert secrets(server, secret)
    finally:
        del server.planted
    assert secrets(server, secret) == []


def test_the_search_finds_what_a_module_keeps(
    custody: Callable, ckks: Ckks, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, secret, _ = custody("authority")
    monkeypatch.setattr(ckks_module, "_kept", [ckks.decryptor(secret)], raising=False)
    assert secrets(federation.parties.server, secret)


def read(federation: Any, update: bytes) -> Update:
    return Update.decode(
        update, federation.parties.server._session.identity, max_parts=9, max_part_bytes=2**20
    )


def chunks(federation: Any, update: bytes) -> list[bytes]:
    return [bytes(part) for part in read(federation, update).parts]


@pytest.mark.parametrize("name", ["authority", "clients"])
def test_what_the_server_receives_does_not_decrypt_with_what_it_holds(
    custody: Callable, name: str
) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    public_context.cache_clear()  # an earlier test's, of another ring, could not even read them
    federation, secret, updates = custody(name)
    assert len(updates) == 4
    federation.parties.server.open(9, federation.parties.clients)
    contexts = [t for t in reachable(federation.parties.server) if isinstance(t, ts.Context)]
    assert contexts
    for context in contexts:
        for update in updates:
            assert chunks(federation, update)
            with pytest.raises(ValueError, match="Secret key"):
                context.secret_key()
    # With the key they do: these are the updates.
    message = read(federation, updates[0])
    scheme = federation.parties.server._session.scheme
    accumulator = scheme.accumulator(federation.parties.server._public, message.length)
    accumulator.add(message.parts)
    vector = scheme.decryptor(secret).decrypt(accumulator.total(), message.length)
    assert vector[0] == 1 and np.abs(vector).max() <= 127 and np.count_nonzero(vector) > 100


def federation_update(federation: Any) -> bytes:
    parties = federation.parties
    request = parties.server.open(9, parties.clients)
    ((_, update),) = parties.runtime.exchange({"client-0": request})
    return update


def test_without_encryption_the_server_reads_every_update(federate: Callable) -> None:
    """The control: the same look at the same messages."""
    federation = federate(*OVERRIDES, "encryption=none")
    vector = np.frombuffer(b"".join(read(federation, federation_update(federation)).parts), np.int8)
    assert vector[0] == 1 and np.count_nonzero(vector) > 100


def test_under_clients_the_server_never_sees_the_model(custody: Callable) -> None:
    federation, _, _ = custody("clients")
    server = federation.parties.server
    model = federation.parties.keeper.model
    assert server.keeper is None
    weights = model.weights.tobytes()
    for thing in reachable(server):
        assert thing is not model and thing is not federation.parties.keeper
        assert not (isinstance(thing, np.ndarray) and thing.size == model.weights.size)
        assert not (isinstance(thing, bytes) and weights[:64] in thing)
    # The server's own model, under authority, is found by the same look.
    other, _, _ = custody("authority")
    assert any(thing is other.parties.keeper for thing in reachable(other.parties.server))


@pytest.mark.parametrize("name", ["authority", "server"])
def test_clients_without_the_key_do_not_lead_to_it(custody: Callable, name: str) -> None:
    federation, secret, _ = custody(name)
    for client in federation.parties.clients:
        assert secrets(federation.parties.runtime._handlers[client], secret) == []


def test_clients_that_share_the_key_lead_to_it(custody: Callable) -> None:
    federation, secret, _ = custody("clients")
    handlers = federation.parties.runtime._handlers
    assert set(handlers) == set(federation.parties.clients)
    assert "KeyHolder" in secrets(handlers["client-0"], secret)


def test_the_key_holder_sees_neither_model_nor_data(custody: Callable) -> None:
    federation, _, _ = custody("authority")
    keyholder = federation.parties.runtime._handlers["keyholder"]
    assert any(isinstance(thing, KeyHolder) for thing in reachable(keyholder))
    for thing in reachable(keyholder):
        assert thing is not federation.parties.keeper and thing is not federation.dataset
        assert not isinstance(thing, Client | Server)
        assert not (isinstance(thing, np.ndarray) and thing.size >= 650)


def test_no_message_of_a_round_holds_the_secret_key(custody: Callable) -> None:
    federation, secret, updates = custody("authority")
    parties = federation.parties
    sent = [parties.public_key, parties.server.open(9, parties.clients), *updates]
    assert not any(secret[200:264] in data for data in sent)
    assert secret[200:264] in secret
