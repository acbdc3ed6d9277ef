"""Flower's client: a plain loop of PyTorch. Ray's workers import it, and keep data and module."""

from __future__ import annotations

import functools
import os

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.peers.exchange import BATCH, RATE, Exchange
from benchmarks.peers.torch_model import TwoNN

EXCHANGE = "PEERS_EXCHANGE"  # of the environment: where it lies
app = ClientApp()


@functools.cache
def kept() -> tuple[torch.Tensor, torch.Tensor, TwoNN]:
    """All clients' data, and a module, loaded once a process."""
    torch.set_num_threads(1)
    given = Exchange.load(os.environ[EXCHANGE])
    return torch.from_numpy(given.x), torch.from_numpy(given.y), TwoNN()


@app.train()
def train(message: Message, context: Context) -> Message:
    """An epoch of SGD over this client's samples, in their order."""
    x, y, module = kept()
    client = int(context.node_config["partition-id"])
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for start in range(0, len(y[client]), BATCH):
        batch = slice(start, start + BATCH)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[client, batch]), y[client, batch]).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"num-examples": len(y[client])}),
    }
    return Message(content=RecordDict(content), reply_to=message)
