"""Accelerate on a TensorDataset of normalised floats.

Source: huggingface.co/docs/accelerate: quicktour and basic_tutorials/migration.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchscale.bench.meter import Meter
from batchscale.bench.task import Task


def main(task: Task, meter: Meter) -> None:
    """Train without end."""
    accelerator = Accelerator(cpu=True)
    dataset = TensorDataset(*task.normalised())
    loader = DataLoader(dataset, batch_size=task.process_images, shuffle=True, drop_last=True)
    model = task.model()
    loss_fn = nn.CrossEntropyLoss(label_smoothing=task.label_smoothing)
    optimizer = torch.optim.SGD(model.parameters(), **task.sgd)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            meter.step()
