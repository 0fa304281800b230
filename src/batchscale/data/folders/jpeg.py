"""Image bytes -> uint8 RGB pixels of one view, resized: a JPEG is decoded only as far down as the view needs.

decode   libjpeg-turbo (simplejpeg): accurate integer DCT, smooth chroma upsampling, as PIL. Rows below the view are
         never decoded: the height in the frame header is lowered to the MCU row that the view ends in. Where the view
         is at least 4, 8 or 16 times as large as its target both ways, the DCT itself gives 1/2, 1/4 or 1/8 of it; the
         view's edges then lie on the nearest of that smaller image's pixels.
resize   bilinear with antialiasing (a triangle as wide as one target pixel), torch's uint8 kernel: PIL's filter. Where
         the window that is kept is a small part of the target (a strip's centre), PIL itself, of that window alone.
others   PNG, CMYK, 16 bits, JPEG without an end: PIL reads them whole, and says what is wrong with the rest.

Cost: 500x375 to 224x224, scale-and-aspect crop: about 0.6 ms to decode, 0.15 ms to resize on one core.
Source: Wallace 1992, "The JPEG still picture compression standard" (frame header, MCU); ITU-T T.81, annex B.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

MOST_PIXELS = 178_956_970  # twice 1 GiB / 4 / 3: where PIL, too, takes a file for an attack on memory
LONGEST_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION: what is longer cannot be kept as a JPEG, and is no picture

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # PIL's, at half of that: still read
warnings.filterwarnings(
    "ignore", category=UserWarning, module="PIL"
)  # of transparency, EXIF: no one word for each file

_END = b"\xff\xd9"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0..7, SOI
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}
_PROGRESSIVE = 0xC2
_SCALES = (8, 4, 2)  # those with vectorised inverse DCTs
_MOST_RESIZED = 16  # pixels made for one that is kept: more only of pictures of 12 to 1 and beyond
_KEPT_BYTES = 64 << 20  # of a thread's buffer: what a rare larger picture needs is given back


class BadImage(ValueError):
    """Bytes that hold no readable image; the message is the reason."""


@dataclass(frozen=True)
class View:
    """What is seen of an image of (H, W): a box, resized to (target_height, target_width), then a window of that.

    Args:
        top, left, height, width: the box, in pixels of the image.
        target_height, target_width: what it is resized to.
        window_top, window_left: where the result begins in that.
    """

    top: int
    left: int
    height: int
    width: int
    target_height: int
    target_width: int
    window_top: int = 0
    window_left: int = 0


@dataclass(frozen=True)
class Frame:
    """A JPEG's frame header.

    Args:
        marker: its kind, 0xC0 for baseline.
        height_at: where its height stands in the file.
        height, width: of the image.
        components: 1, 3 or 4.
        mcu_height: rows of one MCU; 0 where the height may not be lowered (more than one scan).
    """

    marker: int
    height_at: int
    height: int
    width: int
    components: int
    mcu_height: int


def read_frame(data: bytes | bytearray) -> Frame | None:
    """The frame header of a JPEG, None where there is none."""
    if data[:2] != b"\xff\xd8":
        return None
    offset, end, frame = 2, len(data), None
    while offset + 4 <= end and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker in _WITHOUT_LENGTH or marker == 0xFF:
            offset += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:  # the first scan: all components in it, or there will be more scans
            whole = frame is not None and frame.marker in _SEQUENTIAL and data[offset + 4] == frame.components
            return frame if whole or frame is None else Frame(**{**vars(frame), "mcu_height": 0})
        length = data[offset + 2] << 8 | data[offset + 3]
        if marker in _FRAMES:
            if offset + 10 > end or offset + 2 + length > end or data[offset + 4] != 8:
                return None
            components = data[offset + 9]
            sampling = [data[offset + 11 + 3 * c] & 15 for c in range(components) if offset + 11 + 3 * c < end]
            mcu_height = 8 * max(sampling, default=1)
            height, width = data[offset + 5] << 8 | data[offset + 6], data[offset + 7] << 8 | data[offset + 8]
            frame = Frame(marker, offset + 5, height, width, components, mcu_height)
        offset += 2 + length
    return None


class _Buffers(threading.local):
    """One buffer a thread for decoded pixels: fresh memory costs as much as a third of the decoding."""

    def __init__(self) -> None:
        self.pixels: Pixels = np.empty(0, np.uint8)

    def of(self, num_bytes: int) -> Pixels:
        if num_bytes > _KEPT_BYTES:
            return np.empty(num_bytes, np.uint8)
        if len(self.pixels) < num_bytes:
            self.pixels = np.empty(num_bytes, np.uint8)
        return self.pixels


_BUFFERS = _Buffers()


def _scale(view: View) -> int:
    """By how much the DCT may shrink the image: at least twice the target's size is left to the resize."""
    height, width = 2 * view.target_height, 2 * view.target_width
    return next((s for s in _SCALES if view.height >= s * height and view.width >= s * width), 1)


def _decode(data: bytes, frame: Frame, view: View) -> tuple[Pixels, int]:
    """The rows down to the view's last, scaled; and by how much."""
    scale, height = _scale(view), frame.height
    source: bytes | bytearray = data
    if frame.mcu_height:  # smooth upsampling looks one chroma row, two rows of pixels, below
        height = min(-(-(view.top + view.height + 2 * scale) // frame.mcu_height) * frame.mcu_height, frame.height)
    if height < frame.height:
        source = bytearray(data)
        source[frame.height_at : frame.height_at + 2] = height.to_bytes(2, "big")
    rows, columns = -(-height // scale), -(-frame.width // scale)
    pixels: Pixels = simplejpeg.decode_jpeg(
        source,
        min_height=rows if scale > 1 else 0,
        min_width=columns if scale > 1 else 0,
        min_factor=scale,
        buffer=_BUFFERS.of(3 * rows * columns),
        strict=False,  # the rows left out are a warning; an end that is missing was looked for
    )
    return pixels, scale


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise BadImage(f"huge: {width} x {height} pixels, at most {MOST_PIXELS} are read")
    if max(height, width) > LONGEST_SIDE:
        raise BadImage(f"huge: {width} x {height} pixels, at most {LONGEST_SIDE} a side are read")


def decode_whole(data: bytes) -> Pixels:
    """Any image that PIL reads, whole: uint8 (H, W, 3).

    Raises:
        BadImage: empty, too large, truncated, damaged, or no image.
    """
    if not data:
        raise BadImage("empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.height, image.width)
            if image.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion would clip at 255
                deep = (np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8)
                return np.repeat(deep[:, :, None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("no image of a known format, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise BadImage(f"huge: more than the {MOST_PIXELS} pixels that are read") from None
    except Exception as error:  # PIL's plugins raise almost anything on damaged files
        raise BadImage(" ".join(f"{error}".split()) or type(error).__name__) from None


def _seen(data: bytes, view_of: Callable[[int, int], View]) -> tuple[Pixels, View]:
    """The view's box of pixels, and the view."""
    frame = read_frame(data)
    if frame is not None:
        _check_size(frame.height, frame.width)
    quick = frame is not None and frame.marker in (*_SEQUENTIAL, _PROGRESSIVE) and frame.components in (1, 3)
    if quick and frame is not None and frame.height and frame.width and data.endswith(_END):
        view = view_of(frame.height, frame.width)
        try:
            pixels, s = _decode(data, frame, view)
        except ValueError:
            pass  # PIL is asked what it is
        else:
            top, left = round(view.top / s), round(view.left / s)
            bottom, right = round((view.top + view.height) / s), round((view.left + view.width) / s)
            return pixels[top:bottom, left:right], view
    pixels = decode_whole(data)
    view = view_of(*pixels.shape[:2])
    return pixels[view.top : view.top + view.height, view.left : view.left + view.width], view


def _window(pixels: Pixels, view: View, height: int, width: int) -> Pixels:
    """A window of the resized box, made of the pixels that it is seen through and those that the filter reaches.

    Args:
        pixels: uint8 (box height, box width, 3).
        view: of the box.
        height, width: of the window.
    """
    box, reached = [], []
    for first, length, source, target in (
        (view.window_left, width, pixels.shape[1], view.target_width),
        (view.window_top, height, pixels.shape[0], view.target_height),
    ):
        scale = source / target
        low, high = first * scale, min((first + length) * scale, source)
        margin = math.ceil(max(scale, 1.0)) + 1  # the triangle's half width, and a pixel
        start, stop = max(math.floor(low) - margin, 0), min(math.ceil(high) + margin, source)
        reached.append(slice(start, stop))
        box.append((low - start, high - start))
    (left, right), (top, bottom) = box
    near = Image.fromarray(np.ascontiguousarray(pixels[reached[1], reached[0]]))
    return np.asarray(near.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom)))


def render(data: bytes, view_of: Callable[[int, int], View], flip: bool, out: torch.Tensor) -> None:
    """Decode an image and write one view of it.

    Args:
        data: the bytes of the file.
        view_of: the view of an image of (height, width).
        flip: mirror it.
        out: uint8 (1, 3, h, w), channels last in memory; written.

    Raises:
        BadImage: what PIL cannot read either.
    """
    pixels, view = _seen(data, view_of)
    target, kept_pixels = (view.target_height, view.target_width), out.shape[2] * out.shape[3]
    if target[0] * target[1] > _MOST_RESIZED * kept_pixels:
        window = _window(pixels[:, ::-1] if flip else pixels, view, out.shape[2], out.shape[3])
        out.copy_(torch.from_numpy(window.copy()).unsqueeze(0).permute(0, 3, 1, 2))
        return
    box = torch.from_numpy(pixels if flip else np.ascontiguousarray(pixels)).unsqueeze(0).permute(0, 3, 1, 2)
    if flip:
        box = box.flip(-1)
    resized = torch.nn.functional.interpolate(box, target, mode="bilinear", antialias=True)
    top, left = view.window_top, view.window_left
    out.copy_(resized[:, :, top : top + out.shape[2], left : left + out.shape[3]])
