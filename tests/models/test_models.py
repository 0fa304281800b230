"""Networks by name: sizes as published, our batch norm in all of them, initial weights and weights from files."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

from batchscale.build.derive import derived_numbers
from batchscale.build.network import build_model
from batchscale.build.planning import plan_of, schedule_of
from batchscale.errors import RecipeError
from batchscale.models import named_model
from batchscale.models.initial import last_gammas
from batchscale.recipe import load_recipe, recipe_from, shipped_names
from batchscale.worker.batch_norm import WorkerBatchNorm, replace_batch_norm

META = torch.device("meta")
IMAGENET, CIFAR = (3, 224, 224), (3, 32, 32)
RECIPE = {
    "data": {"name": "own"},
    "model": {"name": "resnet8"},
    "minibatch": {"workers": 1, "per_worker": 2},
    "epochs": 1,
    "learning_rate": {"reference": 0.1, "reference_minibatch": 2},
}


def on_meta(name, shape, classes):
    with META:
        return named_model(name, shape, classes)


def weights(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "expected"),
    [
        ("resnet50", IMAGENET, 1000, 25_557_032),
        ("torchvision/resnet50", IMAGENET, 1000, 25_557_032),
        ("timm/resnet50.a1_in1k", IMAGENET, 1000, 25_557_032),
        ("resnet101", IMAGENET, 1000, 44_549_160),
        ("resnet44", CIFAR, 10, 658_586),  # He et al. 2015, table 6: 0.66 M
        ("wrn16_4", CIFAR, 10, 2_748_890),  # Zagoruyko and Komodakis 2016, table 4: 2.8 M
        ("vgg11", CIFAR, 10, 9_231_114),
        ("keskar_f1", (1, 28, 28), 10, 1_462_794),
        ("keskar_c1", CIFAR, 10, 1_757_834),
    ],
)
def test_sizes(name, shape, classes, expected):
    model = on_meta(name, shape, classes)
    assert weights(model) == expected
    assert model.train()(torch.empty(2, *shape, device=META)).shape == (2, classes)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("unet", 1, 486_553),
        ("tiramisu56", 12, 1_376_988),  # Jegou et al. 2017, table 3: 1.5, 3.5 and 9.4 M
        ("tiramisu67", 12, 3_463_532),
        ("tiramisu103", 12, 9_322_348),
    ],
)
def test_nets_of_segmentation_keep_height_and_width(name, classes, expected):
    model = on_meta(name, (3, 64, 96), classes)
    assert weights(model) == expected
    assert model.train()(torch.empty(2, 3, 64, 96, device=META)).shape == (2, classes, 64, 96)


def test_a_u_net_of_the_paper_has_its_widths():
    with META:
        model = named_model("unet", (1, 64, 64), 2, {"width": 64, "levels": 5})
    assert [block[0].out_channels for block in model.down] == [64, 128, 256, 512, 1024]
    convolutions = sum(
        m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    )
    assert convolutions == 31_023_808


@pytest.mark.parametrize("name", ["resnet50", "timm/resnet50", "torchvision/mobilenet_v2", "timm/resnet10t"])
def test_our_batch_norm_stands_in_for_all_of_theirs(name):
    plain = on_meta(name, IMAGENET, 7)
    norms = sum(isinstance(m, _BatchNorm) for m in plain.modules())
    names = list(plain.state_dict())
    replaced, statistics, _, _ = replace_batch_norm(plain, torch.float32, META)
    norm_layers = [m for m in replaced.modules() if isinstance(m, _BatchNorm)]
    assert len(norm_layers) == norms > 10
    assert all(isinstance(m, WorkerBatchNorm) for m in norm_layers)
    assert list(replaced.state_dict()) == names
    statistics.begin_pass(2)
    assert replaced.train()(torch.empty(4, *IMAGENET, device=META)).shape == (4, 7)
    if name == "resnet50":
        assert (norms, len(list(replaced.parameters()))) == (53, 161)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_efficientnet", "densenet121", "regnetx_002"])
def test_a_net_whose_batch_norms_hold_activations_computes_what_it_did(name):
    torch.manual_seed(0)
    plain = named_model(f"timm/{name}", CIFAR, 7).double()
    replaced, statistics, averages, _ = replace_batch_norm(copy.deepcopy(plain), torch.float64, torch.device("cpu"))
    images = torch.randn(8, *CIFAR, dtype=torch.float64)
    statistics.begin_pass(1)
    torch.testing.assert_close(replaced(images), plain(images), rtol=1e-10, atol=1e-12)
    averages.update(statistics.summed())
    statistics.begin_pass(2)  # two workers of the same four images
    two, one = replaced(images[:4].repeat(2, 1, 1, 1)), plain(images[:4])
    torch.testing.assert_close(two, one.repeat(2, 1), rtol=1e-10, atol=1e-12)
    two.square().sum().backward()
    one.square().sum().backward()
    for p, q in zip(replaced.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, 2 * q.grad, rtol=1e-7, atol=1e-9)
    plain.load_state_dict(replaced.state_dict())
    torch.testing.assert_close(replaced.eval()(images), plain.eval()(images), rtol=1e-10, atol=1e-12)


def test_the_stride_lies_on_the_3x3_convolution():
    block = on_meta("resnet50", IMAGENET, 1000).layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize("name", ["resnet50", "torchvision/vgg11_bn", "timm/resnet18"])
def test_models_fit_the_classes_and_the_channels_of_images(name):
    assert on_meta(name, (1, 64, 64), 12)(torch.empty(2, 1, 64, 64, device=META)).shape == (2, 12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision/resnet51", "no network of torchvision; the nearest is torchvision/resnet"),
        ("torchvision/fcn_resnet5", "no network of torchvision; the nearest is torchvision/fcn_resnet50"),
        ("timm/resnt50", "no network of timm; the nearest is timm/res"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, message):
    with pytest.raises(RecipeError, match=message) as error:
        named_model(name, IMAGENET, 10)
    assert "\n" not in str(error.value)


def test_timm_is_optional_and_the_error_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RecipeError, match=r"timm is not installed; run pip install 'batchscale\[timm\]'"):
        named_model("timm/resnet50", IMAGENET, 10)


@pytest.mark.parametrize("name", ["lib/resnet50", "torchvision/", "timm/hf_hub:someone/net", "timm/../x", "resnet51"])
def test_the_schema_checks_names_by_prefix(name):
    with pytest.raises(RecipeError, match=r"model.name='.*'keskar_c1'.* or .*torchvision/NAME, timm/NAME or smp/NAME"):
        recipe_from(RECIPE, [f"model.name={name}"])


def built(*overrides, shape=CIFAR, classes=10):
    data = types.SimpleNamespace(image_shape=shape, num_classes=classes)
    return build_model(recipe_from(RECIPE, overrides), data)


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet8", 3), ("torchvision/resnet18", 8), ("timm/resnet18", 8), ("timm/resnet26", 8)]
)
def test_the_last_gammas_begin_where_the_recipe_says(name, blocks):
    for zero in ("true", "false"):
        model = built(f"model.name={name}", f"model.zero_init_last_gamma={zero}")
        gammas = last_gammas(model)
        assert len(gammas) == blocks
        assert {float(g.detach().min()) for g in gammas} == {float(zero == "false")}
        images = torch.randn(4, *CIFAR)
        model.eval()
        assert torch.isfinite(model(images)).all()
    assert [m.bn3.weight for m in model.modules() if hasattr(m, "bn3")] == (gammas if name == "timm/resnet26" else [])


@pytest.mark.parametrize("name", ["timm/regnetx_002", "timm/res2net50_26w_4s", "timm/densenet121", "wrn16_4"])
def test_gammas_of_other_blocks_begin_at_one(name):
    model = built(f"model.name={name}")
    assert {float(m.weight.detach().min()) for m in model.modules() if isinstance(m, _BatchNorm)} == {1.0}
    with pytest.raises(RecipeError, match=rf"{name} has no block whose last norm is known \(bn2 of BasicBlock, bn3 of"):
        built(f"model.name={name}", "model.zero_init_last_gamma=true")


def test_the_last_linear_layer_is_drawn_as_in_the_paper():
    last = built("model.fc_init=0.01", classes=1000)[-1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not last.bias.any()
    with pytest.raises(RecipeError, match=r"model.fc_init=0.01: the model does not end in a fully connected"):
        built("model.name=torchvision/squeezenet1_1", "model.fc_init=0.01", shape=(3, 64, 64))


@pytest.fixture
def saved(tmp_path):
    """Weights of a resnet8, in the forms in which people keep them."""
    state = built("seed=5").state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    wrapped = {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "safe.bin")
    torch.save(state, tmp_path / "zip.safetensors")
    torch.save({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "old.pt")
    prefixed = {
        f"{n.split('.')[0]}._orig_mod.{n.partition('.')[2]}" if n.startswith("1.") else n: t for n, t in state.items()
    }
    torch.save(prefixed, tmp_path / "compiled_part.pt")
    for file, prefix in PREFIXES.items():
        named = {prefix + n: t for n, t in state.items()}
        if file.endswith(".safetensors"):
            save_file(named, tmp_path / file)
        else:
            torch.save(
                {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(())}}}, file[:-3]: named}, tmp_path / file
            )
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{n}": t for n, t in state.items()}}
    torch.save({"loops": {"ema": averaged}, "again": averaged}, tmp_path / "averaged.pt")
    return state


PREFIXES = {
    "model.pt": "module._orig_mod.", "model_state.pt": "_orig_mod.module.", "state_dict_ema.pt": "_orig_mod.",
    "weights.pt": "module.module._orig_mod._orig_mod.", "compiled.safetensors": "_orig_mod.module.",
}  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [
        "plain.safetensors",
        "plain.pt",
        "safe.bin",
        "zip.safetensors",
        "wrapped.pth",
        "old.pt",
        "averaged.pt",
        "compiled_part.pt",
        *PREFIXES,
    ],
)
def test_weights_come_from_a_local_file(saved, tmp_path, file):
    model = built(f"model.pretrained={tmp_path / file}")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[name])


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("file", "overrides", "message"),
    [
        ("none.pt", [], "no such file; give a local file"),
        ("missing.pt", [], r"1 of \d+ tensors missing there: 0.weight; give"),
        ("beyond.pt", [], "1 there without a place in the model: extra; give"),
        (
            "other.pt",
            [],
            r": 5 of \d+ tensors missing there: 0.weight, .*, \.\.\.; 4 there .*: x0, x1, x2, \.\.\.; give",
        ),
        (
            "plain.safetensors",
            ["classes"],
            r"2 of another shape: \S+weight is \(10, 64\) there, \(7, 64\) in the model, \S+bias is \(10,\) there, \(7",
        ),
        ("several.pt", [], "several weights that fit: model, ema; say which with model.pretrained_key=ema"),
        ("several.pt", ["model.pretrained_key=net"], "pretrained_key=net: .* but model, ema, n; give one of these"),
        ("plain.pt", ["model.pretrained_key=ema"], "no state dict of that name, but the file itself"),
        ("damaged.safetensors", [], "cannot be read as weights"),
        ("text.pt", [], r"cannot be read as weights \(damaged, or not tensors alone\); give safetensors"),
        ("cut.pt", [], r"cannot be read as weights \(damaged, or not tensors alone\); give safetensors"),
        ("cut.safetensors", [], r"cannot be read as weights \(damaged, or not tensors alone\); give safetensors"),
        ("empty.pt", [], r"cannot be read as weights \(empty\); give safetensors"),
        ("folder", [], "is a folder; give the file of weights in it"),
        ("code.pt", [], r"cannot be read as weights \(damaged, or not tensors alone\); give safetensors"),
        ("list.pt", [], "holds no state dict"),
        ("plain.pt", ["model.fc_init=0.01"], "weights are drawn or read; leave one out"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(saved, tmp_path, capsys, file, overrides, message):
    torch.save({**saved, "extra": torch.zeros(1)}, tmp_path / "beyond.pt")
    torch.save({n: t for n, t in saved.items() if n != "0.weight"}, tmp_path / "missing.pt")
    others = {f"x{i}": torch.zeros(1) for i in range(4)}
    torch.save({**dict([*saved.items()][5:]), **others}, tmp_path / "other.pt")
    moved = {n: t + 1 for n, t in saved.items()}
    torch.save({"model": saved, "ema": moved, "n": {"steps": torch.ones(())}}, tmp_path / "several.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"x": Code()}, tmp_path / "code.pt")
    (tmp_path / "damaged.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "text.pt").write_text("epoch 1\nepoch 2\n")
    for kind in ("pt", "safetensors"):
        (tmp_path / f"cut.{kind}").write_bytes((tmp_path / f"plain.{kind}").read_bytes()[:30_000])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "folder").mkdir()
    classes = 7 if "classes" in overrides else 10
    with pytest.raises(RecipeError, match=message) as error:
        built(f"model.pretrained={tmp_path / file}", *[o for o in overrides if "=" in o], classes=classes)
    assert "\n" not in str(error.value)
    assert "run" not in capsys.readouterr().out


def test_of_several_weights_that_fit_the_one_named_is_taken(saved, tmp_path):
    torch.save({"model": saved, "ema": {f"module.{n}": t + 1 for n, t in saved.items()}}, tmp_path / "both.pt")
    for key, more in (("model", 0), ("ema", 1)):
        model = built(f"model.pretrained={tmp_path / 'both.pt'}", f"model.pretrained_key={key}")
        assert all(torch.equal(tensor, saved[name] + more) for name, tensor in model.state_dict().items())
    with pytest.raises(RecipeError, match=r"pretrained_key=ema names weights in a file: give model.pretrained=FILE"):
        built("model.pretrained_key=ema")


SHAPES = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": (CIFAR, 10),
    "imagenet": (IMAGENET, 1000),
    "digits_scenes": ((1, 32, 32), 11),
    "digits_scenes_labels": ((1, 32, 32), 10),
    "nuclei": ((1, 256, 256), 2),
    "deepcam_made_up": ((16, 48, 72), 3),
    "digits_scenes_detection": ((1, 64, 64), 11),
    "bccd": ((3, 240, 320), 4),
    "coco": ((3, 480, 640), 91),
    "shakespeare": ((64,), 65),
    "topics": ((64,), 256),
}


@pytest.mark.parametrize("name", [name for name in shipped_names() if load_recipe(name).model.name != "own"])
def test_every_shipped_recipe_s_model_fits_its_data(name):
    recipe = load_recipe(name)
    shape, classes = SHAPES[recipe.data.name]
    with META:
        model = build_model(recipe, types.SimpleNamespace(image_shape=shape, num_classes=classes))
    outputs = 1 if recipe.loss.kind == "binary" else classes
    inputs = torch.empty(2, *shape, device=META)
    if recipe.task == "language":
        assert model(inputs.long()).shape == (2, *shape, outputs)
        return
    if recipe.task == "detection":  # its boxes, and so its shapes, hang on what is found in the images
        assert model.roi_heads.box_predictor.cls_score.out_features == outputs
        return
    pixels = shape[1:] if recipe.task == "segmentation" else ()
    logits = model(inputs)
    logits = logits["out"] if isinstance(logits, dict) else logits  # with an auxiliary classifier's
    assert logits.shape == (2, outputs, *pixels)


GOYAL = {  # Goyal et al. 2017, sections 2 and 5.1
    "kn": 8192, "lr": 3.2, "epochs": 90, "warmup": ("gradual", 5, None), "decay": ("step", (30, 60, 80), 0.1),
    "optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay_norms": False,
    "zero_gamma": True, "fc_init": 0.01, "smoothing": 0.0, "span": 1, "running": "averages",
}  # fmt: skip
LARS = {  # You et al. 2017: eta; the code of Google's runs: warmup from 0, decay of power 2 to lr 1e-4, first weights
    "decay": ("polynomial", 2.0, 1e-4, None), "optimizer": "lars", "trust": 0.001, "smoothing": 0.1, "span": 1,
    "running": "averages", "zero_gamma": True, "fc_init": 0.01,
}  # fmt: skip
TPU = {**LARS, "epochs": 90, "warmup": ("gradual", 12, 0.0), "momentum": 0.9, "weight_decay": 1e-4}
PUBLISHED = {  # what the sources in the recipes' headers state, and what is assumed there
    "50-1h": GOYAL,
    "101-1h": GOYAL,
    "50-increase-minibatch": GOYAL,
    "50-15min": {  # Akiba et al. 2017
        **{name: value for name, value in GOYAL.items() if name != "nesterov"}, "kn": 32768, "lr": 6.4,
        "warmup": ("none", 0, None), "decay": ("step", (40, 70, 85), (0.15, 0.4 / 3, 0.1)),
        "optimizer": "rmsprop_warmup", "square_decay": 0.99, "rmsprop_lr": 3e-4, "center": 10, "period": 5,
        "epsilon": 1e-8, "running": "none",
    },
    "50-lars-32k": {  # MLPerf's reference convergence point for 32,768
        **LARS, "kn": 32768, "lr": 21.2, "epochs": 58, "warmup": ("gradual", 16, 0.0), "momentum": 0.94,
        "weight_decay": 2.5e-5, "span": 4,
    },
    "50-tpu": {**TPU, "kn": 32768, "lr": 34.0, "span": 4},
    "50-flash": {**TPU, "kn": 34816, "lr": 36.125},
    "50-4min": {  # MLPerf's reference convergence point for 65,536
        **LARS, "kn": 65536, "lr": 24.699, "epochs": 90, "warmup": ("gradual", 31, 0.0), "momentum": 0.951807,
        "weight_decay": 1e-4, "span": 4, "decay": ("polynomial", 2.0, 1e-4, 89),
    },
}  # fmt: skip


def stated(recipe):
    """The hyper-parameters of a recipe, under the names of PUBLISHED."""
    entry, lr = recipe.optimizer, recipe.learning_rate
    target = schedule_of(recipe, plan_of(recipe, 1_281_167)).first.target
    last = float(f"{lr.decay.final * target:.2g}")  # an lr, of a share that is rounded in the recipe
    falls = {"step": (lr.decay.epochs, lr.decay.factor), "polynomial": (lr.decay.power, last, lr.decay.end)}
    settings = {
        "kn": recipe.minibatch.workers * recipe.minibatch.per_worker,
        "lr": round(target, 6),
        "epochs": recipe.epochs,
        "warmup": (lr.warmup.kind, lr.warmup.epochs or 0, lr.warmup.start),
        "decay": (lr.decay.kind, *falls[lr.decay.kind]),
        "smoothing": recipe.loss.label_smoothing,
        "span": recipe.batch_norm.span,
        "running": recipe.batch_norm.running,
        "zero_gamma": recipe.model.zero_init_last_gamma,
        "fc_init": recipe.model.fc_init,
        "optimizer": entry.name,
        "momentum": entry.momentum,
        "weight_decay": entry.weight_decay,
    }
    options = {
        "sgd": ("nesterov", "decay_norms"),
        "lars": ("trust_coefficient",),
        "rmsprop_warmup": ("decay_norms", "square_decay", "rmsprop_lr", "center_epochs", "period_epochs", "epsilon"),
    }[entry.name]
    return settings | {
        option.removesuffix("_epochs").removesuffix("_coefficient"): getattr(entry, option) for option in options
    }


def test_recipes_of_the_papers_hold_what_their_sources_state():
    names = [name for name in shipped_names() if name.startswith("imagenet-resnet")]
    assert {name.removeprefix("imagenet-resnet"): stated(load_recipe(name)) for name in names} == PUBLISHED


def test_the_slow_start_falls_by_a_factor_of_its_own_at_each_epoch():
    """Akiba et al. 2017: 0.5, 0.075, 0.01 and 0.001 times 0.1 kn / 256."""
    recipe = load_recipe("imagenet-resnet50-15min")
    plan = plan_of(recipe, 1_281_167)
    schedule = schedule_of(recipe, plan)
    lrs = [schedule(int(plan.steps(epoch)) + 1) / 12.8 for epoch in (0, 39, 40, 69, 70, 84, 85, 89)]
    assert lrs == pytest.approx([0.5, 0.5, 0.075, 0.075, 0.01, 0.01, 0.001, 0.001], rel=1e-12)
    assert any(
        "x 0.15, 0.133333, 0.1 at epochs [40.0, 70.0, 85.0]" in r.formula for r in derived_numbers(recipe, 10**6, 1)
    )
    with pytest.raises(RecipeError, match="factor must be one number, or one for each of epochs"):
        load_recipe("imagenet-resnet50-15min", ["learning_rate.decay.epochs=[40, 70]"])
