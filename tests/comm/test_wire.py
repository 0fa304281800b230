"""Sums of float32 sent in 16 bits: half the bytes, the same bits on every rank, rounded where it is said alone."""

import pytest
import torch
from support.reductions import collectives, fingerprint, hosts_of, values
from support.wires import LENGTH, WIRES, by_every_schedule, by_reducer, in_shared_memory
from support.worlds import in_processes, in_world

from batchscale.comm import Reducer, World
from batchscale.comm.collectives import make
from batchscale.comm.collectives.simulated import simulate
from batchscale.comm.shared.all_reduce import SMALL_BYTES
from batchscale.comm.world.messages import brought_by

UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""What one rounding changes at most, relatively: half the spacing of numbers at 1."""
SIZES = [*range(2, 10), 16]


def made(size):
    return [*collectives(size), *(make(name, size, hosts_of("even", size)) for name in ("hierarchical", "three_phase"))]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("size", SIZES)
def test_every_schedule_ends_with_the_same_bits_on_every_rank_near_the_sum(size, wire):
    """Each of its rounds rounds once at most, by half a unit of what is summed by then."""
    everyone = values(size, "float32", LENGTH)
    total, most = everyone.double().sum(dim=0), everyone.double().abs().sum(dim=0)
    whole = torch.randint(-8, 9, (size, LENGTH), generator=torch.Generator().manual_seed(1)).float()
    assert {collective.name for collective in made(size)} >= {"ring", "torus", "direct"}
    for collective in made(size):
        buffers, plain = everyone.clone(), everyone.clone()
        assert simulate(collective, buffers, wire=wire).total_elements == simulate(collective, plain).total_elements
        assert all(torch.equal(row, buffers[0]) for row in buffers), collective.name
        assert torch.equal(buffers[0], buffers[0].to(wire).float())  # it came over the wire
        steps = collective.cost(size, LENGTH).steps
        assert ((buffers[0] - total).abs() <= steps * UNIT[wire] * most).all(), collective.name
        buffers = whole.clone()
        simulate(collective, buffers, wire=wire)
        assert torch.equal(buffers[0], whole.sum(dim=0))  # below 2^8, as all partial sums: nothing to round


def test_what_is_added_is_added_in_float32():
    """1 + 1/256 + 1/256 is 1 + 1/128 in bfloat16, but 1 where each addition is rounded."""
    buffers = torch.zeros(4, LENGTH)
    buffers[0], buffers[1], buffers[2] = 1.0, 2.0**-8, 2.0**-8
    simulate(make("direct", 4), buffers, wire=torch.bfloat16)
    assert (buffers == 1 + 2.0**-7).all()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_get_the_bits_of_the_simulated_world_and_send_half_the_bytes(size):
    outcomes = in_world(size, by_every_schedule)
    for collective in collectives(size):
        for wire in (None, *WIRES):
            buffers = values(size, "float32", LENGTH)
            counts = simulate(collective, buffers, wire=wire)
            key, each = (collective.name, str(wire)), 4 if wire is None else 2
            assert [outcome[key] for outcome in outcomes] == [
                (fingerprint(buffers[0]), each * elements) for elements in counts.elements.tolist()
            ]
            assert max(outcome[key][1] for outcome in outcomes) == each * collective.cost(size, LENGTH).elements_sent


@pytest.mark.parametrize("size", [2, 3])
def test_in_shared_memory_each_value_is_rounded_once_and_the_sum_once(size):
    cases = list(zip(*in_world(size, in_shared_memory), strict=True))
    assert len(cases) == 12
    for number, ranks in enumerate(cases):
        wire, everyone = WIRES[number // 6], ranks[0][0]
        total = torch.zeros(everyone.shape[1])
        for row in everyone:
            total += row.to(wire)
        if everyone.shape[1] * 2 > SMALL_BYTES:
            total = total.to(wire).float()
        for _, rank_sum in ranks:
            assert torch.equal(rank_sum, total)


@pytest.mark.parametrize(
    ("algorithm", "hosts"), [("builtin", "aaa"), ("shared_memory", "aaa"), ("ring", "aab"), ("three_phase", "aabb")]
)
def test_a_reducer_sums_so_by_any_engine(algorithm, hosts):
    size = len(hosts)
    ranks = in_processes(size, by_reducer, algorithm, list(hosts))
    everyone = values(size, "float32", 50_001).double()
    for number, wire in enumerate(WIRES):
        assert all(torch.equal(rank[number], ranks[0][number]) for rank in ranks)
        bound = 2 * size * UNIT[wire] * everyone.abs().sum(dim=0)
        assert ((ranks[0][number] - everyone.sum(dim=0)).abs() <= bound).all()
        assert not torch.equal(ranks[0][number].double(), everyone.float().sum(dim=0).double())


def test_only_float32_is_sent_so_and_only_in_16_bits():
    reducer = Reducer(World())
    for tensor, wire in [(torch.ones(3, dtype=torch.float64), torch.bfloat16), (torch.ones(3), torch.int8)]:
        with pytest.raises(ValueError, match="float16 or bfloat16, for tensors of float32"):
            reducer.start(tensor, wire=wire)


def test_a_call_with_another_wire_is_another_call():
    """So ranks that disagree never meet: neither takes the other's bytes for its own."""
    said = {brought_by(torch.ones(7), wire) for wire in (None, *WIRES)}
    assert said == {"7 x float32", "7 x float32 sent as bfloat16", "7 x float32 sent as float16"}
