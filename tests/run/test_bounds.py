"""A run's healthy processes wait for each other: for data that load late, for a checkpoint on a slow disk."""

import time
from types import SimpleNamespace

import pytest
import torch
from support.worlds import in_processes

import batchscale
from batchscale.build import together
from batchscale.errors import ExactnessError, ProcessError
from batchscale.recipe import load_recipe
from batchscale.run import fingerprint as prints
from batchscale.run.fingerprint import check_resume, check_same, fingerprint
from batchscale.training import checkpoint

TIMEOUT = 5


def slow_in_turn(rank, out):
    """Rank 1 loads its data, rank 0 writes its checkpoints, for longer than a silent process is waited for."""
    load, save = together.load_data, checkpoint.save

    def load_late(*arguments):
        time.sleep(1.6 * TIMEOUT * rank)
        return load(*arguments)

    def save_slowly(*arguments):
        time.sleep(1.6 * TIMEOUT)
        return save(*arguments)

    together.load_data, checkpoint.save = load_late, save_slowly
    short = ["data.train_images=64", "epochs=2", "minibatch.workers=2", "minibatch.per_worker=16"]
    once = ["execution.checkpoint_seconds=1000", f"execution.timeout_seconds={TIMEOUT}"]
    result = batchscale.train("digits-cnn", [*short, *once], out=out, quiet=True)
    return result.status


@pytest.mark.slow
def test_a_process_that_is_late_for_a_reason_ends_no_run(tmp_path):
    """On 91b3349 each of them was named as hung."""
    assert in_processes(2, slow_in_turn, tmp_path / "run") == ["done"] * 2


@pytest.fixture
def gpu(monkeypatch):
    """Two sizes of a partitioned GPU, by their number."""
    monkeypatch.setattr(prints.torch.cuda, "get_device_name", lambda _: "NVIDIA H200 MIG")
    sizes = {0: SimpleNamespace(multi_processor_count=132), 1: SimpleNamespace(multi_processor_count=16)}
    monkeypatch.setattr(prints.torch.cuda, "get_device_properties", lambda device: sizes[device.index])
    numerics = load_recipe("digits-cnn").numerics
    return lambda index: fingerprint(numerics, 1, 16, torch.device("cuda", index))


def test_two_sizes_of_one_gpu_are_told_apart(gpu):
    whole, part = gpu(0), gpu(1)
    assert whole["device"] == part["device"]
    with pytest.raises(ProcessError, match=r"rank 1 does not compute as rank 0 does: multiprocessors \(132 / 16\)"):
        check_same([whole, part], exact=True)
    check_same([whole, part], exact=False)
    with pytest.raises(ExactnessError, match=r"multiprocessors \(132 / 16\)"):
        check_resume(whole, part)


def test_a_run_begun_before_sizes_were_written_down_goes_on(gpu):
    earlier = gpu(0)
    del earlier["multiprocessors"]
    check_resume(earlier, gpu(1))
    with pytest.raises(ExactnessError, match=r"threads \(2 / 1\)"):
        check_resume({**earlier, "threads": "2"}, gpu(0))


def test_a_cpu_has_the_fingerprint_it_had():
    assert "multiprocessors" not in fingerprint(load_recipe("digits-cnn").numerics, 1, 16, torch.device("cpu"))
