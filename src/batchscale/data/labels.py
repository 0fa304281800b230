"""Which numbers the targets of one's own data may hold, by the task that they are for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from batchscale.errors import DataError
from batchscale.structure import IGNORED

_AXES = {"classification": 1, "multilabel": 2, "segmentation": 3}
"""Task -> axes of its targets; what others learn from is theirs to say."""

_AT_ONCE = 256  # examples whose targets are looked at together: masks of all at once would take as much memory again


def check_labels(
    targets: object, task: str, num_classes: int, name: str, number_of: Callable[[int], int] = lambda place: place
) -> None:
    """Raise where a target holds what is no class.

    Args:
        targets: of m examples; what is no tensor of the task's axes the task itself refuses.
        task: its name.
        num_classes: C; 0 where it is not known.
        name: of the part, for errors.
        number_of: place in ``targets`` -> number of the item.

    Raises:
        DataError: the first such item, and its label.
    """
    if not num_classes or not isinstance(targets, torch.Tensor) or targets.ndim != _AXES.get(task):
        return
    for start in range(0, len(targets), _AT_ONCE):
        values = targets[start : start + _AT_ONCE]
        values = values if values.is_floating_point() else values.long()
        if task == "multilabel":
            outside = (values != 0) & (values != 1) & (values != IGNORED)
        else:
            outside = (values < 0) | (values >= num_classes)
            outside &= (values != IGNORED) | (task != "segmentation")
        if outside.any():
            place = start + int(outside.nonzero()[0, 0])
            raise DataError(
                f"data: {name} item {number_of(place)} has the label {values[outside][0].item():g}: must "
                f"{_rule(task, num_classes)}"
            )


def _rule(task: str, num_classes: int) -> str:
    if task == "multilabel":
        return f"be 0 or 1, or {IGNORED} for neither; mend it"
    none = f", or be {IGNORED} for none" if task == "segmentation" else ""
    return f"lie in 0..{num_classes - 1}{none}; mend it, or say how many classes there are with data.classes=N"
