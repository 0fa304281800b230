"""A study of branches, tiny and for real: its bookkeeping, its runs, what it refuses. Findings are not its matter."""

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import t
from support.cases import IMAGES, case_of
from support.commands import refused
from support.launching import Started

from batchscale.build.planning import plan_of, schedule_of
from batchscale.build.trunk import Trunk
from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.records.findings import read_findings
from batchscale.study.branch.recipes import trunk_recipe
from batchscale.study.branch.window import Window
from batchscale.study.studies import cells_of

RECIPE = ("digits-cnn", "numerics.threads=1", "minibatch.per_worker=8", "epochs=1", "learning_rate.decay.kind=cosine",
          "learning_rate.decay.epochs=[]")  # fmt: skip
ASKED = ("--at", "6", "--factors", "1,2", "--window", "128", "--seeds", "3")
RULES = ("--rules", "linear,none")


def study(*words, out):
    return ["study", "branch", *words, "--out", str(out), "--json"]


def answered(capsys, *words, out, code=0):
    assert main(study(*words, out=out)) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(folder, document) of a study of one checkpoint, two factors, two rules and three seeds."""
    out = tmp_path_factory.mktemp("branch") / "s"
    command = [sys.executable, "-m", "batchscale", *study(*RECIPE, *ASKED, *RULES, out=out)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return out, json.loads(ended.stdout)


def recipe_of(out, row):
    return load_recipe(out / row["folder"] / "recipe.yaml")


def test_there_is_a_row_for_every_branch_and_factor_1_is_trained_once_for_all_rules(found):
    out, document = found
    places = [(row["step"], row["factor"], row["rule"], row["seed"]) for row in document["rows"]]
    assert sorted(places) == [(6, f, r, s) for f in (1, 2) for r in ("linear", "none") for s in (1, 2, 3)]
    assert {row["status"] for row in document["rows"]} == {"done"}
    assert {row["minibatch"] for row in document["rows"]} == {8, 16}
    folders = {(row["factor"], row["rule"], row["seed"]): row["folder"] for row in document["rows"]}
    assert all(folders[1, "linear", seed] == folders[1, "none", seed] for seed in (1, 2, 3))
    assert len(set(folders.values())) == 3 + 2 * 3
    table = read_findings(out).rows
    assert len({row["folder"] for row in table if row["part"] == "control"}) == 2 * 3
    assert len({row["folder"] for row in table}) == len(list((out / "runs").glob("*/result.json")))


def test_differences_are_to_the_same_seed_and_intervals_are_students(found):
    out, document = found
    losses = {}
    for row in document["rows"]:
        result = json.loads((out / row["folder"] / "result.json").read_text())
        assert row["loss"] == result["test_loss"]
        losses[row["rule"], row["factor"], row["seed"]] = row["loss"]
    for row in document["rows"]:
        rule, factor, seed = row["rule"], row["factor"], row["seed"]
        assert row["difference"] == losses[rule, factor, seed] - losses[rule, 1, seed]
        assert (row["interval"] is None) == (factor == 1)
        if factor > 1:
            each = [losses[rule, factor, s] - losses[rule, 1, s] for s in (1, 2, 3)]
            reach = t.ppf(0.95, 2) * statistics.stdev(each) / 3**0.5
            mean = statistics.fmean(each)
            assert row["interval"] == pytest.approx([mean - reach, mean + reach], rel=1e-9)
    assert len(set(losses.values())) == 3 + 2 * 3  # seeds and rules are not one and the same


def test_branches_of_all_factors_end_with_the_same_example_and_average_alike(found):
    out, document = found
    for row in document["rows"]:
        recipe = recipe_of(out, row)
        result = json.loads((out / row["folder"] / "result.json").read_text())
        assert (result["steps"] - 6) * row["minibatch"] == 128
        assert result["epochs"] == pytest.approx((6 * 8 + 128) / IMAGES, rel=1e-5)
        assert recipe.branch.seed == row["seed"]
        kappa = 8 / 32 * (1 if row["rule"] == "none" else row["factor"])  # the trunk's rule is linear
        assert recipe.model.ema_decay**kappa == pytest.approx(2 ** (-row["minibatch"] / (128 / 16)))
        lines = (out / row["folder"] / "evaluations.jsonl").read_text().splitlines()
        seen = [(json.loads(line)["step"] - 6) * row["minibatch"] for line in lines]
        assert seen == list(Window(8, (1, 2), 128).points)


def test_the_answer_is_of_both_definitions_and_every_rule(found):
    out, document = found
    answers = [(entry["step"], entry["definition"], entry["rule"]) for entry in document["critical"]]
    kinds = ("no_loss", "half_efficiency")
    assert sorted(answers) == sorted((6, kind, rule) for kind in kinds for rule in ("linear", "none"))
    for entry in document["critical"]:
        if entry["definition"] == "no_loss":
            assert entry["minibatch"] in (8, 16)
            assert entry["interval"][0] == entry["minibatch"]
            assert entry["tolerance"] == pytest.approx(0.01 * entry["reference_loss"])
    spent = document["examples"]
    assert spent["trunk"] == 6 * 8
    assert spent["branches"] == 9 * 128
    assert spent["controls"] == 6 * 128
    assert spent["sweep"] == 3 * 3 * (6 * 8 + 128)
    assert {control["lr_factor"] for control in document["controls"]} == {0.5, 2.0}
    figures = {figure.id for figure in read_findings(out).figures}
    assert {"difference-minibatch", "critical-minibatch", "window-6"} <= figures


def test_a_branch_that_has_not_the_loss_of_factor_1_goes_on_from_its_own_end(found):
    out, document = found
    losses = {(row["rule"], row["seed"]): row["loss"] for row in document["rows"] if row["factor"] == 1}
    longer = [row for row in read_findings(out).rows if row["part"] == "longer"]
    behind = [row for row in document["rows"] if row["factor"] == 2 and not reaches(out, row, losses)]
    assert len(longer) == len(behind) > 0
    for row in longer:
        branch = json.loads((out / row["folder"] / "branch.json").read_text())
        assert branch["step"] == 6 + 128 // 16
        assert branch["trunk"]["step"] == 6
        assert recipe_of(out, row).branch.seed == 0
        assert row["steps"] <= 6 + 2 * 128 // 16


def reaches(out, row, losses):
    lines = (out / row["folder"] / "evaluations.jsonl").read_text().splitlines()
    return any(json.loads(line)["loss"] <= losses[row["rule"], row["seed"]] for line in lines)


def files_of(folder):
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_asked_again_it_trains_nothing(found, capsys):
    out, document = found
    before = {run: files_of(run) for run in out.glob("runs/*/")}
    assert answered(capsys, *RECIPE, *ASKED, *RULES, out=out) == document
    assert {run: files_of(run) for run in out.glob("runs/*/")} == before


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_numbers(found, tmp_path, capsys):
    out, document = found
    killed = tmp_path / "s"
    started = Started(*study(*RECIPE, *ASKED, *RULES, out=killed))
    started.wait_until(lambda: len(list(killed.glob("runs/*/result.json"))) >= 4)
    started.process.kill()
    started.end()  # its runs, too: they write no more
    whole = {path.parent: files_of(path.parent) for path in killed.glob("runs/*/result.json")}
    assert 4 <= len(whole) < len(list(out.glob("runs/*/result.json")))
    moved = tmp_path / "moved"
    killed.rename(moved)  # what has begun knows its trunk, wherever the study lies now
    again = answered(capsys, *RECIPE, *ASKED, *RULES, out=moved)
    assert again == document
    assert {moved / run.relative_to(killed): len(files) for run, files in whole.items()} == {
        moved / run.relative_to(killed): len(files_of(moved / run.relative_to(killed))) for run in whole
    }


def test_of_a_run_the_branches_are_those_of_the_study_that_trained_it(found, tmp_path, capsys):
    out, document = found
    (trunk,) = {row["folder"] for row in read_findings(out).rows if row["part"] == "trunk"}
    run = tmp_path / "trunk"
    shutil.copytree(out / trunk, run)
    words = ("--at", "6", "--factors", "1,2", "--window", "128", "--seeds", "1", "--rules", "linear")
    alone = answered(capsys, str(run), *words, out=tmp_path / "s")
    losses = {(row["factor"], row["seed"]): row["loss"] for row in document["rows"] if row["rule"] == "linear"}
    assert {(row["factor"], row["seed"]): row["loss"] for row in alone["rows"]} == {
        place: loss for place, loss in losses.items() if place[1] == 1
    }
    assert alone["critical"][0]["minibatch"] is None
    warnings = " ".join(read_findings(tmp_path / "s").warnings)
    assert "--seeds=1: fewer than 3, so no interval is known" in warnings
    assert "the window is 8 steps of the largest factor" in warnings
    assert "no checkpoint of this step; it has" in refused(
        capsys,
        "study",
        "branch",
        str(run),
        "--at",
        "5",
        "--window",
        "128",
        "--factors",
        "2",
        "--out",
        str(tmp_path / "n"),
    )
    for extra, sentence in (
        (["numerics.exact=true"], "numerics.exact=true: the run was trained in fast mode"),
        (["--lr-sweep"], "--lr-sweep: the trunk is trained already"),
        (["learning_rate.reference=1"], "learning_rate.reference=1.0: the trunk was trained with 0.0125"),
    ):
        assert sentence in refused(capsys, "study", "branch", str(run), *words, *extra, "--out", str(tmp_path / "n"))
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused(capsys, "study", "branch", str(tmp_path / "empty"), *words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--factors", "1,2", "--window", "100"],
            "--window=100: must be a multiple of the largest factor's minibatch, 16",
        ),
        (["--factors", "1,16", "--window", "64"], "leave out factors above 1, or give a window of at least 128"),
        (["--factors", "1,256"], "--factors: factor 256 is a minibatch of 2048, more than the 1437 training examples"),
        (["--factors", "2,1"], "--factors=2,1: must be whole numbers of at least 1 that rise"),
        (["--factors", "two"], "--factors=two: must be whole numbers"),
        (["--factors", "2", "--rules", "cubic"], "--rules: 'cubic' is no rule of learning_rate.scaling"),
        (["--factors", "2", "--rules", "none,none"], "a rule stands twice"),
        (
            ["--factors", "2", "--rules", "linear,adascale"],
            "--rules: adascale, and the trunk has learning_rate.scaling=linear: adascale goes on from steps that",
        ),
        (["--factors", "2", "--lr-sweep", "2,1"], "--lr-sweep=2,1: must be multiples of the recipe's lr"),
        (["--factors", "2", "--window", "64", "--warmup", "65"], "--warmup=65: must not be longer than the window"),
        (["--factors", "2", "--tolerance", "0"], "must be a number above 0"),
        (["--factors", "2", "minibatch.growth={kind: doubling, every_epochs: 0.5}"], "this study sets one minibatch"),
        (["--factors", "2", "data.partial=drop"], "data.partial=drop: every factor would drop other examples"),
        (["--factors", "2", "--at", "200"], "--at: step 200 lies beyond the recipe's last step, 180"),
    ],
)
def test_what_is_no_question_is_one_line_and_leaves_nothing(words, sentence, tmp_path, capsys):
    at = [] if "--at" in words else ["--at", "6"]
    assert sentence in refused(capsys, "study", "branch", *RECIPE, *at, *words, "--out", str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_a_rule_that_leaves_nothing_of_a_beta_names_the_largest_factor_that_works(tmp_path, capsys):
    words = ["topics-transformer", "--at", "10", "--rules", "adam_sde", "--out", str(tmp_path / "s")]
    line = refused(capsys, "study", "branch", *words, "--factors", "1,4,8,16")
    assert "--factors: factor 16: learning_rate.scaling=adam_sde at kn = 256: kappa = 16 makes beta1" in line
    assert "the largest factor given that works is 8" in line
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("decay", ["none", "cosine", "polynomial"])
def test_the_trunk_has_the_lr_of_the_whole_recipe_and_ends_at_its_last_checkpoint(decay):
    whole = load_recipe(
        "digits-cnn", ["minibatch.per_worker=8", f"learning_rate.decay={{kind: {decay}}}", "epochs=1.37"]
    )
    trunk = trunk_recipe(whole, Window(8, (1, 2), 64), (7, 40), IMAGES, 1.0)
    plan, short = plan_of(whole, IMAGES), plan_of(trunk, IMAGES)
    assert short.total_steps == 40
    assert trunk.execution.keep_checkpoints.steps == (7, 40)
    lrs = [schedule_of(whole, plan)(step) for step in range(40)]
    assert [schedule_of(trunk, short)(step) for step in range(40)] == pytest.approx(lrs, rel=1e-9)


def test_a_sweep_trains_the_trunk_at_every_lr():
    case = case_of("branch", at="6,9", factors="2", window=64, lr_sweep="0.5,1,2", overrides=["minibatch.per_worker=8"])
    cells = cells_of("branch", case)
    assert [cell.labels["lr_factor"] for cell in cells] == [0.5, 1.0, 2.0]
    assert [cell.recipe.learning_rate.reference for cell in cells] == [0.00625, 0.0125, 0.025]
    assert len({cell.key for cell in cells}) == 3


def test_a_run_that_is_a_branch_of_another_minibatch_is_no_trunk(monkeypatch):
    """Ten steps of 8 and ten of 16: not 20 x 16, from which windows and epochs are counted."""
    small, larger = (load_recipe("digits-cnn", ["minibatch.per_worker=8", f"minibatch.workers={k}"]) for k in (1, 2))
    for recipe, seen in ((larger, 240), (small, None)):
        trunk = Trunk("run", 20, "", recipe, Trunk("trunk", 10, "", small))
        monkeypatch.setattr("batchscale.run.branch.read_trunk", lambda point, trunk=trunk: (trunk, None))
        workers = recipe.minibatch.workers
        case = case_of(
            "branch", at="20", factors="2", overrides=["minibatch.per_worker=8", f"minibatch.workers={workers}"]
        )
        case = replace(case, run=Path("run"))
        if seen is None:
            assert cells_of("branch", case)
            continue
        with pytest.raises(
            UsageError, match=f"^run: 20 steps of it are {seen} training examples, not 20 x 16: .* by itself$"
        ):
            cells_of("branch", case)
