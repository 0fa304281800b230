"""What `measure landscape` asks."""

from __future__ import annotations

from typing import Literal

from batchscale.asking import flag
from batchscale.measure.question import MeasureQuestion


class Question(MeasureQuestion):
    """Loss and score over a line or a plane of weights."""

    summary = "loss and score over a line or a plane of weights: around runs, or from one run to another"
    about = """\
The loss, and the task's score, at points of a line or a plane of weights, over a stated set. Around a run: along random
directions of which each filter is as long as the weights' own (Li et al. 2018); around several runs, on one scale.
From RUN to RUN2: along (1 - a) w + a w2. Finished points are kept: the same command goes on where it was ended.

  batchscale measure landscape runs/small                      a plane around a run
  batchscale measure landscape runs/small runs/large           the line from one to the other
  batchscale measure landscape runs/small runs/large --form around --dimensions 1
"""
    most_runs = 16
    resumes = True

    form: Literal["around", "line"] | None = flag(
        "around each run, or the line between two (default: the line where there are two runs)", default=None
    )
    dimensions: int | None = flag("of what lies around a run (default: 2)", "1|2", default=None, ge=1, le=2)
    points: int = flag("along each axis", "P", default=25, ge=3, le=1001)
    low: float | None = flag("where the axes begin (default: -1; of a line -0.5)", "A", default=None)
    high: float | None = flag("where they end (default: 1; of a line 1.5)", "B", default=None)
    examples: int | None = flag(
        "of the stated set (default: 5000, at most all of the training set)", "M", default=None, ge=1
    )
    test_examples: int | None = flag(
        "of the test part, beside it (default: 5000, at most all; over a plane 0)", "M", default=None, ge=0
    )
    batch_norm: Literal["averages", "recomputed"] = flag(
        "running averages (the run's; on a line interpolated), or recomputed over the stated set at each point",
        default="averages",
    )
    seed: int = flag("of the random directions", "SEED", default=0, ge=0)
    rise: float = flag("of the loss, up to which a point counts as near", "LOSS", default=0.1, gt=0)
    chunk: int | None = flag(
        "examples of one pass (default: the run's numerics.evaluation_chunk)", "N", default=None, ge=1
    )
