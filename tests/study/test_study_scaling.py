"""Warmup, strong and weak scaling: rules of thumb on known numbers, one small study of each for real."""

import json
import math
from pathlib import Path

import pytest
from support.cases import case_of

from batchscale.cli import main
from batchscale.errors import UsageError
from batchscale.records import Result
from batchscale.records.files import read_lines
from batchscale.records.findings import read_findings
from batchscale.study.evidence.curves import Curve, loss_curve, mean_curve, score_curve
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import judged_of
from batchscale.study.evidence.published import UNET
from batchscale.study.evidence.timing import PHASES, timing_of
from batchscale.study.evidence.welch import margin, t_quantile
from batchscale.study.runner.cell import Outcome
from batchscale.study.scaling.answer import Passing, passing, rows_of, strong_limit, weak_limit
from batchscale.study.scaling.question import parse_processes
from batchscale.study.studies import cells_of, findings_of
from batchscale.study.warmup.question import parse_kinds


@pytest.mark.parametrize(
    ("measured", "bound", "falls", "expected"),
    [
        ([(1, 1.0), (2, 0.9), (4, 0.7)], 0.8, True, Passing(2 * math.sqrt(2), 2)),
        ([(1, 1.0), (2, 0.9), (4, 0.8)], 0.8, True, Passing(None, 4)),  # on the bound is within
        ([(1, 1.0), (2, 0.5), (4, 0.9)], 0.75, True, Passing(math.sqrt(2), 1)),  # the first passing counts
        ([(1, 1.0), (2, None), (4, 0.1)], 0.8, True, Passing(None, 1)),  # unknown: no further
        ([(1, 0.0), (4, 1.0)], 0.5, False, Passing(2.0, 1)),
        ([(1, 0.0), (2, 0.2), (4, math.inf)], 0.5, False, Passing(2.0, 2)),  # diverged: right after the last within
        ([(2, 0.9)], 0.5, False, Passing(2.0, None)),
    ],
)
def test_the_count_at_which_a_bound_is_passed(measured, bound, falls, expected):
    found = passing(measured, bound, falls)
    assert (found.processes, found.within) == (pytest.approx(expected.processes), expected.within)


def test_the_published_series_by_the_same_code():
    points = UNET["PyTorch Horovod"]
    shares = [(m.gpus, m.images_per_second / points[0].images_per_second / m.gpus) for m in points]
    assert shares[1][1] == pytest.approx(194.16 / 174.88 / 2)
    assert 1 < passing(shares, 0.8, falls=True).processes < 2
    assert all(len(of) == 8 for of in UNET.values())


def asked(**changes):
    overrides = ["minibatch.workers=4", "epochs=2", "learning_rate.decay.kind=none"]
    return case_of("scaling", **{"processes": (1, 2, 4), "seeds": 2, "overrides": overrides, **changes})


def scaling_cells(**changes):
    return cells_of("scaling", asked(**changes))


def test_strong_keeps_the_minibatch_and_weak_the_images_of_a_process():
    cells = scaling_cells()
    of = {(c.labels["mode"], c.processes): c for c in cells if c.labels["seed"] == 0}
    assert [of["strong", w].minibatch_images for w in (1, 2, 4)] == [128, 128, 128]
    assert [of["weak", w].minibatch_images for w in (1, 2, 4)] == [128, 256, 512]
    assert of["strong", 1].key == of["weak", 1].key  # one run
    assert len({c.key for c in cells}) == 2 * 5
    assert len({c.recipe.numerics.threads for c in cells}) == 1  # the same at every W
    assert [c.labels["seed"] for c in cells] == [0] * 6 + [1] * 6  # a round times every W in turn
    assert of["weak", 4].target_lr == pytest.approx(0.0125 * 512 / 32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"processes": (1, 8), "mode": "strong"}, "minibatch.workers=4 over the processes; use at most 4"),
        ({"processes": (1, 16), "mode": "weak"}, "2048 exceeds the 1437 training images"),
    ],
)
def test_what_cannot_be_scaled(changes, said):
    with pytest.raises(UsageError) as caught:
        scaling_cells(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "0,1", "2,1", "1,1", "1,x", "٢,٣", "9" * 5000])
def test_bad_lists_of_processes(text):
    with pytest.raises(UsageError, match="--processes="):
        parse_processes(text)


def write_intervals(run, intervals, environment=None):
    """Lines of metrics: (step, steps of the interval or None for a line without, images/s, seconds of a step)."""
    lines, before = [], 0
    for step, steps, speed, seconds in intervals:
        phases = {phase: i * seconds * (steps or step - before) for i, phase in enumerate(PHASES, 1)}
        line = {"step": step, "images_per_second": speed, "interval_steps": steps, "phase_seconds": phases}
        lines.append({entry: value for entry, value in line.items() if value is not None})
        before = step
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if environment is not None:
        (run / "environment.json").write_text(json.dumps(environment))


def outcome_with(cell, folder, speed, error, on="test", apart=0.05):
    """A run that trained at this speed to this error (None: it diverged), its first interval slow."""
    run = folder / f"{cell.labels['mode']}-{cell.key}"
    run.mkdir(exist_ok=True)
    write_intervals(run, [(10, 10, 1.0, 9.0), (20, 10, (1 - apart) * speed, 0.04), (50, 30, (1 + apart) * speed, 0.06)])
    result = Result(
        status="done" if error is not None else "diverged", recipe="", folder="", test_error_percent=error,
        test_error_median_last_5=error, test_loss=1.0, train_loss=1.0, steps=1, epochs=1.0, images_per_second=1.0,
        wall_seconds=1.0, weights_sha256=None, processes=1, workers=1, per_worker=1, evaluated_on=on,
    )  # fmt: skip
    return Outcome(cell, run, result.status, result)


def test_speed_ups_are_paired_by_seed_and_leave_out_the_first_interval(tmp_path):
    speeds = {1: (100.0, 200.0), 2: (190.0, 380.0), 4: (240.0, 480.0)}
    errors = {("weak", 1): (2.0, 2.2), ("weak", 2): (2.0, 2.4), ("weak", 4): (4.0, None)}
    question = asked(efficiency_bound=0.8, error_bound=0.5, compare="unet")
    outcomes = [
        outcome_with(
            c, tmp_path, speeds[c.processes][c.labels["seed"]],
            errors.get((c.labels["mode"], c.processes), (2.0, 2.2))[c.labels["seed"]],
        )
        for c in cells_of("scaling", question)
    ]  # fmt: skip
    rows = rows_of(outcomes)
    assert [(r.mode, r.processes, round(r.speed_up, 6), round(r.efficiency, 6)) for r in rows] == [
        ("strong", 1, 1.0, 1.0), ("strong", 2, 1.9, 0.95), ("strong", 4, 2.4, 0.6),
        ("weak", 1, 1.0, 1.0), ("weak", 2, 1.9, 0.95), ("weak", 4, 2.4, 0.6),
    ]  # fmt: skip
    assert rows[0].phases == pytest.approx({phase: 50.0 * i for i, phase in enumerate(PHASES, 1)})
    assert rows[0].images_per_second == 150.0
    assert strong_limit(rows, 0.8) == Passing(pytest.approx(2 ** (1 + 0.15 / 0.35)), 2)
    assert weak_limit(rows, 0.5, judged_of(outcomes)) == Passing(2.0, 2)  # W = 4 diverged once
    found = findings_of("scaling", question, outcomes, [])
    assert found.answer.startswith(
        "Strong scaling's efficiency falls below 0.8 between 2 and 4 processes (about 2.7). Weak scaling's mean test "
        "error rises to more than 0.5 points above W = 1's 2.10 % between 2 and 4 processes."
    )
    assert "need not follow images/s" in found.tables[0].caption
    assert [w for w in found.warnings if "weak, W = 4: 1 of 2 runs diverged" in w]
    assert next(f for f in found.figures if f.id == "weak-error").series[0].y[-1] is None
    assert found.environment["versions"]["torch"]
    held = findings_of("scaling", asked(), [outcome_with(o.cell, tmp_path, 1.0, 2.0, "holdout") for o in outcomes], [])
    assert "Weak scaling's mean holdout error stays" in held.answer
    assert held.result["scaling"]["evaluated_on"] == "holdout"
    assert {row["held_out_error_percent"] for row in held.result["scaling"]["measured"]} == {2.0}
    assert {row["test_error_percent"] for row in held.result["scaling"]["measured"]} == {None}
    assert "test error" not in held.model_dump_json().lower()


def test_speeds_that_are_not_measurable_are_said_to_be_so_before_anything_else(tmp_path):
    question = asked(processes=(1, 2), seeds=1)
    runs = [
        outcome_with(
            c, tmp_path, 100.0, 2.0, apart={1: 0.05, 2: 0.3 if c.labels["mode"] == "strong" else 0.2}[c.processes]
        )
        for c in cells_of("scaling", question)
    ]
    found = findings_of("scaling", question, runs, [])
    assert found.answer.startswith(
        "Not measurable now (spread 20 % to 30 %): speeds and efficiencies are hints at best, to be timed again on a "
        "quiet machine. Strong scaling's efficiency falls below 0.8 between 1 and 2 processes (about 1.3)."
    )
    assert [m["spread"] for m in found.result["scaling"]["measured"]] == pytest.approx([0.05, 0.3, 0.05, 0.2])
    assert "strong W = 2 30%, weak W = 2 20%" in "".join(found.warnings)


_ATTEMPTS = {"from_step": 40, "earlier": [{"from_step": 15}, {"damaged": True}, {"from_step": 0}]}


def test_the_first_interval_of_every_attempt_is_left_out(tmp_path):
    """Killed at step 17 and at step 44; went on from the checkpoints of steps 15 and 40."""
    slow, quick = 1.0, 100.0
    first = [(10, 10, slow, 9.0), (20, 5, slow, 9.0)]
    write_intervals(tmp_path, [*first, (30, 10, quick, 0.02), (40, 10, quick, 0.02), (50, 10, slow, 9.0)], _ATTEMPTS)
    found = timing_of(tmp_path)
    assert (found.images_per_second, found.spread, found.device) == (quick, 0.0, "unknown")
    assert found.phase_milliseconds["data"] == pytest.approx(20)
    write_intervals(tmp_path, first, _ATTEMPTS)  # none but first ones: of as many steps as they say
    assert timing_of(tmp_path).phase_milliseconds["data"] == pytest.approx(9000)


def test_a_folder_without_interval_steps_and_damaged_lines(tmp_path):
    write_intervals(tmp_path, [(10, None, 1.0, 9.0), (20, None, 1.0, 9.0), (30, None, 100.0, 0.02)], _ATTEMPTS)
    assert timing_of(tmp_path).phase_milliseconds["update"] == pytest.approx(100)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 35, "phase_seconds": {}}\n{"phase_seconds": 1}\n{"step": 38, "images_per_second": null}\n')
        file.write('{"step": 39, "images_per_second": 7.0, "phase_seconds": {"data": 1.0}}\n{"step": "x"}\n')
    assert timing_of(tmp_path).images_per_second == 100.0
    (tmp_path / "environment.json").write_text("[")
    assert timing_of(tmp_path).images_per_second == 50.5
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert timing_of(tmp_path) is None


def test_curves_are_windows_of_lines_and_means_of_runs(tmp_path):
    lines = [{"step": s, "epoch": s / 100, "loss": float(s)} for s in range(1, 601)]
    damaged = '{"epoch": 1.0, "loss": null}\n{"loss": 1.0}\n{"epoch": "x", "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + damaged)
    found = loss_curve(tmp_path, epochs=6.0)
    assert len(found.epochs) == 60
    assert (found.epochs[0], found.values[0]) == (0.1, 5.5)
    mean = mean_curve([Curve((1, 2, 3), (1.0, 2.0, 3.0)), Curve((1, 2), (3.0, 4.0))])
    assert mean == Curve((1, 2), (2.0, 3.0), (1.0, 2.0), (3.0, 4.0))
    assert score_curve(tmp_path) == Curve((), ())


def warming(**changes):
    fields = {"minibatch": 256, "seeds": 2, "overrides": ["epochs=2", "learning_rate.decay.kind=none"]}
    return case_of("warmup", **(fields | changes))


def warmup_cells(**changes):
    return cells_of("warmup", warming(**changes))


def warmup_findings(case, outcomes):
    return findings_of("warmup", case, outcomes, [])


_ERRORS = {"reference": (1.0, 1.2), "none": (5.0, None), "constant": (3.0, 3.2), "gradual": (1.5, 1.7)}


def warmed(cell, errors, on="test"):
    """Way -> one error a seed, None for a run that diverged; no result of a seed beyond them."""
    each = errors[cell.labels["warmup"]]
    if cell.labels["seed"] >= len(each):
        return Outcome(cell, Path("nowhere") / cell.key, "failed", error="no")
    error = each[cell.labels["seed"]]
    result = Result(
        status="diverged" if error is None else "done", recipe="", folder="", test_error_percent=error or 90.0,
        test_error_median_last_5=0.0, test_loss=1.0, train_loss=0.1, steps=1, epochs=1.0, images_per_second=1.0,
        wall_seconds=1.0, weights_sha256=None, processes=1, workers=1, per_worker=1, evaluated_on=on,
    )  # fmt: skip
    return Outcome(cell, Path("nowhere") / cell.key, result.status, result)


def test_warmup_compares_the_kinds_with_the_reference():
    cells = warmup_cells()
    assert [(c.labels["warmup"], c.minibatch_images) for c in cells if c.labels["seed"] == 0] == [
        ("reference", 32), ("none", 256), ("constant", 256), ("gradual", 256),
    ]  # fmt: skip
    assert len({c.key for c in cells}) == 8

    asked = warming()
    found = warmup_findings(asked, [warmed(cell, _ERRORS) for cell in cells])
    assert "lowest with gradual warmup, +0.50 points from kn = 32" in found.answer
    assert found.answer.startswith("At kn = 256 the test error")
    assert found.environment["versions"]["torch"]
    assert found.result["warmup"]["ways"]["none"] == {
        "test_error_percent": None, "deviation": None, "train_loss": None, "train_loss_deviation": None, "diverged": 1,
    }  # fmt: skip
    assert found.result["warmup"]["ways"]["gradual"]["test_error_percent"] == pytest.approx(1.6)
    held = warmup_findings(asked, [warmed(cell, _ERRORS, "holdout") for cell in cells])
    assert held.result["warmup"]["evaluated_on"] == "holdout"
    gradual = held.result["warmup"]["ways"]["gradual"]
    assert (gradual["test_error_percent"], gradual["held_out_error_percent"]) == (None, pytest.approx(1.6))
    assert "test error" not in held.model_dump_json().lower()
    with pytest.raises(UsageError, match=r"--warmup-epochs=3: must not be longer than the run, .* of at most 2"):
        warmup_cells(warmup_epochs=3.0)
    for changes in ({"minibatch": 32}, {"minibatch": 2048}, {"overrides": ["learning_rate.scaling=none"]}):
        with pytest.raises(UsageError):
            warmup_cells(**changes)
    for kinds in ("", "slow", "none,none"):
        with pytest.raises(UsageError, match="--kinds="):
            parse_kinds(kinds)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (1e4, 1.9602)])
def test_the_quantile_of_students_t(degrees, quantile):
    assert t_quantile(degrees) == pytest.approx(quantile, abs=1e-4)


def test_the_margin_is_welchs():
    a, b = Point(1, (1.0, 2.0, 3.0)), Point(1, (5.0, 9.0))
    # e^2 = 1 / 3 + 8 / 2, f = e^4 / (1 / 18 + 16) = 1.16955
    assert margin(a, b) == pytest.approx(t_quantile(1.16955) * math.sqrt(13 / 3), rel=1e-4)
    assert margin(a, a) == pytest.approx(2.7764 * math.sqrt(2 / 3), rel=1e-4)
    assert margin(Point(1, (1.0, 1.0)), Point(1, (2.0, 2.0))) == 0.0
    assert margin(a, Point(1, (5.0,))) is None


def test_what_the_seeds_do_not_tell_apart_and_what_cannot_be_told():
    asked = warming(seeds=3)
    cells = cells_of("warmup", asked)

    def said(**errors):
        found = warmup_findings(asked, [warmed(cell, errors) for cell in cells]).answer
        return found[found.index("no warmup 9.20 ") :].split("; ")[-1]

    best, near, far = (2.6, 2.8, 3.0), (3.0, 3.2, 3.4), (9.0, 9.2, 9.4)
    # near is 0.4 above best: beyond two standard errors, 0.33, within t(4) = 2.78 of them
    assert said(reference=near, gradual=best, constant=near, none=far) == (
        "the seeds do not tell constant warmup from it (Welch's t, 95 %)."
    )
    assert said(reference=near, gradual=best, constant=far[:1], none=far) == (
        "whether constant warmup differs cannot be told: no spread is known."
    )
    assert said(reference=near, gradual=best[:1], constant=far, none=far) == (
        "whether no warmup, constant warmup differ cannot be told: no spread is known."
    )
    assert said(reference=near, gradual=best, constant=far, none=far).endswith("gradual warmup 2.80 ± 0.20 %.")


def test_a_real_scaling_study(tmp_path, capsys):
    out = tmp_path / "study"
    words = ["study", "scaling", "digits-cnn", "minibatch.workers=2", "epochs=1", "learning_rate.decay.kind=none"]
    words += ["--processes", "1,2", "--seeds", "1", "--out", str(out), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"rows", "scaling", "answer"}
    assert len(document["rows"]) == 4
    assert len(list((out / "runs").glob("*/result.json"))) == 3  # strong and weak at W = 1 are one run
    strong = [m for m in document["scaling"]["measured"] if m["mode"] == "strong"]
    assert [m["processes"] for m in strong] == [1, 2]
    assert all(set(m["phase_milliseconds"]) == set(PHASES) for m in strong)
    assert strong[0]["test_error_percent"] == pytest.approx(strong[1]["test_error_percent"], abs=1.0)
    assert {f.id for f in read_findings(out).figures} == {
        "speed-up", "efficiency", "phases-strong", "phases-weak", "weak-error",
    }  # fmt: skip
    run = out / document["rows"][0]["folder"]
    line = read_lines(run / "metrics.jsonl")[-1]
    assert sum(line["phase_seconds"].values()) > 0
    assert timing_of(run).phase_milliseconds["backward"] > 0


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys):
    for words in (
        ["scaling", "digits-cnn", "--processes", "2,1"],
        ["scaling", "digits-cnn", "--processes", "1,2", "--mode", "strong"],
        ["scaling", "digits-cnn", "--jobs", "2"],
        ["warmup", "digits-cnn", "--minibatch", "16"],
        ["minibatch-error", "digits-cnn", "--minibatches", ""],
        ["minibatch-error", "digits-cnn", "--minibatches", "64,32"],
        ["minibatch-error", "digits-cnn", "--minibatches", "32,4096"],
    ):
        assert main(["study", *words, "--out", str(tmp_path / "none")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not (tmp_path / "none").exists()
