"""Lightning's Trainer on a TensorDataset of normalised floats, under torchrun's environment.

Source: lightning.ai/docs/pytorch/stable: starter/introduction, common/trainer, clouds/cluster_intermediate_2
(torchrun). Loggers, progress bar, checkpoints and the model summary are off: they are not the training step.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchscale.bench.assignment import Assignment
from batchscale.bench.meter import Meter


class LitModel(lightning.LightningModule):
    """The network, its loss and its optimizer."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__()
        self.assignment = assignment
        self.model = assignment.model()
        self.loss_fn = assignment.mean_loss

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of one batch."""
        images, labels = batch
        loss: torch.Tensor = self.loss_fn(self.model(images), labels)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return self.assignment.optimizer(self.parameters())


class MeterCallback(lightning.Callback):
    """``meter.step()`` at the end of each step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_batch_end(self, *arguments: Any) -> None:
        """A step is done."""
        self.meter.step()


def main(assignment: Assignment, meter: Meter) -> None:
    """Train without end."""
    dataset = TensorDataset(*assignment.normalised())
    loader = DataLoader(dataset, batch_size=assignment.process_images, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=assignment.processes,
        strategy="ddp",
        max_epochs=-1,
        callbacks=[MeterCallback(meter)],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(LitModel(assignment), loader)
