"""How processes talk: the world of W processes, and the collectives they reduce with."""

from batchscale.comm.world import World

ALGORITHMS = ("builtin",)
"""Every all-reduce that a recipe may name: the backend's own is the one there is; ``auto`` chooses it."""

__all__ = ["ALGORITHMS", "World"]
