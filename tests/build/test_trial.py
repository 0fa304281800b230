"""The choice of the micro-batch: after a warm-up, within memory, the same on all ranks; one line where nothing fits."""

import json
from types import SimpleNamespace

import pytest
import torch
from support.clocks import VirtualClock
from support.dues import stop_after
from support.runs import RECIPE
from support.runs import data as data
from support.worlds import in_world
from torch import nn

import batchscale
from batchscale.build import build as building
from batchscale.build import memory, trial
from batchscale.build.memory import is_out_of_memory
from batchscale.build.trial import PassTimer
from batchscale.errors import RecipeError
from batchscale.recipe import recipe_from
from batchscale.run.run import Stopped
from batchscale.training.due import DUES

N = 32
LACK = "CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"


class FakeMemory:
    """Short of memory from a size on, after the pass that a test says was the last one."""

    def __init__(self, short_from=None):
        self.short_from, self.last, self.releases = short_from, 0, 0

    def release(self):
        self.releases += 1

    def is_short(self):
        return self.short_from is not None and self.last >= self.short_from


def timer(monkeypatch, seconds, cold=0.0, device="cpu", fails_from=None, short_from=None):
    """A trial on a clock of its own, and the examples of its passes.

    seconds: of a pass by its examples; cold: more, of the first of all; fails_from: examples that do not fit.
    """
    clock, passes, free = VirtualClock(), [], FakeMemory(short_from)

    def timed(self, groups):
        images = groups * self._group_examples
        passes.append(images)
        free.last = images
        if fails_from is not None and images >= fails_from:
            raise torch.OutOfMemoryError(LACK)
        taken = seconds(images) + (cold if len(passes) == 1 else 0.0)
        clock.now += taken
        return taken / images

    monkeypatch.setattr(PassTimer, "_seconds_per_image", timed)
    group = (torch.zeros(N, 1), torch.zeros(N, dtype=torch.int64))
    normalizer = SimpleNamespace(device=torch.device(device))
    return PassTimer(nn.Linear(1, 1), None, None, normalizer, group, N, clock, free), passes, clock


def chosen(timer, workers=8):
    """Examples of a pass, as one process chooses them."""
    tried = timer.tried_sizes(range(workers))
    return N * timer.fastest(tried.within(tried.largest), range(workers), longest=lambda seconds: seconds)


@pytest.mark.parametrize(("device", "cold"), [("cpu", 1.1), ("cuda", 1.1), ("cuda", 60.0)])
def test_a_slow_first_pass_decides_nothing(monkeypatch, device, cold):
    """What a GPU loads before its first pass takes seconds; larger passes are faster here, so the largest is chosen."""
    launch_bound, passes, _ = timer(monkeypatch, lambda images: 0.01 + 1e-5 * images, cold, device)
    assert chosen(launch_bound) == 256
    assert passes[:5] == [32, 32, 64, 128, 256]
    assert passes[5:20] == [*[32] * 8, *[64] * 4, *[128] * 2, 256]  # a step of each: 256 images


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_first_pass_of_a_size_is_a_warm_up(monkeypatch, device):
    """Here the first pass of 256 is the fastest of all, and no later one is."""
    seen = set()

    def seconds(images):
        seconds_each = 1e-5 if images == 256 and images not in seen else 1e-4 if images == 64 else 2e-4
        seen.add(images)
        return images * seconds_each

    odd, *_ = timer(monkeypatch, seconds, device=device)
    assert chosen(odd) == 64


@pytest.mark.parametrize(("workers", "images"), [(8, 128), (7, 64)])
def test_all_passes_of_a_step_count(monkeypatch, workers, images):
    """Seven workers of 32 leave 96 images behind a pass of 128, and such a pass is slow."""
    seconds = {32: 1e-2, 64: 1.15e-2, 96: 5e-2, 128: 1.2e-2, 256: 9e-2}
    uneven, *_ = timer(monkeypatch, seconds.__getitem__)
    assert chosen(uneven, workers) == images


def test_the_slowest_process_decides(monkeypatch):
    """Alone this one would take 256."""
    other = iter([1.0, 0.5, 2.0, 3.0] * 100)
    fast, *_ = timer(monkeypatch, lambda images: 0.01)
    tried = fast.tried_sizes(range(8))
    assert fast.fastest(tried.sizes, range(8), lambda seconds: max(seconds, next(other))) == 2


def test_the_fastest_of_all_is_chosen_wherever_it_lies(monkeypatch):
    best_at_64, passes, _ = timer(monkeypatch, lambda images: 1e-4 * images * (1 + abs(images - 64) / 64))
    assert chosen(best_at_64) == 64
    assert all(passes.count(images) > 5 for images in (32, 64, 128, 256))


def test_after_the_last_pass_memory_is_given_back(monkeypatch):
    fast, passes, _ = timer(monkeypatch, lambda images: 0.01)
    tried, released_after = fast.tried_sizes(range(8)), []
    monkeypatch.setattr(fast._memory, "release", lambda: released_after.append(len(passes)))
    fast.fastest(tried.sizes, range(8), lambda seconds: seconds)
    assert released_after == [len(passes)]


@pytest.mark.parametrize(
    ("device", "pass_seconds", "most", "bound"),
    [
        ("cpu", 1.5, 32, 2 * 1.5),  # a large model: two passes, no more
        ("cpu", 0.4, 32, 2 * 0.4),
        (
            "cpu",
            0.1,
            128,
            0.1 + 0.7 + 3 * 3 * 0.4 + 0.01,
        ),  # up to 256 would be 1.5 s; three steps of each size
        ("cpu", 0.016, 256, 0.016 + 2 * 1.0 + 8.0),  # many sizes: a round is up to a second of each
        ("cuda", 1.5, 64, 1.5 + 3 * 5.0),  # 5 s: sizes up to 64 are 4.5 s
        ("cuda", 0.1, 256, 0.1 + 3 * 5.0),
    ],
)
def test_a_trial_ends_within_its_time(monkeypatch, device, pass_seconds, most, bound):
    slow, passes, clock = timer(monkeypatch, lambda images: pass_seconds * images / N, device=device)
    chosen(slow)
    assert max(passes) == most
    assert clock.now <= bound


@pytest.mark.parametrize("limit", [{"fails_from": 256}, {"short_from": 256}])
def test_a_size_that_does_not_fit_ends_the_larger_ones(monkeypatch, limit):
    """Neither one that the allocator refuses, nor one that leaves less than a tenth of the memory free."""
    small, passes, _ = timer(monkeypatch, lambda images: 0.01, device="cuda", **limit)
    assert small.tried_sizes(range(32)).largest == 4
    assert max(passes) == 256
    assert small._memory.releases > 4
    assert chosen(small, 32) == 128


def test_not_even_the_smallest_pass_fits(monkeypatch):
    small, *_ = timer(monkeypatch, lambda images: 0.01, fails_from=1)
    with pytest.raises(RecipeError, match=r"minibatch.per_worker=32: a pass of 32 .* \(CUDA out of memory\. Tried"):
        small.tried_sizes(range(8))


def test_other_errors_of_a_pass_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(self, groups):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    found, *_ = timer(monkeypatch, lambda images: 0.01)
    monkeypatch.setattr(PassTimer, "_seconds_per_image", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        found.tried_sizes(range(8))


def test_what_allocators_say():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 50)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError(LACK))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_tenth_of_a_gpus_memory_stays_free(monkeypatch):
    cuda = memory.memory_of(torch.device("cuda", 0))
    for free, short in ((9, True), (10, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100))
        assert cuda.is_short() == short
    assert not memory.memory_of(torch.device("cpu")).is_short()


class Hungry(nn.Module):
    """Says that it has no memory for so many images in training."""

    def __init__(self, fails_from):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.fails_from = nn.Linear(64, 4), fails_from

    def forward(self, images):
        if self.training and torch.is_grad_enabled() and len(images) >= self.fails_from:
            raise torch.OutOfMemoryError(LACK)
        return self.linear(images.flatten(1))


def built(world, data, fails_from):
    """What a rank decides whose own memory holds passes below its size; or the error."""
    trial._TRIAL_SECONDS = 60.0  # of real passes: nothing here is to hang on their speed
    trial._MOST_ROUNDS = 1
    PassTimer.fastest = lambda self, sizes, *_: max(sizes)
    recipe = recipe_from(RECIPE, ["minibatch.workers=16", "minibatch.per_worker=4"])
    try:
        parts = building.build(recipe, world, data.splits(), own_data=True, model=Hungry(fails_from[world.rank]))
    except RecipeError as error:
        return str(error)
    parts.close()
    return parts.decided.micro_batch, parts.decided.as_json().get("largest_that_fits")


@pytest.mark.parametrize(
    ("fails_from", "decided"),
    [((1000, 1000), (32, None)), ((1000, 16), (8, 8)), ((8, 16), (4, 4))],
)
def test_ranks_agree_on_the_largest_that_fits_everywhere(data, fails_from, decided):
    """n = 4, 8 workers a rank; in the second row rank 0 alone would take 32."""
    assert in_world(2, built, data, fails_from) == [decided] * 2


def test_no_rank_waits_for_one_on_which_nothing_fits(data):
    errors = in_world(2, built, data, (1000, 4))
    assert errors[0] == errors[1]
    assert errors[0].startswith("minibatch.per_worker=4: a pass of 4 examples, the fewest that run together, does not")


def test_the_limit_is_recorded_and_a_resume_keeps_the_choice(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "_TRIAL_SECONDS", 60.0)
    monkeypatch.setattr(PassTimer, "fastest", lambda self, sizes, *_: max(sizes))
    run = {"data": data, "out": tmp_path / "run", "quiet": True}
    with monkeypatch.context() as stop:
        stop.setitem(DUES, "stop", stop_after(2))
        with pytest.raises(Stopped):
            batchscale.train(RECIPE, model=Hungry(32), **run)
    decided = json.loads((tmp_path / "run" / "environment.json").read_text())["decided"]
    assert (decided["micro_batch"], decided["largest_that_fits"]) == (16, 16)
    monkeypatch.setattr(PassTimer, "tried_sizes", None)  # no second trial
    assert batchscale.train(RECIPE, model=Hungry(32), resume="yes", **run).status == "done"
