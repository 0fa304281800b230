"""A small net and a small cluster, whose seconds can be written down."""

from __future__ import annotations

import numpy as np

from batchscale.cost.clusters.cluster import ClusterFile
from batchscale.cost.step.net_table import COLUMNS, NetTable

SOURCE = "made up for a test"


def sourced(value):
    return {"value": value, "source": SOURCE}


def cluster_of(**entries):
    """8 devices a host of 1 TFLOP/s and 100 GB/s; 10 GB/s and 5 us inside, 1 GB/s and 20 us between."""
    document = {
        "device": "made up",
        "devices_per_host": sourced(8),
        "between_gbit_per_second": sourced(8.0),
        "between_microseconds": sourced(20.0),
        "inside_gbyte_per_second": sourced(20.0),
        "inside_microseconds": sourced(5.0),
        "peak_teraflops": {"fp32": sourced(1.0), "fp16": sourced(4.0)},
        "memory_gbyte": sourced(1.0),
        "memory_gbyte_per_second": sourced(100.0),
    }
    return ClusterFile.model_validate({name: value for name, value in (document | entries).items() if value})


def net_of(**columns):
    """Three layers bound by operations: 1, 2 and 3 million parameters."""
    values = {
        "forward_flops": [1e9, 2e9, 3e9],
        "backward_flops": [2e9, 4e9, 6e9],
        "forward_bytes": [4e6, 4e6, 4e6],
        "backward_bytes": [8e6, 8e6, 8e6],
        "forward_fixed_bytes": [4e6, 8e6, 12e6],
        "backward_fixed_bytes": [8e6, 16e6, 24e6],
        "kept_bytes": [1e6, 1e6, 2e6],
        "parameters": [1e6, 2e6, 3e6],
    } | columns
    arrays = {column: np.array(values[column], float) for column in COLUMNS}
    return NetTable("three", "images", (3, 8, 8), 1000, ["a", "b", "c"], **arrays)
