"""Recipes: frozen, every mistake one line that names the entry, the value, the rule and the way out."""

import itertools
import math

import pytest
import yaml
from pydantic import ValidationError

from batchscale.build.derive import as_text, derived_numbers
from batchscale.build.planning import plan_of, schedule_of
from batchscale.errors import RecipeError
from batchscale.placement import place_workers
from batchscale.recipe import dump_recipe, identity, load_recipe, recipe_from, shipped_names, shipped_text
from batchscale.recipe.schema import IDENTITY, Recipe

STOP_AT = (
    r"execution.stop_at takes score, below, above and needs score; write for example "
    r"execution.stop_at=\{score: error, below: 5\}$"
)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_loads_and_says_what_it_is(name):
    recipe = load_recipe(name)
    text = shipped_text(name)
    header = [line for line in text.splitlines() if line.startswith("#")]
    for word in ("Source:", "Command:", "Expected:", "Measured:"):
        assert any(word in line for line in header), f"{name}: no {word}"
    assert recipe_from(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_a_recipe_of_another_editor_is_read_or_refused_in_one_line(tmp_path):
    file, text = tmp_path / "recipe.yaml", shipped_text("digits-cnn")
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_recipe(file) == load_recipe("digits-cnn")
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(RecipeError, match=r"recipe.yaml: cannot be read as text .*; give a recipe's YAML") as error:
        load_recipe(file)
    assert "\n" not in str(error.value)


IMAGES = {
    "imagenet": 1_281_167,
    "cifar10": 50_000,
    "mnist": 60_000,
    "fashion_mnist": 60_000,
    "digits": 1_437,
    "digits_scenes": 800,
    "nuclei": 268,
    "own": 2_560,
    "digits_scenes_detection": 800,
    "bccd": 292,
    "coco": 118_287,
    "deepcam_made_up": 128,
    "shakespeare": 15_685,  # sequences of 64
    "topics": 6_915,  # of Python 3.11; other versions have a few more or less
}
PLANS = {  # what the headers say: (epoch, workers, per_worker) of each phase; steps; lr after the warmup and at the end
    "bccd-faster-rcnn": ([(0, 2, 2)], 584, 0.0005, None),
    "cifar10-adabatch": (
        [(0, 1, 128), (20, 2, 128), (40, 4, 128), (60, 8, 128), (80, 16, 128)], 15_138, 0.1, 0.1 * 0.75**4,
    ),
    "cifar10-resnet20": ([(0, 4, 32)], 64_063, 0.1, 0.001),
    "cifar10-resnet44-hoffer": ([(0, 16, 128)], 78_125, 0.4, 0.0004),
    "cifar10-resnet8": ([(0, 4, 32)], 5_860, 0.1, None),
    "cifar10-wrn-increase-minibatch": ([(0, 1, 128), (60, 5, 128), (120, 25, 128)], 29_376, 0.1, 0.02),
    "coco-mask-rcnn-linear": ([(0, 8, 2)], 90_000, 0.02, 0.0002),
    "deepcam-deeplabv3": ([(0, 2, 2)], 640, 0.001, None),
    "digits-cnn": ([(0, 1, 32)], 1_348, 0.0125, None),
    "digits-scenes-detection": ([(0, 2, 8)], 500, 0.002, None),
    "digits-scenes-unet": ([(0, 1, 16)], 1_000, 0.003, None),
    "fashion-mnist-cnn": ([(0, 8, 32)], 4_688, 0.1, None),
    "fashion-mnist-simple-cnn": ([(0, 8, 32)], 2_344, 0.05, None),
    "imagenet-resnet101-1h": ([(0, 256, 32)], 14_076, 3.2, 0.0032),
    "imagenet-resnet50-15min": ([(0, 1024, 32)], 3_519, 6.4, 0.0128),
    "imagenet-resnet50-1h": ([(0, 256, 32)], 14_076, 3.2, 0.0032),
    "imagenet-resnet50-4min": ([(0, 2048, 32)], 1_760, 24.699, None),
    "imagenet-resnet50-flash": ([(0, 2176, 16), (30, 2176, 32)], 2_208, 36.125, None),
    "imagenet-resnet50-increase-minibatch": ([(0, 256, 32), (30, 512, 32)], 9_384, 3.2, 0.0064),
    "imagenet-resnet50-lars-32k": ([(0, 1024, 32)], 2_268, 21.2, None),
    "imagenet-resnet50-tpu": ([(0, 2048, 16)], 3_519, 34.0, None),
    "keskar-c1-cifar10": ([(0, 1, 256)], 3_907, 0.001, 0.001),
    "keskar-f1-mnist": ([(0, 1, 256)], 4_688, 0.001, 0.001),
    "mnist-cnn": ([(0, 8, 32)], 2_344, 0.1, None),
    "nuclei-tiramisu": ([(0, 1, 8)], 2_010, 0.001, None),
    "shakespeare-lstm": ([(0, 1, 32)], 1_961, 0.002 * 2**0.5, None),
    "shakespeare-transformer": ([(0, 1, 32)], 1_471, 0.005 * 2**0.5, None),
    "topics-transformer": ([(0, 1, 16)], 1_729, 0.002, None),
    "nuclei-unet": ([(0, 1, 16)], 1_005, 0.001, 0.001),
    "own": ([(0, 8, 32)], 100, 0.1, None),
}  # fmt: skip


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_has_the_plan_of_its_header(name):
    phases, steps, target, last = PLANS[name]
    recipe = load_recipe(name)
    plan = plan_of(recipe, IMAGES[recipe.data.name])
    schedule = schedule_of(recipe, plan)
    for phase, (epoch, workers, per_worker) in zip(plan.phases, phases, strict=True):
        minibatch = phase.minibatch
        assert (minibatch.workers, minibatch.per_worker) == (workers, per_worker)
        assert 0 <= phase.first_epoch - epoch < minibatch.images / plan.training_images
        assert place_workers(workers, workers // recipe.batch_norm.span, recipe.batch_norm.span)
    assert plan.total_steps == steps
    assert schedule.first.target == pytest.approx(target, rel=1e-4)
    assert last is None or schedule(steps - 1) == pytest.approx(last)
    assert f"= {steps}\n" in as_text(derived_numbers(recipe, plan.training_images, 1))


def test_the_lr_of_papers_whose_minibatch_grows():
    found = {}
    for name in ("cifar10-adabatch", "cifar10-wrn-increase-minibatch", "imagenet-resnet50-increase-minibatch"):
        recipe = load_recipe(name)
        plan = plan_of(recipe, IMAGES[recipe.data.name])
        schedule = schedule_of(recipe, plan)
        lrs = [schedule(step) for step in range(math.ceil(plan.steps(6)), plan.total_steps)]  # no warmup is longer
        found[name] = [lr for lr, _ in itertools.groupby(round(lr, 10) for lr in lrs)]
    assert found["cifar10-adabatch"] == [0.1, 0.075, 0.05625, 0.0421875, 0.031640625]
    assert found["cifar10-wrn-increase-minibatch"] == [0.1, 0.02]
    assert found["imagenet-resnet50-increase-minibatch"] == [3.2, 0.64, 0.064, 0.0064]


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if len(plan[0]) > 1])
def test_the_twin_whose_minibatch_stays(name):
    twin = load_recipe(name, ["minibatch.growth={kind: none}"])
    assert len(plan_of(twin, IMAGES[twin.data.name]).phases) == 1
    with pytest.raises(RecipeError, match=r"or give the whole entry, such as minibatch.growth=\{kind: none\}"):
        load_recipe(name, ["minibatch.growth.kind=none"])


def test_the_issue_names_these_recipes():
    assert {
        "digits-cnn", "mnist-cnn", "fashion-mnist-cnn", "fashion-mnist-simple-cnn", "cifar10-resnet8",
        "cifar10-resnet20",
    } <= set(shipped_names())  # fmt: skip


def test_the_three_kinds_of_entries_are_all_there_are():
    assert set(Recipe.model_fields) == {*IDENTITY, "numerics", "execution"}


def test_overrides_and_identity():
    plain = load_recipe("digits-cnn")
    changed = load_recipe("digits-cnn", ["minibatch.workers=4", "optimizer.weight_decay=1e-3", "numerics.exact=true"])
    assert (changed.minibatch.workers, changed.optimizer.weight_decay, changed.numerics.exact) == (4, 1e-3, True)
    differing = {k for k, v in identity(changed).items() if identity(plain)[k] != v}
    assert differing == {"minibatch.workers", "optimizer.weight_decay"}
    with pytest.raises(ValidationError):
        plain.epochs = 3


BAD = [
    ("minibatch.workes=3", r"'minibatch.workes': unknown; the nearest known entry is minibatch.workers"),
    ("workers=3", r"'workers': unknown; the nearest known entry is minibatch.workers"),
    ("nothing.like.it=3", r"unknown; the nearest known entry is "),
    ("learning_rate.reference=-0.1", r"learning_rate.reference=-0.1: .*greater than or equal to 0"),
    ("minibatch.per_worker=0", r"minibatch.per_worker=0: .*greater than or equal to 1"),
    ("minibatch.workers=3.5", r"minibatch.workers=3.5: .*valid integer"),
    ("minibatch.workers=true", r"minibatch.workers=True: .*valid integer"),
    ("minibatch.workers=", r"minibatch.workers=None: .*valid integer"),
    ("epochs=.inf", r"epochs=inf: .*finite"),
    ("epochs=1e300", r"epochs=1e\+300: .*less than or equal to 1000000"),
    ("epochs=0", r"epochs=0: .*greater than 0"),
    ("optimizer.momentum=1", r"optimizer.momentum=1: .*less than 1"),
    ("optimizer.momentum=0", r"nesterov=true needs momentum above 0; set optimizer.nesterov=false"),
    ("model.name=alexnet", r"model.name='alexnet': .*'cnn'"),
    ("execution.stop_at=5", f"'execution.stop_at': is a group of entries; {STOP_AT}"),
    ("execution.stop_at={}", f"'execution.stop_at.score': missing; {STOP_AT}"),
    ("execution.stop_at.foo=3", f"'execution.stop_at.foo': unknown; {STOP_AT}"),
    ("execution.stop_at={error: 50}", f"'execution.stop_at.error': unknown; {STOP_AT}"),
    ("execution.stop_at={score: error, below: x}", r"execution.stop_at.below='x': input should be a valid number"),
    ("minibatch.phases={at: 3}", r"'minibatch.phases': unknown"),
    ("minibatch={worker: 3}", r"'minibatch.worker': unknown; the nearest known entry is minibatch.workers"),
    ("minibatch=3", r"'minibatch': is a group of entries; set one of them, such as minibatch.workers"),
    ("minibatch.growth=phases", r"'minibatch.growth': is a group of entries; set .* such as minibatch.growth.kind$"),
    (
        "learning_rate.decay.epochs=[20, x]",
        r"rate.decay.epochs\[1\]='x': .*; set it with \S+.epochs=VALUE",
    ),
    ("learning_rate.decay.factor=[0.1, 2]", r"entry learning_rate.decay.factor=\[0.1, 2\]: .*valid number or "),
    ("numerics.micro_batch=33", r"micro_batch=33 must be a multiple of minibatch.per_worker=32.*use 32"),
    ("learning_rate.warmup={kind: gradual, epochs: 3, steps: 5}", r"epochs=3.0 and steps=5: give exactly one"),
    ("learning_rate.warmup={kind: gradual}", r"epochs=None and steps=None: give exactly one"),
    ("learning_rate.decay.epochs=[20, 10]", r"epochs must rise"),
    ("epochs", r"argument 'epochs': must be KEY=VALUE"),
    ("epochs=[1", r"argument 'epochs=\[1': not a plain YAML document"),
    ("seed=!!python/object/apply:os.system [true]", r"not a plain YAML document: .*python/object"),
]


def test_a_warmup_given_in_epochs_takes_the_place_of_its_steps():
    assert load_recipe("digits-cnn").learning_rate.warmup.steps == 5
    warmup = load_recipe("digits-cnn", ["learning_rate.warmup.epochs=0.5"]).learning_rate.warmup
    assert (warmup.kind, warmup.epochs, warmup.steps) == ("gradual", 0.5, None)
    warmup = load_recipe("mnist-cnn", ["learning_rate.warmup.steps=7"]).learning_rate.warmup
    assert (warmup.epochs, warmup.steps) == (None, 7)


@pytest.mark.parametrize("name", ["pt #1.pt", "two\nlines", "out\udcff/w.pt", "7", "a: b", "[x]", " b ", "it's"])
def test_a_name_of_a_file_is_taken_as_typed(name):
    """YAML made `pt` of the first, a blank of the second's line break, and no document of the third."""
    for override in (["model.pretrained={}"], ["data.name=folder", "data.subset={}"]):
        *before, last = override
        recipe = load_recipe("digits-cnn", [*before, last.format(name)])
        assert name in (recipe.model.pretrained, recipe.data.subset)
        assert recipe_from(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("typed", "read"), [("'pt #1.pt'", "pt #1.pt"), ('"a\\tb"', "a\tb"), ("null", None), ("~", None), ("", None)]
)
def test_quotes_and_null_of_yaml_hold_for_names_of_files(typed, read):
    assert load_recipe("digits-cnn", [f"model.pretrained={typed}"]).model.pretrained == read


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.momentum_changes=0.5", r"momentum_changes=0.5: must be a list of \{epoch, momentum\}; set it with"),
        ("learning_rate.decay.epochs=5", "decay.epochs=5: must be a list; set it with"),
        (
            "optimizer={name: adamw, momentum_changes: [{epoch: 1, momentum: 0.5}]}",
            "recipe entry optimizer: momentum_changes has no place in adamw",
        ),
    ],
)
def test_a_list_is_called_a_list(override, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("digits-cnn", [override])


@pytest.mark.parametrize(("override", "said"), BAD, ids=[b[0] for b in BAD])
def test_a_bad_override_is_one_clear_line(override, said):
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe("digits-cnn", [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", "must be a YAML mapping of entries"),
        ("just words", "must be a YAML mapping of entries"),
        ("", "must be a YAML mapping of entries"),
        ("1: 2", "must be a YAML mapping of entries"),
        ("epochs: 1\nepochs: 2\n", "'epochs' stands twice"),
        ("a: &x 1\nb: *x\n", "alias"),
        ("a: !!python/name:os.system\n", "not a plain YAML document"),
        ("data: {name: digits}\n", "missing; a recipe needs it"),
        ("a: [1, 2\n", "not a plain YAML document"),
        ("data: 3\n", "data"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_an_optional_group_is_set_entry_by_entry_or_taken_away():
    whole = load_recipe("digits-cnn", ["execution.stop_at={score: error, below: 5}"])
    written = recipe_from(load_recipe("digits-cnn").model_dump(mode="json"))
    assert written.execution.stop_at is None
    by_entry = ["execution.stop_at.score=error", "execution.stop_at.below=5"]
    assert recipe_from(written.model_dump(mode="json"), by_entry) == whole  # of a run's recipe.yaml, where it is null
    assert recipe_from(whole.model_dump(mode="json"), ["execution.stop_at=null"]) == written


def test_yaml_builds_no_objects(tmp_path):
    path, trace = tmp_path / "recipe.yaml", tmp_path / "trace"
    path.write_text(f'epochs: !!python/object/apply:os.system ["touch {trace}"]\n')
    with pytest.raises(RecipeError):
        load_recipe(path)
    assert not trace.exists()


def test_files_that_are_no_recipes(tmp_path):
    (tmp_path / "large").write_bytes(b" " * (2 << 20))
    with pytest.raises(RecipeError, match="larger than 1048576 bytes"):
        load_recipe(tmp_path / "large")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(RecipeError, match="cannot be read as text"):
        load_recipe(tmp_path / "binary")
    with pytest.raises(
        RecipeError, match=r"'fashon-mnist-cnn': neither a file nor a shipped recipe; did you mean fashion"
    ):
        load_recipe("fashon-mnist-cnn")


def test_exact_mode_runs_one_worker_a_pass():
    with pytest.raises(RecipeError, match=r"must equal minibatch.per_worker=32 in exact mode"):
        load_recipe("digits-cnn", ["numerics.exact=true", "numerics.micro_batch=64"])
