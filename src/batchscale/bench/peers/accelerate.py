"""Accelerate on a TensorDataset of normalised floats.

Source: huggingface.co/docs/accelerate: quicktour and basic_tutorials/migration.
"""

from __future__ import annotations

from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter


def main(assignment: Assignment, meter: Meter) -> None:
    """Train without end."""
    accelerator = Accelerator(cpu=True)
    dataset = TensorDataset(*assignment.normalised())
    loader = DataLoader(dataset, batch_size=assignment.process_images, shuffle=True, drop_last=True)
    model = assignment.model()
    loss_fn = assignment.mean_loss
    optimizer = assignment.optimizer(model.parameters())
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            meter.step()
