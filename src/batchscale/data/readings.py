"""What the words of a list of labels, or the names of validation folders, mean: names of classes, or labels from 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from batchscale.data.text import quoted
from batchscale.errors import DataError

LabelsAre = Literal["names", "numbers"]
"""How a user chooses where both are possible."""

MasksAre = Literal["classes", "instances"]
"""What a pixel of a mask is: a class, or the number of an instance, 0 for none."""

TokensAre = Literal["characters", "bytes"]
"""What a text is cut into."""

DecodersAre = Literal["threads", "processes"]
"""Who decodes images on disk."""

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


def two_orders(words: Collection[str], classes: Sequence[str]) -> str:
    """A label that is another class by text than by number, with both, in words; "" where there is none.

    Numbered folders without 0..C-1 are sorted as text, which a user who counted them by number may not expect.
    """
    if not all(name.isdecimal() for name in classes):
        return ""
    for label, (by_text, by_number) in enumerate(zip(classes, sorted(classes, key=int), strict=True)):
        if by_text != by_number and str(label) in words:
            return (
                f"{label} is train/{by_text} in the order of the folders' names as text, train/{by_number} in the "
                f"order of their numbers; give the names of train's folders, or take the order of text with "
                f"data.labels=numbers (`batchscale data`: --labels)"
            )
    return ""


def meaning(labels: LabelsAre, classes: Sequence[str]) -> Mapping[str, int]:
    """Word -> label, in this reading."""
    return names_of(classes) if labels == "names" else numbers_of(classes)


def misfit(word: str, used: Collection[str], classes: Sequence[str], labels: LabelsAre | None) -> str:
    """Why a word of a list stands for no class.

    Args:
        word: that does not.
        used: all words of the list.
        classes: of the training part, in the order of the labels.
        labels: the user's choice; None where there is none.
    """
    names = set(used) & set(classes)
    if labels == "numbers":
        return f"must be a label in 0..{len(classes) - 1}, by data.labels=numbers"
    if labels is None and word.isdecimal():
        if spelled := sorted(name for name in names if not name.isdecimal()):
            return f"is a number, and {quoted(spelled[0])} a class's name: all words must be read in one way"
        if not names:
            return f"is beyond the labels 0..{len(classes) - 1}, which are counted from 0, not from 1"
    return "no class folder of train has that name"


def reading(words: Collection[str], classes: Sequence[str], labels: LabelsAre | None, where: str) -> LabelsAre:
    """How to read all words: in one way, in which some may have no meaning.

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
        return labels
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
    if as_numbers and not as_names and (example := two_orders(used, classes)):
        raise DataError(f"{where}: can be read in two ways: {example}")
    return "numbers" if as_numbers or not used & names.keys() else "names"
