"""What tests of gradients sent in 16 bits run in other processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from batchscale.aggregate import FastAggregator
from batchscale.comm import Choice, Reducer, World
from batchscale.comm.collectives.point_to_point import PointToPoint
from batchscale.comm.shared.all_reduce import SharedMemoryAllReduce
from batchscale.comm.world import world as worlds
from support.reductions import collectives, fingerprint, values
from support.worlds import CPU

WIRES = (torch.bfloat16, torch.float16)
LENGTH = 61


def by_every_schedule(world: World) -> dict[tuple[str, str], tuple[str, int]]:
    """Of every algorithm and wire, None too: the bits of the sum, and the bytes that this rank gave to the network."""
    sent = 0
    isend = dist.isend

    def counting(tensor: torch.Tensor, *arguments: Any) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return isend(tensor, *arguments)

    dist.isend = counting
    outcomes = {}
    for collective in collectives(world.size):
        between = PointToPoint(world, collective)
        for wire in (None, *WIRES):
            tensor, sent = values(world.size, "float32", LENGTH)[world.rank].clone(), 0
            between.all_reduce(tensor, wire=wire)
            outcomes[collective.name, str(wire)] = (fingerprint(tensor), sent)
    dist.isend = isend
    return outcomes


def in_shared_memory(world: World) -> list[tuple[torch.Tensor, ...]]:
    """(values of all ranks, sum) of lengths that are small, in a slot, and over several, in place and elsewhere."""
    shared = SharedMemoryAllReduce(world)
    cases = []
    for wire in WIRES:
        for length in (7, 40_001, 700_001):
            everyone = values(world.size, "float32", length)
            for tensor in (shared.zeros(length, torch.float32), torch.empty(length)):
                tensor.copy_(everyone[world.rank])
                shared.start(tensor, wire=wire).wait()
                cases.append((everyone, tensor.clone()))
    shared.close()
    return cases


def by_reducer(rank: int, algorithm: str, hosts: list[str]) -> list[torch.Tensor]:
    """Sums by a reducer's engine, ranks lying on hosts of these names."""
    worlds.this_host = lambda: hosts[rank]  # type: ignore[attr-defined]
    world = World.connect(CPU, 60.0)
    reducer, sums = Reducer(world), []
    for wire in WIRES:
        tensor = values(world.size, "float32", 50_001)[world.rank].clone()
        reducer.all_reduce(tensor, "a test", algorithm, wire)
        sums.append(tensor)
    reducer.close()
    world.close()
    return sums


class Given(nn.Module):
    """Parameters whose gradients are given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(length)) for length in (50_000, 300))

    def backward(self, gradient: torch.Tensor) -> None:
        first, second = torch.split(gradient, [50_000, 300])
        ((self.first * first).sum() + (self.second * second).sum()).backward()


def aggregated(
    world: World, wire: torch.dtype | None, algorithm: str, scales: list[float]
) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of a step for every scale of its gradients: attempts, sums of the gradients, of an extra, of a count."""
    model, reducer = Given(), Reducer(world)
    reducer.use(Choice(((0, algorithm),)))
    aggregator = FastAggregator(list(model.parameters()), reducer, {"loss": [3]}, ("asks",), 100_000, wire=wire)
    steps = []
    for step, scale in enumerate(scales):
        generator = torch.Generator().manual_seed(10 * step + world.rank)
        gradient = scale * torch.randn(50_300, generator=generator)
        attempts = 0
        for _ in aggregator.attempts():
            attempts += 1
            aggregator.flat.extras["loss"].fill_(1 + 2.0**-20 * (world.rank + 1))
            aggregator.flat.counts["asks"].fill_(2.0**20 + world.rank)
            aggregator.last_pass()
            model.backward(gradient)
            aggregator.add()
        gradients = torch.cat([model.first.grad, model.second.grad]).clone()  # type: ignore[list-item]
        flat = aggregator.flat
        steps.append((attempts, gradients, flat.extras["loss"].clone(), flat.counts["asks"].clone()))
    aggregator.close()
    return steps
