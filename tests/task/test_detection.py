"""Detection: a worker's loss in a plain loop's numbers, AP as pycocotools has it, the same run for any W."""

import contextlib
import copy
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.dues import Stopped, stop_after
from support.worlds import in_processes
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import batchscale
from batchscale.build.inputs import load_data
from batchscale.build.network import build_model
from batchscale.data.augmentation import mirrored
from batchscale.data.boxes.box_sources import DIGITS_SCENES_DETECTION
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError
from batchscale.models import named_model
from batchscale.order import StreamOrder
from batchscale.randomness import key
from batchscale.recipe import recipe_from
from batchscale.task import Evaluated
from batchscale.task.detection import Detection
from batchscale.training.due import DUES
from batchscale.training.step import _DROPOUT

SHARED = Path(os.environ.get("BATCHSCALE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
TINY = {"width": 8, "pyramid": 8, "hidden": 16, "anchor": 8, "proposals": 12, "sampled": 8}
RECIPE = {
    "data": {"name": "digits_scenes_detection", "train_images": 20, "holdout": 12, "augment": {"flip": True}},
    "task": "detection",
    "model": {"name": "faster_rcnn_resnet18", "options": TINY},
    "minibatch": {"workers": 4, "per_worker": 2},
    "epochs": 2,
    "learning_rate": {"reference": 0.02, "reference_minibatch": 8},
    "numerics": {"threads": 1, "evaluation_chunk": 5},
    "execution": {"device": "cpu", "log_steps": 1},
}
EXACT = "numerics.exact=true"


def train(rank, *overrides, **options):
    result = batchscale.train(RECIPE, overrides, quiet=True, **options).model_dump()
    return result["weights_sha256"], result["scores"], result["train_loss"], result["test_loss"]


@pytest.fixture(scope="module")
def exact():
    return train(0, EXACT)


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_exact_runs_are_the_same_for_every_number_of_processes(exact, processes):
    assert in_processes(processes, train, EXACT) == [exact] * processes


def resumed(rank, out):
    return train(rank, EXACT, out=out, resume="yes")


def test_a_run_stopped_on_one_process_goes_on_on_two(exact, tmp_path, monkeypatch):
    monkeypatch.setitem(DUES, "stop", stop_after(2))
    with pytest.raises(Stopped):
        train(0, EXACT, out=tmp_path / "run")
    monkeypatch.undo()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    assert in_processes(2, resumed, tmp_path / "run") == [exact] * 2
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 2
    assert resumed(0, tmp_path / "again") == exact


@pytest.mark.slow
def test_samples_hang_on_no_draw_before_the_run_and_fast_mode_draws_them_alike():
    torch.rand(7)
    fast = train(0, "precision=fp64")
    for other in in_processes(3, train, "precision=fp64"):
        assert other[2] == pytest.approx(fast[2], rel=1e-12)
    assert train(0, "precision=fp64") == fast


def plain_run(recipe):
    """(model, losses) of a plain loop: every worker's pass by itself, its gradient weighted m / kn, one update."""
    data = load_data(recipe, None)
    model = build_model(recipe, data).double().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    order, losses = StreamOrder(0, 20), []
    (mean,), (std,) = DIGITS_SCENES_DETECTION.mean, DIGITS_SCENES_DETECTION.std
    for step in range(5):
        optimizer.zero_grad()
        total = 0.0
        for worker in range(4):
            places = np.arange(step * 8 + worker * 2, step * 8 + worker * 2 + 2)
            examples = [int(order.at_places(int(place) // 20, np.array([place % 20]))[0]) for place in places]
            inputs, targets = [], []
            for place, example in zip(places, examples, strict=True):
                (image,), (target,) = data.train.part(slice(example, example + 1))
                if mirrored(0, np.array([place // 20]), np.array([example]))[0]:
                    x1, y1, x2, y2 = target["boxes"].unbind(1)
                    image, boxes = image.flip(2), torch.stack([32 - x2, y1, 32 - x1, y2], 1)
                else:
                    boxes = target["boxes"]
                inputs.append((image.double() - mean) / std)
                targets.append({"boxes": boxes, "labels": target["labels"]})
            torch.manual_seed(key(0, step, worker, _DROPOUT) >> 1)
            loss = sum(model(inputs, targets).values())
            (loss * 2 / 8).backward()
            total += float(loss.detach()) * 2 / 8
        optimizer.step()
        losses.append(total)
    return model, losses


def test_a_run_is_that_of_a_plain_loop_in_float64(tmp_path):
    """Weights and every step's loss; mirrors and samples by their keys."""
    fixed = ("precision=fp64", "optimizer={name: sgd, momentum: 0.9, nesterov: false, weight_decay: 0.0}")
    recipe = recipe_from(RECIPE, fixed)
    with torch.random.fork_rng():
        plain, losses = plain_run(recipe)
    ours = build_model(recipe, DIGITS_SCENES_DETECTION.open(None, Reading()))
    batchscale.train(RECIPE, fixed, model=ours, quiet=True, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-10)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def objects(seed, count=6, images=5, scores=True):
    """Of every image random boxes with masks that fill them; of the last none."""
    generator = np.random.default_rng(seed)
    made = []
    for image in range(images):
        corners = generator.integers(0, 20, (count if image < images - 1 else 0, 2))
        boxes = np.concatenate([corners, corners + generator.integers(4, 12, corners.shape)], 1)
        masks = np.zeros((len(boxes), 32, 32), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1 + 1 : y2, x1:x2] = 1  # a part of the box, so that AP by masks is another
        made.append({
            "boxes": torch.from_numpy(boxes).float(),
            "labels": torch.from_numpy(generator.integers(1, 4, len(boxes))),
            "masks": torch.from_numpy(masks),
            ("scores" if scores else "crowd"): (
                torch.from_numpy(generator.random(len(boxes))).float() if scores
                else torch.from_numpy(generator.random(len(boxes)) < 0.2)
            ),
        })  # fmt: skip
    return made


def near(truth, seed):
    """Detections that are the truth, moved a little, some with another label, and some that are not there."""
    generator = np.random.default_rng(seed)
    detected = objects(seed + 1)
    for image, true in zip(detected, truth, strict=True):
        for place in range(0, len(true["labels"]), 2):
            moved = true["boxes"][place] + torch.from_numpy(generator.integers(-1, 2, 4)).float()
            image["boxes"][place], image["labels"][place] = moved, true["labels"][place]
            x1, y1, x2, y2 = moved.int().clamp(min=0).tolist()
            image["masks"][place] = 0
            image["masks"][place, y1:y2, x1:x2] = 1
        image["masks"] = image["masks"][:, None].float() * 0.9  # a detector's probabilities
    return detected


def directly(truth, detected, kind):
    """pycocotools by itself, on COCO's documents written out by hand; ids far from ours."""
    annotations, results = [], []
    for number, image in enumerate(truth):
        for box, label, crowd, mask in zip(
            image["boxes"], image["labels"], image["crowd"], image["masks"], strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": 100 + number, "category_id": int(label),
                "iscrowd": int(crowd), "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                "segmentation": run_lengths.encode(np.asfortranarray(mask.numpy())),
            })  # fmt: skip
    for number, image in enumerate(detected):
        for box, label, score, mask in zip(
            image["boxes"], image["labels"], image["scores"], image["masks"], strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            result = {"image_id": 100 + number, "category_id": int(label), "score": float(score)}
            result |= (
                {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                if kind == "bbox"
                else {"segmentation": run_lengths.encode(np.asfortranarray((mask[0] > 0.5).numpy().astype(np.uint8)))}
            )
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": 100 + number, "height": 32, "width": 32} for number in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": label} for label in (1, 2, 3)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * float(value) for value in evaluation.stats[:3]]


class Recalling(nn.Module):
    """Gives what it was handed for images that are filled with their number; its loss is that number."""

    def __init__(self, detected):
        super().__init__()
        self.detected, self.head = detected, nn.Sequential(nn.Identity())

    def forward(self, images, targets=None):
        numbers = [int(image[0, 0, 0]) for image in images]
        if self.training:
            assert targets is not None
            return {"loss": torch.tensor(float(sum(numbers))), "of_boxes": torch.tensor(0.5)}
        return [self.detected[number] for number in numbers]


def test_ap_is_pycocotools_own_on_the_same_predictions(capsys):
    truth = objects(0, scores=False)
    detected = near(truth, 7)
    task = Detection(4, masks=True)
    images = [torch.full((3, 32, 32), float(number)) for number in range(5)]
    passes = [
        task.evaluate_pass(Recalling(detected).eval(), images[part], truth[part]) for part in (slice(3), slice(3, 5))
    ]
    predictions = [prediction for each in passes for prediction in each.predictions]
    scores = task.checked_scores(Evaluated(5, 0.0, (), predictions))
    boxes, masks = directly(truth, detected, "bbox"), directly(truth, detected, "segm")
    assert [scores["ap"], scores["ap50"], scores["ap75"]] == boxes
    assert [scores["mask-ap"], scores["mask-ap50"]] == masks[:2]
    assert 5 < boxes[0] < boxes[1] < 95
    assert boxes[:2] != masks[:2]
    assert sum(float(each.loss) for each in passes) == sum(range(5)) + 5 * 0.5
    assert capsys.readouterr().out == ""


def test_a_perfect_detector_has_100_and_an_empty_one_0():
    truth = objects(0, scores=False)
    perfect = [image | {"scores": torch.ones(len(image["labels"]))} for image in truth]
    nothing = [{name: value[:0] for name, value in image.items()} for image in perfect]
    images, task = [torch.full((3, 32, 32), float(number)) for number in range(5)], Detection(4)
    for detected, ap in ((perfect, 100.0), (nothing, 0.0)):
        predictions = task.evaluate_pass(Recalling(detected).eval(), images, truth).predictions
        assert task.scores(Evaluated(5, 0.0, (), predictions)) == pytest.approx({"ap": ap, "ap50": ap, "ap75": ap})


def test_crowds_and_images_without_boxes_are_trained_on_without_them():
    seen = []

    def model(images, targets):
        seen.extend(targets)
        return {"a": torch.tensor(1.5), "b": torch.tensor(0.5)}

    truth = objects(0, scores=False)
    loss, _ = Detection(4).train_pass(model, [torch.zeros(3, 32, 32)] * 5, truth)
    assert float(loss) == 5 * 2.0
    for target, true in zip(seen, truth, strict=True):
        assert torch.equal(target["boxes"], true["boxes"][~true["crowd"]])
    assert sum(len(true["labels"]) - len(target["labels"]) for target, true in zip(seen, truth, strict=True)) > 0
    assert len(seen[-1]["labels"]) == 0


@pytest.fixture(scope="module")
def model():
    data = DIGITS_SCENES_DETECTION.open(None, Reading())
    return build_model(recipe_from(RECIPE), data).eval(), data


def test_an_image_s_numbers_in_an_evaluation_hang_on_no_other_image(model):
    """And the evaluation draws nothing from the process, and leaves every mode as it was."""
    net, data = model
    images, targets = data.test.part(slice(6))
    images = [image.float() / 64 for image in images]
    state, task = torch.get_rng_state(), Detection(11)
    with torch.no_grad():
        together = task.evaluate_pass(net, images, targets)
        alone = [task.evaluate_pass(net, [image], [target]) for image, target in zip(images, targets, strict=True)]
    assert together.predictions == [each.predictions[0] for each in alone]
    assert float(together.loss) == pytest.approx(sum(float(each.loss) for each in alone), rel=1e-12)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in net.modules())


def test_images_of_several_sizes_and_an_image_without_a_box_train(model):
    net, _ = model
    images = [torch.rand(1, 32, 32), torch.rand(1, 20, 28)]
    targets = [
        {"boxes": torch.tensor([[2.0, 2, 10, 12]]), "labels": torch.tensor([3])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    loss, losses = Detection(11).train_pass(net.train(), images, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)
    net.zero_grad()
    net.eval()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.name=cnn", "model.options={}"), r"model: its forward pass failed on images"),
        (("loss.label_smoothing=0.1",), r"loss.label_smoothing=0.1: task=detection has the model's own loss"),
        (("loss.kind=dice",), r"loss.kind=dice: task=detection has one loss of its own"),
        (("data.masks=instances",), r"data.masks=instances: the model has no loss of masks; use model.name="),
        (("model.name=torchvision/maskrcnn_resnet50_fpn", "model.options={min_size: 32}"),
         r"model: learns masks, and none are read; give data.masks=instances"),
        (("model.name=torchvision/fasterrcnn_resnet50_fpn", "model.options={width: 3}"),
         r"model.options.width: no option .*it has min_size, max_size"),
        (("numerics.micro_batch=4",), r"numerics.micro_batch=4: the model draws random numbers, so it runs one worker"),
        (("optimizer.gradient_noise=0.1",), r"task=detection has one of a whole worker"),
        (("execution.stop_at={score: iou, above: 3}",), r"task=detection has no score 'iou'; it has ap, ap50, ap75"),
        (("execution.stop_at={score: ap, above: 300}",), r"above=300: ap is a percentage, from 0 to 100, so"),
        (("data.augment.crop=padded",), r"data.augment.crop=padded: would cut boxes"),
        (("task=segmentation",), r"."),
        (("task=classification",), r"."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(overrides, message, tmp_path):
    with pytest.raises((DataError, RecipeError), match=message) as error:
        train(0, *overrides, out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_without_pycocotools_the_recipe_says_so(monkeypatch):
    monkeypatch.setattr("batchscale.task.average_precision.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pycocotools.* is not installed; run pip install 'batchscale\[detection\]'"):
        train(0)


def test_torchvision_s_detectors_freeze_batch_norm_where_weights_come_from_a_file(tmp_path):
    data = DIGITS_SCENES_DETECTION.open(None, Reading())
    named = ("model.name=torchvision/fasterrcnn_resnet50_fpn", "model.options={min_size: 32, max_size: 32}")
    drawn = build_model(recipe_from(RECIPE, named), data)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in drawn.modules()) == 53
    assert all(parameter.requires_grad for parameter in drawn.parameters())
    for layer in drawn.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    torch.save(drawn.state_dict(), tmp_path / "weights.pt")
    read = build_model(recipe_from(RECIPE, (*named, f"model.pretrained={tmp_path / 'weights.pt'}")), data)
    assert sum(isinstance(layer, FrozenBatchNorm2d) for layer in read.modules()) == 53
    image = torch.rand(1, 3, 32, 32)
    for expected, features in zip(
        drawn.eval().backbone(image).values(), read.train().backbone(image).values(), strict=True
    ):
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "coco_cc").is_dir(), reason="no coco_cc below BATCHSCALE_DATA")
def test_mask_rcnn_trains_and_is_judged_on_photographs_of_coco():
    """The shipped recipe, shortened: two steps of small images; masks of boxes and crowds in both."""
    shortened = (
        "minibatch.workers=2", "minibatch.per_worker=2", "data.train_images=8", "data.holdout=4", "epochs=1",
        "model.options={min_size: 96, max_size: 128}", "learning_rate.decay={kind: none}", "numerics.threads=1",
        "execution.device=cpu",
    )  # fmt: skip
    result = batchscale.train("coco-mask-rcnn-linear", shortened, data_folder=SHARED / "coco_cc", quiet=True)
    content = result.model_dump()
    assert set(content["scores"]) == {"ap", "ap50", "ap75", "mask-ap", "mask-ap50"}
    assert 0 < content["train_loss"] < 100
    assert 0 < content["test_loss"] < 100


def test_images_without_objects_or_proposals_have_a_loss():
    """A mean over no samples was nan: of a run's loss, and of its test loss after a first step that went too far."""
    recipe = recipe_from(RECIPE)
    data = load_data(recipe, None)
    torch.manual_seed(0)
    plain = named_model("faster_rcnn_resnet18", data.image_shape, data.num_classes, TINY)
    with torch.no_grad():
        plain.rpn.head.bbox_pred.bias[0::4] = -100.0  # every proposal lies left of the image
    model = build_model(recipe, data, copy.deepcopy(plain))
    image, task = torch.randn(1, 32, 32), Detection(data.num_classes)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    digit = {"boxes": torch.tensor([[5.0, 6.0, 17.0, 20.0]]), "labels": torch.tensor([1])}
    assert plain.train()([image], [empty])["loss_classifier"].isnan()  # torchvision's own

    loss, losses = task.train_pass(model.train(), [image, image], [empty, empty])
    background = model.roi_heads.box_predictor.cls_score.bias.detach().log_softmax(0)[0]
    assert float(losses["loss_classifier"].detach()) == pytest.approx(-float(background), abs=0.5)
    assert float(losses["loss_box_reg"].detach()) == 0.0
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    evaluated = task.evaluate_pass(model.eval(), [image], [empty])
    assert evaluated.loss.isfinite()
    assert evaluated.predictions[0]["detected"]["boxes"] == []

    model.load_state_dict(plain.state_dict())
    for pass_ in ([empty, digit], [digit]):  # something to sample: the bits are torchvision's
        sums = []
        for detector in (plain.train(), model.train()):
            torch.manual_seed(0)
            sums.append(float(sum(detector([image] * len(pass_), pass_).values()).detach()))
        assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data={name: digits_scenes}"], "task=detection: the data's targets are uint8 (2, 32, 32): must be a list"),
        (["task=segmentation"], "model.name=faster_rcnn_resnet18: finds objects, which task=segmentation does not"),
        (["task=classification"], "model.name=faster_rcnn_resnet18: finds objects, which task=classification does"),
    ],
)
def test_another_task_s_data_or_task_is_one_line(overrides, message):
    small = ["minibatch.workers=1", "minibatch.per_worker=2", "model.options={width: 8, pyramid: 8, hidden: 8}"]
    with pytest.raises(RecipeError) as caught:
        batchscale.train("digits-scenes-detection", [*small, *overrides], quiet=True)
    assert message in str(caught.value)
