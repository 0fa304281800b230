"""The page of the critical minibatch: like beside like, means over a run, disagreements, and what is refused."""

import json
import math

import pytest
from support.commands import refused
from support.critical import branched, changed, noise, whole_run, write_findings, write_run

from batchscale.cli import main
from batchscale.errors import FolderError
from batchscale.records.findings import Findings
from batchscale.report.critical.findings import critical_findings
from batchscale.report.critical.meetings import Meeting, meetings, trend
from batchscale.report.critical.readings import CriticalReading, mean_over_run
from batchscale.report.critical.sources import read_source
from batchscale.report.page import write_together


def reading(kind, seen, minibatch, low, high, name=None):
    return CriticalReading(kind, name or kind, seen, minibatch, low, high)


def noise_at(seen, *numbers):
    return reading("noise scale", seen, *numbers)


@pytest.mark.parametrize("minibatch", [1.0, 16.0, 500.0])
def test_a_mean_over_the_run_is_what_the_curve_over_the_whole_run_has(minibatch):
    """Two stretches of E_min examples each: the run takes sum E_min (1 + B / b), so B_crit = sum E_min / sum S_min."""
    stretches = [(90000.0, 180.0), (3000.0, 20.0)]
    first, second = (least * (1 + minibatch / critical) for least, critical in stretches)
    places = first - second, first + second  # the first holds up to half way between, and that is where it ends
    readings = [noise_at(place, b, b, b) for place, (_, b) in zip(places, stretches, strict=True)]
    mean = mean_over_run(readings, minibatch)
    assert mean.minibatch == pytest.approx(93000 / (90000 / 180 + 3000 / 20))
    assert (mean.low, mean.high, mean.seen) == (mean.minibatch, mean.minibatch, None)


def test_a_mean_holds_its_ends_and_knows_no_more_than_its_parts():
    parts = [noise_at(100, 10, 5, 20), noise_at(300, 40, 30, None)]
    mean = mean_over_run(parts, 16)
    assert 5 < mean.low < 10 < mean.minibatch < 40
    assert mean.high is None
    assert "mean of 2 checkpoints, 100 to 300 examples" in mean.note
    unknown = mean_over_run([noise_at(100, None, 5, 20), noise_at(300, 40, -3, 60)], 16)
    assert (unknown.minibatch, unknown.low) == (None, None)  # an end below zero is no bound
    assert 20 < unknown.high < 60
    alone = mean_over_run([noise_at(100, 10, 5, 20)], 16)
    assert (alone.minibatch, alone.low, alone.high) == pytest.approx((10, 5, 20))
    assert "no mean" in alone.note
    assert mean_over_run([noise_at(0, 10, 5, 20)], 16).minibatch == pytest.approx(10)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "least"),
    [
        ((10, 5, 20), (30, 25, 40), "disagree", 1.25),
        ((30, 25, 40), (10, 5, 20), "disagree", 1.25),
        ((10, 5, 20), (30, 15, 40), "meet", None),
        ((10, 5, 20), (None, 25, None), "disagree", 1.25),
        ((10, 5, None), (30, 25, 40), "meet", None),
        ((10, None, None), (30, 25, 40), "not told", None),
        ((None, None, 4), (30, 8, 40), "disagree", 2.0),
        ((10, -5, 0), (30, 8, 40), "disagree", math.inf),
    ],
)
def test_intervals_that_do_not_meet_are_a_disagreement(first, second, verdict, least):
    pair = Meeting(reading("branches", None, *first), noise_at(None, *second))
    assert (pair.verdict, pair.least_ratio) == (verdict, least)
    assert pair.as_json()["verdict"] == verdict
    json.dumps(pair.as_json(), allow_nan=False)


def test_like_is_set_beside_like():
    """Over the run with over the run; at a checkpoint with the same one; a way not with itself."""
    steps, mean = reading("steps to target", None, 1, 1, 1), reading("branches", None, 2, 2, 2)
    early, late = (reading("branches", seen, 3, 3, 3) for seen in (100, 900))
    pairs = list(meetings([steps, mean, early, late, noise_at(100, 4, 4, 4), noise_at(500, 5, 5, 5)]))
    assert [(p.first.kind, p.second.kind, p.first.seen) for p in pairs] == [
        ("steps to target", "branches", None), ("branches", "noise scale", 100),
    ]  # fmt: skip


def test_a_trend_is_told_where_first_and_last_do_not_meet():
    assert (
        trend([noise_at(1, 10, 8, 12), noise_at(2, 40, 30, 50)])
        == "noise scale: rises from 10 (8 to 12) to 40 (30 to 50)"
    )
    assert "falls from 40" in trend([noise_at(1, 40, 30, 50), noise_at(2, 10, 8, 12)])
    assert "no trend is shown" in trend([noise_at(1, 10, 8, 31), noise_at(2, 40, 30, 50)])
    assert trend([noise_at(1, 10, 8, 31)]) is None


@pytest.fixture
def three(tmp_path):
    """Steps to target 60 (50 to 75); branches rise from 30 to 250; the noise scale falls from 30 to 25."""
    steps = write_findings(tmp_path / "steps", "steps-to-target", whole_run(60, 50, 75), warnings=["w"])
    rows = (100, 30, 20, 45), (500, 60, 40, 90), (1500, 250, 150, 400)
    branches = write_findings(tmp_path / "branches", "branch", branched(*rows))
    measures = [
        write_findings(
            tmp_path / f"noise{step}", "noise-scale", {"step": step, **noise(scale, 0.9 * scale, 1.1 * scale)}
        )
        for step, scale in ((100, 32), (500, 26), (1500, 25))
    ]
    return [steps, branches, *measures]


def test_the_page_of_three_ways_holds_their_words_and_values(three, capsys):
    assert main(["report", *map(str, three), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "critical-minibatch"
    assert document["report"] == str(three[0] / "critical-minibatch.html")
    page = (three[0] / "critical-minibatch.html").read_text()
    for words in (
        "shakespeare-transformer: the critical minibatch, 3 ways", "steps to target 60 (50 to 75)",
        "mean of 3 checkpoints, 1,600 to 24,000 examples", "Branches: rises from 30 (20 to 45) to 250 (150 to 400)",
        "Noise scale: falls from 32",
        "branches and noise scale disagree at 2 of 3 checkpoints, most after 24,000 examples, by 5.45 times at least",
        "optimizer.name=adamw: the noise scale is of plain gradients", "The largest minibatch without loss",
        "What each way measures and assumes", "the search was as lucky at every minibatch",
        f"{three[0]} (steps to target): 1 warning on its own page",
    ):  # fmt: skip
        assert words in page, words
    assert "Where their recipes differ" not in page
    over = {e["way"]: e for e in document["critical"] if e["examples_seen"] is None}
    assert set(over) == {"steps to target", "branches", "noise scale"}
    along = [(e["way"], e["examples_seen"], e["minibatch"]) for e in document["critical"] if e["examples_seen"]]
    assert along == [
        ("branches", 1600, 30), ("noise scale", 1600, 32), ("branches", 8000, 60), ("noise scale", 8000, 26),
        ("branches", 24000, 250), ("noise scale", 24000, 25),
    ]  # fmt: skip
    verdicts = {(*c["ways"], c["examples_seen"]): c["verdict"] for c in document["comparisons"]}
    assert verdicts["branches", "noise scale", 1600] == "meet"
    assert verdicts["branches", "noise scale", 24000] == "disagree"
    assert verdicts["steps to target", "noise scale", None] == "disagree"
    assert '<td class="num">3840</td>' in page  # 60 sequences are 3,840 tokens


def test_branches_are_told_by_twice_the_fewest_examples_as_the_others_are(three):
    """Not by twice those of factor 1, which lies 2 kn above; that stands beside it."""
    first, *_ = read_source(three[1]).readings
    assert (first.minibatch, first.low, first.high) == (30, 20, 45)
    assert first.twice_first == 62


def test_rules_of_branches_are_ways_of_their_own(tmp_path):
    both = branched((100, 30, 20, 45))
    both["critical"] += branched((100, 40, 30, 60), rule="adam_sde", settled=False)["critical"]
    source = read_source(write_findings(tmp_path / "b", "branch", both))
    assert [r.name for r in source.readings] == ["branches, rule sqrt", "branches, rule adam_sde"]
    assert "unsettled" in source.readings[1].note
    assert [n.name for n in source.no_loss] == ["branches, rule sqrt", "branches, rule adam_sde"]


def test_a_run_that_measured_its_noise_scale_is_the_mean_over_its_steps_and_a_line(tmp_path):
    run = write_run(tmp_path / "run", noise(22.0, 20.0, 25.0, steps=90), lines=[(10, 30.0), (20, None), (40, 10.0)])
    source = read_source(run)
    (one,) = source.readings
    assert (one.minibatch, one.low, one.high, one.seen, one.note) == (22, 20, 25, None, "mean over 90 steps")
    assert source.line == ((80.0, 30.0), (240.0, None), (480.0, 10.0))
    steps = write_findings(tmp_path / "steps", "steps-to-target", whole_run(60, 50, 75))
    findings = critical_findings([read_source(steps), source], [])
    assert isinstance(findings, Findings)
    (figure,) = findings.figures
    assert [series.name for series in figure.series] == ["noise scale, lines of the run"]
    assert figure.marks[0].y == 60
    assert "disagree over the run, by 2 times at least (steps to target above)" in findings.answer


def test_a_measure_within_a_run_counts_the_examples_of_that_run(tmp_path):
    run = write_run(tmp_path / "run", None, lines=[(10, None), (20, None)])
    (run / "metrics.jsonl").write_text(
        '{"step": 10, "minibatch": 16}\n{"step": 20, "minibatch": 32}\n{"step": 30, "minibatch": 64}\n'
    )
    for step, seen in ((20, 480), (10, 160), (25, 480 + 5 * 64), (35, 1120 + 5 * 64), (5, 80)):
        folder = run / "measures" / str(step)
        write_findings(folder, "noise-scale", {"step": step, **noise(22, 20, 25, unit="worker")}, recipe=None)
        (one,) = read_source(folder).readings
        assert (one.seen, one.note) == (seen, "unit worker")


def test_a_measure_kept_elsewhere_says_how_many_examples_were_seen(tmp_path):
    """Without its run a step alone is no number of examples: 0 of them would be a place of the run."""
    result = {"step": 20, **noise(22, 20, 25)}
    (one,) = read_source(write_findings(tmp_path / "now", "noise-scale", {**result, "examples_seen": 480.0})).readings
    assert one.seen == 480
    (earlier,) = read_source(write_findings(tmp_path / "earlier", "noise-scale", result, recipe=None)).readings
    assert earlier.seen in (None, 20 * 16)


def test_a_run_brings_the_measures_that_lie_in_it(tmp_path):
    """Of Adam both forms; an interval of another level, and one from zero on, which is no bound."""
    run = write_run(tmp_path / "run", noise(22.0, 20.0, 25.0, steps=90), lines=[(100, 5.0)])
    weighted = noise(300.0, 0.0, None)
    for step, level in ((40, 0.9), (90, 0.99)):
        result = {"step": step, **noise(20, 18, 23, level=level), "preconditioned": weighted}
        write_findings(run / "measures" / f"noise-scale-{step}", "noise-scale", result, recipe=None, warnings=["w"])
    write_findings(run / "measures" / "sharpness-40", "sharpness", {"step": 40}, recipe=None)
    source = read_source(run)
    assert [(r.name, r.seen, r.minibatch, r.low) for r in source.readings] == [
        ("noise scale in training", None, 22, 20),
        ("noise scale", 640, 20, 18), ("noise scale, preconditioned", 640, 300, None),
        ("noise scale", 1440, 20, 18), ("noise scale, preconditioned", 1440, 300, None),
    ]  # fmt: skip
    assert [r.note for r in source.readings[1:4:2]] == ["", "interval of 99 %"]
    assert source.warnings == 2
    steps = read_source(write_findings(tmp_path / "steps", "steps-to-target", whole_run(60, 50, 75)))
    means = [e["way"] for e in critical_findings([steps, source], []).result["critical"] if e["examples_seen"] is None]
    assert means == ["steps to target", "noise scale", "noise scale in training", "noise scale, preconditioned"]


def test_what_is_not_resolved_stays_a_bound(tmp_path):
    steps = write_findings(
        tmp_path / "s", "steps-to-target", whole_run(None, 1024.0, None, why="above the largest: a bound")
    )
    run = write_run(tmp_path / "run", noise(None, 40.0, None))
    findings = critical_findings([read_source(steps), read_source(run)], [])
    assert "steps to target above 1,024;" in findings.answer
    assert "noise scale in training above 40" in findings.answer
    assert "no two of them are told apart" in findings.answer.lower()
    table = findings.tables[0]
    assert table.columns == ("way", "low", "note")
    assert table.rows == (
        ("steps to target", 1024, "above the largest: a bound"), ("noise scale in training", 40, "not resolved"),
    )  # fmt: skip


def test_a_number_of_a_study_of_an_earlier_version_that_is_no_minibatch_is_none(tmp_path):
    study = write_findings(tmp_path / "b", "branch", branched((100, -8.0, -10.0, 3.0), (200, None, -16.0, None)))
    readings = read_source(study).readings
    assert [(r.minibatch, r.low, r.high) for r in readings] == [(None, None, 3.0), (None, None, None)]


def test_another_recipe_is_refused_and_other_settings_are_listed(three, tmp_path):
    other = write_findings(tmp_path / "o", "branch", branched((1, 2, 1, 3)), changed(model={"options": {"width": 32}}))
    with pytest.raises(FolderError) as error:
        write_together([three[0], other], [])
    assert str(error.value) == (
        f"{other}: is of another recipe than {three[0]} (model.options.width=32 for model.options.width=64); a page is "
        f"of one recipe: leave one of them out"
    )
    assert not (three[0] / "critical-minibatch.html").exists()
    searched = write_findings(
        tmp_path / "d", "branch", branched((1, 2, 1, 3)), changed(learning_rate={"reference": 0.5}) | {"epochs": 9}
    )
    table = critical_findings([read_source(three[0]), read_source(searched)], []).tables[-1]
    assert table.title == "Where their recipes differ"
    assert table.rows == (("learning_rate.reference", "0.002", "0.5"),)


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (("steps", "missing"), "missing: is no folder"),
        (("steps", "steps2"), "one way to the critical minibatch alone (steps to target); give folders of two ways"),
        (
            ("steps", "grid"),
            "a grid study says nothing of the critical minibatch; give folders of study steps-to-target",
        ),
        (("steps", "unanswered"), "a branch study without an answer; give"),
        (("steps", "plain"), "this run has not measured its noise scale; give"),
        (("steps", "old"), "a steps-to-target study of an earlier version, without its critical minibatch"),
        (("steps", "begun"), "a study that has not finished; give its command again"),
        (("steps", "nothing"), "says nothing of the critical minibatch"),
        (("steps", "damaged"), "damaged"),
    ],
)
def test_folders_that_make_no_page_are_refused_in_one_line(folders, line, tmp_path, capsys):
    for name in ("steps", "steps2"):
        write_findings(tmp_path / name, "steps-to-target", whole_run(60, 50, 75))
    write_findings(tmp_path / "grid", "grid", {})
    write_findings(tmp_path / "unanswered", "branch", {"critical": []})
    write_findings(tmp_path / "old", "steps-to-target", {"points": []})
    write_run(tmp_path / "plain", None)
    for name in ("begun", "nothing", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "begun" / "study.json").write_text("{}")
    (tmp_path / "damaged" / "findings.json").write_text("{")
    assert line in refused(capsys, "report", *(str(tmp_path / name) for name in folders))
    assert not list(tmp_path.rglob("*.html"))


def test_the_page_goes_where_it_is_asked_to_and_one_folder_needs_no_place(three, tmp_path, capsys):
    assert main(["report", str(three[0]), str(three[1]), "--out", str(tmp_path / "new" / "page")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(tmp_path / "new" / "page" / "critical-minibatch.html")
    assert printed[0].startswith("Half efficiency over the run, in examples: steps to target 60 (50 to 75);")
    assert "is for several folders" in refused(capsys, "report", str(three[0]), "--out", str(tmp_path))
