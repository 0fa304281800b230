"""The recipe's schema: frozen, every entry typed, ranged and explained.

Names of data sets, models, optimizers and all-reduces are those of their families' tables (``members/``), which import
no torch. Names of schedules and rules stand here as literals; a test holds them equal to the tables in ``update/``.
``own`` stands for a module or a data set handed in from Python.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscale.members import ALL_REDUCES, BETWEEN
from batchscale.members import ON_DISK as ON_DISK
from batchscale.recipe.base import Count, Entry, Epochs, Fraction, NotNegative, Positive, Share
from batchscale.recipe.data import Data
from batchscale.recipe.measuring import MeasureEntry
from batchscale.recipe.minibatch import MinibatchEntry
from batchscale.recipe.network import BatchNorm, Loss, Model
from batchscale.recipe.numerics import Numerics
from batchscale.recipe.optimizer import AnyOptimizer, SGDEntry
from batchscale.recipe.stopping import StopAt, StopBelow
from batchscale.recipe.union import member_of
from batchscale.words import counted

ScalingName = Literal["linear", "sqrt", "adam_sde", "half_life", "half_life_sqrt", "adascale", "none"]
WarmupName = Literal["none", "constant", "gradual"]
DecayName = Literal["none", "step", "cosine", "polynomial"]
DtypeName = Literal["fp32", "fp64", "bf16", "fp16"]


class Warmup(Entry):
    """The first epochs, or steps, at a lower lr."""

    kind: WarmupName = "none"
    epochs: NotNegative | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    start: NotNegative | None = None  # an lr, scaled by no rule; null: learning_rate.reference, at most the target

    @model_validator(mode="after")
    def _one_duration(self) -> Self:
        durations = (self.epochs is not None) + (self.steps is not None)
        if durations != 1 and self.kind != "none":
            raise ValueError(
                f"epochs={self.epochs} and steps={self.steps}: give exactly one, such as learning_rate.warmup.epochs=5"
            )
        return self


class DecayEntry(Entry):
    """How the lr falls after the warmup."""

    kind: DecayName = "none"
    epochs: Epochs = ()  # for step: the lr is multiplied by factor at each of these
    factor: Share | Annotated[tuple[Share, ...], Field(strict=False)] = 0.1  # one for all epochs, or one for each
    power: Positive = 2.0  # for polynomial: (1 - progress)^power
    final: Fraction = 0.0  # for cosine and polynomial: the share of the lr that is left at the end
    end: Positive | None = None  # for cosine and polynomial: the epoch where they end (null: that of the run's end)

    @model_validator(mode="after")
    def _only_smooth_ones_end(self) -> Self:
        if self.end is not None and self.kind not in ("cosine", "polynomial"):
            raise ValueError(
                f"end={self.end:g} has no place in kind: {self.kind}, only in cosine and polynomial; leave it out, "
                f"or give the whole entry, such as learning_rate.decay={{kind: {self.kind}}}"
            )
        return self

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if self.kind == "step" and not self.epochs:
            raise ValueError("kind: step needs epochs, for example epochs: [30, 60, 80]")
        if any(b <= a for a, b in zip(self.epochs, self.epochs[1:], strict=False)):
            raise ValueError("epochs must rise, for example epochs: [30, 60, 80]")
        if isinstance(self.factor, tuple) and len(self.factor) != len(self.epochs):
            raise ValueError("factor must be one number, or one for each of epochs, such as factor: [0.1, 0.1, 0.2]")
        return self


class LearningRate(Entry):
    """eta at the reference minibatch, the scaling rule, warmup and decay."""

    reference: NotNegative
    reference_minibatch: Count
    # how the lr, constants of Adam's and the decay of averaged weights follow kappa = kn / reference_minibatch;
    # half_life: the lr as stated, half_life_sqrt: x sqrt kappa; adascale: x a gain that every step measures
    scaling: ScalingName = "linear"
    warmup: Warmup = Warmup()
    decay: DecayEntry = DecayEntry()


class Aggregation(Entry):
    """The all-reduce of the gradients."""

    # auto: the fastest, as stored by `bench allreduce`, or measured at the start
    algorithm: Annotated[str, member_of(ALL_REDUCES)] = "auto"
    torus: Annotated[tuple[Count, Count], Field(strict=False)] | None = None  # X, Y: X * Y processes; null to choose
    between: Annotated[str, member_of(BETWEEN)] = "auto"  # three_phase's algorithm between hosts
    # of gradients that are summed at once, in fast mode; auto: 4, on GPUs 25
    bucket_megabytes: Literal["auto"] | Positive = "auto"


class BranchEntry(Entry):
    """Of a run that goes on from a checkpoint of another one."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # 0: the trunk's own order of examples; else it is drawn anew
    warmup: Annotated[int, Field(ge=0)] = 0  # examples over which the lr goes from the trunk's to the branch's own


class KeepCheckpoints(Entry):
    """Checkpoints that stay, for branches and measures, beside the last two."""

    steps: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    epochs: Annotated[tuple[Positive, ...], Field(strict=False)] = ()  # the first step at or after it


class Execution(Entry):
    """Where the run is computed and how it is watched: never compared."""

    aggregation: Aggregation = Aggregation()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    decode_threads: Literal["auto"] | Count = "auto"  # per process; auto: cores / local processes
    # who decodes images on disk, decode_threads at once; auto: processes on a GPU, whose launches a thread would delay;
    # the pixels are the same, bit for bit
    decoders: Literal["auto", "threads", "processes"] = "auto"
    checkpoint_seconds: NotNegative = 30.0
    keep_checkpoints: KeepCheckpoints = KeepCheckpoints()
    log_steps: Count = 10  # a line of metrics.jsonl every so many steps
    evaluation_epochs: Count = 1  # an evaluation every so many epochs, and at the end
    evaluation_steps: Count | None = None  # an evaluation every so many steps instead, and at the end
    # an evaluation after these steps instead, and at the end
    evaluation_at: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    evaluation_losses: bool = False  # the loss of every evaluation chunk in evaluations.jsonl, for intervals
    stop_below: StopBelow = StopBelow()  # of the held-out images with data.holdout, else of the test set
    stop_at: StopAt | None = None  # of the same examples
    # the noise scale of the gradient, measured in every so many steps, in which fast mode does not overlap; null: never
    noise_scale_steps: Count | None = None
    # measures of the run's state between two steps, such as [{name: noise-scale, every: 100}]: lines of measures.jsonl
    measures: Annotated[tuple[MeasureEntry, ...], Field(strict=False)] = ()
    tensorboard: bool = False  # event files in OUT/tensorboard, beside metrics.jsonl
    timeout_seconds: Positive = 60.0  # a process that does not answer this long has hung
    # the same until the first step is done, in evaluations, and beside a process that writes a checkpoint
    startup_seconds: Positive = 600.0


class Recipe(Entry):
    """All that defines a run of k workers of n images."""

    data: Data
    task: Annotated[str, Field(min_length=1)] = "classification"
    model: Model
    batch_norm: BatchNorm = BatchNorm()
    loss: Loss = Loss()
    minibatch: MinibatchEntry
    epochs: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    optimizer: AnyOptimizer = SGDEntry()
    learning_rate: LearningRate
    precision: DtypeName = "fp32"  # of the passes; bf16 and fp16 keep weights, gradients and update in float32
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    numerics: Numerics = Numerics()
    branch: BranchEntry = BranchEntry()
    execution: Execution = Execution()

    @property
    def noise_scale_steps(self) -> int | None:
        """The noise scale is measured in every so many steps; None: in none."""
        if self.learning_rate.scaling == "adascale":
            return 1
        return self.minibatch.growth.measures_noise_every() or self.execution.noise_scale_steps

    @model_validator(mode="after")
    def _a_gpu_may_decode(self) -> Self:
        if self.data.decode == "nvjpeg" and self.numerics.exact:
            raise ValueError("data.decode=nvjpeg: exact mode's pixels are libjpeg's; use data.decode=libjpeg")
        if self.data.decode == "nvjpeg" and self.execution.device == "cpu":
            raise ValueError("data.decode=nvjpeg: needs a GPU, and execution.device=cpu; use data.decode=libjpeg")
        return self

    @model_validator(mode="after")
    def _growth_fits_the_run(self) -> Self:
        growth = self.minibatch.growth
        for epoch in growth.first_epochs():
            if epoch >= self.epochs:
                raise ValueError(
                    f"minibatch.growth at epoch {epoch:.10g} lies beyond the run's end, epochs={self.epochs:g}; "
                    f"let it grow earlier, or train longer"
                )
        if growth.kind == "instead_of_decay" and self.learning_rate.decay.kind != "step":
            raise ValueError(
                f"minibatch.growth.kind=instead_of_decay and learning_rate.decay.kind={self.learning_rate.decay.kind}: "
                f"growth takes the place of steps; use learning_rate.decay={{kind: step, epochs: [...], factor: 0.1}}"
            )
        if growth.kind == "instead_of_decay" and self.learning_rate.decay.factor == 1:
            raise ValueError(
                "minibatch.growth.kind=instead_of_decay with learning_rate.decay.factor=1: the minibatch would not "
                "grow; use a factor below 1, for example 0.2"
            )
        if growth.kind == "instead_of_decay" and isinstance(self.learning_rate.decay.factor, tuple):
            raise ValueError(
                "minibatch.growth.kind=instead_of_decay with several learning_rate.decay.factor: the minibatch grows "
                "by one factor; give one, for example 0.2"
            )
        if growth.kind != "none" and self.numerics.compile and self.numerics.exact:
            raise ValueError(
                "numerics.compile=true in exact mode with a growing minibatch: code compiled for a shape hangs on "
                "the shapes before it, which a resume has not seen; use numerics.compile=false"
            )
        return self

    @model_validator(mode="after")
    def _micro_batch_holds_whole_workers(self) -> Self:
        span, passed = self.batch_norm.span, self.numerics.micro_batch
        n = self.minibatch.per_worker * span
        unit, one = f"minibatch.per_worker={n}", "worker"
        if span > 1:
            unit, one = f"minibatch.per_worker x batch_norm.span={n}", "group"
        if isinstance(passed, int) and passed % n:
            raise ValueError(
                f"numerics.micro_batch={passed} must be a multiple of {unit} "
                f"(a pass holds whole {one}s); use {max(passed // n, 1) * n}"
            )
        if self.numerics.exact and isinstance(passed, int) and passed != n:
            raise ValueError(
                f"numerics.micro_batch={passed} must equal {unit} in exact mode "
                f"(one {one} a pass); leave it out or give {n}"
            )
        for epoch, workers, _ in self.minibatch.phases():
            if workers % span:
                grown = f" from epoch {epoch:.10g} on" if epoch else ""
                raise ValueError(
                    f"batch_norm.span={span} must divide minibatch.workers={workers}{grown} "
                    f"(statistics over whole groups of workers); use {math.gcd(span, workers)}"
                )
        return self

    @model_validator(mode="after")
    def _two_gradients_for_the_noise_scale(self) -> Self:
        every, k, n = self.noise_scale_steps, self.minibatch.workers, self.minibatch.per_worker
        if every is None:
            return self
        growth, watched = self.minibatch.growth.measures_noise_every(), self.execution.noise_scale_steps
        setting = f"execution.noise_scale_steps={every}" if growth is None else "minibatch.growth.kind=noise_scale"
        if self.learning_rate.scaling == "adascale":
            setting = "learning_rate.scaling=adascale"
        if growth not in (None, every):
            raise ValueError(
                f"minibatch.growth.measure_steps={growth} with {setting}: it measures every step; use "
                f"minibatch.growth.measure_steps=1"
            )
        if watched not in (None, every):
            raise ValueError(
                f"execution.noise_scale_steps={watched} with {setting}: it measures every {counted(every, 'step')}; "
                f"leave execution.noise_scale_steps out"
            )
        if k == 1:
            way = f"minibatch.workers=2 minibatch.per_worker={n // 2}" if n > 1 else "minibatch.workers=2"
            raise ValueError(
                f"{setting} with minibatch.workers=1: one worker is one pass, and the noise "
                f"scale needs two gradients of a step; use {way}, or leave {setting} out"
            )
        if self.batch_norm.span > 1:
            raise ValueError(
                f"{setting} with batch_norm.span={self.batch_norm.span}: workers that share statistics have no "
                f"gradients independent of each other; use batch_norm.span=1, or leave {setting} out"
            )
        return self


IDENTITY = (
    "branch",
    "data",
    "task",
    "model",
    "batch_norm",
    "loss",
    "minibatch",
    "epochs",
    "optimizer",
    "learning_rate",
    "precision",
    "seed",
)
"""The entries that say what is trained: compared at a resume, key of a study."""
