"""What every task promises; classification by hand; one's own task, whose loss is a worker's, and that predicts."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.build.tasks import check_task
from batchscale.comm import World
from batchscale.data.feed import Normalizer
from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe
from batchscale.recipe.stopping import StopAt
from batchscale.task import TASKS, Evaluated, EvaluatedPass, ScoreKind, Task
from batchscale.training.due import EVALUATION_NAMES
from batchscale.training.evaluation import evaluate

LOGITS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])
_PIXELS = torch.randn(9, 4, 3, 5, generator=torch.Generator().manual_seed(0))
EXAMPLES = {
    "classification": (LOGITS, LABELS),
    "segmentation": (_PIXELS, LABELS.view(9, 1, 1).expand(9, 3, 5)),
    "multilabel": (LOGITS, (LABELS.view(9, 1) == torch.tensor([0, 1, 2, 0])).long()),
    "language": (_PIXELS[..., 0].transpose(1, 2), LABELS.view(9, 1).expand(9, 3)),
}
"""Outputs and targets of nine examples of every task whose examples have losses."""


def test_every_task_whose_examples_have_losses_is_held_to_them():
    assert EXAMPLES.keys() == {name for name, task in TASKS.items() if task.unit == "example"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_losses_of_examples_sum_to_the_loss_of_the_pass(name):
    smoothing = {} if name == "multilabel" else {"label_smoothing": 0.1}
    task, (given, targets) = TASKS[name](4, **smoothing), EXAMPLES[name]
    loss, outputs = task.train_pass(lambda inputs: inputs, given, targets)
    torch.testing.assert_close(task.losses(outputs, targets).sum(), loss)
    parts = [task.train_pass(lambda inputs: inputs, given[i : i + 3], targets[i : i + 3])[0] for i in (0, 3, 6)]
    torch.testing.assert_close(sum(parts), loss)


@pytest.mark.parametrize("name", EXAMPLES)
def test_counts_are_whole_and_add_up_and_scores_have_names(name):
    task, (outputs, targets) = TASKS[name](4), EXAMPLES[name]
    counts = task.counts(outputs, targets)
    assert counts.shape == (task.training_counts,)
    parts = [task.counts(outputs[i : i + 3], targets[i : i + 3]) for i in (0, 3, 6)]
    assert torch.equal(sum(parts), counts)
    evaluated = task.evaluate_pass(lambda inputs: inputs, outputs, targets)
    assert evaluated.counts.shape == (task.evaluation_counts,)
    counts = tuple(evaluated.counts.tolist())
    scores = task.scores(Evaluated(9, float(evaluated.loss) / 9, counts, evaluated.predictions))
    assert set(scores) == {kind.name for kind in task.score_kinds}
    assert task.score is task.score_kinds[0]


def test_classification_by_hand():
    task = TASKS["classification"](4, label_smoothing=0.3)
    wrong = sum(int(row.argmax()) != int(label) for row, label in zip(LOGITS, LABELS, strict=True))
    evaluated = task.evaluate_pass(lambda inputs: inputs, LOGITS, LABELS)
    assert evaluated.counts.tolist() == [wrong]
    torch.testing.assert_close(evaluated.loss, F.cross_entropy(LOGITS, LABELS, reduction="sum"))
    assert task.scores(Evaluated(9, 0.0, (wrong,))) == {"error": 100 * wrong / 9}
    assert task.named({"error": 5.0}, "test_") == {"test_error_percent": 5.0}


def test_a_score_that_the_task_has_not_is_one_line():
    with pytest.raises(RecipeError, match=r"--goal: task=classification has no score 'iou'; it has error"):
        TASKS["classification"](4).score_named("iou", "--goal")


def test_a_recipe_names_its_task():
    with pytest.raises(RecipeError, match=r"task=tagging: unknown; .*known are classification"):
        batchscale.train("digits-cnn", ["task=tagging", "epochs=1"], quiet=True)


class Distance(Task):
    """Regression to the label: the loss is a worker's, m times the root of its mean square; scores need predictions."""

    name = "distance"
    examples = "points"
    unit = "worker"
    score_kinds = (ScoreKind("median distance"), ScoreKind("within", "%", "higher"))
    predicts = True

    def train_pass(self, model, inputs, targets):
        outputs = model(inputs).mean(1)
        return len(outputs) * (outputs - targets).square().mean().sqrt(), outputs

    def evaluate_pass(self, model, inputs, targets):
        outputs = model(inputs).mean(1)
        losses = (outputs - targets).abs()
        return EvaluatedPass(losses.sum(), torch.zeros(0), losses.tolist())

    def scores(self, evaluated):
        distances = torch.tensor(evaluated.predictions)
        return {
            "median distance": float(distances.median()), "within": 100 * float((distances < 1).float().mean()),
        }  # fmt: skip

    def check(self, outputs, examples):
        assert outputs.shape[0] == examples


def train(rank, data, out, *overrides):
    # 11 images: the last chunk is short; predictions come in the order of the examples whatever W is
    fixed = ("numerics.micro_batch=8", "epochs=1", "execution.evaluation_steps=2", "numerics.evaluation_chunk=7")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return batchscale.train(
        RECIPE, [*fixed, *overrides], data=data, task=Distance(), model=model, out=out, quiet=True
    ).model_dump()


def test_a_task_of_ones_own_trains_is_scored_and_recorded(data, tmp_path):
    result = train(0, data, tmp_path / "run")
    assert result["task"] == "distance"
    assert set(result["scores"]) == {"median distance", "within"}
    assert result["score"] == {
        "name": "median distance", "value": result["scores"]["median distance"], "unit": "", "better": "lower",
    }  # fmt: skip
    assert result["test_error_percent"] is None
    assert result["examples_per_second"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[-1]["points"] == 40
    assert lines[-1]["within_percent"] == lines[-1]["scores"]["within"]


def test_predictions_are_scored_alike_on_any_number_of_processes(data):
    alone = train(0, data, None, "numerics.exact=true")
    for result in in_processes(3, train, data, None, "numerics.exact=true"):
        assert (result["scores"], result["weights_sha256"]) == (alone["scores"], alone["weights_sha256"])


def predicted(rank, data):
    world = World.connect(torch.device("cpu"), 60.0)
    splits = data.splits()
    normalizer = Normalizer([0.0], [1.0], torch.float32, torch.contiguous_format, torch.device("cpu"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    evaluated = evaluate(model, Distance(), splits.test, normalizer, world, 7)
    world.close()
    return list(evaluated.predictions), evaluated.loss


def test_predictions_are_sent_to_rank_0_alone(data):
    (alone, loss), first, *others = [predicted(0, data), *in_processes(3, predicted, data)]
    assert len(alone) == 40
    assert first == (alone, loss)
    assert others == [([], loss)] * 2


def test_a_loss_of_a_worker_keeps_passes_to_one_worker_and_has_no_noise_an_example(data):
    with pytest.raises(RecipeError, match=r"numerics.micro_batch=16: the task's loss is a worker's"):
        train(0, data, None, "numerics.micro_batch=16")
    with pytest.raises(RecipeError, match="an example has no loss of its own here"):
        Distance().losses(LOGITS, LABELS)
    with pytest.raises(RecipeError, match=r"optimizer.gradient_noise=0.5: .*of a whole worker"):
        train(0, data, None, "optimizer.gradient_noise=0.5")


def test_a_loss_of_a_worker_is_one_worker_s_where_several_are_normalised_together(data):
    """Each has a lane, so a worker's loss stays its own; the data has no batch norm that could differ."""
    overrides = ("numerics.exact=true", "batch_norm.span=2", "numerics.micro_batch=16")
    alone = train(0, data, None, *overrides)
    assert alone["scores"] == train(0, data, None, "numerics.exact=true")["scores"]
    for result in in_processes(4, train, data, None, *overrides):
        assert (result["scores"], result["weights_sha256"]) == (alone["scores"], alone["weights_sha256"])


@pytest.mark.parametrize(
    ("kinds", "counts", "name"),
    [
        ((ScoreKind("error", "%"), ScoreKind("loss")), (), "loss"),
        ((ScoreKind("error", "%"), ScoreKind("error_percent")), (), "error_percent"),
        ((ScoreKind("points"),), (), "points"), ((ScoreKind("iou"),), ("step",), "step"),
    ],
)  # fmt: skip
def test_a_score_or_a_count_has_a_name_of_its_own_in_the_line(kinds, counts, name):
    task = Distance()
    task.score_kinds, task.count_names = kinds, counts
    with pytest.raises(RecipeError, match=f"task=distance: its score or count '{name}' has the name of another entry"):
        check_task(load_recipe("digits-cnn"), task)


def test_the_names_that_no_score_may_take_are_those_of_the_line(data, tmp_path):
    train(0, data, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[0])
    assert set(line) == {*EVALUATION_NAMES, "points", "median distance", "within_percent"}


class Counting(Distance):
    """Counts in training, and scores that need predictions."""

    training_counts = 1

    def counts(self, outputs, targets):
        return torch.ones(1)


def test_a_task_that_predicts_has_no_scores_in_training(data, tmp_path):
    assert Counting().training_scores((3,), 8) == {}
    batchscale.train(
        RECIPE, ["numerics.micro_batch=8", "epochs=1"], data=data, task=Counting(), out=tmp_path / "run", quiet=True,
        model=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
    )  # fmt: skip
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert not [name for name in line if name.startswith("train_")]


@pytest.mark.parametrize(
    ("score", "side", "bound", "steps"),
    [
        ("within", "above", -1.0, 2), ("within", "above", 99.9, 4),
        ("median distance", "below", 1e9, 2), ("median distance", "below", 0.0, 4),
    ],
)  # fmt: skip
def test_a_run_ends_at_the_first_evaluation_past_the_bound(data, score, side, bound, steps):
    result = train(0, data, None, f"execution.stop_at={{score: {score}, {side}: {bound}}}")
    assert result["steps"] == steps
    assert result.get("stopped_at") == ({"score": score, side: bound} if steps == 2 else None)
    value = result["scores"][score]
    assert (value < bound if side == "below" else value > bound) == (steps == 2)


def test_a_bound_is_to_be_passed_by_a_finite_value():
    below, above = StopAt(score="x", below=3), StopAt(score="x", above=3)
    values = (2.0, 3.0, 4.0, math.inf, -math.inf, math.nan)
    assert [below.met_by(value) for value in values] == [True, False, False, False, False, False]
    assert [above.met_by(value) for value in values] == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("bounds", "line"),
    [
        ("", "must have either below or above, and has neither; write for example stop_at"),
        (", below: 3, above: 2.5", "must have either below or above, and has below=3 and above=2.5; write"),
        (", below: 50", r"execution.stop_at.below=50: within is better where it is higher: use above"),
        (", above: .inf", r"execution.stop_at.*finite"),
    ],
)
def test_a_bound_is_one_and_on_the_side_that_is_better(data, tmp_path, bounds, line):
    with pytest.raises(RecipeError, match=line) as error:
        train(0, data, tmp_path / "run", f"execution.stop_at={{score: within{bounds}}}")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(RecipeError, match=r"stop_at.above=5: error is better where it is lower: use below"):
        check_task(
            load_recipe("digits-cnn", ["execution.stop_at={score: error, above: 5}"]), TASKS["classification"](4)
        )
    assert not (tmp_path / "run").exists()


def test_a_score_to_stop_at_must_be_the_tasks(data, tmp_path):
    with pytest.raises(RecipeError, match=r"execution.stop_at.score: task=distance has no score 'iou'; it has median"):
        train(0, data, tmp_path / "run", "execution.stop_at={score: iou, above: 0.5}")
    with pytest.raises(RecipeError, match=r"execution.stop_below.error_percent: task=distance has no score 'error'"):
        train(0, data, tmp_path / "run", "execution.stop_below.error_percent=5")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (3, "is a int: must be a task of one's own"),
        (Distance, "is the class Distance: must be"),
        (type("Nameless", (Distance,), {"name": ""})(), "Nameless must have a name"),
        (type("Scoreless", (Distance,), {"score_kinds": ()})(), "and score_kinds with at least one"),
    ],
)
def test_what_is_no_task_is_one_line(data, task, sentence):
    with pytest.raises(RecipeError, match=sentence):
        batchscale.train(RECIPE, data=data, task=task, quiet=True)


def test_a_task_that_forgets_a_score_is_told_so_and_scores_may_be_tensors(data, tmp_path):
    forgets = type("Forgets", (Distance,), {"scores": lambda self, evaluated: {"within": torch.tensor(1.0)}})()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(RecipeError, match=r"gives within: must give a number .*; median distance is missing"):
        batchscale.train(RECIPE, ["epochs=1"], data=data, task=forgets, model=model, quiet=True)
    both = {"median distance": torch.tensor(2.0), "within": torch.tensor(1.0)}
    gives = type("Gives", (Distance,), {"scores": lambda self, evaluated: both})()
    result = batchscale.train(
        RECIPE, ["epochs=1"], data=data, task=gives, model=model, out=tmp_path / "run", quiet=True
    )
    assert result.scores == {"median distance": 2.0, "within": 1.0}


def test_scores_that_raise_keep_the_steps_before_them(data, tmp_path):
    raising = type("Raising", (Distance,), {"scores": lambda self, evaluated: 1 / 0})()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    every = ["epochs=1", "execution.checkpoint_seconds=1000"]
    with pytest.raises(ZeroDivisionError):
        batchscale.train(RECIPE, every, data=data, task=raising, model=model, out=tmp_path / "run", quiet=True)
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-0000000004"]


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("stop_at={score: error, below: 0}", "never below"),
        ("stop_at={score: error, below: -1}", "never below"),
        ("stop_at={score: mean-ap, above: 100}", "never above"),
        ("stop_at={score: mean-ap, above: 300}", "never above"),
        ("stop_at={score: classes-absent, below: 300}", ""),  # a plain number has no range that is known
        ("stop_at={score: error, below: 100}", ""),
        ("stop_at={score: mean-ap, above: 0}", ""),
    ],
)
def test_a_goal_outside_the_range_of_a_percentage_is_one_line(goal, message):
    name = "multilabel" if "mean-ap" in goal or "absent" in goal else "classification"
    recipe, task = load_recipe("digits-cnn", [f"execution.{goal}", f"task={name}"]), TASKS[name](4)
    if not message:
        return check_task(recipe, task)
    with pytest.raises(RecipeError, match=rf"from 0 to 100, so it is {message} this; give a goal between"):
        check_task(recipe, task)


def test_scores_in_percent_have_two_decimals():
    """AP of 0.01234 was "0.01234 %", of 12.3456 "12.35 %"."""
    assert [ScoreKind("ap", "%", "higher").words(value) for value in (0.01234, 12.3456)] == ["ap 0.01 %", "ap 12.35 %"]
    assert [ScoreKind("perplexity").words(value) for value in (0.01234, 12.3456)] == [
        "perplexity 0.01234",
        "perplexity 12.35",
    ]
