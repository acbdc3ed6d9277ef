"""A run's parties in one process: what each is built from, and `assemble`, which builds them all.

Each builder makes one thing and knows of no other party, so that a process which is one party of a
run can call its own alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from hyperlock.data.datasets import Dataset
from hyperlock.data.split import Parts
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.processes import processes
from hyperlock.encryption.scheme import Encryptor, Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.experiment.journal import Journal
from hyperlock.experiment.private import Guarantee, build_guarantee, step_rate
from hyperlock.experiment.rounds import Parties, sample_cohort
from hyperlock.files import write_whole
from hyperlock.learning.local import clipped_gradient
from hyperlock.learning.types import Algorithm, Answers, Evaluator, LocalData, Samples, Trainer
from hyperlock.monitor import Monitor
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.committing_client import CommittingClient
from hyperlock.parties.custody import CUSTODIES
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS, enrol
from hyperlock.parties.keyholder import KeyHolder, Policy
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.memory import Memory
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.proofs import Cohorts, Draw
from hyperlock.parties.server import Server
from hyperlock.parties.session import Session
from hyperlock.parties.spending import Spending
from hyperlock.parties.spool import Spool
from hyperlock.parties.terms import Terms
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.parties.verifying_keyholder import VerifyingKeyHolder
from hyperlock.parties.witness import Witness
from hyperlock.privacy.sampling import balanced, by_chance
from hyperlock.randomness import Streams, integer_seed
from hyperlock.settings.construct import OURS, construct, construct_group, target
from hyperlock.settings.parse import flatten
from hyperlock.settings.schema import (
    ClientKeys,
    Config,
    FlowerRuntime,
    MlflowTracking,
    SamplePrivacy,
)

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

_GRADIENT_BATCH = 256  # samples at a time in a full-batch gradient; decides memory, not the result
_loaded: dict[str, Dataset] = {}


def load_dataset(config: Config) -> Dataset:
    """The configured dataset, cut to `dataset.train_samples` and `dataset.test_samples`.

    The last one is kept, since a sweep's trials mostly share it.
    """
    path = Path(getattr(config.dataset, "path", ""))
    written = path.stat().st_mtime_ns if path.is_file() else ""
    key = f"{config.dataset} {config.seed} {written}"
    dataset = _loaded.get(key)
    if dataset is None:
        cut = ("train_samples", "test_samples")
        whole: Dataset = construct_group("dataset", config.dataset, {}, without=cut)
        train, test = (getattr(config.dataset, name, None) for name in cut)
        dataset = whole.take(train, test, config.seed)
        _loaded.clear()
        _loaded[key] = dataset
    return dataset


def import_tensorflow() -> None:
    """What learns, so that its seconds are not taken for another stage's."""
    import hyperlock.learning.tensorflow  # noqa: F401


def build_split(config: Config, dataset: Dataset) -> Parts:
    """Which training samples each client has."""
    given = {
        "labels": dataset.y_train,
        "clients": config.federation.clients,
        "seed": config.seed,
    }
    parts: Parts = construct_group("split", config.split, given)
    return parts


def build_scheme(
    config: Config, sizes: Sequence[int] = (1,), guarantee: Guarantee | None = None
) -> Scheme:
    """The encryption of a run; ConfigError if its parameters are unsafe or not exact.

    Args:
        config: what is set, and what is left to `auto`.
        sizes: coordinates of each tensor of the model, by which `auto` chooses; whether there is
            anything to choose from does not depend on them.
        guarantee: what is promised, under privacy.
    """
    encryption = config.encryption
    vector = build_vector(config, sizes, guarantee)
    given = {
        "extent": vector.extent,
        "max_clients": config.max_clients,
        "length": vector.length,
    }
    scheme: Scheme = construct("encryption", target(encryption), encryption.for_the_scheme(), given)
    return scheme


def promised(config: Config, network: Network, dataset: Dataset) -> Guarantee | None:
    """What a run promises under privacy, and None without."""
    return build_guarantee(config, network.parameters, weight_unit(config, dataset))


def weight_unit(config: Config, dataset: Dataset) -> float:
    """The sample count that gives a client weight 1: the public figure that sites agreed on, and
    the mean of all where there is one dataset."""
    if isinstance(config.runtime, FlowerRuntime):
        return config.runtime.weight_unit
    return len(dataset.y_train) / config.federation.clients


def build_vector(
    config: Config, sizes: Sequence[int], guarantee: Guarantee | None = None
) -> Vector:
    """The layout of what is encrypted, for a model whose tensors have so many coordinates."""
    extent = Extent(config.value_bits) if guarantee is None else guarantee.mechanism.extent
    return Vector(extent, tuple(sizes), config.clients_evaluate)


def samples(dataset: Dataset) -> Samples:
    """What everybody may know of a dataset."""
    return Samples(dataset.shape, dataset.x_train.dtype, dataset.classes)


def build_network(config: Config, samples: Samples) -> Network:
    """The configured model with its initial weights, which the seed decides.

    Keras draws them from the process' own generators, which are seeded for it: those of Python,
    NumPy and TensorFlow.

    Raises:
        ConfigError: it cannot be trained, evaluated or kept.
    """
    from hyperlock.learning import check_model
    from hyperlock.learning.network import Network
    from hyperlock.learning.tensorflow import tf

    name = target(config.model)
    tf.keras.utils.set_random_seed(integer_seed(config.seed, "weights"))
    given = {"shape": samples.shape, "classes": samples.classes}
    make = partial(construct_group, "model", config.model, given)
    model = check_model.build(make, name, samples)
    batch = getattr(config.federation, "batch_size", _GRADIENT_BATCH)
    network = Network(model, samples, batch)
    if not name.startswith(OURS):
        check_model.try_training(network, name)
        if isinstance(config.tracking, MlflowTracking) and config.tracking.log_model:
            check_model.refuse_unsaved(model, name)
    return network


def build_algorithm(config: Config, network: Network) -> Algorithm:
    """What clients do, and what is done with their mean update; ConfigError if it cannot be."""
    name = target(config.federation)
    keys = config.federation.for_the_algorithm()
    make = partial(construct, "federation", name, keys, {"network": network})
    if name.startswith(OURS):
        algorithm: Algorithm = make()
        return _private(config, algorithm, network)
    from hyperlock.learning import check_algorithm

    return check_algorithm.build(make, name, network)


def _private(config: Config, algorithm: Algorithm, network: Network) -> Algorithm:
    """The algorithm whose clients send one clipped gradient of samples that they draw, if that is
    what is asked."""
    privacy = config.privacy
    if not isinstance(privacy, SamplePrivacy):
        return algorithm
    trainer = clipped_gradient(
        network.batched(privacy.micro_batch),
        clip=privacy.clip,
        rate=step_rate(config),
        draw=lambda count: by_chance(count, privacy.record_rate),
    )
    return replace(algorithm, trainer=trainer)


def build_terms(
    config: Config, weight_unit: float, initial: bytes, guarantee: Guarantee | None = None
) -> Terms:
    """What the parties of a run are told alike: what decides what clients compute, and nothing that
    may differ after a resume.

    Args:
        config: the run's settings.
        weight_unit: the sample count that gives a client weight 1.
        initial: the initial weights' digest.
        guarantee: what is promised, under privacy.
    """
    groups = ("model.", "federation.", "encryption.", "privacy.")
    free = ("federation.rounds", "federation.target_accuracy")
    settings = {
        key: value
        for key, value in flatten(OmegaConf.structured(config)).items()
        if key == "seed" or (key.startswith(groups) and key not in free)
    }
    settings["initial_weights"] = initial.hex()
    initial_range = config.encryption.initial_range
    if guarantee is not None:
        initial_range = guarantee.range
        settings |= {f"privacy/{name}": str(value) for name, value in guarantee.describe().items()}
    elif not config.private:
        del settings["privacy.unit"]  # runs of before privacy go on
    return Terms(
        weight_unit=weight_unit,
        initial_range=initial_range,
        range_factor=config.encryption.range_factor,
        settings=settings,
    )


def weights_digest(weights: NDArray[np.float32]) -> bytes:
    """SHA-256 of weights float32[parameters], 32 bytes."""
    return hashlib.sha256(weights.astype("<f4").tobytes()).digest()


def build_keeper(
    *,
    config: Config,
    weights: NDArray[np.float32],
    sizes: tuple[int, ...],
    algorithm: Algorithm,
    terms: Terms,
    guarantee: Guarantee | None = None,
    start: Checkpoint | None = None,
    file: Path | None = None,
) -> ModelKeeper:
    """The global model with these weights float32[parameters] before its first round, or after the
    last one of `start`, or of the file in which the party keeps it."""
    first_range = float(np.float32(terms.initial_range))  # as it travels
    ranges = (first_range,) * len(sizes)
    extent = build_vector(config, sizes, guarantee).extent
    model = GlobalModel(
        weights=weights,
        grid=Grid(sizes, ranges, extent.value_bits),
        # A user's own may write into its slots, and each party has a model of its own.
        optimizer=deepcopy(algorithm.optimizer),
        weight_unit=terms.weight_unit,
        range_factor=terms.range_factor,
        expected=None if guarantee is None else guarantee.expected,
    )
    if start is None:
        return ModelKeeper(model, file=file)
    return ModelKeeper(start.restore(model), start.round)


def build_policy(config: Config, guarantee: Guarantee | None = None) -> Policy:
    """What whoever decrypts agrees to."""
    return Policy(
        min_clients=config.keys.min_clients,
        rounds=config.federation.rounds,
        attempts=config.federation.round_attempts,
        participations=None if guarantee is None else guarantee.participations,
    )


def build_keyholder(
    *,
    config: Config,
    session: Session,
    keeper: ModelKeeper | None,
    guarantee: Guarantee | None = None,
    folder: Path | None = None,
    start: Checkpoint | None = None,
    seed: int | None = None,
    memory: Memory | None = None,
) -> KeyHolder:
    """The one party that makes the keys.

    Args:
        config: the run's settings.
        session: its voice.
        keeper: its own copy of the model, which it steps under trust=malicious.
        guarantee: what is promised, under privacy.
        folder: its own, where what it releases is kept.
        start: where the run stopped, if it is resumed.
        seed: what cohorts are drawn from; the run's own if None, as in a simulation.
        memory: which attempt it opened last, if that outlives it.
    """
    given: dict[str, Any] = {
        "policy": build_policy(config, guarantee),
        "ledger": Ledger(folder, last=0 if start is None else start.round),
        "memory": memory,
        "spending": Spending.within(folder),
    }
    if not config.trust.malicious:
        return CUSTODIES[config.keys.custody].keyholder(session, **given)
    assert keeper is not None, "under trust=malicious the key holder steps the model"
    nonce = None if folder is None else folder / "cohorts"
    return VerifyingKeyHolder(
        session,
        keeper=keeper,
        cohorts=build_cohorts(config.seed if seed is None else seed, nonce),
        draw=build_draw(config, list(session.identity.clients)),
        showing=(lambda: None) if nonce is None else partial(nonce.unlink, missing_ok=True),
        **given,
    )


def build_cohorts(seed: int, file: Path | None) -> Cohorts:
    """What the key holder draws cohorts from, and what hides it until it is shown: kept in a file,
    for who is restarted has committed to it already."""
    cohorts = Cohorts(seed, secrets.token_bytes(32))
    if file is not None:
        if file.exists():
            return Cohorts.read(file.read_bytes())
        write_whole(file, cohorts.write())
    return cohorts


def build_draw(config: Config, clients: Sequence[str]) -> Draw:
    """How a cohort comes from a seed; under privacy, as its sampling says."""
    size = config.federation.cohort_size
    by = config.privacy.sampling if config.private else ""

    def draw(seed: int, round_number: int, attempt: int) -> list[str]:
        if by == "poisson":
            return [clients[i] for i in by_chance(len(clients), size / len(clients))]
        if by:
            return balanced(clients, size, seed, round_number)
        return sample_cohort(clients, size, seed, round_number, attempt)

    return draw


def build_server(
    *,
    config: Config,
    session: Session,
    keeper: ModelKeeper,
    folder: Path | None = None,
    keyholder: KeyHolder | None = None,
) -> Server:
    """The server, with what its run's custody gives it of the model and the key holder; `folder` is
    its own, where it writes a sum down before it sends it."""
    if config.trust.malicious:
        return VerifiedServer(
            session,
            min_clients=config.keys.min_clients,
            keeper=keeper,
            outbox=Outbox(folder),
            draw=build_draw(config, list(session.identity.clients)),
        )
    return CUSTODIES[config.keys.custody].server(
        session,
        min_clients=config.keys.min_clients,
        keeper=keeper,
        outbox=Outbox(folder),
        keyholder=keyholder,
    )


def build_client(
    *,
    config: Config,
    session: Session,
    index: int,
    data: LocalData,
    trainer: Trainer,
    keeper: ModelKeeper,
    spool: Spool,
    replica: Replica | None = None,
    evaluator: Evaluator | None = None,
    guarantee: Guarantee | None = None,
    memory: Memory | None = None,
) -> Client:
    """One client, with its own data and nobody else's; by `index` it draws its batches. Under
    trust=malicious it steps `keeper` itself, and its Update waits in `spool`."""
    workers = getattr(config.runtime, "workers", 1)
    given: dict[str, Any] = {
        "streams": Streams(config.seed, index),
        "data": data,
        "trainer": trainer,
        "encryptor": build_encryptor(session.scheme, replica, workers),
        "evaluator": evaluator,
        "protect": None if guarantee is None else guarantee.protect,
        "memory": memory,
    }
    if config.trust.malicious:
        least = config.keys.min_clients
        return CommittingClient(session, keeper=keeper, spool=spool, min_clients=least, **given)
    return Client(session, replica=replica, **given)


def build_evaluator(config: Config, network: Network, data: LocalData) -> Evaluator:
    """How a client evaluates the model on these test samples."""

    def test(weights: NDArray[np.float32]) -> Answers:
        samples = len(data.y)
        accuracy = network.evaluate(weights, data.x, data.y).accuracy
        return Answers(samples, round(accuracy * samples))

    return Evaluator(test, config.federation.evaluate_every)


def build_encryptor(
    scheme: Scheme, replica: Replica | None = None, workers: int = 1
) -> Callable[[bytes], Encryptor]:
    """From a public key to what a client encrypts with: symmetric where the clients share the key
    and the scheme can; in another process where several clients work at once."""
    if replica is not None and replica.encryptor is not None:
        shared = replica.encryptor
        return lambda public: shared
    if workers > 1 and scheme.security_bits:
        return partial(processes(workers).encryptor, scheme)
    return scheme.encryptor


def assemble(
    config: Config,
    dataset: Dataset,
    parts: Parts,
    scheme: Scheme,
    network: Network,
    *,
    run: str,
    monitor: Monitor,
    guarantee: Guarantee | None = None,
    directory: Path | None = None,
    start: Checkpoint | None = None,
) -> Parties:
    """All parties of the run of this id, as they were after the last round of `start`, each client
    with its part of the dataset; in `directory`, if there is one, what outlives a kill."""
    # What all of them know.
    algorithm = build_algorithm(config, network)
    weights = network.initial_weights()
    unit = weight_unit(config, dataset)
    terms = build_terms(config, unit, weights_digest(weights), guarantee)
    vector = build_vector(config, network.sizes, guarantee)
    names = {f"client-{i}": len(part) for i, part in enumerate(parts)}
    roles = (SERVER, KEYHOLDER, *([WITNESS] if config.trust.malicious else []))
    sessions = {
        name: Session(identity, scheme, vector, terms, monitor)
        for name, identity in enrol(run, names, roles).items()
    }

    # Who holds the model and the key, and who is given them.
    custody = CUSTODIES[config.keys.custody]
    a_keeper = partial(
        build_keeper,
        config=config,
        weights=weights,
        sizes=network.sizes,
        algorithm=algorithm,
        terms=terms,
        guarantee=guarantee,
        start=start,
    )
    keeper = a_keeper()
    keyholder = build_keyholder(
        config=config,
        session=sessions[KEYHOLDER],
        keeper=a_keeper(),
        guarantee=guarantee,
        folder=_in(directory, KEYHOLDER, run),
        start=start,
    )
    server = build_server(
        config=config,
        session=sessions[SERVER],
        keeper=keeper,
        folder=_in(directory, SERVER),
        keyholder=keyholder,
    )
    seeded = isinstance(config.keys, ClientKeys) and config.keys.seeded
    any_client = sessions[next(iter(names))]
    replica = custody.replica(any_client, keeper=keeper, keyholder=keyholder, seeded=seeded)

    # The clients, each with its own samples.
    handlers = custody.handlers(keyholder)
    if config.trust.malicious:
        handlers[WITNESS] = Witness(sessions[WITNESS]).handle
    theirs = a_keeper()
    spool = Spool()
    for index, (name, part) in enumerate(zip(names, parts, strict=True)):
        handlers[name] = build_client(
            config=config,
            session=sessions[name],
            index=index,
            data=LocalData(dataset.x_train[part], dataset.y_train[part]),
            trainer=algorithm.trainer,
            keeper=theirs,
            spool=spool,
            replica=replica,
            guarantee=guarantee,
        ).handle

    return Parties(
        run=run,
        server=server,
        clients=list(names),
        runtime=construct_group("runtime", config.runtime, {"handlers": handlers}),
        custody=custody,
        replica=replica,
        journal=Journal(directory),
        keeper=keeper,
        network=network,
        monitor=monitor,
        draw=build_draw(config, list(names)),
        guarantee=guarantee,
        spending=keyholder.spending,
    )


def _in(directory: Path | None, party: str, run: str = "") -> Path | None:
    """A party's own folder; in it that of this run alone, for what another run in the same
    directory must not find."""
    return None if directory is None else directory / party / run
