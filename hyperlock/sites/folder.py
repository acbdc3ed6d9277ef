"""What a party has on its disk: its keys, the kit, what it agreed to, and what it must not forget.

FOLDER/              mode 0700
  signing.key        Ed25519, hexadecimal, 0600: never leaves
  node.key           the engine's, OpenSSH, 0600: never leaves (not the server's)
  box.key            X25519, hexadecimal, 0600: never leaves (a site's alone)
  public.json        to hand over
  kit.json           who is who, once the party has joined a project
  site.yaml          a site's own: its data and its limits
  approved.json      offers outside the limits that a person let through
  log.jsonl          what came and went, in bytes and digests
  runs/RUN/          what must outlive a restart
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

try:
    import fcntl
except ImportError:  # a system without locks
    fcntl = None  # type: ignore[assignment]

from hyperlock.errors import HyperLockError
from hyperlock.files import write_whole
from hyperlock.parties.identity import SERVER, Signer, sample_limits
from hyperlock.sites.kit import SITE, Kit, PublicFile, check_name
from hyperlock.sites.tls import NODE, make_node_key

_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOST_SAMPLES = 2**30 - 1
_OFFER = re.compile(r"[0-9a-f]{16,64}")
SITE_FILE = """\
# What this site puts in, and what it agrees to. Nobody else reads this file.
dataset:
  path: ???                  # absolute, a .npz file with x and y (or x_train and y_train);
                             # x_test and y_test where the sites evaluate

# An Invite outside these is refused and shown; `python -m hyperlock.sites approve` lets one pass.
limits:
  models: [mlp, logistic, 2nn, cnn]     # HyperLock's own, by name
  encryption: [bfv, ckks]               # none would send updates in the clear
  keys: [authority]                     # clients: sites share a key, and could read each other
  trust: malicious                      # curious: the server is trusted to follow the protocol
  parameters: 10000000                  # at most
  rounds: 100                           # at most
  local_epochs: 10                      # at most, or batches of local_steps
  min_clients: 3                        # at least so many updates in every sum
  colluders: 1                          # at least so many sites may work together and learn nothing
  epsilon: null                         # a number: only runs that are private within it
  until: null                           # a date such as 2027-06-30, after which nothing is joined

functions: []                # your own that an Invite may name, such as my_package.models.net
"""


@dataclass(frozen=True)
class Folder:
    """A party's.

    Attributes:
        path: where.
    """

    path: Path

    @classmethod
    def make(cls, path: Path, role: str, name: str, samples: int) -> Folder:
        """A new party, with new keys.

        Args:
            path: of the folder; it may be there, and empty.
            role: one of `kit.ROLES`.
            name: of a site; "" for others, which have their role's.
            samples: about how many a site has; told to within a power of two.

        Raises:
            HyperLockError: there is a party already, or it would be none.
        """
        # One that nobody has, and that nobody else can look into.
        check_name(role, name or role, path)
        if role == SITE and not 1 <= samples <= MOST_SAMPLES:
            raise HyperLockError(f"{samples} samples\n  allowed: 1 to {MOST_SAMPLES} of a site")
        if (path / "signing.key").exists():
            raise HyperLockError(
                f"{path}: a party lives there already, and its keys would be lost\n"
                "  try: another folder"
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise HyperLockError(
                    f"{path}: there is something else in it, and a party's folder is its own\n"
                    "  try: another folder, or an empty one"
                )
            path.chmod(0o700)
        except OSError as error:
            raise HyperLockError(f"{path}: cannot be made ({error.strerror})") from None

        # Keys, and what is public of them.
        signing = Ed25519PrivateKey.generate()
        node = ""
        if role != SERVER:
            make_node_key(path)
            node = (path / NODE).read_text().strip()
        box = ""
        if role == SITE:
            reading = X25519PrivateKey.generate()
            write_whole(path / "box.key", reading.private_bytes_raw().hex().encode())
            box = reading.public_key().public_bytes_raw().hex()
        public = PublicFile.of(
            {
                "name": name or role,
                "role": role,
                "signing": signing.public_key().public_bytes_raw().hex(),
                "node": node,
                "box": box,
                "samples": sample_limits(samples) if role == SITE else (0, 0),
            },
            path,
        )
        write_whole(path / "public.json", public.write(signing).encode())
        if role == SITE:
            write_whole(path / "site.yaml", SITE_FILE.encode())
        write_whole(path / "signing.key", signing.private_bytes_raw().hex().encode())
        return cls(path)

    @cached_property
    def public(self) -> PublicFile:
        """What the party hands over.

        Raises:
            HyperLockError: no party lives here, or its file was altered.
        """
        path = self.path / "public.json"
        if not path.exists():
            raise HyperLockError(
                f"{self.path}: no party lives there\n"
                "  try: its own folder, or python -m hyperlock.sites init FOLDER for a new party"
            )
        return PublicFile.read(path)

    @property
    def name(self) -> str:
        """The party's."""
        return self.public.name

    @cached_property
    def kit(self) -> Kit:
        """The project's, in which the party is what it is here.

        Raises:
            HyperLockError: it has joined none, or one that has others in its place.
        """
        path = self.path / "kit.json"
        if self.public and not path.exists():
            raise HyperLockError(
                f"{self.path}: in no project yet\n"
                f"  try: python -m hyperlock.sites join {self.path} KIT, with the coordinator's kit"
            )
        return self._ours(Kit.read(path), path)

    def join(self, path: Path) -> Kit:
        """Take a project's kit; HyperLockError if the party is not in it as it is here.

        It takes the place of an older one.
        """
        kit = self._ours(Kit.read(path), path)
        write_whole(self.path / "kit.json", kit.write().encode())
        return kit

    def signer(self) -> Signer:
        """The party's voice.

        Raises:
            HyperLockError: its key is missing, another's, or others can read it.
        """
        key = Ed25519PrivateKey.from_private_bytes(self._secret("signing.key"))
        kit = self.kit
        if key.public_key().public_bytes_raw() != kit.enrolled[self.name]:
            raise HyperLockError(
                f"{self.path}/signing.key: not the key that public.json names\n"
                "  try: both files as one `init` made them"
            )
        return Signer(self.name, kit.enrolled, kit.limits, key)

    def box_key(self) -> X25519PrivateKey:
        """What opens that which is sealed for a site.

        Raises:
            HyperLockError: it is missing, another's, or others can read it.
        """
        key = X25519PrivateKey.from_private_bytes(self._secret("box.key"))
        if key.public_key().public_bytes_raw().hex() != self.public.box:
            raise HyperLockError(
                f"{self.path}/box.key: not the key that public.json names\n"
                "  try: both files as one `init` made them"
            )
        return key

    def run(self, run: str) -> Path:
        """Where what must outlive a restart is kept of a run; is made if it is not there."""
        if not _RUN.fullmatch(run):
            raise HyperLockError(f"{run!r:.80} is no run's id")
        path = self.path / "runs" / run
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def approved(self) -> list[str]:
        """Fingerprints of offers that a person let through."""
        path = self.path / "approved.json"
        if not path.exists():
            return []
        try:
            return [str(fingerprint) for fingerprint in json.loads(path.read_text())]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise HyperLockError(
                f"{path}: cannot be read ({error})\n"
                "  try: remove it, and approve again what is to be let through"
            ) from None

    def approve(self, fingerprint: str) -> None:
        """Let this offer through; HyperLockError if it is no offer's fingerprint, or no site's."""
        if self.public.role != SITE:
            raise HyperLockError(f"{self.path}: a {self.public.role} has no limits to go beyond")
        if not _OFFER.fullmatch(fingerprint):
            raise HyperLockError(
                f"{fingerprint!r:.80} is no fingerprint of an offer\n"
                "  try: the digits that the refusal named, in this party's log"
            )
        content = json.dumps(sorted({*self.approved, fingerprint}))
        write_whole(self.path / "approved.json", content.encode())

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the block, no other process is this party; however a process ends, it holds no more.

        Raises:
            HyperLockError: another one is.
        """
        path = self.path / ".lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HyperLockError(
                    f"{self.path}: another process is this party already\n"
                    "  try: let it serve, or end it first"
                ) from None
            yield
        finally:
            os.close(handle)

    def _ours(self, kit: Kit, path: Path) -> Kit:
        mine = self.public
        if kit.parties.get(mine.name) != mine:
            raise HyperLockError(
                f"{path}: project {kit.project!r} does not have {mine.name!r} with this party's "
                "keys: it is the kit of another project, or was made of an older public.json\n"
                f"  try: the right kit; or a new one, of {self.path / 'public.json'}"
            )
        return kit

    def _secret(self, name: str) -> bytes:
        """A key of 32 bytes that nobody else can read."""
        path = self.path / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes().strip()
        except FileNotFoundError:
            raise HyperLockError(
                f"{path}: the party's key is not there\n"
                "  try: the folder as `init` made it; or `init` anew, and a new kit for everybody"
            ) from None
        except OSError as error:
            raise HyperLockError(f"{path}: cannot be read ({error.strerror})") from None
        if mode & 0o077 and os.name == "posix":
            raise HyperLockError(
                f"{path}: others can read it (mode {mode:04o})\n  try: chmod 600 {path}; and, if "
                "others have been on this machine, `init` anew"
            )
        try:
            key = bytes.fromhex(content.decode())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise HyperLockError(
                f"{path}: what is in it is no key\n"
                "  try: the file as `init` made it; or `init` anew, and a new kit for everybody"
            )
        return key
