"""What all parties of a project know of each other: one file, of public things only.

A party hands over its public file, signed by itself. The kit holds all of them, and where they
meet; everybody has the same one, so that one fingerprint, compared by telephone, says that nobody
was swapped on the way.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from hyperlock.errors import HyperLockError
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS

VERSION = 2  # since sites have keys to which a run's key is sealed (keys=clients)
SITE = "site"
ROLES = (SITE, KEYHOLDER, WITNESS, SERVER)
MOST_PARTIES = 10_000
MOST_BYTES = 2**24
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_DOMAIN = b"hyperlock public file\0"
_HEX_KEY = re.compile(r"[0-9a-f]{64}")
_NODE_KEY = re.compile(r"ecdsa-sha2-nistp256 [A-Za-z0-9+/=]{1,400}")
_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
_DIGITS = 60
_MOST_PROJECT = 80
_MOST_CA = 2**16


@dataclass(frozen=True)
class PublicFile:
    """What a party hands over.

    Attributes:
        name: as a party; a role other than a site's has the role's name.
        role: one of `ROLES`.
        signing: its Ed25519 key, 32 bytes in hexadecimal.
        node: the key by which its node joins the engine, OpenSSH; "" for the server.
        box: the key to which others seal what it alone may read, X25519, 32 bytes in hexadecimal;
            "" for all but sites.
        samples: the fewest and the most that a site says it has; (0, 0) for others.
    """

    name: str
    role: str
    signing: str
    node: str = ""
    box: str = ""
    samples: tuple[int, int] = (0, 0)

    @property
    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "role": self.role,
            "signing": self.signing,
            "node": self.node,
            "box": self.box,
            "samples": list(self.samples),
        }

    def write(self, key: Ed25519PrivateKey) -> str:
        """The file, signed by its party: who hands it over has the key."""
        signature = key.sign(_DOMAIN + _canonical(self.content)).hex()
        return json.dumps({"hyperlock": VERSION, **self.content, "signature": signature}, indent=2)

    @classmethod
    def read(cls, path: Path) -> PublicFile:
        """A party's file.

        Raises:
            HyperLockError: it is none, or was altered.
        """
        content = _json(path)
        found = cls.of(content, path)
        try:
            signature = bytes.fromhex(str(content.get("signature")))
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.signing))
            key.verify(signature, _DOMAIN + _canonical(found.content))
        except (ValueError, InvalidSignature):
            raise HyperLockError(
                f"{path}: not signed by the party that it names: it was altered on the way\n"
                "  try: have it sent again"
            ) from None
        return found

    @classmethod
    def of(cls, content: Mapping[str, Any], where: object) -> PublicFile:
        """Out of JSON; HyperLockError says what of it is not as it must be."""
        try:
            least, most = content["samples"]
            found = cls(
                name=content["name"],
                role=content["role"],
                signing=content["signing"],
                node=content["node"],
                box=content["box"],
                samples=(least, most),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HyperLockError(f"{where}: not a party's public file ({error})") from None
        _check(found, where)
        return found


@dataclass(frozen=True)
class Kit:
    """A project's parties, and where they meet.

    Attributes:
        project: its name.
        parties: by name.
        superlink: host and port of the engine's server.
        ca: PEM, by which its certificate is checked.
    """

    project: str
    parties: Mapping[str, PublicFile] = field(repr=False)
    superlink: str
    ca: str = field(repr=False)

    @property
    def sites(self) -> list[str]:
        """The sites' names, in order."""
        return sorted(name for name, party in self.parties.items() if party.role == SITE)

    @property
    def enrolled(self) -> dict[str, bytes]:
        """Raw signing keys, by party."""
        return {name: bytes.fromhex(party.signing) for name, party in self.parties.items()}

    @property
    def boxes(self) -> dict[str, bytes]:
        """Raw X25519 keys, by site, in order."""
        return {name: bytes.fromhex(self.parties[name].box) for name in self.sites}

    @property
    def limits(self) -> dict[str, tuple[int, int]]:
        """The fewest and the most samples, by site."""
        return {name: self.parties[name].samples for name in self.sites}

    @property
    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "project": self.project,
            "superlink": self.superlink,
            "ca": self.ca,
            "parties": [self.parties[name].content for name in sorted(self.parties)],
        }

    @property
    def fingerprint(self) -> str:
        """Of its SHA-256, 60 decimal digits in groups to be read out.

        These are 199 bits, for two kits of one fingerprint must not be found: whoever makes kits
        could name a key holder of his own in that which some parties get.
        """
        number = int.from_bytes(hashlib.sha256(_canonical(self.content)).digest())
        digits = f"{number % 10**_DIGITS:0{_DIGITS}d}"
        return " ".join(digits[i : i + 5] for i in range(0, _DIGITS, 5))

    def write(self) -> str:
        """The file."""
        return json.dumps({"hyperlock": VERSION, **self.content}, indent=2)

    @classmethod
    def read(cls, path: Path) -> Kit:
        """A project's file; HyperLockError if it is none."""
        content = _json(path)
        try:
            files = [PublicFile.of(party, path) for party in content["parties"]]
            texts = [content[key] for key in ("project", "superlink", "ca")]
        except (KeyError, TypeError) as error:
            raise HyperLockError(f"{path}: not a project's kit ({error})") from None
        if not all(type(text) is str for text in texts):
            raise HyperLockError(f"{path}: not a project's kit")
        project, superlink, ca = texts
        return make(project, superlink, ca, files, where=path)


def make(
    project: str, superlink: str, ca: str, files: Iterable[PublicFile], where: object = "provision"
) -> Kit:
    """A project of these parties.

    Raises:
        HyperLockError: a name or a key occurs twice, a role is missing, or the project's name or
            its address cannot be.
    """
    if not 1 <= len(project) <= _MOST_PROJECT or not project.isprintable():
        raise HyperLockError(
            f"{where}: {project!r:.60} is no name of a project\n"
            f"  allowed: 1 to {_MOST_PROJECT} characters that can be printed"
        )
    host_and_port(superlink, where)
    if len(ca) > _MOST_CA or not ca.isascii():
        raise HyperLockError(f"{where}: the authority's certificate is none")
    parties: dict[str, PublicFile] = {}
    for party in files:
        if party.name in parties:
            raise HyperLockError(
                f"{where}: two parties are named {party.name!r}\n"
                "  try: each public file once; or one of them runs `init` again, in another folder "
                "and with another --name"
            )
        parties[party.name] = party
    for key in ("signing", "node", "box"):
        keys = [value for value in (getattr(party, key) for party in parties.values()) if value]
        if len(set(keys)) < len(keys):
            raise HyperLockError(
                f"{where}: two parties have the same {key} key: a folder was copied\n"
                "  try: `init` in a folder of its own for each of them"
            )
    roles = [party.role for party in parties.values()]
    for role in (SERVER, KEYHOLDER):
        if role not in roles:
            raise HyperLockError(
                f"{where}: no {role} among the parties ({', '.join(sorted(parties)) or 'none'})\n"
                f"  try: the public file of `python -m hyperlock.sites init FOLDER --role {role}`"
            )
    if roles.count(SITE) < 2:
        raise HyperLockError(
            f"{where}: a project has at least two sites, and here are fewer\n"
            "  try: the public files of more sites"
        )
    if len(parties) > MOST_PARTIES:
        raise HyperLockError(f"{where}: more than {MOST_PARTIES} parties")
    return Kit(project, parties, superlink, ca)


def host_and_port(superlink: str, where: object) -> tuple[str, int]:
    """Both of HOST:PORT, an IPv6 address without its brackets; HyperLockError if it is none."""
    found = _ADDRESS.fullmatch(superlink)
    if found is None or not 0 < int(found[2]) < 2**16:
        raise HyperLockError(
            f"{where}: {superlink!r:.80} is not a host and a port\n"
            "  try: such as fl.example.org:9092, 192.0.2.7:9092 or [2001:db8::7]:9092"
        )
    return found[1].strip("[]"), int(found[2])


def _check(party: PublicFile, where: object) -> None:
    """HyperLockError unless every field is one that a party can have."""
    texts = (party.name, party.role, party.signing, party.node, party.box)
    numbers = party.samples
    if not all(type(text) is str for text in texts) or not all(type(n) is int for n in numbers):
        raise HyperLockError(f"{where}: not a party's public file")
    if party.role not in ROLES:
        raise HyperLockError(f"{where}: role {party.role!r:.40} is none of {', '.join(ROLES)}")
    check_name(party.role, party.name, where)
    alone = party.role != SITE
    node = party.node == "" if party.role == SERVER else _is_node_key(party.node)
    box = party.box == "" if alone else _is_box_key(party.box)
    if not _HEX_KEY.fullmatch(party.signing) or not node or not box:
        raise HyperLockError(f"{where}: what stands for a key of {party.name} is none")
    least, most = numbers
    if not 0 <= least <= most < 2**31 or (most == 0) != alone:
        raise HyperLockError(
            f"{where}: {party.name} has {least} to {most} samples, which cannot be"
        )


def check_name(role: str, name: str, where: object) -> None:
    """HyperLockError unless a party of this role can have this name."""
    alone = role != SITE
    if alone and name != role:
        raise HyperLockError(
            f"{where}: the {role} is named {name!r:.40}\n"
            f"  allowed: {role}; sites alone have names of their own"
        )
    if not alone and (not _NAME.fullmatch(name) or name in ROLES):
        raise HyperLockError(
            f"{where}: {name!r:.60} is no name of a site\n"
            "  allowed: lower case letters, digits and -, at most 40, and no role's name"
        )


def _is_node_key(text: str) -> bool:
    """Whether it is one, alone: what follows a key in OpenSSH's form would make two of one."""
    if not _NODE_KEY.fullmatch(text):
        return False
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, ec.EllipticCurvePublicKey)


def _is_box_key(text: str) -> bool:
    """Whether it is one, and none of the few with which everybody agrees on zeros."""
    if not _HEX_KEY.fullmatch(text):
        return False
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except ValueError:
        return False
    return True


def _json(path: Path) -> dict[str, Any]:
    """A file of one JSON object of this version."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise HyperLockError(f"{path}: not a file of HyperLock's")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise HyperLockError(f"{path}: there is no such file") from None
    except OSError as error:
        raise HyperLockError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise HyperLockError(
            f"{path}: not a file of HyperLock's ({type(error).__name__})\n"
            "  try: have it sent again, as a file"
        ) from None
    if type(content) is not dict or type(content.get("hyperlock")) is not int:
        raise HyperLockError(f"{path}: not a file of HyperLock's")
    version = content["hyperlock"]
    if version != VERSION:
        older = "; then `init` anew at every party, and a new kit" if version < VERSION else ""
        raise HyperLockError(
            f"{path}: of version {version!s:.20}, and this HyperLock reads {VERSION}\n"
            f"  try: the same version of HyperLock at all parties{older}"
        )
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
