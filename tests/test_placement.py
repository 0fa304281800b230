"""The placing of workers on processes, and of groups of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscale.errors import RecipeError
from batchscale.placement import place_workers, processes_of_groups


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
