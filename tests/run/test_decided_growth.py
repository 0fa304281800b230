"""A minibatch that grows by decisions of a measure: one run for every W, over stops, branches and read-ahead."""

import itertools
import json
from fractions import Fraction

import pytest
from support.deciders import deciding
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.data.examples import TensorExamples
from batchscale.errors import RecipeError
from batchscale.run.run import Stopped
from batchscale.training import checkpoint as checkpoints
from batchscale.training import progress
from batchscale.training.due import DUES

GROWTH = "growth: {kind: noise_scale, largest: 64, every_examples: 48, measure_steps: 1, confirm: 1, delay_steps: 4}"
GROWING = (f"minibatch={{workers: 3, per_worker: 5, {GROWTH}}}", "epochs=6", "learning_rate.decay.end=6")
EXACT = ("numerics.exact=true",)
FAST = ("numerics.micro_batch=5",)


def train(data, out, *overrides, **kwargs):
    with deciding():
        return batchscale.train(RECIPE, [*GROWING, *overrides], data=data, out=out, quiet=True, **kwargs)


def ending(rank, data, out, overrides, kwargs):
    """What a run on this process ends with, its decisions among it."""
    result = train(data, out, *overrides, **kwargs)
    return result.weights_sha256, result.test_loss, result.steps, result.model_dump()["decisions"]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run on one process, and its folder."""
    out = tmp_path_factory.mktemp("growing") / "run"
    return out, train(data, out, *EXACT, "execution.keep_checkpoints={steps: [8], epochs: [2, 3.5]}")


def test_decisions_are_taken_from_the_recorded_losses_and_take_effect_behind_the_read_ahead(straight):
    """Every decision by hand from metrics.jsonl, one line a step."""
    out, result = straight
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    sizes = [json.loads(line)["minibatch"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    decisions, last, first_steps = result.model_dump()["decisions"], 0, []
    for row in decisions:
        noted = losses[last : row["step"]]
        assert row["noted"] == len(noted)
        assert row["mean_loss"] == sum(noted) / len(noted)
        assert row["passes"] == (row["mean_loss"] < 1.0)
        assert sum(sizes[: row["step"]]) // 48 > sum(sizes[: row["step"] - 1]) // 48
        last = row["step"]
        if row["first_step"] is not None:
            assert row["first_step"] == row["step"] + 4
            first_steps.append(row["first_step"])
    assert first_steps == [step for step in range(1, len(sizes)) if sizes[step] != sizes[step - 1]]
    assert [p["step"] for p in result.phases] == [0, *first_steps]
    assert sorted(set(sizes)) == [15, 30, 60]
    assert not decisions[0]["passes"]
    assert sum(sizes[:-1]) < 6 * 110 <= sum(sizes)
    assert len(sizes) == result.steps < 44


def test_a_run_that_decides_is_the_run_whose_recipe_states_those_phases(data, straight):
    _, result = straight
    steps = [(p["step"], p["workers"]) for p in result.phases]
    images, phases = 0, []
    for (before, k), (step, workers) in itertools.pairwise(steps):
        images += (step - before) * k * 5
        phases.append(f"{{epoch: {float(Fraction(images, 110)) - 1e-6}, workers: {workers}}}")
    stated = f"minibatch={{workers: 3, per_worker: 5, growth: {{kind: phases, phases: [{', '.join(phases)}]}}}}"
    other = batchscale.train(RECIPE, [*GROWING, stated, *EXACT], data=data, quiet=True)
    assert (other.weights_sha256, other.test_loss) == (result.weights_sha256, result.test_loss)


def test_exact_runs_that_decide_end_with_the_same_bits_for_every_number_of_processes(data, straight):
    alone = ending(0, data, None, EXACT, {})
    assert alone[0] == straight[1].weights_sha256
    for processes in (2, 3):
        assert in_processes(processes, ending, data, None, EXACT, {}) == [alone] * processes


@pytest.mark.parametrize("overrides", [EXACT, FAST], ids=["exact", "fast"])
def test_a_stop_at_any_place_of_a_decision_loses_none(data, straight, tmp_path, monkeypatch, overrides):
    """Before a decision with losses noted, at it, and between it and what it changes; then on other processes."""
    result = straight[1] if overrides == EXACT else train(data, None, *overrides)
    decided = next(row["step"] for row in result.model_dump()["decisions"] if row["first_step"])
    for stop in (decided - 1, decided, decided + 2, decided + 4, decided + 5):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped, match=f"after step {stop};"):
            train(data, tmp_path / "run", *overrides, resume="auto")
        monkeypatch.undo()
    processes = 2 if overrides == EXACT else 1
    again = in_processes(processes, ending, data, tmp_path / "run", overrides, {"resume": "yes"})[0]
    assert again[0] == result.weights_sha256
    assert again[2:] == (result.steps, result.model_dump()["decisions"])


def test_a_feed_that_reads_on_as_far_as_it_may_changes_nothing(data, straight, monkeypatch):
    monkeypatch.setattr(TensorExamples, "steps_ahead", 3)
    assert train(data, None, *EXACT).weights_sha256 == straight[1].weights_sha256


def test_checkpoints_of_epochs_stay_where_the_decided_steps_reach_them(straight):
    out, _ = straight
    sizes = [json.loads(line)["minibatch"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    reached = [next(s for s in range(99) if sum(sizes[:s]) >= epoch * 110) for epoch in (2, 3.5)]
    kept = {checkpoints.steps_of(folder) for folder in checkpoints.folders(out)}
    assert {8, *reached} <= kept
    assert len(kept) <= 5


@pytest.mark.parametrize("at", [8, "epoch 2"])
def test_a_branch_goes_on_deciding_where_its_trunk_would(data, straight, tmp_path, monkeypatch, at):
    out, result = straight
    steps = sorted(checkpoints.steps_of(folder) for folder in checkpoints.folders(out))
    at = at if at == 8 else steps[1]
    branch = train(data, tmp_path / "branch", *EXACT, branch=out, at=at)
    assert (branch.weights_sha256, branch.steps) == (result.weights_sha256, result.steps)
    assert branch.model_dump()["decisions"] == result.model_dump()["decisions"]
    monkeypatch.setitem(DUES, "stop", stop_after(at + 2))
    with pytest.raises(Stopped):
        train(data, tmp_path / "stopped", *EXACT, branch=out, at=at)
    monkeypatch.undo()
    again = train(data, tmp_path / "stopped", *EXACT, resume="yes")
    assert (again.weights_sha256, again.model_dump()["decisions"]) == (
        result.weights_sha256,
        result.model_dump()["decisions"],
    )


@pytest.mark.parametrize(("kept", "workers"), [(0, 6), (2, 3)])
def test_a_branch_without_growth_keeps_what_its_trunk_had_decided(data, straight, tmp_path, kept, workers):
    """Its minibatch is f times the trunk's where it begins, 2 x 15 or 1 x 60, and stays."""
    out, _ = straight
    step = sorted(checkpoints.steps_of(folder) for folder in checkpoints.folders(out))[kept]
    without = f"minibatch={{workers: {workers}, per_worker: 5, growth: {{kind: none}}}}"
    branch = train(data, tmp_path / "branch", *EXACT, without, branch=out, at=step)
    lines = [json.loads(line) for line in (tmp_path / "branch" / "metrics.jsonl").read_text().splitlines()]
    assert {line["minibatch"] for line in lines} == {30 if kept == 0 else 60}
    assert "decisions" not in branch.model_dump()


def test_a_checkpoint_holds_the_decisions_and_the_recipe_does_not(straight):
    out, _ = straight
    state = checkpoints.load(checkpoints.folder_of(out, 8, "step")).totals["growth"]
    assert [row["step"] for row in state["decisions"]] == [4, 7]
    assert len(state["decider"]["losses"]) == 1
    assert "decisions" not in (out / "recipe.yaml").read_text()


def test_progress_says_at_most_until_the_steps_are_certain(data, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with deciding():
        steps = batchscale.train(RECIPE, GROWING, data=data, out=None).steps
    printed = capsys.readouterr().err
    assert "step 3 of at most 44  " in printed
    assert f"step {steps}/{steps}  " in printed
    assert "= at most 44" in printed
    assert "at most 60 images" in printed
    assert "minibatch 15 -> 30 from step " in printed


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("minibatch.growth.largest=29",), r"growth.largest=29: must be at least twice the first minibatch, 3 x 5"),
        (("minibatch.growth.multiple=0",), r"minibatch.growth.multiple=0"),
        (("minibatch.growth.delay_steps=3",), r"minibatch.growth.delay_steps=3"),
        (("minibatch.workers=1",), r"growth.kind=noise_scale with minibatch.workers=1: .* use minibatch.workers=2"),
        (("minibatch.workers=4", "batch_norm.span=2"), r"growth.kind=noise_scale with batch_norm.span=2: .*span=1"),
        (("execution.noise_scale_steps=3",), r"noise_scale_steps=3 with minibatch.growth.kind=noise_scale: .*leave"),
        (("minibatch.growth.measure_steps=2",), r"every_examples=48: holds fewer than 2 steps of 30 .* at least 60"),
        # kappa (1 - beta1) is 0.28 at the first minibatch, and would be 1.125 at the largest
        (("optimizer={name: adamw, beta1: 0.4}", "learning_rate.scaling=adam_sde"), r"at kn = 60: .*beta1"),
        (("minibatch.growth={kind: noise_scale}",), r"minibatch.growth.largest"),
        (("minibatch.growth.largest=111",), r"growth.largest=111: must not exceed the 110 training images"),
        (("data.partial=drop",), r"kind=noise_scale with data.partial=drop: .*use data.partial=carry"),
        (("minibatch.growth.every_examples=700",), r"the first decision, 700 images into the run, takes effect after"),
    ],
)
def test_bad_input_is_one_line(data, overrides, line):
    with pytest.raises(RecipeError, match=line) as error:
        train(data, None, *overrides)
    assert "\n" not in str(error.value)


NOISE = (
    "minibatch={workers: 3, per_worker: 5, growth: "
    "{kind: noise_scale, largest: 60, every_examples: 80, measure_steps: 2, confirm: 1, delay_steps: 4, multiple: 1}}",
    "epochs=6",
    "learning_rate={reference: 0.02, reference_minibatch: 32, scaling: sqrt, decay: {kind: cosine}}",
)


def measured(rank, data, out, overrides, kwargs):
    result = batchscale.train(RECIPE, [*NOISE, *EXACT, *overrides], data=data, out=out, quiet=True, **kwargs)
    return result.weights_sha256, result.steps, result.model_dump()["decisions"]


def test_growth_by_the_noise_scale_decides_alike_for_every_number_of_processes_and_over_a_stop(
    data, tmp_path, monkeypatch
):
    alone = measured(0, data, tmp_path / "alone", (), {})
    for processes in (2, 3):
        assert in_processes(processes, measured, data, None, (), {}) == [alone] * processes
    grown = [row for row in alone[2] if row["first_step"]]
    assert grown
    lines = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    last = 0
    for row in alone[2]:  # by hand from the lines, one a step, which the rider wrote
        steps = [line for line in lines[last : row["step"]] if line.get("noise_steps")]
        means = [sum(line[name] for line in steps) / len(steps) for name in ("gradient_squared", "trace")]
        assert [row["gradient_squared"], row["trace"]] == pytest.approx(means, rel=1e-12)
        assert [line["step"] for line in steps] == [step for step in range(last + 1, row["step"] + 1) if step % 2 == 0]
        assert row["passes"] == (means[1] > row["minibatch"] * means[0])
        assert row["noise_scale"] == (pytest.approx(means[1] / means[0]) if means[0] > 0 else None)
        last = row["step"]
    for stop in (grown[0]["step"] - 1, grown[0]["step"] + 1):
        monkeypatch.setitem(DUES, "stop", stop_after(stop))
        with pytest.raises(Stopped):
            measured(0, data, tmp_path / "run", (), {"resume": "auto"})
        monkeypatch.undo()
    assert in_processes(2, measured, data, tmp_path / "run", (), {"resume": "yes"}) == [alone] * 2
