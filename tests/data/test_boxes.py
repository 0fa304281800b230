"""Images with boxes: what lies on disk is read as it is, mirrored and resized with its boxes, and told where wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from batchscale.cli import main
from batchscale.data.augmentation import Augmentation
from batchscale.data.boxes.box_sources import BCCD, COCO, DIGITS_SCENES_DETECTION, VOC_DETECTION, CocoSource
from batchscale.data.boxes.boxes import BoxedImages, mirror, read_picture
from batchscale.data.boxes.coco import _masks
from batchscale.data.image.digits import load_digits
from batchscale.data.image.scenes import segmented_digits
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError
from batchscale.recipe import load_recipe

SHARED = Path(os.environ.get("BATCHSCALE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def entry(number, image, box, category=1, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def content():
    """Ids that are neither sorted nor those of places; an image without a box."""
    images = [{"id": number, "file_name": f"{number}.png", "height": 8, "width": 12} for number in (7, 3, 5)]
    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    return {
        "images": images,
        "annotations": [
            entry(1, 7, [2, 2, 4, 4], segmentation=square),
            entry(2, 3, [0, 0, 3, 2], 4, segmentation={"size": [8, 12], "counts": [0, 2, 6, 2, 6, 2, 78]}),
            entry(3, 3, [1, 1, 0, 5]),
            entry(4, 7, [0, 0, 12, 8], iscrowd=1, segmentation={"size": [8, 12], "counts": [0, 96]}),
            entry(5, 3, [9, 6, 3.5, 2.25], segmentation=square),
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 4, "name": "b"}],
    }


def write_coco(folder, train, val=None):
    for part, table in (("train", train), ("val", val or content())):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / f"{part}.json").write_text(json.dumps(table), encoding="utf-8")
        for number in (3, 5, 7):
            Image.fromarray(np.full((8, 12, 3), number, np.uint8)).save(folder / part / f"{number}.png")
    return folder


def test_coco_is_read_in_the_order_of_ids_crowds_and_zero_boxes_told(tmp_path):
    splits = COCO.open(write_coco(tmp_path, content()), Reading(masks="instances"))
    images, targets = splits.train.part(slice(3))
    assert [int(image[0, 0, 0]) for image in images] == [3, 5, 7]
    assert splits.num_classes == 5
    assert targets[0]["boxes"].tolist() == [[0, 0, 3, 2], [9, 6, 12, 8]]  # clipped from 12.5 and 8.25
    assert [target["labels"].tolist() for target in targets] == [[4, 1], [], [1, 1]]
    assert [target["crowd"].tolist() for target in targets] == [[False, False], [], [False, True]]
    assert targets[0]["masks"][0].nonzero().tolist() == [[y, x] for y in range(2) for x in range(3)]
    assert targets[2]["masks"][0, 2:6, 2:6].all()
    assert int(targets[2]["masks"][0].sum()) == 16
    assert targets[1]["boxes"].shape == (0, 4)
    assert targets[1]["masks"].shape == (0, 8, 12)
    for words in ("1 object of zero size (3.png)", "1 object clipped", "1 object of a crowd"):
        assert words in splits.passed_over
    assert "masks" not in COCO.open(tmp_path, Reading()).train.part(slice(1))[1][0]


def changed(**parts):
    return content() | parts


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed(images=[]), r"its list of images is empty"),
        (changed(annotations=[entry(n, 99, [0, 0, 1, 1]) for n in range(12)]),
         r"12 annotations of no image of the file: 0 \(image_id 99\), .* and 2 more"),
        (changed(annotations=[entry(8, 3, [0, 0, 1, 1], 2)]), r"1 annotation of no category .*8 \(category_id 2\)"),
        (changed(annotations=[entry(8, 3, [9, 0, 5, 1])]), r"1 object with a box that reaches .*of 3.png: must lie"),
        (changed(annotations=[entry(8, 3, [9, 0, 5])]), r"annotation 8: bbox \[9, 0, 5\]: must be four numbers"),
        (changed(annotations=[{"id": 1}]), r"1 of annotations without image_id, category_id, bbox"),
        (changed(annotations=[entry(8, 3, [1, 0, 5, float("nan")])]), r"annotation 8: bbox .*must be four numbers"),
        (changed(annotations=[entry(8, 3, [1, 0, 10**400, 1])]), r"annotation 8: bbox .*must be four numbers"),
        (changed(annotations=[entry(8, [3], [1, 0, 1, 1])]), r"annotation 8: image_id \[3\]: must be the id of"),
        (changed(annotations=[entry(8, 3, [1, 0, 1, 1], iscrowd="0")]), r"annotation 8: iscrowd is '0': must be 0 or"),
        (changed(images=[*content()["images"], content()["images"][0]]), r"several images have one id, "),
        (changed(images=[content()["images"][0] | {"height": None}]), r"image \d+: height None: must be a whole"),
        (changed(images=[content()["images"][0] | {"file_name": None}]), r"image \d+: file_name None: must be a text"),
        (changed(images=[*content()["images"], content()["images"][0] | {"id": "x"}]), r"must be of one kind"),
        (changed(categories=[{"id": 0}]), r"category ids 0: must be whole numbers from 1"),
        (changed(annotations=[]), r"its training part has no box"),
        ([], r"must hold lists images, annotations, categories"),
        (changed(images=[{"id": 3, "file_name": "gone.png", "height": 8, "width": 12}], annotations=[]),
         r"1 image missing in .*train: gone.png"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_json_is_one_line(tmp_path, table, message):
    with pytest.raises(DataError, match=message) as error:
        COCO.open(write_coco(tmp_path, table), Reading())
    assert "\n" not in str(error.value)


def test_a_broken_json_no_folder_and_an_image_of_another_size(tmp_path):
    write_coco(tmp_path, content())
    Image.fromarray(np.zeros((4, 12, 3), np.uint8)).save(tmp_path / "train" / "5.png")
    with pytest.raises(DataError, match=r"5.png: is 12 x 4 pixels, and its boxes are for 12 x 8"):
        COCO.open(tmp_path, Reading()).train.part(slice(3))
    (tmp_path / "val.json").write_text("{")
    with pytest.raises(DataError, match=r"val.json: cannot be read as json"):
        COCO.open(tmp_path, Reading())
    with pytest.raises(DataError, match=r"no annotations/instances_train2017.json or .* in .*; name the folder"):
        COCO.open(tmp_path / "train", Reading())


XML = """<annotation><size><width>12</width><height>8</height><depth>3</depth></size>{}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def write_voc(folder, objects="", name="b"):
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for each in ("a", name):
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / "JPEGImages" / f"{each}.jpg")
        (folder / "Annotations" / f"{each}.xml").write_text(XML.format(objects + OBJECT.format("cat", 0, 1, 2, 5, 6)))
    for part in ("trainval", "test"):
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text(f"{name}\na\n")
    return folder


def test_voc_is_read_difficult_and_zero_boxes_told(tmp_path):
    objects = OBJECT.format("dog", 1, 0, 0, 12, 8) + OBJECT.format("dog", 0, 3, 3, 3, 5)
    splits = VOC_DETECTION.open(write_voc(tmp_path, objects), Reading())
    _, targets = splits.train.part(slice(1))
    assert [photograph.name for photograph in splits.train.photographs] == ["a", "b"]
    assert targets[0]["boxes"].tolist() == [[0, 0, 12, 8], [1, 2, 5, 6]]
    assert targets[0]["labels"].tolist() == [12, 8]
    assert targets[0]["crowd"].tolist() == [True, False]
    assert splits.passed_over.startswith(
        "trainval: 2 objects of a crowd or difficult (neither learned nor an error) (a, b), 2 objects of zero size"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "Annotations/b.xml").write_text("<annotation>"), r"b.xml: cannot be read as XML"),
        (lambda f: (f / "Annotations/b.xml").write_text("<annotation/>"), r"b.xml: must have a size"),
        (
            lambda f: (f / "Annotations/b.xml").write_text('<?xml version="1.0" encoding="foo"?><annotation/>'),
            r"b.xml: cannot be read as XML",
        ),
        (lambda f: write_voc(f, OBJECT.format("cat", 0, "nan", 1, 2, 2)), r"a bndbox of four numbers"),
        (lambda f: (f / "Annotations/b.xml").unlink(), r"1 name of ImageSets/Main/trainval.txt without annotation .*b"),
        (lambda f: (f / "JPEGImages/a.jpg").unlink(), r"1 name of .*trainval.txt without image in JPEGImages: a"),
        (lambda f: (f / "ImageSets/Main/test.txt").write_text(""), r"test.txt: names no image"),
        (lambda f: (f / "ImageSets/Main/test.txt").unlink(), r"test.txt: cannot be read as a list"),
        (lambda f: write_voc(f, OBJECT.format("unicorn", 0, 1, 1, 2, 2)), r"class unicorn: must be one of aeroplane"),
        (lambda f: write_voc(f, OBJECT.format("cat", 0, 1, 1, 20, 2)), r"2 objects with a box .* of a, b"),
    ],
)
def test_what_is_wrong_with_a_folder_of_voc_is_one_line(tmp_path, spoil, message):
    spoil(write_voc(tmp_path))
    with pytest.raises(DataError, match=message) as error:
        VOC_DETECTION.open(tmp_path, Reading())
    assert "\n" not in str(error.value)


def test_a_mirror_is_of_image_boxes_and_masks_alike():
    """The box of the mirrored ink is the mirrored box, of every example of a minibatch that is mirrored."""
    examples = DIGITS_SCENES_DETECTION.open(None, Reading(masks="instances")).train
    numbers = np.arange(40)
    plain, truth = examples.part(slice(40))
    images, targets = examples.augmented(5, Augmentation(flip=True))(np.zeros(40, np.int64), numbers)
    flipped = [not torch.equal(a, b) for a, b in zip(images, plain, strict=True)]
    assert 10 < sum(flipped) < 30
    for image, before, target, old, flip in zip(images, plain, targets, truth, flipped, strict=True):
        assert torch.equal(image, before.flip(-1) if flip else before)
        for box, mask, old_mask in zip(target["boxes"].int().tolist(), target["masks"], old["masks"], strict=True):
            assert torch.equal(mask, old_mask.flip(-1) if flip else old_mask)
            ys, xs = mask.nonzero(as_tuple=True)
            assert box == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
        assert torch.equal(target["labels"], old["labels"])
    twice = mirror(*mirror(plain[0], truth[0]))
    assert torch.equal(twice[1]["boxes"], truth[0]["boxes"])


def test_a_resized_image_has_its_boxes_and_masks_with_it(tmp_path):
    splits = COCO.open(write_coco(tmp_path, content()), Reading(masks="instances", resize=(16, 36)))
    images, targets = splits.train.part(slice(3))
    assert splits.image_shape == (3, 16, 36)
    assert {tuple(image.shape) for image in images} == {(3, 16, 36)}
    assert targets[0]["boxes"][0].tolist() == [0, 0, 9, 4]
    assert targets[2]["masks"][0].nonzero().amin(0).tolist() == [4, 6]
    assert int(targets[2]["masks"][0].sum()) == 16 * 6
    assert targets[1]["masks"].shape == (0, 16, 36)


def test_scenes_have_the_boxes_of_their_ink_and_some_have_none():
    splits, masks = DIGITS_SCENES_DETECTION.open(None, Reading(masks="instances")), segmented_digits().train.targets
    images, targets = splits.train.part(slice(800))
    assert torch.equal(torch.stack(images), segmented_digits().train.inputs)
    for target, mask in zip(targets, masks, strict=True):
        drawn = target["masks"] * target["labels"].view(-1, 1, 1).to(torch.uint8)
        assert torch.equal(drawn.sum(0).to(torch.uint8), mask)
    counts = [len(target["labels"]) for target in targets]
    assert min(counts) == 0
    assert max(counts) == 4
    assert len(load_digits().train_labels) > 1000


def test_parts_select_and_say_what_they_are(tmp_path):
    train = COCO.open(write_coco(tmp_path, content()), Reading()).train
    assert isinstance(train, BoxedImages)
    assert [p.name for p in train.select(np.array([2, 0])).photographs] == ["7.png", "3.png"]
    assert train.digests() != train.select(np.array([2, 1, 0])).digests()
    moved = content()
    moved["annotations"][0]["bbox"][0] = 1
    assert train.digests() != COCO.open(write_coco(tmp_path, moved), Reading()).train.digests()
    with pytest.raises(DataError, match=r"would cut boxes"):
        train.check_augmented(crops=True)


def test_settings_without_a_place_are_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"data.resize is for images with boxes"):
        load_recipe("digits-cnn", ["data.resize=[8, 8]"])
    with pytest.raises(DataError, match=r"data.masks=instances: data.name=bccd has boxes without masks"):
        BCCD.open(tmp_path, Reading(masks="instances"))
    with pytest.raises(DataError, match=r"data.masks=classes: the masks of data.name=coco are of instances"):
        COCO.open(tmp_path, Reading(masks="classes"))
    with pytest.raises(DataError, match=r"has boxes, not one label an image"):
        BCCD.load(tmp_path)


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="no bccd below BATCHSCALE_DATA")
def test_bccd_as_it_lies_there(capsys):
    splits = BCCD.open(SHARED, Reading())
    labels = [photograph.labels for part in (splits.train, splits.test) for photograph in part.photographs]
    assert (len(splits.train), len(splits.test)) == (292, 72)
    assert torch.bincount(torch.cat(labels)).tolist() == [0, 4155 - 2, 372, 361]
    assert "2 objects of zero size (BloodImage_00338, BloodImage_00343)" in splits.passed_over
    assert main(["data", "check", "bccd", "--data", str(SHARED)]) == 0
    assert "292 training and 72 test images" in capsys.readouterr().out


@pytest.mark.skipif(not (SHARED / "coco_cc").is_dir(), reason="no coco_cc below BATCHSCALE_DATA")
def test_real_polygons_and_run_lengths_fill_their_boxes():
    coco = CocoSource("coco", 91, COCO.mean, COCO.std, layouts=("coco_cc",))
    splits = coco.open(SHARED, Reading(masks="instances"))
    assert (len(splits.train), len(splits.test), splits.num_classes) == (33, 27, 91)
    for part, crowds in ((splits.train, 3), (splits.test, 2)):
        images, targets = part.part(slice(len(part)))
        assert sum(int(target["crowd"].sum()) for target in targets) == crowds
        for image, target in zip(images, targets, strict=True):
            assert target["masks"].shape[1:] == image.shape[1:]
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                ys, xs = mask.nonzero(as_tuple=True)
                extent = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
                assert (extent - box).abs().max() <= 4  # polygons are rounded to pixels, and drawn by hand


@pytest.mark.parametrize("box", [[1e-9, 1, 1e-9, 3], [5, 1, 1e-9, 3], [1, 2, 3, 0.01]])
def test_a_box_that_float32_could_flatten_is_passed_over_and_counted(tmp_path, box):
    splits = COCO.open(
        write_coco(tmp_path, changed(annotations=[entry(7, 3, box), entry(8, 3, [1, 1, 2, 2])])), Reading()
    )
    assert "1 object thinner than 1/64 of a pixel" in splits.passed_over
    assert sum(len(photograph.labels) for photograph in splits.train.photographs) == 1


@pytest.mark.parametrize(
    "segmentation",
    ["abc", [[1, 2]], [["a"] * 8], {"size": [8, 12]}, {"size": [8, 12], "counts": [5, 5]},
     {"size": [4, 12], "counts": [5, 43]}],
)  # fmt: skip
def test_a_segmentation_that_is_none_is_one_line(segmentation):
    with pytest.raises(
        DataError, match=r"b.png: a segmentation is .*must be polygons, or run lengths of 8 x 12"
    ) as error:
        _masks("b.png", [segmentation], (8, 12))
    assert "\n" not in str(error.value)


def test_a_picture_too_large_to_be_one_is_one_line(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge.png: cannot be read as a picture"):
        read_picture(tmp_path / "huge.png", (20_000, 20_000))
