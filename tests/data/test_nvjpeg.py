"""Training views decoded on a device, by a stub of its decoder: near libjpeg's pixels; of other files the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.datafiles import refused
from support.pictures import jpeg, noise, photographs, write_set

from batchscale.cli import main
from batchscale.data import Reading, open_dataset
from batchscale.data.augmentation import Augmentation
from batchscale.data.feed import Feed, Normalizer
from batchscale.data.folders.jpeg import decode_whole
from batchscale.data.folders.nvjpeg import DecodedOnDevice
from batchscale.errors import RecipeError
from batchscale.minibatch import Minibatch, StepPlan
from batchscale.order import StreamOrder
from batchscale.recipe import identity, load_recipe

CPU, CLASS = torch.device("cpu"), "n01440764"
AUGMENTED = Augmentation(flip=True, scale_aspect=True)


def decode(files, device):
    """As torchvision's: of a list of files, on the processor."""
    try:
        arrays = [decode_whole(file.numpy().tobytes()) for file in files]
    except ValueError as error:
        raise RuntimeError("nvjpegDecode failed") from error
    return [torch.from_numpy(array).permute(2, 0, 1).to(device) for array in arrays]


@pytest.fixture
def folder(tmp_path):
    root = write_set(tmp_path, train=6, val=1)
    for number, image in enumerate(photographs(3)):
        (root / "train" / CLASS / f"{CLASS}_{number}.JPEG").write_bytes(jpeg(image))
    (root / "train" / CLASS / f"{CLASS}_3.JPEG").write_bytes(jpeg(noise(50, 60), "grey"))
    noise(70, 50, 1).save(root / "train" / CLASS / f"{CLASS}_x.png")
    noise(70, 50, 2).convert("CMYK").save(root / "train" / CLASS / f"{CLASS}_y.jpg")
    return root


def both(folder, skip_bad=False):
    images = open_dataset("folder", folder, Reading(48, skip_bad=skip_bad, threads=2)).train
    return images, DecodedOnDevice(images, CPU, decode)


def minibatch(part, augmentation=AUGMENTED):
    images = np.arange(len(part))[::-1].copy()
    return part.augmented(5, augmentation)(np.full(len(images), 2), images)


@pytest.mark.parametrize("augmentation", [AUGMENTED, Augmentation()])
def test_the_pixels_are_near_libjpeg_s_and_those_of_other_files_its_own(folder, augmentation):
    images, on_device = both(folder)
    (pixels, labels), (near, same_labels) = (minibatch(part, augmentation) for part in (images, on_device))
    assert torch.equal(labels, same_labels)
    assert near.stride() == pixels.stride()
    distances = (pixels.int() - near.int()).abs().flatten(1).float().mean(1)
    assert distances.median() < 0.5  # levels; a view mirrored, or of another place, is tens away
    assert distances.max() < 5  # where the DCT scales, the edges of a view move to its pixels
    names = [images.entries.name(i) for i in range(len(images))][::-1]
    own = [i for i, name in enumerate(names) if name.endswith(("_3.JPEG", ".png", ".jpg")) and CLASS in name]
    assert len(own) == 3
    assert distances[own].max() == 0
    assert torch.equal(on_device.part(slice(0, 5))[0], images.part(slice(0, 5))[0])


def test_a_file_that_the_device_refuses_is_named_or_passed_over(folder):
    bad = folder / "train" / CLASS / f"{CLASS}_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:3000])
    with refused(f"{CLASS}_1.JPEG", "data.skip_bad=true"):
        minibatch(both(folder)[1])
    images, on_device = both(folder, skip_bad=True)
    for pixels, same in zip(minibatch(images), minibatch(on_device), strict=True):
        assert torch.equal(pixels, same)
    assert len(on_device.skipped()) == 1


def test_the_feed_takes_its_passes_from_the_device(folder):
    images, on_device = both(folder)

    def passes(examples):
        plan = StepPlan(Minibatch(4, 3), len(examples), 2, "carry")
        normalizer = Normalizer([9.0] * 3, [2.0] * 3, torch.float32, torch.channels_last, CPU)
        feed = Feed(
            examples, plan=plan, workers=range, micro_batch=6, order=StreamOrder(3, len(examples)),
            augmentation=AUGMENTED, normalizer=normalizer,
        )  # fmt: skip
        try:
            return [batch for step in range(2) for batch in feed.passes(step)]
        finally:
            feed.close()

    for near, batch in zip(passes(on_device), passes(images), strict=True):
        assert torch.equal(near.targets, batch.targets)
        assert (near.inputs - batch.inputs).abs().mean() < 1


def test_it_is_refused_in_exact_mode_and_without_a_gpu_and_belongs_to_what_is_trained(folder, capsys):
    recipe = "imagenet-resnet50-1h"
    for more in ("numerics.exact=true", "execution.device=cpu"):
        with pytest.raises(RecipeError, match=r"data.decode=nvjpeg: .*use data.decode=libjpeg"):
            load_recipe(recipe, ["data.decode=nvjpeg", more])
    small = ("data.name=folder", "model.name=resnet8", "minibatch.workers=2", "minibatch.per_worker=2", "epochs=0.5")
    assert main(["train", recipe, *small, "data.decode=nvjpeg", "--data", str(folder), "--out", str(folder / "o")]) == 2
    error = capsys.readouterr().err
    assert "data.decode=nvjpeg: needs a GPU" in error
    assert not (folder / "o").exists()
    assert "data.decode" not in identity(load_recipe(recipe))
    assert identity(load_recipe(recipe, ["data.decode=nvjpeg"]))["data.decode"] == "nvjpeg"


def test_sixteen_bits_are_still_read_by_pil(folder):
    Image.fromarray(np.arange(3000, dtype=np.uint16).reshape(50, 60)).save(folder / "train" / CLASS / f"{CLASS}_z.png")
    images, on_device = both(folder)
    place = [images.entries.name(i).endswith("_z.png") for i in range(len(images))][::-1].index(True)
    assert torch.equal(minibatch(images)[0][place], minibatch(on_device)[0][place])
