"""Models, data sets, tasks, optimizers and all-reduces of one's own package, used by every command under their names.

Registering is one call each. Who calls is loaded by every command and in every process of a run: as an entry point of
the group ``batchscale.plugins`` in an installed package, or as ``--plugin MODULE``; in Python an import is enough. The
name then stands in recipes as any other: ``model.name=NAME``, ``data.name=NAME``, ``task=NAME``, and
``optimizer.name=NAME`` with the options of its entry, ``execution.aggregation.algorithm=NAME``. ``examples/plugin/``
holds one of each.

What is registered may also be a text ``module:attribute``, imported when it is first used; then the names of a recipe
are checked without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from batchscale.errors import UsageError
from batchscale.members import ALL_REDUCES, BETWEEN, DATASETS, MODELS, ON_DISK, PAIRS, TASKS, TEXTS, WITH_BOXES
from batchscale.recipe.optimizer import OPTIMIZER_ENTRIES, OPTIMIZERS, OptimizerEntry, WithMomentum


def register_model(name: str, builder: Callable[[tuple[int, ...], int], Any] | str) -> None:
    """A model for ``model.name``.

    Args:
        name: in recipes.
        builder: (image shape (C, H, W), number of classes) -> torch module: images (m, C, H, W) -> logits (m, classes);
            of tokens or volumes it says so by ``models.taking.takes_tokens`` or ``takes_volumes``.

    Raises:
        UsageError: another model has this name.
    """
    MODELS.add(name, builder)


def register_data(
    name: str, source: Any, *, on_disk: bool = False, holds: Literal["labels", "pairs", "boxes", "text"] = "labels"
) -> None:
    """A data set for ``data.name``.

    Args:
        name: in recipes.
        source: a ``batchscale.data.source.Source`` of this name; of other examples than images with one label each a
            ``ReadAsItLies``, whose ``open`` gives ``Splits`` of any structure.
        on_disk: its images are decoded as they are used, as ``data.subset`` and the like suppose.
        holds: what a recipe may say of it: pairs of image and mask (``data.augment.size``), images with boxes
            (``data.resize``), a text (``data.sequence``, which it then needs, ``data.tokens``, ``data.test_share``).

    Raises:
        UsageError: another data set has this name, or ``holds`` is none of these.
    """
    listed = {"labels": None, "pairs": PAIRS, "boxes": WITH_BOXES, "text": TEXTS}
    if holds not in listed:
        raise UsageError(f"data set {name!r}: holds={holds!r}: must be one of {', '.join(listed)}")
    DATASETS.add(name, source)
    for names in (ON_DISK if on_disk else None, listed[holds]):
        if names is not None and name not in names:
            names.append(name)


def register_task(name: str, task: Callable[..., Any] | str) -> None:
    """A task for ``task``.

    Args:
        name: in recipes.
        task: a class of ``batchscale.task.Task`` of this name, or (number of classes, label_smoothing) -> one.

    Raises:
        UsageError: another task has this name.
    """
    TASKS.add(name, task)


def register_optimizer(name: str, entry: type[OptimizerEntry], builder: Callable[..., Any] | str) -> None:
    """An optimizer for ``optimizer.name``.

    Args:
        name: in recipes.
        entry: its options, a class of ``OptimizerEntry`` (and ``WithMomentum``); ``name: Literal["NAME"] = "NAME"``.
        builder: (groups, **options of the entry) -> object with ``step(lr)`` and ``state()``, as in
            ``batchscale.update.optimizers.Optimizer``; groups: (parameters, their weight decay) each.

    Raises:
        UsageError: another optimizer has this name, or the entry is of another one.
    """
    OPTIMIZER_ENTRIES.check(name, entry)
    OPTIMIZERS.add(name, builder)
    OPTIMIZER_ENTRIES.add(name, entry)


def register_all_reduce(name: str, collective: Any, *, between_hosts: bool = False) -> None:
    """An all-reduce for ``execution.aggregation.algorithm``.

    Args:
        name: in recipes.
        collective: a class of ``batchscale.comm.collectives.schedule.Collective``.
        between_hosts: it is a ``GroupCollective`` that may stand in ``execution.aggregation.between``, too.

    Raises:
        UsageError: another all-reduce has this name.
    """
    ALL_REDUCES.add(name, collective)
    if between_hosts:
        BETWEEN.add(name, collective)


__all__ = [
    "OptimizerEntry",
    "WithMomentum",
    "register_all_reduce",
    "register_data",
    "register_model",
    "register_optimizer",
    "register_task",
]
