"""A score: the number that a task is judged by, with its name, its unit and its direction."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Better = Literal["lower", "higher"]


def is_of_score(name: str) -> bool:
    """Whether an entry of a row is a score's: test_iou_percent, held_out_error_percent."""
    return name.startswith(("test_", "held_out_"))


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
    def key(self) -> str:
        """Its name in documents, with its unit: error_percent."""
        return f"{self.name}_percent" if self.unit == "%" else self.name

    def entries(self, held_out: bool) -> dict[str, float | None]:
        """The value under the name that says what it is of; the test set's is there in any case.

        Args:
            held_out: it is of held-out training examples (data.holdout), not of the test set.
        """
        if held_out:
            return {f"test_{self.key}": None, f"held_out_{self.key}": self.value}
        return {f"test_{self.key}": self.value}

    @property
    def words(self) -> str:
        """Name and value for a sentence: "error 1.39 %", "error -" where there is no value."""
        if self.value is None:
            return f"{self.name} -"
        return f"{self.name} {self.value:.2f} %" if self.unit == "%" else f"{self.name} {self.value:.4g}"
