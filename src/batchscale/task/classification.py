"""Classification: one class an example, softmax cross-entropy, the test error in percent.

l(x) = -sum_c q_c log softmax(z)_c,   q = (1 - s) onehot(y) + s / C,   s the label smoothing (0 in evaluation)
error = 100 / M sum over examples [argmax z != y]

Source: Goyal et al. 2017, equation 1; Szegedy et al. 2016, section 7 (label smoothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from batchscale.errors import RecipeError
from batchscale.task.base import Evaluated, EvaluatedPass, Model, ScoreKind, Task, described
from batchscale.words import counted


class Classification(Task):
    """Logits (m, classes) against labels int64 (m,).

    Args:
        num_classes: expected width of the logits.
        label_smoothing: s, in training alone.
    """

    name = "classification"
    examples = "images"
    needs_classes = True
    score_kinds = (ScoreKind("error", "%", "lower"),)
    count_names = ("wrong",)
    training_counts = evaluation_counts = largest_count = 1

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        self._num_classes, self._label_smoothing = num_classes, label_smoothing

    def train_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy with smoothing, summed."""
        logits = model(inputs)
        return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self._label_smoothing), logits

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with smoothing, of each."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self._label_smoothing)

    def counts(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How many are told wrong."""
        return (outputs.detach().argmax(1) != targets).sum().view(1)

    def evaluate_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> EvaluatedPass:
        """Cross-entropy without smoothing, and how many are told wrong."""
        logits = model(inputs)
        return EvaluatedPass(F.cross_entropy(logits, targets, reduction="sum"), self.counts(logits, targets))

    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """The error."""
        return {"error": 100.0 * evaluated.counts[0] / evaluated.examples}

    def sentence(self, scores: Mapping[str, float], evaluated: Evaluated) -> str:
        """The error, and the images behind it."""
        wrong = f"{evaluated.counts[0]} of {evaluated.examples}"
        return f"error {scores['error']:.2f} % ({wrong}), loss {evaluated.loss:.4f}"

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """One label an example."""
        if not isinstance(targets, torch.Tensor) or targets.ndim != 1:
            raise RecipeError(
                f"task=classification: the data's targets are {described(targets)}: must be one label an example; use "
                f"other data, or the task that these are of"
            )
        if targets.dtype not in (torch.int64, torch.uint8):
            raise RecipeError(
                f"task=classification: the data's targets are {described(targets)}: must be whole numbers, int64; "
                f"convert them, or use the task that these are of"
            )

    def check(self, outputs: Any, examples: int) -> None:
        """Logits, one row an example."""
        if isinstance(outputs, torch.Tensor) and outputs.shape == (examples, self._num_classes):
            return
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise RecipeError(
            f"model: gives {shape} for {counted(examples, 'image')}: must give logits ({examples}, {self._num_classes})"
        )
