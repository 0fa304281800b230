"""The entries of a recipe that say how a step is computed: in which numbers, passes and threads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from batchscale.recipe.base import Count, Entry


class Numerics(Entry):
    """How the run is computed: compared at a resume in exact mode only."""

    exact: bool = False
    # images in one forward/backward pass: a multiple of per_worker (a pass holds at least one worker as that grows)
    micro_batch: Literal["auto"] | Count = "auto"
    threads: Literal["auto"] | Count = "auto"  # per process; auto: 1 in exact mode, else one a core, or fewer by trial
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    compile: bool = False  # torch.compile of the model
    evaluation_chunk: Count = 500  # images of one evaluation pass, the same for every W
    cuda_graph: bool = False  # in exact mode on a GPU: a pass is captured once and replayed (not yet run on a GPU)
    # type that gradients are sent in between processes, in fast mode; bf16 and fp16 halve the bytes of an all-reduce,
    # and are summed in float32 wherever the algorithm is not the backend's own
    wire: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _graphs_are_of_exact_passes(self) -> Self:
        if self.cuda_graph and (self.compile or not self.exact):
            other = "compile=true" if self.compile else "exact=false"
            raise ValueError(
                f"numerics.cuda_graph=true with numerics.{other}: graphs are captured of exact mode's passes of one "
                f"worker, as torch runs them; use numerics.cuda_graph=false"
            )
        return self
