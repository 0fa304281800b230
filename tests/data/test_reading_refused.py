"""Entries that say how data are read are refused where they say nothing of these data; none is passed over."""

import os
from pathlib import Path

import pytest
import torch

from batchscale.build.inputs import load_data
from batchscale.data import DATASETS
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError
from batchscale.recipe import load_recipe
from batchscale.task import TASKS

SHARED = Path(os.environ.get("BATCHSCALE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
WITHOUT_MASKS = (
    "digits",
    "mnist",
    "cifar10",
    "imagenet",
    "folder",
    "voc_labels",
    "bccd_labels",
    "digits_scenes_labels",
)


@pytest.mark.parametrize("name", WITHOUT_MASKS)
@pytest.mark.parametrize("reading", [Reading(masks="classes"), Reading(masks="instances")])
def test_masks_of_data_without_any(name, reading, tmp_path):
    with pytest.raises(DataError, match=rf"data.masks={reading.masks}: is for data with masks, which data.name={name}"):
        DATASETS[name].open(tmp_path, reading)


@pytest.mark.parametrize("name", [*WITHOUT_MASKS, "coco", "bccd", "digits_scenes_detection"])
def test_classes_of_data_that_know_theirs(name, tmp_path):
    with pytest.raises(DataError, match=rf"data.classes=7: is for masks that hold classes, .*data.name={name} is not"):
        DATASETS[name].open(tmp_path, Reading(classes=7))


@pytest.mark.parametrize(
    ("name", "reading", "message"),
    [
        (
            "digits_scenes",
            Reading(masks="instances"),
            "the masks of data.name=digits_scenes hold classes; leave it out",
        ),
        ("digits_scenes", Reading(classes=7), "data.classes=7: data.name=digits_scenes has 11; leave it out"),
        ("deepcam_made_up", Reading(classes=7), "data.classes=7: data.name=deepcam_made_up has 3; leave it out"),
        ("nuclei", Reading(classes=7), "data.classes=7: data.name=nuclei has 2; leave it out"),
        ("voc_segmentation", Reading(masks="instances"), "hold classes; leave it out"),
        ("pairs", Reading(masks="instances", classes=7), "data.classes=7: instances are two classes"),
    ],
)
def test_masks_that_are_known(name, reading, message, tmp_path):
    with pytest.raises(DataError, match=message):
        DATASETS[name].open(tmp_path, reading)


def test_what_is_true_of_a_set_may_be_said():
    assert len(DATASETS["digits_scenes"].open(None, Reading(masks="classes", classes=11)).train)


def test_data_of_one_s_own():
    part = TensorExamples(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))
    splits = Splits("own", part, part, 3)
    with pytest.raises(DataError, match=r"data.classes=7: the data handed in says that it has 3"):
        load_data(load_recipe("own", ["data.classes=7"]), None, splits)
    with pytest.raises(DataError, match=r"data.masks=classes: says how masks are read from files"):
        load_data(load_recipe("own", ["data.masks=classes"]), None, splits)
    assert "detection" in TASKS  # which learns masks that one's own data hold
    load_data(load_recipe("own", ["data.masks=instances", "data.classes=3", "task=detection"]), None, splits)


@pytest.mark.parametrize("value", ["3", "[3]", "[0, 3]", "[3, 4, 5]", "abc", "[a, 4]", "[true, 4]", "[1.5, 4]"])
def test_a_size_that_is_none_is_one_line(value):
    with pytest.raises(RecipeError, match=r"data.resize: is .*: must be two whole numbers of at least 1, height and"):
        load_recipe("bccd-faster-rcnn", [f"data.resize={value}"])
