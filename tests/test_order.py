"""The order of the stream: a shuffle an epoch, and of a branch what the epoch has not yet shown, drawn anew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscale.order import StreamOrder
from batchscale.randomness import key, shuffled

N = 57
ALL = np.arange(N)


def test_a_run_by_itself_has_the_shuffle_of_its_seed_and_epoch():
    for epoch in range(3):
        assert (StreamOrder(5, N).at_places(epoch, ALL) == shuffled(key(5, epoch, 0), ALL, N)).all()


def test_seed_zero_goes_on_in_the_trunks_order():
    trunk = StreamOrder(5, N)
    assert trunk.branch(1, 20, 0) is trunk


@given(st.integers(0, 3), st.integers(0, N - 1), st.integers(1, 9), st.integers(1, 9), st.integers(0, N - 1))
def test_no_example_comes_twice_in_an_epoch_and_what_was_shown_stays(epoch, place, seed, again, later):
    trunk = StreamOrder(5, N)
    first = trunk.branch(epoch, place, seed)
    second = first.branch(epoch, min(place + later, N - 1), again)
    for order, start in ((first, place), (second, min(place + later, N - 1))):
        for each in range(epoch + 3):
            assert sorted(order.at_places(each, ALL)) == list(range(N))
        before = {first: trunk, second: first}[order]
        assert (order.at_places(epoch, ALL)[:start] == before.at_places(epoch, ALL)[:start]).all()
        for each in range(epoch):
            assert (order.at_places(each, ALL) == trunk.at_places(each, ALL)).all()
        assert (order.at_places(epoch + 1, ALL) != before.at_places(epoch + 1, ALL)).any()


@pytest.mark.parametrize("place", [0, 20])
def test_a_place_may_be_asked_for_alone(place):
    order = StreamOrder(5, N).branch(1, place, 3)
    whole = order.at_places(1, ALL)
    assert [int(order.at_places(1, np.array([p]))[0]) for p in range(N)] == whole.tolist()
    assert order.at_places(1, ALL.reshape(3, 19)).shape == (3, 19)


def test_another_seed_draws_another_order_and_other_keys():
    orders = [StreamOrder(5, N).branch(1, 20, seed) for seed in (1, 2)]
    assert orders[0].seed != orders[1].seed
    assert (orders[0].at_places(1, ALL) != orders[1].at_places(1, ALL)).any()
