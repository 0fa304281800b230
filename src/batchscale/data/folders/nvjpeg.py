"""Images on disk whose training views a GPU decodes, by nvJPEG: data.decode=nvjpeg. Not yet run on a GPU.

nvJPEG's pixels are not libjpeg's, and the resize acts on floats, so a run's bits are others than those of libjpeg; a
recipe says which, and exact mode takes libjpeg's alone. What is no JPEG of three components, and any minibatch of which
the decoder refuses an image, the processor decodes: so a bad file is named, or passed over, as ever. Evaluation is by
libjpeg: scores of both ways are of the same pixels.

Source: docs.pytorch.org/vision/stable/generated/torchvision.io.decode_jpeg.html (a list of files, device="cuda").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch.nn.functional import interpolate

from batchscale.data.augmentation import Augmentation, Indices
from batchscale.data.examples import Examples, Pairs
from batchscale.data.folders.jpeg import View, read_frame
from batchscale.data.folders.stored import StoredImages

Decode = Callable[[list[torch.Tensor], torch.device], list[torch.Tensor]]


def decode_jpegs(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Files uint8 (bytes,) on the host -> images uint8 (3, H, W) on a GPU."""
    from torchvision.io import ImageReadMode, decode_jpeg

    images: list[torch.Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    return images


class DecodedOnDevice(Examples):
    """Images on disk, of which training minibatches are made on a GPU.

    Args:
        images: where they lie.
        device: the GPU.
        decode: its decoder.
    """

    steps_ahead = 1  # they lie in the GPU's memory, as bytes

    def __init__(self, images: StoredImages, device: torch.device, decode: Decode = decode_jpegs) -> None:
        self._images, self._device, self._decode = images, device, decode
        self.shape, self.raw = images.shape, images.raw

    def __len__(self) -> int:
        return len(self._images)

    def part(self, part: slice) -> Pairs:
        """As the processor decodes them."""
        return self._images.part(part)

    def select(self, examples: Indices) -> DecodedOnDevice:
        """These alone."""
        return DecodedOnDevice(self._images.select(examples), self._device, self._decode)

    def digests(self) -> dict[str, str]:
        """Of the files."""
        return self._images.digests()

    def skipped(self) -> Mapping[str, str]:
        """Files passed over so far."""
        return self._images.skipped()

    def used(self, tensor: torch.Tensor) -> None:
        """Keep a minibatch's memory until what this thread has begun on the device is done."""
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream(self._device))

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Pixels uint8 (m, 3, size, size), channels last, and labels, on the device."""
        by_processor = self._images.augmented(seed, augmentation)
        size = self.shape[1:]

        def minibatch(epochs: Indices, examples: Indices) -> Pairs:
            files = self._images.files(examples)
            frames = [read_frame(file) for file in files]
            places = [i for i, frame in enumerate(frames) if frame is not None and frame.components == 3]
            out = torch.empty((len(files), *size, 3), dtype=torch.uint8, device=self._device).permute(0, 3, 1, 2)
            labels = self._images.labels[torch.from_numpy(examples)]
            views, flips = self._images.drawn(seed, augmentation, epochs, examples)
            try:
                pixels = self._decode([_as_tensor(files[i]) for i in places], self._device) if places else []
            except RuntimeError:  # of one image, which it does not name
                places, pixels = [], []
            for i, image in zip(places, pixels, strict=True):
                out[i] = _seen(image, views[i](*image.shape[1:]), bool(flips[i]), size)
            rest = np.setdiff1d(np.arange(len(files)), places)
            if len(rest):
                inputs, targets = by_processor(epochs[rest], examples[rest])
                index = torch.from_numpy(rest)
                out[index.to(self._device)] = inputs.to(self._device)
                labels[index] = targets  # another image's, where one was passed over
            return out, labels.to(self._device)

        def synchronized(epochs: Indices, examples: Indices) -> Pairs:
            with self._aside():
                pair = minibatch(epochs, examples)
                if self._device.type == "cuda":
                    torch.cuda.current_stream(self._device).synchronize()  # this thread waits; the training stream not
            return pair

        return synchronized

    def _aside(self) -> AbstractContextManager[object]:
        """A stream of this minibatch's own."""
        if self._device.type != "cuda":
            return nullcontext()
        return torch.cuda.stream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]


def _as_tensor(file: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(file), dtype=torch.uint8)


def _seen(image: torch.Tensor, view: View, flip: bool, size: Sequence[int]) -> torch.Tensor:
    """The view of an image, uint8 (3, h, w): ``jpeg.render``'s, its resize in float32."""
    box = image[:, view.top : view.top + view.height, view.left : view.left + view.width]
    if flip:
        box = box.flip(-1)
    target = (view.target_height, view.target_width)
    resized = interpolate(box[None].float(), target, mode="bilinear", antialias=True)[0]
    top, left = view.window_top, view.window_left
    return resized[:, top : top + size[0], left : left + size[1]].round_().clamp_(0, 255).to(torch.uint8)
