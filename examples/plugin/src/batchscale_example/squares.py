"""Classification by least squares: l(x) = 1/2 |z - onehot(y)|^2, judged by the error as before."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from batchscale.task import Classification, EvaluatedPass
from batchscale.task.base import Model


class Squares(Classification):
    """Outputs (m, classes) against labels int64 (m,); label smoothing has no place in it."""

    name = "example_squares"

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Half the squared distance, of each."""
        wanted = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return (outputs - wanted).square().sum(1) / 2

    def train_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the losses."""
        outputs = model(inputs)
        return self.losses(outputs, targets).sum(), outputs

    def evaluate_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> EvaluatedPass:
        """The same sum, and how many are told wrong."""
        loss, outputs = self.train_pass(model, inputs, targets)
        return EvaluatedPass(loss, self.counts(outputs, targets))
