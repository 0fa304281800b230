"""Examples of any structure in memory: gathered, cropped and mirrored together, told apart by their digests."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import batchscale
from batchscale.build.inputs import load_data, make_normalizer
from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import IGNORED, Splits, TensorExamples
from batchscale.errors import DataError
from batchscale.recipe import load_recipe
from batchscale.structure import called, columns, mapped, num_examples, part, repeated, tensors
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
    structure = {"a": torch.arange(2), "b": [torch.zeros(4, 2), (torch.ones(4),)]}
    doubled = mapped(lambda tensor: tensor * 2, structure)
    assert doubled["a"].tolist() == [0, 2]
    assert isinstance(doubled["b"], list)
    assert isinstance(doubled["b"][1], tuple)
    assert [tensor.shape[0] for tensor in tensors(structure)] == [2, 4, 4]
    assert num_examples([{"boxes": torch.zeros(7, 4)}, {"boxes": torch.zeros(1, 4)}]) == 2
    assert called({"a": lambda x: x + 1, "b": (lambda x: x * 2,)}, 3) == {"a": 4, "b": (6,)}


def boxes():
    """Of every example as many boxes as its number says."""
    return [torch.full((number, 4), number) for number in range(N)]


def numbers_of(column):
    return [len(member) for member in column]


@pytest.mark.parametrize("wrap", [lambda column: column, lambda column: {"boxes": column}, lambda column: ((column,),)])
def test_a_list_has_one_member_an_example_wherever_it_stands(wrap):
    """As it is cut into passes, gathered into minibatches, selected, repeated for the trial of passes, and counted."""

    def inside(structure):
        return numbers_of(next(columns(structure)))

    structure = wrap(boxes())
    assert num_examples(structure) == N
    assert inside(part(structure, slice(3, 6))) == [3, 4, 5]
    assert inside(repeated(part(structure, slice(3, 5)), 2)) == [3, 4, 3, 4]
    examples = TensorExamples(torch.arange(N), structure)
    rows = np.array([4, 1, 1])
    assert inside(examples.augmented(0, Augmentation())(np.zeros(3, np.int64), rows)[1]) == [4, 1, 1]
    assert inside(examples.select(rows).targets) == [4, 1, 1]
    assert inside(examples.part(slice(2, 4))[1]) == [2, 3]
    assert TensorExamples(torch.arange(N), wrap(boxes()[::-1])).digests() != examples.digests()
    assert len(TensorExamples(structure, torch.arange(N))) == N


def test_columns_of_other_lengths_are_one_line():
    """Two tensors in a list are two examples, not two columns."""
    with pytest.raises(DataError, match=r"2 examples by their first inputs, 12 by .*several tensors as a tuple"):
        TensorExamples([torch.zeros(N, 3), torch.zeros(N, 3)], torch.arange(N))


def own(inputs, targets):
    part = TensorExamples(inputs, targets)
    return SimpleNamespace(splits=lambda: Splits("own", part, part, 1))


def opened(inputs, targets, *overrides):
    recipe = load_recipe("digits-cnn", ["data.name=own", "data.augment={}", *overrides])
    return recipe, load_data(recipe, None, own(inputs, targets))


CROPPED = "data.augment={crop: padded, padding: 2}"


@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.int8])
def test_a_mask_that_has_no_number_for_what_is_ignored_is_not_cropped(kind):
    images, masks = pictures()
    for targets in (masks.to(kind), {"mask": masks.to(kind)}):
        with pytest.raises(DataError, match=f"data.augment.crop=padded: .*{kind} has no such number"):
            opened(images, targets, CROPPED)
        opened(images, targets, "data.augment={flip: true}")  # nothing is outside there
    opened(images, masks.to(torch.uint8), CROPPED)


@pytest.mark.parametrize("augment", [CROPPED, "data.augment={flip: true}"])
def test_a_list_of_tensors_is_not_augmented(augment):
    with pytest.raises(DataError, match=r"data.augment: .* a list of tensors, which would stay as they are"):
        opened(pictures()[0], {"boxes": boxes()}, augment)


def test_images_anywhere_among_the_inputs_are_normalised_by_their_own_moments():
    images = pictures()[0]
    device = torch.device("cpu")
    for inputs in (images, {"scale": torch.ones(N), "image": images}, (torch.arange(N), images)):
        recipe, dataset = opened(inputs, torch.arange(N))
        assert (dataset.train.raw, dataset.image_shape) == (True, (1, 6, 6))
        normalized = list(tensors(make_normalizer(recipe, dataset, True, device)(inputs)))[-1]
        torch.testing.assert_close(float(normalized.mean()), 0.0, atol=1e-5, rtol=0)
        torch.testing.assert_close(float(normalized.std(correction=0)), 1.0)
    recipe, dataset = opened({"image": images, "bytes": torch.zeros(N, 3, dtype=torch.uint8)}, torch.arange(N))
    with pytest.raises(DataError, match=r"uint8 inputs \(12, 3\) beside images \(12, 1, 6, 6\)"):
        make_normalizer(recipe, dataset, True, device)


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


def pairs_of_pictures():
    """One's own data, of any structure."""
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
        result = batchscale.train(recipe, model=Net(), data=pairs_of_pictures(), task=Pixels(), quiet=True)
        assert result.task == "pixels"
        results.append(result.scores["distance"])
    assert results[0] == pytest.approx(results[1], rel=1e-9)


@pytest.mark.parametrize("data", [{"x": 1}, torch.zeros(2), "digits"])
def test_what_is_no_data_set_is_one_line(data):
    sentence = r"data: is a \w+: must be a batchscale.Dataset, or a pair \(training, test\) of map-style Datasets"
    with pytest.raises(DataError, match=sentence):
        batchscale.train("digits-cnn", data=data, quiet=True)


def test_a_mask_with_an_axis_of_channels_is_to_be_ignored_outside_too():
    images, masks = pictures()
    numbers = np.arange(N)
    inputs, targets = TensorExamples(images, masks[:, None]).augmented(3, Augmentation(padding=2))(numbers, numbers)
    assert (targets[inputs == 0] == IGNORED).all()


def test_words_among_the_targets_enter_the_digest():
    inputs = torch.zeros(3, 2)
    digests = [TensorExamples(inputs, list(words)).digests() for words in ("abc", "abd")]
    assert digests[0] != digests[1]
