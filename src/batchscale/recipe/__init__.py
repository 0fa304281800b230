"""A recipe: what defines a run (identity), how it is computed (numerics), how it is watched (execution)."""

from batchscale.recipe.load import dump_recipe, identity, load_recipe, recipe_from, shipped_names, shipped_text
from batchscale.recipe.schema import Recipe

__all__ = ["Recipe", "dump_recipe", "identity", "load_recipe", "recipe_from", "shipped_names", "shipped_text"]
