"""Numbers that a measure says of a run's state, as its lines hold them: named, so that a page draws those of any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchscale.records.files import is_number


@dataclass(frozen=True)
class MeasuredNumber:
    """One number of a measure.

    Attributes:
        name: of its line in a figure.
        axis: what it is, with its unit; numbers of one axis share a figure.
        value: None where it is not resolved.
        low, high: of its interval; None where that has no end, or there is none.
    """

    name: str
    axis: str
    value: float | None
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For a line of measures.jsonl."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Of such a line; what is no number is none."""
        value, low, high = (content[end] if is_number(content.get(end)) else None for end in ("value", "low", "high"))
        return cls(str(content.get("name", "")), str(content.get("axis", "")), value, low, high)


def measured_numbers(line: Mapping[str, Any]) -> list[MeasuredNumber]:
    """The numbers of a line of measures.jsonl; none where the measure was refused, or the line is damaged."""
    numbers = line.get("numbers")
    return (
        [MeasuredNumber.from_json(one) for one in numbers if isinstance(one, dict)] if isinstance(numbers, list) else []
    )
