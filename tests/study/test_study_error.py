"""Error against minibatch: the grammar of lists and rules, the elbow on known rows, and one small study for real."""

import csv
import json
import math
from pathlib import Path

import pytest
from support.cases import case_of

from batchscale.cli import main
from batchscale.errors import RecipeError, UsageError
from batchscale.records import Result
from batchscale.records.findings import read_findings
from batchscale.study.evidence.elbow import Point, compare_rules, find_elbow
from batchscale.study.minibatch_error.figures import _scale
from batchscale.study.rules import Rule, parse_minibatches, parse_rules, rule_of, workers_of
from batchscale.study.runner.cell import Outcome
from batchscale.study.studies import cells_of, findings_of

GOYAL = [  # Goyal et al. 2017, figure 1: minibatch, mean error in percent over 5 runs, its standard deviation
    (256, 23.60, 0.12), (512, 23.48, 0.09), (1024, 23.53, 0.08), (2048, 23.49, 0.11), (4096, 23.56, 0.12),
    (8192, 23.74, 0.09), (16384, 24.79, 0.27), (32768, 27.55, 0.28), (65536, 33.96, 0.80),
]  # fmt: skip


def points(*errors):
    """Minibatches 1, 2, 4, ... with these errors."""
    return [Point(2**i, e if isinstance(e, tuple) else (e,)) for i, e in enumerate(errors)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64", (64,)),
        ("64,128, 192", (64, 128, 192)),
        ("64,128,...,1024", (64, 128, 256, 512, 1024)),
        ("16,24,...,54", (16, 24, 36, 54)),
        ("2^4..2^7", (16, 32, 64, 128)),
        ("16..64", (16, 32, 64)),
    ],
)
def test_lists_of_minibatches(text, expected):
    assert parse_minibatches(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the list is empty"),
        ("128,64", "64 after 128: the list must rise, each minibatch once; write 64,128"),
        ("64,64", "must rise"),
        ("64,x", "'x' must be a whole number of at least 1"),
        ("0,64", "'0' must be"),
        ("64,,128", "'' must be"),
        ("64,...,128", "two rising numbers before it"),
        ("64,128,...", "up to the one"),
        ("64,128,...,1000", "end at 512 or 1024"),
        ("16,24,...,100", "end at 81, or write"),
        ("10000,10001,...,1000000", "end at 10001, or write"),
        ("32,48,...,512", "end at 243, or write"),
        ("٦٤", "'٦٤' must be a whole number"),
        ("2^٤..2^7", "'2^٤' must be a whole number"),
        ("2^7..2^4", "powers of two"),
        ("48..96", "powers of two"),
    ],
)
def test_bad_lists_are_told_in_one_line(text, said):
    with pytest.raises(UsageError, match="--minibatches") as caught:
        parse_minibatches(text)
    assert said in str(caught.value)


def test_rules_are_a_scaling_and_a_warmup():
    assert parse_rules("none, linear+gradual") == (Rule("none", "none"), Rule("linear", "gradual"))
    assert [rule.name for rule in parse_rules("sqrt,linear+constant,linear+none")] == [
        "sqrt",
        "linear+constant",
        "linear",
    ]
    for text in ("", "cubic", "linear+slow", "linear+", "none,none", "linear,linear+none"):
        with pytest.raises(UsageError, match="--rules"):
            parse_rules(text)


def test_workers_keep_n_and_name_the_nearest_multiples():
    assert workers_of(256, 32) == (8, 32)
    assert workers_of(16, 32) == (1, 16)
    with pytest.raises(UsageError, match="use 96 or 128"):
        workers_of(100, 32)


def test_the_elbow_of_a_published_figure():
    found = find_elbow([Point(kn, (e,)) for kn, e, _ in GOYAL], Point(256, (23.60,)), 0.5)
    assert (found.minibatch, found.at_least, found.shares) == (8192, False, {})
    seeds = [Point(kn, (e - 1.4 * s, e - 0.1 * s, e, e + 0.1 * s, e + 1.4 * s)) for kn, e, s in GOYAL]
    sure = find_elbow(seeds, seeds[0], 0.5)
    assert (sure.minibatch, sure.low, sure.high, sure.shares) == (8192, 8192, 8192, {"8192": 1.0})
    close = find_elbow(seeds, seeds[0], 0.14 + 1e-6)  # where 8,192 lies on the edge
    assert (close.minibatch, close.high) == (8192, 8192)
    assert close.low < 8192
    assert sum(close.shares.values()) == pytest.approx(1)
    assert close == find_elbow(seeds, seeds[0], 0.14 + 1e-6)  # keyed: the same again


@pytest.mark.parametrize(
    ("errors", "elbow", "at_least"),
    [
        ([1.0, 1.2, 1.4, 3.0], 4, False),
        ([1.0, 2.0, 1.0, 1.0], 1, False),  # a smaller one beyond the tolerance ends it
        ([1.0, 1.5, 1.5], 4, True),  # on the edge counts as within
        ([1.0, 0.5, math.inf, 1.0], 2, False),
        ([1.0, 0.5, (), 1.0], 2, False),  # no result: unknown is not within
        ([math.inf, 1.0], None, False),
    ],
)
def test_the_elbow_is_the_last_in_a_row_within_the_tolerance(errors, elbow, at_least):
    of = points(*errors)
    found = find_elbow(of, of[0], 0.5)
    assert (found.minibatch, found.at_least) == (elbow, at_least)


def test_a_rule_beyond_the_tolerance_at_the_reference_has_no_elbow():
    found = compare_rules({"a": points(3.0, 1.0), "b": points(1.0, 1.0)}, 1, 0.5)
    assert (found.reference_rule, found.best) == ("b", "b")
    assert found.elbows["a"].minibatch is None
    assert compare_rules({"a": points(1.0, 9.0), "b": points(1.0, 2.0)}, 1, 0.5).best == "b"  # alike: the lower beyond
    assert find_elbow(points(9.0, 1.0, 1.0), Point(2, (1.0,)), 0.5).minibatch == 4  # those below are not counted


def test_a_diverged_seed_counts_as_often_as_it_is_drawn():
    found = find_elbow(points((1.0, 1.0, 1.0), (1.0, 1.0, math.inf)), Point(1, (1.0, 1.0, 1.0)), 0.5)
    assert found.minibatch == 1
    assert found.shares["2"] == pytest.approx((2 / 3) ** 3, abs=0.03)  # not drawn in three draws
    assert (found.low, found.high) == (1, 2)


KIND = "minibatch-error"


def question(**changes):
    fields = {"minibatches": (16, 32, 64), "rules": "none,linear+gradual", "seeds": 2} | changes
    return case_of(KIND, **fields)


def test_runs_that_are_the_same_share_one_key():
    cells = cells_of(KIND, question())
    assert len(cells) == 2 * 3 * 2
    keys = {
        (c.labels["rule"], c.labels["minibatch"]): {x.key for x in cells if x.labels == c.labels}
        for c in cells
        if c.labels["seed"] == 0
    }
    assert keys["none", 32] == keys["linear+gradual", 32]  # the reference: one lr
    assert keys["none", 16] != keys["linear+gradual", 16]
    assert keys["none", 64] != keys["linear+gradual", 64]
    small = next(c.recipe for c in cells if c.labels["minibatch"] == 16)
    assert (small.minibatch.workers, small.minibatch.per_worker) == (1, 16)
    large = next(c.recipe for c in cells if c.labels == {"minibatch": 64, "rule": "linear+gradual", "seed": 1})
    assert (large.minibatch.workers, large.seed, rule_of(large).name) == (2, 1, "linear+gradual")
    assert large.learning_rate.warmup.steps == 5


def test_a_warmup_that_changes_the_decay_is_another_run_even_at_the_reference():
    cells = cells_of(KIND, question(overrides=["learning_rate.decay={kind: cosine}"], rules="linear,linear+gradual"))
    assert len({c.key for c in cells if c.labels["minibatch"] == 32}) == 2 * 2


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"minibatches": (32, 2048)}, UsageError, "2048 exceeds the 1437 training images; the largest given one that"),
        ({"minibatches": (2048,)}, UsageError, "2048 exceeds the 1437 training images; none given fits; give at most"),
        ({"minibatches": (32, 40)}, UsageError, "use 32 or 64"),
        ({"reference": 256}, UsageError, "--reference=256: must be one of"),
        ({"overrides": ["minibatch.growth={kind: doubling}"]}, RecipeError, "minibatch.growth.kind=doubling"),
        ({"overrides": ["learning_rate.warmup={kind: none}"]}, UsageError, "--warmup-epochs: missing"),
        ({"warmup_epochs": 31.0}, UsageError, "--warmup-epochs=31: must not be longer than the run, which at kn = 16"),
        ({"overrides": ["learning_rate.warmup={kind: gradual, epochs: 40}"]}, UsageError, "warmup.epochs=40: must not"),
        ({"overrides": ["learning_rate.warmup={kind: gradual, steps: 700}"]}, UsageError, "steps=700: must not"),
    ],
)
def test_what_cannot_be_asked(changes, error, said):
    with pytest.raises(error) as caught:
        cells_of(KIND, question(**changes))
    assert said in str(caught.value)


def made_up(cells, errors, on="test"):
    """Outcomes with these errors: (rule, minibatch) -> one a seed, None for a run that diverged."""
    for cell in cells:
        error = errors[cell.labels["rule"], cell.labels["minibatch"]][cell.labels["seed"]]
        result = Result(
            status="done" if error is not None else "diverged", recipe="", folder="", test_error_percent=error or 90.0,
            test_error_median_last_5=(error or 90.0) + 10, test_loss=1.0, train_loss=1.0, steps=1, epochs=1.0,
            images_per_second=1.0, wall_seconds=1.0, weights_sha256=None, processes=1, workers=1, per_worker=1,
            evaluated_on=on,
        )  # fmt: skip
        yield Outcome(cell, Path("nowhere") / cell.key, result.status, result)


def test_the_document_of_known_errors():
    errors = {
        ("none", 16): (1.0, 1.0), ("none", 32): (1.0, 1.2), ("none", 64): (4.0, None),
        ("linear+gradual", 16): (1.0, 1.0), ("linear+gradual", 32): (1.0, 1.2), ("linear+gradual", 64): (1.4, 1.2),
    }  # fmt: skip
    asked = question()
    found = findings_of(KIND, asked, list(made_up(cells_of(KIND, asked), errors)), ["batchscale"])
    elbow = found.result["elbow"]
    assert (elbow["minibatch"], elbow["best_rule"], elbow["reference_minibatch"]) == (64, "linear+gradual", 32)
    assert elbow["reference_error_percent"] == pytest.approx(1.1)
    assert (elbow["rules"]["none"]["minibatch"], elbow["at_least"]) == (32, True)
    assert "at least kn = 64, the largest tried" in found.answer
    assert [w for w in found.warnings if "rule none (lr unscaled) at kn = 64: 1 of 2 runs diverged" in w]
    assert found.answer == (
        "With rule linear+gradual the mean test error stays within 0.5 points of kn = 32 (1.10 %) up to at least "
        "kn = 64, the largest tried (two seeds: too few to tell its uncertainty); with rule none (lr unscaled), at no "
        "larger minibatch tried."
    )
    assert [w for w in found.warnings if w.startswith("two seeds: 2,000 resamples of two runs say little")]
    assert found.tables[0].rows[1][3:5] == (64, 64)  # the interval stays in the table
    figure = found.figures[0]
    assert [s.y for s in figure.series] == [(1.0, 1.1, None), (1.0, 1.1, pytest.approx(1.3))]
    assert figure.series[1].low == (1.0, 1.0, 1.2)  # two seeds: the two themselves
    assert figure.x.scale == "log2"
    assert len(found.rows) == 12
    later = findings_of(KIND, question(statistic="median5"), list(made_up(cells_of(KIND, asked), errors)), [])
    assert later.result["elbow"]["reference_error_percent"] == pytest.approx(11.1)
    assert found.environment["versions"]["torch"]
    assert "the mean test error stays" in found.answer
    held = findings_of(KIND, asked, list(made_up(cells_of(KIND, asked), errors, "holdout")), ["batchscale"])
    assert held.result["elbow"]["evaluated_on"] == "holdout"
    assert "holdout error" in held.answer
    assert "test error" not in held.model_dump_json().lower()


def test_three_seeds_give_an_interval_and_a_rule_that_reaches_further_a_clause():
    errors = {(rule, kn): (1.0, 1.1, 1.2) for rule in ("none", "linear+gradual") for kn in (16, 32, 64, 128)}
    errors |= {("none", 128): (4.0, 4.1, 4.2)}
    asked = question(seeds=3, minibatches=(16, 32, 64, 128))
    found = findings_of(KIND, asked, list(made_up(cells_of(KIND, asked), errors)), ["batchscale"])
    assert "the largest tried (90 % of 2,000 resamples of the seeds at 128)" in found.answer
    assert found.answer.endswith("; with rule none (lr unscaled), up to kn = 64.")
    assert not [w for w in found.warnings if "two seeds" in w]


def test_a_real_study_goes_on_and_repeats_nothing(tmp_path, capsys):
    out = tmp_path / "study"
    words = ["study", "minibatch-error", "digits-cnn", "epochs=2", "learning_rate.decay.kind=none", "--seeds", "1"]
    words += ["numerics.threads=1", "--rules", "none,linear+gradual", "--out", str(out), "--json"]
    assert main([*words, "--minibatches", "32,64"]) == 0
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*/result.json")}
    assert len(before) == 3  # at the reference both rules are one run
    assert main([*words, "--minibatches", "32,64,128"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"rows", "elbow", "answer"}
    assert {"minibatch", "rule", "seed", "status", "test_error_percent", "folder"} <= set(document["rows"][0])
    assert len(document["rows"]) == 6
    assert document["elbow"]["reference_minibatch"] == 32
    assert {p: p.stat().st_mtime_ns for p in before} == before
    found = read_findings(out)
    assert [len(s.x) for s in found.figures[0].series] == [3, 3]
    assert all(len(s.x) > 1 for f in found.figures[1:] for s in f.series)
    assert (out / found.figures[0].series[0].runs[0] / "result.json").is_file()
    with open(out / "table.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_an_error_axis_is_logarithmic_where_the_worst_would_press_the_best_flat():
    assert _scale([8.0, 31.0, math.inf]) == "linear"
    assert _scale([8.0, 33.0]) == "log10"
    assert _scale([0.0, 33.0]) == "linear"  # zero has no logarithm
    assert _scale([math.inf]) == "linear"
