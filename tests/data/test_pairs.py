"""Images with masks on disk: their layouts, and what is wrong with them in one line."""

import csv
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from batchscale.cli import main
from batchscale.data.image.digits import load_digits
from batchscale.data.image.scenes import segmented_digits
from batchscale.data.masks.mask_sources import NUCLEI, PAIRS
from batchscale.data.source import Reading
from batchscale.errors import DataError

CLASSES = Reading(masks="classes", classes=3)


def write(folder, name, mask, size=(4, 6), masks="masks"):
    for part, pixels in (("images", np.full((*size, 3), 7, np.uint8)), (masks, mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")


def mask(value, size=(4, 6), dtype=np.uint8):
    pixels = np.zeros(size, dtype)
    pixels[1, 2] = value
    return pixels


@pytest.fixture
def folders(tmp_path):
    for part in ("train", "val"):
        for number in range(3):
            write(tmp_path / part, f"{part}{number}", mask(number))
    return tmp_path


def test_folders_of_pairs_are_read_in_the_order_of_their_names(folders):
    splits = PAIRS.open(folders, CLASSES)
    assert splits.train.shape == (3, 4, 6)
    assert splits.train.targets[:, 1, 2].tolist() == splits.test.targets[:, 1, 2].tolist() == [0, 1, 2]
    assert splits.num_classes == 3


def test_a_table_says_which_part_an_image_is_of(tmp_path):
    for number in range(4):
        write(tmp_path, f"p{number}", mask(number * 80), masks="labels")
    with open(tmp_path / "index.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["image_id", "split"], ["p2", "val"], ["p0", "train"], ["p3", "train"], ["p1", "test"]])
    splits = PAIRS.open(tmp_path, Reading(masks="instances"))
    assert splits.train.targets[:, 1, 2].tolist() == [0, 1]  # 240: an instance is foreground, whatever its number
    assert splits.test.targets[:, 1, 2].tolist() == [1, 1]


def test_instances_of_16_bits_keep_their_numbers(tmp_path):
    for part in ("train", "val"):
        write(tmp_path / part, "a", mask(512, dtype=np.uint16))
    assert PAIRS.open(tmp_path, Reading(masks="instances")).train.targets[0, 1, 2] == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "train/masks/train1.png").unlink(), r"1 file with no mask: train1; add the partners"),
        (lambda f: (f / "val/images/val2.png").unlink(), r"1 file with no image: val2"),
        (
            lambda f: write(f / "train", "train1", mask(7)),
            r"1 mask with values outside the 3 classes, .*train1.png with 7",
        ),
        (
            lambda f: write(f / "train", "train1", mask(0), (8, 6)),
            r"size than the image: train1.png \(4 x 6, image 8 x 6\)",
        ),
        (
            lambda f: write(f / "val", "val0", np.zeros((4, 6, 3), np.uint8)),
            r"a mask must have one whole number a pixel",
        ),
        (lambda f: (f / "val/masks/val0.png").write_bytes(b"no picture"), r"val0.png: cannot be read as a picture"),
    ],
)
def test_what_is_wrong_is_one_line(folders, spoil, message):
    spoil(folders)
    with pytest.raises(DataError, match=message) as error:
        PAIRS.open(folders, CLASSES)
    assert "\n" not in str(error.value)


def png(file, rows, bits, kind=0):
    """A PNG of rows of bytes, as such writers make that Pillow is none of."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 6, 4, bits, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


def turned(image):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.new("RGB", (6, 4)).save(image, exif=exif)


def film(file, mode):
    Image.new(mode, (6, 4)).save(file, save_all=True, append_images=[Image.new(mode, (6, 4), 1)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: turned(f / "images/val0.png"),
            r"val0.png: is turned by its EXIF orientation 3: whether its partner",
        ),
        (lambda f: film(f / "images/val0.png", "RGB"), r"val0.png: holds 2 pictures: must hold one"),
        (lambda f: film(f / "masks/val0.png", "L"), r"val0.png: holds 2 pictures: must hold one"),
        (lambda f: film((f / "images/val0.png").rename(f / "images/val0.tif"), "RGB"), r"val0.tif: holds 2 pictures"),
        (lambda f: png(f / "images/val0.png", [bytes(36)] * 4, 16, 2), r"more than 8 bits a pixel \(RGB;16B\)"),
        (lambda f: png(f / "masks/val0.png", [b"\x12\x01\x01"] * 4, 4), r"val0.png: is grey with 4 bits: whether"),
        (lambda f: png(f / "masks/val0.png", [b"\x12\x00"] * 4, 2), r"val0.png: is grey with 2 bits: whether"),
    ],
)
def test_a_picture_with_two_readings_is_refused(folders, spoil, message):
    spoil(folders / "val")
    with pytest.raises(DataError, match=message) as error:
        PAIRS.open(folders, CLASSES)
    assert "\n" not in str(error.value)


def test_what_has_one_reading_is_read(folders):
    """Instances of 4 bits are foreground however they are scaled; 1 of one bit is class 1."""
    png(folders / "val/masks/val0.png", [b"\x01\x00\x00"] * 4, 4)
    assert PAIRS.open(folders, Reading(masks="instances")).test.targets[0].sum(0).tolist() == [0, 4, 0, 0, 0, 0]
    png(folders / "val/masks/val0.png", [b"\x40"] * 4, 1)
    assert PAIRS.open(folders, CLASSES).test.targets[0].sum(0).tolist() == [0, 4, 0, 0, 0, 0]


def test_masks_of_another_size_than_all_images(folders):
    for part in ("train", "val"):
        for number in range(3):
            write(folders / part, f"{part}{number}", mask(0, (6, 6)))
    with pytest.raises(DataError, match=r"6 masks of another size than the image: train0.png \(6 x 6, image 4 x 6\)"):
        PAIRS.open(folders, CLASSES)


def test_many_missing_partners_are_counted_and_ten_named(folders):
    for number in range(20):
        Image.fromarray(mask(0)).save(folders / "train" / "images" / f"more{number:02}.png")
    with pytest.raises(DataError, match=r"20 files with no mask: more00, .*more09 and 10 more"):
        PAIRS.open(folders, CLASSES)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(), r"give data.masks=instances .*or data.masks=classes with data.classes=N"),
        (Reading(masks="classes"), r"data.classes=None: .*must say how many"),
        (Reading(masks="classes", classes=1), r"data.classes=1"),
    ],
)
def test_what_masks_hold_is_never_guessed(folders, reading, message):
    with pytest.raises(DataError, match=message):
        PAIRS.open(folders, reading)


def test_a_check_is_told_what_masks_hold_as_a_recipe_is(folders, capsys):
    words = ["data", "check", "pairs", "--data", str(folders), "--json"]
    assert main([*words[:3], "data.masks=classes", "data.classes=3", *words[3:]]) == 0
    classes = json.loads(capsys.readouterr().out)["data"][0]
    assert main([*words[:3], "data.masks=instances", *words[3:]]) == 0
    instances = json.loads(capsys.readouterr().out)["data"][0]
    assert len(classes["train_percent_per_class"]) == 3
    assert len(instances["train_percent_per_class"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "pairs", "epochs=3"], "epochs=3: must be the name of a data set, or, of `data check`"),
        (["prepare", "pairs", "data.masks=instances"], "data prepare: data.masks=instances: must be the name"),
        (["check", "data.masks=instances"], "names no data set"),
        (["check", "digits", "data.masks=instances"], "data check digits: data.masks=instances: is not read in"),
    ],
)
def test_words_of_a_check_without_a_place_are_one_line(words, message, capsys):
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_folders_that_are_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no images/ or train/ in .*; name the folder"):
        NUCLEI.open(tmp_path, Reading())
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    with pytest.raises(DataError, match=r"no folder is named; give it with --data DIR"):
        NUCLEI.open(None, Reading())


def test_scenes_show_no_test_digit_in_training():
    digits, splits = load_digits(), segmented_digits()
    scenes, masks = splits.train.inputs[:200, 0], splits.train.targets
    windows = {bytes(w.numpy()) for w in scenes.unfold(1, 8, 1).unfold(2, 8, 1).reshape(-1, 64) if w.any()}
    of_training = {bytes(image.numpy()) for image in digits.train_images.reshape(-1, 64)}
    of_test = {bytes(image.numpy()) for image in digits.test_images.reshape(-1, 64)}
    assert len(windows & of_training) > 300
    assert not windows & (of_test - of_training)
    assert ((splits.train.inputs[:, 0] >= 60) == (masks > 0)).all()
    assert torch.bincount(masks.flatten().long(), minlength=11).min() > 4000


def test_the_check_of_data_says_what_is_there(folders, capsys):
    assert main(["data", "check", "digits_scenes"]) == 0
    assert "800 training and 200 test images of 1x32x32 with masks" in capsys.readouterr().out


def test_the_nuclei_are_read_as_they_are(data_folder):
    if not (data_folder / "nuclei_dsb2018").is_dir():
        pytest.skip(f"no nuclei in {data_folder}")
    splits = NUCLEI.open(data_folder, Reading())
    assert (len(splits.train), len(splits.test), splits.image_shape) == (268, 66, (1, 256, 256))
    images = splits.train.inputs.double()
    assert images.mean().item() == pytest.approx(NUCLEI.mean[0], rel=1e-12)
    assert images.std(correction=0).item() == pytest.approx(NUCLEI.std[0], rel=1e-9)
    assert splits.train.targets.unique().tolist() == [0, 1]
