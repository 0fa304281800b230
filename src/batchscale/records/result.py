"""result.json: what came out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from batchscale.errors import FolderError
from batchscale.records.files import cannot_read, parse_json
from batchscale.records.score import Score

Status = Literal["done", "diverged", "failed"]


class Result(BaseModel):
    """What came out of a run; errors in percent, of the test set (of the held-out images with data.holdout).

    ``train_loss`` is the mean over the last whole epoch's training images as trained on, ``images_per_second``
    counts the time of training steps alone, ``wall_seconds`` everything, earlier attempts included.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    status: Status
    recipe: str
    folder: str
    test_error_percent: float | None
    test_error_median_last_5: float | None
    test_loss: float | None
    train_loss: float | None
    steps: int
    epochs: float
    images_per_second: float | None
    wall_seconds: float
    weights_sha256: str | None
    processes: int
    workers: int
    per_worker: int
    diverged_at_step: int | None = None
    evaluated_on: Literal["test", "holdout"] = "test"

    @property
    def judged_by(self) -> Score:
        """The task's score; of results written before tasks had names, the test error."""
        written = (self.model_extra or {}).get("score")
        if isinstance(written, dict):
            return Score.model_validate(written)
        return Score(name="error", value=self.test_error_percent, unit="%", better="lower")

    @property
    def failure(self) -> str | None:
        """Why a run failed: its entry ``error``, which no other run has."""
        error = (self.model_extra or {}).get("error")
        return error if isinstance(error, str) else None


def read_result(folder: Path) -> Result:
    """The result of a finished run, which lies in this folder now, wherever it was trained.

    Raises:
        FolderError: there is none, or it is damaged.
    """
    path = folder / "result.json"
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"))
        return Result.model_validate(content).model_copy(update={"folder": str(folder)})
    except FileNotFoundError:
        raise FolderError(f"{folder}: holds no result.json: not a finished run; finish it with --resume") from None
    except OSError as error:
        raise cannot_read(path, error, "train the run again") from error
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise FolderError(f"{path}: damaged ({reason}); train the run again") from None
