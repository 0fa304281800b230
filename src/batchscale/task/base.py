"""The seam between a run and what it learns: a loss to be divided once, exact counts, named scores.

g = (1 / kn) grad sum over kn examples of l(x, w)

Every example weighs the same: a mean over pixels or tokens is taken inside an example, so kn stays the only divisor.
A task whose loss belongs to a worker (a detector normalises over the anchors of its pass) has the unit "worker": its
loss is m times the worker's loss of its m examples, and a pass then holds one worker.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch

from batchscale.errors import RecipeError

Model = Callable[..., Any]
"""Inputs of m examples -> outputs; of a model that computes its own loss, inputs and targets."""


@dataclass(frozen=True)
class ScoreKind:
    """What a number that judges weights is called.

    Attributes:
        name: as in "error", "iou"; a goal, a study or a page asks for it by this. Not an entry that every line of
            evaluations.jsonl has: "loss" is the mean of ``EvaluatedPass.loss``, so call a score "cross-entropy".
        unit: "%", or "" for a plain number.
        better: whether lower or higher values are better.
    """

    name: str
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"

    @property
    def key(self) -> str:
        """Its name in documents: "error_percent"."""
        return f"{self.name}_percent" if self.unit == "%" else self.name

    def words(self, value: float) -> str:
        """Name and value for a sentence: "iou 81.25 %"."""
        return f"{self.name} {value:.2f} %" if self.unit == "%" else f"{self.name} {value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class EvaluatedPass:
    """What one pass of an evaluation says.

    Attributes:
        loss: summed over the examples, a scalar.
        counts: whole numbers, (``Task.evaluation_counts``,); summed over all passes.
        predictions: one an example, of a task that ``predicts``; plain data, which other processes can be sent.
    """

    loss: torch.Tensor
    counts: torch.Tensor
    predictions: Sequence[Any] = ()


@dataclass(frozen=True)
class Evaluated:
    """Everything that was evaluated, on every process alike.

    Attributes:
        examples: M.
        loss: mean over them.
        counts: summed over them.
        predictions: of all examples in their order; on rank 0 alone.
        chunks: (examples, mean loss) of every chunk that could be read, in their order.
    """

    examples: int
    loss: float
    counts: tuple[int, ...]
    predictions: Sequence[Any] = ()
    chunks: tuple[tuple[int, float], ...] = ()


class Task(ABC):
    """What is learned. A small file a task: subclass it, and register it by its name.

    Attributes:
        name: in recipes and results.
        examples: what its examples are called: "images", "sequences".
        parts: what one example consists of, where these are counted, too: "tokens".
        unit: whose the loss is: an example's, or a worker's.
        needs_classes: it cannot be made for data that do not tell how many classes they have.
        score_kinds: what it is judged by; the first is *the* score.
        count_names: of its evaluation counts, where they are few enough to be written down by name.
        training_counts, evaluation_counts: how many whole numbers a pass of either kind has.
        largest_count: the most that one example adds to a count; None where that is not known.
        predicts: scores need the predictions of all examples together, not counts.
    """

    name: ClassVar[str]
    examples: ClassVar[str] = "examples"
    parts: ClassVar[str] = ""
    unit: ClassVar[Literal["example", "worker"]] = "example"
    needs_classes: ClassVar[bool] = False
    score_kinds: tuple[ScoreKind, ...]
    count_names: tuple[str, ...] = ()
    training_counts: int = 0
    evaluation_counts: int = 0
    largest_count: int | None = None
    predicts: bool = False

    @abstractmethod
    def train_pass(self, model: Model, inputs: Any, targets: Any) -> tuple[torch.Tensor, Any]:
        """Forward and loss of m examples.

        Returns:
            (loss, outputs): the sum over examples of their losses (unit "worker": m times the worker's loss); not
            yet divided by kn.
        """

    def outputs(self, model: Model, inputs: Any, targets: Any) -> Any:
        """What a model gives in training, for the probe; a model that computes its own loss wants the targets too."""
        return model(inputs)

    def losses(self, outputs: Any, targets: Any) -> torch.Tensor:
        """The loss of every example, (m,); they sum to that of ``train_pass``.

        Raises:
            RecipeError: the task's loss is a worker's.
        """
        raise RecipeError(
            f"task={self.name}: an example has no loss of its own here ({self.unit}: the loss of a whole {self.unit}); "
            f"measure with the {self.unit} as the unit"
        )

    def counts(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Whole numbers of a training pass, (``training_counts``,)."""
        return torch.zeros(0)

    @abstractmethod
    def evaluate_pass(self, model: Model, inputs: Any, targets: Any) -> EvaluatedPass:
        """Forward of m examples in evaluation mode, and what it says."""

    @abstractmethod
    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """Every score of ``score_kinds`` by name; called on rank 0 alone where the task ``predicts``."""

    def training_scores(self, counts: Sequence[int], examples: int) -> dict[str, float]:
        """Scores of examples as trained on, from their counts; none where a pass has none, or they need predictions."""
        if not self.training_counts or self.predicts:
            return {}
        return self.scores(Evaluated(examples, 0.0, tuple(counts)))

    @abstractmethod
    def check(self, outputs: Any, examples: int) -> None:
        """Raise where a model's outputs for so many examples will not do.

        Raises:
            RecipeError: what they are, and what they must be.
        """

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """Raise where targets are not those of this task, for outputs that ``check`` has passed; by default nowhere.

        Raises:
            RecipeError: what they are, and what they must be.
        """
        return

    def in_parts(self, examples: float, shape: Sequence[int]) -> dict[str, float]:
        """So many examples of this shape in their parts: {"tokens": 6400}; nothing where no parts are counted."""
        return {self.parts: examples * math.prod(shape)} if self.parts else {}

    @property
    def score(self) -> ScoreKind:
        """The score that the task is judged by."""
        return self.score_kinds[0]

    def score_named(self, name: str, setting: str) -> ScoreKind:
        """The score of this name.

        Args:
            name: as asked for.
            setting: where it was asked for, for the error.

        Raises:
            RecipeError: the task has no such score; those that it has are listed.
        """
        for kind in self.score_kinds:
            if kind.name == name:
                return kind
        listed = ", ".join(kind.name for kind in self.score_kinds)
        raise RecipeError(f"{setting}: task={self.name} has no score {name!r}; it has {listed}; name one of these")

    def checked_scores(self, evaluated: Evaluated) -> dict[str, float]:
        """The scores as plain numbers.

        Raises:
            RecipeError: not every score of ``score_kinds`` is there.
        """
        scores = self.scores(evaluated)
        missing = [kind.name for kind in self.score_kinds if kind.name not in scores]
        if missing:
            raise RecipeError(
                f"task={self.name}: its scores() gives {', '.join(scores) or 'nothing'}: must give a number for every "
                f"kind in score_kinds; {', '.join(missing)} is missing"
            )
        return {name: float(value) for name, value in scores.items()}

    def sentence(self, scores: Mapping[str, float], evaluated: Evaluated) -> str:
        """What an evaluation says, for a user."""
        words = ", ".join(kind.words(scores[kind.name]) for kind in self.score_kinds)
        return f"{words}, loss {evaluated.loss:.4f} over {evaluated.examples} {self.examples}"

    def named(self, values: Mapping[str, float], prefix: str = "") -> dict[str, float]:
        """Scores under their names in documents: {"error": 3.2} -> {"error_percent": 3.2}."""
        return {f"{prefix}{kind.key}": values[kind.name] for kind in self.score_kinds if kind.name in values}


def check_kind(task: object) -> None:
    """Raise unless something handed in is a task, with a name and a score.

    Raises:
        RecipeError: what it is instead.
    """
    if task is None:
        return
    if not isinstance(task, Task):
        what = f"the class {task.__name__}" if isinstance(task, type) else f"a {type(task).__name__}"
        raise RecipeError(
            f"task: is {what}: must be a task of one's own, an object of a subclass of batchscale.task.Task; a task "
            f"that recipes know is named by task=NAME"
        )
    if not getattr(task, "name", "") or not getattr(task, "score_kinds", ()):
        raise RecipeError(
            f"task: {type(task).__name__} must have a name, and score_kinds with at least one ScoreKind; give it these"
        )


def described(targets: Any) -> str:
    """A batch of targets, for an error: type and shape."""
    if isinstance(targets, torch.Tensor):
        return f"{str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}"
    return f"a {type(targets).__name__}"


class TaskBuilder(Protocol):
    """Makes a task for the data of a run; the class of a task is one."""

    def __call__(self, num_classes: int, label_smoothing: float = 0.0, **options: Any) -> Task:
        """The task for so many classes; ``loss``, ``class_weights``: of a task that has such options."""
