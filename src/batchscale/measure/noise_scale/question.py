"""What `measure noise-scale` asks."""

from __future__ import annotations

from batchscale.asking import flag
from batchscale.measure.question import MeasureQuestion
from batchscale.noise_scale import LEVEL


class Question(MeasureQuestion):
    """The noise scale of a run's gradients at one of its steps."""

    summary = "the noise scale tr S / |G|^2 of a run at a step, with its interval"
    about = """\
The noise scale of a run's gradients at one of its checkpoints: tr S / |G|^2 in examples, over a stated set, at fixed
weights. The unit is an example; where a net has batch norm, or a loss is a worker's, it is a worker of n examples.
For AdamW the preconditioned form stands beside the plain one.

  batchscale measure noise-scale runs/mine --step 500 --examples 2048
"""

    examples: int | None = flag(
        "of the stated set (default: 1024 or 20 workers, at most all of the training set)", "M", default=None, ge=2
    )
    level: float = flag("of the interval", "SHARE", default=LEVEL, ge=0.5, le=0.999)
