"""One's own module, data and task as the function that measures are of.

``batchscale.measure.NAME(model, data, task, ...)`` is ``of_own`` in the ``own.py`` of that measure; what all are asked
of is ``asked_of_own``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.data import TensorDataset

from batchscale.comm import World
from batchscale.data.examples import Examples, TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.data.items import as_tensors, laid_in_memory
from batchscale.errors import DataError, RecipeError, UsageError
from batchscale.measure.objective import Objective
from batchscale.measure.question import MeasureQuestion
from batchscale.members import TASKS
from batchscale.task import Task, TaskBuilder
from batchscale.task.base import check_kind

CHUNK = 256
"""Examples of one pass, unless said otherwise."""

Asked = TypeVar("Asked", bound=MeasureQuestion)


@dataclass(frozen=True)
class OwnState:
    """What a measure asks of a state, of one's own things."""

    model: nn.Module
    task: Task
    normalizer: Normalizer
    device: torch.device


def own_examples(data: Any) -> Examples:
    """The stated set: all examples that were handed in.

    Args:
        data: (inputs, targets) of tensors or arrays of any structure, floats as the model takes them; torch's
            TensorDataset of two; a list of items (input, target); or any other object with ``__getitem__`` and
            ``__len__``, whose items are laid in memory.

    Raises:
        DataError: of another form, empty, or raw uint8 pictures.
    """
    if isinstance(data, Examples):
        examples = data
    elif isinstance(data, tuple) and len(data) == 2:
        examples = TensorExamples(*as_tensors(data))
    elif type(data) is TensorDataset and len(data.tensors) == 2:
        examples = TensorExamples(*as_tensors(data.tensors))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (str, dict, tuple)):
        examples = TensorExamples(*laid_in_memory([data[number] for number in range(len(data))], "stated"))
    else:
        raise DataError(
            f"data: is a {type(data).__name__}: must be (inputs, targets) of tensors, a list of items (input, target), "
            f"or a map-style Dataset of such; give one of these"
        )
    if not len(examples):
        raise DataError("data: holds no example: must have at least one; give another")
    if examples.raw:
        raise DataError(
            "data: inputs are uint8 pictures: must be floats, normalised as the model takes them; convert them"
        )
    return examples


def own_task(task: str | Task, examples: Examples, classes: int | None) -> Task:
    """A task by its name, for these examples; one's own as it is.

    Raises:
        RecipeError: a name that is unknown, or how many classes there are is not known.
    """
    if not isinstance(task, str):
        check_kind(task)
        return task
    if classes is None:
        _, targets = examples.part(slice(len(examples)))
        if not isinstance(targets, torch.Tensor) or targets.dtype != torch.int64 or task == "segmentation":
            raise RecipeError(f"classes: task={task} cannot tell from the targets how many there are; give classes=N")
        classes = int(targets.max()) + 1
    builder: TaskBuilder = TASKS.named(task, "task")
    return builder(classes)


def own_normalizer(model: nn.Module) -> Normalizer:
    """Puts inputs where a model is, floating ones in its type.

    Raises:
        UsageError: the model has no weights.
    """
    weight = next(model.parameters(), None)
    if weight is None:
        raise UsageError("model: has no weights, so its loss is no function of any; give one that has")
    return Normalizer([0.0], [1.0], weight.dtype, torch.contiguous_format, weight.device)


def own_objective(
    model: nn.Module,
    data: Any,
    task: str | Task = "classification",
    *,
    classes: int | None = None,
    chunk: int | None = None,
    parameters: Sequence[str] | None = None,
    world: World | None = None,
    **settings: Any,
) -> Objective:
    """The mean loss of a module over data, as a function of its weights.

    Args:
        model: any module; its weights, buffers and modes come back as they were.
        data: the stated set, see ``own_examples``.
        task: a name, or one's own.
        classes: of a task by name; None: one more than the largest target.
        chunk: examples of one pass; None: 256.
        parameters: names of modules or weights; None for all that is trained.
        world: the processes that share the chunks.
        settings: further ones of ``Objective``.

    Raises:
        UsageError: data of another form, or a loss that is no function of the weights alone.
    """
    examples = own_examples(data)
    learned = own_task(task, examples, classes)
    return Objective(
        model,
        learned,
        examples,
        own_normalizer(model),
        chunk=chunk or CHUNK,
        parameters=parameters,
        world=world,
        **settings,
    )


@dataclass(frozen=True)
class OwnThings:
    """What a measure of one's own is of; see ``asked_of_own``."""

    model: nn.Module
    data: Any
    task: str | Task
    classes: int | None
    world: World | None
    per_worker: int | None

    def objective(self, question: Any, parameters: Sequence[str] | None = None) -> Objective:
        """The loss, as a question with the fields chunk, batch_norm and precision has it."""
        return own_objective(
            self.model,
            self.data,
            self.task,
            classes=self.classes,
            chunk=question.chunk,
            parameters=parameters,
            world=self.world,
            batch_norm=question.batch_norm,
            per_worker=self.per_worker,
            precision=question.precision,
        )


def asked_of_own(
    kind: type[Asked],
    model: nn.Module,
    data: Any,
    task: str | Task = "classification",
    *,
    classes: int | None = None,
    world: World | None = None,
    per_worker: int | None = None,
    **asked: Any,
) -> tuple[Asked, OwnThings]:
    """What every measure of one's own module, data and task is called with.

    Args:
        kind: of question.
        model: any module; it is left as it was.
        data: the stated set, all of which is measured; see ``own_examples``.
        task: a name, or one's own.
        classes: of a task by name; None: one more than the largest target.
        world: the processes that share the passes.
        per_worker: n of the passes that recompute batch norm's averages.
        asked: the fields of the question, which are the command's flags.

    Raises:
        UsageError: a field that the question does not have, or a value that it does not take.
    """
    for name in ("examples", "test_examples"):
        if asked.get(name) is not None:
            raise UsageError(
                f"{name}={asked[name]}: all data that are handed in are measured; leave it out, and hand in fewer"
            )
    try:
        question = kind(**asked)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        fields = ", ".join(kind.model_fields)
        raise UsageError(f"{name}={first['input']!r}: {first['msg']}; the fields are {fields}") from None
    return question, OwnThings(model, data, task, classes, world, per_worker)
