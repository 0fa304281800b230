"""The grid: a study is stopped anywhere, goes on, and repeats nothing; what goes wrong stays where it went wrong."""

import csv
import json
import os
import random
import shlex
import signal
import time

import pytest
from support.fake_slurm import fake_slurm
from support.launching import Started, run

from batchscale.cli import main
from batchscale.errors import FolderError, RecipeError
from batchscale.recipe import dump_recipe, load_recipe
from batchscale.records import RunLock
from batchscale.records.findings import read_findings
from batchscale.report.page import write_report
from batchscale.study.grid.answer import answer_of
from batchscale.study.grid.question import Question, Variant, cells
from batchscale.study.grid.words import sentence
from batchscale.study.question import Case
from batchscale.study.runner.board import Lines, Live, Standing, share_done
from batchscale.study.runner.cell import Cell, Outcome
from batchscale.study.runner.slurm import Cluster
from batchscale.study.runner.study import Study, StudyStopped
from batchscale.study.runner.table import write_table
from batchscale.study.runner.work import Work
from batchscale.study.runner.workers import LocalAttempt, warm
from batchscale.study.studies import findings_of

SHORT = ("minibatch.workers=6", "minibatch.per_worker=16", "epochs=2", "execution.log_steps=5", "numerics.threads=1")
TIMES = {"images_per_second", "wall_seconds"}
EXACT = Variant("exact", ("numerics.exact=true",))
PLAIN = Variant("plain")


def case(*variants, seeds=1, overrides=SHORT, processes=1):
    """Several ways to train digits-cnn, put to it."""
    question = Question(ways=variants or (PLAIN,), seeds=seeds, processes=processes)
    return Case(question, "digits-cnn", tuple(overrides), load_recipe("digits-cnn", overrides), lambda recipe: 1437)


def grid(*variants, **changes):
    return cells(case(*variants, **changes))


def findings(outcomes):
    """What a grid finds in these outcomes."""
    ways = dict.fromkeys(outcome.cell.labels["way"] for outcome in outcomes)
    return findings_of("grid", case(*map(Variant, ways)), outcomes, ["x"])


def answer(outcomes, *ways):
    """The sentence of these ways, the first of them the reference; of all where none is named."""
    chosen = ways or tuple(dict.fromkeys(outcome.cell.labels["way"] for outcome in outcomes))
    ordered = [outcome for way in chosen for outcome in outcomes if outcome.cell.labels["way"] == way]
    return sentence(case(), answer_of(case(), ordered))


def study(out, recipe=None, kind="grid", **options):
    return Study(out, kind, "digits-cnn", recipe or load_recipe("digits-cnn", SHORT), {}, ["test"], **options)


def table(out):
    with open(out / "table.csv", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def files_of(folder):
    """Everything in a folder with what a rewrite would change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def ended(lines):
    """The lines of runs that ended; on a busy machine others stand between them."""
    return [line for line in lines if ": done, " in line]


def finished(out):
    return [path.parent for path in (out / "runs").glob("*/result.json")]


def test_the_key_hangs_on_identity_alone():
    def key(*overrides, labels=None, processes=1):
        return Cell(labels or {}, load_recipe("digits-cnn", overrides), processes).key

    assert key() == key("numerics.exact=true", "execution.log_steps=1", labels={"way": "a"}, processes=2)
    assert key().startswith("kn32-seed0-")
    assert len({key(), key("seed=1"), key("epochs=29"), key("minibatch.workers=2")}) == 4
    assert key(labels={"processes": 1}) != key(labels={"processes": 2}, processes=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_study_stopped_before_its_first_run_says_how_to_go_on(tmp_path, monkeypatch, number):
    check, earlier = Study._validate, signal.getsignal(number)
    monkeypatch.setattr(Study, "_validate", lambda *given: (os.kill(os.getpid(), number), check(*given)))
    if earlier is signal.SIG_IGN:  # as below nohup, where SIGHUP is no stop
        signal.signal(number, signal.SIG_DFL)
    try:
        with study(tmp_path / "s") as begun, pytest.raises(StudyStopped) as stopped:
            begun.run(grid(seeds=3))
    finally:
        signal.signal(number, earlier)
    assert str(stopped.value) == f"stopped by {number.name}: 0 of 3 runs finished; go on with: test"
    assert stopped.value.exit_code == 128 + number
    assert not list((tmp_path / "s" / "runs").iterdir())


def test_cells_are_variants_times_seeds_from_the_recipes_seed_on():
    runs = grid(Variant("a"), Variant("b", ("minibatch.workers=32",)), seeds=2, overrides=("seed=5",))
    assert [c.labels for c in runs] == [{"way": w, "seed": s} for w in "ab" for s in (5, 6)]
    assert [(c.minibatch_images, c.recipe.seed, c.target_lr) for c in runs[1:3]] == [(32, 6, 0.0125), (1024, 5, 0.4)]


def test_cells_of_one_identity_share_one_run_and_an_ended_one_is_never_touched(tmp_path):
    lines = []
    wanted = grid(PLAIN, EXACT, Variant("large", ("minibatch.workers=12",)))
    with study(tmp_path / "s", say=lines.append) as opened:
        outcomes = opened.run(wanted)
    assert [o.status for o in outcomes] == ["done"] * 3
    assert outcomes[0].folder == outcomes[1].folder != outcomes[2].folder
    assert len(ended(lines)) == len(finished(tmp_path / "s")) == 2
    assert "exact" in findings(outcomes).warnings[0]
    before, rows = files_of(tmp_path / "s" / "runs"), table(tmp_path / "s")
    with study(tmp_path / "s", say=lines.append) as opened:
        again = opened.run(wanted)
        opened.run(wanted[:1])
    assert [o.row() for o in again] == [o.row() for o in outcomes]
    assert files_of(tmp_path / "s" / "runs") == before
    assert table(tmp_path / "s") == rows
    assert len(rows) == 3
    assert len(ended(lines)) == 2


_CLI = (
    "study", "grid", "digits-cnn", "numerics.exact=true", "epochs=3", "execution.log_steps=1",
    "execution.checkpoint_seconds=0", "--seeds", "2", "--way", "small:", "--way", "large: minibatch.workers=4",
)  # fmt: skip


def _steps(out):
    return sum(len(path.read_bytes().splitlines()) for path in (out / "runs").glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_killed_at_five_random_moments_it_ends_with_the_table_of_one_left_alone(tmp_path):
    """SIGKILL to everything at once, or to the study alone: its runs then die by themselves."""
    alone, out = tmp_path / "alone", tmp_path / "killed"
    code, printed, err = run(*_CLI, "--json", "--out", str(alone))
    assert code == 0, err
    total = _steps(alone)
    generator = random.Random(3)
    ended = {}
    for kill, reached in enumerate([*sorted(generator.sample(range(1, total // 2), 4)), total // 2]):
        started = Started(*_CLI, "--jobs", str(1 + kill % 2), "--out", str(out))
        least = 1 if kill == 4 else 0  # runs that have ended, so that there are some to leave alone
        started.wait_until(lambda r=reached, n=least: _steps(out) >= r and len(finished(out)) >= n)
        if kill % 2:
            started.process.kill()
        else:
            started.kill_all()
        # and nothing is left alive; a study that ended before a busy machine sent the kill is right, too
        assert started.end()[0] in (0, -signal.SIGKILL)
        assert {folder: files_of(folder) for folder in ended} == ended
        ended = {folder: files_of(folder) for folder in finished(out)}
    assert ended
    code, again, err = run(*_CLI, "--json", "--out", str(out))
    assert code == 0, err
    assert {folder: files_of(folder) for folder in ended} == ended
    assert table(out) == table(alone)
    assert all(row["status"] == "done" for row in table(out))
    for folder in finished(out):
        one, other = (json.loads((f / "result.json").read_text()) for f in (folder, alone / "runs" / folder.name))
        assert one["weights_sha256"] == other["weights_sha256"]
    assert json.loads(again)["ways"] == json.loads(printed)["ways"]
    assert [way["done"] for way in json.loads(again)["ways"]] == [2, 2]
    assert read_findings(out).answer == json.loads(printed)["answer"]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_ctrl_c_or_a_clusters_word_leaves_checkpoints_and_says_how_to_go_on(tmp_path, number):
    out = tmp_path / "s"
    started = Started(*_CLI, "epochs=200", "--jobs", "2", "--out", str(out))
    started.wait_until(lambda: len(list((out / "runs").glob("*/metrics.jsonl"))) == 2 and _steps(out) > 2)
    if number == signal.SIGINT:
        os.killpg(started.process.pid, number)  # as a terminal does: to every process of the group
    else:
        started.signal_all(number)  # as a cluster does
    code, _, err = started.end()
    assert code == 128 + number
    said = err.strip().splitlines()[-1]
    assert said.startswith(
        f"batchscale: stopped by {number.name}: 0 of 4 runs finished; go on with: batchscale study grid"
    )
    assert f"--out {out}" in said
    assert "Traceback" not in err
    for folder in (out / "runs").glob("*/metrics.jsonl"):
        last = json.loads(folder.read_text().splitlines()[-1])["step"]
        assert (folder.parent / "checkpoints" / f"step-{last:09d}").exists() or [
            f for f in (folder.parent / "checkpoints").iterdir() if int(f.name.removeprefix("step-")) == last
        ]
    assert [row["status"] for row in table(out)] == ["missing"] * 4


def test_what_cannot_run_is_told_in_one_line_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "s"
    for words, said in (
        (["--way", "a:", "--way", "b: minibatch.workers=5000"], "minibatch"),
        (["--way", "b: no.such=1"], "recipe entry 'no': unknown"),
        (["--way", "key=1"], "--way 'key=1': must be"),
        (["--way", "a: 'epochs=1"], "must be"),
        (["--way", "a:", "--way", "a:"], "taken"),
        (["data.name=mnist", "model.name=cnn", "--data", str(tmp_path)], "mnist"),
        (["--processes", "3"], "processes"),
    ):
        code = main(["study", "grid", "digits-cnn", *words, "--out", str(out)])
        assert code == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not out.exists()


def test_a_diverged_run_is_a_result_and_a_failed_one_does_not_stop_the_rest(tmp_path):
    out = tmp_path / "s"
    wild = Variant("wild", ("learning_rate.reference=1e30",))
    wanted = grid(PLAIN, wild, seeds=4)
    names = [cell.key for cell in wanted]
    runs = out / "runs"
    for name in names[:3]:
        (runs / name).mkdir(parents=True)
    (runs / names[0] / "recipe.yaml").write_text("no: [recipe")
    (runs / names[1] / "metrics.jsonl").write_text("{}\n")  # half-written: no recipe.yaml
    (runs / names[2] / "recipe.yaml").write_text(dump_recipe(load_recipe("digits-cnn", [*SHORT, "epochs=7"])))
    (runs / names[3]).write_text("a file")
    before = [files_of(runs / name) for name in names[:4]]
    with study(out) as opened:
        outcomes = opened.run(wanted)
    assert [o.status for o in outcomes] == ["failed"] * 4 + ["diverged"] * 4
    for outcome in outcomes[:4]:
        assert outcome.error.endswith(f"; delete {outcome.folder} and give the same command again")
        assert str(outcome.folder) in outcome.error.split(";")[0]
    assert [files_of(runs / name) for name in names[:4]] == before
    rows = table(out)
    assert [row["status"] for row in rows] == [o.status for o in outcomes]
    assert [bool(row["error"]) for row in rows] == [True] * 4 + [False] * 4
    found = findings(outcomes)
    assert len(found.warnings) == 6
    assert found.warnings[4:] == ("plain: 4 of 4 runs have no result", "wild: 4 of 4 runs diverged: no mean")
    assert [(way["done"], way["diverged"], way["failed"]) for way in found.result["ways"]] == [(0, 0, 4), (0, 4, 0)]
    assert found.answer == "No comparison: of every way a run diverged, or none has a result."
    for name in names[:3]:
        for file in (runs / name).iterdir():
            file.unlink()
    (runs / names[3]).unlink()
    with study(out) as opened:
        assert [o.status for o in opened.run(wanted)] == ["done"] * 4 + ["diverged"] * 4


def test_a_damaged_result_is_trained_on_and_a_run_written_by_another_fails(tmp_path):
    out = tmp_path / "s"
    wanted = grid(seeds=2)
    with study(out) as opened:
        first = opened.run(wanted[:1])[0]
    (first.folder / "result.json").write_text("{")
    (out / "runs" / wanted[1].key).mkdir()
    with RunLock(out / "runs" / wanted[1].key), study(out) as opened:
        outcomes = opened.run(wanted)
    assert [o.status for o in outcomes] == ["done", "failed"]
    assert outcomes[0].result.weights_sha256 == first.result.weights_sha256
    assert "another run is writing there" in outcomes[1].error


def test_a_killed_run_says_so(tmp_path):
    warm()
    (tmp_path / "runs").mkdir()
    recipe = load_recipe("digits-cnn", [*SHORT, "epochs=5000"])
    work = Work("digits-cnn", recipe, tmp_path / "runs" / "a", None, 1)
    attempt = LocalAttempt(work, 1)
    while not share_done(work.folder, recipe.epochs):
        assert attempt.ended() is None
        time.sleep(0.02)
    attempt._process.kill()
    while (error := attempt.ended()) is None:
        time.sleep(0.02)
    assert error == f"was killed by SIGKILL; see {work.log}"


def test_runs_at_once_change_no_bit(tmp_path):
    wanted = grid(EXACT, seeds=3)
    found = []
    for jobs in (1, 2):
        with study(tmp_path / str(jobs), wanted[0].recipe, jobs=jobs) as opened:
            found.append([o.result.weights_sha256 for o in opened.run(wanted)])
    assert len(set(found[0])) == 3
    assert found[0] == found[1]


def test_a_run_on_two_processes(tmp_path):
    one, two = grid(EXACT)[0], grid(EXACT, processes=2)[0]
    for name, cell in (("one", one), ("two", two)):
        with study(tmp_path / name, cell.recipe) as opened:
            outcome = opened.run([cell])[0]
        assert outcome.status == "done", outcome.error
        assert outcome.result.processes == cell.processes
    folders = [tmp_path / name / "runs" / one.key for name in ("one", "two")]
    whole = (folders[0] / "weights.safetensors").read_bytes()
    assert (folders[1] / "weights.safetensors").read_bytes() == whole
    for folder, processes in zip(folders, ([], ["--processes", "2"]), strict=True):
        command = json.loads((folder / "environment.json").read_text())["command"]
        assert command == ["batchscale", "train", f"{folder}/recipe.yaml", *processes]
        page = write_report(folder).read_text()
        assert f'aria-label="Command"><code>{shlex.join(command)}</code>' in page
    assert main([*command[1:3], "--out", str(tmp_path / "again")]) == 0  # this run alone
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == whole


def test_through_submitit(tmp_path, monkeypatch):
    _, environment = fake_slurm(tmp_path / "slurm", os.environ["PATH"])
    monkeypatch.setenv("PATH", environment["PATH"])
    with study(tmp_path / "s", jobs=2, cluster=Cluster()) as opened:
        (tmp_path / "s" / "runs" / "x").mkdir(parents=True)
        wanted = grid(PLAIN, Variant("wild", ("learning_rate.reference=1e30",)))
        outcomes = opened.run(wanted)
    assert [o.status for o in outcomes] == ["done", "diverged"]


def test_one_study_at_a_time_on_a_folder(tmp_path):
    with study(tmp_path / "s"):
        with pytest.raises(FolderError, match=r"another study is writing there \(process \d+ on host"):
            study(tmp_path / "s").__enter__()
        assert (tmp_path / "s").exists()
    assert not (tmp_path / "s").exists()  # it never began a run


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    out = tmp_path / "s"
    with study(out) as opened:
        opened.run(grid(Variant("wild", ("learning_rate.reference=1e30",))))
    before = files_of(out)
    for other, said in (
        (study(out, load_recipe("digits-cnn", [*SHORT, "epochs=3"])), "another recipe: epochs is 2.0 there, 3.0 here"),
        (study(out, load_recipe("digits-cnn", [*SHORT, "numerics.exact=true"])), "another recipe: numerics.exact"),
        (study(out, kind="warmup"), "kind grid, not warmup"),
        (study(out / "runs"), "other files"),
        (study(next((out / "runs").glob("*/recipe.yaml")).parent), "holds a run, not a study"),
        (study(out / "study.json"), "is a file"),
    ):
        with pytest.raises(FolderError, match=said):
            other.__enter__()
    assert files_of(out) == before
    with study(out, load_recipe("digits-cnn", [*SHORT, "seed=9"])):
        pass
    (out / "study.json").write_text("{}")
    with pytest.raises(FolderError, match=r"study\.json: damaged .* delete it .* finished runs are kept"):
        study(out).__enter__()
    (out / "study.json").unlink()
    runs = files_of(out / "runs")
    with study(out) as opened:
        opened.run(grid(Variant("wild", ("learning_rate.reference=1e30",))))
    assert files_of(out / "runs") == runs


def test_a_recipe_that_cannot_run_leaves_no_folder(tmp_path):
    with pytest.raises(RecipeError), study(tmp_path / "s") as opened:
        opened.run(grid(PLAIN, Variant("huge", ("minibatch.workers=600",))))
    assert not (tmp_path / "s").exists()


def test_csv_has_a_column_for_every_key_and_nothing_for_none(tmp_path):
    write_table(tmp_path / "t.csv", [{"way": "a, b", "x": None}, {"way": "c", "y": float("nan"), "x": 0.1}])
    assert (tmp_path / "t.csv").read_text() == 'way,x,y\n"a, b",,\nc,0.1,\n'


def _outcome(tmp_path, way, seed, error, status="done", epochs=(1.0,), on="test"):
    from batchscale.records import Result

    result = Result(
        status=status, recipe="r", folder="", test_error_percent=error, test_error_median_last_5=error, test_loss=1.0,
        train_loss=1.0, steps=99, epochs=1.0, images_per_second=1.0, wall_seconds=1.0, weights_sha256=None, processes=1,
        workers=1, per_worker=1, evaluated_on=on,
    )  # fmt: skip
    cell = Cell({"way": way, "seed": seed}, load_recipe("digits-cnn", [f"seed={seed}", *SHORT]))
    folder = tmp_path / f"{way}{seed}"
    folder.mkdir()
    for name, entry in (("metrics", "loss"), ("evaluations", "error_percent")):
        lines = [json.dumps({"epoch": epoch, entry: error}) + "\n" for epoch in epochs]
        (folder / f"{name}.jsonl").write_text("".join(lines) + '{"epoch": 2.0}\n')  # and a damaged one
    return Outcome(cell, folder, status, result)


def _ways(tmp_path, errors):
    """Outcomes of way -> one error a seed; one below 0 is that of a run that diverged after so much."""
    return [
        _outcome(tmp_path, way, seed, abs(error), "diverged" if error < 0 else "done")
        for way, each in errors.items()
        for seed, error in enumerate(each)
    ]


def test_the_answer_names_the_best_way_and_its_distance_with_the_standard_error(tmp_path):
    outcomes = _ways(
        tmp_path, {"first": (3.0, 5.0), "best": (1.0, 1.5), "wild": (-90.0, -90.0), "partly": (0.5, -90.0)}
    )
    ways = findings(outcomes).result["ways"]
    assert ways[0]["std_error_percent"] == pytest.approx(2**0.5)
    assert [(way["mean_error_percent"], way["std_error_percent"]) for way in ways[2:]] == [(None, None)] * 2
    assert ways[3]["errors"] == [0.5, None]
    # standard error: sqrt(2 / 2 + 0.125 / 2) = 1.03
    assert answer(outcomes) == (
        "Lowest mean test error: best, 1.25 % +- 0.35 (2 runs); that is 2.75 points (standard error 1.03) below the "
        "first way, first."
    )
    assert answer(outcomes, "best", "wild", "partly") == "Lowest mean test error: best, 1.25 % +- 0.35 (2 runs)."
    assert answer(outcomes, "partly", "best") == (
        "Lowest mean test error: best, 1.25 % +- 0.35 (2 runs); the first way, partly, has no mean: 1 of 2 runs "
        "diverged."
    )
    found = findings(outcomes)
    assert "partly: 1 of 2 runs diverged: no mean" in found.warnings
    loss = found.figures[0]
    assert (loss.id, loss.series[0].y, loss.series[0].low, loss.series[0].high) == ("loss", (4.0,), (3.0,), (5.0,))


def test_a_way_of_one_run_has_no_spread_whatever_the_others_have(tmp_path):
    few = _ways(tmp_path, {"few": (5.0,), "more": (6.0, 6.1, 5.9)})
    assert answer(few) == (
        "Lowest mean test error: few, 5.00 % (1 run), the first way; the next best, more, lies 1.00 points "
        "(few has one run: no spread) above it."
    )
    assert "1.00 points (one run a way: no spread)" in answer([few[0], few[1]])


def test_what_the_errors_are_of_is_said_as_the_results_say_it(tmp_path):
    held = [_outcome(tmp_path, way, 0, error, on="holdout") for way, error in (("a", 2.0), ("b", 3.0))]
    found = findings(held)
    assert found.answer.startswith("Lowest mean holdout error: a")
    assert (found.figures[1].y.label, found.tables[0].columns[3]) == ("holdout error (%)", "mean holdout error (%)")
    assert found.warnings == ("the ways a and b train the same thing: they share their runs",)
    other = _outcome(tmp_path, "c", 0, 1.0)
    errors = ("test_error_percent", "held_out_error_percent")
    assert [[outcome.row().get(name) for name in errors] for outcome in (held[0], other)] == [[None, 2.0], [1.0, None]]
    asked = Outcome(Cell({}, load_recipe("digits-cnn", ["data.holdout=9"])), tmp_path, "missing").row()
    assert set(errors) <= asked.keys()  # a table has its columns before its first run has ended
    assert "of different images" in findings([*held, other]).warnings[-1]


def test_curves_of_a_way_are_of_runs_that_are_done_at_epochs_that_all_of_them_have(tmp_path):
    outcomes = [
        _outcome(tmp_path, "a", 0, 5.0, epochs=(0.5, 1.0, 1.5)),
        _outcome(tmp_path, "a", 1, 7.0, epochs=(0.5, 1.0)),
        _outcome(tmp_path, "a", 2, 90.0, "diverged", epochs=(0.5,)),
        _outcome(tmp_path, "b", 0, 90.0, "diverged", epochs=(0.5,)),
    ]
    for figure in findings(outcomes).figures:
        (curve,) = figure.series
        assert (curve.name, curve.x, curve.y) == ("a", (0.5, 1.0), (6.0, 6.0))
        assert (curve.low, curve.high) == ((5.0, 5.0), (7.0, 7.0))


def test_progress_in_lines_and_on_a_terminal(tmp_path, capsys):
    outcome = _outcome(tmp_path, "a", 0, 2.5)
    state = Standing(4, [outcome], [("kn96-seed1", 0.25)], 3725.0)
    said = []
    Lines(said.append).ended(outcome, state)
    assert said == [
        "[1/4] way a, seed 0: done, 2.50 % test error, 1.0 s; 1 done, 1 running, 2 waiting; 1 h 02 min left"
    ]
    live = Live()
    live.ended(outcome, state)
    live.close()
    shown = capsys.readouterr().err
    for word in ("way a, seed 0: done", "1 of 4 runs", "kn96-seed1", "25%", "2 waiting", "1 h 02 min left"):
        assert word in shown
    (tmp_path / "a0" / "metrics.jsonl").write_text('{"epoch": 0.5}\n{"epoch": 1.')
    assert share_done(tmp_path / "a0", 2.0) == 0.25
