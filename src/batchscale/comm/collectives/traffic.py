"""What an all-reduce puts on links, in closed form over any number of layouts at once: a plan makes no schedule.

seconds = inside_rounds alpha_in + inside_share b beta_in + between_rounds alpha_out + between_share b beta_out

A round lasts as long as its busiest link: a device's own inside a host, or a host's to the others, over which all of
its devices go. So a share is a sum over rounds of what that link carries, of a buffer of b bytes cut evenly. Ranks lie
host by host, as many on each. A test compares the closed forms with the rounds of the schedules themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """Of an all-reduce over h hosts of s devices each; arrays over layouts (n), infinite where it is not made for one.

    Args:
        inside_rounds: rounds in which all exchanges stay inside hosts.
        inside_share: of the buffer, what the busiest device sends or gets in these.
        between_rounds: rounds in which anything goes from host to host.
        between_share: of the buffer, what the busiest host sends or gets in these.
    """

    inside_rounds: Floats
    inside_share: Floats
    between_rounds: Floats
    between_share: Floats

    def where(self, chosen: npt.NDArray[np.bool_]) -> Traffic:
        """The same, infinite where a layout is not chosen."""
        never = np.where(chosen, 0.0, np.inf)
        return Traffic(self.inside_rounds + never, self.inside_share, self.between_rounds, self.between_share)


def on_one_link(hosts: Floats, rounds: Floats, share: Floats) -> Traffic:
    """Rounds that all go between hosts, where there is more than one, and inside of it where it is alone."""
    alone = hosts == 1
    return Traffic(
        np.where(alone, rounds, 0.0), np.where(alone, share, 0.0), np.where(alone, 0.0, rounds),
        np.where(alone, 0.0, share),
    )  # fmt: skip


def is_whole_power(sizes: Floats) -> npt.NDArray[np.bool_]:
    """Which are 1, 2, 4, .."""
    return np.asarray(np.exp2(np.round(np.log2(sizes))) == sizes)
