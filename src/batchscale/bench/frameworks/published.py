"""The published weak-scaling series of U-Nets, as printed: what a measurement of this machine stands beside.

U-Net of 8-16-32-64-128 channels on 1,120 micrographs of 1024 x 768, one V100 a process, 16 images a GPU, Adam with
lr 1e-3 x GPUs, no warmup; one run a point, the median epoch after the first. IoU of the PyTorch rows is of one shard.
Horovod enters here alone: it has had no release since 2023.
"""

from __future__ import annotations

from typing import Any

_GPUS = (1, 2, 4, 6, 8, 10, 12, 14)
_SECONDS_LOSS_IOU = {
    "pytorch_ddp": (
        (192.63, 0.0021, 0.900),
        (103.71, 0.0023, 0.898),
        (53.59, 0.0033, 0.884),
        (34.91, 0.0043, 0.852),
        (27.59, 0.0041, 0.868),
        (22.25, 0.0082, 0.781),
        (17.89, 0.0094, 0.802),
        (16.16, 0.0093, 0.924),
    ),
    "pytorch_horovod": (
        (194.16, 0.0016, 0.898),
        (174.88, 0.0024, 0.885),
        (105.98, 0.0037, 0.894),
        (70.55, 0.0039, 0.884),
        (56.04, 0.0136, 0.867),
        (44.31, 0.0121, 0.784),
        (36.41, 0.0120, 0.793),
        (32.49, 0.0277, 0.902),
    ),
    "tensorflow_native": (
        (37.61, 0.0093, 0.964),
        (18.93, 0.0100, 0.951),
        (10.95, 0.0106, 0.951),
        (7.03, 0.0121, 0.935),
        (5.56, 0.0124, 0.924),
        (4.74, 0.0150, 0.910),
        (3.70, 0.0168, 0.551),
        (3.36, 0.0287, 0.486),
    ),
    "tensorflow_horovod": (
        (37.55, 0.0095, 0.965),
        (19.10, 0.0093, 0.968),
        (9.60, 0.0224, 0.920),
        (6.26, 0.0112, 0.956),
        (4.83, 0.0162, 0.886),
        (3.81, 0.0146, 0.944),
        (3.13, 0.0210, 0.917),
        (2.78, 0.0207, 0.888),
    ),
}
_PER_GPU = 16


def published_rows() -> list[dict[str, Any]]:
    """{framework, processes, minibatch, seconds_per_epoch, efficiency, loss, score in %}, one a point.

    efficiency = seconds(1) / (GPUs seconds(GPUs))
    """
    return [
        {
            "framework": framework,
            "processes": gpus,
            "minibatch": _PER_GPU * gpus,
            "seconds_per_epoch": seconds,
            "efficiency": round(points[0][0] / (gpus * seconds), 4),
            "loss": loss,
            "score": round(100 * iou, 1),
        }
        for framework, points in _SECONDS_LOSS_IOU.items()
        for gpus, (seconds, loss, iou) in zip(_GPUS, points, strict=True)
    ]
