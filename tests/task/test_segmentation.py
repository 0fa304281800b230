"""Segmentation: losses as plain torch has them, IoU from whole numbers, the same run for any W."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.data.examples import IGNORED, Splits, TensorExamples
from batchscale.errors import RecipeError
from batchscale.order import StreamOrder
from batchscale.task import Evaluated
from batchscale.task.segmentation import Segmentation, _counts_on_device, _counts_on_host


def logits_and_masks(classes=3, count=5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, classes, 4, 6, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, classes, (count, 4, 6), generator=generator)
    masks[0, :2] = IGNORED
    masks[1] = IGNORED  # an image without a class
    return logits, masks


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_mean_of_an_image_s_pixels_that_have_a_class(smoothing):
    logits, masks = logits_and_masks()
    losses = Segmentation(3, smoothing).losses(logits, masks)
    for image, mask, loss in zip(logits, masks, losses, strict=True):
        alone = F.cross_entropy(image[None], mask[None], ignore_index=IGNORED, label_smoothing=smoothing)
        assert loss.item() == pytest.approx(0.0 if alone.isnan() else alone.item(), rel=1e-12)


def test_binary_loss_is_the_cross_entropy_of_two_classes():
    logits, masks = logits_and_masks(2)
    binary = Segmentation(2, loss="binary").losses(logits[:, 1:] - logits[:, :1], masks)
    torch.testing.assert_close(binary, Segmentation(2).losses(logits, masks), rtol=1e-10, atol=1e-12)


def test_dice_counts_overlap_and_leaves_ignored_pixels_out():
    logits, masks = logits_and_masks(2)
    losses = Segmentation(2, loss="dice").losses(logits, masks)
    for image, mask, loss in zip(logits, masks, losses, strict=True):
        valid = mask != IGNORED
        q, t = image.softmax(0)[1][valid], (mask[valid] == 1).double()
        assert loss.item() == pytest.approx(float(1 - (2 * (q * t).sum() + 1) / (q.sum() + t.sum() + 1)), rel=1e-12)
    perfect = torch.stack([(masks == 0), (masks == 1)], 1).double() * 200
    assert Segmentation(2, loss="dice").losses(perfect, masks).abs().max() < 0.01


def test_auxiliary_logits_count_half_in_training_and_not_in_evaluation():
    logits, masks = logits_and_masks()
    task = Segmentation(3)
    both = task.losses({"out": logits, "aux": -logits}, masks)
    torch.testing.assert_close(both, task.losses(logits, masks) + 0.5 * task.losses(-logits, masks))
    evaluated = task.evaluate_pass(lambda inputs: {"out": logits, "aux": -logits}, None, masks)
    assert evaluated.loss.item() == pytest.approx(task.losses(logits, masks).sum().item(), rel=1e-12)


def test_iou_is_of_all_images_together_and_equals_counting_by_hand():
    logits, masks = logits_and_masks(4, count=20)
    task = Segmentation(4)
    counts = sum(task.evaluate_pass(lambda part: part, part, mask).counts for part, mask in
                 zip(logits.split(3), masks.split(3), strict=True))  # fmt: skip
    scores = task.scores(Evaluated(20, 0.0, tuple(counts.tolist())))
    told, valid = logits.argmax(1), masks != IGNORED
    ious = []
    for number in range(4):
        truth, said = (masks == number) & valid, (told == number) & valid
        ious.append(100 * float((truth & said).sum() / (truth | said).sum()))
    assert scores["iou"] == scores["mean-iou"] == pytest.approx(sum(ious) / 4, rel=1e-6)
    assert scores["pixel-accuracy"] == pytest.approx(100 * float((told == masks)[valid].double().mean()), rel=1e-12)
    assert scores["classes-absent"] == 0


@pytest.mark.parametrize("length", [1, 5, 17])
def test_a_device_counts_pixels_as_the_host_does(length):
    numbers = torch.randint(0, length, (1000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    assert torch.equal(_counts_on_device(numbers, length), _counts_on_host(numbers, length))
    assert _counts_on_device(numbers[:0], length).tolist() == [0] * length


def test_a_class_that_nobody_holds_is_left_out_of_the_mean_and_counted():
    truth_0_told_0, truth_1_told_0 = 6, 2
    task = Segmentation(3)
    scores = task.scores(Evaluated(1, 0.0, (truth_0_told_0, 0, 0, truth_1_told_0, 0, 0, 0, 0, 0)))
    assert scores["mean-iou"] == pytest.approx(100 * (6 / 8 + 0) / 2)
    assert scores["classes-absent"] == 1
    assert task.class_ious((6, 0, 0, 2, 0, 0, 0, 0, 0)) == [0.75, 0.0, None]


def test_of_two_classes_the_score_is_the_foreground_s():
    scores = Segmentation(2).scores(Evaluated(1, 0.0, (90, 2, 3, 5)))
    assert scores["iou"] == pytest.approx(100 * 5 / 10)
    assert scores["mean-iou"] == pytest.approx(50 * (5 / 10 + 90 / 95))
    assert Segmentation(2).scores(Evaluated(1, 0.0, (90, 0, 0, 0)))["iou"] == 100


RECIPE = {
    "data": {"name": "own"},
    "task": "segmentation",
    "model": {"name": "unet", "options": {"width": 2, "levels": 2}},
    "minibatch": {"workers": 4, "per_worker": 4},
    "epochs": 2,
    "learning_rate": {"reference": 0.05, "reference_minibatch": 16},
    "numerics": {"threads": 1, "evaluation_chunk": 8},
    "execution": {"device": "cpu", "log_steps": 1},
}


@pytest.fixture(scope="module")
def scenes():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 80, (50, 1, 8, 8), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(50, 8, 8, dtype=torch.uint8)
    for image, mask, place in zip(images, masks, torch.randint(0, 5, (50, 2), generator=generator), strict=True):
        y, x = place.tolist()
        image[0, y : y + 4, x : x + 4] += 120
        mask[y : y + 4, x : x + 4] = 1
    masks[0, 0] = IGNORED
    return Splits("own", TensorExamples(images[:40], masks[:40]), TensorExamples(images[40:], masks[40:]), 2)


def train(rank, scenes, *overrides, **options):
    result = batchscale.train(RECIPE, overrides, data=scenes, quiet=True, **options).model_dump()
    return result["weights_sha256"], result["scores"], result["train_loss"]


@pytest.mark.parametrize(
    "overrides",
    [("data.augment.flip=true", "data.augment.crop=padded", "data.augment.padding=2"), ("loss.kind=binary",)],
)
def test_exact_runs_are_the_same_for_every_number_of_processes(scenes, overrides):
    alone = train(0, scenes, "numerics.exact=true", *overrides)
    assert in_processes(3, train, scenes, "numerics.exact=true", *overrides) == [alone] * 3


def test_a_run_is_that_of_a_plain_loop_in_float64(scenes):
    """k = 1: the whole run, weights of every parameter, the confusion matrix at its end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    plain.load_state_dict(model.state_dict())
    fixed = (
        "precision=fp64",
        "minibatch.workers=1",
        "minibatch.per_worker=16",
        "optimizer={name: sgd, momentum: 0.9, nesterov: false, weight_decay: 0.0}",
    )
    result = batchscale.train(RECIPE, fixed, data=scenes, model=model, quiet=True)
    images = scenes.train.inputs.double()
    mean, std = images.mean(), images.std(correction=0)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9)
    order = StreamOrder(0, 40)
    for step in range(math.ceil(80 / 16)):
        places = torch.arange(step * 16, (step + 1) * 16)
        picked = [int(order.at_places(int(p) // 40, (p % 40).view(1).numpy())[0]) for p in places]
        masks = scenes.train.targets[picked].long()
        pixels = F.cross_entropy(plain((images[picked] - mean) / std), masks, ignore_index=IGNORED, reduction="none")
        loss = (pixels.sum((1, 2)) / (masks != IGNORED).sum((1, 2))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    told = plain((scenes.test.inputs.double() - mean) / std).argmax(1)
    truth = scenes.test.targets
    iou = ((told == 1) & (truth == 1)).sum() / ((told == 1) | (truth == 1)).sum()
    assert result.model_dump()["scores"]["iou"] == pytest.approx(100 * float(iou), rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("model.options={levels: 5}",),
            r"model.options.levels=5: images of 8 x 8 are halved 4 times",
        ),
        (("model.options={depth: 5}",), r"model.options.depth: no option of model.name=unet; .*it has width, levels"),
        (
            ("model.name=cnn", "model.options={}"),
            r"model: gives \(4, 2\) .*must give logits \(4, 2, H, W\)",
        ),
        (("task=classification",), r"must give logits \(4, 2\)"),
        (("loss.label_smoothing=0.1", "loss.kind=dice"), r"loss.label_smoothing=0.1 has no place in loss.kind=dice"),
        (("execution.stop_at={score: error, below: 3}",), r"task=segmentation has no score 'error'; it has iou"),
    ],
)
def test_what_does_not_fit_is_one_line(scenes, overrides, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        train(0, scenes, *overrides, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_are_no_masks_and_masks_no_labels():
    with pytest.raises(RecipeError, match=r"targets are int64 \(16,\): must be masks"):
        batchscale.train("digits-cnn", ["task=segmentation", "model.name=unet", "model.options={levels: 2}",
                                        "minibatch.per_worker=16"], quiet=True)  # fmt: skip
    with pytest.raises(RecipeError, match=r"loss.kind=dice: task=classification has one loss of its own"):
        batchscale.train("digits-cnn", ["loss.kind=dice"], quiet=True)
