"""Runs on a Dataset of one's own: a plain loop's, and one sha256 for every number of processes and after a stop."""

import math
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.dues import stop_after
from support.own_data import Points
from support.worlds import in_processes
from torch import nn

import batchscale
from batchscale.data.feed import Feed
from batchscale.order import StreamOrder
from batchscale.randomness import bits, key
from batchscale.run.run import Stopped
from batchscale.training.due import DUES

SHORT = ("epochs=2", "minibatch={workers: 6, per_worker: 4}", "numerics.threads=1", "execution.device=cpu",
         "execution.decode_threads=2", "learning_rate.reference_minibatch=24")  # fmt: skip


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def train(rank, *overrides, **options):
    data = (Points(50), Points(30, seed=1))
    result = batchscale.train(
        "own", [*SHORT, "precision=fp32", *overrides], model=network(), data=data, quiet=True, **options
    )
    return result.weights_sha256, result.test_error_percent


def test_a_run_is_that_of_a_plain_loop_in_float64():
    plain, model = (nn.Linear(2, 2).double() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    dataset = Points(50)
    fixed = ("precision=fp64", "learning_rate={reference: 0.1, reference_minibatch: 24}",
             "learning_rate.warmup={kind: none}", "learning_rate.decay={kind: none}",
             "optimizer={name: sgd, momentum: 0.9, nesterov: false, weight_decay: 0.0}")  # fmt: skip
    batchscale.train("own", [*SHORT, *fixed], model=model, data=(dataset, Points(30, seed=1)), quiet=True)
    optimizer, order = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9), StreamOrder(0, 50)
    for step in range(math.ceil(100 / 24)):
        items = []
        for epoch, place in (divmod(position, 50) for position in range(24 * step, 24 * (step + 1))):
            number = int(order.at_places(epoch, np.array([place]))[0])
            seed = int(bits(key(0, epoch, 301), np.array([number]))[0])
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed // 2)
            items.append(dataset[number])
        inputs, labels = torch.stack([point for point, _ in items]), torch.tensor([label for _, label in items])
        optimizer.zero_grad()
        F.cross_entropy(plain(inputs), labels).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_exact_runs_are_the_same_for_every_number_of_processes_and_after_a_stop(tmp_path, monkeypatch):
    exact = "numerics.exact=true"
    alone = train(0, exact)
    assert in_processes(2, train, exact) == [alone] * 2
    assert in_processes(3, train, exact, "execution.decode_threads=1") == [alone] * 3
    with monkeypatch.context() as patch:
        patch.setitem(DUES, "stop", stop_after(2))
        with pytest.raises(Stopped):
            train(0, exact, out=tmp_path / "run")
    assert in_processes(2, resumed, exact, tmp_path / "run") == [alone] * 2


def resumed(rank, exact, out):
    return train(rank, exact, out=out, resume="yes")


def test_a_task_by_its_name():
    masks = [(torch.zeros(1, 4, 4), torch.zeros(4, 4, dtype=torch.int64)) for _ in range(24)]
    result = batchscale.train("own", [*SHORT, "data.classes=2"], model=nn.Conv2d(1, 2, 1), data=(masks, masks),
                              task="segmentation", quiet=True)  # fmt: skip
    assert result.model_dump()["task"] == "segmentation"
    with pytest.raises(batchscale.UsageError, match="segmentation"):
        batchscale.train("own", SHORT, model=nn.Conv2d(1, 2, 1), data=(masks, masks), task="segmentatoin", quiet=True)


LABELS = torch.zeros(8).long()
PLAIN = (torch.zeros(8, 2), LABELS)


@pytest.mark.parametrize(
    ("net", "data", "message"),
    [
        (
            torch.nn.Linear(2, 2),
            (PLAIN, (torch.zeros(8, 3), LABELS)),
            r"the test part has another form .* \(1, 3\) and",
        ),
        (torch.nn.Linear(2, 2), (PLAIN, (torch.zeros(8, 2), LABELS.float())), r"the test part has another form"),
        (torch.nn.Linear(2, 2), ((torch.zeros(8, 2), LABELS.float()), PLAIN), r"targets are float32 .* whole numbers"),
        (torch.nn.Linear, (PLAIN, PLAIN), r"model: is the class Linear: must be an object of a subclass"),
        (lambda inputs: inputs, (PLAIN, PLAIN), r"model: is a function: must be an object"),
    ],
)
def test_what_does_not_fit_is_told_before_training(net, data, message, tmp_path):
    changes = ["data.classes=2", "minibatch={workers: 1, per_worker: 4}", "epochs=1", "execution.device=cpu"]
    with pytest.raises(batchscale.UsageError, match=message) as error:
        batchscale.train("own", changes, model=net, data=data, out=tmp_path / "run", quiet=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("run/metrics*"))


def test_a_test_part_of_another_size_that_the_net_takes_is_evaluated():
    """Nets of convolutions are often tested on larger images than they are trained on."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    data = ((torch.zeros(8, 1, 4, 4), LABELS), (torch.zeros(8, 1, 6, 6), LABELS))
    changes = ["data.classes=2", "minibatch={workers: 1, per_worker: 4}", "epochs=1", "execution.device=cpu"]
    assert batchscale.train("own", changes, model=net, data=data, quiet=True).status == "done"


def test_a_second_interrupt_ends_a_run_whose_item_hangs(tmp_path, monkeypatch):
    """The first waits for the step, the step for an item that never comes."""
    hangs, net = tmp_path / "hangs", torch.nn.Linear(2, 2)
    asked, given, passes = [], [], Feed.passes
    monkeypatch.setattr(
        Feed, "passes", lambda feed, step: (asked.append(step), passes(feed, step), given.append(step))[1]
    )

    class Hanging:
        def __len__(self):
            return 64

        def __getitem__(self, number):
            while hangs.exists():
                time.sleep(0.02)
            time.sleep(0.005)
            return torch.zeros(2), 0

    def interrupt():
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.02)
        hangs.touch()
        steps = None
        while steps != len(asked) or steps == len(given):  # until one step has waited for a second
            steps = len(asked)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # until the first has been noted
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    watch = threading.Timer(120, lambda: hangs.unlink(missing_ok=True))  # so that a fault is no test without an end
    watch.start()
    threading.Thread(target=interrupt, daemon=True).start()
    changes = ["data.classes=2", "minibatch={workers: 1, per_worker: 4}", "epochs=200", "execution.device=cpu",
               "execution.decode_threads=2", "execution.log_steps=1", "execution.evaluation_epochs=200"]  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        batchscale.train("own", changes, model=net, data=(Hanging(), Hanging()), out=tmp_path / "run", quiet=True)
    assert hangs.exists()
    watch.cancel()
