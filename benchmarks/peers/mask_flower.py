"""Flower's own SecAgg+: its workflow and its client's mod, unchanged, over a grid in this process
that turns every message into bytes and back."""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.models import tensor_sizes
from benchmarks.peers.stages import Stages
from benchmarks.peers.turns import Turns
from benchmarks.session import drawn_update

EXAMPLES = 600  # a client's samples
WORST = 1e-5  # how far a mean may be off; a step of its grid is 3.8e-6


def fresh(node: int) -> Context:
    """An empty state."""
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


class InProcess(Grid):
    """Clients that answer at once.

    Attributes:
        stages: whose seconds are whose.
        moved: bytes by direction, of all messages.

    Args:
        updates: by client, from 1, what it sends masked.
    """

    def __init__(self, updates: dict[int, list[Any]]) -> None:
        self.stages = Stages()
        self.moved: dict[str, int] = defaultdict(int)
        self._updates = updates
        self._contexts = {node: fresh(node) for node in updates}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Each message in bytes to its client, and its answer in bytes back."""
        answers = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())  # as Flower's own grids do
            sent = message_to_proto(message).SerializeToString()
            with self.stages.of("client"):
                answer = self._answer(sent)
            self.moved["down"] += len(sent)
            self.moved["up"] += len(answer)
            answers.append(message_from_proto(ProtoMessage.FromString(answer)))
        return answers

    def _answer(self, sent: bytes) -> bytes:
        message = message_from_proto(ProtoMessage.FromString(sent))
        context = self._contexts[message.metadata.dst_node_id]
        answer = secaggplus_mod(message, context, self._trained)
        answer.metadata.__dict__["_message_id"] = str(uuid4())
        return message_to_proto(answer).SerializeToString()

    def _trained(self, message: Message, context: Context) -> Message:
        """Where a client would train; not the client's cost."""
        with self.stages.of("app"):
            result = FitRes(
                status=Status(Code.OK, ""),
                parameters=ndarrays_to_parameters(self._updates[context.node_id]),
                num_examples=EXAMPLES,
                metrics={},
            )
            content = compat.fitres_to_recorddict(result, keep_input=False)
            return Message(content, reply_to=message)

    def set_run(self, run: Any) -> None:
        """Not used, nor is any of what follows."""
        raise NotImplementedError

    run = property(set_run)
    create_message = set_run
    get_node_ids = set_run
    get_nodes = set_run
    push_messages = set_run
    pull_messages = set_run


def play(sizes: tuple[int, ...], clients: int, shares: int, threshold: int) -> dict[str, float]:
    """A round, checked: bytes and processor microseconds a parameter."""
    parameters = sum(sizes)
    ends = np.cumsum(sizes)[:-1]
    vectors = [drawn_update(client, parameters) for client in range(clients)]
    grid = InProcess({i + 1: np.split(vector, ends) for i, vector in enumerate(vectors)})
    manager = SimpleClientManager()
    for node in range(1, clients + 1):
        manager.register(GridClientProxy(node, grid, 1))
    everyone = FedAvg(min_fit_clients=clients, min_available_clients=clients)
    context = LegacyContext(fresh(0), strategy=everyone, client_manager=manager)
    zeros = ndarrays_to_parameters([np.zeros(size, np.float32) for size in sizes])
    records = context.state
    records.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    records.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(zeros, True)

    with grid.stages.of("server"):
        SecAggPlusWorkflow(shares, threshold)(grid, context)

    kept = compat.arrayrecord_to_parameters(records.array_records[MAIN_PARAMS_RECORD], True)
    mean = np.concatenate([np.ravel(part) for part in parameters_to_ndarrays(kept)])
    error = np.abs(mean - np.mean(vectors, axis=0, dtype=np.float64)).max()
    if not error < WORST:
        raise SystemExit(f"SecAgg+'s mean is {error:.2g} off")
    each = {name: 1e6 * value / parameters for name, value in grid.stages.seconds.items()}
    return {
        "up": grid.moved["up"] / clients / parameters,
        "down": grid.moved["down"] / clients / parameters,
        "client": each["client"] / clients,
        "server": each["server"] / clients,
        "decrypt": 0.0,  # the server unmasks
    }


def main() -> None:
    """A round of each number of neighbours a turn: parameters and clients."""
    logging.disable(logging.WARNING)  # in its favour
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    turns = Turns()
    sizes = tensor_sizes(int(sys.argv[1]))
    clients = int(sys.argv[2])
    while turns.wait():
        few = play(sizes, clients, shares=3, threshold=2)
        every = play(sizes, clients, shares=clients, threshold=clients // 2 + 1)
        turns.answer({"secaggplus, 3 shares": few, f"secaggplus, {clients} shares": every})


if __name__ == "__main__":
    main()
