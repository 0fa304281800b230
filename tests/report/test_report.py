"""The report's page: what it shows, that it is whole, safe and the same every time, and what it passes over."""

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import refused
from support.example_study import MINIBATCHES, RULES, SEEDS, environment, error_percent, key, write_run, write_study
from support.launching import SMALL

from batchscale.cli import main
from batchscale.records.files import read_lines
from batchscale.records.findings import Axis, Figure, Findings, Mark, Series
from batchscale.report.draw.lines import draw
from batchscale.report.draw.scales import linear_ticks, log_ticks, number, ruler
from batchscale.report.draw.thin import MOST_POINTS, thinned
from batchscale.report.page import write, write_report
from batchscale.report.page.html import render
from batchscale.report.page.runs import read_run, read_runs
from batchscale.report.page.views import run_labels
from batchscale.report.run_findings import run_findings

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x00\ud800"
BENCH = Path(__file__).parents[2] / "benchmarks" / "results"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Seen(HTMLParser):
    """Every tag with its attributes, and the text by the tag around it; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return write_report(study).read_text(encoding="utf-8")


def drawings(page):
    found = [ET.fromstring(text) for text in re.findall(r'<svg class="drawing".*?</svg>', page, re.S)]
    assert found
    return found


def test_a_study_shows_all_that_was_asked_for(study, page):
    seen = Seen(page)
    words = " ".join(" ".join(texts) for texts in seen.text.values())
    findings = json.loads((study / "findings.json").read_text())
    for said in (findings["title"], findings["asked"], findings["answer"], *findings["warnings"]):
        assert said in words
    assert "batchscale study minibatch-error fashion-mnist-cnn --seeds 3 --out 'my study'" in words
    assert len(drawings(page)) == len(findings["figures"]) == 4
    for rule in RULES:
        for minibatch in MINIBATCHES:
            assert f"runs/{key(rule, minibatch, 2)}" in words
    assert "diverged at step 41" in words
    assert "minibatch 256; rule square root; seed 1" in words
    assert "4 (reference: 2)" in words  # a run's minibatch.workers beside the reference run's
    assert "cba0a155b9e0717abbffaaa1a474955703d188da" in words


def test_every_point_lies_where_the_written_ticks_say(page):
    drawing = drawings(page)[0]
    ticks = {t.text: float(t.get("y")) for t in drawing.find("g[@class='axes']") if t.get("text-anchor") == "end"}
    columns = {t.text: float(t.get("x")) for t in drawing.find("g[@class='axes']") if t.get("text-anchor") == "middle"}
    per_percent = (ticks["8"] - ticks["2"]) / 6
    for place, rule in enumerate(RULES):
        points = drawing.findall(f"g[@data-series='{place}']/use")
        assert len(points) == len(MINIBATCHES) - (rule == "none")
        for point, minibatch in zip(points, MINIBATCHES, strict=False):
            middle = median(error_percent(rule, minibatch, seed) for seed in SEEDS)
            assert float(point.get("x")) == columns[str(minibatch)]
            wanted = ticks["2"] + per_percent * (middle - 2)
            assert float(point.get("y")) == pytest.approx(wanted, abs=0.2)


@pytest.mark.parametrize(
    ("scale", "values"), [("log2", (0.5, 3, 4096)), ("log10", (1e-6, 1, 20)), ("linear", (-5, 2, 9))]
)
def test_a_value_lies_between_its_neighbours_ticks(scale, values):
    axis = ruler(scale, values, 500.0, 20.0)
    places = [axis.place(v) for v in values]
    assert places == sorted(places, reverse=True)
    assert 20 < places[-1] < places[0] < 500
    for tick, _ in axis.ticks(8):
        assert 20 <= axis.place(tick) <= 500
        below = [axis.place(v) for v in values if v < tick]
        assert all(place > axis.place(tick) for place in below)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(3, 12))
def test_linear_ticks_lie_in_the_range_and_are_few(low, extent, most):
    high = low + max(extent, abs(low) * 1e-6)
    ticks = linear_ticks(low, high, most)
    assert 1 <= len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in ticks)


@given(st.floats(1e-9, 1e9), st.floats(1.05, 1e12), st.integers(4, 9), st.sampled_from([2, 10]))
def test_log_ticks_rise_and_are_few(low, times, most, base):
    ticks = log_ticks(low, low * times, most, base)
    assert 1 <= len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert min(ticks) > 0


@given(st.floats(1e-9, 1e9), st.floats(3.0, 1e12), st.sampled_from([2, 10]))
def test_log_ticks_are_spread_over_the_whole_axis(low, times, base):
    ticks = log_ticks(low, low * times, 10, base)
    ends = [low, *ticks, low * times]
    assert max(math.log(b / a) for a, b in itertools.pairwise(ends)) <= 0.6 * math.log(times)
    mantissas = {float(f"{tick:e}".partition("e")[0]) for tick in ticks}
    assert base == 2 or mantissas <= {1.0, 1.5, 2.0, 3.0, 5.0, 7.0}
    assert base == 10 or all(math.log2(tick) % 1 == 0 or math.log2(tick / 1.5) % 1 == 0 for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.03, 2.5, [0.05, 0.1, 0.2, 0.5, 1, 2]), (2.1, 6.4, [3, 5]), (0.88, 2.3, [1, 1.2, 1.4, 1.6, 1.8, 2, 2.2]),
     (1e-6, 20, [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10])],
)  # fmt: skip
def test_ticks_of_a_loss_axis(low, high, ticks):
    assert log_ticks(low, high, 10, 10) == ticks


def test_a_loss_axis_is_labelled_at_both_ends():
    series = Series(name="loss", x=(0.0, 1.0, 2.0), y=(2.5, 0.3, 0.011), style="curve")
    axis = Axis(label="loss", scale="log10")
    shown = Figure(id="a", title="a", caption="", x=Axis(label="x"), y=axis, series=(series,))
    axes = draw(shown, "figure-1", "").svg.find("g[@class='axes']")
    ticks = [t.text for t in axes if t.get("text-anchor") == "end" and t.get("dy")]
    assert ticks == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (2048, "2048"), (104857600, "104,857,600"), (0.003125, "0.003125"), (-1.5, "-1.5"),
     (3e-7, "3 \N{MULTIPLICATION SIGN} 10⁻⁷"), (1e12, "10¹²"), (99999.6, "100,000"), (0.99999, "1"),
     (12345.678, "12,346")],
)  # fmt: skip
def test_numbers_for_reading(value, words):
    assert number(value) == words


def test_the_page_fetches_nothing_and_admits_its_own_style_and_script_alone(page):
    seen = Seen(page)
    assert not re.search(r"https?://", page)
    assert "url(" not in page
    assert "@import" not in page
    for tag, attributes in seen.tags:
        assert not {"src", "srcset", "style", "data", "action"} & attributes.keys(), tag
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    policy = seen.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; ")
    for name in ("style", "script"):
        (text,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_headings_landmarks_and_names(page):
    seen = Seen(page)
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in seen.tags:
        if tag in ("a", "use"):
            assert attributes["href"][1:] in ids
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
    for landmark in ("main", "nav", "header", "footer"):
        assert len(seen.all(landmark)) == 1
    assert seen.all("html")[0]["lang"] == "en"
    for drawing in drawings(page):
        assert drawing.get("role") == "img"
        assert drawing.find("title").text
        assert "against" in drawing.find("desc").text
    assert all(table["aria-labelledby"] for table in seen.all("table"))
    assert all(cell["scope"] == "col" for cell in seen.all("th"))


def test_text_from_files_is_shown_never_obeyed(tmp_path):
    write_run(tmp_path / "runs" / "a", "square root", 64, 0)
    write_run(tmp_path / "runs" / "b", "square root", 128, 0)
    recipe = tmp_path / "runs" / "b" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "comment: '<script>alert(1)</script>'\n# </pre><script>alert(1)</script>\n")
    series = Series(name=ATTACK, x=(1.0, 2.0), y=(1.0, 2.0), runs=("runs/b", ATTACK))
    axis = Axis(label=ATTACK)
    shown = Figure(id=ATTACK, title=ATTACK, caption=ATTACK, x=axis, y=axis, series=(series, series))
    findings = Findings(
        kind=ATTACK, title=ATTACK, recipe=ATTACK, asked=ATTACK, answer=ATTACK, command=("batchscale", ATTACK),
        rows=({ATTACK: ATTACK, "folder": "runs/b"},), figures=(shown,), warnings=(ATTACK,),
        environment={ATTACK: [ATTACK, {"a": ATTACK}]},
    )  # fmt: skip
    page = render(findings, read_runs(tmp_path)[0], [(ATTACK, ATTACK)])
    seen = Seen(page)
    assert [attributes.get("type") for attributes in seen.all("script")] == ["application/json", None]
    assert not seen.all("img")
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert "<script>alert(1)</script>" in "".join(seen.text["h1"])
    assert drawings(page)
    page.encode("utf-8")
    json.loads(re.findall(r'class="points">(.*?)</script>', page, re.S)[0])


def test_the_same_records_give_the_same_bytes(study, tmp_path):
    first = write_report(study).read_bytes()
    assert write_report(study).read_bytes() == first
    copy = tmp_path / "elsewhere"
    shutil.copytree(study, copy)
    assert write_report(copy).read_bytes() == first


def test_half_written_runs_are_listed_and_passed_over(tmp_path, capsys):
    write_study(tmp_path)
    runs = sorted((tmp_path / "runs").iterdir())
    (runs[0] / "recipe.yaml").unlink()
    (runs[1] / "recipe.yaml").write_text("[1, 2")
    (runs[2] / "environment.json").write_text("{")
    (runs[3] / "result.json").unlink()
    (runs[4] / "result.json").write_text('{"status": "perhaps"}')
    (runs[5] / "recipe.yaml").write_bytes(b"\xff\xfe")
    (runs[6] / "environment.json").unlink()
    (runs[7] / "recipe.yaml").unlink()
    (runs[7] / "recipe.yaml").mkdir()
    (tmp_path / "runs" / "notes.log").write_text("no folder")
    assert main(["report", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(tmp_path / "report.html")
    assert (told["kind"], told["runs"]) == ("minibatch-error", 88)
    reasons = {Path(one["name"]).name: one["reason"] for one in told["skipped"]}
    assert [reasons.pop(run.name) for run in runs[:8]] == [
        "no recipe.yaml: never begun", "recipe.yaml is damaged", "environment.json is damaged",
        f"not finished: at step {json.loads((runs[3] / 'metrics.jsonl').read_text())['step']}, epoch 10.0",
        "result.json is damaged", "recipe.yaml cannot be read (not UTF-8)", "no environment.json: never begun",
        "recipe.yaml is no file",
    ]  # fmt: skip
    assert not reasons
    page = (tmp_path / "report.html").read_text()
    assert all(f"<code>runs/{run.name}</code>" in page for run in runs[:8])


@pytest.mark.parametrize(
    ("file", "content"),
    [("recipe.yaml", "d: 2026-13-45"), ("recipe.yaml", "a: &a [*a]"), ("recipe.yaml", "a: !!bool perhaps"),
     ("recipe.yaml", "a: " + "[" * 100 + "]" * 100), ("recipe.yaml", "a: " + "[" * 5000 + "]" * 5000),
     ("environment.json", '{"a": ' * 100 + "1" + "}" * 100), ("environment.json", "[" * 100_000),
     ("result.json", "[" * 100_000)],
    ids=["date", "alias", "tag", "deep list", "deeper list", "deep", "deeper", "deep result"],
)  # fmt: skip
def test_a_damaged_folder_is_passed_over_with_its_reason(tmp_path, file, content):
    for name in ("a", "²", "1²"):
        write_run(tmp_path / "runs" / name, "square root", 64, 0)
    (tmp_path / "runs" / "²" / file).write_text(content)
    runs, skipped = read_runs(tmp_path)
    assert ([run.name for run in runs], skipped) == (["runs/1²", "runs/a"], [("runs/²", f"{file} is damaged")])


def test_lines_that_nobody_could_follow_are_left_out(tmp_path):
    tmp_path = tmp_path / "run"
    write_run(tmp_path, "square root", 64, 0)
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(
        "[" * 100_000
        + "\n"
        + whole.replace('{"step"', '{"phase_seconds": [1], "step"')
        + '{"a": ' * 100
        + "1"
        + "}" * 100
    )
    assert [line["phase_seconds"] for line in read_lines(tmp_path / "metrics.jsonl")] == [[1]]
    assert "Where the time of training steps went" not in write_report(tmp_path).read_text()


def test_what_came_out_of_a_run_is_no_label_of_it():
    rows = ({"rule": "none", "seed": 1, "status": "failed", "folder": "runs/a", "error": "it broke"},)
    found = Findings(kind="k", title="t", recipe="", asked="", answer="", command=(), rows=rows)
    assert run_labels(found) == {"runs/a": "rule none; seed 1"}


def test_folders_that_hold_nothing_to_report_on(tmp_path, capsys):
    assert "holds no study, no run and no result of bench" in refused(capsys, "report", str(tmp_path))
    assert "is no folder" in refused(capsys, "report", str(tmp_path / "nowhere"))
    (tmp_path / "x.json").write_text("{}")
    assert "x.json: is no result of bench" in refused(capsys, "report", str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
    (tmp_path / "recipe.yaml").write_text("a: 1")
    assert "no environment.json: never begun" in refused(capsys, "report", str(tmp_path))


def test_a_real_run_ended_and_cut_short(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    folder = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    page = (folder / "report.html").read_text()
    titles = [drawing.find("title").text for drawing in drawings(page)]
    assert titles == ["Loss", "Error", "Learning rate", "Minibatch", "Speed"]
    assert f"{found['test_error_percent']:.2f} %" in page
    for said in ("Where the time of training steps went", "aggregation", "target lr", found["weights_sha256"]):
        assert said in page
    assert (folder / "recipe.yaml").read_text().splitlines()[1] in page
    (folder / "result.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9999, "epo')
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert f"This run has not ended; it is not finished: at step {found['steps']}" in page
    again = f"batchscale train {' '.join(SMALL)} --out {folder} --json --resume=auto"
    assert f"batchscale train --resume goes on with it: {again}" in page
    assert main(["train", *SMALL, "--out", str(folder), "--resume"]) == 0  # a page in its folder hinders no run


def test_results_of_benchmarks(tmp_path):
    for place, file in enumerate(sorted(BENCH.glob("*.json"))):  # as other shells' > writes them, too
        encoding = ("utf-16", "utf-8-sig", "utf-8")[place % 3]
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding=encoding)
    damaged = json.loads((BENCH / "2026-11-21-step.json").read_text())
    damaged["rows"][0].pop("iqr")
    (tmp_path / "broken.json").write_text(json.dumps(damaged))
    told = write(tmp_path)
    assert (told.kind, told.runs) == ("bench", 0)
    assert told.skipped == [("broken.json", "is damaged: rows.0.iqr: Field required")]
    page = told.path.read_text()
    assert "8,819 images/s, 0.94 times its ceiling" in page
    assert "batchscale bench allreduce --processes 2 --json &amp;&amp; batchscale bench" in page
    step = next(drawing for drawing in drawings(page) if "step" in drawing.find("title").text)
    names = {t.text: float(t.get("y")) for t in step.find("g[@class='axes']") if t.get("text-anchor") == "end"}
    marks = [float(use.get("y")) for use in step.iter("use")]
    assert marks[0] == pytest.approx(names["ceiling"], abs=0.1)
    assert marks[-1] == pytest.approx(names["accelerate"], abs=0.1)


def test_long_series_keep_their_spikes_ends_and_gaps():
    y = [float(place % 7) for place in range(40_000)]
    y[12_345], y[23_456] = 1e6, None
    whole = Series(name="loss", x=tuple(map(float, range(40_000))), y=tuple(y), low=tuple(y), style="curve")
    short = thinned(whole)
    assert len(short.x) == len(short.y) == len(short.low) <= MOST_POINTS
    assert {0.0, 12_345.0, 23_456.0, 39_999.0} <= set(short.x)
    assert None in short.y
    assert thinned(short) == short


def test_what_a_log_axis_cannot_show_is_said(tmp_path):
    series = Series(name="error", x=(1.0, 2.0, 3.0), y=(0.0, 1.0, None), low=(0.0, 0.0, None), high=(0.0, 2.0, None))
    axis = Axis(label="error", scale="log10")
    shown = Figure(id="a", title="a", caption="", x=Axis(label="x"), y=axis, series=(series,))
    drawn = draw(shown, "figure-1", "")
    assert [index for index, _, _ in drawn.points[0]] == [1]
    assert drawn.left_out == 1
    page = render(Findings(kind="k", title="t", recipe="", asked="", answer="", command=(), figures=(shown,)))
    assert "1 value at or below 0 has no place on a logarithmic axis." in page


def test_a_page_of_many_runs_stays_small(tmp_path):
    write_study(tmp_path)
    for seed in range(3, 27):
        write_run(tmp_path / "runs" / f"more{seed}", "square root", 64, seed)
    told = write(tmp_path)
    assert told.runs == 120
    assert told.path.stat().st_size < 500_000


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_in_every_theme(page):
    themes = re.findall(r":root \{(.*?)\}", page, re.S)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        colours = {n: v if len(v) == 7 else "#" + "".join(2 * letter for letter in v[1:]) for n, v in colours.items()}
        for name, least in (*((f"c{place}", 3.0) for place in range(8)), ("ink", 7.0), ("soft", 4.5), ("accent", 4.5)):
            bright, dark = sorted((luminance(colours[name]), luminance(colours["paper"])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= least, (theme, name)


def test_skipped_data_files_and_earlier_attempts_are_told(tmp_path):
    tmp_path = tmp_path / "run"
    write_run(tmp_path, "square root", 64, 0)
    (tmp_path / "skipped.json").write_text('{"a.jpg": "is cut short"}')
    before = environment(host="elsewhere", from_step=0)
    (tmp_path / "environment.json").write_text(json.dumps(environment(from_step=5, earlier=[before])))
    page = write_report(tmp_path).read_text()
    assert "data file passed over: a.jpg: is cut short" in page
    assert "Passed over: 1 data file, listed with the run." in page
    assert "Attempts, the newest first" in page
    assert "elsewhere" in page


def of_one_run(folder, **changes):
    """The page of a run whose result is changed, in plain words: everything, and its warnings."""
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, **changes}))
    seen = Seen(write_report(folder).read_text(encoding="utf-8"))
    return " ".join(" ".join(texts) for texts in seen.text.values()), run_findings(
        folder, read_run(folder, ".")
    ).warnings


def test_a_run_that_failed_or_diverged_warns_of_it_and_says_why(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, "square root", 64, 0)
    assert of_one_run(folder)[1] == ()
    words, warnings = of_one_run(folder, status="failed", error="a.jpg: empty: must be readable", epochs=1.0)
    assert warnings == (
        "This run failed: a.jpg: empty: must be readable. batchscale train --resume goes on with it: "
        "batchscale train fashion-mnist-cnn --out runs/x --resume=auto",
    )
    assert warnings[0] in words
    assert "The run failed after 1 epoch: a.jpg: empty: must be readable." in words
    words, warnings = of_one_run(folder, status="diverged", diverged_at_step=41, error=None)
    assert warnings == ("This run diverged: its loss, or a gradient, was no longer finite at step 41.",)
    scales = [[0, 65536.0], [40, 32768.0], [41, 0.5]]
    words, warnings = of_one_run(folder, loss_scales=scales)
    told = "no longer finite at step 41; lowering the fp16 loss scale from 65,536 to 0.5 did not help."
    assert warnings[0].endswith(told)
    assert f"The run diverged after 1 epoch: its loss, or a gradient, was {told}" in words
    assert of_one_run(folder, loss_scales=[[0, "high"], 3])[1][0].endswith("at step 41.")


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
def test_damaged_lines_of_a_run_are_told(tmp_path, name):
    folder = tmp_path / "run"
    write_run(folder, "square root", 64, 0)
    whole = b'{"step": 1, "epoch": 1}\n'

    def warned(content):
        (folder / name).write_bytes(content)
        return of_one_run(folder)[1]

    assert warned(3 * whole) == warned(whole + whole.strip()) == warned(b"") == ()
    cut = f"{name} ends in mid-line, as a kill or a full disk leaves it: its last line was left out."
    assert warned(whole + whole[:9]) == warned(whole[:9]) == (cut,)
    assert warned(whole + whole[9:] + whole) == (f"{name} is damaged: line 2 was left out.",)
    many = f"{name} is damaged: lines 1, 2, 3, 4, 5 and 2 more were left out."
    assert warned(7 * b"3\n" + whole[:9]) == (many, cut)
    assert warned(2 * b"\xff\n") == (f"{name} is damaged: lines 1, 2 were left out.",)


def test_a_title_counts_one_worker(tmp_path):
    write_run(tmp_path / "run", "square root", 32, 0)
    assert "fashion-mnist-cnn: 1 worker of 32 images" in Seen(write_report(tmp_path / "run").read_text()).text["h1"]


def test_dashed_series_take_no_colour_from_the_others():
    xs = (1.0, 2.0)
    modes = [Series(name=name, x=xs, y=xs) for name in ("strong", "weak")]
    ideals = [Series(name=name, x=xs, y=xs, style="dashed") for name in ("ideal", "square root")]

    def looks(*series):
        axis = Axis(label="x")
        shown = Figure(id="a", title="a", caption="", x=axis, y=axis, series=series)
        page = render(Findings(kind="k", title="t", recipe="", asked="", answer="", command=(), figures=(shown,)))
        entries = re.findall(r'class="swatch (.*?)".*?class="(.*?)".*?<span>(.*?)</span>', page)
        groups = re.findall(r'class="series (.*?)" data-series="(.)"', page)
        assert groups == [(look, str(place)) for place, (look, _, _) in enumerate(entries)]
        return {name: (look, line) for look, line, name in entries}

    alone, beside = looks(*modes), looks(ideals[0], modes[0], ideals[1], modes[1])
    assert alone == {name: beside[name] for name in ("strong", "weak")}
    assert beside["ideal"] == ("neutral", "line dashed e0")
    assert beside["square root"] == ("neutral", "line dashed e1")


@pytest.mark.parametrize("points", [(), (4.0,), (1.0, 4.0)])
def test_the_label_of_a_mark_lies_on_no_point(points):
    xs = (0.0, 1.0, 2.0, 3.0, 4.0)
    series = Series(name="error", x=xs, y=tuple(2.05 if x in points else 1.0 + (x == 2.0) * 2 for x in xs))
    mark = Mark(label="reference + 0.5", y=2.0)
    axis = Axis(label="x")
    drawing = draw(Figure(id="a", title="", caption="", x=axis, y=axis, series=(series,), marks=(mark,)), "f", "").svg
    (label,) = drawing.findall("g[@class='mark']/text")
    foot, end, width = float(label.get("y")), float(label.get("x")), 8.0 * len(label.text)
    left = end - width if label.get("text-anchor") == "end" else end
    for use in drawing.iter("use"):
        x, y = float(use.get("x")), float(use.get("y"))
        assert not (left < x < left + width and foot - 14 < y < foot + 4)


def test_the_shares_of_the_phases_add_to_the_whole(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, "square root", 64, 0)
    same = {"minibatch": 64, "images_per_second": 3200.0}
    lines = [  # 2 seconds, 1 (a folder of an earlier version), and one whose minibatch grew meanwhile
        {
            "step": 100,
            "minibatch": 64,
            "images_per_second": 3200.0,
            "interval_steps": 100,
            "phase_seconds": {"data": 1.5},
        },
        {"step": 150, **same, "phase_seconds": {"data": 0.5, "update": 0.25}},
        {"step": 160, "minibatch": 128, "images_per_second": 1.0, "interval_steps": 10, "phase_seconds": {"data": 1.0}},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(folder).read_text()
    (table,) = re.findall(r"<strong>Where the time.*?</table>", page, re.S)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
    assert cells == ["data", "3.00", "75.0", "update", "0.25", "6.2", "other", "0.75", "18.8"]
