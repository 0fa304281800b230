"""Data handed in from Python: every form becomes columns, items hang on their keys, what will not do is one line."""

import os
import random
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from support.own_data import Points
from torch.utils.data import IterableDataset, Subset, TensorDataset

import batchscale
from batchscale.build.inputs import load_data, make_normalizer
from batchscale.data.augmentation import Augmentation
from batchscale.data.own import own_splits
from batchscale.errors import DataError, ExactnessError
from batchscale.randomness import bits, key
from batchscale.recipe import load_recipe

Both = namedtuple("Both", "left right")


class Items:
    """A map-style Dataset of what a function gives."""

    def __init__(self, function, count=6):
        self.function, self.count = function, count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return self.function(number)


def splits(function, count=6, num_classes=None):
    data = Items(function, count)
    return own_splits((data, data), num_classes, 2)


def test_items_of_any_structure_become_columns():
    def item(number):
        grey = Image.fromarray(np.full((4, 5), number, np.uint8))
        rgb = Image.fromarray(np.full((4, 5, 3), (number, 1, 2), np.uint8))
        pixels = {"grey": grey, "rgb": rgb}
        return (pixels, Both(0.5 * number, np.float64(number))), [grey, number, "word", number > 2, np.int32(number)]

    inputs, targets = splits(item).train.part(slice(1, 4))
    assert inputs[0]["grey"].shape == (3, 1, 4, 5)
    assert inputs[0]["grey"].dtype == torch.uint8
    assert inputs[0]["rgb"][:, :, 3, 4].tolist() == [[1, 1, 2], [2, 1, 2], [3, 1, 2]]
    assert (inputs[1].left.tolist(), inputs[1].left.dtype) == ([0.5, 1.0, 1.5], torch.float32)
    assert inputs[1].right.dtype == torch.float64
    mask, label, word, large, small = targets
    assert mask.shape == (3, 4, 5)
    assert (label.tolist(), label.dtype, small.dtype) == ([1, 2, 3], torch.int64, torch.int64)
    assert (word, large.tolist()) == (["word"] * 3, [False, False, True])


def test_parts_in_memory_are_read_once():
    x, y = torch.randn(5, 3), torch.arange(5, dtype=torch.int32) % 2
    for part in ((x, y), (x.numpy(), y.numpy()), TensorDataset(x, y), list(zip(x, y.tolist(), strict=True))):
        data = own_splits((part, part), None, 1)
        assert torch.equal(data.train.inputs, x)
        assert data.train.targets.tolist() == y.tolist()
        assert (data.train.targets.dtype, data.num_classes) == (torch.int64, 2)
    assert own_splits(((x, y), (x, y)), 7, 1).num_classes == 7


def seeded(dataset, number, seed):
    """An item as a plain loop would draw it, under one key."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed // 2)
    return dataset[number]


@pytest.mark.parametrize("processes", [1, 3])
def test_an_item_is_drawn_under_seed_epoch_and_number_alone(processes):
    dataset = Points(40)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    train = own_splits((dataset, dataset), None, processes).train
    draw = train.augmented(5, Augmentation())
    epochs, numbers = np.array([0, 0, 1, 1, 0]), np.array([7, 39, 7, 2, 3])
    inputs, targets = draw(epochs, numbers)
    again, _ = train.select(np.array([2, 7, 39])).augmented(5, Augmentation())(np.array([1, 0]), np.array([1, 2]))
    assert torch.equal(again, inputs[[2, 1]])  # other items beside it, a part of the set: the same
    assert torch.get_rng_state().equal(state[0])  # nothing was drawn here
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]
    with torch.random.fork_rng(devices=()):
        for place, (epoch, number) in enumerate(zip(epochs.tolist(), numbers.tolist(), strict=True)):
            seed = int(bits(key(5, epoch, 301), np.array([number]))[0])
            point, label = seeded(dataset, number, seed)
            assert torch.equal(inputs[place], point)
            assert targets[place] == label
    random.setstate(state[1])
    assert not torch.equal(inputs[0], inputs[2])  # another epoch, another draw
    assert torch.equal(train.part(slice(3, 9))[0], train.part(slice(0, 40))[0][3:9])  # still ones have one draw
    assert len({tuple(point) for point in inputs.tolist()}) == 5


def test_the_contents_hang_on_form_length_and_bytes_of_some_items():
    def contents(function, count=6):
        return splits(function, count).contents

    base = contents(lambda number: (torch.full((2,), number), 0))
    assert base == contents(lambda number: (torch.full((2,), number), 0))
    assert base != contents(lambda number: (torch.full((2,), number + 1), 0))
    assert base != contents(lambda number: (torch.full((2,), number), 1))
    assert base["training form"] == "(int64 (2,), int64 ())"
    whole = splits(lambda number: (torch.zeros(1), 0)).train
    assert whole.select(np.array([0, 1])).digests() != whole.select(np.array([0, 2])).digests()


def test_uint8_images_are_normalised_by_moments_of_their_own():
    images = torch.randint(0, 256, (30, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 1] //= 3
    data = (Items(lambda number: (images[number], 0), 30),) * 2
    recipe = load_recipe("own", ["data.classes=2", "precision=fp64"])
    dataset = load_data(recipe, None, data)
    normalizer = make_normalizer(recipe, dataset, True, torch.device("cpu"))
    normalized = normalizer(dataset.train.part(slice(0, 30))[0])
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(normalized.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-12, rtol=0)


class Counting(Items):
    """Every item has a number more than the last drawn: it hangs on what was drawn before."""

    drawn = 0

    def __getitem__(self, number):
        self.drawn += 1
        return torch.full((1, 2, 2), self.drawn, dtype=self.function), 0


@pytest.mark.parametrize("function", [lambda n: (np.frombuffer(os.urandom(8), np.float64).copy(), 0),
                                      lambda n: (torch.from_numpy(np.random.default_rng().random(3)), 0)])  # fmt: skip
def test_items_that_hang_on_more_than_their_keys_are_told(function):
    data = (Items(function),) * 2
    assert splits(function).train.warning.startswith("warning: a training item drawn twice under one key is not")
    load_data(load_recipe("own", ["data.classes=2"]), None, data)
    with pytest.raises(ExactnessError, match=r"data: a training item drawn twice under one key .* make a generator th"):
        load_data(load_recipe("own", ["data.classes=2", "numerics.exact=true"]), None, data)


def test_a_dataset_with_a_state_of_its_own_is_told_and_has_no_moments():
    for dtype, kind in ((torch.float32, None), (torch.uint8, DataError)):
        data = (Counting(dtype),) * 2
        if kind is None:
            assert load_data(load_recipe("own", ["data.classes=2"]), None, data).train.warning
        else:
            with pytest.raises(kind, match="uint8 images are normalised by their own"):
                load_data(load_recipe("own", ["data.classes=2"]), None, data)


def test_a_process_that_was_ended_is_replaced(tmp_path):
    """Batch systems signal all processes of a job."""
    ended = tmp_path / "ended"

    def item(number):
        if number == 9 and not ended.exists():
            ended.touch()
            os.kill(os.getpid(), 15)
        return torch.full((2,), number), 0

    inputs, _ = splits(item, 60).train.part(slice(0, 60))
    assert ended.exists()
    assert inputs[:, 0].tolist() == list(range(60))

    def fatal(number):
        return os._exit(1) if number == 9 else (torch.full((2,), number), 0)

    with pytest.raises(DataError, match=r"a process that drew training items has died, twice"):
        splits(fatal, 60).train.part(slice(0, 60))


class Stream(IterableDataset):
    """No map-style Dataset."""

    def __iter__(self):
        yield torch.zeros(2), 0


def interrupted(number):
    raise KeyboardInterrupt


GOOD = Items(lambda number: (torch.zeros(2), 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD, r"data: is a Items: must be a batchscale.Dataset, or a pair \(training, test\).*random_split makes two"),
        ([GOOD, GOOD], r"data: is a list: must be"),
        ((GOOD, Stream()), r"the test part is a Stream: must be map-style, with __getitem__ and __len__, so that"),
        ((item for item in ()), r"data: is a generator"),
        (((item for item in ()), GOOD), r"the training part is a generator: must be map-style"),
        ((Items(None, 0), GOOD), r"the training Dataset has no item"),
        ((Items(lambda number: torch.zeros(2)), GOOD), r"training item 0 is a Tensor: must be a pair"),
        ((Items(lambda number: (1, 2, 3)), GOOD), r"training item 0 is a tuple of 3: must be a pair"),
        ((GOOD, Items(lambda number: (torch.zeros(2 + (number == 3)), 0))),
         r"test item 3 is \(float32 \(3,\), int64 \(\)\), and the first is \(float32 \(2,\), int64 \(\)\): all must"),
        ((Items(lambda number: [][number]), GOOD), r"training item 0: its __getitem__ failed: IndexError: list index"),
        ((Items(lambda number: (Image.new("P", (2, 2)), 0)), GOOD), r"training item 0 is a picture of mode P: must be"),
        ((Items(lambda number: (torch.zeros(3, 2, 2, dtype=torch.uint8), 0)), GOOD),
         r"training inputs are uint8 images and test inputs are no uint8 images: must be alike"),
        (([(torch.zeros(2), 0), (torch.zeros(3), 0)], GOOD), r"training item 1 is \(float32 \(3,\)"),
        (([], GOOD), r"the training list has no item"),
        ((GOOD, (torch.zeros(0, 2), torch.zeros(0).long())), r"the test part has no example"),
        ((GOOD, (torch.tensor(1.0), torch.tensor(1))), r"the test part holds a number alone: must be tensors"),
        ((GOOD, (None, torch.zeros(3))), r"the test part holds no inputs"),
        ((GOOD, ([1.0, 2.0], [0, 1])), r"inputs are a list without a tensor"),
        ((GOOD, np.zeros((3, 2))), r"test item 0 is a ndarray: must be a pair"),
        ((GOOD, Items(lambda number: ("word", 0))), r"inputs are a list without a tensor"),
        ((GOOD, Items(lambda number: (np.array(["a"]), 0))), r"test item 0 holds an array of type <U1: must be of"),
        ((GOOD, Items(lambda number: (np.array([None]), 0))), r"test item 0 holds an array of type object"),
        ((GOOD, Items(lambda number: (torch.eye(2).to_sparse(), 0))), r"test item 0 holds a sparse_coo float32 tensor"),
        ((GOOD, Items(lambda number: (torch.zeros(2), 2**70))), r"test item 0 holds the number 11805.*64 bits at most"),
        ((GOOD, Items(lambda number: (torch.zeros(2), lambda: 0))), r"test items cannot be sent from the process"),
        ((GOOD, Items(lambda number: sys.exit(3))), r"test item 0: its __getitem__ failed: SystemExit: 3; every"),
        ((GOOD, Items(interrupted)), r"test item 0: its __getitem__ failed: KeyboardInterrupt; every"),
    ],
)  # fmt: skip
def test_data_of_another_form_is_one_line(data, message):
    with pytest.raises(DataError, match=message) as error:
        own_splits(data, None, 1)
    assert "\n" not in str(error.value)


def test_what_comes_late_names_its_item():
    def item(number):
        return torch.zeros(3 if number == 30 else 2), 5 if number == 20 else 0

    train = splits(item, 40, num_classes=3).train
    train.part(slice(0, 20))
    with pytest.raises(DataError, match=r"training item 20 has the label 5: must lie in 0..2; .*data.classes=N"):
        train.part(slice(10, 25))
    with pytest.raises(DataError, match=r"training item 30 is \(float32 \(3,\)"):
        train.part(slice(25, 40))


MASKS = torch.zeros(300, 2, 2, dtype=torch.uint8)
VECTORS = torch.zeros(300, 3)


@pytest.mark.parametrize(
    ("task", "targets", "place", "wrong", "message"),
    [
        ("classification", torch.zeros(300).long(), 290, -1, r"item 290 has the label -1: must lie in 0..2; mend it"),
        ("segmentation", MASKS, (290, 1, 1), 3, r"item 290 has the label 3: must lie in 0..2, or be 255 for none"),
        ("segmentation", MASKS.to(torch.int16), (290, 1, 1), -1, r"item 290 has the label -1: must lie in 0..2, or be"),
        ("multilabel", VECTORS, (290, 1), 0.5, r"item 290 has the label 0.5: must be 0 or 1, or 255 for neither"),
    ],
)
@pytest.mark.parametrize("drawn", [False, True])
def test_labels_that_are_no_class_are_named_wherever_they_lie(task, targets, place, wrong, message, drawn):
    """Without a word, such a pixel would be background (binary, dice), or another pair of classes in the scores."""
    targets = targets.clone()
    if task != "classification":
        targets[5] = 255
    inputs = torch.zeros(300, 2)

    def opened():
        part = Items(lambda number: (inputs[number], targets[number]), 300) if drawn else (inputs, targets)
        data = (((torch.zeros(9, 2), targets[:9])), part)
        return own_splits(data, 3, 1, task).test.part(slice(0, 300))

    opened()
    targets[place] = wrong
    with pytest.raises(DataError, match=f"data: test {message}"):
        opened()
    own_splits(((inputs, targets), (inputs, targets)), 3, 1, "a task of one's own")


class Ten(Items):
    """A Dataset that says its number of classes."""

    classes = 10


class Said(Items):
    """A Dataset with a method of that name."""

    def classes(self):
        return 10


def test_classes_are_taken_from_the_dataset_or_said():
    number = GOOD.function
    assert own_splits((Ten(number), GOOD), None, 1).num_classes == 10
    assert own_splits((Said(number), GOOD), None, 1).num_classes == 0
    points = Points(20)
    assert own_splits((Subset(points, [1, 2]), points), None, 1).num_classes == 2
    assert splits(lambda number: (torch.zeros(2), 0)).num_classes == 0
    net = torch.nn.Linear(2, 3)
    with pytest.raises(batchscale.UsageError, match=r"does not tell how many classes .* data.classes=N"):
        batchscale.train("own", ["minibatch={workers: 1, per_worker: 2}"], model=net, data=(GOOD, GOOD), quiet=True)
    with pytest.raises(DataError, match="a Dataset of one's own augments its items itself"):
        load_data(load_recipe("own", ["data.augment.flip=true"]), None, (Items(
            lambda number: (torch.zeros(3, 2, 2, dtype=torch.uint8), 0)),) * 2)  # fmt: skip
