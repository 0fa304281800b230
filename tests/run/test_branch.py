"""A branch goes on from its trunk's checkpoint: with the trunk's bits as it is, with a grown run's where k changes."""

import json
import shutil

import pytest
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.cli import main
from batchscale.errors import CheckpointError, FolderError, RecipeError
from batchscale.recipe import recipe_from
from batchscale.records import RunLock
from batchscale.run.run import Stopped
from batchscale.training.due import DUES

ALWAYS = ("numerics.micro_batch=8",)
KEPT = "execution.keep_checkpoints={steps: [3, 6]}"
EXACT = (*ALWAYS, "numerics.exact=true")
GROWN = "minibatch.growth={kind: phases, phases: [{epoch: 1, workers: 8}]}"


def train(data, out, *overrides, **kwargs):
    return batchscale.train(RECIPE, overrides, data=data, out=out, quiet=True, **kwargs)


def branched(rank, data, trunk, at, overrides):
    """(final weights, test loss) of a branch on this process."""
    result = train(data, None, *overrides, branch=trunk, at=at)
    return result.weights_sha256, result.test_loss


@pytest.fixture(scope="module")
def trunk(data, tmp_path_factory):
    """A run of 3 epochs, 110 images in minibatches of 4 x 8, with checkpoints of steps 3 and 6 kept: 11 steps."""
    folder = tmp_path_factory.mktemp("trunk") / "run"
    return folder, train(data, folder, *EXACT, KEPT)


def test_checkpoints_that_are_to_stay_stay(trunk):
    assert [f.name for f in sorted((trunk[0] / "checkpoints").iterdir())] == [
        "step-0000000003", "step-0000000006", "step-0000000007", "step-0000000011",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [3, 6])
def test_a_branch_that_changes_nothing_ends_with_the_trunks_bits(data, trunk, tmp_path, at):
    folder, straight = trunk
    branch = train(data, tmp_path / "branch", *EXACT, branch=folder, at=at)
    assert (branch.weights_sha256, branch.test_loss) == (straight.weights_sha256, straight.test_loss)
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (folder, tmp_path / "branch")
    ]
    digests = [[line["weights_sha256"] for line in run] for run in lines]
    assert digests[0][at:] == digests[1]
    assert [line["lr"] for line in lines[0]][at:] == [line["lr"] for line in lines[1]]


@pytest.mark.parametrize("exact", [False, True])
def test_a_branch_with_more_workers_is_the_run_that_grows_there(data, tmp_path, exact):
    """One more change of the step plan at the checkpoint's position, the lr times the rule."""
    # The decay ends at an epoch: else it ends with the last step, which other minibatches reach a little later.
    mode = (*(EXACT if exact else ALWAYS), "learning_rate.decay.end=3")
    grown = train(data, None, *mode, GROWN)
    train(data, tmp_path / "trunk", *mode, "execution.keep_checkpoints={epochs: [1]}")
    branch = train(data, None, *mode, "minibatch.workers=8", branch=tmp_path / "trunk", at=4)
    assert branch.steps == grown.steps < 11
    assert (branch.weights_sha256, branch.test_loss) == (grown.weights_sha256, grown.test_loss)


@pytest.mark.parametrize("overrides", [("minibatch.workers=8",), ("minibatch.workers=8", "branch.seed=3")])
def test_an_exact_branch_has_the_same_bits_on_any_number_of_processes(data, trunk, overrides):
    folder, _ = trunk
    alone = branched(0, data, folder, 3, (*EXACT, *overrides))
    for processes in (2, 3):
        assert in_processes(processes, branched, data, folder, 3, (*EXACT, *overrides)) == [alone] * processes


def test_a_branch_of_a_branch_goes_on_in_its_order_and_schedule(data, trunk, tmp_path):
    folder, _ = trunk
    changed = ("minibatch.workers=8", "branch.seed=3")
    straight = train(
        data, tmp_path / "first", *EXACT, *changed, "execution.keep_checkpoints.steps=[5]", branch=folder, at=3
    )
    again = train(data, None, *EXACT, "minibatch.workers=8", branch=tmp_path / "first", at=5)
    assert again.weights_sha256 == straight.weights_sha256
    other = train(data, None, *EXACT, *changed, branch=tmp_path / "first", at=5)
    assert other.weights_sha256 != straight.weights_sha256


def test_a_branch_stopped_and_resumed_needs_its_trunk_no_more(data, trunk, tmp_path, monkeypatch):
    folder = tmp_path / "trunk"
    shutil.copytree(trunk[0], folder)
    overrides = (*EXACT, "minibatch.workers=8", "branch.seed=1")
    straight = train(data, None, *overrides, branch=folder, at=3)
    monkeypatch.setitem(DUES, "stop", stop_after(4))
    with pytest.raises(Stopped):
        train(data, tmp_path / "branch", *overrides, branch=folder, at=3)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"a branch of .*step 3, and --branch names .*step 6"):
        train(data, tmp_path / "branch", *overrides, branch=folder, at=6, resume="yes")
    shutil.rmtree(folder)
    resumed = train(data, tmp_path / "branch", *overrides, resume="yes")
    assert resumed.weights_sha256 == straight.weights_sha256
    record = json.loads((tmp_path / "branch" / "environment.json").read_text())["trunk"]
    assert (record["folder"], record["step"]) == (str(folder), 3)


def test_a_branch_killed_before_its_first_checkpoint_begins_at_its_trunk_again(data, trunk, tmp_path):
    folder, _ = trunk
    straight = train(data, tmp_path / "branch", *EXACT, branch=folder, at=3)
    shutil.rmtree(tmp_path / "branch" / "checkpoints")
    (tmp_path / "branch" / "result.json").unlink()
    assert train(data, tmp_path / "branch", *EXACT, resume="yes").weights_sha256 == straight.weights_sha256


@pytest.mark.parametrize("epochs", ["2.5", "4"])
def test_another_length_leaves_the_trunks_schedule(trunk, epochs):
    """A shorter window, or a longer run, sees the lr of the same examples: the decay ends where the trunk's ends."""
    recipe = recipe_from(RECIPE, ["minibatch.workers=4"])
    branch = recipe_from(RECIPE, [f"epochs={epochs}"])
    point = Trunk("trunk", 6, "", recipe)
    plan, straight = run_plan(branch, 110, point), run_plan(recipe, 110)
    lrs = [run_schedule(recipe, straight)(step) for step in range(straight.total_steps)]
    length = min(plan.total_steps, straight.total_steps)
    assert [run_schedule(branch, plan, point)(step) for step in range(length)] == lrs[:length]


@pytest.mark.parametrize(("rule", "factor"), [("linear", 2.0), ("sqrt", 2**0.5), ("none", 1.0)])
def test_the_rule_multiplies_the_trunks_lr_at_the_same_examples(rule, factor):
    recipe = recipe_from(RECIPE, [f"learning_rate.scaling={rule}"])
    branch = recipe_from(RECIPE, [f"learning_rate.scaling={rule}", "minibatch.workers=8"])
    point = Trunk("trunk", 5, "", recipe)
    plan, straight = run_plan(branch, 110, point), run_plan(recipe, 110)
    schedule, trunk_lr = run_schedule(branch, plan, point), run_schedule(recipe, straight)
    assert plan.images(5) == straight.images(5)
    for step in range(5, plan.total_steps):
        steps_of_trunk = 5 + 2 * (step - 5)
        assert schedule(step) == pytest.approx(factor * trunk_lr(steps_of_trunk), rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "at", "sentence"),
    [
        (("minibatch.per_worker=4", "numerics.micro_batch=4"), 3, "minibatch.per_worker=4, and the trunk has 8"),
        (("optimizer={name: lars}",), 3, "optimizer.name"),
        (("model.ema_decay=0.9",), 3, "model.ema_decay"),
        (("seed=1",), 3, "seed"),
        ((), 4, "no checkpoint of this step; it has 4 checkpoints, of step 3, 6, 7, 11"),
        (("epochs=1",), 6, "no step is left"),
        (("minibatch.workers=16",), 3, "must not exceed the 110 training images"),
    ],
)
def test_what_a_branch_cannot_be_is_one_line_and_leaves_nothing(data, trunk, tmp_path, overrides, at, sentence):
    with pytest.raises((CheckpointError, RecipeError), match=sentence) as error:
        train(data, tmp_path / "branch", *EXACT, *overrides, branch=trunk[0], at=at)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "branch").exists()


def test_inside_an_epoch_of_partial_minibatches_dropped_there_is_no_branch(data, tmp_path):
    dropped = (*ALWAYS, "data.partial=drop")
    train(data, tmp_path / "trunk", *dropped)
    assert train(data, None, *dropped, branch=tmp_path / "trunk", at=6).status == "done"
    with pytest.raises(RecipeError, match=r"data.partial=drop: step 4 of the trunk lies inside an epoch"):
        train(
            data, tmp_path / "b", *dropped, "execution.checkpoint_seconds=0", branch=kept(data, tmp_path, dropped), at=4
        )


def kept(data, tmp_path, overrides):
    train(data, tmp_path / "kept", *overrides, "execution.keep_checkpoints={steps: [4]}")
    return tmp_path / "kept"


def test_a_run_that_is_being_written_other_data_and_no_run_are_refused(data, trunk, tmp_path):
    folder, _ = trunk
    lock = RunLock(folder)
    try:
        with pytest.raises(FolderError, match="is still being written"):
            train(data, tmp_path / "branch", *EXACT, branch=folder, at=3)
    finally:
        lock.release()
    other = batchscale.Dataset("own", data.train_images + 1, data.train_labels, data.test_images, data.test_labels, 4)
    with pytest.raises(CheckpointError, match="other data"):
        train(other, tmp_path / "branch", *EXACT, branch=folder, at=3)
    with pytest.raises(FolderError, match="holds no run; give the folder of a run"):
        train(data, tmp_path / "branch", branch=tmp_path / "none")
    with pytest.raises(RecipeError, match=r"branch\.seed=2: orders the examples of a branch"):
        train(data, tmp_path / "branch", "branch.seed=2")
    assert not (tmp_path / "branch").exists()


def test_the_command_branches_on_two_processes(tmp_path, capsys):
    small = ("digits-cnn", "minibatch.workers=6", "minibatch.per_worker=16", "epochs=2", "execution.device=cpu")
    assert main(["train", *small, "--exact", "--out", str(tmp_path / "trunk")]) == 0
    capsys.readouterr()
    command = [
        "train",
        *small,
        "minibatch.workers=12",
        "--exact",
        "--branch",
        str(tmp_path / "trunk"),
        "--at",
        "15",
        "--json",
    ]
    results = []
    for processes in ("1", "2"):
        out = str(tmp_path / processes)
        assert main([*command, "--processes", processes, "--out", out]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert main(["train", *small, "--at", "15"]) == 2
    assert "give it with --branch RUN" in capsys.readouterr().err
