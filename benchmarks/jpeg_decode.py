"""JPEG bytes to a 224 x 224 training image on one core: libraries that decode, each with the resize that suits it.

python benchmarks/jpeg_decode.py FOLDER [--quality 90] [--images 60] [--rounds 15] [--json]

The photographs of FOLDER are made 500 x 375 and written as JPEG in memory. Every way gets the same bytes, the same
scale-and-aspect crops and mirrors, one thread, and stores uint8 into one minibatch; the ways run in turn, in another
order each round. Printed: images per CPU-second, the median of paired ratios to torchvision's usual way with its
interquartile range, and how far the pixels are from that way's. A way whose library does not load is left out, by name.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import io as tv_io
from torchvision.transforms import functional as F1
from torchvision.transforms.v2 import functional as F2

from batchscale.bench.statistics import paired_ratio, spread
from batchscale.data.folders.jpeg import View, render

SIZE = 224
PLANAR = ("torchvision.io + v2", "torchcodec + v2")  # these store (3, 224, 224)
Crop = tuple[int, int, int, int]  # top, left, height, width
Way = Callable[[bytes, Crop, bool, np.ndarray], None]


def photographs(folder: Path, images: int, quality: int) -> list[bytes]:
    """The first photographs of a folder, 500 x 375, as JPEG with chroma at half resolution."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:images]
    written = []
    for path in found:
        stream = io.BytesIO()
        Image.open(path).convert("RGB").resize((500, 375), Image.Resampling.LANCZOS).save(
            stream, "JPEG", quality=quality
        )
        written.append(stream.getvalue())
    return written


def crops(images: int) -> list[tuple[Crop, bool]]:
    """Scale-and-aspect crops of 500 x 375, as torchvision draws them, and mirrors."""
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    blank = torch.empty(3, 375, 500)
    boxes = [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(images)]
    return [(tuple(map(int, box)), bool(i % 2)) for i, box in enumerate(boxes)]  # type: ignore[misc]


def _torchvision_pil(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
    image = F1.resized_crop(Image.open(io.BytesIO(data)).convert("RGB"), *crop, [SIZE, SIZE])
    out[:] = np.asarray(F1.hflip(image) if flip else image)


def _pil_box(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
    top, left, height, width = crop
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    out[:] = np.asarray(image)[:, ::-1] if flip else np.asarray(image)


def _tensor(image: torch.Tensor, crop: Crop, flip: bool, out: np.ndarray) -> None:
    """Stores planes, as these ways' users would: rewriting them channels last would cost a tenth more."""
    image = F2.resized_crop(image, *crop, [SIZE, SIZE], antialias=True)
    torch.from_numpy(out).view(3, SIZE, SIZE).copy_(image.flip(-1) if flip else image)


def _torchvision_io() -> Way:
    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        _tensor(tv_io.decode_jpeg(raw, tv_io.ImageReadMode.RGB), crop, flip, out)

    return way


def _torchcodec() -> Way:
    from torchcodec.decoders import decode_jpeg

    return lambda data, crop, flip, out: _tensor(decode_jpeg(data), crop, flip, out)


def _opencv(decode: Callable[[bytes], np.ndarray] | None, area: bool) -> Way:
    import cv2

    cv2.setNumThreads(1)
    flag = cv2.INTER_AREA if area else cv2.INTER_LINEAR

    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        top, left, height, width = crop
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if decode is None else decode(data)
        image = image[top : top + height, left : left + width]
        image = cv2.resize(image, (SIZE, SIZE), dst=None if flip else out, interpolation=flag)
        if flip:
            cv2.flip(image, 1, out)

    return way


def _simplejpeg(fast_upsample: bool) -> Callable[[bytes], np.ndarray]:
    from simplejpeg import decode_jpeg

    return lambda data: decode_jpeg(data, fastupsample=fast_upsample)


def _antialiased(decode: Callable[[bytes], np.ndarray]) -> Way:
    """torch's uint8 kernel: triangle filter over the source pixels of one target pixel, as PIL's."""

    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        top, left, height, width = crop
        pixels = np.ascontiguousarray(decode(data)[top : top + height, left : left + width])
        image = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
        image = torch.nn.functional.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True)
        torch.from_numpy(out).unsqueeze(0).permute(0, 3, 1, 2).copy_(image.flip(-1) if flip else image)

    return way


def _batchscale(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
    slot = torch.from_numpy(out).permute(2, 0, 1).unsqueeze(0)
    render(data, lambda height, width: View(*crop, SIZE, SIZE), flip, slot)


def _simplejpeg_pil() -> Way:
    decode = _simplejpeg(True)

    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        top, left, height, width = crop
        image = Image.fromarray(decode(data))
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        out[:] = np.asarray(image)[:, ::-1] if flip else np.asarray(image)

    return way


def _imagecodecs() -> Way:
    from imagecodecs import jpeg8_decode

    return _antialiased(jpeg8_decode)


def _vips() -> Way:
    import pyvips

    pyvips.voperation.cache_set_max(0)

    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        top, left, height, width = crop
        image = pyvips.Image.jpegload_buffer(data, access="sequential").crop(left, top, width, height)
        image = image.resize(SIZE / width, vscale=SIZE / height, kernel="linear")
        pixels = (image.fliphor() if flip else image).numpy()
        out[: pixels.shape[0], : pixels.shape[1]] = pixels

    return way


def _spdl() -> Way:
    import spdl.io as sio

    def way(data: bytes, crop: Crop, flip: bool, out: np.ndarray) -> None:
        top, left, height, width = crop
        chain = f"crop={width}:{height}:{left}:{top}:exact=1,scale={SIZE}:{SIZE}:flags=bilinear"
        chain += (",hflip" if flip else "") + ",format=pix_fmts=rgb24"
        frames = sio.decode_packets(sio.demux_image(data), filter_desc=chain)
        out[:] = sio.to_numpy(sio.convert_frames(frames))

    return way


def _dali() -> Callable[[list[bytes], list[tuple[Crop, bool]], np.ndarray], None]:
    """A whole minibatch a call: DALI decodes only the part that the crop needs."""
    from nvidia.dali import fn, pipeline_def

    def batch(data: list[bytes], boxes: list[tuple[Crop, bool]], out: np.ndarray) -> None:
        if not pipes:
            pipes.append(pipeline(batch_size=len(data), num_threads=1, device_id=None, prefetch_queue_depth=1))
            pipes[0].build()
        pipe = pipes[0]
        pipe.feed_input("jpeg", [np.frombuffer(d, np.uint8) for d in data])
        pipe.feed_input("anchor", [np.array(c[:2], np.int32) for c, _ in boxes])
        pipe.feed_input("shape", [np.array(c[2:], np.int32) for c, _ in boxes])
        pipe.feed_input("flip", [np.array(f, np.int32) for _, f in boxes])
        out[:] = pipe.run()[0].as_array()

    @pipeline_def
    def pipeline() -> Any:
        image = fn.decoders.image_slice(
            fn.external_source(name="jpeg"),
            fn.external_source(name="anchor"),
            fn.external_source(name="shape"),
            axes=(0, 1),
            normalized_anchor=False,
            normalized_shape=False,
        )
        return fn.flip(fn.resize(image, size=[SIZE, SIZE]), horizontal=fn.external_source(name="flip"))

    pipes: list[Any] = []
    return batch


def ways(jpeg: bytes) -> tuple[dict[str, Any], list[str]]:
    """Name -> way; those that are not installed, or fail on a first image, with the reason."""
    made: dict[str, Any] = {"torchvision PIL": _torchvision_pil, "batchscale": _batchscale, "PIL resize(box)": _pil_box}
    makers: dict[str, Callable[[], Any]] = {
        "torchvision.io + v2": _torchvision_io,
        "torchcodec + v2": _torchcodec,
        "OpenCV + linear": lambda: _opencv(None, False),
        "simplejpeg + OpenCV linear": lambda: _opencv(_simplejpeg(False), False),
        "simplejpeg + OpenCV area": lambda: _opencv(_simplejpeg(False), True),
        "simplejpeg + torch": lambda: _antialiased(_simplejpeg(False)),
        "simplejpeg fast + torch": lambda: _antialiased(_simplejpeg(True)),
        "simplejpeg fast + OpenCV linear": lambda: _opencv(_simplejpeg(True), False),
        "simplejpeg fast + PIL": _simplejpeg_pil,
        "imagecodecs + torch": _imagecodecs,
        "pyvips": _vips,
        "spdl (FFmpeg)": _spdl,
        "DALI": _dali,
    }
    missing = []
    for name, make in makers.items():
        try:
            way = make()
            if name != "DALI":
                way(jpeg, (0, 0, SIZE, SIZE), True, np.empty((SIZE, SIZE, 3), np.uint8))
            made[name] = way
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            missing.append(f"{name} ({str(error).splitlines()[0]})")
    return made, missing


def main() -> None:
    """Time, compare pixels, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = photographs(options.folder, options.images, options.quality)
    boxes = crops(len(data))
    made, missing = ways(data[0])
    out = np.empty((len(data), SIZE, SIZE, 3), np.uint8)
    reference = np.empty_like(out)
    rates: dict[str, list[float]] = {name: [] for name in made}
    distance: dict[str, float] = {}
    order = list(made)
    for round_ in range(options.rounds + 1):
        for name in order:
            start = time.process_time()
            if name == "DALI":
                made[name](data, boxes, out)
            else:
                for jpeg, (crop, flip), slot in zip(data, boxes, out, strict=True):
                    made[name](jpeg, crop, flip, slot)
            seconds = time.process_time() - start
            if round_:
                rates[name].append(len(data) / seconds)
            elif name == "torchvision PIL":
                reference[:] = out
            pixels = out.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1) if name in PLANAR else out
            distance.setdefault(name, float(np.abs(pixels.astype(int) - reference).mean()))
        random.Random(round_).shuffle(order)
    rows = []
    for name, values in rates.items():
        speed, ratio = spread(values), paired_ratio(values, rates["torchvision PIL"])
        rows.append((name, speed.median, speed.iqr, ratio.median, ratio.iqr, distance[name]))
    rows.sort(key=lambda row: row[1])
    mean_bytes = sum(map(len, data)) // len(data)
    if options.json:
        names = ("name", "images_per_cpu_second", "iqr", "ratio", "ratio_iqr", "mean_distance")
        rows_json = [dict(zip(names, row, strict=True)) for row in rows]
        print(json.dumps({"jpeg_bytes": mean_bytes, "images": len(data), "rows": rows_json, "missing": missing}))
        return
    print(f"{len(data)} JPEG of 500x375, {mean_bytes} bytes on average, quality {options.quality}, one thread")
    for name, speed_, iqr, ratio_, ratio_iqr, far in rows:
        print(
            f"{name:<32} {speed_:7.0f} images/CPU-s (iqr {iqr:4.0f})   {ratio_:5.2f} (iqr {ratio_iqr:.2f})   {far:6.2f}"
        )
    for name in missing:
        print(f"left out: {name[:100]}")


if __name__ == "__main__":
    main()
