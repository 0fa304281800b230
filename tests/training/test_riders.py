"""The riders of every run: a task's counts are exact, however many pixels a step has."""

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.task import Classification
from batchscale.training.riders import counts_of

LARGE = (1 << 36) + 1


class Pixelwise(Classification):
    """Counts as of very many pixels: of a pass 2^36 + 1, its wrong images, and a number below zero."""

    training_counts, largest_count = 3, None

    def __init__(self):
        super().__init__(4)
        self.lines = []

    def counts(self, outputs, targets):
        return torch.cat([torch.tensor([LARGE]), super().counts(outputs, targets), torch.tensor([-5])])

    def training_scores(self, counts, examples):
        self.lines.append(list(counts))
        return {}

    def evaluate_pass(self, model, inputs, targets):
        return Classification(4).evaluate_pass(model, inputs, targets)


def train(rank, data, mode):
    task = Pixelwise()
    fixed = ["numerics.micro_batch=8", "epochs=1", "execution.log_steps=2"]
    batchscale.train(RECIPE, [*fixed, mode], data=data, task=task, quiet=True)
    return task.lines


@pytest.mark.parametrize("mode", ["numerics.exact=true", "numerics.exact=false"])
@pytest.mark.parametrize("processes", [1, 2])
def test_counts_of_a_line_are_exact_far_beyond_what_a_float_holds(data, mode, processes):
    everyones = in_processes(processes, train, data, mode) if processes > 1 else [train(0, data, mode)]
    for lines in everyones:  # 2 lines of 2 steps of 4 passes
        assert [(large, negative) for large, _, negative in lines] == [(8 * LARGE, -40)] * 2
        assert all(0 < wrong < 64 for _, wrong, _ in lines)


def test_counts_come_back_from_their_digits():
    assert counts_of((1.0, 4096.0, 0.0, 2.0, 3.0, 0.0), 2) == [1 + (3 << 24), 4096 + (2 << 12)]
    assert counts_of((), 0) == []
    assert counts_of((7.0, 8.0), 2) == [7, 8]
