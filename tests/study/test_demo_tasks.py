"""The demonstration of other tasks: embedded recipes at two minibatches, in the task's own words."""

import json

import pytest

from batchscale.cli import main
from batchscale.members import TASKS
from batchscale.recipe import load_recipe
from batchscale.study.demo.question import OTHERS, Demonstration, Question

AT_HAND = [task for task in OTHERS if task in TASKS]
TINY = Demonstration(
    "digits-scenes-unet",
    ("numerics.threads=1", "model.options={width: 2, levels: 2}", "epochs=1", "data.train_images=128",
     "batch_norm.running=recomputed", "learning_rate.warmup.epochs=0.5"),
    "minibatch.workers=4",
)  # fmt: skip


@pytest.mark.parametrize("task", AT_HAND)
def test_a_large_minibatch_is_the_same_run_but_for_its_workers_and_lr(task):
    other = OTHERS[task]
    small, unscaled, rules = (
        load_recipe(other.recipe, (*other.overrides, *variant.overrides)) for variant in other.variants()
    )
    assert small.task == task
    assert rules.minibatch.per_worker == unscaled.minibatch.per_worker == small.minibatch.per_worker
    assert rules.minibatch.workers == unscaled.minibatch.workers > small.minibatch.workers
    assert (unscaled.learning_rate.scaling, rules.learning_rate.scaling) == ("none", small.learning_rate.scaling)
    assert rules.learning_rate.scaling != "none"
    assert rules.epochs == small.epochs


def test_classification_is_as_ever():
    question = Question()
    assert (question.task, question.seeds) == ("classification", 3)
    assert question.own_recipe == ("digits-cnn", Question.of_overrides)
    assert Question(task="segmentation").seeds == 1
    assert Question(task="segmentation", seeds=2).seeds == 2


def test_one_sentence_with_the_score_of_the_task(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(OTHERS, "segmentation", TINY)
    out = tmp_path / "demo"
    assert main(["demo", "--task", "segmentation", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(way["name"], way["minibatch"]) for way in document["ways"]] == [
        ("small", 16), ("unscaled", 64), ("rules", 64),
    ]  # fmt: skip
    assert document["ways"][2]["lr"] == pytest.approx(2 * document["ways"][0]["lr"])
    for way in document["ways"]:
        assert f"kn = {way['minibatch']}): {way['mean_iou_percent']:.2f} %" in document["answer"]
    assert document["answer"].startswith("Mean test iou of every way")
    assert "error" not in (out / "report.html").read_text().split("</style>")[-1].split("<script")[0]
    capsys.readouterr()
    assert main(["demo", "--task", "segmentation", "--out", str(out)]) == 0
    words = capsys.readouterr().out
    assert "test iou, mean" in words
    assert "error" not in words
