"""The lr of the eight ImageNet recipes at 1,281,167 images, computed once more from what their headers state.

Nothing of the package is used for what is expected: only each source's formula, the minibatch and the epochs.
"""

import math
from fractions import Fraction

import pytest

from batchscale.build.planning import plan_of, schedule_of
from batchscale.recipe import load_recipe

N = 1_281_167


def epoch_of(t, phases):
    """Epochs before step t; phases: (epoch it is given for, kn), a change waiting for the next step."""
    first, done = 0, Fraction(0)
    for (_, kn), (following, _) in zip(phases, [*phases[1:], (None, None)], strict=True):
        until = math.inf if following is None else first + math.ceil((following - done) * Fraction(N, kn))
        if t < until:
            return done + (t - first) * Fraction(kn, N)
        first, done = until, done + (until - first) * Fraction(kn, N)
    raise AssertionError


def goyal(epoch, kn_now, kn_first=8192):
    """Goyal et al. 2017, sections 2.2 and 5.1; lr / kn as theirs where kn grows."""
    if epoch < 5:
        lr = 0.1 + (0.1 * kn_first / 256 - 0.1) * float(epoch) / 5
    else:
        lr = 0.1 * kn_first / 256 / 10 ** sum(epoch >= e for e in (30, 60, 80))
    return lr * kn_now / kn_first


def akiba(epoch):
    """Akiba et al. 2017: parts of 0.1 kn / 256."""
    share = 0.5 if epoch < 40 else 0.075 if epoch < 70 else 0.01 if epoch < 85 else 0.001
    return share * 0.1 * 32768 / 256


def google(epoch, peak, warmup, end, last=1e-4):
    """Google's LARS code: lr = peak e / w, then a polynomial of power 2 from the peak to 1e-4."""
    if epoch < warmup:
        return peak * float(epoch / warmup)
    left = 1 - min((epoch - warmup) / (end - warmup), 1)
    return (peak - last) * float(left) ** 2 + last


def end_of(kn, epochs):
    """The epoch at the end of the last step: a run of steps goes on to the next whole one."""
    return Fraction(math.ceil(epochs * Fraction(N, kn)) * kn, N)


FLASH = [(0, 34816), (30, 69632)]
SMITH = [(0, 8192), (30, 16384)]


def flash_end():
    change = Fraction(math.ceil(30 * Fraction(N, 34816)) * 34816, N)
    return change + math.ceil((90 - change) * Fraction(N, 69632)) * Fraction(69632, N)


EXPECTED = {
    "imagenet-resnet50-1h": lambda t: goyal(epoch_of(t, [(0, 8192)]), 8192),
    "imagenet-resnet101-1h": lambda t: goyal(epoch_of(t, [(0, 8192)]), 8192),
    "imagenet-resnet50-increase-minibatch": lambda t: goyal(e := epoch_of(t, SMITH), 16384 if e >= 30 else 8192),
    "imagenet-resnet50-15min": lambda t: akiba(epoch_of(t, [(0, 32768)])),
    "imagenet-resnet50-tpu": lambda t: google(epoch_of(t, [(0, 32768)]), 34.0, 12, end_of(32768, 90)),
    "imagenet-resnet50-lars-32k": lambda t: google(epoch_of(t, [(0, 32768)]), 21.2, 16, end_of(32768, 58)),
    "imagenet-resnet50-4min": lambda t: google(epoch_of(t, [(0, 65536)]), 24.699, 31, 89),
    "imagenet-resnet50-flash": lambda t: google(epoch_of(t, FLASH), 34.0 * 34816 / 32768, 12, flash_end()),
}
BY_HAND = {  # a few of them as plain numbers: step -> lr
    "imagenet-resnet50-1h": {0: 0.1, 391: 0.1 + 3.1 * 391 * 8192 / N / 5, 782: 3.2, 4691: 3.2, 4692: 0.32},
    "imagenet-resnet101-1h": {0: 0.1, 9383: 0.32, 9384: 0.032, 14_075: 0.0032},
    "imagenet-resnet50-15min": {0: 6.4, 1564: 0.96, 2737: 0.128, 3518: 0.0128},
    "imagenet-resnet50-increase-minibatch": {4691: 3.2, 4692: 0.64, 9383: 0.0064},
    "imagenet-resnet50-tpu": {0: 0.0, 235: 34 * 235 * 32768 / N / 12, 470: 33.9817, 3518: 1e-4},
    "imagenet-resnet50-lars-32k": {0: 0.0, 1: 21.2 * 32768 / N / 16, 626: 21.189, 2267: 1e-4},
    "imagenet-resnet50-4min": {0: 0.0, 1: 24.699 * 65536 / N / 31, 1740: 1e-4, 1759: 1e-4},
    "imagenet-resnet50-flash": {0: 0.0, 1: 36.125 * 34816 / N / 12, 2207: 1e-4},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_lr_of_every_step_is_the_sources(name):
    recipe = load_recipe(name)
    plan = plan_of(recipe, N)
    schedule = schedule_of(recipe, plan)
    for step in {*range(0, plan.total_steps, 7), *range(12), plan.total_steps - 1, *BY_HAND.get(name, {})}:
        assert schedule(step) == pytest.approx(EXPECTED[name](step), rel=1e-9, abs=5e-7), step
    for step, lr in BY_HAND.get(name, {}).items():
        assert schedule(step) == pytest.approx(lr, rel=1e-4, abs=3e-5), step
    assert max(schedule(step) for step in range(plan.total_steps)) <= schedule.first.target
