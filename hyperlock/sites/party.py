"""One party across organisations: it waits for an Invite, and is then what its folder says it is.

A site accepts what is within its limits, or what a person there has approved; all parties refuse
what they cannot build. What must outlive a restart is kept in the run's folder, so that a party
that comes back takes part again and answers nothing twice.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.data import datasets
from hyperlock.errors import ConfigError, HyperLockError, MessageRefused
from hyperlock.experiment import simulation
from hyperlock.experiment.private import Guarantee, build_guarantee
from hyperlock.learning.types import Evaluator, LocalData
from hyperlock.monitor import Monitor
from hyperlock.parties.client import Client
from hyperlock.parties.identity import KEYHOLDER, WITNESS
from hyperlock.parties.memory import Memory
from hyperlock.parties.messages import Accept, Invite, kind_of, run_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.session import Session
from hyperlock.parties.spool import Spool
from hyperlock.parties.witness import Witness
from hyperlock.runtime.bundle import answered
from hyperlock.settings.schema import Config
from hyperlock.sites import site as site_file
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import SITE
from hyperlock.sites.offer import MOST_BYTES, Offer
from hyperlock.sites.shared import build_client as build_sharing_client
from hyperlock.sites.shared import sites_share

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

log = logging.getLogger(__name__)

_MOST_WEIGHTS = 2**31  # bytes of a model that a party without limits of its own reads
_ROUND_BYTES = 8


class NotHere(MessageRefused):
    """A message of a run that this party is not in, as after a restart: it may be invited again."""


@dataclass(frozen=True)
class Joined:
    """A run that a party is in.

    Attributes:
        run: its id.
        offer: SHA-256 of the Invite's payload.
        session: the party's voice there.
        role: what answers.
        keeper: of its copy of the model; None for who has none.
    """

    run: str
    offer: bytes
    session: Session
    role: Callable[[bytes], bytes]
    keeper: ModelKeeper | None


class Party:
    """Whoever lives in this folder.

    Args:
        folder: its own.
        today: the date.

    Raises:
        HyperLockError: its keys, its kit, its file or its data are not as they must be.
    """

    def __init__(
        self, folder: Folder, today: Callable[[], datetime.date] = datetime.date.today
    ) -> None:
        self._folder = folder
        self._signer = folder.signer()
        self._today = today
        self._joined: Joined | None = None
        self._site: site_file.Site | None = None
        self._data: LocalData | None = None
        self._tests: LocalData | None = None
        if folder.public.role == SITE:
            self._site = site_file.read(folder.path / "site.yaml")
            self._data, self._tests = self._own_samples(self._site.data)

    @property
    def name(self) -> str:
        """The party's."""
        return self._folder.name

    def handle(self, data: bytes) -> bytes:
        """Answer a message, or a bundle of them, and note what came and went.

        Raises:
            NotHere: it is of a run that this party is not in.
            HyperLockError: it is refused; the text says why.
        """
        return answered(self._answer, data)

    def _answer(self, data: bytes) -> bytes:
        if kind_of(data) == Invite.kind:
            answer = self._join(data)
        else:
            here = self._joined
            if here is None or run_of(data) != here.run:
                raise NotHere(f"{self.name} takes part in no such run")
            answer = here.role(data)
        self._note(data, answer)
        return answer

    def _join(self, data: bytes) -> bytes:
        """The Accept of an Invite; a second one of the same run changes nothing."""
        # What arrived: signed by the server of this project, for a run that it names.
        identity = self._signer.join(run_of(data))
        most = _MOST_WEIGHTS if self._site is None else 4 * self._site.limits.parameters
        invite = Invite.decode(data, identity, max_parts=2, max_part_bytes=max(most, MOST_BYTES))
        if len(invite.parts) != 2 or len(invite.parts[0]) > MOST_BYTES:
            raise MessageRefused("an Invite without an offer and weights")
        here = self._joined
        if here is not None and (here.run, here.offer) == (identity.run, invite.digest):
            known = here.session
            invite.expect(fingerprint=known.scheme.fingerprint, terms=known.terms.digest)
            return self._accept(here)

        # What it offers, and whether this party agrees.
        offer = Offer.read(invite.parts[0])
        functions = () if self._site is None else self._site.functions
        config = offer.config(len(self._folder.kit.sites), functions)
        self._consent(offer, config)

        # The party that it asks for.
        guarantee = _promised(config, offer)
        scheme = simulation.build_scheme(config, offer.sizes, guarantee)
        terms = simulation.build_terms(config, offer.weight_unit, offer.initial, guarantee)
        invite.expect(fingerprint=scheme.fingerprint, terms=terms.digest)
        vector = simulation.build_vector(config, offer.sizes, guarantee)
        if not config.trust.malicious:
            identity = identity.without(WITNESS)
        session = Session(identity, scheme, vector, terms, Monitor())
        weights = _weights(invite.parts[1], offer)
        for samples in (self._data, self._tests):
            if samples is not None:
                _refuse_other_samples(samples, offer)
        if self._data is not None and self._tests is None and config.clients_evaluate:
            raise MessageRefused(
                f"the run is evaluated by its sites, and {self.name} has no x_test and y_test"
            )
        offer.refuse_larger(config)
        self._joined = self._build(session, config, offer, weights, invite.digest, guarantee)
        log.info(
            "%s joined run %s, offer %s: %s", self.name, identity.run, offer.fingerprint,
            _in_words(offer, config),
        )  # fmt: skip
        return self._accept(self._joined)

    def _accept(self, joined: Joined) -> bytes:
        """That it takes part, and how far its model is."""
        reached = 0 if joined.keeper is None else joined.keeper.round
        parts = (joined.offer, reached.to_bytes(_ROUND_BYTES, "little"))
        return joined.session.write(Accept, parts)

    def _consent(self, offer: Offer, config: Config) -> None:
        """MessageRefused unless a site's limits allow it, or a person there does."""
        if self._site is None or offer.fingerprint in self._folder.approved:
            return
        differences = offer.outside(config, self._site.limits, self._today())
        if differences:
            text = "; ".join(differences)
            log.warning(
                "refused offer %s: %s\n  try: python -m hyperlock.sites approve %s %s, if that is "
                "what you want",
                offer.fingerprint, text, self._folder.path, offer.fingerprint,
            )  # fmt: skip
            raise MessageRefused(f"offer {offer.fingerprint} is outside the limits of {self.name}")

    def _build(
        self,
        session: Session,
        config: Config,
        offer: Offer,
        weights: NDArray[np.float32],
        digest: bytes,
        guarantee: Guarantee | None,
    ) -> Joined:
        """The party in this run."""
        made = partial(Joined, session.identity.run, digest, session)
        folder = self._folder.run(session.identity.run)
        if self._folder.public.role == WITNESS:
            return made(Witness(session).handle, None)

        # Who steps the model, and who trains it, has it.
        sharing = sites_share(config)
        if sharing and self._folder.public.role == KEYHOLDER:
            raise MessageRefused("keys=clients: the sites have the key, and there is no key holder")
        network = _network(config, offer)
        algorithm = simulation.build_algorithm(config, network)
        steps = config.trust.malicious or sharing
        keeper = simulation.build_keeper(
            config=config,
            weights=weights,
            sizes=offer.sizes,
            algorithm=algorithm,
            terms=session.terms,
            guarantee=guarantee,
            file=folder / "model" if steps else None,
        )
        if self._folder.public.role == KEYHOLDER:
            keyholder = simulation.build_keyholder(
                config=config,
                session=session,
                keeper=keeper,
                guarantee=guarantee,
                folder=folder / "released",
                seed=secrets.randbits(63),
                memory=Memory(folder / "opened"),
            )
            return made(keyholder.handle, keeper)
        assert self._data is not None, "a site has samples"
        given: dict[str, Any] = {
            "config": config,
            "session": session,
            "index": self._folder.kit.sites.index(self.name),
            "data": self._data,
            "trainer": algorithm.trainer,
            "keeper": keeper,
            "evaluator": self._evaluator(config, network),
            "guarantee": guarantee,
            "memory": Memory(folder / "answered"),
        }
        client: Client = (
            build_sharing_client(**given, folder=self._folder, offer=digest)
            if sharing
            else simulation.build_client(**given, spool=Spool())
        )
        return made(client.handle, keeper if steps else None)

    def _evaluator(self, config: Config, network: Network) -> Evaluator | None:
        """How the site evaluates the model, in a run that its sites evaluate."""
        if self._tests is None or not config.clients_evaluate:
            return None
        return simulation.build_evaluator(config, network, self._tests)

    def _own_samples(self, path: Path) -> tuple[LocalData, LocalData | None]:
        """The site's, as many as it is enrolled with, and those to test on."""
        samples, tests = datasets.local(path)
        least, most = self._folder.public.samples
        found = len(samples[1])
        if not least <= found <= most:
            raise HyperLockError(
                f"{path}: {found} samples, and {self.name} said {least} to {most} when it was "
                "made: sums with it would be refused\n"
                "  try: `init` anew with --samples, and a new kit for everybody"
            )
        if tests is not None and len(tests[1]) > most:
            raise HyperLockError(
                f"{path}: {len(tests[1])} test samples, and {self.name} said that it has up to "
                f"{most} samples\n  try: fewer in x_test and y_test"
            )
        return LocalData(*samples), None if tests is None else LocalData(*tests)

    def _note(self, data: bytes, answer: bytes) -> None:
        """A line in the party's log: kinds, bytes and digests, never what is in them."""
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "run": run_of(data),
            "received": _about(data),
            "sent": _about(answer) if answer else None,
        }
        with open(self._folder.path / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def _promised(config: Config, offer: Offer) -> Guarantee | None:
    """What the offer promises under privacy, by this party's own accounting; MessageRefused if it
    costs more than it says."""
    try:
        return build_guarantee(config, sum(offer.sizes), offer.weight_unit)
    except ConfigError as error:
        raise MessageRefused(f"the offer's privacy does not hold: {error}") from None


def _network(config: Config, offer: Offer) -> Network:
    """The model; its tensors must be of the offer's sizes."""
    network = simulation.build_network(config, offer.samples)
    if network.sizes != offer.sizes:
        raise MessageRefused(
            "the model has other tensors here than at the coordinator: another function of the "
            "same name, or another version of Keras"
        )
    return network


def _weights(part: bytes | memoryview, offer: Offer) -> NDArray[np.float32]:
    """The initial weights, float32[parameters], those of the offer."""
    if len(part) != 4 * sum(offer.sizes):
        raise MessageRefused("initial weights of another size than the offer's")
    weights = np.frombuffer(part, "<f4")
    if simulation.weights_digest(weights) != offer.initial or not np.isfinite(weights).all():
        raise MessageRefused("other initial weights than the offer names")
    return weights


def _refuse_other_samples(data: LocalData, offer: Offer) -> None:
    """MessageRefused if a site's samples are not what the run's model takes."""
    due = offer.samples
    if data.x.shape[1:] != due.shape or data.x.dtype != due.dtype:
        raise MessageRefused(
            f"the run is on {due.dtype}{list(due.shape)} samples, and the site's are "
            f"{data.x.dtype}{list(data.x.shape[1:])}"
        )
    if data.y.max() >= due.classes:
        raise MessageRefused(f"the run has {due.classes} classes, and the site more")


def _in_words(offer: Offer, config: Config) -> str:
    """What was agreed to, for the log."""
    return (
        f"{sum(offer.sizes)} parameters, {config.federation.rounds} rounds of "
        f"{config.federation.algorithm}, encryption={config.encryption.scheme}, "
        f"keys={config.keys.custody}, trust={config.trust.level}, "
        f"sums of at least {config.keys.min_clients}, evaluated by: {config.runtime.evaluation}"
    )


def _about(data: bytes) -> dict[str, object]:
    return {
        "kind": kind_of(data),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
