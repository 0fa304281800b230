"""The loop: what is due after a step, and a step's values read late."""

import json

import pytest
import torch
from support.runs import RECIPE
from support.runs import data as data
from torch import nn

import batchscale
from batchscale.aggregate.riders import Rider, Riders
from batchscale.build.assembly import RIDERS
from batchscale.data.feed import Feed
from batchscale.errors import DataError, RecipeError
from batchscale.minibatch import StepPlan
from batchscale.run import run as runs
from batchscale.task import Classification
from batchscale.training import checkpoint as checkpoints
from batchscale.training.due import DUES, line_names
from batchscale.training.loop import Loop

FIXED = ("numerics.micro_batch=8",)


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, [*FIXED, *overrides], data=data, out=out, quiet=True, **kwargs)


def lines(out, name="metrics.jsonl"):
    timed = ("images_per_second", "phase_seconds")
    return [
        {key: value for key, value in json.loads(line).items() if key not in timed}
        for line in (out / name).read_text().splitlines()
    ]


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("overrides", [(), ("execution.log_steps=4", "execution.evaluation_steps=3")])
def test_values_read_late_make_the_same_run(data, tmp_path, monkeypatch, lag, overrides):
    """Weights, lines and evaluations are the same: whatever is due finds every step before it counted."""
    straight = train(data, tmp_path / "straight", *overrides)
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=lag))
    late = train(data, tmp_path / "late", *overrides)
    assert late.weights_sha256 == straight.weights_sha256
    assert late.train_loss == straight.train_loss
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert lines(tmp_path / "late", name) == lines(tmp_path / "straight", name)


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_a_stop_acts_so_many_steps_later_and_loses_none(data, tmp_path, monkeypatch, lag):
    """The checkpoint of the stop counts every step that has run; the run goes on to the same lines."""
    every = ("execution.log_steps=100", "execution.checkpoint_seconds=1000")
    straight = train(data, tmp_path / "straight", *every)
    out = tmp_path / "run"
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=lag))
    monkeypatch.setattr(runs.StopSignals, "requested", asked_in_step(1))
    with pytest.raises(runs.Stopped, match=f"after step {2 + lag};"):
        train(data, out, *every)
    monkeypatch.undo()
    saved = checkpoints.load(checkpoints.folder_of(out, None, "step"))
    assert (saved.step, saved.totals["images"], saved.totals["line_steps"]) == (2 + lag, 32 * (2 + lag), 2 + lag)
    assert train(data, out, *every, resume="yes").weights_sha256 == straight.weights_sha256
    assert lines(out)[-1]["loss"] == pytest.approx(lines(tmp_path / "straight")[-1]["loss"], rel=1e-12)


def test_a_failure_between_steps_keeps_the_steps_that_are_yet_unread(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=2))
    passes = Feed.passes

    def failing(feed, step):
        if step == 3:
            raise DataError("unreadable")
        return passes(feed, step)

    monkeypatch.setattr(Feed, "passes", failing)
    with pytest.raises(DataError, match="unreadable"):
        train(data, tmp_path / "run", "execution.log_steps=100")
    saved = checkpoints.load(checkpoints.folder_of(tmp_path / "run", None, "step"))
    assert (saved.step, saved.totals["images"]) == (3, 96)


@pytest.mark.parametrize("fails", [False, True])
def test_no_checkpoint_is_written_past_a_divergence_that_is_yet_unread(data, tmp_path, monkeypatch, fails):
    """Neither by the clock of rank 0, nor where the feed fails right after it."""
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=2))
    passes = Feed.passes

    def failing(feed, step):
        if fails and step == 3:
            raise DataError("unreadable")
        return passes(feed, step)

    monkeypatch.setattr(Feed, "passes", failing)
    every = ("execution.log_steps=100", "execution.checkpoint_seconds=1e-9", "execution.evaluation_epochs=3")
    if fails:
        with pytest.raises(DataError, match="unreadable"):
            train(data, tmp_path / "run", *every, model=Bursting(2))
    else:
        assert train(data, tmp_path / "run", *every, model=Bursting(2)).diverged_at_step == 2
    assert checkpoints.steps_saved(tmp_path / "run") == 2


def asked_in_step(step):
    """Stands for a signal that comes while this step runs: the function is asked once a step."""
    calls = []

    def requested(signals):
        calls.append(0)
        signals.received = 15 if len(calls) > step else None
        return len(calls) > step

    return requested


class Bursting(nn.Module):
    """Its loss is not finite from a step on."""

    def __init__(self, step):
        super().__init__()
        self.linear, self.step, self.passes = nn.Linear(64, 4), step, 0

    def forward(self, images):
        self.passes += self.training
        outputs = self.linear(images.flatten(1))
        return outputs * float("nan") if self.passes > 4 * self.step + 1 else outputs  # 4 passes a step, and the probe


@pytest.mark.parametrize("lag", [0, 1])
def test_divergence_names_its_step_however_late_it_is_read(data, tmp_path, monkeypatch, lag):
    monkeypatch.setattr(runs, "Loop", lambda course: Loop(course, lag=lag))
    result = train(data, tmp_path / "run", model=Bursting(5))
    assert (result.status, result.diverged_at_step, result.steps) == ("diverged", 5, 5)


class Watching:
    """Due after every third step, after all else: notes what it finds."""

    together = True

    def __init__(self, seen):
        self.seen = seen

    def due(self, course):
        return course.steps_done % 3 == 0

    def act(self, course):
        self.seen.append((course.steps_done, len(course.totals.scores), course.totals.images))
        course.append("watched.jsonl", {"step": course.steps_done})


def test_one_more_thing_is_due_by_one_more_member(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setitem(DUES, "watching", lambda course: Watching(seen))
    train(data, tmp_path / "run")
    assert seen == [(3, 0, 96), (6, 1, 192), (9, 2, 288)]  # evaluations after steps 4 and 7
    assert [line["step"] for line in lines(tmp_path / "run", "watched.jsonl")] == [3, 6, 9]


class LabelSum(Rider):
    """A measure in training: the sum of the labels over all examples, and how many passes there were."""

    name = "labels"
    lengths = (1,)
    whole_numbers = 1

    def fill(self, sums, forward_pass):
        sums.real.add_(forward_pass.targets.sum())
        sums.whole.add_(1)


@pytest.mark.parametrize("exact", [False, True])
def test_one_more_number_of_a_step_is_one_more_rider(data, tmp_path, monkeypatch, exact):
    """It rides in the gradients' sum, changes no bit of the run, and its mean stands in every line under its name."""
    mode = ("numerics.exact=true",) if exact else ()
    straight = train(data, None, *mode)
    monkeypatch.setitem(RIDERS, "labels", lambda assembly: LabelSum())
    monkeypatch.setitem(RIDERS, "unused", lambda assembly: None)
    result = train(data, tmp_path / "run", *mode)
    assert result.weights_sha256 == straight.weights_sha256
    written = lines(tmp_path / "run")
    assert {line["labels"][1] for line in written} == {4.0}  # a pass a worker
    assert (
        sum(line["labels"][0] for line in written[:3])
        <= data.train_labels.sum()
        <= sum(line["labels"][0] for line in written[:4])
    )


@pytest.mark.parametrize("steps", [1, 4])
def test_a_measures_mean_over_the_steps_of_a_line_is_exact(data, tmp_path, monkeypatch, steps):
    """Of lines of any length: the mean over the whole run is the one of its single steps."""
    monkeypatch.setitem(RIDERS, "labels", lambda assembly: LabelSum())
    result = train(
        data, tmp_path / "run", f"execution.log_steps={steps}", "epochs=2"
    )  # 7 steps: the last line is short
    assert result.steps == 7
    written = lines(tmp_path / "run")
    sums = [line["labels"][0] * line["interval_steps"] for line in written]
    assert [line["interval_steps"] for line in written] == ([1] * 7 if steps == 1 else [4, 3])
    # Two epochs of 110 labels, and 4 examples of a third one that the last minibatch carries over to.
    carried = sum(sums) - 2 * int(data.train_labels.sum())
    assert carried == pytest.approx(round(carried), abs=1e-9)
    assert 0 <= round(carried) <= 4 * 3
    assert {line["labels"][1] for line in written} == {4.0}


class Poisoned(LabelSum):
    """A measure that is not finite in one pass of the fifth step."""

    name = "poisoned"

    def __init__(self, value):
        self.value = value

    def fill(self, sums, forward_pass):
        super().fill(sums, forward_pass)
        if (forward_pass.step, forward_pass.worker) == (4, 2):
            sums.real.fill_(self.value)

    def update(self, sums, minibatch):
        assert sums.real.isfinite().all() == sums.whole.isfinite().all()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_measure_that_is_not_finite_harms_nothing_but_its_line(data, tmp_path, monkeypatch, exact, value):
    mode = ("numerics.exact=true",) if exact else ()
    straight = train(data, None, *mode)
    monkeypatch.setitem(RIDERS, "poisoned", lambda assembly: Poisoned(value))
    result = train(data, tmp_path / "run", *mode)
    assert (result.status, result.weights_sha256) == ("done", straight.weights_sha256)
    written = [line["poisoned"] for line in lines(tmp_path / "run")]
    assert written[4] == [None, None]
    assert all(line[1] == 4.0 for number, line in enumerate(written) if number != 4)


def test_a_measure_may_be_so_large_that_its_sum_is_not_finite(data, tmp_path, monkeypatch):
    class Large(LabelSum):
        name = "large"

        def fill(self, sums, forward_pass):
            sums.real.add_(3e38 if forward_pass.step == 2 else 1.0)

    monkeypatch.setitem(RIDERS, "large", lambda assembly: Large())
    result = train(data, tmp_path / "run", "numerics.exact=true")
    assert result.weights_sha256 == train(data, None, "numerics.exact=true").weights_sha256
    assert [line["large"][0] for line in lines(tmp_path / "run")][1:3] == [4.0, None]


@pytest.mark.parametrize("name", ["lr", "train_error_percent", "images_per_second"])
def test_a_measure_may_not_take_the_name_of_an_entry_of_the_line(data, tmp_path, monkeypatch, name):
    rider = LabelSum()
    rider.name = name
    monkeypatch.setitem(RIDERS, name, lambda assembly: rider)
    with pytest.raises(RecipeError, match=f"measure {name}: every line of metrics.jsonl has an entry of this name"):
        train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_names_that_no_measure_may_take_are_those_of_the_line(data, tmp_path, precision):
    exact = "numerics.exact=true" if precision == "fp32" else "seed=0"
    train(data, tmp_path / "run", f"precision={precision}", exact, "execution.noise_scale_steps=1")
    names = set(json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]))
    fp16 = {"loss_scale", "skipped_steps"}
    others = {"weights_checksum", *(fp16 if precision == "fp32" else ["weights_sha256"])}  # the first, on a GPU
    assert names == line_names(Classification(4)) - others


def test_a_rider_may_have_no_numbers(data, tmp_path, monkeypatch):
    class Silent(Rider):
        name = "silent"

    monkeypatch.setitem(RIDERS, "silent", lambda assembly: Silent())
    train(data, tmp_path / "run")
    assert "silent" not in lines(tmp_path / "run")[0]


def test_riders_of_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="two riders of one name"):
        Riders([LabelSum(), LabelSum()])


def test_the_loop_learns_only_of_riders_that_tell():
    class Silent(LabelSum):
        name = "silent"
        tells = False

    riders = Riders([LabelSum(), Silent()])
    flat = batchscale.FastAggregator(list(nn.Linear(2, 2).parameters()), None, riders.extras, riders.counts).flat
    riders.board(flat)
    flat.extras["labels"].fill_(2.0)
    flat.counts["labels"].fill_(3.0)
    answer, places = riders.answer()
    flat.buffer.zero_()  # the next step's sums: the answer keeps its own
    assert places == {"labels": slice(0, 2)}
    assert torch.equal(answer, torch.tensor([2.0, 3.0]))


def test_the_end_of_an_epoch_is_worked_out_once_a_step(data, tmp_path, monkeypatch):
    ends_epoch, steps = StepPlan.ends_epoch, []

    def counting(plan, step):
        steps.append(step)
        return ends_epoch(plan, step)

    monkeypatch.setattr(StepPlan, "ends_epoch", counting)
    result = train(data, tmp_path / "run")
    assert steps == list(range(result.steps))
