"""DistributedDataParallel on a TensorDataset of normalised floats: DataLoader, DistributedSampler.

Source: docs.pytorch.org/tutorials/beginner/ddp_series_multigpu.html.
"""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter


def main(assignment: Assignment, meter: Meter) -> None:
    """Train without end."""
    dist.init_process_group("gloo")
    dataset = TensorDataset(*assignment.normalised())
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=assignment.process_images, sampler=sampler, drop_last=True)

    model = DDP(assignment.model())
    loss_fn = assignment.mean_loss
    optimizer = assignment.optimizer(model.parameters())

    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            meter.step()
