"""The page of recipe entries: every entry is on it, and its kinds, defaults and ranges are those that recipes go by."""

import re
import sys

import pytest
import yaml
from support.pages import ROOT

from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe, recipe_from

sys.path.insert(0, str(ROOT / "tools"))
import recipe_entries

ROWS = {row.name: row for row in recipe_entries.entries()}
LEAVES = {name: row for name, row in ROWS.items() if row.type != "group"}
_GROWTH = {
    "phases": "minibatch.growth={kind: phases, phases: [{epoch: 5, workers: 16}]}",
    "doubling": "minibatch.growth={kind: doubling}",
    "instead_of_decay": "minibatch.growth={kind: instead_of_decay}",
    "noise_scale": "minibatch={workers: 2, per_worker: 32, growth: {kind: noise_scale, largest: 1024}}",
    "curvature": "minibatch={workers: 2, per_worker: 32, growth: {kind: curvature, largest: 1024}}",
    "seesaw": "minibatch.growth={kind: seesaw}",
}


def dotted(content, prefix=""):
    """The names of all leaves of a nested mapping."""
    for name, value in content.items():
        if isinstance(value, dict) and name != "options":  # names that a network chooses
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def taker_of(row):
    """Overrides by which a recipe has this entry: the first member of the family that takes it."""
    takers = re.search(r" \(([a-z_0-9, ]+)\)$", row.words)
    if row.name.startswith("optimizer.") and takers:
        return [f"optimizer={{name: {takers[1].split(', ')[0]}}}"]
    if row.name.startswith("minibatch.growth.") and takers:
        return [_GROWTH[takers[1].split(", ")[0]]]
    return []


def test_every_entry_of_every_recipe_is_on_the_page():
    recipes = [load_recipe("digits-cnn", [growth]) for growth in _GROWTH.values()]
    optimizers = LEAVES["optimizer.name"].type.replace("`", "").split(", ")
    recipes += [load_recipe("digits-cnn", [f"optimizer={{name: {name}}}"]) for name in optimizers]
    recipes.append(load_recipe("digits-cnn", ["execution.stop_at={score: error, below: 5}"]))
    entries = {name for recipe in recipes for name in dotted(recipe.model_dump(mode="json"))}
    assert entries == {name for name in LEAVES if "[]" not in name}


def test_every_entry_is_explained():
    assert not [name for name, row in ROWS.items() if not row.words]
    text = (ROOT / "tools" / "recipe_entries.py").read_text(encoding="utf-8")
    unused = [name for name in re.findall(r'^    "([a-z_.\[\]0-9]+)":', text, re.MULTILINE) if name not in ROWS]
    assert unused == ["identity", "numerics", "execution"][: len(unused)]


@pytest.mark.parametrize("name", [name for name, row in LEAVES.items() if "[]" not in name and row.range])
def test_a_number_beyond_the_range_is_refused(name):
    row = LEAVES[name]
    wrap = "[{}]" if row.type.startswith("list") else "{}"
    if row.type.startswith("list of 2"):
        wrap = "[{0}, {0}]"
    for word, bound in re.findall(r"(at least|above|at most|below) ([0-9.e^]+)", row.range):
        edge = float(eval(bound.replace("^", "**")))
        beyond = {"at least": edge - 1, "above": edge, "at most": edge + 1, "below": edge}[word]
        number = int(beyond) if "whole" in row.type else beyond
        rule = {
            "at least": "(greater than or equal to|at least)",
            "above": "greater than",
            "at most": "less than or equal to",
        }
        with pytest.raises(RecipeError, match=f"{rule.get(word, 'less than')} [0-9]"):
            load_recipe("digits-cnn", [*taker_of(row), f"{name}={wrap.format(number)}"])


# Growth by phases needs some: its default is none only in name.
@pytest.mark.parametrize(
    "name",
    [n for n, row in LEAVES.items() if row.default[0] == "`" and "[]" not in n and n != "minibatch.growth.phases"],
)
def test_defaults_are_what_a_recipe_has_that_says_nothing(name):
    minimal = {
        "data": {"name": "digits"}, "model": {"name": "cnn"}, "minibatch": {"workers": 1, "per_worker": 32},
        "epochs": 30, "learning_rate": {"reference": 0.1, "reference_minibatch": 32},
    }  # fmt: skip
    decay = ["learning_rate.decay={kind: step, epochs: [9]}"] if name.startswith("minibatch.growth.of") else []
    entry = recipe_from(minimal, [*decay, *taker_of(LEAVES[name])]).model_dump(mode="json")
    for part in name.split("."):
        entry = None if entry is None else entry[part]  # of a group that nothing asks for
    assert yaml.safe_load(LEAVES[name].default.strip("`")) == entry or LEAVES[name].default == f"`{entry}`"


def test_the_page_has_the_tables_and_other_pages_stay_as_they_are():
    page = (ROOT / "docs" / "lookup" / "recipe-entries.md").read_text(encoding="utf-8")
    built = recipe_entries.on_page_markdown(page)
    assert recipe_entries.MARK not in built
    for name in LEAVES:
        assert f"| `{name}` |" in built
    assert built.index("## Numerics") < built.index("`numerics.exact`") < built.index("## Execution")
    assert recipe_entries.on_page_markdown("# Another") == "# Another"
