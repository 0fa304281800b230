"""What the words of a list of labels, or the names of validation folders, mean: names of classes, or labels from 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from batchscale.errors import DataError

LabelsAre = Literal["names", "numbers"]
"""How a user chooses where both are possible."""

CHOICE = "choose with data.labels=names or data.labels=numbers (`batchscale data`: --labels)"


def names_of(classes: Sequence[str]) -> dict[str, int]:
    """Name of a class -> label."""
    return {name: label for label, name in enumerate(classes)}


def numbers_of(classes: Sequence[str]) -> dict[str, int]:
    """A label from 0, as a word -> label."""
    return {str(label): label for label in range(len(classes))}


def two_ways(words: Collection[str], classes: Sequence[str]) -> str:
    """A word that is another class as a name than as a number, with both, in words; "" where there is none."""
    names, numbers = names_of(classes), numbers_of(classes)
    for word in sorted(words):
        if word in names and word in numbers and names[word] != numbers[word]:
            return f"{word} as a name is train/{word}, as a label from 0 it is train/{classes[numbers[word]]}"
    return ""


def reading(words: Collection[str], classes: Sequence[str], labels: LabelsAre | None, where: str) -> Mapping[str, int]:
    """Word -> label, all words read in one way; those that have no meaning in it are missing.

    Args:
        words: all that were found.
        classes: of the training part, in the order of the labels.
        labels: the user's choice; None where there is none.
        where: they were found.

    Raises:
        DataError: two readings are possible; names both, and the choice.
    """
    names, numbers, used = names_of(classes), numbers_of(classes), set(words)
    if labels is not None:
        return names if labels == "names" else numbers
    as_names, as_numbers = used <= names.keys(), used <= numbers.keys()
    if as_numbers and (example := two_ways(used, classes)):
        raise DataError(f"{where}: can be read in two ways: {example}; {CHOICE}")
    if as_numbers and not as_names and used and "0" not in used:
        first = min(map(int, used))
        raise DataError(
            f"{where}: can be read in two ways, as none is 0: {first} as a label from 0 is "
            f"train/{classes[first]}, counted from 1 it is train/{classes[first - 1]}; take data.labels=numbers "
            f"(`batchscale data`: --labels) for labels from 0, or write the classes' names"
        )
    return numbers if as_numbers or not used & names.keys() else names
