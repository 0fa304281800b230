"""The feed: which images meet in a step, and their augmentation, whatever k, n and W."""

import numpy as np
import pytest
import torch
from support.feeds import N, feed, images

from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Normalizer
from batchscale.placement import place_workers


def stream(workers, per_worker, processes, steps, **kwargs):
    """(labels, pixels) of the first steps, all processes' parts joined in worker order."""
    parts = [feed(workers, per_worker, r, **kwargs) for r in place_workers(workers, processes)]
    labels, pixels = [], []
    for step in range(steps):
        for part in parts:
            for batch in part.passes(step):
                labels.append(batch.targets)
                pixels.append(batch.inputs)
    for part in parts:
        part.close()
    return torch.cat(labels), torch.cat(pixels)


AUGMENTED = Augmentation(flip=True, padding=2)


@pytest.mark.parametrize(
    ("workers", "per_worker", "processes"), [(8, 3, 3), (4, 6, 2), (2, 12, 1), (24, 1, 5), (3, 8, 3)]
)
def test_the_same_images_augmented_the_same_way_whatever_k_n_and_w(workers, per_worker, processes):
    labels, pixels = stream(1, 24, 1, 10, augmentation=AUGMENTED)
    other_labels, other_pixels = stream(workers, per_worker, processes, 10, augmentation=AUGMENTED)
    assert torch.equal(labels, other_labels)
    assert torch.equal(pixels, other_pixels)


def test_every_epoch_shows_every_image_once_in_another_order():
    labels, _ = stream(2, 10, 1, 15)
    first, second = labels[:N], labels[N : 2 * N]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(N))
    assert not torch.equal(first, second)


def test_dropping_begins_every_epoch_anew():
    labels, _ = stream(2, 10, 1, 10, partial="drop")
    carried, _ = stream(2, 10, 1, 10)
    assert len(set(labels[:100].tolist())) == 100
    assert torch.equal(labels[:100], carried[:100])
    assert torch.equal(labels[100:200], carried[N : N + 97].new_tensor(stream(2, 10, 1, 15)[0][N : N + 100].tolist()))


def test_seeds_shuffle_differently():
    assert not torch.equal(stream(2, 10, 1, 3, seed=3)[0], stream(2, 10, 1, 3, seed=4)[0])


def test_augmentation_is_what_it_says():
    raw = images().float()
    labels, pixels = stream(2, 10, 1, 15, augmentation=Augmentation(flip=True))
    flipped = [torch.equal(p, raw[i].flip(-1)) for i, p in zip(labels.tolist(), pixels, strict=True)]
    kept = [torch.equal(p, raw[i]) for i, p in zip(labels.tolist(), pixels, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 0.4 < np.mean(flipped) < 0.6
    labels, pixels = stream(2, 10, 1, 15, augmentation=Augmentation(padding=2))
    padded = torch.nn.functional.pad(raw, [2] * 4)
    offsets = set()
    for i, p in zip(labels.tolist(), pixels, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[i, :, y : y + 6, x : x + 6], p)]
        assert places
        offsets.update(places)
    assert len(offsets) == 25


def test_an_image_is_augmented_differently_in_another_epoch():
    labels, pixels = stream(2, 10, 1, 15, augmentation=AUGMENTED)
    by_epoch = [dict(zip(labels[e : e + N].tolist(), pixels[e : e + N], strict=True)) for e in (0, N)]
    same = [torch.equal(by_epoch[0][i], by_epoch[1][i]) for i in range(N)]
    assert np.mean(same) < 0.2


def test_any_step_may_be_asked_for_and_passes_hold_whole_workers():
    part = feed(8, 3, range(1, 6), pass_workers=2)
    batches = part.passes(4)
    assert [len(b.targets) for b in batches] == [6, 6, 3]
    again = feed(8, 3, range(1, 6), pass_workers=5).passes(4)
    assert torch.equal(torch.cat([b.inputs for b in batches]), again[0].inputs)
    after = part.passes(5)
    assert torch.equal(after[0].targets, feed(8, 3, range(1, 6), pass_workers=2).passes(5)[0].targets)


def test_normalisation_is_per_channel_and_exact_on_any_slice():
    x = torch.randint(0, 256, (50, 3, 5, 5), dtype=torch.uint8)
    normalize = Normalizer([10.0, 20.0, 30.0], [2.0, 3.0, 7.0], torch.float32, torch.channels_last, torch.device("cpu"))
    whole = normalize(x)
    expected = (x.double() - torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)) / torch.tensor([2.0, 3, 7]).view(1, 3, 1, 1)
    torch.testing.assert_close(whole.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(torch.cat([normalize(x[:7]), normalize(x[7:])]), whole)
    floats = torch.randn(4, 9)
    assert torch.equal(normalize(floats), floats)


class Watching(TensorExamples):
    """Notes with how many threads each minibatch is made."""

    def augmented(self, seed, augmentation):
        gather, self.threads = super().augmented(seed, augmentation), []
        return lambda *drawn: (self.threads.append(torch.get_num_threads()), gather(*drawn))[1]


def test_threads_that_make_minibatches_compute_alone_and_leave_the_others_theirs():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        watched = Watching(images(), torch.arange(N))
        part = feed(4, 5, range(4), kind=lambda *_: watched)
        for step in range(4):
            part.passes(step)
        part.close()
        assert watched.threads[0] == 3  # the first step, which nobody was asked to make in advance
        assert set(watched.threads[1:]) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
