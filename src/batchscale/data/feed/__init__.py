"""From examples to passes on a device: the feed, how its passes get there, and what becomes of pixels on the way."""

from batchscale.data.feed.feed import Feed
from batchscale.data.feed.normalizer import Batch, Normalizer

__all__ = ["Batch", "Feed", "Normalizer"]
