"""How processes talk: the world of W processes, and the collectives they reduce with."""

from batchscale.comm.world import World

__all__ = ["World"]
