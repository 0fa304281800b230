"""Segmentation beside others' code: torch's losses over whole runs in float64, torchmetrics on the same predictions."""

import copy
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from support.dues import stop_after
from support.worlds import in_processes
from torch import nn
from torchmetrics.classification import BinaryJaccardIndex, MulticlassAccuracy, MulticlassJaccardIndex

import batchscale
from batchscale.data.examples import Splits, TensorExamples
from batchscale.data.masks.mask_sources import DEEPCAM_MADE_UP
from batchscale.data.masks.weather import made_up_weather
from batchscale.errors import RecipeError
from batchscale.order import StreamOrder
from batchscale.run.run import Stopped
from batchscale.structure import IGNORED
from batchscale.task import Evaluated
from batchscale.task.segmentation import Segmentation
from batchscale.training.due import DUES

WEIGHTS = [1.0, 2.5, 0.5]


def predictions(classes, count=23):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(count, 1 if classes == 2 else classes, 9, 7, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, classes, (count, 9, 7), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORED
    masks[3] = IGNORED
    return logits, masks


def scores(task, logits, masks):
    counts = sum(
        task.evaluate_pass(lambda part: part, part, mask).counts
        for part, mask in zip(logits.split(4), masks.split(4), strict=True)
    )
    return task.scores(Evaluated(len(masks), 0.0, tuple(counts.tolist())))


@pytest.mark.parametrize("classes", [3, 5])
def test_iou_and_accuracy_are_torchmetrics_s(classes):
    logits, masks = predictions(classes)
    jaccard = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED)
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED)
    ours = scores(Segmentation(classes), logits, masks)
    assert ours["iou"] == pytest.approx(100 * jaccard(logits.argmax(1), masks).item(), rel=1e-6)
    assert ours["pixel-accuracy"] == pytest.approx(100 * accuracy(logits.argmax(1), masks).item(), rel=1e-6)


def test_the_foreground_s_iou_is_torchmetrics_s():
    logits, masks = predictions(2)
    jaccard = BinaryJaccardIndex(ignore_index=IGNORED)
    theirs = jaccard((logits[:, 0] > 0).long(), masks).item()
    assert scores(Segmentation(2, loss="binary"), logits, masks)["iou"] == pytest.approx(100 * theirs, rel=1e-6)


def test_weights_of_classes_multiply_a_pixel_s_loss_and_leave_the_divisor():
    logits, masks = predictions(3)
    for image, mask, loss in zip(
        logits, masks, Segmentation(3, class_weights=WEIGHTS).losses(logits, masks), strict=True
    ):
        weight = torch.tensor(WEIGHTS, dtype=torch.float64)
        total = F.cross_entropy(image[None], mask[None], weight, ignore_index=IGNORED, reduction="sum")
        assert loss.item() == pytest.approx(total.item() / max((mask != IGNORED).sum().item(), 1), rel=1e-12)
    ones = Segmentation(3, class_weights=[1.0] * 3).losses(logits, masks)
    assert torch.equal(ones, Segmentation(3).losses(logits, masks))


class Two(nn.Module):
    """A net with an auxiliary classifier, as torchvision's have."""

    def __init__(self, outputs):
        super().__init__()
        self.trunk = nn.Conv2d(2, 4, 3, padding=1)
        self.out, self.aux = nn.Conv2d(4, outputs, 1), nn.Conv2d(4, outputs, 1)

    def forward(self, images):
        features = self.trunk(images).relu()
        return {"out": self.out(features), "aux": self.aux(features)}


def pictures(classes):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (30, 2, 8, 6), generator=generator, dtype=torch.uint8)
    masks = (images[:, 0].long() * classes // 256).to(torch.uint8)
    masks[::3, :2] = IGNORED
    return Splits("own", TensorExamples(images[:24], masks[:24]), TensorExamples(images[24:], masks[24:]), classes)


def plain_loss(kind, logits, masks):
    """The mean over images, each image by itself."""
    losses = []
    for image, mask in zip(logits, masks, strict=True):
        valid = mask != IGNORED
        pixels, truth = image[:, valid], mask[valid]
        if kind == "binary":
            losses.append(F.binary_cross_entropy_with_logits(pixels[0], truth.double()))
        elif kind == "dice":
            q, t = pixels.softmax(0), F.one_hot(truth, 3).T
            losses.append(1 - ((2 * (q * t).sum(1) + 1) / (q.sum(1) + t.sum(1) + 1)).mean())
        elif kind == "weighted":
            weight = torch.tensor(WEIGHTS, dtype=torch.float64)
            losses.append(F.cross_entropy(pixels.T, truth, weight, reduction="sum") / valid.sum())
        else:
            losses.append(F.cross_entropy(pixels.T, truth))
    return torch.stack(losses).mean()


RECIPE = {
    "data": {"name": "own"},
    "task": "segmentation",
    "model": {"name": "own"},
    "minibatch": {"workers": 2, "per_worker": 4},
    "epochs": 3,
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
    "learning_rate": {"reference": 0.05, "reference_minibatch": 8},
    "precision": "fp64",
    "numerics": {"threads": 1, "micro_batch": 4},
    "execution": {"device": "cpu", "log_steps": 1},
}


@pytest.mark.parametrize("kind", ["cross_entropy", "binary", "dice", "weighted"])
def test_a_whole_run_is_that_of_a_plain_loop_in_float64(kind, tmp_path):
    """Recorded losses of every step and the weights at the end; with auxiliary logits and ignored pixels."""
    splits = pictures(2 if kind == "binary" else 3)
    torch.manual_seed(0)
    model, plain = (Two(1 if kind == "binary" else 3).double() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    loss_entry = {"class_weights": WEIGHTS} if kind == "weighted" else {"kind": kind}
    batchscale.train({**RECIPE, "loss": loss_entry}, data=splits, model=model, out=tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    images, masks = splits.train.inputs.double(), splits.train.targets.long()
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True, correction=0)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9)
    order, losses = StreamOrder(0, 24), []
    for step in range(9):
        places = torch.arange(step * 8, step * 8 + 8)
        picked = [int(order.at_places(int(p) // 24, (p % 24).view(1).numpy())[0]) for p in places]
        outputs = plain(images[picked])
        loss = plain_loss(kind, outputs["out"], masks[picked]) + 0.5 * plain_loss(kind, outputs["aux"], masks[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-10)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


UNET = {
    **RECIPE,
    "model": {"name": "unet", "options": {"width": 2, "levels": 2}},
    "data": {"name": "own", "augment": {"flip": True}},
    "minibatch": {"workers": 4, "per_worker": 2},
    "precision": "fp32",
    "loss": {"class_weights": WEIGHTS},
    "numerics": {"threads": 1, "exact": True},
}


def train(rank, resume, out):
    return batchscale.train(UNET, data=pictures(3), out=out, quiet=True, resume=resume).weights_sha256


def test_an_exact_run_goes_on_with_other_processes_to_the_same_weights(tmp_path, monkeypatch):
    straight = train(0, "no", None)
    monkeypatch.setitem(DUES, "stop", stop_after(4))
    with pytest.raises(Stopped, match="after step 4;"):
        train(0, "no", tmp_path / "run")
    monkeypatch.undo()
    assert in_processes(3, train, "yes", tmp_path / "run") == [straight] * 3


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            {"class_weights": [1.0, 2.0]},
            r"class_weights=\[1.0, 2.0\]: 2 numbers for 3 classes: must be one a class",
        ),
        ({"class_weights": WEIGHTS, "kind": "dice"}, r"loss.class_weights=.* has no place in loss.kind=dice"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(loss, message):
    with pytest.raises(RecipeError, match=message):
        batchscale.train({**UNET, "loss": loss}, data=pictures(3), quiet=True)
    with pytest.raises(RecipeError, match=r"loss.class_weights=.*task=classification has one loss of its own"):
        batchscale.train("digits-cnn", ["loss.class_weights=[1, 2]"], quiet=True)


def test_made_up_weather_is_the_same_everywhere_and_shows_what_its_masks_say():
    splits = made_up_weather()
    images, masks = splits.train.inputs, splits.train.targets
    assert splits.train.digests()["pixels"].startswith("395f9513590e67fc")
    assert splits.train.digests()["labels"].startswith("218b1c932ddff8f8")
    images_64 = images.double()
    assert images_64.mean((0, 2, 3)).tolist() == pytest.approx(DEEPCAM_MADE_UP.mean, abs=1e-4)
    assert images_64.std((0, 2, 3), correction=0).tolist() == pytest.approx(DEEPCAM_MADE_UP.std, abs=1e-4)
    raised = [float(images[:, 5][masks == kind].double().mean() - images[:, 5].double().mean()) for kind in (1, 2)]
    lowered = float(images[:, 2][masks == 1].double().mean() - images[:, 2].double().mean())
    wet = float(images[:, 0][masks == 2].double().mean() - images[:, 0].double().mean())
    assert raised[0] > 30
    assert abs(raised[1]) < 20
    assert lowered < -30
    assert wet > 30
    held = {image.numpy().tobytes() for image in splits.test.inputs}
    assert not held & {image.numpy().tobytes() for image in images}


def test_a_task_whose_weights_torch_func_has_used_can_be_copied():
    task = Segmentation(3, class_weights=WEIGHTS)
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)

    def loss(logits):
        return task.losses(logits, masks).sum()

    logits = torch.randn(2, 1, 3, 4, 4)
    gradients = torch.vmap(torch.func.grad(loss))(logits)
    again = torch.vmap(torch.func.grad(lambda x: copy.deepcopy(task).losses(x, masks).sum()))(logits)
    assert torch.equal(gradients, again)
    assert pickle.loads(pickle.dumps(task))._weights == task._weights
