"""What `measure distance` asks."""

from __future__ import annotations

from batchscale.measure.question import MeasureQuestion


class Question(MeasureQuestion):
    """|w - w0| at the checkpoints of runs."""

    summary = "how far the weights have moved from the initial ones, |w - w0|, against the steps"
    about = """\
|w - w0| over all trained weights, at every checkpoint of a run that is kept (execution.keep_checkpoints), and at every
step that was measured while it trained (execution.measures); with a fit in log t, and one by a power of t, as Hoffer et
al. 2017 have it for runs of one lr. The initial weights are drawn again, by the run's seed.

  batchscale measure distance runs/small runs/large
"""
    most_runs = 16
