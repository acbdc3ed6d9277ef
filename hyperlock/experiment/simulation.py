"""Building the parties of a run, and what each of them is given.

This is where key custody is decided: read `assemble` to see who is handed the secret key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hyperlock.data.datasets import Dataset
from hyperlock.encryption import totals
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ConfigError
from hyperlock.experiment.checkpoint import Checkpoint
from hyperlock.learning.local import (
    LearningRate,
    full_gradient,
    sgd_epochs,
    sgd_steps,
)
from hyperlock.learning.optimizers import (
    Adaptive,
    Momentum,
    Sgd,
    adagrad,
    adam,
    yogi,
)
from hyperlock.learning.types import LocalData, Samples, ServerOptimizer, Trainer
from hyperlock.monitor import Monitor
from hyperlock.parties import keyfile
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.custody import DecryptingServer
from hyperlock.parties.identity import KEYHOLDER, SERVER, enrol
from hyperlock.parties.keyholder import KeyHolder
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.parties.server import Server
from hyperlock.randomness import integer_seed
from hyperlock.runtime import Runtime
from hyperlock.runtime.local import LocalRuntime
from hyperlock.settings.parse import (
    BfvEncryption,
    CkksEncryption,
    Config,
    NoEncryption,
    construct,
    max_clients,
    target,
)
from hyperlock.settings.schema import (
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedProx,
    FedSgd,
    FedYogi,
    LocalTraining,
)

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

_GRADIENT_BATCH = 256  # samples at a time in a full-batch gradient; decides memory, not the result


@dataclass(frozen=True)
class Parties:
    """The parties of one run in this process.

    Attributes:
        server: the server.
        clients: the clients' names, in order.
        runtime: reaches the clients and, but under keys=clients, the key holder.
        public_key: the key holder's PublicKey message.
        keeper: whoever holds the model; the experimenter reads it.
        network: the architecture, for evaluation.
    """

    server: Server
    clients: list[str]
    runtime: Runtime
    public_key: bytes
    keeper: ModelKeeper
    network: Network


def build_scheme(config: Config) -> Scheme:
    """The encryption of a run; ConfigError if its parameters are unsafe or not exact."""
    match config.encryption:
        case CkksEncryption() as c:
            return Ckks(
                ckks_parameters(
                    c.poly_modulus,
                    c.coeff_mod_bits,
                    c.scale_bits,
                    c.value_bits,
                    max_clients(config),
                    c.security,
                )
            )
        case BfvEncryption() as b:
            return Bfv(
                bfv_parameters(
                    b.poly_modulus,
                    b.coeff_mod_bits,
                    b.fields,
                    b.value_bits,
                    max_clients(config),
                    b.security,
                )
            )
        case NoEncryption() as n:
            return Plain(n.value_bits, max_clients(config))
    raise ConfigError("encryption.scheme", config.encryption.scheme, "there is no such scheme")


def build_network(config: Config, dataset: Dataset) -> Network:
    """The configured model with its initial weights; ConfigError if it cannot be trained, evaluated
    or kept."""
    from hyperlock.learning import check_model
    from hyperlock.learning.network import Network
    from hyperlock.learning.tensorflow import tf

    tf.keras.utils.set_random_seed(integer_seed(config.seed, "weights"))
    name, shape, classes = target(config.model), dataset.shape, dataset.classes
    samples = Samples(shape, dataset.x_train.dtype, classes)
    model = check_model.build(
        partial(construct, "model", config.model, shape=shape, classes=classes), name, samples
    )
    batch = getattr(config.federation, "batch_size", _GRADIENT_BATCH)
    network = Network(model, samples, batch)
    if not name.startswith("hyperlock."):
        check_model.try_training(network, name)
        if getattr(config.tracking, "log_model", False):
            check_model.refuse_unsaved(model, name)
    return network


def build_algorithm(config: Config, network: Network) -> tuple[Trainer, ServerOptimizer]:
    """What clients do, and what is done with their mean update."""
    match config.federation:
        case FedSgd() as f:
            return full_gradient(network), Sgd(f.learning_rate, f.learning_rate_decay)
        case LocalTraining() as f:
            rate, mu = (
                LearningRate(f.learning_rate, f.learning_rate_decay),
                f.mu if isinstance(f, FedProx) else 0.0,
            )
            if f.local_steps is not None:
                return sgd_steps(network, f.local_steps, f.batch_size, rate, mu), build_optimizer(f)
            assert f.local_epochs is not None
            return sgd_epochs(network, f.local_epochs, rate, mu), build_optimizer(f)
    raise ConfigError(
        "federation.algorithm", config.federation.algorithm, "there is no such algorithm"
    )


def build_optimizer(federation: LocalTraining) -> ServerOptimizer:
    """What is done with the mean of the clients' weight differences."""
    rate = federation.server_learning_rate
    match federation:
        case FedAvgM() as f:
            return Momentum(rate, f.server_momentum)
        case FedAdagrad() as f:
            return Adaptive(adagrad, rate, f.beta1, 0.0, f.tau)
        case FedAdam() as f:
            return Adaptive(adam, rate, f.beta1, f.beta2, f.tau)
        case FedYogi() as f:
            return Adaptive(yogi, rate, f.beta1, f.beta2, f.tau)
    return Sgd(rate)


def assemble(
    config: Config,
    run: str,
    dataset: Dataset,
    parts: list[NDArray[np.int64]],
    scheme: Scheme,
    monitor: Monitor,
    start: Checkpoint | None = None,
) -> Parties:
    """Build all parties of a simulation, as they were after the last round of `start`.

    The key holder makes the keys. Under keys=authority it is a party of its own, reached by bytes
    alone; under keys=clients the clients share it, with the model; under keys=server the server has
    it.
    """
    network = build_network(config, dataset)
    trainer, optimizer = build_algorithm(config, network)

    encryption, custody = config.encryption, config.keys.custody
    unit = len(dataset.y_train) / config.federation.clients
    first_range = float(np.float32(encryption.initial_range))  # as it travels
    grid = Grid(network.sizes, (first_range,) * len(network.sizes), encryption.value_bits)
    state = GlobalModel(network.initial_weights(), grid, optimizer, unit, encryption.range_factor)
    done = 0 if start is None else start.round
    state = state if start is None else start.restore(state)
    names = [f"client-{i}" for i in range(len(parts))]
    identities = enrol(run, [SERVER, KEYHOLDER, *names])
    keeper = ModelKeeper(identities[names[0] if custody == "clients" else SERVER], state, done)
    length = totals.width(encryption.value_bits) + network.parameters
    policy = (config.keys.min_clients, config.federation.rounds)
    kept = (
        keyfile.keep(Path(os.path.expanduser(config.keys.path)), scheme)
        if config.keys.path
        else None
    )
    keyholder = KeyHolder(identities[KEYHOLDER], scheme, length, *policy, monitor, kept, done)

    server_side = (identities[SERVER], scheme, length, config.keys.min_clients, monitor)
    replica: Replica | None = None
    handlers: dict[str, Callable[[bytes], bytes]] = {}
    if custody == "clients":
        replica = Replica(keyholder, keeper, config.keys.seeded)
        server = Server(*server_side, keeper=None)
    elif custody == "server":
        server = DecryptingServer(*server_side, keeper=keeper, keyholder=keyholder)
        handlers[KEYHOLDER] = server.keyholder.handle
    else:
        server = Server(*server_side, keeper=keeper)
        handlers[KEYHOLDER] = keyholder.handle

    clients = [
        Client(
            i,
            identities[names[i]],
            config.seed,
            LocalData(dataset.x_train[part], dataset.y_train[part]),
            trainer,
            scheme,
            network.sizes,
            unit,
            monitor,
            replica,
        )
        for i, part in enumerate(parts)
    ]
    handlers |= {client.name: client.handle for client in clients}
    runtime = LocalRuntime(handlers, config.runtime.workers)
    return Parties(server, names, runtime, keyholder.public_key(), keeper, network)
