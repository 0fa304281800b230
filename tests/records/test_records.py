"""A run on disk: whole files or none, lines that survive a kill, one writer at a time."""

import errno
import json
import multiprocessing
from pathlib import Path

import pytest
from support.launching import SMALL
from support.refusing import refusing

from batchscale.cli import main
from batchscale.errors import FolderError
from batchscale.records import RunFolder, RunLock, Score, read_result
from batchscale.records.files import finite, read_lines, write_json, write_whole
from batchscale.records.findings import read_findings
from batchscale.records.folder import check_free


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_what_json_cannot_hold_becomes_null():
    assert finite({"a": [float("nan"), 1.5], "b": (float("inf"),)}) == {"a": [None, 1.5], "b": [None]}


def test_a_line_cut_by_a_kill_is_left_out_and_a_rewind_cuts_back(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for step in range(1, 6):
        folder.append("metrics.jsonl", {"step": step, "loss": float("nan")})
    folder.close()
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 6, "lo')
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3, 4, 5]
    folder = RunFolder(tmp_path / "run")
    folder.rewind(3)
    folder.append("metrics.jsonl", {"step": 4})
    folder.close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3, 4]


def test_a_rewind_cuts_a_measures_own_file_too(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for step in range(1, 6):
        for name in ("metrics", "evaluations", "watched"):
            folder.append(f"{name}.jsonl", {"step": step})
    folder.close()
    folder = RunFolder(tmp_path / "run")
    folder.rewind(3, evaluation_is_due=True)
    folder.close()
    for name, last in (("metrics", 3), ("evaluations", 2), ("watched", 3)):
        path = tmp_path / "run" / f"{name}.jsonl"
        assert [line["step"] for line in read_lines(path)] == list(range(1, last + 1))


SECONDS = 120.0
"""For what must come, a process that begins among it: a test that would wait for ever fails instead."""


def hold(folder, ready, leave):
    with RunLock(folder):
        ready.set()
        leave.wait(SECONDS)


def test_one_writer_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(SECONDS)
    with pytest.raises(FolderError, match=rf"another run is writing there \(process {holder.pid} on host "):
        RunLock(tmp_path)
    leave.set()
    RunLock(tmp_path, wait_seconds=SECONDS).release()
    holder.join()


def test_a_lock_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(SECONDS)
    holder.kill()
    holder.join()
    RunLock(tmp_path).release()


def test_a_free_folder_is_new_or_empty(tmp_path):
    check_free(tmp_path / "new" / "deep")
    check_free(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="is a link to nothing"):
        check_free(tmp_path / "link")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"status": "done"}', b"\xff\xfe"])
def test_a_damaged_result_is_named(tmp_path, content):
    write_whole(tmp_path / "result.json", content)
    with pytest.raises(FolderError, match=r"result.json: damaged"):
        read_result(tmp_path)


def test_no_result(tmp_path):
    with pytest.raises(FolderError, match=r"holds no result.json"):
        read_result(tmp_path)


def test_a_run_that_was_moved_lies_where_it_is(tmp_path, capsys):
    words = ["train", *SMALL, "epochs=0.2", "numerics.threads=1", "--out"]
    assert main([*words, str(tmp_path / "run")]) == 0
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    capsys.readouterr()
    assert main([*words, str(moved), "--resume"]) == 0
    assert capsys.readouterr().out.endswith(f"; {moved}\n")
    assert main([*words, str(moved), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(moved)


@pytest.mark.parametrize("name", ["environment.json", "result.json"])
def test_a_file_that_may_not_be_read_is_no_reason_to_train_again(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "recipe.yaml").write_text("epochs: 1\n")
    for file in ("environment.json", "result.json"):
        (tmp_path / file).write_text("{}")
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", refusing(errno.EACCES, lambda path: path.name == name, real))
    assert main(["report", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"{name} cannot be read (Permission denied); change its permissions" in err
    assert "train" not in err


@pytest.mark.parametrize(("reader", "name"), [(read_result, "result.json"), (read_findings, "findings.json")])
def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, reader, name):
    monkeypatch.setattr(Path, "read_text", refusing(errno.EACCES))
    with pytest.raises(FolderError, match=rf"{name}: cannot be read \(Permission denied\); change its permissions"):
        reader(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "unit", "words"),
    [
        ("error", 1.3889, "%", "error 1.39 %"),
        ("error", None, "%", "error -"),
        ("perplexity", 12.3456, "", "perplexity 12.35"),
    ],
)
def test_a_score_in_words(name, value, unit, words):
    assert Score(name=name, value=value, unit=unit).words == words
