"""A step's seconds equal closed forms where there are some, and follow what must hold elsewhere."""

import math

import numpy as np
import pytest
import torch
from support.plans import cluster_of, net_of, sourced

from batchscale.aggregate.fast import usual_bucket_bytes
from batchscale.cost.clusters.cluster import cluster_names, read_cluster
from batchscale.cost.step.all_reduce_time import ALGORITHMS, all_reduce_seconds
from batchscale.cost.step.device_time import device_work
from batchscale.cost.step.net_table import shipped_net
from batchscale.cost.step.step_time import (
    BUCKET_BYTES,
    BUCKET_BYTES_OF_CORES,
    buckets_of,
    expected_maximum,
    step_time,
)
from batchscale.errors import DataError, UsageError
from batchscale.members import ALL_REDUCES

ONE_A_HOST = {"devices_per_host": sourced(1)}
BYTES = 24e6  # of net_of's gradients


@pytest.mark.parametrize("ranks", [2, 3, 8, 32])
def test_a_ring_takes_its_rounds_and_its_bytes(ranks):
    seconds = all_reduce_seconds("ring", cluster_of(**ONE_A_HOST), ranks, 4e6)
    alpha, beta = 20e-6, 1e-9
    assert seconds == pytest.approx([2 * (ranks - 1) * (alpha + 4e6 / ranks * beta)])
    inside = all_reduce_seconds("ring", cluster_of(devices_per_host=sourced(32)), ranks, 4e6)
    assert inside == pytest.approx([2 * (ranks - 1) * (5e-6 + 4e6 / ranks * 1e-10)])


def test_halving_doubling_takes_fewer_rounds_of_the_same_bytes():
    cluster = cluster_of(**ONE_A_HOST)
    ring, halves = (all_reduce_seconds(name, cluster, 32, 4e6)[0] for name in ("ring", "halving_doubling"))
    assert halves == pytest.approx(10 * 20e-6 + 2 * 31 / 32 * 4e6 * 1e-9)
    assert ring - halves == pytest.approx((62 - 10) * 20e-6)


def test_three_phases_are_two_rounds_inside_and_those_between_hosts():
    seconds = all_reduce_seconds("three_phase", cluster_of(), [8, 64], 8e6)
    inside = 2 * 5e-6 + 2 * 7 / 8 * 8e6 * 1e-10
    assert seconds == pytest.approx([inside, inside + 6 * 20e-6 + 2 * 7 / 8 * 8e6 * 1e-9])


def test_what_is_not_made_for_a_size_takes_forever_and_auto_passes_it_by():
    assert all_reduce_seconds("halving_doubling", cluster_of(), [16, 24], 1e6)[1] == math.inf
    times = step_time(net_of(), cluster_of(), [2, 8, 16, 24, 32], 4, rate=100.0)
    single = [step_time(net_of(), cluster_of(), times.devices, 4, name, rate=100.0).total for name in ALGORITHMS]
    assert times.total == pytest.approx(np.min(single, axis=0))
    assert all(
        ALGORITHMS.index(name) == np.argmin(column)
        for name, column in zip(times.algorithm, np.array(single).T, strict=True)
    )


def points_of(algorithm, devices, sizes, seconds):
    return {"algorithm": algorithm, "devices": devices, "bytes": sizes, "seconds": seconds, "source": "made up here"}


def test_measured_all_reduces_stand_in_the_place_of_the_links():
    points = points_of("shared_memory", 2, [1e3, 1e5, 1e7], [1e-5, 1e-4, 1e-1])
    cluster = cluster_of(all_reduce=[points])
    for num_bytes, seconds in ((1e3, 1e-5), (1e4, 10**-4.5), (1e6, 10**-2.5), (1e9, 1e2)):
        assert all_reduce_seconds("shared_memory", cluster, [2, 4], num_bytes)[0] == pytest.approx(seconds)
    assert all_reduce_seconds("shared_memory", cluster, [4], 1e4) == all_reduce_seconds("direct", cluster, [4], 1e4)
    swift = cluster_of(all_reduce=[points_of("shared_memory", 2, [1e3, 1e9], [1e-9, 1e-8])])
    assert step_time(net_of(), swift, [2], 4, rate=100.0).algorithm == ["shared_memory"]


def test_processes_share_the_cores_of_their_host_and_sum_on_them():
    cluster = cluster_of(cores_per_host=sourced(2))
    times = step_time(net_of(), cluster, [1, 2, 4, 8], 4, "ring", rate=100.0, bucket_bytes=1)
    assert times.compute == pytest.approx([0.04, 0.04, 0.08, 0.16])
    assert times.exposed_communication == pytest.approx(times.communication)


def test_one_host_needs_no_link_and_cannot_be_left():
    cluster = cluster_of(between_gbit_per_second=None, between_microseconds=None, hosts=sourced(1))
    assert step_time(net_of(), cluster, 8, 4, "ring", rate=100.0).total > 0
    with pytest.raises(DataError, match="one host"):
        step_time(net_of(), cluster, 16, 4, "ring", rate=100.0)


def test_auto_chooses_among_all_that_are_priced():
    assert set(ALGORITHMS) == set(ALL_REDUCES)


def test_without_overlap_a_step_is_a_sum():
    one = step_time(net_of(), cluster_of(), 16, 4, "ring", rate=100.0, overlap=False, bucket_bytes=10**9)
    reduce = all_reduce_seconds("ring", cluster_of(), 16, BYTES)
    assert one.compute == pytest.approx([4 / 100])
    assert one.exposed_communication == pytest.approx(reduce)
    assert one.total == pytest.approx(4 / 100 + reduce)
    assert one.communication == pytest.approx(reduce)


def test_one_bucket_is_full_when_backward_ends_so_nothing_is_hidden():
    both = [
        step_time(net_of(), cluster_of(), 16, 4, "ring", rate=100.0, overlap=overlap, bucket_bytes=10**9).total
        for overlap in (True, False)
    ]
    assert both[0] == pytest.approx(both[1])


def test_buckets_go_out_as_backward_fills_them():
    """Backward of layers c, b, a takes 3 : 2 : 1 parts of 2/3 of the passes; a bucket for each layer."""
    cluster, net = cluster_of(memory_gbyte_per_second=None), net_of()
    times = step_time(net, cluster, 16, 4, "ring", rate=100.0, bucket_bytes=1)
    end = 0.04
    backward = end * 12 / 18
    full = [end - backward + backward * share for share in (1 / 2, 5 / 6, 1)]
    moment = 0.0
    for ready, num_bytes in zip(full, (12e6, 8e6, 4e6), strict=True):
        moment = max(moment, ready) + all_reduce_seconds("ring", cluster, 16, num_bytes)[0]
    assert times.exposed_communication == pytest.approx([moment - end])
    assert 0 < times.exposed_communication[0] < times.communication[0]


def test_micro_batches_compute_alone_until_the_last():
    whole, parts = (
        step_time(net_of(), cluster_of(), 16, 8, "ring", rate=100.0, bucket_bytes=1, micro_batch=micro)
        for micro in (8, 2)
    )
    assert parts.compute == pytest.approx(whole.compute)
    assert parts.exposed_communication > whole.exposed_communication  # a fourth of backward is left to hide it


def test_seconds_of_layers_are_those_of_the_slower_of_operations_and_bytes():
    cluster = cluster_of(rates=[sourced(80.0) | {"net": "resnet50-3x224x224", "precision": "fp32", "per_device": 8}])
    resnet = shipped_net("resnet50-3x224x224")
    assert step_time(resnet, cluster, 1, 8).total == pytest.approx([8 / 80])  # the share reproduces its own rate
    double = step_time(net_of(forward_flops=[2e9, 4e9, 6e9], backward_flops=[4e9, 8e9, 12e9]), cluster, 1, 100)
    assert double.compute / step_time(net_of(), cluster, 1, 100).compute == pytest.approx([2], rel=1e-3)
    bound = [value * 1000 for value in (4e6, 4e6, 4e6)]
    by_bytes = step_time(net_of(forward_bytes=bound, forward_flops=[0, 0, 0]), cluster, 1, 100).compute
    more = step_time(net_of(forward_bytes=[2 * value for value in bound], forward_flops=[0, 0, 0]), cluster, 1, 100)
    assert (more.compute - by_bytes)[0] * 100e9 * share_of(cluster, resnet) == pytest.approx(100 * sum(bound))


def share_of(cluster, net):
    """By hand."""
    passes = [
        np.maximum(8 * flops / 1e12, (8 * moved + fixed) / 100e9).sum()
        for flops, moved, fixed in (
            (net.forward_flops, net.forward_bytes, net.forward_fixed_bytes),
            (net.backward_flops, net.backward_bytes, net.backward_fixed_bytes),
        )
    ]
    return (sum(passes) + 20 * net.parameters.sum() / 100e9) * 80 / 8


def test_the_slowest_of_many_is_waited_for():
    assert expected_maximum([1, 2, 3]) == pytest.approx([0, math.pi**-0.5, 1.5 * math.pi**-0.5], abs=1e-6)
    drawn = np.random.default_rng(0).standard_normal((4000, 352)).max(axis=1).mean()
    assert expected_maximum([352])[0] == pytest.approx(drawn, abs=0.03)
    times = step_time(net_of(), cluster_of(jitter_percent=sourced(2.0)), [1, 2, 16], 4, rate=100.0)
    assert times.straggler == pytest.approx(0.02 * 0.04 * expected_maximum([1, 2, 16]))


def test_a_step_takes_no_less_than_its_examples_take_to_be_read():
    times = step_time(net_of(), cluster_of(), [1, 16], 4, rate=100.0, data_rate=50.0)
    assert times.total == pytest.approx([4 / 50] * 2)
    assert times.data_wait[0] == pytest.approx(4 / 50 - 4 / 100)
    fast = step_time(net_of(), cluster_of(), [1, 16], 4, rate=100.0, data_rate=1e6)
    assert not fast.data_wait.any()


def test_parts_add_up_and_the_share_of_the_peak_is_that_of_operations():
    times = step_time(net_of(), cluster_of(jitter_percent=sourced(2.0)), [1, 8, 64], 4, rate=100.0, data_rate=99.0)
    parts = times.compute + times.exposed_communication + times.straggler + times.data_wait
    assert times.total == pytest.approx(parts)
    assert times.peak_share == pytest.approx(4 * 18e9 / times.total / 1e12)


def test_a_hundred_thousand_counts_are_priced_at_once():
    """0.11 s of one core, all algorithms together."""
    net, cluster = shipped_net("resnet50-3x224x224"), read_cluster("dgx-a100")
    devices = np.arange(1, 100_001) * 8
    times = step_time(net, cluster, devices, 32, precision="tf32")
    assert np.isfinite(times.total).all()
    some = [0, 1, 4095, 77_776, 99_999]
    single = [step_time(net, cluster, devices[place], 32, precision="tf32").total[0] for place in some]
    assert times.total[some] == pytest.approx(single)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 0}, "devices=0"),
        ({"devices": -8}, "devices=-8"),
        ({"devices": 13}, "use 16"),
        ({"devices": 2.5}, "devices=2.5"),
        ({"per_device": 0}, "per_device=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"rate": 0.0}, "rate=0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"rate": None}, "no rate measured"),
        ({"data_rate": -1.0}, "data_rate=-1"),
        ({"bucket_bytes": 0}, "bucket_bytes=0"),
        ({"algorithm": "rings"}, "ring"),
    ],
)
def test_bad_numbers_are_one_line(changes, words):
    good = {"devices": 16, "per_device": 4, "algorithm": "ring", "rate": 100.0}
    with pytest.raises(UsageError, match=words) as caught:
        step_time(net_of(), cluster_of(), **(good | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", cluster_names())
def test_every_shipped_cluster_prices_a_step(name):
    cluster = read_cluster(name)
    each = cluster.devices_per_host.value
    rate = None if cluster.rates else 1000.0
    precision = cluster.rates[0].precision if cluster.rates else "fp16"
    devices = [1, each, 2 * each, 16 * each]
    times = step_time(shipped_net("resnet50-3x224x224"), cluster, devices, 32, precision=precision, rate=rate)
    assert (np.diff(times.total) > 0).all()
    assert (times.peak_share < 1).all()


def test_a_pass_of_few_examples_takes_as_long_as_its_launches():
    """Three layers, forward and backward, 5 ms each; with many examples the device is the slower one."""
    slow_host = cluster_of(launch_microseconds=sourced(5000.0), memory_gbyte_per_second=None)
    few, two_passes, many = (
        step_time(net_of(), slow_host, 1, count, rate=100.0, micro_batch=micro).total[0]
        for count, micro in ((1, 1), (2, 1), (8, 8))
    )
    assert few == pytest.approx(6 * 5e-3)
    assert two_passes == pytest.approx(12 * 5e-3)
    assert many == pytest.approx(8 / 100)
    forward_alone = step_time(net_of(), slow_host, 1, 4, rate=100.0).total[0]  # 1/3 of 40 ms is less than its 15 ms
    assert forward_alone == pytest.approx(15e-3 + 2 / 3 * 40e-3)


def test_buckets_are_those_of_the_aggregator_on_gpus_and_on_cores():
    gpu, core = torch.device("meta"), torch.device("cpu")  # meta stands for a GPU
    assert (usual_bucket_bytes(gpu), usual_bucket_bytes(core)) == (BUCKET_BYTES, BUCKET_BYTES_OF_CORES)
    gpus, cores = cluster_of(), cluster_of(cores_per_host=sourced(16))
    for cluster, usual in ((gpus, BUCKET_BYTES), (cores, BUCKET_BYTES_OF_CORES)):
        seconds = [step_time(net_of(), cluster, 16, 4, "ring", rate=100.0, bucket_bytes=b).total for b in (None, usual)]
        assert seconds[0] == seconds[1]


def test_gradients_in_16_bits_are_half_the_bytes_of_the_same_buckets():
    net = net_of()
    for bucket in (1, int(1.5 * net.gradient_bytes.max()), 10**9):
        whole, half = (step_buckets(net, bucket, bytes_) for bytes_ in (4, 2))
        assert [second for second, _ in whole] == [second for second, _ in half]
        assert [size for _, size in half] == [size / 2 for _, size in whole]


def step_buckets(net, bucket, wire_bytes):
    cluster = cluster_of()
    return list(buckets_of(net, cluster, device_work(net, cluster, 4, "fp32", None, 100.0), bucket, wire_bytes))
