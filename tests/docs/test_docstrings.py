"""The examples in public docstrings run, and give what they say."""

import doctest
import io

import pytest
from support.worlds import in_processes

import batchscale

WITH_EXAMPLES = {
    "Dataset", "LARS", "Minibatch", "NoiseScale", "Reducer", "SGD", "Schedule", "StepPlan", "ddp_hook", "decay_groups",
    "place_workers", "scaled_lr", "train",
}  # fmt: skip


def examples_of(name: str) -> list[doctest.Example]:
    """Those in the docstring of a public name."""
    return doctest.DocTestParser().get_examples(getattr(batchscale, name).__doc__ or "")


def failures(rank: int, names: list[str]) -> dict[str, str]:
    """What each name's examples gave in place of what they say."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    shown = {}
    for name in names:
        variables = {"batchscale": batchscale, "torch": torch, "dist": dist}
        variables["DistributedDataParallel"] = DistributedDataParallel
        test = doctest.DocTest(examples_of(name), variables, name, None, 0, None)
        output = io.StringIO()
        doctest.DocTestRunner(verbose=False).run(test, out=output.write)
        if output.getvalue():
            shown[name] = output.getvalue()
    return shown


def test_what_should_have_examples_has_them():
    assert {name for name in batchscale.__all__ if examples_of(name)} == WITH_EXAMPLES


def test_examples_give_what_they_say():
    assert in_processes(1, failures, sorted(WITH_EXAMPLES)) == [{}]


def test_an_example_that_is_wrong_is_told(monkeypatch):
    monkeypatch.setattr(batchscale.Minibatch, "__doc__", ">>> batchscale.Minibatch(2, 3).images\n7\n")
    assert "Expected:\n    7\nGot:\n    6" in failures(0, ["Minibatch"])["Minibatch"]
    with pytest.raises(KeyError):
        failures(0, ["scaled_lr"])["scaled_lr"]
