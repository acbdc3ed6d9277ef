"""The server's side of a run across organisations: its own process, and everybody else at the other
end of a pipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ConfigError, MessageRefused
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.journal import Journal
from hyperlock.experiment.private import Guarantee, with_noise
from hyperlock.experiment.report import Report
from hyperlock.experiment.rounds import Parties
from hyperlock.experiment.run import run as play
from hyperlock.learning.types import Samples
from hyperlock.monitor import Monitor
from hyperlock.parties.custody import CUSTODIES, Custody
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS
from hyperlock.parties.messages import Accept, Invite
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.parties.sharing import SharingClients
from hyperlock.parties.sharing_server import SharingServer
from hyperlock.parties.spending import Spending
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.runtime import Pipe
from hyperlock.runtime.flower import SOCKET, FlowerRuntime
from hyperlock.runtime.invited import InvitedRuntime
from hyperlock.settings.parse import parse
from hyperlock.settings.schema import Config
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import Kit
from hyperlock.sites.offer import Offer
from hyperlock.sites.shared import build_server as build_sharing_server
from hyperlock.sites.shared import sites_share

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

log = logging.getLogger(__name__)

UNSEEN = ("accuracy", "loss", "rounds_to_target")  # what takes the model and a test set


def run(
    composed: DictConfig,
    directory: Path | None = None,
    overrides: Sequence[str] = (),
    start: Checkpoint | None = None,
) -> Report:
    """Run one experiment of several organisations, as `experiment.run.run` does one of this process
    alone; nobody else is the server of this folder meanwhile.

    Raises:
        HyperLockError: besides what a run fails by: the settings are for other parties than the
            folder's project has, or the folder is in use.
    """
    folder = own_folder(parse(composed))
    with folder.held():
        across = partial(assemble, folder=folder, pipe=flower)
        return play(composed, directory, overrides, start, across)


def flower(folder: Folder, timeout: float) -> Pipe:
    """The way from a server with this folder to everybody else."""
    return FlowerRuntime(folder.path / SOCKET, timeout)


def own_folder(config: Config) -> Folder:
    """The server's, with the kit of a project that the settings fit.

    Raises:
        ConfigError: the settings are for other parties than the kit has.
        HyperLockError: the folder is not as it must be.
    """
    folder = Folder(Path(config.runtime.folder))
    if not folder.path.is_dir():
        raise ConfigError(
            "runtime.folder", folder.path, "there is no such folder",
            hint="python -m hyperlock.sites init FOLDER --role server",
        )  # fmt: skip
    if folder.public.role != SERVER:
        problem = f"the folder is that of a {folder.public.role}, and the run is the server's"
        raise ConfigError("runtime.folder", folder.path, problem)
    _check_parties(config, folder.kit)
    if sites_share(config) and not config.clients_evaluate:
        _check_unseen(config)
    return folder


def assemble(
    config: Config,
    samples: Samples,
    scheme: Scheme,
    network: Network,
    *,
    folder: Folder,
    pipe: Callable[[Folder, float], Pipe],
    run: str,
    monitor: Monitor,
    guarantee: Guarantee | None = None,
    directory: Path | None = None,
    start: Checkpoint | None = None,
) -> Parties:
    """The server of the run of this id, and the way to everybody else.

    Args:
        config: the run's settings.
        samples: what everybody may know of them.
        scheme: the encryption.
        network: the architecture, with its initial weights.
        folder: the server's, as `own_folder` gives it.
        pipe: makes what moves bytes to the other parties, by name.
        run: the run's id.
        monitor: where the server's seconds go; those of others are not known here.
        guarantee: what is promised, under privacy.
        directory: where the run writes what outlives a kill.
        start: where it stopped, if it is resumed.
    """
    kit = folder.kit

    # What all of them are told.
    algorithm = simulation.build_algorithm(config, network)
    weights = network.initial_weights()
    initial = simulation.weights_digest(weights)
    unit = config.runtime.weight_unit
    config = with_noise(config, guarantee)
    offer = Offer.of(config, samples, network.sizes, unit, initial)
    terms = simulation.build_terms(config, unit, initial, guarantee)
    vector = simulation.build_vector(config, network.sizes, guarantee)
    identity = folder.signer().join(run)
    if not config.trust.malicious:
        identity = identity.without(WITNESS)
    session = Session(identity, scheme, vector, terms, monitor)

    # The server, which has the model unless the sites alone do.
    keeper = simulation.build_keeper(
        config=config,
        weights=weights,
        sizes=network.sizes,
        algorithm=algorithm,
        terms=terms,
        guarantee=guarantee,
        start=None if sites_share(config) else start,
    )
    own = None if directory is None else directory / SERVER
    served = _served(config, session, keeper, kit.sites, own, start)

    # Everybody else, by invitation.
    log.info("project %s, kit %s, offer %s", kit.project, kit.fingerprint, offer.fingerprint)
    invite = session.write(Invite, (offer.payload, weights.astype("<f4").tobytes()))
    runtime = InvitedRuntime(
        pipe(folder, config.runtime.timeout),
        invite=invite,
        accepted=_accepting(session, served.server, invite),
        needed=served.needed,
        patience=config.runtime.patience,
    )
    return Parties(
        run=run,
        server=served.server,
        clients=kit.sites,
        runtime=runtime,
        custody=served.custody,
        replica=None,
        journal=Journal(directory),
        keeper=served.keeper,
        network=network,
        monitor=monitor,
        draw=simulation.build_draw(config, kit.sites),
        guarantee=guarantee,
        spending=_counting(served.server, guarantee, own, run),
    )


@dataclass(frozen=True)
class Served:
    """The server, and what goes with its custody.

    Attributes:
        server: itself.
        custody: how an attempt gets its key and a sum is released.
        keeper: of the model; None where the sites alone have it.
        needed: those without whom there is no round.
    """

    server: Server
    custody: Custody
    keeper: ModelKeeper | None
    needed: Collection[str]


def _served(
    config: Config,
    session: Session,
    keeper: ModelKeeper,
    sites: list[str],
    folder: Path | None,
    start: Checkpoint | None,
) -> Served:
    """The server of these settings, with `keeper` unless the sites alone have the model; `folder`
    is its own."""
    if not sites_share(config):
        server = simulation.build_server(
            config=config, session=session, keeper=keeper, folder=folder
        )
        needed = session.identity.enrolled.keys() & {KEYHOLDER, WITNESS}
        return Served(server, CUSTODIES[config.keys.custody], keeper, needed)
    sharing = build_sharing_server(config, session, keeper, sites=sites, folder=folder, start=start)
    custody = SharingClients(sharing, sites, config.runtime.patience)
    return Served(sharing, custody, None, sharing.needed)


def _counting(
    server: Server, guarantee: Guarantee | None, folder: Path | None, run: str
) -> Spending | None:
    """What the server counts of what it asks for, under privacy: the key holder's own ledger, which
    keeps to the budget, is elsewhere."""
    if guarantee is None:
        return None
    server.spending = Spending.within(None if folder is None else folder / run)
    return server.spending


def _accepting(session: Session, server: Server, invite: bytes) -> Callable[[str, bytes], None]:
    """What takes the answer to an Invite."""
    limits = {"max_parts": 2, "max_part_bytes": len(invite)}
    digest = Invite.decode(invite, session.identity, **limits).digest

    def accepted(party: str, data: bytes) -> None:
        message = session.hear(Accept, data)
        message.expect(sender=party)
        if len(message.parts) != 2 or bytes(message.parts[0]) != digest:
            raise MessageRefused("it accepts another offer")
        if isinstance(server, VerifiedServer | SharingServer):
            server.joined(party, int.from_bytes(message.parts[1], "little"))

    return accepted


def _check_unseen(config: Config) -> None:
    """Where the sites alone have the model, nothing may ask how it does on a test set here."""
    why = "keys=clients: the sites alone have the model, so that nobody here can evaluate it"
    if config.federation.target_accuracy is not None:
        target = config.federation.target_accuracy
        hint = "federation.target_accuracy=null"
        raise ConfigError("federation.target_accuracy", target, why, hint=hint)
    for name in config.objectives:
        if name in UNSEEN:
            hint = "runtime.evaluation=sites, or objective=train/loss"
            raise ConfigError("objective", name, why, hint=hint)


def _check_parties(config: Config, kit: Kit) -> None:
    sites = len(kit.sites)
    if config.federation.clients != sites:
        raise ConfigError(
            "federation.clients",
            config.federation.clients,
            f"project {kit.project!r} has {sites} sites ({', '.join(kit.sites)})",
            hint=f"federation.clients={sites}",
        )
    if config.trust.malicious and WITNESS not in kit.parties:
        raise ConfigError(
            "trust",
            "malicious",
            f"project {kit.project!r} has no witness",
            hint="a kit with one (`init FOLDER --role witness`), or trust=curious",
        )
