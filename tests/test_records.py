"""A run on disk: whole files or none, lines that survive a kill, one writer at a time."""

import json
import multiprocessing

import pytest

from batchscale.errors import FolderError
from batchscale.records import RunFolder, RunLock, read_result
from batchscale.records.files import finite, read_lines, write_json, write_whole
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


def hold(folder, ready, leave):
    with RunLock(folder):
        ready.set()
        leave.wait(30)


def test_one_writer_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(FolderError, match=rf"another run is writing there \(process {holder.pid} on host "):
        RunLock(tmp_path)
    leave.set()
    RunLock(tmp_path, wait_seconds=10).release()
    holder.join()


def test_a_lock_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(30)
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
