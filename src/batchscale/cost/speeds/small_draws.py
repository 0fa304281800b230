"""The numbers of the small form as draws, by the priors alone or updated by measured steps, without scipy.

What is drawn is what ``small_form.predict`` integrates: the quantiles agree (a test compares them). Draws can be
combined with others, of the epochs to a goal, and cost a plan no import of scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscale.cost.planning.estimate import DRAWS, normals
from batchscale.cost.speeds.series import Floats
from batchscale.cost.speeds.small_form import LEAVING_SPREAD, SPREAD, Medians, Steps

_TRIED = 16 * DRAWS  # of the priors, of which measured steps choose


@dataclass(frozen=True)
class DrawnNumbers:
    """Of one series, each (D).

    Args:
        doubling: L.
        jitter: S.
        leaving: C.
        normal: z, of the scatter beyond the last measured point.
    """

    doubling: Floats
    jitter: Floats
    leaving: Floats
    normal: Floats

    def beyond(self, doublings: Floats, leaves: npt.NDArray[np.bool_]) -> Floats:
        """log T further on: L x + S sqrt(x) z + C where the first host is left.

        Args:
            doublings: x, of the hosts (m).
            leaves: whether the first host is left (m).

        Returns:
            (D, m).
        """
        slower = np.outer(self.doubling, doublings) + np.outer(self.leaving, leaves.astype(float))
        return slower + np.outer(self.jitter * self.normal, np.sqrt(doublings))


def drawn_numbers(medians: Medians, steps: Steps | None = None) -> DrawnNumbers:
    """L, S and C of one series.

    Args:
        medians: of the priors.
        steps: measured ones beyond the first host, which update L and S; None: by the priors alone.
    """
    measured = steps is not None and len(steps.doublings) > 0
    z = normals(4, _TRIED if measured else DRAWS)
    doubling, jitter = medians.doubling * np.exp(SPREAD * z[:, 0]), medians.jitter * np.exp(SPREAD * z[:, 1])
    chosen = np.arange(DRAWS)
    if measured and steps is not None:
        scale = np.outer(jitter, np.sqrt(steps.doublings))
        off = (steps.log_ratio - np.outer(doubling, steps.doublings)) / scale
        log_weight = (-(off**2) / 2 - np.log(scale)).sum(axis=1)
        weight = np.cumsum(np.exp(log_weight - log_weight.max()))
        chosen = np.searchsorted(weight, (np.arange(DRAWS) + 0.5) / DRAWS * weight[-1])
    leaving = medians.leaving * np.exp(LEAVING_SPREAD * z[chosen, 2])
    return DrawnNumbers(doubling[chosen], jitter[chosen], leaving, z[chosen, 3])
