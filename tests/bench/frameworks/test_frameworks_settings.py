"""What frameworks are told is what batchscale itself does; what one of them cannot train is refused in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from batchscale.bench.frameworks.comparable import comparable
from batchscale.bench.frameworks.export import export
from batchscale.bench.frameworks.settings import PROOF_STEPS, TrainingSettings, check_sizes
from batchscale.build.build import build, validate
from batchscale.cli import main
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.recipe import load_recipe, recipe_from

ROOT = Path(__file__).resolve().parents[3]


def prepared(tmp_path, *overrides, processes=(1, 2)):
    recipe, _ = comparable(load_recipe("digits-cnn", overrides), processes)
    dataset = validate(recipe, None, 1)
    return recipe, dataset, TrainingSettings(recipe, len(dataset.train), tmp_path)


def test_order_and_rates_are_those_of_the_trainer(tmp_path):
    _, dataset, settings = prepared(tmp_path, "learning_rate.warmup={kind: gradual, epochs: 1}")
    setting = settings.training(processes=2, per_process=32, epochs=3)
    order, rates = np.load(setting.told["order"]), np.load(setting.told["rates"])
    steps = len(dataset.train) // 64 * 3
    assert order.shape == (steps, 64)
    assert rates.shape == (steps,)
    parts = build(recipe_from(setting.told["content"]), World.connect(torch.device("cpu"), 60.0), dataset)
    feed = parts.make_feed()
    for step in range(steps):
        np.testing.assert_array_equal(order[step], feed.indices(step)[1])
        assert rates[step] == parts.step.schedule(step)
    assert rates.max() == pytest.approx(0.0125 * 2)  # linear scaling
    for epoch in range(3):
        part = order[epoch * steps // 3 : (epoch + 1) * steps // 3]
        assert len(np.unique(part)) == part.size
    parts.close()


def test_the_proof_has_constants_alone_and_few_examples(tmp_path):
    _, _, settings = prepared(tmp_path, "learning_rate.warmup={kind: gradual, epochs: 1}")
    for optimizer in ("sgd", "adam"):
        setting = settings.proof(optimizer, 2)
        rates = np.load(setting.told["rates"])
        assert (len(rates), len(set(rates))) == (PROOF_STEPS, 1)
        assert setting.told["per_process"] == 8
        assert setting.told["optimizer"]["name"] == optimizer
        assert setting.told["content"]["optimizer"]["weight_decay"] == 0
    assert settings.proof("adam", 1).told["optimizer"] == {
        "name": "adam",
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
    }
    own = prepared(tmp_path, "optimizer={name: adamw, beta2: 0.99, epsilon: 1.0e-6}")[2].proof("adam", 1)
    assert own.told["optimizer"] == {"name": "adam", "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6}


def test_weights_and_images_are_those_of_the_trainer(tmp_path):
    recipe, dataset, settings = prepared(tmp_path)
    targets = export(recipe, dataset, tmp_path)
    parts = build(
        recipe_from(settings.proof("sgd", 1).told["content"]), World.connect(torch.device("cpu"), 60.0), dataset
    )
    with np.load(tmp_path / "weights.npz") as stored:
        for name, tensor in parts.model.state_dict().items():
            np.testing.assert_array_equal(stored[name], tensor.numpy())
    (batch,) = parts.make_feed().passes(0)
    order = np.load(settings.proof("sgd", 1).told["order"])
    np.testing.assert_array_equal(np.load(tmp_path / "train-images.npy")[order[0]], batch.inputs.numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "train-targets.npy")[order[0]], batch.targets.numpy())
    np.testing.assert_array_equal(targets, dataset.test.part(slice(None))[1].numpy())
    parts.close()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.name=simple_cnn"], "model.name=simple_cnn: bench frameworks has the nets cnn and unet"),
        (["loss.label_smoothing=0.1"], "task=classification with loss.kind=cross_entropy: bench frameworks has"),
        (["optimizer={name: lars}"], "optimizer.name=lars: bench frameworks compares plain momentum SGD or AdamW"),
        (["optimizer.clip_norm=1"], "optimizer.name=sgd: bench frameworks compares"),
        (["learning_rate.scaling=half_life"], "learning_rate.scaling=half_life: changes constants beside the lr"),
        (["precision=bf16"], "precision=bf16: bench frameworks trains in float32"),
    ],
)
def test_what_not_every_framework_can_train_is_refused(overrides, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        comparable(load_recipe("digits-cnn", overrides), [1])


def test_sizes_that_do_not_fit_are_refused_before_anything_starts(capsys):
    with pytest.raises(UsageError, match=r"--processes=3: the strong series parts the minibatch of 32 images"):
        comparable(load_recipe("digits-cnn", []), [1, 3])
    assert check_sizes(32, [1, 2], 64) is None
    assert "--processes=4: the weak series gives every process 32 images, 128 together" in check_sizes(32, [4], 127)
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "frameworks", "digits-cnn", "--processes", "1,none"])
    assert "--processes" in capsys.readouterr().err


def test_every_change_has_a_note():
    recipe, notes = comparable(load_recipe("digits-cnn", ["data.augment.crop=padded", "data.augment.padding=1"]), [1])
    assert (recipe.data.augment.crop, recipe.optimizer.weight_decay, recipe.data.partial) == ("none", 0, "drop")
    assert [note.split(" ")[0] for note in notes] == ["an", "augmentation", "weight"]


def test_versions_are_pinned_and_no_address_is_named():
    lists = sorted((ROOT / "tools" / "frameworks").glob("*.txt"))
    assert [file.stem for file in lists] == ["jax", "tensorflow"]
    for file in lists:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
