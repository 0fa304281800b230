"""Detection: objects with a box and a class each, the loss a worker's own, judged by COCO's average precision.

L_j = sum of the model's losses over the m images of a pass of worker j,   g = (1 / kn) grad sum_j m L_j

The model is one of torchvision's form: in training (images, targets) -> losses by name, in evaluation (images) ->
boxes, labels and scores of every image. Its losses are means over anchors and proposals sampled of the whole pass, so
they hang on n as batch norm does: the unit is a worker. The samples are drawn by key (seed, step, worker).

In evaluation every image is a pass by itself, so that no number hangs on which images stand together. Its loss is that
of training with nothing but the model's containers in training mode (batch norm and dropout stay as in evaluation),
its samples drawn from one constant key.

Source: Ren et al. 2015 (Faster R-CNN); He et al. 2017 (Mask R-CNN); Lin et al. 2014 (COCO).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from batchscale.errors import RecipeError
from batchscale.task.average_precision import average_precisions, check_installed, encoded
from batchscale.task.base import Evaluated, EvaluatedPass, Model, ScoreKind, Task, described
from batchscale.words import counted

_SAMPLES = 17  # the constant key of an evaluation's samples

Targets = Sequence[Mapping[str, torch.Tensor]]
"""Of every image: boxes (b, 4) as x1, y1, x2, y2 in pixels, labels int64 (b,) from 1; where the data has them crowd
bool (b,), a region that is no example and no error, and masks uint8 (b, H, W)."""


class Detection(Task):
    """Losses by name in training, boxes with labels and scores in evaluation.

    Args:
        num_classes: C, the background (0) included.
        label_smoothing: 0: the loss is the model's own.
        masks: instances have masks, and the model gives some.

    Raises:
        RecipeError: smoothing, or pycocotools is not installed.
    """

    name = "detection"
    examples = "images"
    unit = "worker"
    predicts = True

    def __init__(self, num_classes: int, label_smoothing: float = 0.0, masks: bool = False) -> None:
        if label_smoothing:
            raise RecipeError(
                f"loss.label_smoothing={label_smoothing:g}: task=detection has the model's own loss; leave it out"
            )
        check_installed()
        self._classes, self._masks = num_classes, masks
        names = ("ap", "ap50", "ap75", "mask-ap", "mask-ap50") if masks else ("ap", "ap50", "ap75")
        self.score_kinds = tuple(ScoreKind(name, "%", "higher") for name in names)

    def train_pass(self, model: Model, inputs: Any, targets: Targets) -> tuple[torch.Tensor, Any]:
        """m times the sum of the model's losses of its m images."""
        losses = self.outputs(model, inputs, targets)
        return len(targets) * _total(losses), losses

    def outputs(self, model: Model, inputs: Any, targets: Targets) -> Any:
        """The model's losses by name."""
        _check_form(targets)  # before a model of this form speaks of what it misses
        self._check_masks(model)
        return model(list(inputs), [_trained_on(target) for target in targets])

    def evaluate_pass(self, model: Model, inputs: Any, targets: Targets) -> EvaluatedPass:
        """Every image by itself: its loss, and what is found beside what is true."""
        total = torch.zeros((), dtype=torch.float64)
        predictions = []
        for image, target in zip(inputs, targets, strict=True):
            (detected,) = model([image])
            predictions.append(
                {"size": list(image.shape[-2:]), "truth": encoded(target), "detected": encoded(detected)}
            )
            if isinstance(model, nn.Module):
                total += _loss_of(model, image, target).cpu()
        return EvaluatedPass(total, torch.zeros(0), predictions)

    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """AP (over IoU 0.5 to 0.95), AP50 and AP75 in percent; of masks, too."""
        scores = average_precisions(evaluated.predictions, "bbox")
        if self._masks:
            masks = average_precisions(evaluated.predictions, "segm")
            scores |= {"mask-ap": masks["ap"], "mask-ap50": masks["ap50"]}
        return scores

    def check(self, outputs: Any, examples: int) -> None:
        """Losses by name, of masks where there are some."""
        losses = outputs if isinstance(outputs, Mapping) else {}
        if not losses or not all(isinstance(loss, torch.Tensor) and loss.ndim == 0 for loss in losses.values()):
            raise RecipeError(
                f"model: gives {described(outputs)} for {counted(examples, 'image')} with targets in training: must "
                f"give losses by name, as torchvision's detectors do; use faster_rcnn_resnet18, for example"
            )
        if self._masks and "loss_mask" not in losses:
            raise RecipeError(
                "data.masks=instances: the model has no loss of masks; use model.name=torchvision/maskrcnn_resnet50_fpn"
                ", or leave data.masks out"
            )

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """A mapping with boxes and labels an image."""
        _check_form(targets)
        for target in targets:
            labels = target["labels"]
            if labels.numel() and not 1 <= int(labels.min()) <= int(labels.max()) < self._classes:
                raise RecipeError(
                    f"task=detection: a label is {int(labels.max())}: must be 1 to {self._classes - 1} (0 is the "
                    f"background); mend the data's labels, or its number of classes"
                )

    def _check_masks(self, model: Model) -> None:
        has_mask = getattr(getattr(model, "roi_heads", None), "has_mask", None)
        if not self._masks and has_mask is not None and has_mask():
            raise RecipeError(
                "model: learns masks, and none are read; give data.masks=instances, or use a model of boxes alone"
            )


def _check_form(targets: Any) -> None:
    is_list = isinstance(targets, (list, tuple)) and all(isinstance(target, Mapping) for target in targets)
    if not is_list or not all({"boxes", "labels"} <= target.keys() for target in targets):
        raise RecipeError(
            f"task=detection: the data's targets are {described(targets)}: must be a list with boxes and labels "
            f"of every image; use data with boxes, or the task that these are of"
        )


def _total(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def _trained_on(target: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of an image's target is learned: all but crowds, whose boxes hold many objects."""
    learned = {name: value for name, value in target.items() if name in ("boxes", "labels", "masks")}
    if "crowd" not in target:
        return learned
    single = ~target["crowd"]
    return {name: value[single] for name, value in learned.items()}


def _loss_of(model: nn.Module, image: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
    devices = [image.device] if image.is_cuda else []
    with _containers_train(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(_SAMPLES)
        return _total(model([image], [_trained_on(target)])).double()


@contextmanager
def _containers_train(model: nn.Module) -> Iterator[None]:
    """Training mode of what holds other modules, such as the heads that then give losses; layers stay as they are."""
    containers = [module for module in model.modules() if any(True for _ in module.children())]
    modes = [module.training for module in containers]
    for module in containers:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(containers, modes, strict=True):
            module.training = mode
