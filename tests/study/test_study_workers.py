"""Scaling over workers: its cells, where the score falls, and the shard that misleads, on a tiny U-Net for real."""

import json
import math

import pytest

from batchscale.build.state import open_state
from batchscale.cli import main
from batchscale.recipe import load_recipe
from batchscale.records import Result
from batchscale.study.evidence.welch import t_quantile
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.question import Question
from batchscale.study.studies import cells_of, findings_of

TINY = ["model.options={width: 2, levels: 2}", "numerics.threads=1", "epochs=1", "data.train_images=64"]


def asked(images=256, overrides=(), **fields):
    recipe = load_recipe("digits-scenes-unet", [*TINY[:3], *overrides])
    question = Question(**{"compare": "unet", **fields})
    question.check(recipe)
    return Case(question, "digits-scenes-unet", (), recipe, lambda recipe: images)


def outcomes_of(case, folder, iou_at):
    """Made-up runs without checkpoints: labels -> IoU."""
    for cell in cells_of("scaling", case):
        content = {
            "status": "done", "recipe": "", "folder": "", "test_loss": 1.0, "train_loss": 0.5, "steps": 99,
            "epochs": 1.0, "images_per_second": 1.0, "wall_seconds": 1.0, "weights_sha256": None, "processes": 1,
            "workers": 1, "per_worker": 1, "test_error_percent": None, "test_error_median_last_5": None,
            "score": {"name": "iou", "unit": "%", "better": "higher", "value": iou_at(**cell.labels)},
        }  # fmt: skip
        yield Outcome(cell, folder / cell.key, "done", Result.model_validate(content))


def test_weak_keeps_n_and_scales_the_lr_and_strong_keeps_kn():
    cells = cells_of("scaling", asked(seeds=1, ways="plain,warmup,decay"))
    of = {(c.labels["mode"], c.labels["way"], c.labels["workers"]): c for c in cells}
    assert [of["weak", "plain", k].minibatch_images for k in (1, 2, 4, 8)] == [16, 32, 64, 128]
    assert [of["strong", "plain", k].recipe.minibatch.per_worker for k in (1, 2, 4, 8)] == [16, 8, 4, 2]
    assert {of["strong", "plain", k].minibatch_images for k in (1, 2, 4, 8)} == {16}
    assert of["weak", "plain", 4].target_lr == pytest.approx(2 * of["weak", "plain", 1].target_lr)  # its rule: sqrt
    assert of["weak", "plain", 1].key == of["strong", "plain", 1].key  # one run
    kinds = {way: of["weak", way, 2].recipe.learning_rate for way in ("plain", "warmup", "decay")}
    assert [(lr.warmup.kind, lr.decay.kind) for lr in kinds.values()] == [
        ("none", "none"), ("gradual", "none"), ("none", "cosine"),
    ]  # fmt: skip


def test_a_part_of_the_data_is_trained_on_by_the_first_way():
    cells = cells_of("scaling", asked(seeds=1, mode="weak", fractions="0.5,1", workers="1,2"))
    parts = [(c.labels["way"], c.recipe.data.train_fraction) for c in cells if c.labels["fraction"] == 0.5]
    assert parts == [("plain", 0.5)] * 2
    assert {c.recipe.data.train_images for c in cells} == {None}  # which images on disk would refuse
    assert {c.labels["way"] for c in cells if c.labels["fraction"] == 1} == {"plain", "warmup", "decay"}


def test_the_fall_is_where_the_mean_leaves_the_interval_of_the_smallest_k(tmp_path):
    case = asked(seeds=2, mode="weak", fractions="0.5,1", ways="plain", workers="1,2,4")

    def iou_at(workers, fraction, seed, **labels):
        lost = {0.5: {1: 0, 2: 20, 4: 40}, 1.0: {1: 0, 2: 0, 4: 40}}[fraction][workers]
        return 90.0 - lost + seed  # a deviation of sqrt(1/2)

    findings = findings_of("scaling", case, list(outcomes_of(case, tmp_path, iou_at)), [])
    half = t_quantile(1) * math.sqrt(0.5) / math.sqrt(2)
    small, full = findings.result["scaling"]["falls"]
    assert (small["examples"], full["examples"]) == (128, 256)
    assert small["low"] == pytest.approx(90.5 - half)
    assert small["minibatch"] == pytest.approx(16 * 2 ** (half / 20))
    assert full["minibatch"] == pytest.approx(32 * 2 ** (half / 40))
    low, high = 256 / full["minibatch"], 128 / small["minibatch"]
    assert f"about {min(low, high):.0f} to {max(low, high):.0f} steps" in findings.answer
    assert "falls" in findings.tables[-2].columns[4]


def test_where_nothing_falls_the_figure_shows_the_largest_minibatch_that_was_tried(tmp_path):
    case = asked(seeds=2, mode="weak", fractions="0.5,1", ways="plain", workers="1,2,4")

    def iou_at(workers, fraction, seed, **labels):
        return 90.0 - (40 if fraction == 1 and workers == 4 else 0) + seed

    findings = findings_of("scaling", case, list(outcomes_of(case, tmp_path, iou_at)), [])
    left, not_left = next(figure for figure in findings.figures if figure.id == "fall").series
    assert left.y[0] is None
    assert left.y[1] is not None
    assert not_left.y == (64, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "1,3"], "--workers=1,3: strong scaling parts kn = 16 evenly, and 3 does not divide it"),
        (["--workers", "1,2", "--processes", "1"], "--processes: a study over --workers runs on one process"),
        (["--fractions", "0.5,1"], "--fractions: is about workers; give --workers"),
        (["--workers", "1,2", "--fractions", "1,0.5"], "--fractions=1,0.5: must be rising numbers"),
        (["--workers", "1,2", "--fractions", "0.5,1", "data.train_images=64"], "the recipe has data.train_images=64"),
        (["--workers", "1,2", "--fractions", "0.5", "data.train_fraction=0.25"], "has data.train_fraction=0.25; leave"),
        (["--workers", "1,2", "--ways", "cold"], "--ways=cold: must name ways"),
        (["--workers", "2,1"], "--workers=2,1: must rise"),
    ],
)
def test_bad_questions_are_one_line(arguments, words, capsys):
    assert main(["study", "scaling", "digits-scenes-unet", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_one_command_trains_and_puts_the_first_shard_beside_the_whole(tmp_path, capsys):
    out = tmp_path / "s"
    command = ["study", "scaling", "digits-scenes-unet", *TINY, "--compare", "unet", "--workers", "1,4", "--seeds", "1"]
    assert main([*command, "--ways", "plain", "--mode", "weak", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    measured = {row["workers"]: row for row in document["scaling"]["measured"]}
    assert measured[1]["first_shard_minus_whole"] == 0
    (folder,) = (row["folder"] for row in document["rows"] if row["workers"] == 4)
    state = open_state(out / folder)
    counts = []
    for start in range(0, 50, 10):  # 200 test images: the first quarter, in pieces of ten
        pixels, masks = state.dataset.test.part(slice(start, start + 10))
        counts.append(state.task.evaluate_pass(state.model, state.normalizer(pixels), masks).counts)
    ious = [iou for iou in state.task.class_ious(sum(counts).tolist()) if iou is not None]
    assert measured[4]["first_shard"] == pytest.approx(100 * sum(ious) / len(ious))
    page = (out / "report.html").read_text()
    assert "PyTorch DDP (published)" in page
    assert "Training loss against workers" in page
    assert "test error" not in page
