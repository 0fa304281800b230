"""Pairs of several sizes: keyed crops of image and mask together, whole images in evaluation, each pixel once."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.worlds import in_processes

import batchscale
from batchscale.build.inputs import load_data
from batchscale.data.augmentation import Augmentation
from batchscale.data.masks.mask_sources import PAIRS
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError
from batchscale.recipe import recipe_from

SIZES = [(20, 40), (48, 12), (33, 33), (10, 9), (64, 30), (17, 50), (40, 40), (28, 21)]
READING = Reading(masks="classes", classes=4, crop=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey images whose pixels tell their mask (value // 60), and where they are; black only outside."""
    root = tmp_path_factory.mktemp("sized")
    for part, sizes in (("train", SIZES), ("val", SIZES[:5])):
        for number, (height, width) in enumerate(sizes):
            place = np.arange(height)[:, None] * 7 + np.arange(width)[None] * 3 + number
            pixels = (1 + place % 239).astype(np.uint8)
            for kind, picture in (("images", pixels), ("masks", pixels // 60)):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(root / part / kind / f"{number}.png")
    return root


def mask_of(images):
    return torch.where(images[:, 0] > 0, images[:, 0] // 60, 255)


def test_a_crop_is_the_same_of_image_and_mask_and_lies_inside_both(folder):
    train = PAIRS.open(folder, READING).train
    assert (len(train), train.shape) == (8, (1, 16, 16))
    examples = np.arange(8).repeat(20)
    images, masks = train.augmented(3, Augmentation(flip=True))(np.arange(160) % 20, examples)
    assert torch.equal(masks, mask_of(images))
    expected = np.array([min(height, 16) * min(width, 16) for height, width in SIZES])[examples]
    assert (masks != 255).flatten(1).sum(1).tolist() == expected.tolist()
    originals = [np.array(Image.open(folder / "train/images" / f"{n}.png")) for n in range(8)]
    of_large = [views(original) for original in originals]
    both = {False: 0, True: 0}
    for number, image in zip(examples, images[:, 0].numpy(), strict=True):
        if min(SIZES[number]) >= 16:
            mirrored = image.tobytes() not in of_large[number]
            assert not mirrored or image[:, ::-1].tobytes() in of_large[number]
            both[mirrored] += 1
    assert min(both.values()) > 30
    corners = {image[0, 0] for number, image in zip(examples, images[:, 0].numpy(), strict=True) if number == 6}
    assert len(corners) > 10  # of 20 epochs


def views(original):
    windows = np.lib.stride_tricks.sliding_window_view(original, (min(16, len(original)), min(16, original.shape[1])))
    return {window.tobytes() for row in windows for window in row}


def test_a_crop_hangs_on_seed_epoch_and_example_alone(folder):
    train = PAIRS.open(folder, READING).train
    epochs, examples = np.array([0, 0, 1, 1]), np.array([2, 6, 2, 6])
    images, masks = train.augmented(5, Augmentation(flip=True))(epochs, examples)
    for number in range(4):
        one = slice(number, number + 1)
        alone = train.augmented(5, Augmentation(flip=True))(epochs[one], examples[one])
        assert torch.equal(alone[0], images[one])
        assert torch.equal(alone[1], masks[one])
    assert not torch.equal(images[:2], images[2:])
    assert not torch.equal(images, train.augmented(6, Augmentation(flip=True))(epochs, examples)[0])


def test_evaluation_shows_every_pixel_once_in_a_window_of_32s(folder):
    splits = PAIRS.open(folder, READING)
    assert splits.test.shape == (1, 64, 64)  # 64 x 40 rounded up
    for examples in (splits.test, splits.train.select(np.arange(5)).whole()):
        images, masks = examples.part(slice(None))
        assert torch.equal(masks, mask_of(images))
        assert (masks != 255).flatten(1).sum(1).tolist() == [height * width for height, width in SIZES[:5]]
        inside = images[0, 0][masks[0] != 255].view(20, 40).numpy()
        assert (inside == np.array(Image.open(folder / "val/images/0.png"))).all()


def test_images_held_out_of_training_are_evaluated_whole(folder):
    splits = load_data(recipe_from(RECIPE, ["data.holdout=3"]), folder)
    _, masks = splits.test.part(slice(None))
    areas = {height * width for height, width in SIZES}
    assert len(masks) == 3
    assert {int(pixels) for pixels in (masks != 255).flatten(1).sum(1)} <= areas


def test_mean_and_deviation_are_of_all_pixels(folder):
    pixels = np.concatenate([np.array(Image.open(folder / f"train/images/{n}.png")).ravel() for n in range(8)])
    (mean,), (std,) = PAIRS.open(folder, READING).train.moments()
    assert mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert std == pytest.approx(pixels.std(), rel=1e-12)


RECIPE = {
    "data": {"name": "pairs", "masks": "classes", "classes": 4, "augment": {"size": 16, "flip": True}},
    "task": "segmentation",
    "model": {"name": "unet", "options": {"width": 2, "levels": 3}},
    "minibatch": {"workers": 3, "per_worker": 2},
    "epochs": 2,
    "learning_rate": {"reference": 0.05, "reference_minibatch": 6},
    "numerics": {"threads": 1, "evaluation_chunk": 2},
    "execution": {"device": "cpu", "log_steps": 1},
}


def train(rank, folder, *overrides, **options):
    result = batchscale.train(RECIPE, overrides, data_folder=folder, quiet=True, **options).model_dump()
    return result["weights_sha256"], result["scores"]


@pytest.mark.parametrize(("processes", "overrides"), [(3, ()), (2, ("data.holdout=2",))])
def test_exact_runs_are_the_same_for_every_number_of_processes(folder, processes, overrides):
    alone = train(0, folder, "numerics.exact=true", *overrides)
    assert in_processes(processes, train, folder, "numerics.exact=true", *overrides) == [alone] * processes


def test_every_true_pixel_counts_once_in_the_scores(folder):
    """A net that tells class 0 of every pixel: its accuracy is the share of class 0."""
    blind = torch.nn.Conv2d(1, 4, 1)
    torch.nn.init.zeros_(blind.weight)
    with torch.no_grad():
        blind.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
    recipe = {**RECIPE, "model": {"name": "own"}, "epochs": 1}
    overrides = ["learning_rate={reference: 1.0e-9, reference_minibatch: 6}"]
    result = batchscale.train(recipe, overrides, model=blind, data_folder=folder, quiet=True)
    masks = np.concatenate([np.array(Image.open(folder / f"val/masks/{n}.png")).ravel() for n in range(5)])
    assert result.scores["pixel-accuracy"] == pytest.approx(100 * (masks == 0).mean(), rel=1e-12)


def test_sizes_that_differ_want_a_crop_and_a_crop_no_padding(folder):
    with pytest.raises(DataError, match=r"1.png, .*of another size than 0.png \(20 x 40\): .*data.augment.size=N"):
        PAIRS.open(folder, Reading(masks="classes", classes=4))
    with pytest.raises(RecipeError, match=r"data.augment.crop=padded has no place beside data.augment.size=16"):
        train(0, folder, "data.augment.crop=padded")
    with pytest.raises(RecipeError, match=r"augment.size is for images on disk, and data.name=digits_scenes is not"):
        train(0, folder, "data.name=digits_scenes")


def test_a_damaged_image_is_told_before_training(folder, tmp_path):
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
            picture = (folder / part / kind / "0.png").read_bytes()
            (tmp_path / part / kind / "0.png").write_bytes(picture)
    cut = (folder / "val/images/0.png").read_bytes()[:-40]
    (tmp_path / "val/images/0.png").write_bytes(cut)
    with pytest.raises(DataError, match=r"val/images/0.png: cannot be read as a picture"):
        PAIRS.open(tmp_path, READING)
