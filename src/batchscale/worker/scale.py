"""fp16's loss scale in numbers, without torch: its unit, where it begins, when it grows.

S multiplies the loss that is divided by all kn; stated is s = S n / kn, the factor on a worker's mean loss.

Source: Micikevicius et al. 2018, section 3.2; the constants are torch.amp.GradScaler's.
"""

from __future__ import annotations

LOSS_SCALE_UNIT = "S n / kn, S on the loss that is divided by kn"
FIRST_LOSS_SCALE = 2.0**16
MOST_GROWTH_STEPS = 2000
_FEWEST_GROWTH_STEPS = 50  # each growth may cost a skipped step: at most one in fifty


def growth_steps(total_steps: int) -> int:
    """Finite steps in a row before the loss scale doubles: a twentieth of the run, between 50 and 2,000."""
    return min(max(total_steps // 20, _FEWEST_GROWTH_STEPS), MOST_GROWTH_STEPS)


def whole_workers(workers: int) -> float:
    """S / s: k workers, rounded down to a power of two, so that taking S back from a gradient rounds nothing."""
    return 2.0 ** (workers.bit_length() - 1)
