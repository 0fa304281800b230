"""A score: the number that a task is judged by, with its name, its unit and its direction."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Better = Literal["lower", "higher"]


class Score(BaseModel):
    """What an evaluation says of the weights.

    Attributes:
        name: as in "error", "iou"; what a goal or a study asks for it by.
        value: in ``unit``; None where nothing was evaluated, or it was not finite.
        unit: "%", or "" for a plain number.
        better: whether lower or higher values are better.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: float | None
    unit: str = ""
    better: Better = "lower"

    @property
    def words(self) -> str:
        """Value and unit for a sentence: "1.39 %", "-" where there is no value."""
        return "-" if self.value is None else f"{self.value:.4g} {self.unit}".strip()

    def beats(self, value: float) -> bool:
        """Whether it is strictly better than this value."""
        return self.value is not None and (self.value < value if self.better == "lower" else self.value > value)
