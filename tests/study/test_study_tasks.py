"""Every study of a segmentation and of a language model: the task's words, score and direction; tiny, for real."""

import json

import pytest
from support.cases import case_of

from batchscale.cli import main
from batchscale.records.findings import read_findings
from batchscale.report.page.runs import read_run
from batchscale.report.run_findings import run_findings
from batchscale.study.steps_to_target.answer import answer_of_points, as_json
from batchscale.study.steps_to_target.trials import Reached
from batchscale.study.steps_to_target.words import sentence

SMALL = ["numerics.threads=1", "minibatch.per_worker=8", "learning_rate.decay.kind=none",
         "learning_rate.warmup.epochs=0.1"]  # fmt: skip
SCENES = ["digits-scenes-unet", "model.options={width: 2, levels: 2}", "data.train_images=64", "epochs=0.5", *SMALL]
TOPICS = ["topics-transformer", "model.options={width: 8, layers: 1, heads: 2}", "data.train_images=64",
          "data.sequence=16", "epochs=0.5", *SMALL]  # fmt: skip
WAYS = ["--way", "a: minibatch.workers=1", "--way", "b: minibatch.workers=2", "--seeds", "1"]
SEARCH = ["--minibatches", "8", "--trials", "1", "--min-steps", "4", "--evaluation-steps", "2", "--holdout", "16"]


@pytest.mark.parametrize(
    ("study", "recipe", "score", "words"),
    [
        (["minibatch-error", "--minibatches", "16,32", "--seeds", "1"], TOPICS, "test_cross-entropy", "cross-entropy"),
        (["warmup", "--minibatch", "32", "--kinds", "none", "--seeds", "1"], SCENES, "test_iou_percent", "highest"),
        (["grid", *WAYS], TOPICS, "test_cross-entropy", "Lowest mean test cross-entropy"),
        (["steps-to-target", *SEARCH, "--goal", "iou>99"], SCENES, "held_out_iou_percent", "rose to iou above 99"),
        (["steps-to-target", *SEARCH, "--goal", "loss<0.1"], TOPICS, "held_out_cross-entropy", "fell to loss below"),
        (["scaling", "--processes", "1", "--seeds", "1"], TOPICS, "test_cross-entropy", "mean test cross-entropy"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_study_speaks_of_the_task(study, recipe, score, words, tmp_path, capsys):
    epochs = ["epochs=4", "execution.log_steps=2"] if study[0] == "scaling" else []
    assert main(["study", study[0], *recipe, *epochs, *study[1:], "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert words in document["answer"]
    assert all(isinstance(row[score], float) for row in document["rows"])
    found = read_findings(tmp_path)
    parts = (found.title, found.asked, found.answer, *found.warnings, *found.tables, *found.figures)
    spoken = " ".join(map(str, parts)).replace("Standard error", "").replace("standard error", "").lower()
    assert " error" not in spoken
    if recipe is TOPICS:
        assert "image" not in spoken
        assert " points" not in spoken.replace("style='points'", "")
        assert "%)" not in " ".join(column for t in found.tables for column in t.columns if "cross" in column)
    run = run_findings(
        tmp_path / document["rows"][0]["folder"], read_run(tmp_path / document["rows"][0]["folder"], "r")
    )
    name = "iou" if recipe is SCENES else "cross-entropy"
    assert name in run.answer.lower()
    assert name in [figure.id for figure in run.figures]
    assert recipe is SCENES or "image" not in " ".join(map(str, (run.title, run.asked, run.answer, run.figures)))
    if study[0] == "scaling":  # metrics.jsonl counts sequences_per_second
        assert document["scaling"]["measured"][0]["images_per_second"] > 0
        assert "sequences/s" in found.tables[0].columns


@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        (TOPICS, ["minibatch-error", "--minibatches", "8,4096"], "4096 exceeds the 64 training sequences; "),
        (TOPICS, ["steps-to-target", *SEARCH, "--goal", "iou>80"], "no score 'iou'; it has cross-entropy, perplexity"),
        (SCENES, ["steps-to-target", *SEARCH, "--goal", "error<8"], "no score 'error'; it has iou, mean-iou"),
    ],
)
def test_what_a_task_has_not_is_one_line_before_any_run(recipe, words, said, tmp_path, capsys):
    assert main(["study", words[0], *recipe, *words[1:], "--out", str(tmp_path / "s")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert said in err[-1]
    assert not list((tmp_path / "s").glob("runs/*"))


def reached(minibatch, steps):
    return Reached(
        minibatch, steps, steps - 1, float(steps), 10 * steps, 1, None, 0.5, 4, 4, 0, 0, ((steps, steps - 1),) * 4
    )


def test_the_critical_minibatch_stands_in_tokens_too():
    """S = 100 (1 + 64 / B) sequences of 32 tokens: B_crit of 64 sequences is 2,048 tokens."""
    fields = {"goal": "loss<1.6", "minibatches": "8,16,32,64,128,256", "trials": 4}
    case = case_of("steps-to-target", recipe="topics-transformer", overrides=["data.sequence=32",
                   "minibatch.per_worker=8"], **fields)  # fmt: skip
    answer = answer_of_points([reached(b, round(100 * (1 + 64 / b))) for b in (8, 16, 32, 64, 128, 256)])
    document = as_json(case, answer)
    tokens, critical = document["critical_minibatch_tokens"], answer.fit.critical_minibatch
    assert tokens["value"] == pytest.approx(2048, rel=0.05)
    assert tokens["low"] < 2048 < tokens["high"]
    assert tokens["value"] == 32 * critical.value
    assert f"that is {critical.times(32).text('B_crit', 'tokens')}, and" in sentence(case, answer)
