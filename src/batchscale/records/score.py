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
        """Name and value for a sentence: "error 1.39 %", "error -" where there is no value."""
        if self.value is None:
            return f"{self.name} -"
        return f"{self.name} {self.value:.2f} %" if self.unit == "%" else f"{self.name} {self.value:.4g}"
