"""bench frameworks with fakes: turns, what is proved before anything is timed, and what goes wrong in the middle."""

import itertools

import pytest
from support.fake_framework import steps_taken, write_fake

from batchscale.bench import contender, rounds
from batchscale.bench.documents import FrameworksDocument
from batchscale.bench.frameworks import contenders
from batchscale.bench.frameworks.contenders import FrameworkKind
from batchscale.bench.frameworks.measure import bench_frameworks
from batchscale.bench.rounds import Budget
from batchscale.errors import ProcessError
from batchscale.recipe import load_recipe

_QUICK = Budget(total_seconds=0.0, block_seconds=0.02, min_rounds=3, max_rounds=3)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Names and faults of fakes, and W -> the document."""
    monkeypatch.setattr(rounds, "_WARM_SECONDS", 0.02)

    def measured(faults, processes=(1, 2), epochs=1, environments=None, kept=None):
        kinds = [FrameworkKind(name, write_fake(tmp_path, name, fault), "", name) for name, fault in faults.items()]
        monkeypatch.setattr(contenders, "KINDS", (*kinds, *(environments or ())))
        recipe = load_recipe("digits-cnn", ["data.train_images=640"])
        found = bench_frameworks(
            recipe,
            "digits-cnn",
            None,
            processes,
            epochs=epochs,
            environments=tmp_path / "none",
            budget=_QUICK,
            keep=lambda findings: kept.append(findings.result) if kept is not None else None,
        )
        return FrameworksDocument.model_validate(found.result)

    return measured


def test_one_framework_at_a_time_and_every_series_is_there(bench, tmp_path):
    kept = []
    document = bench({"batchscale": "", "other": ""}, kept=kept)
    assert [part["processes"] for part in kept] == [[1]]
    assert len(kept[0]["rows"]) == 4
    steps = steps_taken(tmp_path)
    # A step's time is taken between two orders, so no step of one may lie within a turn of the other.
    turns = [list(group) for _, group in itertools.groupby(steps, key=lambda step: step[0])]
    assert len(turns) > 3 * 2 * 3
    for before, after in itertools.pairwise(turns):
        assert max(begun for _, begun, _ in before) <= min(begun for _, begun, _ in after)
    points = [(row.series, row.processes, row.per_process, row.minibatch) for row in document.rows]
    wanted = [("weak", 1, 32, 32), ("strong", 1, 32, 32), ("weak", 2, 32, 64), ("strong", 2, 16, 32)]
    assert points == [point for point in wanted for _ in range(2)]
    for row in document.rows:
        assert row.loss is not None
        assert row.seconds_per_epoch == pytest.approx(640 / row.examples_per_second, abs=0.006)
        assert (row.efficiency == 1) == (row.processes == 1)
        assert (row.ratio == 1) if row.name == "batchscale" else row.ratio > 0
    assert {row.score for row in document.rows if row.processes == 1} == {document.rows[0].score}
    assert [(a.name, a.processes, a.optimizer) for a in document.agreement] == [
        (name, w, optimizer) for w in (1, 2) for optimizer in ("sgd", "adam") for name in ("batchscale", "other")
    ]
    assert all(a.agrees and a.largest_difference == 0 and len(a.losses) == 10 for a in document.agreement)
    assert len(document.published) == 32


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dies", "other: rank 0 ended with exit code 3: RuntimeError: no such kernel"),
        ("memory", "other: rank 0 was killed by SIGKILL: the machine may have run out of memory"),
        ("import", "No module named 'no_such_framework'; make its environment anew with: make frameworks"),
        ("hangs", "other: rank 1 did not answer within"),
    ],
)
def test_one_that_fails_is_named_and_the_rest_is_reported(bench, monkeypatch, fault, words):
    if fault == "hangs":
        monkeypatch.setattr(contender, "_BLOCK_SECONDS", 8.0)
    document = bench({"batchscale": "", "other": fault, "third": ""}, processes=[2])
    assert any(words in note for note in document.notes), document.notes
    assert {row.name for row in document.rows} == {"batchscale", "third"}
    assert len(document.rows) == 4


def test_one_that_does_other_work_is_shown_and_not_timed(bench):
    document = bench({"batchscale": "", "other": "other work"}, processes=[1], epochs=0)
    shown = {(a.name, a.optimizer): a for a in document.agreement}
    assert not shown["other", "sgd"].agrees
    assert shown["other", "sgd"].largest_difference == pytest.approx(0.05)
    assert ("other", "adam") not in shown
    assert {row.name for row in document.rows} == {"batchscale"}
    assert any("other is not timed over 1: its first losses by sgd differ by 0.05" in note for note in document.notes)
    assert {row.score for row in document.rows} == {None}


def test_a_port_that_was_taken_meanwhile_is_another_one_the_next_time(bench):
    document = bench({"batchscale": "port"}, processes=[2], epochs=0)
    assert len(document.rows) == 2
    assert not any("in use" in note for note in document.notes)


def test_a_missing_environment_is_one_line_with_the_command_that_makes_it(bench, tmp_path):
    missing = FrameworkKind("jax", "jax_gloo.py", "jax", "JAX")
    document = bench({"batchscale": ""}, processes=[1], epochs=0, environments=[missing])
    folder = tmp_path / "none" / "jax"
    assert f"jax is left out: no environment in {folder}; make it with: make frameworks" in document.notes
    assert {row.name for row in document.rows} == {"batchscale"}


def test_where_nothing_can_be_measured_it_fails_with_the_reasons(bench):
    with pytest.raises(ProcessError, match=r"nothing could be measured: .*no such kernel"):
        bench({"batchscale": "dies"}, processes=[1])
