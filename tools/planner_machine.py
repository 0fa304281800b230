"""The section of docs/planner.md on a machine: what was predicted there, and what came out.

Its figures are of runs on the machine of development, and are written in by hand.
"""

# ruff: noqa: E501 (a line of the page is a sentence)
from __future__ import annotations

SECTION = """\
## On one machine

Two cores of an Intel Xeon, torch 2.15.0, 2026-11-30; the machine was shared, with a load of 19 to 25 while it was measured.

`python benchmarks/shaped_links.py` makes hosts of network namespaces, with one process each, and lets what leaves a host pass a token bucket of 100 Mbit/s.
Alpha and beta are measured by messages of 16 KB to 1 MB that two of the processes send each other at once (646 us and 89 Mbit/s of 2 hosts, 883 us and 94 Mbit/s of 4); nothing is fitted to an all-reduce.
35 of 36 are within 20 %, the median is off by 3.1 %; a first run had 34 of 36 within, the others at 64 KB, too.

| all-reduce | bytes | 2 hosts: predicted | measured | off by | 4 hosts: predicted | measured | off by |
| --- | --- | --- | --- | --- | --- | --- | --- |
| ring | 64 KB | 7.2 ms | 9.2 ms | -22 % | 13.6 ms | 12.7 ms | +7 % |
| ring | 256 KB | 24.8 ms | 25.4 ms | -2 % | 38.7 ms | 45.5 ms | -15 % |
| ring | 1 MB | 95.1 ms | 92.4 ms | +3 % | 139 ms | 143 ms | -3 % |
| ring | 4 MB | 377 ms | 353 ms | +7 % | 539 ms | 546 ms | -1 % |
| ring | 16 MB | 1,503 ms | 1,423 ms | +6 % | 2,142 ms | 2,247 ms | -5 % |
| ring | 100 MB | 8,951 ms | 8,447 ms | +6 % | 12,739 ms | 12,775 ms | 0 % |
| halving_doubling | 64 KB | 7.2 ms | 7.2 ms | 0 % | 11.9 ms | 13.5 ms | -12 % |
| halving_doubling | 256 KB | 24.8 ms | 24.2 ms | +2 % | 36.9 ms | 43.8 ms | -16 % |
| halving_doubling | 1 MB | 95.1 ms | 87.7 ms | +8 % | 137 ms | 141 ms | -3 % |
| halving_doubling | 4 MB | 377 ms | 388 ms | -3 % | 538 ms | 541 ms | -1 % |
| halving_doubling | 16 MB | 1,503 ms | 1,462 ms | +3 % | 2,140 ms | 2,171 ms | -1 % |
| halving_doubling | 100 MB | 8,951 ms | 8,440 ms | +6 % | 12,737 ms | 12,854 ms | -1 % |
| builtin | 64 KB | 7.2 ms | 6.6 ms | +9 % | 13.6 ms | 14.8 ms | -8 % |
| builtin | 256 KB | 24.8 ms | 23.8 ms | +4 % | 38.7 ms | 41.4 ms | -7 % |
| builtin | 1 MB | 95.1 ms | 89.4 ms | +6 % | 139 ms | 140 ms | -1 % |
| builtin | 4 MB | 377 ms | 357 ms | +6 % | 539 ms | 537 ms | 0 % |
| builtin | 16 MB | 1,503 ms | 1,487 ms | +1 % | 2,142 ms | 2,127 ms | +1 % |
| builtin | 100 MB | 8,951 ms | 9,126 ms | -2 % | 12,739 ms | 12,727 ms | 0 % |

The kernel has no netem, so a longer way (`--microseconds`) was not tried.
Messages of 64 KB are a few time slices of a busy machine long.

Step times were predicted by `python benchmarks/plan_this_machine.py`: `bench allreduce` and `bench step` with two processes calibrate, then the steps are measured again:

| fashion-mnist-cnn, 512 images a step | calibrated on | predicted | measured | off by |
| --- | --- | --- | --- | --- |
| 2 processes, quiet | the ceiling, as until 2026-11-30 | 55.7 ms | 62.5 ms | -11 % |
| 4 processes, quiet | the same | 55.9 ms | 66.9 ms | -17 % |
| 2 processes, beside tests (load 14) | batchscale's own row, without its all-reduces | 80.4 ms | 87.7 ms | -8 % |
| 4 processes, beside tests | the same | 81.5 ms | 79.2 ms | +3 % |

The ceiling has neither the feed nor the trainer's update, so it is not what a plan goes by any more.
Of 28 all-reduces between processes of this machine, 64 KB to 100 MB, W = 2 and 4, shared memory and the backend, 24 came within 20 % when they were measured again (quiet).
The others: shared memory, 64 MB, W = 2 (+22 %), the backend, 64 KB (-30 %) and 16 MB (-24 %), and shared memory, 64 KB (-54 %), at W = 4, where four processes share two cores.
"""


def section() -> str:
    """The whole section."""
    return SECTION
