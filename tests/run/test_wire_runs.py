"""Runs whose gradients are sent in 16 bits: one set of weights on all processes, and where that has no place."""

import pytest
from support.dues import after, stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.errors import ExactnessError, RecipeError
from batchscale.recipe import recipe_from
from batchscale.recipe.load import identity
from batchscale.records import read_result
from batchscale.records.files import read_lines
from batchscale.run.run import Stopped
from batchscale.training.checkpoint import tensors_sha256
from batchscale.training.due import DUES

FIXED = ("numerics.micro_batch=8", "execution.checkpoint_seconds=1000")


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*FIXED, *overrides], data=data, out=out, quiet=True, **kwargs)


def watched(rank, data, out, overrides, stop=None, resume="no"):
    """The weights' hashes that all processes hold after every step, and what the end of the run holds."""
    hashes = []

    def gather(course):
        mine = tensors_sha256(course.parts.model.state_dict())
        hashes.append(course.parts.world.gather(mine))

    for step in range(1, 12):
        DUES[f"gather {step}"] = after(step, gather)
    if stop is not None:
        DUES["stop"] = stop_after(stop)
    try:
        result = train(data, out, *overrides, resume=resume)
    except Stopped:
        return hashes, None
    return hashes, (result.weights_sha256, result.train_loss)


@pytest.mark.parametrize(
    ("processes", "wire", "algorithm"), [(2, "bf16", "shared_memory"), (2, "fp16", "auto"), (3, "bf16", "ring")]
)
def test_all_processes_hold_the_same_weights_after_every_step(data, tmp_path, processes, wire, algorithm):
    """And nearly those of a run that sends float32; the losses of its lines, too."""
    overrides = (f"numerics.wire={wire}", f"execution.aggregation.algorithm={algorithm}")
    outcomes = in_processes(processes, watched, data, tmp_path / "run", overrides)
    for hashes, ended in outcomes:
        assert len(hashes) == 11
        assert all(len(set(ranks)) == 1 for ranks in hashes)
        assert ended == outcomes[0][1]
    straight = train(data, tmp_path / "straight")
    assert read_result(tmp_path / "run").weights_sha256 != straight.weights_sha256
    losses, expected = (
        [line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")] for name in ("run", "straight")
    )
    assert losses == pytest.approx(expected, rel=2e-2)


def test_a_stop_and_a_resume_change_no_bit_of_a_run_in_bfloat16(data, tmp_path):
    overrides = ("numerics.wire=bf16", "execution.aggregation.algorithm=shared_memory")
    (whole, ended), _ = in_processes(2, watched, data, tmp_path / "whole", overrides)
    (first, _), _ = in_processes(2, watched, data, tmp_path / "run", overrides, 5)
    (second, again), _ = in_processes(2, watched, data, tmp_path / "run", overrides, None, "yes")
    assert again == ended
    assert [*first, *second] == whole


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_one_process_sends_nothing(data, tmp_path, wire):
    assert train(data, None, f"numerics.wire={wire}").weights_sha256 == train(data, None).weights_sha256


@pytest.mark.parametrize(
    ("override", "error", "sentence"),
    [
        ("numerics.exact=true", ExactnessError, "exact sums round nothing between processes; use numerics.wire=fp32"),
        ("precision=fp64", RecipeError, "only gradients of float32 are sent in 16 bits; use numerics.wire=fp32"),
    ],
)
def test_where_it_has_no_place_one_line_says_so(data, tmp_path, override, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        train(data, tmp_path / "run", "numerics.wire=bf16", override)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_it_is_no_part_of_what_is_trained():
    plain, narrow = (identity(recipe_from(RECIPE, overrides)) for overrides in ((), ("numerics.wire=fp16",)))
    assert plain == narrow
