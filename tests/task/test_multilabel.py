"""Several labels an image: losses as plain torch has them, mean AP as scikit-learn has it, the same run for any W."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.cli import main
from batchscale.data.boxes.boxes import Photograph
from batchscale.data.boxes.label_sources import DIGITS_SCENES_LABELS, _kinds
from batchscale.data.image.scenes import segmented_digits
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError
from batchscale.order import StreamOrder
from batchscale.task import Evaluated
from batchscale.task.multilabel import UNSAID, Multilabel


def logits_and_labels(count=40, classes=5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64).round(decimals=1)  # with ties
    labels = (torch.rand(count, classes, generator=generator) < 0.3).to(torch.uint8)
    labels[::7, 1] = UNSAID
    labels[:, 4] = 0
    return logits, labels


def test_a_loss_is_the_mean_over_the_classes_that_an_image_has_an_entry_for():
    logits, labels = logits_and_labels()
    labels[3] = UNSAID
    for row, truth, loss in zip(logits, labels, Multilabel(5).losses(logits, labels), strict=True):
        valid = truth != UNSAID
        alone = F.binary_cross_entropy_with_logits(row[valid], truth[valid].double())
        assert loss.item() == pytest.approx(0.0 if not valid.any() else alone.item(), rel=1e-12)


def test_mean_ap_is_that_of_scikit_learn_over_the_classes_that_occur():
    logits, labels = logits_and_labels()
    task = Multilabel(5)
    parts = [task.evaluate_pass(lambda part: part, *pair) for pair in
             zip(logits.split(7), labels.split(7), strict=True)]  # fmt: skip
    scores = task.scores(Evaluated(40, 0.0, (), [each for part in parts for each in part.predictions]))
    aps = []
    for number in range(4):
        valid = labels[:, number] != UNSAID
        aps.append(average_precision_score(labels[valid, number] == 1, logits[valid, number]))
    assert scores["mean-ap"] == pytest.approx(100 * np.mean(aps), rel=1e-12)
    assert scores["classes-absent"] == 1
    right = ((logits > 0) == (labels == 1)) | (labels == UNSAID)
    assert scores["error"] == pytest.approx(100 * (1 - right.all(1).double().mean().item()))


def data(count=50):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    labels = (inputs[:, :3] > 0.3).long()
    return (inputs[:40], labels[:40]), (inputs[40:], labels[40:])


SHORT = ("epochs=2", "minibatch={workers: 4, per_worker: 4}", "numerics.threads=1", "execution.device=cpu",
         "learning_rate={reference: 0.1, reference_minibatch: 16}", "learning_rate.warmup={kind: none}",
         "learning_rate.decay={kind: none}", "data.classes=3")  # fmt: skip
PLAIN = ("precision=fp64", "optimizer={name: sgd, momentum: 0.9, nesterov: false, weight_decay: 0.0}")


def train(rank, *overrides):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
    result = batchscale.train("own", [*SHORT, *overrides], model=net, data=data(), task="multilabel", quiet=True)
    return result.weights_sha256, result.model_dump()["scores"]


def test_exact_runs_are_the_same_for_every_number_of_processes():
    alone = train(0, "numerics.exact=true")
    assert in_processes(3, train, "numerics.exact=true") == [alone] * 3
    assert set(alone[1]) == {"mean-ap", "error", "classes-absent"}


def test_a_run_is_that_of_a_plain_loop_in_float64():
    plain, model = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    plain.load_state_dict(model.state_dict())
    (inputs, labels), test = data()
    result = batchscale.train("own", [*SHORT, *PLAIN], model=model, data=((inputs, labels), test), task="multilabel",
                              quiet=True)  # fmt: skip
    optimizer, order = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9), StreamOrder(0, 40)
    for step in range(math.ceil(80 / 16)):
        places = (divmod(position, 40) for position in range(16 * step, 16 * (step + 1)))
        picked = [int(order.at_places(epoch, np.array([place]))[0]) for epoch, place in places]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(plain(inputs[picked]), labels[picked].double()).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    told = plain(test[0]).detach()
    aps = [average_precision_score(test[1][:, number], told[:, number]) for number in range(3)]
    assert result.model_dump()["scores"]["mean-ap"] == pytest.approx(100 * np.mean(aps), rel=1e-9)


def test_labels_are_the_kinds_of_objects_on_an_image():
    scenes, splits = segmented_digits(), DIGITS_SCENES_LABELS.open(None, Reading())
    for part, masks in ((splits.train, scenes.train.targets), (splits.test, scenes.test.targets)):
        kinds = torch.stack([(masks == 1 + digit).flatten(1).any(1) for digit in range(10)], 1)
        assert torch.equal(part.targets, kinds.to(torch.uint8))
    labels, crowd = torch.tensor([2, 2, 3, 1]), torch.tensor([True, False, True, False])
    photograph = Photograph("a", (2, 2), torch.zeros(4, 4), labels, crowd, lambda: torch.zeros(1, 2, 2))
    assert _kinds(photograph, 4).tolist() == [1, 1, UNSAID, 0]


def test_what_does_not_fit_is_one_line():
    def refused(message, kind, targets, *overrides):
        pair = (torch.randn(16, 4), targets)
        with pytest.raises(kind, match=message) as error:
            batchscale.train("own", [*SHORT, *overrides], model=nn.Linear(4, 3), data=(pair, pair), task="multilabel",
                             quiet=True)  # fmt: skip
        assert "\n" not in str(error.value)

    vectors = torch.zeros(16, 3)
    refused(r"targets are int64 \(4,\): must be one 0/1 vector an image, \(4, 3\)", RecipeError, torch.arange(16) % 3)
    refused(r"item 0 has the label 2: must be 0 or 1, or 255 for neither", DataError, vectors + 2)
    refused(r"must give logits \(4, 4\)", RecipeError, vectors, "data.classes=4")
    refused(r"label_smoothing=0.1 has no place in task=multilabel", RecipeError, vectors, "loss.label_smoothing=0.1")
    with pytest.raises(DataError, match="has several labels an image: train it with task=multilabel"):
        DIGITS_SCENES_LABELS.load(None)


def test_a_check_tells_the_share_of_images_with_each_label(capsys):
    assert main(["data", "check", "digits_scenes_labels"]) == 0
    line = capsys.readouterr().out
    assert "200 test images of 1x32x32; training images with each label: [" in line
    assert "masks" not in line
