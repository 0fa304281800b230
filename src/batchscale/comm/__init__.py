"""How processes talk: the world of W processes, and the collectives they reduce with."""

from batchscale.comm.reducer import ALGORITHMS, Choice, Reducer, Reduction
from batchscale.comm.world.world import World

__all__ = ["ALGORITHMS", "Choice", "Reducer", "Reduction", "World"]
