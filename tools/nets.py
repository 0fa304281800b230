"""Write the tables of the shipped recipes' nets: `make nets`.

Each net is counted once; recipes that share one share its table. A detector runs on real tensors, and takes a minute.

    python tools/nets.py [RECIPE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import batchscale
from batchscale.build.net_counts import count_net, form_of
from batchscale.cost.step.net_table import NetTable, net_key
from batchscale.recipe import Recipe, load_recipe, shipped_names

FOLDER = Path(batchscale.__file__).parent / "cost" / "step" / "nets"


def table_name(recipe: Recipe, shape: tuple[int, ...], keys: dict[str, str], key: str) -> str:
    """Of a net: its model and shape, numbered where another net has that name."""
    plain = recipe.model.name.rpartition("/")[2].replace("_", "-") + "-" + "x".join(map(str, shape))
    name, number = plain, 2
    while keys.get(name, key) != key:
        name, number = f"{plain}-{number}", number + 1
    return name


def main(names: list[str]) -> None:
    """Count, write, and list; the index is whole after each, so that what was broken off can go on."""
    FOLDER.mkdir(exist_ok=True)
    index = FOLDER / "index.json"
    tables = json.loads(index.read_text()) if names and index.exists() else {}
    counted = set()
    for name in names or shipped_names():
        recipe = load_recipe(name)
        key = net_key(recipe.model_dump(mode="json"))
        if recipe.model.name == "own" or key in counted:
            continue
        form = form_of(recipe)
        table = NetTable.from_json(count_net(recipe, form))
        counted.add(key)
        tables[key] = table_name(recipe, form.shape, {value: known for known, value in tables.items()}, key)
        text = json.dumps(table.as_json(), separators=(",", ":"))
        (FOLDER / f"{tables[key]}.json").write_text(text.replace('],"', '],\n"') + "\n")
        index.write_text(json.dumps(dict(sorted(tables.items(), key=lambda item: item[1])), indent=1) + "\n")
        print(
            f"{name}: {tables[key]}, {table.flops / 1e9:.3g} GFLOP of an example, "
            f"{table.parameters.sum() / 1e6:.4g} million parameters",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
