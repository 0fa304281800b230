"""Whether folders are of one recipe: a page is of one net, one task, one data set and one optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.errors import FolderError
from batchscale.report.critical.readings import CriticalSource

_SAME = ("task", "model.name", "model.options", "data.name", "data.sequence", "data.tokens", "optimizer.name")
"""Entries, or groups of them, that make a recipe another one; another lr, or another minibatch, is what is searched."""
_OF_NO_CONSEQUENCE = ("execution.", "numerics.", "seed", "branch.", "epochs")


def check_one_recipe(sources: Sequence[CriticalSource]) -> None:
    """Raise where two folders are of different recipes.

    Raises:
        FolderError: names the entry, its values and the folders.
    """
    first = sources[0]
    for source in sources[1:]:
        for name in _SAME:
            values = [_under(name, each) for each in (source, first)]
            if all(values) and values[0] != values[1]:  # an entry that one version does not know tells nothing
                words = " for ".join(
                    ", ".join(f"{entry}={value or 'none'}" for entry, value in each.items()) for each in values
                )
                raise FolderError(
                    f"{source.folder}: is of another recipe than {first.folder} ({words}); a page is of one recipe: "
                    f"leave one of them out"
                )


def _under(name: str, source: CriticalSource) -> dict[str, str]:
    """The entry, or those of the group."""
    return {key: value for key, value in source.entries.items() if key == name or key.startswith(f"{name}.")}


def differences(sources: Sequence[CriticalSource]) -> Iterator[tuple[str, ...]]:
    """(entry, its value in each folder) of every entry in which folders of one recipe differ.

    Args:
        sources: of one recipe.
    """
    known = [source for source in sources if source.entries]
    for entry in sorted({entry for source in known for entry in source.entries}):
        values = [source.entries.get(entry, "") for source in sources]
        differ = len({source.entries.get(entry, "") for source in known}) > 1
        if differ and not entry.startswith(_OF_NO_CONSEQUENCE):
            yield entry, *values
