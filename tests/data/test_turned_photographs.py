"""Photographs that an EXIF entry turns: by their boxes' size where that tells, else refused."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from batchscale.data.boxes.boxes import read_picture
from batchscale.errors import DataError

HEIGHT, WIDTH = 3, 5


def photograph(file, orientation, height=HEIGHT, width=WIDTH):
    """A PNG with a number of its own in every pixel."""
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(file, exif=exif)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_a_turned_photograph_tell_whether_it_is_turned(tmp_path, orientation):
    file = tmp_path / "a.png"
    stored = photograph(file, orientation)
    assert torch.equal(read_picture(file, (HEIGHT, WIDTH)), stored)
    with Image.open(file) as picture:
        turned = torch.from_numpy(np.array(ImageOps.exif_transpose(picture))).permute(2, 0, 1)
    assert torch.equal(read_picture(file, (WIDTH, HEIGHT)), turned)
    if orientation == 6:  # a quarter turn clockwise: the first column from below is the first row
        assert turned[0, 0].tolist() == stored[0, :, 0].flip(0).tolist()


@pytest.mark.parametrize(("orientation", "size"), [(2, (3, 5)), (3, (3, 5)), (4, (3, 5)), (6, (4, 4)), (8, (4, 7))])
def test_where_boxes_would_fit_both_ways_it_is_refused(tmp_path, orientation, size):
    photograph(tmp_path / "a.png", orientation, *(size if size[0] == size[1] else (HEIGHT, WIDTH)))
    with pytest.raises(DataError, match=rf"a.png: is turned by its EXIF orientation {orientation}: whether its boxes"):
        read_picture(tmp_path / "a.png", size)


def test_what_no_entry_turns_is_as_stored_whatever_its_boxes(tmp_path):
    stored = photograph(tmp_path / "a.png", 1)
    assert torch.equal(read_picture(tmp_path / "a.png", (WIDTH, HEIGHT)), stored)  # told later, with both sizes
