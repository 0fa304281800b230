"""The order of the images and what is cut out of them: statistics of the shuffle, crops against torchvision's."""

import math

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import TensorExamples
from batchscale.data.folders.views import DRAWS, scale_and_aspect
from batchscale.randomness import key, shuffled, uniform

EPOCHS = 6
N = 50_000


def order(epoch, size=N, seed=0):
    """Of an epoch, as the feed asks for it: stream 0 of the run's keys."""
    return shuffled(key(seed, epoch, 0), np.arange(size), size)


def excess(table):
    """Chi-square of a table with equal expectations, in standard deviations above its mean."""
    expected, freedom = table.sum() / table.size, (table.shape[0] - 1) * (table.shape[1] - 1)
    return (((table - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def counted(a, b, bins=32):
    return np.histogram2d(a, b, bins=bins, range=((0, N), (0, N)))[0]


def test_an_epoch_of_imagenet_holds_every_image_once():
    seen = np.zeros(1_281_167, dtype=np.int64)
    seen[order(3, len(seen))] += 1
    assert seen.min() == 1


def test_every_place_of_an_epoch_gets_every_part_of_the_images_alike():
    """Place against image, 32 x 32 boxes: six standard deviations of chi-square, each epoch, and all together."""
    tables = [counted(np.arange(N), order(epoch)) for epoch in range(EPOCHS)]
    assert all(abs(excess(table)) < 6 for table in tables)
    assert abs(excess(sum(tables))) < 6


def test_epochs_know_nothing_of_each_other():
    orders = [order(epoch) for epoch in range(EPOCHS)]
    places = [np.argsort(each) for each in orders]
    for i in range(EPOCHS):
        for j in range(i):
            assert abs(np.corrcoef(places[i], places[j])[0, 1]) < 6 / math.sqrt(N)
            assert abs(excess(counted(places[i], places[j]))) < 6
            assert (orders[i] == orders[j]).sum() < 12  # images at one place in both: Poisson of mean 1
            assert (np.diff(places[i]) == np.diff(places[j])).sum() < 14  # neighbours that stay so far apart
    assert (np.diff(orders[0]) == 1).sum() < 12  # pairs of the stored order that stay together


def test_seeds_know_nothing_of_each_other():
    first, second = np.argsort(order(0, seed=0)), np.argsort(order(0, seed=1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / math.sqrt(N)
    assert abs(excess(counted(first, second))) < 6


def test_areas_and_aspects_of_training_crops_are_torchvision_s():
    """Two samples of 4,000 a size of image: Kolmogorov and Smirnov's distance, which 0.06 exceeds once in 10^6."""
    torch.manual_seed(1)
    draws = uniform(key(1), np.arange(4000 * DRAWS)).reshape(4000, DRAWS)
    for height, width in ((375, 500), (200, 900), (900, 100)):
        ours = np.array([(v.height, v.width) for v in (scale_and_aspect(d, height, width, 8) for d in draws)])
        blank = torch.empty(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(blank, [0.08, 1], [3 / 4, 4 / 3])[2:] for _ in range(4000)])
        for measure in (lambda hw: hw[:, 0] * hw[:, 1], lambda hw: hw[:, 1] / hw[:, 0]):
            assert distance(measure(ours), measure(theirs)) < 0.06


def distance(a, b):
    values = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (a, b)]
    return np.abs(shares[0] - shares[1]).max()


def test_a_padded_crop_is_torchvision_s_at_one_place_and_all_places_are_alike():
    padding, size = 4, 8
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, size, size), generator=generator, dtype=torch.uint8)
    count = 2 * padding + 1
    cuts = {}  # the bytes of a view -> (top, left, mirrored)
    padded = F.pad(image[0], [padding] * 4)
    for top in range(count):
        for left in range(count):
            cut = F.crop(padded, top, left, size, size)
            cuts[cut.numpy().tobytes()], cuts[F.hflip(cut).numpy().tobytes()] = (top, left, 0), (top, left, 1)
    assert len(cuts) == 2 * count**2
    draws = 16_200  # 100 of each view
    images = TensorExamples(image.expand(draws, -1, -1, -1).contiguous(), torch.zeros(draws, dtype=torch.int64))
    make = images.augmented(5, Augmentation(flip=True, padding=padding))
    pixels, _ = make(np.full(draws, 2), np.arange(draws))
    seen = np.zeros((count, count, 2))
    for view in pixels:
        seen[cuts[view.numpy().tobytes()]] += 1
    chi_square = ((seen - 100) ** 2 / 100).sum()
    assert abs(chi_square - 161) < 6 * math.sqrt(2 * 161)
