"""A branch goes on from its trunk's checkpoint: with the trunk's bits as it is, with a grown run's where k changes."""

import json
import shutil

import pytest
import torch
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes

import batchscale
from batchscale.build.trunk import Trunk, run_plan, run_schedule
from batchscale.cli import main
from batchscale.errors import CheckpointError, FolderError, RecipeError, UsageError
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
    for point in ({"branch": folder, "at": 6}, {"branch": tmp_path, "at": 3}):
        with pytest.raises(CheckpointError, match=r"holds a branch of .*step 3, and --branch names "):
            train(data, tmp_path / "branch", *overrides, **point, resume="yes")
    shutil.rmtree(folder)
    monkeypatch.setitem(DUES, "stop", stop_after(6))
    with pytest.raises(Stopped):  # the command as it was, the trunk gone
        train(data, tmp_path / "branch", *overrides, branch=folder, at=3, resume="auto")
    monkeypatch.undo()
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


def test_a_branch_killed_before_it_was_recorded_whole_begins_again(data, trunk, tmp_path):
    folder, straight = trunk
    out = tmp_path / "branch"
    train(data, out, *EXACT, branch=folder, at=3)
    for name in out.iterdir():
        if name.name != "branch.json":
            shutil.rmtree(name) if name.is_dir() else name.unlink()
    shutil.copy(out / "branch.json", tmp_path)
    assert train(data, out, *EXACT, branch=folder, at=3, resume="auto").weights_sha256 == straight.weights_sha256
    shutil.rmtree(out)
    out.mkdir()
    shutil.copy(tmp_path / "branch.json", out)
    assert train(data, out, *EXACT).weights_sha256 == straight.weights_sha256  # a run by itself
    assert not (out / "branch.json").exists()


GROWING = "minibatch.growth={kind: phases, phases: [{epoch: 0.8, workers: 8}, {epoch: 2, workers: 12}]}"


def branch_plan(trunk_overrides, overrides, step, images=350):
    trunk = recipe_from(RECIPE, trunk_overrides)
    point = Trunk("trunk", step, "", trunk)
    recipe = recipe_from(RECIPE, overrides)
    point.check(recipe)
    plan = run_plan(recipe, images, point)
    straight = run_plan(trunk, images)
    return plan, straight, run_schedule(recipe, plan, point), run_schedule(trunk, straight)


@pytest.mark.parametrize("step", [5, 8, 9, 10, 15])
def test_a_branch_of_a_grown_run_has_f_times_its_minibatches_and_its_lr(step):
    """Before, at, and after a change: the trunk's minibatches at the same epoch, times f; the lr times s(f)."""
    plan, straight, schedule, trunk_lr = branch_plan([GROWING], [GROWING, "minibatch.workers=6"], step)
    assert plan.epoch_at(step) == straight.epoch_at(step)
    for each in range(step, plan.total_steps):
        steps = straight.steps(float(plan.epoch_at(each)))
        trunks = straight.minibatch_at(int(steps))
        away = (abs(float(plan.epoch_at(each) - change.epoch)) for change in straight.growth)
        if min(away) > 0.4:  # a change takes effect with a whole step, of either size
            assert plan.minibatch_at(each).workers == 1.5 * trunks.workers
            assert plan.minibatch_at(each).per_worker == trunks.per_worker
    assert schedule(step) == pytest.approx(1.5 * trunk_lr(step), rel=1e-12)


def test_a_window_over_a_growth_and_no_further_growth():
    plan, *_ = branch_plan([GROWING], ["minibatch.workers=8", "epochs=1.5"], 5)
    assert {phase.minibatch.workers for phase in plan.phases[1:]} == {8}
    plan, *_ = branch_plan([GROWING], [GROWING, "epochs=2.5"], 15)
    assert [phase.minibatch.workers for phase in plan.phases] == [4, 8, 8, 12]


def test_decays_that_the_trunk_has_turned_into_growth_stay_turned():
    grows = (
        "minibatch.growth={kind: instead_of_decay, of: workers}",
        "epochs=4",
        "learning_rate={reference: 0.05, reference_minibatch: 32, decay: {kind: step, epochs: [1, 2, 3], factor: 0.5}}",
    )
    _, _, schedule, trunk_lr = branch_plan(grows, (*grows, "minibatch.workers=8"), 40, images=1000)
    assert schedule(40) == pytest.approx(2 * trunk_lr(40), rel=1e-12)


def test_another_rule_acts_from_the_branch_on_and_leaves_the_trunks_lr():
    trunk = ("learning_rate.reference_minibatch=8",)
    branch = (*trunk, "learning_rate.scaling=sqrt")
    _, _, schedule, trunk_lr = branch_plan(trunk, branch, 5)
    assert [schedule(step) for step in range(5, 20)] == [trunk_lr(step) for step in range(5, 20)]
    _, _, schedule, trunk_lr = branch_plan(trunk, (*branch, "minibatch.workers=8"), 5)
    assert schedule(5) == pytest.approx(2**0.5 * trunk_lr(5), rel=1e-12)


def test_factors_of_a_branch_of_a_branch_multiply_each_by_its_own_rule():
    first = Trunk("t", 5, "", recipe_from(RECIPE))
    middle = recipe_from(RECIPE, ["minibatch.workers=8", "learning_rate.scaling=sqrt"])
    second = Trunk("b", 8, "", middle, first)
    last = recipe_from(RECIPE, ["minibatch.workers=16"])
    plan = run_plan(last, 350, second)
    ratio = run_schedule(last, plan, second)(8) / run_schedule(middle, run_plan(middle, 350, first), first)(8)
    assert ratio == pytest.approx(2.0, rel=1e-12)  # linear, over the middle's sqrt of 2
    assert plan.minibatch_at(8).workers == 16


def test_growth_goes_on_beyond_the_trunks_end_and_phases_may_be_given_times_f():
    doubling = ("minibatch.growth={kind: doubling, every_epochs: 1}", "epochs=2")
    plan, *_ = branch_plan(doubling, ("minibatch.growth={kind: doubling, every_epochs: 1}", "epochs=4"), 5)
    assert [phase.minibatch.workers for phase in plan.phases] == [4, 4, 8, 16, 32]
    scaled = GROWING.replace("workers: 8", "workers: 16").replace("workers: 12", "workers: 24")
    plan, *_ = branch_plan([GROWING], [scaled, "minibatch.workers=8"], 5)
    assert [phase.minibatch.workers for phase in plan.phases] == [4, 8, 16, 24]


def test_decays_along_a_chain_of_branches():
    grows = (
        "minibatch.growth={kind: instead_of_decay, of: workers}",
        "epochs=4",
        "learning_rate={reference: 0.05, reference_minibatch: 32, decay: {kind: step, epochs: [1, 2, 3], factor: 0.5}}",
    )
    stops = ("minibatch.growth={kind: none}", *grows[1:])
    root, middle = recipe_from(RECIPE, grows), recipe_from(RECIPE, stops)
    first = Trunk("t", 5, "", root)
    second = Trunk("b", 40, "", middle, first)  # beyond the decay at epoch 1, which the middle's lr has taken
    lrs = [run_schedule(middle, run_plan(middle, 1000, trunk), trunk)(40) for trunk in (first, second)]
    assert lrs[0] == lrs[1] == 0.025


def test_a_branch_may_live_on_more_processes_than_its_trunk_has_workers(data, trunk):
    overrides = (*EXACT, "minibatch.workers=8")
    alone = branched(0, data, trunk[0], 3, overrides)
    assert in_processes(5, branched, data, trunk[0], 3, overrides) == [alone] * 5


def test_an_exact_branch_of_a_fast_trunk_holds_one_worker_a_pass(data, tmp_path):
    train(data, tmp_path / "trunk", "numerics.micro_batch=32", "execution.keep_checkpoints={steps: [3]}")
    overrides = ("numerics.exact=true",)
    out = tmp_path / "branch"
    train(data, out, *overrides, branch=tmp_path / "trunk", at=3)
    assert json.loads((out / "environment.json").read_text())["decided"]["micro_batch"] == 8


def test_a_factor_that_leaves_no_whole_number_of_workers_and_another_n_are_refused():
    odd = "minibatch.growth={kind: phases, phases: [{epoch: 0.8, workers: 7}]}"
    with pytest.raises(RecipeError, match=r"minibatch.workers=6: 3/2 of the trunk's 7 workers at step 15"):
        branch_plan([odd], [odd, "minibatch.workers=6"], 15)
    with pytest.raises(CheckpointError, match=r"minibatch.growth"):
        branch_plan([], ["minibatch.growth={kind: phases, phases: [{epoch: 2, per_worker: 16}]}"], 5)


def test_the_keys_of_a_branch_with_a_seed_are_its_own(data):
    """Order, augmentation, dropout and noise: of the same example in the same epoch, another draw for another seed."""
    from batchscale.build.build import build
    from batchscale.comm import World
    from batchscale.data.augmentation import mirrored

    overrides = (*ALWAYS, "data.augment.flip=true", "optimizer.gradient_noise=0.5")
    point = Trunk("trunk", 3, "", recipe_from(RECIPE, overrides))
    seen = {}
    for seed in (0, 1, 2):
        recipe = recipe_from(RECIPE, [*overrides, f"branch.seed={seed}", "data.name=own"])
        parts = build(recipe, World(), data.splits(), own_data=True, trunk=point)
        feed = parts.make_feed()
        epochs, examples = feed.indices(8)
        inputs = torch.cat([batch.inputs for batch in feed.passes(8)])
        whole = parts.normalizer(data.train_images[torch.from_numpy(examples)])
        flips = mirrored(parts.step.seed, epochs, examples)
        for row, flipped in enumerate(flips):
            assert torch.equal(inputs[row], whole[row].flip(-1) if flipped else whole[row])
        outputs = torch.zeros(8, 4, requires_grad=True) * 1.0
        noisy = []
        outputs.register_hook(noisy.append)
        parts.step.noise(outputs, 8, 0).sum().backward()
        seen[seed] = (parts.step.seed, examples.tolist(), noisy)
        feed.close()
        parts.close()
    assert seen[0][0] == 0
    assert len({seed for seed, *_ in seen.values()}) == 3
    assert len({tuple(examples) for _, examples, _ in seen.values()}) == 3


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
        (("batch_norm.running=none",), 3, "batch_norm.running"),
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


def test_a_finished_branch_asked_for_with_another_trunk_is_refused(data, trunk, tmp_path):
    folder, _ = trunk
    train(data, tmp_path / "branch", *EXACT, branch=folder, at=3)
    assert train(data, tmp_path / "branch", *EXACT, branch=folder, at=3, resume="yes").status == "done"
    with pytest.raises(CheckpointError, match=r"holds a branch of .*step 3, and --branch names .*step 6"):
        train(data, tmp_path / "branch", *EXACT, branch=folder, at=6, resume="yes")
    with pytest.raises(CheckpointError, match="holds a run by itself, and --branch names"):
        train(data, folder, *EXACT, branch=folder, at=3, resume="yes")


def test_a_longer_branch_is_told_that_the_decay_has_ended(data, trunk, tmp_path, capfd):
    batchscale.train(RECIPE, [*EXACT, "epochs=4"], data=data, branch=trunk[0], at=3, out=tmp_path / "b")
    assert "learning_rate.decay.end=4 stretches it" in capfd.readouterr().err
    batchscale.train(RECIPE, [*EXACT, "learning_rate.decay.end=4", "epochs=4"], data=data, branch=trunk[0], at=3)
    assert "stretches it" not in capfd.readouterr().err


def test_the_step_of_a_branch_needs_its_run(data):
    with pytest.raises(UsageError, match="at=3: of which run"):
        train(data, None, at=3)


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
