"""NVFlare 2.9.0's own classes: encrypt, add, decrypt, wired as its recipe for FedAvg under
homomorphic encryption wires them (`nvflare/app_opt/pt/recipes/fedavg_he.py`)."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
    HEInTimeAccumulateWeightedAggregator,
)
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.fuel.utils import fobs
from nvflare.lighter.constants import ProvFileName
from nvflare.lighter.impl.he import HEBuilder

from benchmarks.models import tensor_sizes
from benchmarks.peers.stages import Stages
from benchmarks.peers.turns import Turns
from benchmarks.session import drawn_update

LOCAL_STEPS = 10
WORST = 1e-6  # how far a mean may be off


def provision() -> None:
    """The contexts that its provisioning writes, by its defaults, where its services find them."""
    folder = Path(tempfile.mkdtemp())
    builder = HEBuilder()
    builder.initialize(None, None)
    for name, for_client in (
        (ProvFileName.CLIENT_CONTEXT_TENSEAL, True),
        (ProvFileName.SERVER_CONTEXT_TENSEAL, False),
    ):
        (folder / name).write_bytes(builder.get_serialized_context(is_client=for_client))
    SecurityContentService.initialize(str(folder))


class Federation:
    """Its server's parts and one client's filters, which all clients share here.

    Args:
        sizes: coordinates of each tensor.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._ends = np.cumsum(sizes)[:-1]
        self._context = FLContext()
        self._context.set_prop(FLContextKey.SECURE_MODE, False, private=True, sticky=True)
        self._context.set_peer_context(FLContext())
        self._encryptor = HEModelEncryptor()
        self._decryptor = HEModelDecryptor()
        self._aggregator = HEInTimeAccumulateWeightedAggregator(
            expected_data_kind=DataKind.WEIGHTS, weigh_by_local_iter=False
        )
        self._generator = HEModelShareableGenerator()
        for part in (self._encryptor, self._decryptor, self._aggregator, self._generator):
            part.handle_event(EventType.START_RUN, self._context)
        self._model = make_model_learnable({"none": np.zeros(1)}, {})
        self._round = -1

    def open(self) -> None:
        """The next round."""
        self._round += 1
        for name, value in (
            (AppConstants.GLOBAL_MODEL, self._model),
            (AppConstants.CURRENT_ROUND, self._round),
        ):
            self._context.set_prop(name, value, private=True, sticky=True)

    def client(self, vector: NDArray[np.float32]) -> bytes:
        """What a client sends."""
        tensors = {f"t{i}": part for i, part in enumerate(np.split(vector, self._ends))}
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: LOCAL_STEPS}
        shareable = DXO(DataKind.WEIGHTS, data=tensors, meta=meta).to_shareable()
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, self._round)
        return fobs.dumps(self._encryptor.process(shareable, self._context))

    def add(self, name: str, message: bytes) -> None:
        """The server's work on it."""
        shareable = fobs.loads(message)
        shareable.set_peer_props({ReservedKey.IDENTITY_NAME: name})
        if not self._aggregator.accept(shareable, self._context):
            raise SystemExit("NVFlare did not accept an update")

    def total(self) -> bytes:
        """What the server sends back."""
        result = self._aggregator.aggregate(self._context)
        self._model = self._generator.shareable_to_learnable(result, self._context)
        return fobs.dumps(self._generator.learnable_to_shareable(self._model, self._context))

    def decrypt(self, message: bytes) -> list[Any]:
        """What a client makes of it: a list of numbers a tensor."""
        shareable = self._decryptor.process(fobs.loads(message), self._context)
        return list(from_shareable(shareable).data.values())


def play(federation: Federation, parameters: int, clients: int) -> dict[str, float]:
    """A round, checked: bytes and processor microseconds a parameter."""
    stages = Stages()
    expected = np.zeros(parameters)
    federation.open()
    for client in range(clients):
        vector = drawn_update(client, parameters)
        expected += vector
        with stages.of("client"):
            message = federation.client(vector)
        up = len(message)
        with stages.of("server"):
            federation.add(f"client-{client}", message)
    with stages.of("server"):
        total = federation.total()
    with stages.of("decrypt"):
        means = federation.decrypt(total)
    error = np.abs(np.concatenate(means) - expected / clients).max()
    if not error < WORST:
        raise SystemExit(f"NVFlare's mean is {error:.2g} off")
    each = {name: 1e6 * value / parameters for name, value in stages.seconds.items()}
    return {
        "up": up / parameters,
        "down": len(total) / parameters,
        "client": each["client"] / clients,
        "server": each["server"] / clients,
        "decrypt": each["decrypt"],
    }


def main() -> None:
    """A round a turn: parameters and clients."""
    logging.disable(logging.ERROR)  # in its favour; and it misses its engine, which is not run
    turns = Turns()
    sizes = tensor_sizes(int(sys.argv[1]))
    provision()
    federation = Federation(sizes)
    while turns.wait():
        turns.answer({"nvflare": play(federation, sum(sizes), int(sys.argv[2]))})


if __name__ == "__main__":
    main()
