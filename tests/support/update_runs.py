"""The same small run over two epochs, tested on images that it trains on."""

import pytest
import torch

import batchscale
from support.runs import RECIPE


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (110,), generator=generator)
    images = torch.randint(0, 120, (110, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 2 * label : 2 * label + 2] += 100
    return batchscale.Dataset("own", images, labels, images[:40], labels[:40], 4)


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, ["epochs=2", *overrides], data=data, out=out, quiet=True, **kwargs)
