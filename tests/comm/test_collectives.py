"""Every all-reduce algorithm sums right in the simulated world, and sends exactly what it declares."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reductions import hosts_of

from batchscale.comm.collectives import BETWEEN, COLLECTIVES, make
from batchscale.comm.collectives.simulated import count, simulate
from batchscale.errors import RecipeError, UsageError
from batchscale.report.draw import schedules
from batchscale.report.draw.schedules import Round

SIZES = [*range(1, 10), 16]
SHAPES = {
    "ring": [{}],
    "halving_doubling": [{}],
    "binary_blocks": [{}],
    "torus": [{}, {"hosts": "even"}, {"torus": (4, 2)}, {"torus": (1, 8)}],
    "hierarchical": [{}, {"hosts": "one"}, {"hosts": "even"}, {"hosts": "uneven"}],
    "three_phase": [
        {}, {"hosts": "one"}, {"hosts": "even"}, *({"hosts": "uneven", "between": name} for name in ("auto", *BETWEEN)),
    ],
    "direct": [{}],
}  # fmt: skip
"""The shapes in which the common test runs every algorithm; a member of the table that is missing here fails it."""


def shapes(name, size):
    """The algorithm in every shape that it can take for W ranks."""
    for shape in SHAPES[name]:
        hosts = hosts_of(shape["hosts"], size) if "hosts" in shape else None
        try:
            yield make(name, size, hosts, torus=shape.get("torus"), between=shape.get("between", "auto"))
        except UsageError:
            continue


def made_for(name, size):
    try:
        make(name, size)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("name", COLLECTIVES)
def test_every_rank_gets_the_sum_and_sends_what_is_declared(name):
    random = np.random.default_rng(0)
    for size in SIZES:
        for collective in shapes(name, size):
            for length in {0, 1, size - 1, 2 * size, 31, 6 * size + 1}:
                buffers = random.integers(-99, 99, (size, length))
                total = buffers.sum(axis=0)
                seen = simulate(collective, buffers)
                assert (buffers == total).all(), (size, length)
                assert counted(seen) == declared(collective, size, length), (size, length)
                assert counted(count(collective, size, length)) == counted(seen)


def counted(seen):
    return seen.steps, seen.elements_sent, int(seen.messages.max())


def declared(collective, size, length):
    cost = collective.cost(size, length)
    return cost.steps, cost.elements_sent, cost.messages


@pytest.mark.parametrize("name", COLLECTIVES)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int64", "bfloat16"])
def test_every_type_sums_right_and_to_the_same_bits_everywhere(name, kind):
    random = np.random.default_rng(1)
    for size in (6, 8):
        whole = torch.from_numpy(random.integers(-9, 9, (size, 23))).to(getattr(torch, kind))
        ragged = torch.from_numpy(random.standard_normal((size, 23))).to(getattr(torch, kind))
        for collective in shapes(name, size):
            for values in (whole, ragged):
                buffers = values.clone() if kind == "bfloat16" else values.numpy().copy()
                simulate(collective, buffers)
                assert (buffers == buffers[:1]).all()
                if values is whole:
                    assert (torch.as_tensor(buffers[0]) == whole.sum(dim=0)).all()


def test_who_is_made_for_which_number_of_ranks():
    powers = {1, 2, 4, 8, 16}
    for name in COLLECTIVES:
        sizes = {size for size in SIZES if made_for(name, size)}
        assert sizes == {"halving_doubling": powers, "binary_blocks": set(SIZES) - powers}.get(name, set(SIZES))


@pytest.mark.parametrize("length", [960, 961, 7])
def test_declared_costs_are_those_of_the_papers(length):
    p, b = 16, length
    pieces = [-(-(2**j) * b // p) for j in range(1, 4)]
    assert declared(make("ring", p), p, b)[:2] == (2 * (p - 1), 2 * b - 2 * b // p)
    assert declared(make("halving_doubling", p), p, b)[:2] == (2 * 4, b + sum(pieces))
    assert declared(make("direct", p), p, b)[:2] == (2, b - b // p + max((p - 1) * -(-b // p) - (b % p > 0), 0))
    assert declared(make("torus", p, torus=(8, 2)), p, b)[0] == 2 * 7 + 2 * 1
    assert declared(make("hierarchical", p, hosts_of("even", p)), p, b)[0] == 4 * (2 - 1) + 2 * (p // 2 - 1)
    assert declared(make("three_phase", p, hosts_of("even", p), between="ring"), p, b)[0] == 2 + 2 * (p // 2 - 1)


@pytest.mark.parametrize("name", ["ring", "halving_doubling", "torus", "three_phase"])
def test_where_pieces_are_equal_nobody_sends_more_than_must_be(name):
    p, b = 16, 16 * 60
    hosts = [range(i, i + 4) for i in range(0, p, 4)] if name == "three_phase" else None
    assert make(name, p, hosts).cost(p, b).elements_sent == 2 * (p - 1) * b // p


def test_binary_blocks_take_two_rounds_more_than_the_largest_block_for_any_number_of_blocks():
    for size in [*range(3, 70), 127, 1023]:
        if size & (size - 1):
            steps = 2 * (size.bit_length() - 1) + 2
            collective = make("binary_blocks", size)
            assert counted(count(collective, size, 999)) == declared(collective, size, 999)
            assert collective.cost(size, 999).steps == steps


@pytest.mark.parametrize("name", ["ring", "halving_doubling", "binary_blocks", "torus", "hierarchical"])
def test_nobody_sends_or_receives_two_slices_in_a_round(name):
    for size in SIZES:
        for collective in shapes(name, size):
            for step in collective.steps(size, 100):
                assert (step.end > step.begin).all()
                busy = [step.source, step.target]
                if name == "binary_blocks":  # a rank of a smaller block holds pieces of several of the larger one
                    busy = [step.target if step.add else step.source]
                assert all(len(set(ranks)) == len(ranks) for ranks in busy)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_nobody_changes_what_it_sends_in_the_same_round(name):
    for size in SIZES:
        for collective in shapes(name, size):
            for step in collective.steps(size, 30):
                sent, changed = np.zeros((2, size, 30), bool)
                for source, target, begin, end in zip(step.source, step.target, step.begin, step.end, strict=True):
                    sent[source, begin:end] = True
                    changed[target, begin:end] = True
                assert not (sent & changed).any()  # so real processes may receive and add while they still send


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    size=st.integers(1, 24),
    length=st.integers(0, 40),
    name=st.sampled_from(["hierarchical", "three_phase"]),
)
def test_any_hosts(data, size, length, name):
    ranks = data.draw(st.permutations(range(size)))
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, size - 1)))), size] if size > 1 else [0, 1]
    hosts = [ranks[a:b] for a, b in itertools.pairwise(cuts)]
    collective = make(name, size, hosts)
    buffers = np.arange(size)[:, None] ** 2 + np.arange(length)
    total = buffers.sum(axis=0)
    assert counted(simulate(collective, buffers)) == declared(collective, size, length)
    assert (buffers == total).all()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("halving_doubling", 4096),
        ("binary_blocks", 4095),
        ("torus", 4096),
        ("ring", 256),
        ("direct", 256),
        ("hierarchical", 256),
        ("three_phase", 256),
    ],
)
def test_thousands_of_ranks_in_one_process(name, size):
    buffers = np.repeat(np.arange(size, dtype=np.float32)[:, None] % 5, size // 3, axis=1)
    total = buffers[:, 0].sum()
    collective = make(name, size)
    assert counted(simulate(collective, buffers)) == declared(collective, size, size // 3)
    assert (buffers == total).all()


def test_counts_alone_of_a_ring_of_16384():
    collective = make("ring", 16384)
    assert counted(count(collective, 16384, 25_000_001)) == declared(collective, 16384, 25_000_001)


def test_what_crosses_between_hosts():
    hosts, b = [range(0, 4), range(4, 8)], 800
    by_ring = count(make("ring", 8, hosts), 8, b, hosts)
    by_lanes = count(make("three_phase", 8, hosts), 8, b, hosts)
    assert by_ring.crossing_elements.tolist() == [0, 0, 0, 1400, 0, 0, 0, 1400]
    assert by_lanes.crossing_elements.tolist() == [200] * 8
    assert by_lanes.crossing_messages.tolist() == [2] * 8
    assert by_lanes.total_elements == 8 * 1400


def test_ring_of_the_torus_follows_the_hosts():
    hosts = [[0, 2, 4], [1, 3, 5]]
    seen = count(make("torus", 6, hosts), 6, 600, hosts)
    assert seen.crossing_elements.tolist() == [200] * 6


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (("rign", 4), {}, r"algorithm=rign: unknown; did you mean ring\? known are ring, halving_doubling, "),
        (("halving_doubling", 6), {}, "power of two.*not 6; use execution.aggregation.algorithm=binary_blocks"),
        (("binary_blocks", 8), {}, "8 is a power of two.*equals halving_doubling; use .*=halving_doubling"),
        (("torus", 6), {"torus": (4, 2)}, r"execution.aggregation.torus=\[4,2\]: 4 x 2 must equal the 6.*\[2,3\]"),
        (("three_phase", 3, [[0], [1], [2]]), {"between": "halving_doubling"}, "aggregation.between=halving_doubling"),
        (("three_phase", 3), {"between": "direkt"}, "execution.aggregation.between=direkt: unknown; .*known are auto"),
    ],
)
def test_mistakes_are_one_line_with_a_way_out(arguments, named, message):
    with pytest.raises(RecipeError, match=message) as error:
        make(*arguments, **named)
    assert "\n" not in str(error.value)


def test_the_cost_model():
    cost = make("ring", 4).cost(4, 1000)
    assert cost.seconds(1e-3, 1e-9, 4) == pytest.approx(6 * 1e-3 + 1500 * 4 * 1e-9)


def test_a_schedule_is_drawn_small_and_ends_with_the_whole_sum_everywhere(tmp_path):
    rounds = [Round(step.source, step.target, step.begin, step.end, step.add) for step in make("ring", 8).steps(8, 80)]
    held = schedules._summands(rounds, 8, np.arange(0, 81, 10))
    assert (held[0] == 1).all()
    assert sorted(held[7][3]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (held[-1] == 8).all()
    for suffix in (".svg", ".png"):
        file = tmp_path / f"ring{suffix}"
        schedules.draw_schedule(rounds, 8, 80, "ring of 8", file)
        assert 0 < file.stat().st_size < (60_000 if suffix == ".svg" else 400_000)
    drawn = ElementTree.parse(tmp_path / "ring.svg")
    assert "ring of 8" in {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
