"""Decoding: the pixels that PIL and torchvision give, read only as far as the view needs."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import jpeg, noise, photographs
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize
from torchvision.transforms import functional as F

from batchscale.data.folders import jpeg as decoding
from batchscale.data.folders.jpeg import BadImage, View, read_frame, render
from batchscale.data.folders.views import DRAWS, centre, scale_and_aspect


def rendered(data: bytes, view, flip=False, size=224):
    out = torch.empty(1, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    render(data, view if callable(view) else lambda h, w: view, flip, out)
    return out[0].permute(1, 2, 0).numpy()


def by_pil(data: bytes, view: View, flip=False):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = F.resized_crop(image, view.top, view.left, view.height, view.width, [view.target_height, view.target_width])
    return np.asarray(F.hflip(image) if flip else image)


def distance(a, b):
    return np.abs(a.astype(int) - b.astype(int))


VIEWS = [View(0, 0, 375, 500, 224, 224), View(0, 100, 120, 130, 224, 224), View(63, 7, 225, 300, 224, 224),
         View(247, 250, 128, 250, 224, 224), View(13, 1, 1, 3, 224, 224)]  # fmt: skip


@pytest.mark.parametrize("chroma", ["4:2:0", "4:2:2", "4:4:4", "grey", "progressive"])
def test_pixels_are_pil_s(chroma):
    for image in photographs(2):
        data = jpeg(image, chroma)
        for view in VIEWS:
            for flip in (False, True):
                away = distance(rendered(data, view, flip), by_pil(data, view, flip))
                assert away.max() <= 2, (chroma, view)
                assert away.mean() < 0.1


def test_rows_below_the_view_are_never_decoded(monkeypatch):
    seen = []
    real = decoding.simplejpeg.decode_jpeg

    def decode(data, **kwargs):
        seen.append(read_frame(data).height)
        return real(data, **kwargs)

    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", decode)
    data = jpeg(noise(375, 500), "4:2:0")
    rendered(data, View(0, 0, 100, 100, 224, 224))
    rendered(jpeg(noise(375, 500), "progressive"), View(0, 0, 100, 100, 224, 224))
    assert seen == [112, 375]


def test_a_large_view_is_scaled_by_the_dct_and_stays_near_pil_s():
    image = photographs(1)[0].resize((2000, 1500), Image.Resampling.LANCZOS)
    data = jpeg(image, "4:2:0")
    for scale, view in [
        (2, View(0, 0, 1500, 2000, 224, 224)),
        (2, View(301, 407, 1001, 937, 224, 224)),
        (4, View(9, 9, 1400, 1970, 112, 112)),
        (8, View(9, 9, 1400, 1970, 57, 57)),
    ]:
        edges = [view.top, view.left, view.top + view.height, view.left + view.width]
        top, left, bottom, right = (round(edge / scale) * scale for edge in edges)
        near = View(top, left, bottom - top, right - left, view.target_height, view.target_width)
        away = distance(rendered(data, view, size=view.target_height), by_pil(data, near))
        assert away.max() <= 8, view
        assert away.mean() < 0.7, view


def test_the_evaluated_part_is_torchvision_s():
    for image in [*photographs(2), noise(300, 200), noise(97, 111)]:
        data = jpeg(image, "4:4:4")
        expected = CenterCrop(224)(Resize(256)(Image.open(io.BytesIO(data)).convert("RGB")))
        away = distance(rendered(data, lambda h, w: centre(h, w, 224)), np.asarray(expected))
        assert away.max() <= 2


def enlarged_whole(pixels, view, flip, size):
    """The window as it was cut on 91b3349: out of the whole image, enlarged."""
    box = torch.from_numpy(pixels[:, ::-1].copy() if flip else pixels).permute(2, 0, 1).unsqueeze(0)
    whole = torch.nn.functional.interpolate(
        box.contiguous(memory_format=torch.channels_last), (view.target_height, view.target_width), mode="bilinear",
        antialias=True,
    )  # fmt: skip
    return whole[0, :, view.window_top :, view.window_left :][:, :size, :size].permute(1, 2, 0).numpy()


SIDES = [(1, 1), (1, 30), (40, 50), (50, 40), (33, 97), (97, 33), (60, 240), (300, 40), (16, 190), (256, 256)]
STRIPS = [(1, 600), (600, 1), (3, 200), (20, 300), (300, 20), (64, 1200), (1200, 64)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sides", [*SIDES, *STRIPS])
def test_the_window_is_that_of_the_whole_image_resized(sides, flip):
    """Bit for bit; of strips, of which the window alone is made, by PIL's kernel, within 2 of 255 levels."""
    size = 32
    pixels = np.array(noise(*sides, seed=sum(sides)))
    view = centre(*sides, size)
    away = distance(rendered(png(pixels), view, flip, size), enlarged_whole(pixels, view, flip, size))
    assert away.max() <= (2 if sides in STRIPS and max(sides) > 12.3 * min(sides) else 0)
    assert away.mean() < 0.6


@pytest.mark.parametrize("sides", [(1, 12_000), (12_000, 1), (2, 65_500)])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_memory_of_a_strip_follows_what_is_kept(monkeypatch, sides, form):
    """On 91b3349 the first took 3.5 GB: all of it was enlarged."""
    resized = []
    real = torch.nn.functional.interpolate
    monkeypatch.setattr(torch.nn.functional, "interpolate", lambda *a, **k: resized.append(a[1]) or real(*a, **k))
    stream = io.BytesIO()
    Image.fromarray(np.full((*sides, 3), 77, np.uint8)).save(stream, form)
    tracemalloc.start()
    try:
        seen = rendered(stream.getvalue(), lambda h, w: centre(h, w, 224))
        assert distance(seen, np.full_like(seen, 77)).max() <= 1
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert resized == []


def test_a_picture_that_is_absurdly_long_is_bad():
    stream = io.BytesIO()
    Image.new("1", (65_501, 1)).save(stream, "PNG")
    with pytest.raises(BadImage, match="huge: 65501 x 1 pixels, at most 65500 a side"):
        rendered(stream.getvalue(), VIEWS[0])
    data = jpeg(noise(8, 8))
    wide = bytearray(data)
    offset = read_frame(data).height_at
    wide[offset : offset + 4] = b"\0\x01\xff\xff"
    with pytest.raises(BadImage, match="huge: 65535 x 1 pixels"):
        rendered(bytes(wide), VIEWS[0])


def test_a_rare_large_picture_leaves_no_large_buffer():
    rendered(jpeg(Image.new("RGB", (48_000, 500))), lambda h, w: centre(h, w, 224))
    assert len(decoding._BUFFERS.pixels) <= 64 << 20


def test_training_crops_are_distributed_as_torchvision_s():
    torch.manual_seed(0)
    draws = np.random.default_rng(0).random((4000, DRAWS))
    blank = torch.empty(3, 375, 500)
    for height, width in ((375, 500), (200, 900), (900, 100)):
        ours = np.array(
            [[v.top, v.left, v.height, v.width] for v in (scale_and_aspect(d, height, width, 8) for d in draws)]
        )
        blank = torch.empty(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
        assert (ours >= 0).all()
        assert (ours[:, 0] + ours[:, 2] <= height).all()
        assert (ours[:, 1] + ours[:, 3] <= width).all()
        for column in range(4):
            spread = theirs[:, column].std() / np.sqrt(4000)
            assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 6 * spread + 1e-9
            assert ours[:, column].std() == pytest.approx(theirs[:, column].std(), rel=0.1, abs=1e-9)


def png(array, mode=None):
    stream = io.BytesIO()
    Image.fromarray(array, mode).save(stream, "PNG")
    return stream.getvalue()


def test_other_images_are_read_by_pil():
    whole = View(0, 0, 40, 50, 40, 50)
    grey16 = (np.arange(2000).reshape(40, 50) * 32).astype(np.uint16)
    assert np.array_equal(rendered_whole(png(grey16), whole)[:, :, 1], grey16 >> 8)
    rgb = np.asarray(noise(40, 50))
    assert np.array_equal(rendered_whole(png(rgb), whole), rgb)
    stream = io.BytesIO()
    noise(40, 50).convert("CMYK").save(stream, "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    assert np.array_equal(rendered_whole(stream.getvalue(), whole), expected)
    trailing = jpeg(noise(40, 50), "4:4:4") + b"trailing bytes"
    assert np.array_equal(rendered_whole(trailing, whole), rendered_whole(trailing[:-14], whole))


def test_a_large_image_is_read_without_a_word():
    images = "import io; from PIL import Image; s = io.BytesIO(); Image.new('1', (9600, 9600)).save(s, 'PNG')"
    images += "; p = io.BytesIO(); Image.new('P', (9, 9)).save(p, 'PNG', transparency=bytes(9))"
    read = "from batchscale.data.folders.jpeg import decode_whole; decode_whole(p.getvalue())"
    read += "; print(decode_whole(s.getvalue()).shape)"
    ended = subprocess.run([sys.executable, "-c", f"{images}; {read}"], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("(9600, 9600, 3)\n", "")


def rendered_whole(data, view):
    out = torch.empty(1, 40, 50, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    render(data, lambda h, w: view, False, out)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("chroma", ["4:2:0", "progressive"])
def test_bad_images_are_refused_with_the_reason(chroma):
    data = jpeg(noise(375, 500), chroma)
    frame = read_frame(data)
    huge = bytearray(data)
    huge[frame.height_at : frame.height_at + 4] = b"\xff\xff\xff\xff"
    for bad, reason in [
        (b"", "empty"),
        (b"no image at all", "no image"),
        (data[:300], "."),
        (data[: len(data) // 2], "truncated"),
        (data[: len(data) // 2] + b"\xff", "truncated"),
        (bytes(huge), "huge"),
    ]:
        with pytest.raises(BadImage, match=reason):
            rendered(bad, VIEWS[0])


def test_any_damage_ends_in_pixels_or_a_refusal():
    rng = np.random.default_rng(1)
    data = jpeg(noise(60, 80), "4:2:0")
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        for position in rng.integers(0, min(len(damaged), len(data) if rng.random() < 0.3 else 700), 3):
            damaged[position] = rng.integers(0, 256)
        with contextlib.suppress(BadImage):
            assert rendered(bytes(damaged), lambda h, w: centre(h, w, 32), size=32).shape == (32, 32, 3)
