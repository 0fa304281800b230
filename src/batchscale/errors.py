"""The exception tree.

BatchscaleError
├── UsageError            the user's mistake: one line, exit code 2
│   ├── RecipeError       a recipe entry that is unknown or out of range
│   ├── DataError         data files that are missing, damaged or do not fit
│   ├── FolderError       an output folder that cannot be used
│   ├── CheckpointError   a checkpoint that is damaged or of another run
│   └── ExactnessError    something that exact mode cannot promise
└── RunError              a run that broke while it ran: exit code 1
    └── ProcessError      a process of the run died, hung or disagreed
"""

from __future__ import annotations

from batchscale.words import shown


class BatchscaleError(Exception):
    """Root of every error that batchscale raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return shown(super().__str__())  # most name a file, and a file's name may hold any byte


class UsageError(BatchscaleError):
    """The user's mistake, told in one line: the setting, its value, the rule and the way out."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe entry that is unknown, out of range or at odds with another one."""


class DataError(UsageError):
    """Data files that are missing, damaged, or do not fit the recipe."""


class FolderError(UsageError):
    """An output folder that holds something else, is locked, or cannot be written."""


class CheckpointError(UsageError):
    """A checkpoint that is damaged, altered, or belongs to another recipe."""


class ExactnessError(UsageError):
    """Something for which bitwise equality over process counts cannot be promised."""


class RunError(BatchscaleError):
    """A run that broke while it ran."""


class ProcessError(RunError):
    """A process of the run died, stopped answering, or disagreed with the others.

    Args:
        words: the sentence.
        leaderless: rank 0, which speaks for all, is lost: another one has to.
    """

    def __init__(self, *words: object, leaderless: bool = False) -> None:
        super().__init__(*words)
        self.leaderless = leaderless


def one_line(error: BaseException) -> str:
    """What an error says, in one line; the name of its kind before it where it is not one of ours."""
    sentence = str(error) if isinstance(error, BatchscaleError) else f"{type(error).__name__}: {error}"
    return " ".join(sentence.split())
