"""One member of each family. Their homes are texts, so that they are imported when they are first used."""

from batchscale.plugins import register_all_reduce, register_data, register_model, register_optimizer, register_task
from batchscale_example.plain_sgd import PlainSGDEntry

register_model("example_mlp", "batchscale_example.mlp:mlp")
register_data("example_stripes", "batchscale_example.stripes:STRIPES")
register_task("example_squares", "batchscale_example.squares:Squares")
register_optimizer("example_sgd", PlainSGDEntry, "batchscale_example.plain_sgd:PlainSGD")
register_all_reduce("example_star", "batchscale_example.star:Star")
