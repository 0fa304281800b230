"""Several labels an image: a 0/1 vector, each class told for itself, judged by mean average precision.

l(x) = (1 / K) sum over the K classes c that x has an entry for of  -y_c log s(z_c) - (1 - y_c) log(1 - s(z_c))

with s the logistic function. An entry of 255 is neither (VOC's difficult objects): it counts in no sum.

    AP_c = sum_i (R_i - R_(i-1)) P_i,   P_i and R_i over all images whose score is at least the i-th largest one

Images of one score enter together, so the order of ties does not matter. A class without a 1 in truth has no AP: it is
left out of the mean, and counted. No interpolation; VOC's own 2007 figures take 11 points of it.

Source: Everingham et al. 2010, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from batchscale.errors import RecipeError
from batchscale.task.base import Evaluated, EvaluatedPass, Model, ScoreKind, Task, described
from batchscale.words import counted

UNSAID = 255
"""In a vector of labels: neither 0 nor 1."""


class Multilabel(Task):
    """Logits (m, classes) against labels (m, classes) of 0, 1 or 255, of any type.

    Args:
        num_classes: C.
        label_smoothing: has no place here.

    Raises:
        RecipeError: smoothing.
    """

    name = "multilabel"
    examples = "images"
    needs_classes = True
    score_kinds = (ScoreKind("mean-ap", "%", "higher"), ScoreKind("error", "%"), ScoreKind("classes-absent"))
    predicts = True

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        if label_smoothing:
            raise RecipeError(f"loss.label_smoothing={label_smoothing:g} has no place in task=multilabel; leave it out")
        self._classes = num_classes

    def train_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every image's mean over its classes, summed over images."""
        logits = model(inputs)
        return self.losses(logits, targets).sum(), logits

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of every image."""
        valid = targets != UNSAID
        truth = (targets == 1).to(outputs.dtype)
        entries = F.binary_cross_entropy_with_logits(outputs, truth, reduction="none") * valid
        return entries.sum(1) / valid.sum(1).clamp(min=1)

    def evaluate_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> EvaluatedPass:
        """The loss; of every image its logits and its labels."""
        logits = model(inputs)
        predictions = list(zip(logits.double().tolist(), targets.long().tolist(), strict=True))
        return EvaluatedPass(self.losses(logits, targets).sum(), torch.zeros(0), predictions)

    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """Mean average precision; images of which a label is told wrong (s(z) above 1/2: a 1); both in percent."""
        logits, labels = (np.array(column) for column in zip(*evaluated.predictions, strict=True))
        wrong = (((logits > 0) != (labels == 1)) & (labels != UNSAID)).any(1)
        present = [ap for ap in self._class_aps(logits, labels) if ap is not None]
        return {
            "mean-ap": 100 * sum(present) / len(present) if present else 0.0,
            "error": 100 * float(wrong.mean()),
            "classes-absent": float(self._classes - len(present)),
        }

    def _class_aps(self, logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> list[float | None]:
        return [
            average_precision(logits[valid, number], labels[valid, number] == 1)
            for number in range(self._classes)
            for valid in [labels[:, number] != UNSAID]
        ]

    def sentence(self, scores: Mapping[str, float], evaluated: Evaluated) -> str:
        """Both scores and the loss."""
        return (
            f"mean AP {scores['mean-ap']:.2f} % over {self._classes - int(scores['classes-absent'])} of "
            f"{counted(self._classes, 'label')}, images with a label wrong {scores['error']:.2f} %, loss "
            f"{evaluated.loss:.4f} over {counted(evaluated.examples, 'image')}"
        )

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """A vector of 0, 1 and 255 an image."""
        if not isinstance(targets, torch.Tensor) or targets.shape != outputs.shape:
            raise RecipeError(
                f"task=multilabel: the data's targets are {described(targets)}: must be one 0/1 vector an image, "
                f"{tuple(outputs.shape)}; use data with several labels, or the task that these are of"
            )
        if not ((targets == 0) | (targets == 1) | (targets == UNSAID)).all():
            raise RecipeError(
                f"task=multilabel: the data's targets hold {targets.max().item():g}: must be 0, 1, or {UNSAID} for "
                f"neither; convert them"
            )

    def check(self, outputs: Any, examples: int) -> None:
        """Logits, one row an example."""
        if isinstance(outputs, torch.Tensor) and outputs.shape == (examples, self._classes):
            return
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise RecipeError(
            f"model: gives {shape} for {counted(examples, 'image')}: must give logits ({examples}, {self._classes})"
        )


def average_precision(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float | None:
    """AP of one class, from 0 to 1; None where nothing is positive.

    Args:
        scores: (M,), higher for more likely.
        positive: (M,), the truth.
    """
    if not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    hits, places = hits[last_of_ties], np.arange(1, len(order) + 1)[last_of_ties]
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / places))
