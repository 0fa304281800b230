"""Where pairs of image and mask may lie: tables, lists, folders, Pascal-VOC; what is ambiguous is refused."""

import numpy as np
import pytest
from PIL import Image

from batchscale.data.masks.mask_sources import PAIRS, VOC_SEGMENTATION
from batchscale.data.source import Reading
from batchscale.errors import DataError

CLASSES = Reading(masks="classes", classes=21)
PALETTE = [value for number in range(256) for value in (number, 255 - number, 7)]


def write(folder, name, value, images="images", masks="masks", suffix=".png"):
    """A pair of 4 x 6 whose mask holds a class and a border of 255, as Pascal-VOC's: a palette, with transparency."""
    for part in (images, masks):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(folder / images / f"{name}{suffix}")
    pixels = np.full((4, 6), value, np.uint8)
    pixels[0] = 255
    mask = Image.fromarray(pixels)
    mask.putpalette(PALETTE)
    mask.save(folder / masks / f"{name}.png", transparency=0)


def lists(folder, train, val):
    folder.mkdir(parents=True, exist_ok=True)
    for part, names in (("train", train), ("val", val)):
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def beside(tmp_path):
    for number in range(4):
        write(tmp_path, f"p{number}", number)
    return tmp_path


def classes(part):
    return part.targets[:, 1, 2].tolist()


@pytest.mark.parametrize("where", ["VOCdevkit/VOC2012", "."])
def test_pascal_voc_is_read_as_it_lies(tmp_path, where):
    root = tmp_path / where
    for number in range(5):
        write(root, f"2007_{number}", 20 - number, "JPEGImages", "SegmentationClass", ".jpg")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(root / "JPEGImages" / "without_a_mask.jpg")
    lists(root / "ImageSets" / "Segmentation", ["2007_3", "2007_0"], ["2007_1"])
    splits = VOC_SEGMENTATION.open(tmp_path, Reading())
    assert (splits.num_classes, classes(splits.train), classes(splits.test)) == (21, [17, 20], [19])
    assert (splits.train.targets[:, 0] == 255).all()
    assert splits.passed_over.startswith("2 pairs that ")
    if where == ".":
        assert classes(PAIRS.open(tmp_path, CLASSES).train) == [17, 20]


def test_lists_say_which_part_an_image_is_of(beside):
    lists(beside, ["p3", "p1"], ["p0"])
    splits = PAIRS.open(beside, CLASSES)
    assert (classes(splits.train), classes(splits.test)) == ([3, 1], [0])


def test_a_table_saved_by_a_spreadsheet_is_read(beside):
    (beside / "index.csv").write_bytes(b"\xef\xbb\xbfid,split\r\np0,train\r\np1,val\r\n")
    assert classes(PAIRS.open(beside, CLASSES).test) == [1]


def table(folder, text):
    (folder / "index.csv").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [table(f, "id,split\np0,train\np1,val\n"), lists(f, ["p0"], ["p1"])],
         r"holds index.csv and train.txt or val.txt: each says .*; leave one"),
        (lambda f: [table(f, "id,split\np0,train\np1,val\n"), write(f / "train", "a", 1)],
         r"holds index.csv and train/images: each says"),
        (lambda f: table(f, "id,split\np0,train\np1,val\np0,val\n"), r"index.csv names p0 more than once"),
        (lambda f: lists(f, ["p0", "p1"], ["p1"]), r"names p1 more than once: an image is of one part"),
        (lambda f: table(f, ""), r"index.csv: must have rows, a column id or image_id and a column split"),
        (lambda f: table(f, "id,split\n"), r"index.csv: must have rows"),
        (lambda f: table(f, "id,split\np0\np1,val\n"), r"split None of p0: must be train, val or test"),
        (lambda f: (f / "index.csv").write_bytes(b"id,split\n\xff,train\n"), r"index.csv: cannot be read as text"),
        (lambda f: lists(f, ["p0"], []), r"train.txt or val.txt: no image of the test part"),
        (lambda f: (f / "train.txt").write_text("p0\n"), r"val.txt: cannot be read as text"),
        (lambda f: lists(f, ["p0"], [f"q{n:02}" for n in range(12)]),
         r"names 12 images that .*images does not hold: q00, .*q09 and 2 more; .*names are without"),
        (lambda f: [lists(f, ["p0"], ["p1"]), (f / "masks/p1.png").unlink()],
         r"names 1 image that .*masks does not hold: p1"),
        (lambda f: [lists(f, ["p0"], ["p1"]), Image.new("RGB", (6, 4)).save(f / "images/p1.jpg")],
         r"p1.jpg and p1.png have one name, so which belongs to p1.png cannot be told"),
        (lambda f: [lists(f, ["p0"], ["p1"]), (f / "labels").mkdir()], r"holds images/ and both masks/ and labels/"),
        (lambda f: [lists(f, ["p0"], ["p1"]), Image.fromarray(np.zeros((4, 6), np.uint16)).save(f / "images/p1.png")],
         r"p1.png: has more than 8 bits a pixel"),
        (lambda f: None, r"holds neither images/, a folder of masks and index.csv or train.txt"),
    ],
)  # fmt: skip
def test_what_two_readings_allow_is_never_guessed(beside, spoil, message):
    spoil(beside)
    with pytest.raises(DataError, match=message) as error:
        PAIRS.open(beside, CLASSES)
    assert "\n" not in str(error.value)


def test_255_is_no_class_so_there_are_255_at_most(beside):
    lists(beside, ["p0"], ["p1"])
    assert PAIRS.open(beside, Reading(masks="classes", classes=255)).num_classes == 255
    with pytest.raises(DataError, match=r"data.classes=256: .*from 2 to 255"):
        PAIRS.open(beside, Reading(masks="classes", classes=256))


def test_grey_and_coloured_images_together_are_read_in_colours(beside):
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(beside / "images/p1.png")
    lists(beside, ["p0", "p1"], ["p2"])
    train = PAIRS.open(beside, CLASSES).train
    assert train.inputs[:, :, 0, 0].tolist() == [[7, 7, 7], [9, 9, 9]]


def test_a_picture_of_one_pixel_is_a_pair(tmp_path):
    for part in ("train", "val"):
        write(tmp_path / part, "a", 1)
        Image.new("L", (1, 1), 5).save(tmp_path / part / "images/a.png")
        Image.new("1", (1, 1), 1).save(tmp_path / part / "masks/a.png")
    splits = PAIRS.open(tmp_path, Reading(masks="classes", classes=2))
    assert (splits.train.inputs.tolist(), splits.train.targets.tolist()) == ([[[[5]]]], [[[1]]])
