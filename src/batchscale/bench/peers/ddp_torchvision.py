"""DistributedDataParallel on torchvision's data set: DataLoader, DistributedSampler, ToTensor, Normalize.

Source: docs.pytorch.org/tutorials/beginner/ddp_series_multigpu.html and torchvision's data-set and transform pages.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch.distributed as dist
import torchvision
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, DistributedSampler
from torchvision import transforms

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter


def main(assignment: Assignment, meter: Meter) -> None:
    """Train without end."""
    dist.init_process_group("gloo")
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(assignment.mean, assignment.std)])
    dataset_class = getattr(torchvision.datasets, assignment.torchvision_name)
    dataset = dataset_class(root=assignment.torchvision_root, train=True, transform=transform)
    sampler: DistributedSampler[Any] = DistributedSampler(dataset)
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
