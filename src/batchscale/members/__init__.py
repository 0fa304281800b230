"""Who belongs to which family: the names that a recipe may use, and where each member lies.

A new member is its own file and one line here. Homes are imported when they are first asked for, so that a recipe is
checked without importing torch. Optimizers stand with their options in ``recipe/optimizer.py``.
"""

from __future__ import annotations

from typing import Any

from batchscale.members.table import Members

MODELS: Members[Any] = Members(
    "model",
    {
        "cnn": "batchscale.models.cnn:cnn",
        "simple_cnn": "batchscale.models.simple_cnn:simple_cnn",
        "resnet8": "batchscale.models.resnet:resnet8",
        "resnet20": "batchscale.models.resnet:resnet20",
        "resnet44": "batchscale.models.resnet:resnet44",
        "resnet50": "batchscale.models.library:resnet50",
        "resnet101": "batchscale.models.library:resnet101",
        "vgg11": "batchscale.models.vgg:vgg11",
        "wrn16_4": "batchscale.models.wide_resnet:wrn16_4",
        "unet": "batchscale.models.unet:unet",
        "tiramisu56": "batchscale.models.tiramisu:tiramisu56",
        "tiramisu67": "batchscale.models.tiramisu:tiramisu67",
        "tiramisu103": "batchscale.models.tiramisu:tiramisu103",
        "faster_rcnn_resnet18": "batchscale.models.faster_rcnn:faster_rcnn_resnet18",
        "transformer": "batchscale.models.transformer:transformer",
        "lstm": "batchscale.models.lstm:lstm",
        "keskar_f1": "batchscale.models.keskar:keskar_f1",
        "keskar_c1": "batchscale.models.keskar:keskar_c1",
    },
    last=("own",),
)
"""(image shape (C, H, W), or (T,) of T tokens; number of classes) -> module."""

DATASETS: Members[Any] = Members(
    "data set",
    {
        "digits": "batchscale.data.sources:DIGITS",
        "mnist": "batchscale.data.sources:MNIST",
        "fashion_mnist": "batchscale.data.sources:FASHION_MNIST",
        "cifar10": "batchscale.data.sources:CIFAR10",
        "cifar100": "batchscale.data.sources:CIFAR100",
        "digits_scenes": "batchscale.data.masks.mask_sources:DIGITS_SCENES",
        "nuclei": "batchscale.data.masks.mask_sources:NUCLEI",
        "deepcam_made_up": "batchscale.data.masks.mask_sources:DEEPCAM_MADE_UP",
        "voc_segmentation": "batchscale.data.masks.mask_sources:VOC_SEGMENTATION",
        "pairs": "batchscale.data.masks.mask_sources:PAIRS",
        "coco": "batchscale.data.boxes.box_sources:COCO",
        "voc_detection": "batchscale.data.boxes.box_sources:VOC_DETECTION",
        "bccd": "batchscale.data.boxes.box_sources:BCCD",
        "digits_scenes_detection": "batchscale.data.boxes.box_sources:DIGITS_SCENES_DETECTION",
        "text": "batchscale.data.language.text_sources:TEXT",
        "shakespeare": "batchscale.data.language.text_sources:SHAKESPEARE",
        "topics": "batchscale.data.language.text_sources:TOPICS",
        "voc_labels": "batchscale.data.boxes.label_sources:VOC_LABELS",
        "bccd_labels": "batchscale.data.boxes.label_sources:BCCD_LABELS",
        "digits_scenes_labels": "batchscale.data.boxes.label_sources:DIGITS_SCENES_LABELS",
        "imagenet": "batchscale.data.sources:IMAGENET",
        "folder": "batchscale.data.sources:FOLDER",
    },
    last=("own",),
)
"""A ``Source`` each."""

ON_DISK = ["imagenet", "folder"]
"""Those data sets whose images stay on disk, and are decoded as they are used."""

WITH_BOXES = ["coco", "voc_detection", "bccd", "digits_scenes_detection", "voc_labels", "bccd_labels"]
"""Those data sets whose images have boxes, and may differ in size."""
PAIRS = ["nuclei", "pairs", "voc_segmentation"]
"""Those data sets whose images are pairs of files with masks, of several sizes perhaps, and may be cropped."""
TEXTS = ["text", "shakespeare", "topics"]
"""Those data sets that are texts, and are cut into sequences."""

TASKS: Members[Any] = Members(
    "task",
    {
        "classification": "batchscale.task.classification:Classification",
        "multilabel": "batchscale.task.multilabel:Multilabel",
        "segmentation": "batchscale.task.segmentation:Segmentation",
        "detection": "batchscale.task.detection:Detection",
        "language": "batchscale.task.language:Language",
    },
)
"""(number of classes, label_smoothing) -> ``Task``; the class of a task is one."""

BACKENDS = ("builtin", "shared_memory")
"""All-reduces that are no schedules: the backend's own, and through shared memory (``comm/reducer.py``)."""

ALL_REDUCES: Members[Any] = Members(
    "all-reduce",
    {
        "ring": "batchscale.comm.collectives.ring:Ring",
        "halving_doubling": "batchscale.comm.collectives.halving_doubling:HalvingDoubling",
        "binary_blocks": "batchscale.comm.collectives.binary_blocks:BinaryBlocks",
        "torus": "batchscale.comm.collectives.torus:Torus",
        "hierarchical": "batchscale.comm.collectives.hierarchical:Hierarchical",
        "three_phase": "batchscale.comm.collectives.three_phase:ThreePhase",
        "direct": "batchscale.comm.collectives.direct:Direct",
    },
    first=("auto", *BACKENDS),
)
"""A class of ``Collective`` each."""

BETWEEN: Members[Any] = Members(
    "all-reduce between hosts",
    {
        "ring": "batchscale.comm.collectives.ring:Ring",
        "halving_doubling": "batchscale.comm.collectives.halving_doubling:HalvingDoubling",
        "binary_blocks": "batchscale.comm.collectives.binary_blocks:BinaryBlocks",
        "torus": "batchscale.comm.collectives.torus:Torus",
    },
    first=("auto",),
)
"""Those that three_phase may use between hosts: a class of ``GroupCollective`` each."""

__all__ = [
    "ALL_REDUCES", "BACKENDS", "BETWEEN", "DATASETS", "MODELS", "ON_DISK", "PAIRS", "TASKS", "TEXTS", "WITH_BOXES",
    "Members",
]  # fmt: skip
