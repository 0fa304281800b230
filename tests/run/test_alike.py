"""All processes of a run have the same recipe, options and versions, else all are told before a file is written."""

import json
from pathlib import Path

import pytest
from support.worlds import in_processes

import batchscale
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe
from batchscale.run import alike
from batchscale.run.alike import MAY_DIFFER, check_alike, check_same_entries
from batchscale.run.job import BranchPoint, Job

WORDS = ("minibatch.workers=4", "minibatch.per_worker=16", "data.train_images=64", "epochs=1", "numerics.exact=true")


def _train(rank, words, options):
    """The result's status, or the error, of one process; words and options by rank."""
    try:
        result = batchscale.train("digits-cnn", [*WORDS, *words[rank]], quiet=True, **options[rank])
    except UsageError as error:
        return str(error)
    return result.status


def _refused(words=((), ()), options=({}, {})):
    """What two processes with these are told, which is the same."""
    said = in_processes(2, _train, words, options)
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize(
    ("entry", "values", "named"),
    [
        ("learning_rate.reference", ("0.01", "0.02"), "0.02, not 0.01"),  # exact mode trained on, to other weights
        ("epochs", ("1", "2"), "2.0, not 1.0"),  # one left, the other hung
        ("numerics.exact", ("true", "false"), "false, not true"),
    ],
)
def test_processes_with_different_recipes_are_refused(tmp_path, entry, values, named):
    words = [[f"{entry}={value}"] for value in values]
    said = _refused(words, [{"out": tmp_path / "run"}] * 2)
    assert said.startswith(f"rank 1 was given other than rank 0: {entry}: {named}; all processes train one run"), said
    assert not list(tmp_path.iterdir())


def test_processes_with_different_folders_are_refused_and_only_rank_zero_needs_one(tmp_path):
    folders = [tmp_path / f"d{rank}" for rank in range(2)]
    assert f"--out: {folders[1]}, not {folders[0]}" in _refused(options=[{"out": folder} for folder in folders])
    assert f"--out: {folders[1]}, not none" in _refused(options=[{}, {"out": folders[1]}])
    assert not list(tmp_path.iterdir())
    assert _refused(options=[{"out": folders[0]}, {}]) == "done"
    assert json.loads((folders[0] / "result.json").read_text())["processes"] == 2


class Ranks(World):
    """Rank 0 of a world whose ranks have these jobs."""

    def __init__(self, jobs):
        super().__init__()
        self.jobs, self.gathers = jobs, 0

    def gather(self, value, what="gather"):
        self.gathers += 1
        brought = alike._entries if isinstance(value, dict) else alike._brought
        assert value == brought(self.jobs[0])
        return [brought(job) for job in self.jobs]


def _job(*overrides, **options):
    return Job("digits-cnn", load_recipe("digits-cnn", overrides), **{"out": Path("d"), **options})


@pytest.mark.parametrize(
    ("job", "named"),
    [
        (_job(resume="auto"), "--resume: auto, not no"),
        (_job(branch=BranchPoint(Path("t"), 3)), "--branch: t, not none, --at: 3, not none"),
        (_job("numerics.micro_batch=32"), "numerics.micro_batch: 32, not auto"),
        (_job("execution.stop_at={score: error, below: 5}"), "execution.stop_at.score: error, not none"),
        (_job("epochs=1", "seed=1", "loss.label_smoothing=0.1", "execution.log_steps=3"), "and 1 more; all processes"),
    ],
)
def test_options_and_every_entry_count(job, named):
    with pytest.raises(UsageError, match="rank 2 was given other than rank 0: ") as error:
        check_alike(_job(), ranks := Ranks([_job(), _job(), job]))
    assert ranks.gathers == 2
    assert named in str(error.value)


def test_what_is_of_a_host_may_differ_and_nothing_more_is_gathered():
    words = {"execution.device": "cpu", "execution.decode_threads": "3", "numerics.threads": "2"}
    words |= {"execution.decoders": "processes"}
    assert set(words) == MAY_DIFFER
    job = _job(*(f"{name}={value}" for name, value in words.items()), data_folder=Path("e"), quiet=True, debug=True)
    world = Ranks([_job(), job])
    check_alike(_job(), world)
    assert world.gathers == 1


@pytest.mark.parametrize(("module", "name"), [("alike", "__version__"), ("torch", "__version__")])
def test_versions_count(monkeypatch, module, name):
    before = alike._entries(_job())
    monkeypatch.setattr(alike if module == "alike" else alike.torch, name, "0")
    with pytest.raises(UsageError, match=f": {'batchscale' if module == 'alike' else 'torch'}: 0, not "):
        check_same_entries([before, alike._entries(_job())])
