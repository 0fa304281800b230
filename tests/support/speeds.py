"""Made-up series of speeds, and the published tables where they are there."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np

REFERENCE = Path(os.environ.get("BATCHSCALE_REFERENCE", Path(__file__).parents[2] / ".." / "shared" / "reference"))
COLUMNS = (
    "source", "system", "model", "devices", "devices_per_host", "per_device_batch", "precision", "images_per_second",
)  # fmt: skip


def row(devices, speed, source="somebody", system="a cluster", model="net", per_host=8, batch="32", precision="fp32"):
    return (source, system, model, devices, per_host, batch, precision, speed)


def write(path, rows, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def drawn(generator, count, hosts=(1, 2, 4, 8), doubling=0.03, jitter=0.01, leaving=0.05, source="somebody"):
    """Rows of series that follow the small form: numbers drawn within a factor of two, or four, of these medians."""
    rows = []
    for number in range(count):
        spreads = (doubling, math.log(2)), (jitter, math.log(2)), (leaving, math.log(4))
        its_doubling, its_jitter, its_leaving = (
            median * math.exp(spread * generator.standard_normal()) for median, spread in spreads
        )
        log_seconds = 0.0
        for last, these in zip((None, *hosts), hosts, strict=False):
            if last is not None:
                x = math.log2(these / last)
                log_seconds += its_doubling * x + its_jitter * math.sqrt(x) * generator.standard_normal()
                log_seconds += its_leaving if last == 1 else 0
            rows.append(row(8 * these, 8 * these * 100 * np.exp(-log_seconds), source=source, model=f"net {number}"))
    return rows
