"""keys=clients across sites: what its server and its clients are built from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperlock.encryption.scheme import KeyPair
from hyperlock.experiment import simulation
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.private import Guarantee
from hyperlock.parties.archive import Archive
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.keyholder import SharedKeyHolder
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.session import Session
from hyperlock.parties.sharing_client import Sharing, SharingClient
from hyperlock.parties.sharing_server import SharingServer
from hyperlock.parties.spending import Spending
from hyperlock.randomness import Streams
from hyperlock.settings.schema import ClientKeys, Config
from hyperlock.sites.folder import Folder

KEY = "shared.key"  # in the run's folder at a site


def sites_share(config: Config) -> bool:
    """Whether it is the sites that hold the key and the model."""
    return isinstance(config.keys, ClientKeys)


def build_server(
    config: Config,
    session: Session,
    keeper: ModelKeeper,
    *,
    sites: list[str],
    folder: Path | None,
    start: Checkpoint | None,
) -> SharingServer:
    """The server.

    Args:
        config: the run's settings.
        session: its voice.
        keeper: of the model before the first round, of which it is told the digest.
        sites: all of them, in order.
        folder: its own, where sums are kept: in it those of this run alone, for what another run
            in the same directory must not find.
        start: where the run stopped, if it is resumed.
    """
    return SharingServer(
        session,
        min_clients=config.keys.min_clients,
        clients=sites,
        initial=keeper.model.digest,
        archive=Archive(None if folder is None else folder / session.identity.run),
        start=0 if start is None else start.round,
    )


def build_client(
    config: Config,
    session: Session,
    *,
    index: int,
    keeper: ModelKeeper,
    folder: Folder,
    offer: bytes,
    guarantee: Guarantee | None = None,
    **others: Any,
) -> SharingClient:
    """A site's client, which is its own key holder: what it decrypts goes nowhere.

    Args:
        config: the run's settings.
        session: its voice.
        index: by which it draws its batches.
        keeper: of its model.
        folder: the site's.
        offer: SHA-256 of the Invite.
        guarantee: what is promised, under privacy.
        others: its data, what trains, what it remembers: as any client's.
    """
    run = folder.run(session.identity.run)
    seeded = isinstance(config.keys, ClientKeys) and config.keys.seeded
    inside = replace(session, identity=session.identity.standing_in(KEYHOLDER))

    def replica(keys: KeyPair) -> Replica:
        keyholder = SharedKeyHolder(
            inside,
            policy=simulation.build_policy(config, guarantee),
            ledger=Ledger(run / "released"),
            spending=Spending.within(run),
            keys=keys,
        )
        return Replica(inside, keyholder, keeper, seeded)

    sharing = Sharing(
        readers=folder.kit.boxes,
        reader=folder.box_key(),
        offer=offer,
        file=run / KEY,
        rounds=config.federation.rounds + config.clients_evaluate,
    )
    return SharingClient(
        session,
        sharing=sharing,
        keeper=keeper,
        replica=replica,
        streams=Streams(config.seed, index),
        encryptor=session.scheme.encryptor,
        protect=None if guarantee is None else guarantee.protect,
        **others,
    )
