"""Recipes: frozen, every mistake one line that names the entry, the value, the rule and the way out."""

import pytest
import yaml
from pydantic import ValidationError

from batchscale.errors import RecipeError
from batchscale.recipe import dump_recipe, identity, load_recipe, recipe_from, shipped_names, shipped_text
from batchscale.recipe.schema import IDENTITY, Recipe


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_loads_and_says_what_it_is(name):
    recipe = load_recipe(name)
    text = shipped_text(name)
    header = [line for line in text.splitlines() if line.startswith("#")]
    for word in ("Source:", "Command:", "Expected:", "Measured:"):
        assert any(word in line for line in header), f"{name}: no {word}"
    assert recipe_from(yaml.safe_load(dump_recipe(recipe))) == recipe


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
    ("minibatch=3", r"'minibatch': is a group of entries; set one of them, such as minibatch.workers"),
    ("numerics.micro_batch=33", r"micro_batch=33 must be a multiple of minibatch.per_worker=32.*use 32"),
    ("learning_rate.warmup.epochs=3", r"exactly one of epochs and steps"),
    ("learning_rate.decay.epochs=[20, 10]", r"epochs must rise"),
    ("epochs", r"argument 'epochs': must be KEY=VALUE"),
    ("epochs=[1", r"argument 'epochs=\[1': not a plain YAML document"),
    ("seed=!!python/object/apply:os.system [true]", r"not a plain YAML document: .*python/object"),
]


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
