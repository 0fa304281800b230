"""What a study of branches says of made-up losses: its warnings, its answer, its documents; which trunk it branches."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.cases import IMAGES, case_of

from batchscale.build.trunk import Trunk
from batchscale.records.findings import Findings
from batchscale.study.branch.answer import answer_of, as_json
from batchscale.study.branch.cells import best_trunk, first_cells, following
from batchscale.study.branch.figures import figures, tables
from batchscale.study.branch.recipes import branch_recipe
from batchscale.study.branch.words import asked, sentence, warnings
from batchscale.study.runner.cell import Outcome

FIELDS = {"at": "10", "factors": "1,2,4", "window": 1024, "seeds": 4}
OVERRIDES = ["minibatch.per_worker=8", "learning_rate.warmup.kind=none"]
CHUNKS = 8


def write(folder, step, loss, spread=0.0, wiggle=0):
    """An evaluation line; the spread of the chunks' losses sums to nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [[10, loss + spread * (-1) ** (place + wiggle)] for place in range(CHUNKS)]
    line = {"step": step, "loss": loss if math.isfinite(loss) else None, "chunks": chunks}
    with open(folder / "evaluations.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def trained(tmp_path, case, losses, controls=(2.0, 2.0), spread=0.0):
    """Outcomes of a trunk and its branches.

    Args:
        losses: factor -> loss where the window ends; half of the window is 0.5 higher.
        controls: losses of factor 1 at half and at twice the lr.
        spread: of the evaluation set's chunks, opposed in factors above 1.
    """
    trunk = [Outcome(cell, tmp_path / cell.key, "done") for cell in first_cells(case)]
    write(trunk[0].folder, 10, 3.0)
    outcomes = list(trunk)
    window = case.question.window_of(case.recipe)
    for cell in following(case, trunk):
        labels, folder = cell.labels, tmp_path / cell.key
        factor, kn = labels["factor"], cell.minibatch_images
        loss = losses[factor] if labels["part"] == "branch" else controls[labels["lr_factor"] > 1]
        loss += 1e-4 * labels["seed"] * (factor - 1)
        write(folder, 10 + window.half // kn, loss + 0.5)
        write(folder, 10 + window.examples // kn, loss, spread, wiggle=int(factor > 1))
        status = "diverged" if math.isinf(loss) else "done"
        outcomes.append(Outcome(cell, folder, status))
    return outcomes


def said(tmp_path, losses, fields=FIELDS, **more):
    case = case_of("branch", overrides=OVERRIDES, **fields)
    outcomes = trained(tmp_path, case, losses, **more)
    answer = answer_of(case, outcomes)
    return list(warnings(case, answer, outcomes)), sentence(case, answer), as_json(case, answer)


def test_what_is_plain_has_no_warning(tmp_path):
    lines, text, document = said(tmp_path, {1: 2.0, 2: 2.0, 4: 2.2})
    assert lines == []
    assert text.startswith("After 80 images: without loss up to 16 (32 is worse), half efficiency ")
    assert document["critical"][0]["minibatch"] == 16
    assert document["critical"][0]["interval"] == [16, 32]


def test_where_larger_factors_gain_the_trunks_lr_is_named(tmp_path):
    lines, *_ = said(tmp_path, {1: 2.0, 2: 1.9, 4: 2.0}, controls=(1.8, 2.1))
    (line,) = lines
    assert line.startswith("after 10 steps: factor 2 ends below factor 1: the trunk's lr is what is being measured")
    assert "at 0.5 times its lr factor 1 gains 0.2" in line


def test_where_another_lr_alone_gains_it_is_said_too(tmp_path):
    (line,) = said(tmp_path, {1: 2.0, 2: 2.0, 4: 2.0}, controls=(2.1, 1.7))[0]
    assert "the trunk's lr is not its best (at 2 times its lr factor 1 gains 0.3)" in line


def test_twice_the_examples_below_twice_kn_are_no_critical_minibatch(tmp_path):
    """Factor 2 does not reach factor 1's loss in twice the window: r = 2 is put at root 2, and B_crit below 0."""
    lines, _, document = said(tmp_path, {1: 2.0, 2: math.inf, 4: math.inf})
    half = next(entry for entry in document["critical"] if entry["definition"] == "half_efficiency")
    assert half["minibatch"] == pytest.approx(8 * math.sqrt(2))
    assert (half["b_crit"], half["b_crit_interval"]) == (None, [None, None])
    assert half["why"] == "twice the examples are needed below twice kn"
    assert any("twice the images are needed at 11 already, below twice kn" in line for line in lines)


def test_batch_norm_is_measured_without_the_lag_of_running_averages(tmp_path):
    """It is ten steps, so f times the examples at factor f; a run that is there keeps its own, and is warned of."""
    case = case_of("branch", overrides=OVERRIDES, **FIELDS)
    outcomes = trained(tmp_path, case, {1: 2.0, 2: 2.0, 4: 2.0})
    assert {outcome.cell.recipe.batch_norm.running for outcome in outcomes} == {"recomputed"}
    assert "Every evaluation recomputes batch norm's statistics" in asked(case, outcomes)
    of_run = replace(case, run=tmp_path / "run")
    answer = answer_of(case, outcomes)
    line = "the run was trained with batch_norm.running=averages"
    assert [w.startswith(line) for w in warnings(of_run, answer, outcomes)] == [True]
    kept = replace(of_run, recipe=outcomes[0].cell.recipe)
    assert not list(warnings(kept, answer, outcomes))


def test_an_evaluation_set_too_small_names_the_size_that_would_do(tmp_path):
    """Chunk differences of +-0.1 over 8 chunks: SE = 0.1 / sqrt 7; 1.645 SE against 1 % of 2."""
    (line,) = said(tmp_path, {1: 2.0, 2: 2.0, 4: 2.2}, spread=0.05)[0]
    error = 0.1 / 7**0.5
    wanted = math.ceil(80 * (1.6448536 * error / (0.01 * 2.0)) ** 2)
    assert f"too small to tell 0.02: about {wanted:,} images would do" in line


def test_few_seeds_and_a_short_window_are_warned(tmp_path):
    lines, text, document = said(tmp_path, {1: 2.0, 2: 2.0, 4: 2.0}, {**FIELDS, "seeds": 2, "window": 512})
    assert lines[0].startswith("--seeds=2: fewer than 3, so no interval is known")
    assert lines[1].startswith("the window is 16 steps of the largest factor")
    assert "give --window 1024 or more" in lines[1]
    assert "too few seeds to tell" in text
    assert document["critical"][0]["interval"] is None
    assert all(row["interval"] is None for row in document["rows"])


def test_branches_that_diverged_are_worse_and_stand_in_documents(tmp_path):
    lines, text, document = said(tmp_path, {1: 2.0, 2: 2.0, 4: math.inf})
    assert document["critical"][0]["interval"] == [16, 32]
    assert "(32 is worse)" in text
    assert sum("(factor 4) diverged" in line for line in lines) == 4
    case = case_of("branch", overrides=OVERRIDES, **FIELDS)
    outcomes = trained(tmp_path / "2", case, {1: 2.0, 2: 2.0, 4: math.inf})
    answer = answer_of(case, outcomes)
    drawn = {"figures": tuple(figures(case, answer, outcomes)), "tables": tuple(tables(case, answer))}
    words = dict.fromkeys(("title", "recipe", "asked", "answer"), text)
    Findings(kind="branch", command=(), environment={}, result=document, **words, **drawn).write(tmp_path)
    assert "Infinity" not in (tmp_path / "findings.json").read_text()


def test_of_a_sweep_the_trunk_with_the_lowest_loss_at_its_end_is_branched(tmp_path):
    case = case_of("branch", overrides=OVERRIDES, **{**FIELDS, "lr_sweep": "0.5,1,2", "at": "6,10"})
    cells = first_cells(case)
    outcomes = [Outcome(cell, tmp_path / cell.key, "done") for cell in cells]
    for outcome, (early, late) in zip(outcomes, [(2.0, 1.5), (2.5, 1.0), (2.9, 0.1)], strict=True):
        write(outcome.folder, 6, early)
        write(outcome.folder, 10, late)
    outcomes[2] = replace(outcomes[2], status="diverged")
    assert best_trunk(case, outcomes) is outcomes[1]
    branches = following(case, outcomes)
    assert {cell.trunk.folder for cell in branches} == {str(outcomes[1].folder)}
    assert {cell.trunk.step for cell in branches} == {6, 10}
    assert {cell.recipe.learning_rate.reference for cell in branches} == {0.00625, 0.0125, 0.025}  # with the controls
    nothing = [replace(outcome, status="diverged") for outcome in outcomes]
    assert following(case, nothing) == []
    assert "No answer: no trunk came to its last checkpoint" in sentence(case, answer_of(case, nothing))


def test_only_branches_that_have_not_the_loss_go_on_and_stop_there(tmp_path):
    case = case_of("branch", overrides=OVERRIDES, **FIELDS)
    outcomes = trained(tmp_path, case, {1: 2.0, 2: 1.9, 4: 2.2})
    longer = following(case, outcomes)
    assert {(cell.labels["factor"], cell.labels["part"]) for cell in longer} == {(4, "longer")}
    assert len(longer) == 4
    for cell in longer:
        assert cell.recipe.execution.stop_below.loss == 2.0
        assert cell.trunk.step == 10 + 1024 // 32
    assert following(case, [*outcomes, Outcome(longer[0], tmp_path / "l", "done")]) == []


@pytest.mark.parametrize(("factor", "warmup"), [(1, 0), (2, 96)])
def test_a_warmup_is_of_the_branches_above_factor_1(factor, warmup):
    case = case_of("branch", overrides=OVERRIDES, **{**FIELDS, "warmup": 96})
    (trunk,) = first_cells(case)
    point = Trunk(str(Path()), 10, "", trunk.recipe)
    recipe = branch_recipe(point, case.question.window_of(case.recipe), factor, "linear", 1, 96, IMAGES)
    assert recipe.branch.warmup == warmup
