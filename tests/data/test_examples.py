"""Examples of any structure in memory: gathered, cropped and mirrored together, told apart by their digests."""

import numpy as np
import pytest
import torch
from torch import nn

import batchscale
from batchscale.data.examples import IGNORED, Augmentation, Splits, TensorExamples
from batchscale.structure import called, mapped, num_examples, part, tensors
from batchscale.task import EvaluatedPass, ScoreKind, Task

N = 12


def pictures():
    """Images that tell their number in every pixel, and masks that tell it too, apart from a mark in one corner."""
    images = torch.arange(1, N + 1, dtype=torch.uint8).view(N, 1, 1, 1).expand(N, 1, 6, 6).clone()
    images[:, :, 0, 0] = 99
    masks = torch.arange(1, N + 1).view(N, 1, 1).expand(N, 6, 6).clone()
    masks[:, 0, 0] = 99
    return images, masks


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=True), Augmentation(True, 2)])
def test_a_mask_is_cropped_and_mirrored_with_its_image(augmentation):
    images, masks = pictures()
    numbers = np.arange(N)
    inputs, targets = TensorExamples(images, masks).augmented(3, augmentation)(numbers // 5, numbers)
    outside = inputs[:, 0] == 0
    assert torch.equal(torch.where(outside, 0, targets), inputs[:, 0].long())
    assert (targets[outside] == IGNORED).all()
    assert outside.any() == bool(augmentation.padding)
    alone = TensorExamples(images, torch.arange(N)).augmented(3, augmentation)(numbers // 5, numbers)
    assert torch.equal(alone[0], inputs)  # what an image goes through does not hang on its target
    assert torch.equal(alone[1], torch.arange(N))


def test_a_structure_is_gathered_sliced_and_selected_as_one():
    inputs = {"tokens": torch.arange(3 * N).view(N, 3), "lengths": torch.arange(N)}
    examples = TensorExamples(inputs, (torch.arange(N), torch.arange(N) * 2.0))
    assert len(examples) == N
    assert not examples.raw
    rows = np.array([4, 1, 1])
    picked, (first, second) = examples.augmented(0, Augmentation())(np.zeros(3, np.int64), rows)
    assert picked["tokens"].tolist() == [[12, 13, 14], [3, 4, 5], [3, 4, 5]]
    assert (first.tolist(), second.tolist()) == ([4, 1, 1], [8.0, 2.0, 2.0])
    assert examples.select(rows).part(slice(0, 1))[0]["lengths"].tolist() == [4]


def test_digests_change_with_any_tensor_and_of_one_tensor_are_as_ever():
    images, masks = pictures()
    digests = TensorExamples(images, masks).digests()
    for inputs, targets in ((images, masks + 1), (images + 1, masks), ((images,) * 2, masks)):
        assert TensorExamples(inputs, targets).digests() != digests


def test_structures_keep_their_kind():
    structure = {"a": torch.arange(4), "b": [torch.zeros(4, 2), (torch.ones(4),)]}
    doubled = mapped(lambda tensor: tensor * 2, structure)
    assert doubled["a"].tolist() == [0, 2, 4, 6]
    assert isinstance(doubled["b"], list)
    assert isinstance(doubled["b"][1], tuple)
    assert [tensor.shape[0] for tensor in tensors(structure)] == [4, 4, 4]
    assert num_examples(structure) == 4
    assert num_examples([{"boxes": torch.zeros(7, 4)}, {"boxes": torch.zeros(1, 4)}]) == 2
    assert part(structure, slice(1, 3))["b"][0].shape == (2, 2)
    assert called({"a": lambda x: x + 1, "b": (lambda x: x * 2,)}, 3) == {"a": 4, "b": (6,)}


class Pixels(Task):
    """Regression of a mask from its image: inputs and targets are pictures, in mappings."""

    name = "pixels"
    examples = "pairs"
    score_kinds = (ScoreKind("distance"),)

    def train_pass(self, model, inputs, targets):
        outputs = model(inputs)
        return (outputs - targets["mask"]).square().mean((1, 2)).sum(), outputs

    def evaluate_pass(self, model, inputs, targets):
        return EvaluatedPass(self.train_pass(model, inputs, targets)[0], torch.zeros(0))

    def scores(self, evaluated):
        return {"distance": evaluated.loss}

    def check(self, outputs, examples):
        assert outputs.shape == (examples, 6, 6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, inputs):
        return self.conv(inputs["image"]).squeeze(1) * inputs["scale"].view(-1, 1, 1)


class PairsOfPictures:
    """One's own data: anything that has ``splits``."""

    def splits(self):
        images, masks = pictures()
        inputs = {"image": images.float() / 12, "scale": torch.ones(N)}
        train = TensorExamples(inputs, {"mask": masks.float() / 12})
        return Splits("own", train, train, 1)


def test_a_run_over_mappings_of_tensors_is_the_same_on_any_passes():
    results = []
    for micro_batch in (2, 4):
        recipe = {
            "data": {"name": "own"}, "model": {"name": "own"}, "minibatch": {"workers": 2, "per_worker": 2},
            "epochs": 3, "learning_rate": {"reference": 0.01, "reference_minibatch": 4}, "precision": "fp64",
            "numerics": {"micro_batch": micro_batch, "threads": 1}, "execution": {"device": "cpu"},
        }  # fmt: skip
        result = batchscale.train(recipe, model=Net(), data=PairsOfPictures(), task=Pixels(), quiet=True)
        assert result.task == "pixels"
        results.append(result.scores["distance"])
    assert results[0] == pytest.approx(results[1], rel=1e-9)
