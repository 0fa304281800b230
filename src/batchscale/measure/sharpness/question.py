"""What `measure sharpness` asks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from batchscale.asking import flag, read_by
from batchscale.measure.question import PARTS, MeasureQuestion, PartNames

_USUAL_EPSILONS = (1e-3, 5e-4)
MOST_REPEATS = 1000
"""So many subspaces belong to a seed."""


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ValueError("must be numbers with commas between, such as 1e-3,5e-4") from None


class Question(MeasureQuestion):
    """How far the training loss of a run rises in a small box around its weights."""

    summary = "how far the loss of runs rises in a box around their weights: Keskar's form, and the adaptive one"
    about = """\
100 (max f(x + A y) - f(x)) / (1 + f(x)) over a box |y_i| <= b_i, in percent: Keskar's form, b = eps (|A^+ x| + 1), and
beside it an adaptive one, whose box is in proportion to |x|, so that rescaling layers does not change it. In the full
space and in random subspaces, over a stated set, by L-BFGS-B. Several runs come on one page.

  batchscale measure sharpness runs/small runs/large --examples 5000
"""
    most_runs: ClassVar[int] = 32

    examples: int | None = flag(
        "of the stated set (default: 5000, at most all of the training set)", "M", default=None, ge=1
    )
    chunk: int | None = flag("examples of one pass (default: n of the run, at most 256)", "C", default=None, ge=1)
    epsilon: Annotated[tuple[float, ...], read_by(_numbers), Field(min_length=1)] = flag(
        "sizes of the box, with commas between (default 1e-3,5e-4)", "LIST", default=_USUAL_EPSILONS
    )
    form: Literal["both", "keskar", "adaptive"] = flag("of the box", default="both")
    space: Literal["both", "full", "subspace"] = flag(
        "that is searched: all weights, or random subspaces", default="both"
    )
    subspace: int = flag("dimensions of a random subspace", "P", default=100, ge=1)
    repeats: int = flag("subspaces that are drawn", "R", default=5, ge=1, le=MOST_REPEATS)
    iterations: int = flag("of L-BFGS-B, at most", "I", default=10, ge=1, le=100000)
    search: Literal["scaled", "plain"] = flag(
        "variables and loss scaled to the box, or as they stand: then a search may end far from the sides",
        default="scaled",
    )
    batch_norm: Literal["averages", "recomputed"] = flag(
        "normalises by its running averages, or by averages recomputed over the examples", default="averages"
    )
    parts: PartNames | None = PARTS
    precision: Literal["run", "fp64"] = flag("of a pass: as the run's weights, or double", default="run")
    level: float = flag("of the interval over subspaces", "SHARE", default=0.9, ge=0.5, le=0.999)
    seed: int = flag("of the random subspaces", "S", default=0, ge=0)

    @field_validator("epsilon")
    @classmethod
    def _above_zero(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < epsilon < 1 for epsilon in epsilons):
            raise ValueError("each must be above 0 and below 1")
        if len(set(epsilons)) < len(epsilons):
            raise ValueError("each must stand there once")
        return epsilons
