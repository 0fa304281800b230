"""The page of a study that is not whole: no findings yet, or files that are missing, damaged or another study's."""

import json
import re
import shutil

import pytest
from support.commands import refused
from support.example_study import error_percent, write_run, write_study

from batchscale.errors import FolderError
from batchscale.report.page import write, write_report


def test_a_study_that_has_not_finished(tmp_path):
    write_run(tmp_path / "runs" / "a", "square root", 64, 0)
    write_run(tmp_path / "runs" / "b", "square root", 64, 1)
    (tmp_path / "runs" / "b" / "result.json").unlink()
    asked = {
        "kind": "grid",
        "recipe": "digits-cnn",
        "options": {"seeds": 3},
        "command": ["batchscale", "study", "grid"],
    }
    (tmp_path / "study.json").write_text(json.dumps(asked))
    told = write(tmp_path)
    assert (told.kind, told.runs, len(told.skipped)) == ("grid", 1, 1)
    page = told.path.read_text()
    assert "grid of digits-cnn: not finished" in page
    assert "No answer yet: 1 run has ended, 1 has not." in page
    assert "the same command goes on with it: batchscale study grid" in page


TABLE = (
    "way,seed,minibatch,lr,status,test_error_percent,folder,error\n"
    '"a, b",0,64,0.0125,done,1.25,runs/a,\nnan,0,64,0.05,missing,,runs/b,\n007,0,64,0.1,missing,,runs/c,\n'
)


def rows_of(page):
    (table,) = re.findall(r'aria-labelledby="rows-caption".*?</table>', page, re.S)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in rows]


def unfinished(folder, table=TABLE):
    for name, seed in (("a", 0), ("b", 1)):
        write_run(folder / "runs" / name, "square root", 64, seed)
    asked = {"kind": "grid", "recipe": "digits-cnn", "options": {}, "command": ["batchscale", "study", "grid"]}
    (folder / "study.json").write_text(json.dumps(asked))
    (folder / "table.csv").write_text(table)


def test_an_unfinished_study_shows_the_rows_of_its_table(tmp_path):
    unfinished(tmp_path)
    page = write_report(tmp_path).read_text()
    error = f"{error_percent('square root', 64, 1):.6g}"  # of b, which ended after the table was written
    assert rows_of(page) == [
        ["way", "seed", "minibatch", "lr", "status", "test error percent", "folder", "error"],
        ["a, b", "0", "64", "0.0125", "done", f"{1.25:.{len(error) - 2}f}", "runs/a", ""],
        ["nan", "1", "64", "0.0500", "done", error, "runs/b", ""],
        ["007", "0", "64", "0.1000", "missing", "", "runs/c", ""],
    ]
    assert "No answer yet: of 3 runs, 2 have ended, 1 is missing." in page
    assert "way a, b; seed 0; minibatch 64; lr 0.0125" in page


def test_errors_of_held_out_images_fill_the_column_of_their_own(tmp_path):
    unfinished(
        tmp_path, TABLE.replace("percent,folder", "percent,held_out_error_percent,folder").replace(",runs", ",,runs")
    )
    path = tmp_path / "runs" / "b" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "evaluated_on": "holdout"}))
    columns, _, ended, _ = rows_of(write_report(tmp_path).read_text())
    found = dict(zip(columns, ended, strict=True))
    assert (found["test error percent"], found["held out error percent"]) == (
        "", f"{error_percent('square root', 64, 1):.6g}",
    )  # fmt: skip


@pytest.mark.parametrize(
    "table",
    ["", "way,seed\na,0\n", TABLE + "cut,0", 'folder,status\n"runs/a', "\0", "x" * 200_000],
    ids=["empty", "other", "cut", "open quote", "nul", "long field"],
)
def test_a_table_that_cannot_be_read_leaves_the_runs_themselves(tmp_path, table):
    unfinished(tmp_path, table)
    page = write_report(tmp_path).read_text()
    assert rows_of(page)[0] == ["minibatch", "seed", "status", "test error percent", "train loss", "steps", "folder"]
    assert [row[-1] for row in rows_of(page)[1:]] == ["runs/a", "runs/b"]
    assert "No answer yet: 2 runs have ended, 0 have not." in page


def test_all_runs_have_ended_and_the_findings_are_missing(tmp_path):
    unfinished(tmp_path, TABLE.replace("007,0,64,0.1,missing,,runs/c,\n", ""))
    page = write_report(tmp_path).read_text()
    assert "All runs have ended; findings.json is missing: give the command again, it trains nothing." in page
    assert "findings.json is missing; the same command writes it: batchscale study grid" in page
    assert "not finished" not in page
    (tmp_path / "table.csv").write_text(TABLE.replace("missing,,runs/c,", "failed,,runs/c,it broke"))
    assert "of 3 runs, 2 have ended, 1 has failed." in write_report(tmp_path).read_text()


def test_damaged_findings_leave_the_runs_and_a_warning(tmp_path):
    unfinished(tmp_path)
    whole = write_study(tmp_path / "other").model_dump_json()
    for content in (whole[:2000], "{}", "[" * 100_000):
        (tmp_path / "findings.json").write_text(content)
        page = write_report(tmp_path).read_text()
        assert "<li>findings.json: damaged (" in page
        assert "of 3 runs, 2 have ended, 1 is missing" in page
    (tmp_path / "findings.json").unlink()
    (tmp_path / "findings.json").mkdir()
    assert "<li>findings.json: cannot be read (Is a directory)" in write_report(tmp_path).read_text()


def test_a_study_json_that_cannot_be_read_is_named(tmp_path):
    write_study(tmp_path)
    for content, words in (
        (None, "study.json is missing"), ("", "study.json: damaged"), ("[]", "study.json: damaged"),
        ('{"kind": "grid"}', "study.json is of another study: its kind is grid, not minibatch-error"),
        ('{"kind": "minibatch-error"}', None),
    ):  # fmt: skip
        if content is not None:
            (tmp_path / "study.json").write_text(content)
        told = [line for line in write_report(tmp_path).read_text().splitlines() if "<li>study.json" in line]
        assert len(told) == (words is not None)
        assert all(str(words) in line for line in told)
    (tmp_path / "findings.json").unlink()
    (tmp_path / "study.json").write_text("")
    assert "<li>study.json: damaged" in write_report(tmp_path).read_text()
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(FolderError, match=r"study.json: damaged"):
        write(tmp_path)


def test_the_folder_of_a_study_is_suggested_for_its_runs(tmp_path, capsys, monkeypatch):
    write_study(tmp_path)
    words = "holds no study, but lies in one; give its folder:"
    assert f"runs: {words} {tmp_path}" in refused(capsys, "report", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path / "runs")
    assert f"batchscale: .: {words} {tmp_path}" in refused(capsys, "report", ".")
