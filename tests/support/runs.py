"""A small run in this process, its data; a model that draws random numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import batchscale

RECIPE = {
    "data": {"name": "own"},
    "model": {"name": "cnn"},
    "minibatch": {"workers": 4, "per_worker": 8},
    "epochs": 3,
    "learning_rate": {
        "reference": 0.05,
        "reference_minibatch": 32,
        "warmup": {"kind": "gradual", "steps": 3},
        "decay": {"kind": "cosine"},
    },
    "numerics": {"threads": 1, "evaluation_chunk": 16},
    "execution": {"device": "cpu", "log_steps": 1},
}


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (150,), generator=generator)
    images = torch.randint(0, 120, (150, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 2 * label : 2 * label + 2] += 100
    return batchscale.Dataset("own", images[:110], labels[:110], images[110:], labels[110:], 4)


def train(data, out=None, *overrides, **kwargs):
    return batchscale.train(RECIPE, overrides, data=data, out=out, quiet=True, **kwargs)


class Dropping(nn.Module):
    """Draws random numbers without a module that says so."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(F.dropout(x.flatten(1), 0.3, self.training))
