"""k x n arithmetic, the placing of workers, the plan of steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscale.errors import RecipeError
from batchscale.minibatch import Minibatch, StepPlan, place_workers, processes_of_groups


def test_eight_workers_on_three_processes():
    assert [len(r) for r in place_workers(8, 3)] == [3, 3, 2]


@given(st.integers(1, 300), st.integers(1, 300))
def test_every_worker_lives_on_one_process_and_none_is_idle(workers, processes):
    if processes > workers:
        with pytest.raises(RecipeError, match=f"--processes={processes}: must not exceed minibatch.workers={workers}"):
            place_workers(workers, processes)
        return
    placed = place_workers(workers, processes)
    assert [j for part in placed for j in part] == list(range(workers))
    sizes = [len(part) for part in placed]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("bad", [0, -1, 3.5, "8", True])
def test_workers_and_images_are_whole_and_positive(bad):
    with pytest.raises(RecipeError, match=r"minibatch.workers=.*whole number of at least 1"):
        Minibatch(bad, 32)
    with pytest.raises(RecipeError, match=r"minibatch.per_worker=.*whole number of at least 1"):
        Minibatch(8, bad)


def test_a_minibatch_larger_than_the_data_says_so():
    Minibatch(31, 32).check_fits(1000)
    with pytest.raises(RecipeError, match=r"32 x minibatch.per_worker=32 = 1024 images: must not exceed the 1000"):
        Minibatch(32, 32).check_fits(1000)


@given(st.integers(1, 50), st.integers(50, 500), st.integers(1, 6))
def test_carrying_sees_every_image_of_every_epoch_once(kn, images, epochs):
    plan = StepPlan(Minibatch(1, kn), images, epochs)
    seen = [divmod(position, plan.phases[0].epoch_images) for position in range(plan.total_steps * kn)]
    whole = [(e, p) for e in range(epochs) for p in range(images)]
    assert seen[: len(whole)] == whole
    assert len(seen) - len(whole) < kn
    assert sum(plan.ends_epoch(s) for s in range(plan.total_steps)) == plan.epochs_done(plan.total_steps) >= epochs


def test_dropping_leaves_out_the_last_partial_minibatch():
    plan = StepPlan(Minibatch(3, 10), 100, 2, "drop")
    assert plan.phases[0].steps_per_epoch == 3
    assert plan.total_steps == 6
    assert plan.phases[0].epoch_images == 90


def test_steps_of_the_paper():
    plan = StepPlan(Minibatch(256, 32), 1_281_167, 90)
    assert plan.total_steps == math.ceil(90 * 1_281_167 / 8192) == 14076
    assert float(plan.steps(5)) == pytest.approx(781.96, abs=0.01)


def test_a_fraction_of_an_epoch_is_exact():
    assert StepPlan(Minibatch(8, 32), 60_000, 0.1).total_steps == 24  # 23.4375, not spoilt by binary fractions


@pytest.mark.parametrize(("workers", "span"), [(12, 4), (6, 3), (32, 4), (5, 5), (8, 1)])
def test_more_processes_than_groups_share_each_group_s_workers(workers, span):
    for processes in range(1, workers + 1):
        placed = place_workers(workers, processes, span)
        assert [worker for part in placed for worker in part] == list(range(workers))
        assert len(placed) == processes
        assert min(map(len, placed)) >= 1
        sets = processes_of_groups(placed, span)
        if processes <= workers // span:
            assert sets == []
            assert all(len(part) % span == 0 for part in placed)
            continue
        assert [rank for ranks in sets for rank in ranks] == list(range(processes))
        for group, ranks in enumerate(sets):
            parts = [placed[rank] for rank in ranks]
            assert (parts[0].start, parts[-1].stop) == (group * span, (group + 1) * span)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert max(map(len, sets)) - min(map(len, sets)) <= 1
    with pytest.raises(RecipeError, match=rf"--processes={workers + 1}: must not exceed minibatch.workers={workers}"):
        place_workers(workers, workers + 1, span)


def test_groups_of_workers_stay_together():
    assert place_workers(12, 2, 4) == [range(0, 8), range(8, 12)]
    assert place_workers(12, 3, 4) == [range(0, 4), range(4, 8), range(8, 12)]
    assert processes_of_groups(place_workers(12, 3, 4), 4) == []
    with pytest.raises(RecipeError, match=r"batch_norm.span=2 must divide minibatch.workers=5"):
        place_workers(5, 1, 2)
