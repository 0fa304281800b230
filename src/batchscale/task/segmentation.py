"""Segmentation: a class for every pixel, the loss a mean over an image's pixels, judged by IoU over the whole set.

l(x) = (1/P) sum over the P pixels p of x that have a class of l_p,   one of

    cross_entropy   l_p = -w_(y_p) log softmax(z_p)_(y_p),   w_c the weight of class c, 1 where none is named
    binary          l_p = -y_p log s(z_p) - (1 - y_p) log(1 - s(z_p)),   one logit a pixel, s the logistic function
    dice            l(x) = 1 - mean over classes c of (2 sum_p q_pc t_pc + 1) / (sum_p q_pc + sum_p t_pc + 1)

with q the probabilities and t the truth, 0 or 1. Of two classes Dice takes the foreground alone.

    IoU_c = C_cc / (sum_j C_cj + sum_j C_jc - C_cc),   C_ij the pixels of truth i that are told to be j, of all images

C is a sum of whole numbers, so it is the same for every W. A class that neither truth nor prediction holds has no IoU:
it is left out of the mean, and counted.

Source: Ronneberger et al. 2015 (U-Net); Milletari et al. 2016, section 3 (Dice); Everingham et al. 2010, section 4.5;
Kurth et al. 2018, section V-B1 (weighted classes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F

from batchscale.errors import RecipeError
from batchscale.structure import IGNORED
from batchscale.task.base import Evaluated, EvaluatedPass, Model, ScoreKind, Task, described
from batchscale.words import counted

PixelLoss = Literal["cross_entropy", "binary", "dice"]

_AUXILIARY = 0.5  # the weight of an auxiliary classifier's loss, as in torchvision's reference training
_MOST_COUNTED = 32  # classes whose matrix is summed in training, too: C^2 numbers with every step


_SPREAD = 64  # places for each number, so that few of a GPU's additions meet at one


def _counts_on_host(numbers: torch.Tensor, length: int) -> torch.Tensor:
    """How often each of 0 ... length - 1 is among whole numbers (m,), (length,)."""
    return torch.bincount(numbers, minlength=length)


def _counts_on_device(numbers: torch.Tensor, length: int) -> torch.Tensor:
    """The same, where bincount would make the host wait: it looks for the largest number first."""
    places = numbers * _SPREAD + torch.arange(len(numbers), device=numbers.device) % _SPREAD
    sums = places.new_zeros(length * _SPREAD).scatter_add_(0, places, torch.ones_like(places))
    return sums.view(length, _SPREAD).sum(1)


class Segmentation(Task):
    """Logits (m, classes, H, W), or (m, 1, H, W) for ``binary``, against masks (m, H, W) of whole numbers.

    A model may give torchvision's {"out": logits, "aux": logits}.

    Args:
        num_classes: C; with two, class 1 is the foreground.
        label_smoothing: of the cross-entropy, in training alone.
        loss: a pixel's, or an image's.
        class_weights: w of the cross-entropy, a number a class; none: all 1. They multiply pixels' losses, and the
            divisor stays P: an image of a rare class alone weighs more than one of a common class alone.

    Raises:
        RecipeError: a binary loss of other than two classes; smoothing, or weights, of another loss than the
            cross-entropy; another number of weights than classes.
    """

    name = "segmentation"
    examples = "images"
    needs_classes = True

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        loss: PixelLoss = "cross_entropy",
        class_weights: Sequence[float] = (),
    ) -> None:
        if loss == "binary" and num_classes != 2:
            raise RecipeError(
                f"loss.kind=binary: is made for two classes, and the data has {num_classes}; use "
                f"loss.kind=cross_entropy"
            )
        for option, is_set in (("label_smoothing", label_smoothing), ("class_weights", class_weights)):
            if is_set and loss != "cross_entropy":
                value = f"{is_set:g}" if isinstance(is_set, float) else list(is_set)
                raise RecipeError(
                    f"loss.{option}={value} has no place in loss.kind={loss}; leave it out, or use "
                    f"loss.kind=cross_entropy"
                )
        if class_weights and len(class_weights) != num_classes:
            raise RecipeError(
                f"loss.class_weights={list(class_weights)}: {counted(len(class_weights), 'number')} for "
                f"{counted(num_classes, 'class')}: must be one a class, the background included"
            )
        self._weights = list(class_weights)
        self._weights_on: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}
        self._classes, self._smoothing, self._loss = num_classes, label_smoothing, loss
        self.score_kinds = (
            ScoreKind("iou", "%", "higher"),
            ScoreKind("mean-iou", "%", "higher"),
            ScoreKind("pixel-accuracy", "%", "higher"),
            ScoreKind("classes-absent"),
        )
        self.evaluation_counts = num_classes**2
        self.training_counts = num_classes**2 if num_classes <= _MOST_COUNTED else 0
        if num_classes == 2:
            self.count_names = ("true_negatives", "false_positives", "false_negatives", "true_positives")

    def train_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Every image's mean over its pixels, summed over images."""
        outputs = model(inputs)
        return self.losses(outputs, targets).sum(), outputs

    def losses(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """Of every image, auxiliary classifiers' included."""
        logits, auxiliary = _logits(outputs)
        loss = self._image_losses(logits, targets, self._smoothing)
        return (
            loss if auxiliary is None else loss + _AUXILIARY * self._image_losses(auxiliary, targets, self._smoothing)
        )

    def _image_losses(self, logits: torch.Tensor, masks: torch.Tensor, smoothing: float) -> torch.Tensor:
        valid = masks != IGNORED
        if self._loss == "dice":
            return self._dice(logits, masks, valid)
        if self._loss == "binary":
            truth = (masks == 1).to(logits.dtype)
            pixels = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none") * valid
        else:
            masks = masks.long()
            pixels = F.cross_entropy(logits, masks, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing)
            if self._weights:
                pixels = pixels * self._class_weights(pixels)[masks.masked_fill(~valid, 0)]
        return pixels.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies on devices, which may be wrappers of torch.func's that nothing can copy."""
        return {**self.__dict__, "_weights_on": {}}

    def _class_weights(self, like: torch.Tensor) -> torch.Tensor:
        """w (classes), of the type and on the device of these numbers; made once, for a device waits for each copy."""
        weights = self._weights_on.get((like.device, like.dtype))
        if weights is None:
            weights = torch.tensor(self._weights, dtype=like.dtype, device=like.device)
            self._weights_on[like.device, like.dtype] = weights
        return weights

    def _dice(self, logits: torch.Tensor, masks: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        classes = torch.arange(self._classes, device=masks.device).view(1, -1, 1, 1)
        truth = (masks.unsqueeze(1) == classes).to(logits.dtype)
        probabilities = logits.softmax(1) * valid.unsqueeze(1)
        if self._classes == 2:
            truth, probabilities = truth[:, 1:], probabilities[:, 1:]
        overlap, total = (probabilities * truth).sum((2, 3)), probabilities.sum((2, 3)) + truth.sum((2, 3))
        return 1 - ((2 * overlap + 1) / (total + 1)).mean(1)

    def counts(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """The confusion matrix, truth by truth; none where it is too large to go with every step."""
        if not self.training_counts:
            return torch.zeros(0)
        return self._confusion(_logits(outputs)[0].detach(), targets)

    def _confusion(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        told = logits[:, 0] > 0 if self._loss == "binary" else logits.argmax(1)
        # Ignored pixels are counted beside the matrix: to pick the others out by a mask cost 1.4 % of a U-Net step,
        # and numbers of 64 bits 0.5 %.
        pairs = masks.int().mul_(self._classes).add_(told).masked_fill_(masks == IGNORED, self._classes**2)
        count = _counts_on_host if pairs.device.type == "cpu" else _counts_on_device
        return count(pairs.flatten(), self._classes**2 + 1)[:-1]

    def evaluate_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> EvaluatedPass:
        """The loss without smoothing and without auxiliary classifiers; the confusion matrix."""
        logits, _ = _logits(model(inputs))
        return EvaluatedPass(self._image_losses(logits, targets, 0.0).sum(), self._confusion(logits, targets))

    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """IoU (of two classes the foreground's, else the mean), the mean, pixel accuracy; in percent."""
        ious = self.class_ious(evaluated.counts)
        present = [iou for iou in ious if iou is not None]
        mean = 100 * sum(present) / len(present) if present else 0.0
        # An image set without foreground, told to have none, is told right: 100.
        foreground = 100.0 if ious[1:2] == [None] else 100 * (ious[1] or 0.0) if self._classes == 2 else mean
        pixels, right = sum(evaluated.counts), sum(evaluated.counts[:: self._classes + 1])
        return {
            "iou": foreground if self._classes == 2 else mean,
            "mean-iou": mean,
            "pixel-accuracy": 100 * right / pixels if pixels else 0.0,
            "classes-absent": float(len(ious) - len(present)),
        }

    def class_ious(self, counts: Sequence[int]) -> list[float | None]:
        """IoU of every class, from 0 to 1; None of one that neither truth nor prediction holds."""
        size = self._classes
        ious: list[float | None] = []
        for number in range(size):
            overlap = counts[number * size + number]
            union = sum(counts[number * size : (number + 1) * size]) + sum(counts[number::size]) - overlap
            ious.append(overlap / union if union else None)
        return ious

    def sentence(self, scores: Mapping[str, float], evaluated: Evaluated) -> str:
        """IoU, the IoU of every class, accuracy and loss."""
        ious = (f"{100 * iou:.1f}" if iou is not None else "-" for iou in self.class_ious(evaluated.counts))
        return (
            f"IoU {scores['iou']:.2f} % (by class {', '.join(ious)}; mean {scores['mean-iou']:.2f} %), pixels right "
            f"{scores['pixel-accuracy']:.2f} %, loss {evaluated.loss:.4f} over {counted(evaluated.examples, 'image')}"
        )

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """A mask of the logits' height and width an image."""
        logits, _ = _logits(outputs)
        if not isinstance(targets, torch.Tensor) or targets.ndim != 3 or targets.is_floating_point():
            raise RecipeError(
                f"task=segmentation: the data's targets are {described(targets)}: must be masks of whole numbers, "
                f"(images, H, W); use data with masks, or the task that these are of"
            )
        if targets.shape[1:] != logits.shape[2:]:
            raise RecipeError(
                f"model: gives logits of {tuple(logits.shape[2:])} for masks of {tuple(targets.shape[1:])}: must be "
                f"the same; use a model that keeps height and width"
            )

    def check(self, outputs: Any, examples: int) -> None:
        """Logits for every pixel."""
        channels = 1 if self._loss == "binary" else self._classes
        logits = outputs.get("out") if isinstance(outputs, Mapping) else outputs
        if isinstance(logits, torch.Tensor) and logits.ndim == 4 and logits.shape[:2] == (examples, channels):
            return
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(outputs).__name__
        raise RecipeError(
            f"model: gives {shape} for {counted(examples, 'image')}: must give logits ({examples}, {channels}, H, W) "
            f"of the mask's H and W"
        )


def _logits(outputs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(logits, an auxiliary classifier's or None)."""
    if isinstance(outputs, Mapping):
        return outputs["out"], outputs.get("aux")
    return outputs, None
