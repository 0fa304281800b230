"""`plan RECIPE` at the command line: its document, its page, what it reads, and what it refuses in one line."""

import json
import math
import re
import shutil
import subprocess
import sys

import pytest
from support.critical import changed, whole_run, write_findings

from batchscale.cli import main
from batchscale.cli.plan import with_kind
from batchscale.cost.planning.spans import parse_span
from batchscale.records.findings import read_findings
from batchscale.report.page import html

PLAN = ("plan", "imagenet-resnet50-1h", "--cluster", "dgx-a100", "--devices", "8..512")
KEYS = {"devices", "minibatch", "algorithm", "examples_per_second", "efficiency", "epochs", "hours", "cost", "interval"}


def planned(capsys, *words, code=0):
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    try:
        code = main([*PLAN, *words])
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def table(path, text):
    path.write_text(text)
    return str(path)


def speeds(path, *rows, columns="devices,per_device_batch,examples_per_second"):
    return table(path, "\n".join([columns, *(",".join(map(str, row)) for row in rows)]))


def test_the_document_has_the_fixed_keys_and_every_device_count(capsys):
    document = planned(capsys, *PLAN)
    assert [row["devices"] for row in document["rows"]] == [8, 16, 32, 64, 128, 256, 512]
    assert all(set(row) >= KEYS for row in document["rows"])
    assert {"recommended", "stops_paying_at", "warnings"} <= set(document)
    for row in document["rows"]:
        low, high = row["interval"]
        assert low <= row["hours"] <= high
        steps = row["epochs"] * 1281167 / row["minibatch"]
        work = steps * row["step_seconds"]
        between = 3600 * row["failures"]["between_hours"]
        anew = between * math.exp(300 / between) * math.expm1(work / between)
        kept = work / (1 - row["failures"]["lost_percent"] / 100)
        assert 3600 * row["hours"] == pytest.approx(min(anew, kept))
        assert row["hours"] > work / 3600
        assert row["cost"] == pytest.approx(row["hours"] * row["devices"] * document["price_per_device_hour"])
    at_recipe = next(row for row in document["rows"] if row["minibatch"] == 8192)
    assert at_recipe["epochs"] == 90  # the recipe's own


def test_a_plan_of_a_shipped_net_never_imports_torch():
    words = [*PLAN, "--json"]
    check = (
        f"from batchscale.cli import main; assert main({words!r}) == 0\nimport sys\n"
        f"assert not {{'torch', 'scipy'}} & set(sys.modules)\n"  # scipy: as long to load as all the rest
        f"assert not {{'batchscale.cli.train', 'batchscale.cli.study', 'batchscale.cli.bench'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mine.yaml", "--json"], ["recipe", "mine.yaml", "--json"]),
        (["--cluster", "x", "mine.yaml"], ["recipe", "--cluster", "x", "mine.yaml"]),
        (["validate", "a.csv"], ["validate", "a.csv"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_what_is_no_other_kind_is_a_recipe(words, expected):
    assert with_kind(words) == expected


def test_a_launch_by_hand_takes_the_place_of_the_clusters(capsys):
    words = [*PLAN, "--devices", "512", "--goal", "90", "minibatch.per_worker=1", "minibatch.workers=512"]
    seconds = {
        launch: planned(capsys, *words, "--launch", launch)["scaling"]["strong"][0]["step_seconds"]
        for launch in ("0.01", "100", "200")
    }
    layers = 143
    assert seconds["200"] - seconds["100"] >= 2 * layers * 100e-6  # forward and backward; stragglers come on top
    assert seconds["200"] - seconds["100"] == pytest.approx(2 * layers * 100e-6, rel=0.08)
    assert seconds["0.01"] < 2 * layers * 100e-6 < seconds["100"]


def test_gradients_in_16_bits_take_less_of_a_slow_link(capsys):
    slow = (*PLAN[:-1], "64", "--link", "10,5")
    seconds = [planned(capsys, *slow, f"numerics.wire={wire}")["rows"][0]["step_seconds"] for wire in ("fp32", "bf16")]
    assert seconds[1] < 0.7 * seconds[0]
    told = refused(capsys, "numerics.wire=bf16", "numerics.exact=true")
    assert "numerics.wire=bf16 with numerics.exact=true" in told


def test_a_text_that_is_parted_otherwise_asks_for_its_examples(capsys):
    text = ("plan", "shakespeare-transformer", "--cluster", "dgx-1", "--devices", "1")
    assert planned(capsys, *text)["rows"]
    assert main([*text, "data.test_share=0.3"]) == 2
    assert "give --examples N" in capsys.readouterr().err


def test_a_measured_table_leads_the_step_times(capsys, tmp_path):
    rows = [(8, 64, 15000), (16, 64, 28000), (32, 64, 53000)]
    document = planned(capsys, *PLAN, "--from", speeds(tmp_path / "a.csv", *rows))
    assert [point["devices"] for point in document["calibration"]["points"]] == [8, 16, 32]
    led, alone = (
        {row["devices"]: row["step_seconds"] for row in each["scaling"]["strong"]}
        for each in (document, planned(capsys, *PLAN))
    )
    last = document["calibration"]["points"][-1]
    assert last["measured_seconds"] == pytest.approx(32 * 64 / 53000)
    ratio = last["measured_seconds"] / last["physics_seconds"]
    assert led[32] / alone[32] == pytest.approx(ratio)  # of 256 images a device: physics brings the point there


def test_rows_in_parts_of_examples_are_converted_and_other_units_refused(capsys, tmp_path):
    words = ("plan", "shakespeare-transformer", "--cluster", "dgx-a100", "--devices", "8,16", "--examples", "10000",
             "minibatch.workers=16", "--critical", "900", "--from")  # fmt: skip
    head = "devices,per_device_batch,examples_per_second,unit"
    tokens = speeds(tmp_path / "a.csv", (8, 32, 64e4, "tokens"), (16, 32, 120e4, "tokens"), columns=head)
    sequences = speeds(tmp_path / "b.csv", (8, 32, 1e4, "sequences"), (16, 32, 120e4 / 64, "sequences"), columns=head)
    first, second = planned(capsys, *words, tokens), planned(capsys, *words, sequences)
    assert first["unit"] == "sequences"
    assert first["rows"] == second["rows"]
    assert first["rows"][0]["tokens_per_second"] == pytest.approx(64 * first["rows"][0]["examples_per_second"])
    volumes = speeds(tmp_path / "c.csv", (8, 32, 1e4, "volumes"), columns=head)
    assert main([*words, volumes]) == 2
    assert "unit=volumes: shakespeare-transformer counts sequences or tokens" in capsys.readouterr().err


def test_the_goal_of_a_table_is_its_own_and_one_that_does_not_hold_is_refused(capsys, tmp_path):
    needed = {b: 30 * (1 + b / 4000) for b in (256, 512, 1024, 4096, 16384)}
    text = "benchmark,unit,minibatch,mean_to_target\n" + "\n".join(f"a,epochs,{b},{e}" for b, e in needed.items())
    document = planned(capsys, *PLAN, "--goal", table(tmp_path / "a.csv", text) + ":a")
    for row in document["rows"]:
        assert row["epochs"] == pytest.approx(30 * (1 + row["minibatch"] / 4000), rel=1e-3)
    bad = text.replace(str(needed[512]), "200")
    assert "a: E(B) = E_min (1 + B / B_crit) cannot say its epochs" in refused(
        capsys, "--goal", table(tmp_path / "b.csv", bad)
    )
    assert "no workload c" in refused(capsys, "--goal", str(tmp_path / "a.csv") + ":c")
    assert planned(capsys, *PLAN, "--goal", "resnet")["goal"]["studied"] == [1632, 67840]


def test_a_deadline_nobody_meets_names_the_nearest_one_that_is_met(capsys):
    line = refused(capsys, "--deadline", "1s")
    nearest = line.partition("does is --deadline ")[2].partition(",")[0]
    document = planned(capsys, *PLAN, "--deadline", nearest)
    assert document["recommended"]["intervals"]["hours"][1] <= parse_span(nearest)
    assert "none of 8 to 512 devices keeps to it" in refused(capsys, "--budget", "0.5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--devices", "16..8"), "must be counts of devices that rise"),
        (("--devices", "0"), "must be counts of devices that rise"),
        (("--devices", "8,12"), "--devices=12: beyond one host of 8 it must be a whole number of hosts; give 16"),
        (("--cluster", "dgx-a10"), "did you mean dgx-a100?"),
        (("--deadline", "2"), "must be a span of time above 0"),
        (("--budget", "-3"), "must be a number above 0"),
        (("--price", "nan"), "must be a number above 0"),
        (("--price", "1e300"), "'1e300' must be a number above 0, up to 1,000,000,000"),
        (("--link", "0,5"), "must be Gbit/s (0.001 to 1,000,000)"),
        (("--link", "1e-305,1e305"), "must be Gbit/s (0.001 to 1,000,000), a comma, and microseconds (0 to 1,000,000)"),
        (("--critical", "9,10,11,12"), "must be the critical minibatch"),
        (("--critical", "900,1000,2000"), "must be the critical minibatch"),
        (("--critical", "1e300"), "(0.001 to 1,000,000,000,000)"),
        (("--goal", "0"), "--goal=0: must be a number of 0.0001 to 1,000,000 (epochs)"),
        (("--goal", "1e308"), "--goal=1e308: must be a number of 0.0001 to 1,000,000 (epochs)"),
        (("--goal", "nowhere.csv:a"), "no shipped workload"),
        (("--goal", "resnet", "--critical", "900"), "both say the critical minibatch"),
        (("--examples", "0"), "must be a whole number of at least 1"),
        (("--examples", "9" * 23), "must be a whole number of 1 to 999,999,999,999,999,999"),
        (("--goal=",), "'' says nothing: give a value, or leave it out"),
        (("--from", ""), "'' is no path"),
        (("--rate", "-1"), "must be a number of 0.0001 to 1,000,000,000 (examples/s)"),
        (("--rate", "1e300"), "must be a number of 0.0001 to 1,000,000,000 (examples/s)"),
        (("--data-rate", "1e-300"), "must be a number of 0.0001 to 1,000,000,000 (examples/s)"),
        (("--launch", "0"), "must be a number of 0.01 to 100,000 (us)"),
        (("--launch", "1e308"), "must be a number of 0.01 to 100,000 (us)"),
        (("--per-worker", "8,0"), "must be numbers of examples of at least 1"),
        (("data.subset=list.txt",), "give --examples N"),
        (("minibatch.per_worker=100000",), "a pass holds whole workers; give minibatch.per_worker="),
        (("--calibrate", "two"), "says nothing without measured points"),
        (("--from", "nowhere"), "nowhere: cannot be read"),
    ],
)
def test_bad_input_is_one_line(capsys, words, sentence):
    assert sentence in refused(capsys, *words)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(8, 64, 15000)], "--calibrate host needs two device counts inside one host; measure at another number"),
        ([(8, 64, -1), (16, 64, 28000)], "examples_per_second=-1: must be a number above 0"),
        ([(8, 64, ""), (16, 64, 28000)], "examples_per_second is missing"),
        ([(0, 64, 1), (16, 64, 28000)], "devices=0: must be a number above 0"),
        ([(8, 64, 5000), (12, 64, 7000)], "a.csv, row 3: devices=12: beyond one host of 8 it must be a whole number"),
        (
            [(10**12, 64, 1e4), (2 * 10**12, 64, 2e4)],
            "a.csv, row 2: devices=1e+12: must be a number of 1 to 10,000,000",
        ),
        ([(8, 64, 1e300), (16, 64, 2e300)], "row 2: examples_per_second of a device=1.25e+299: must be a number of"),
        ([(8, 1e300, 1e4), (16, 64, 2e4)], "row 2: per_device_batch=1e+300: must be a number of 0.001 to"),
    ],
)
def test_bad_tables_are_one_line(capsys, tmp_path, rows, sentence):
    assert sentence in refused(capsys, "--from", speeds(tmp_path / "a.csv", *rows))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ("devices,examples_per_second", "no column per_device_batch; it needs devices, per_device_batch, images_per_"),
        ("devices,per_device,examples_per_second", "no column per_device_batch; did you mean per_device? it needs"),
        ("devices,per_device_batch", "no column images_per_second or examples_per_second; it needs devices, per_"),
    ],
)
def test_a_column_that_is_missing_is_named_with_all_that_are_needed(capsys, tmp_path, columns, sentence):
    row = (8, 64, 1e4)[: columns.count(",") + 1]
    assert sentence in refused(capsys, "--from", speeds(tmp_path / "a.csv", row, columns=columns))


def test_a_workload_that_is_not_known_to_be_the_recipes_is_told(capsys, tmp_path):
    for goal, doubted in (("bert", True), ("resnet", False)):
        lines = planned(capsys, *PLAN, "--goal", goal)["warnings"]
        told = f"--goal={goal}: its epochs are those of {goal}, not known to be what imagenet-resnet50-1h trains"
        assert any(line.startswith(told) for line in lines) == doubted
    needed = {b: 30 * (1 + b / 4000) for b in (256, 512, 1024, 4096, 16384)}
    text = "benchmark,unit,minibatch,mean_to_target\n" + "\n".join(f"a,epochs,{b},{e}" for b, e in needed.items())
    lines = planned(capsys, *PLAN, "--goal", table(tmp_path / "a.csv", text))["warnings"]
    assert any("its epochs are those of a, not known to be" in line for line in lines)


def test_a_folder_of_another_net_or_of_other_data_is_told(capsys, tmp_path):
    own = {"model": {"name": "resnet50"}, "data": {"name": "imagenet"}}
    for name, changes, other in (
        ("own", own, None),
        ("net", own | {"model": {"name": "vgg11_bn"}}, "model.name=vgg11_bn"),
        ("data", own | {"data": {"name": "digits"}}, "data.name=digits"),
    ):
        folder = write_findings(tmp_path / name, "steps-to-target", whole_run(4000, 3000, 6000), changed() | changes)
        told = [line for line in planned(capsys, *PLAN, "--goal", str(folder))["warnings"] if "not of what" in line]
        assert len(told) == (other is not None)
        assert all(f"({other}), not of what imagenet-resnet50-1h trains" in line for line in told)


def test_a_memory_that_holds_not_one_example_is_told_as_it_is(capsys, tmp_path):
    count = '{value: %g, source: "made up for a test"}'
    text = f"device: X\ndevices_per_host: {count % 8}\nhosts: {count % 1}\nmemory_gbyte: {count % 0.01}\n"
    line = refused(capsys, "--cluster", table(tmp_path / "c.yaml", text), "--rate", "100")
    assert "memory_gbyte=0.01 of a X: a pass of one of these images" in line
    assert "takes 0.39 GB at the least" in line
    assert "per_worker" not in line


def test_points_of_two_series_or_of_another_cluster_are_refused(capsys, tmp_path):
    columns = "system,devices_per_host,devices,per_device_batch,examples_per_second"
    two = speeds(tmp_path / "a.csv", ("x", 8, 8, 64, 1e4), ("y", 8, 16, 64, 2e4), columns=columns)
    assert "system=y, and x above" in refused(capsys, "--from", two)
    other = speeds(tmp_path / "b.csv", ("x", 4, 8, 64, 1e4), ("x", 4, 16, 64, 2e4), columns=columns)
    assert "devices_per_host=4, and the cluster's file says 8" in refused(capsys, "--from", other)


def test_a_point_whose_speed_falls_by_half_is_told_and_named(capsys, tmp_path):
    path = speeds(tmp_path / "a.csv", (8, 64, 15000), (16, 64, 28000), (32, 64, 20000))
    lines = planned(capsys, *PLAN, "--from", path)["warnings"]
    assert any("a.csv, row 4: at 32 devices the speed a device is half" in line for line in lines)


def test_points_that_contradict_each_other_are_both_named_and_the_order_of_the_rows_says_nothing(capsys, tmp_path):
    rows = [(8, 64, 5000), (8, 64, 9000), (16, 64, 9800)]
    plans = [
        planned(capsys, *PLAN, "--from", speeds(tmp_path / name, *order))
        for name, order in (("a.csv", rows), ("b.csv", [rows[1], rows[0], rows[2]]))
    ]
    assert plans[0]["rows"] == plans[1]["rows"]
    first = plans[0]["rows"][0]
    assert first["examples_per_second"] == pytest.approx(5000, rel=0.1)  # the slower of both
    both = "a.csv, row 3: 8 devices of 64 images each at 5,000 and at 9,000 images/s"
    assert any("a.csv, row 2, and " in line and both in line for line in plans[0]["warnings"])
    near = [(8, 64, 5000), (8, 64, 5100), (8, 128, 9000), (16, 64, 9800)]
    assert not any(" % apart" in line for line in
                   planned(capsys, *PLAN, "--from", speeds(tmp_path / "c.csv", *near))["warnings"])  # fmt: skip


def test_a_speed_that_cannot_be_is_told_wherever_it_is_from(capsys, tmp_path):
    gain = speeds(tmp_path / "a.csv", (8, 32, 5000), (16, 32, 50000))
    lines = planned(capsys, *PLAN, "--from", gain)["warnings"]
    assert any("a.csv, row 3: at 16 devices the speed a device is 5 times that at 8" in line for line in lines)
    beyond = speeds(tmp_path / "b.csv", (8, 32, 5e6), (16, 32, 9e6))
    lines = planned(capsys, *PLAN, "--from", beyond)["warnings"]
    assert any("b.csv, row 2: 5,000,000 a second are" in line and "of the peak of 8 devices" in line for line in lines)
    lines = planned(capsys, *PLAN, "--rate", "100000")["warnings"]
    assert any("--rate=100000: 12,461 %" in line and "% of the peak of a A100 in fp32" in line for line in lines)
    count = '{value: %d, source: "made up for a test"}'
    text = (f"device: X\ndevices_per_host: {count % 8}\nhosts: {count % 1}\npeak_teraflops: {{fp32: {count % 19}}}\n"
            f"memory_gbyte_per_second: {count % 2000}\nrates:\n  - {{net: resnet50-3x224x224, precision: fp32, "
            f"per_device: 256, value: 938000, source: made up for a test}}")  # fmt: skip
    lines = planned(capsys, *PLAN, "--cluster", table(tmp_path / "c.yaml", text), "--devices", "8")["warnings"]
    assert any("the cluster file's rates: 119," in line for line in lines)
    sound = speeds(tmp_path / "d.csv", (8, 32, 5000), (16, 32, 9900))
    for words in (("--from", sound), ("--rate", "500")):
        assert not any(
            "than it can" in line or "outlier" in line for line in planned(capsys, *PLAN, *words)["warnings"]
        )


def test_far_beyond_the_last_point_is_warned_of(capsys, tmp_path):
    path = speeds(tmp_path / "a.csv", (8, 64, 15000), (16, 64, 28000))
    lines = planned(capsys, *PLAN[:-1], "8..4096", "--from", path)["warnings"]
    assert any("8.0 doublings beyond the last measured point (16)" in line for line in lines)


REPLAN = """
const fs = require("fs"), [script, folder, gbit, microseconds, price] = process.argv.slice(2);
const model = JSON.parse(fs.readFileSync(folder + "/findings.json")).result.sliders;
eval(fs.readFileSync(script, "utf8") + "\\n;globalThis.replan = replan; globalThis.stops = stopsPayingAt;");
const rows = replan(model, Number(gbit), Number(microseconds), Number(price));
console.log(JSON.stringify({rows, stops: stops(model, rows)}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script")
@pytest.mark.parametrize("measured", [False, True])
def test_the_page_plans_anew_as_the_program_does(capsys, tmp_path, measured):
    rows = [(8, 64, 15000), (16, 64, 28000)]
    points = ["--from", speeds(tmp_path / "a.csv", *rows)] if measured else ["--per-worker", "8,16"]
    planned(capsys, *PLAN, *points, "--out", str(tmp_path / "plan"))
    assert "'unsafe" not in (tmp_path / "plan" / "report.html").read_text()
    script = tmp_path / "run.js"
    script.write_text(REPLAN)
    page = html.__file__.replace("html.py", "planner.js")
    links = [(1600, 14, 1.844), (25, 50, 3.0)] if not measured else [(1600, 14, 1.844)]
    for gbit, microseconds, price in links:
        command = ["node", str(script), page, str(tmp_path / "plan"), str(gbit), str(microseconds), str(price)]
        anew = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        document = planned(capsys, *PLAN, *points, "--link", f"{gbit},{microseconds}", "--price", str(price))
        assert anew["stops"] == document["stops_paying_at"]
        for ours, theirs in zip(document["rows"], anew["rows"], strict=True):
            for name in ("devices", "minibatch", "step_seconds", "examples_per_second", "epochs", "hours", "cost"):
                assert theirs[name] == pytest.approx(ours[name], rel=1e-9), name


def test_findings_lie_in_the_folder_and_their_page_fetches_nothing(capsys, tmp_path):
    document = planned(capsys, *PLAN, "--out", str(tmp_path))
    findings = read_findings(tmp_path)
    assert findings.kind == "plan"
    assert findings.answer == document["answer"] == document["recommended"]["sentence"]
    page = (tmp_path / "report.html").read_text()
    assert 'id="planner"' in page
    assert not re.search(r"(src|href)=.?(http|//)|url\(|@import|fetch\(|XMLHttpRequest", page)


def test_a_cluster_of_one_host_is_planned_inside_it_and_has_no_sliders(capsys, tmp_path):
    count = '{value: %d, source: "made up for a test"}'
    text = f"device: cpu\ndevices_per_host: {count % 4}\nhosts: {count % 1}\n"
    words = ("plan", "fashion-mnist-cnn", "--cluster", table(tmp_path / "one.yaml", text), "--rate", "1000")
    document = planned(capsys, *words, "--out", str(tmp_path / "plan"))
    assert [row["devices"] for row in document["rows"]] == [1, 2, 4]
    assert document["rows"][0]["examples_per_second"] == pytest.approx(1000)
    assert all(row["cost"] is row["failures"] is None for row in document["rows"])
    assert 'id="planner"' not in (tmp_path / "plan" / "report.html").read_text()
