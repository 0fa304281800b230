"""Event files: what metrics.jsonl and evaluations.jsonl hold, each step once, after a stop and a resume too."""

import importlib.util
import json

import pytest
from support.dues import after

import batchscale
from batchscale.errors import UsageError
from batchscale.records.tensorboard import scalars
from batchscale.run.run import Stopped
from batchscale.training.due import DUES

OVERRIDES = (
    "minibatch.workers=8", "epochs=2", "execution.log_steps=1", "execution.evaluation_steps=4",
    "execution.tensorboard=true", "numerics.threads=1", "numerics.micro_batch=32",
)  # fmt: skip


def train(out, resume="no"):
    return batchscale.train("digits-cnn", OVERRIDES, out=out, resume=resume, quiet=True)


def in_lines(out):
    found = {}
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        for line in map(json.loads, (out / name).read_text().splitlines()):
            for tag, value in scalars(name, line):
                found.setdefault(tag, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return found


def in_event_files(out):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_event_files_hold_the_lines_of_the_run_each_step_once(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    found = in_event_files(tmp_path / "whole")
    assert found == in_lines(tmp_path / "whole")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 13))
    assert [step for step, _ in found["test/error_percent"]] == [4, 8, 12]
    assert {"train/lr", "train/minibatch", "train/images_per_second", "phase_seconds/data"} <= set(found)

    def killed(course):
        raise Stopped(15, course.steps_done, "go on with the same call")

    monkeypatch.setitem(DUES, "kill", after(9, killed))  # beyond the last checkpoint, which is that of the first epoch
    with pytest.raises(Stopped):
        train(tmp_path / "broken")
    monkeypatch.undo()
    assert [step for step, _ in in_event_files(tmp_path / "broken")["train/loss"]] == list(range(1, 10))
    train(tmp_path / "broken", resume="yes")
    assert in_event_files(tmp_path / "broken") == in_lines(tmp_path / "broken")


def test_without_the_package_one_line_says_the_way_out_and_nothing_is_begun(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else found(name, *a)
    )
    with pytest.raises(UsageError, match=r"needs the package tensorboard.*pip install 'batchscale\[tensorboard\]'"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()
