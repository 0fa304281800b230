"""A published weak-scaling series, to draw beside one's own by the same code.

U-Net on 1,120 micrographs of 1024x768, V100 GPUs, 16 images a GPU, Adam with lr 1e-3 x GPUs, no warmup; one run a
point, median time of an epoch after the first; error = 1 - IoU of the test images. The IoU of the PyTorch series was
taken on one process's shard only.

Source: slides on distributed deep learning, their tables of weak scaling (a U-Net in four frameworks).
"""

from __future__ import annotations

from dataclasses import dataclass

UNET_IMAGES = 1120
UNET_PER_GPU = 16


@dataclass(frozen=True)
class PublishedPoint:
    """One point: GPUs (16 images each), seconds of an epoch, training loss at the end, IoU on test images."""

    gpus: int
    seconds_per_epoch: float
    train_loss: float
    test_iou: float

    @property
    def images_per_second(self) -> float:
        """Of all GPUs together."""
        return UNET_IMAGES / self.seconds_per_epoch

    @property
    def error_percent(self) -> float:
        """100 (1 - IoU)."""
        return 100 * (1 - self.test_iou)


_UNET = {
    "PyTorch DDP": (
        (1, 192.63, 0.0021, 0.9), (2, 103.71, 0.0023, 0.898), (4, 53.59, 0.0033, 0.884), (6, 34.91, 0.0043, 0.852),
        (8, 27.59, 0.0041, 0.868), (10, 22.25, 0.0082, 0.781), (12, 17.89, 0.0094, 0.802), (14, 16.16, 0.0093, 0.924),
    ),
    "PyTorch Horovod": (
        (1, 194.16, 0.0016, 0.898), (2, 174.88, 0.0024, 0.885), (4, 105.98, 0.0037, 0.894), (6, 70.55, 0.0039, 0.884),
        (8, 56.04, 0.0136, 0.867), (10, 44.31, 0.0121, 0.784), (12, 36.41, 0.012, 0.793), (14, 32.49, 0.0277, 0.902),
    ),
    "TensorFlow": (
        (1, 37.61, 0.0093, 0.964), (2, 18.93, 0.01, 0.951), (4, 10.95, 0.0106, 0.951), (6, 7.03, 0.0121, 0.935),
        (8, 5.56, 0.0124, 0.924), (10, 4.74, 0.015, 0.91), (12, 3.7, 0.0168, 0.551), (14, 3.36, 0.0287, 0.486),
    ),
    "TensorFlow Horovod": (
        (1, 37.55, 0.0095, 0.965), (2, 19.1, 0.0093, 0.968), (4, 9.6, 0.0224, 0.92), (6, 6.26, 0.0112, 0.956),
        (8, 4.83, 0.0162, 0.886), (10, 3.81, 0.0146, 0.944), (12, 3.13, 0.021, 0.917), (14, 2.78, 0.0207, 0.888),
    ),
}  # fmt: skip
"""framework -> GPUs, seconds of an epoch, training loss, IoU."""

UNET = {framework: tuple(PublishedPoint(*row) for row in rows) for framework, rows in _UNET.items()}
"""framework -> its series."""
