"""The step of a run and what it chooses, made of the parts that the recipe names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast

import torch
from torch import nn

from batchscale.aggregate import ExactAggregator, FastAggregator
from batchscale.aggregate.fast import usual_bucket_bytes
from batchscale.aggregate.riders import Rider, Riders
from batchscale.build.agreement import together
from batchscale.build.algorithm import decide, make_reducer
from batchscale.build.choices import Choices, group_examples, single_group
from batchscale.build.compiling import compile_passes, sizes_of_passes
from batchscale.build.constants import check_takes, run_constants
from batchscale.build.graphs import check_graphs
from batchscale.build.groups import check_gone_on, check_groups, make_groups, pass_workers
from batchscale.build.inputs import order_of
from batchscale.build.network import LOW, Network
from batchscale.build.planning import momentum_of
from batchscale.build.probe import Probe, wants_whole_pass
from batchscale.build.trial import PassTimer
from batchscale.build.trunk import Trunk, run_schedule
from batchscale.build.wire import wire_of
from batchscale.build.wrapping import named_optimizer, surrounded
from batchscale.comm import Reducer, World
from batchscale.data.examples import Splits
from batchscale.data.feed import Normalizer
from batchscale.errors import DataError, RecipeError
from batchscale.minibatch import StepPlan
from batchscale.order import StreamOrder
from batchscale.recipe import Recipe
from batchscale.structure import mapped, num_examples, tensor_columns
from batchscale.task import Task
from batchscale.training.clock import clock_of
from batchscale.training.curvature_growth import curvature_decider
from batchscale.training.decided import Decided, DecidedEarlier
from batchscale.training.due import line_names
from batchscale.training.gate import Changed, gate_of
from batchscale.training.growing import Decider, Growing
from batchscale.training.noise_growth import noise_decider
from batchscale.training.noise_scale import NoiseScaleRider, noise_of
from batchscale.training.phases import PhaseSeconds
from batchscale.training.riders import NEWS, STOP, CountsRider, LossRider, Request, StatisticsRider
from batchscale.training.step import TrainingStep
from batchscale.update.adascale import AdaScale
from batchscale.update.ema import AveragedWeights
from batchscale.update.growing import GrowingPlan
from batchscale.update.momentum import HasMomentum
from batchscale.update.optimizers import Optimizer
from batchscale.worker.noise import GradientNoise
from batchscale.worker.precision import LossScale, NoLossScale
from batchscale.worker.scale import growth_steps


@dataclass(frozen=True)
class Assembly:
    """What the step of a run is made of.

    Attributes:
        workers: k -> the numbers of this process's workers.
        requests: what processes may ask of all, by name.
        trunk: of a branch.
    """

    recipe: Recipe
    world: World
    dataset: Splits
    task: Task
    network: Network
    normalizer: Normalizer
    plan: StepPlan
    workers: Callable[[int], range]
    requests: dict[str, Request]
    trunk: Trunk | None = None

    @property
    def order(self) -> StreamOrder:
        """Of the stream of examples."""
        return order_of(self.recipe, self.plan, self.trunk)

    def step(self, earlier: DecidedEarlier) -> tuple[TrainingStep, Decided]:
        """The step, and what was chosen for it; all processes call this together.

        Args:
            earlier: what was decided when the run began.
        """
        recipe, network, plan = self.recipe, self.network, self.plan
        first_step = self.trunk.step if self.trunk else 0
        begins = plan.minibatch_at(first_step)
        fewest = pass_workers(recipe, self.task, begins.workers, self.world.size)
        inputs, targets = self.dataset.train.part(slice(fewest * begins.per_worker))
        draws_random = any(
            together(self.world, partial(self._probe, inputs, targets, fewest, begins.workers), "a trial pass")
        )
        check_gone_on(recipe, self.task, earlier)
        choices = self._choices(inputs, targets, draws_random, earlier)
        threads, cores_per_thread = choices.threads(draws_random)
        micro_batch, largest_that_fits = choices.micro_batch()
        compile_seconds = self._prepared(inputs, targets, micro_batch, begins.workers, draws_random)
        groups = make_groups(recipe, self.world, plan, network, self.task, draws_random, first_step)
        reducer = make_reducer(recipe.execution.aggregation, self.world)
        riders = self._riders()
        aggregator = self._aggregator(riders, reducer)
        algorithm = decide(
            recipe.execution.aggregation, reducer, aggregator.buckets, earlier.algorithms, wire_of(recipe)
        )
        named = named_optimizer(recipe, network.model, plan)
        optimizer = surrounded(recipe, network.model, named)
        loss_scale = self._loss_scale()
        gate = gate_of(self.world, aggregator, self._changed(named, optimizer, loss_scale), self.gain is not None)
        step = TrainingStep(
            network.forward, self.task, network.statistics, network.averages, aggregator, riders,
            optimizer, self.gain or run_schedule(recipe, plan, self.trunk), plan, self.workers,
            self.order.seed, gate, draws_random, self._noise(), self._constants(named, optimizer),
            groups, loss_scale,
            PhaseSeconds(clock_of(self.world.device)),
        )  # fmt: skip
        lanes = groups.lanes is not None if recipe.batch_norm.span > 1 else None
        return step, Decided(
            micro_batch, threads, algorithm, cores_per_thread, largest_that_fits, lanes, compile_seconds
        )

    def _probe(self, inputs: object, targets: object, fewest: int, workers: int) -> bool:
        """Whether the model draws random numbers; raises where it cannot train.

        Args:
            inputs, targets: of the fewest workers that a pass holds, whose number is ``fewest``.
            workers: k as the run begins.
        """
        network, device = self.network, self.world.device
        device_targets = mapped(lambda tensor: tensor.to(device), targets)
        probe = Probe(network.model, network.statistics, self.normalizer(inputs), device_targets, self.task, fewest)
        check_groups(self.recipe, workers, self.task, probe, self.world.size)
        if self.recipe.precision in LOW:
            probe.check_precision(network.eager, self.recipe.precision)
        if wants_whole_pass(device):
            probe.check_whole_pass(network.eager)
        self._try_evaluation(probe)
        return probe.draws_random

    def _try_evaluation(self, probe: Probe) -> None:
        """One example of the test part, where its form is not that of training: else it would only cost."""
        try:
            parts = [examples.readable(slice(0, 1)) for examples in (self.dataset.train, self.dataset.test)]
        except DataError:
            return  # a file that cannot be read ends the evaluation that meets it, and costs no training
        forms = [[(column.dtype, column.shape[1:]) for column in tensor_columns(part)] for part in parts]
        inputs, targets = parts[1]
        if forms[0] != forms[1] and num_examples(targets):
            device_targets = mapped(lambda tensor: tensor.to(self.world.device), targets)
            probe.check_evaluation(self.normalizer(inputs), device_targets)

    def _choices(self, inputs: object, targets: object, draws_random: bool, earlier: DecidedEarlier) -> Choices:
        recipe, network, plan = self.recipe, self.network, self.plan
        # The passes are tried as they are without a compiler, which would take half a minute for every size.
        timer = self._timer(network.eager, inputs, targets)
        single = single_group(draws_random, self.task.unit == "worker")
        most = self.workers(plan.reachable()[-1].workers)  # k only grows
        return Choices(recipe, self.world, most, timer, single, earlier)

    def _timer(self, model: nn.Module, inputs: object, targets: object) -> PassTimer:
        per_worker = self.plan.minibatch_at(self.trunk.step if self.trunk else 0).per_worker
        group = (inputs, targets)
        return PassTimer(model, self.task, self.network.statistics, self.normalizer, group, per_worker)

    def _prepared(
        self, inputs: object, targets: object, micro_batch: int, workers: int, draws_random: bool
    ) -> float | None:
        """Compile, or capture, the passes where the recipe has it; the seconds, None where it has neither."""
        numerics = self.recipe.numerics
        if numerics.cuda_graph:
            check_graphs(self.recipe, self.world.device, draws_random, inputs)
        timer = self._timer(self.network.forward, inputs, targets)
        return self._compile(timer, micro_batch, workers) if numerics.compile or numerics.cuda_graph else None

    def _compile(self, timer: PassTimer, micro_batch: int, workers: int) -> float:
        """Seconds of the first passes of every size of a step of k workers."""
        groups, at_once = len(self.workers(workers)) // self.recipe.batch_norm.span, group_examples(self.recipe)
        return compile_passes(timer, sizes_of_passes(groups, micro_batch // at_once), self.world.device)

    def growing(self) -> Growing | None:
        """What takes the decisions of a growing plan."""
        if not isinstance(self.plan, GrowingPlan):
            return None
        return Growing(self.plan, DECIDERS[self.recipe.minibatch.growth.kind](self))

    def _riders(self) -> Riders:
        statistics = StatisticsRider(self.network.statistics, self.network.averages)
        measures = [rider for make in RIDERS.values() if (rider := make(self)) is not None]
        for measure in measures:
            if measure.name in line_names(self.task):
                raise RecipeError(
                    f"measure {measure.name}: every line of metrics.jsonl has an entry of this name already; give the "
                    f"rider another name"
                )
        most = max(minibatch.images for minibatch in self.plan.reachable())
        counts = CountsRider(self.task, most)
        return Riders([LossRider(), statistics, *self.requests.values(), counts, *self._noise_scale(), *measures])

    def _noise_scale(self) -> list[Rider]:
        """The rider that measures the noise scale, where the recipe asks for it."""
        every = self.recipe.noise_scale_steps
        most = max(minibatch.workers for minibatch in self.plan.reachable())
        return [] if every is None else [NoiseScaleRider(every, most, self.world.device, self._hears())]

    def _hears(self) -> Callable[[Sequence[float], int], None] | None:
        """What hears of a measured step before its update: the gain of AdaScale."""
        if (gain := self.gain) is None:
            return None
        images = self.plan.training_images
        return lambda numbers, examples: gain.hear(noise_of(numbers, examples, images), examples)

    @cached_property
    def gain(self) -> AdaScale | None:
        """The lr by measured gains, of learning_rate.scaling=adascale."""
        entry, plan = self.recipe.learning_rate, self.plan
        if entry.scaling != "adascale":
            return None
        first, share = run_schedule(self.recipe, plan, self.trunk).first, entry.reference_minibatch
        return AdaScale(lambda step: first(step * share / plan.minibatch.images), share)

    def _aggregator(self, riders: Riders, reducer: Reducer) -> FastAggregator | ExactAggregator:
        parameters, wire = list(self.network.model.parameters()), wire_of(self.recipe)
        megabytes, device = self.recipe.execution.aggregation.bucket_megabytes, self.world.device
        bucket_bytes = usual_bucket_bytes(device) if megabytes == "auto" else int(megabytes * 2**20)
        if self.recipe.numerics.exact:
            most = max(minibatch.workers for minibatch in self.plan.reachable())
            # A CPU that sends has none left to round with.
            beside = None if device.type == "cpu" else bucket_bytes
            return ExactAggregator(parameters, most, reducer, riders.extras, riders.counts, beside)
        return FastAggregator(parameters, reducer, riders.extras, riders.counts, bucket_bytes, wire)

    def _noise(self) -> Callable[[torch.Tensor, int, int], torch.Tensor]:
        if not self.recipe.optimizer.gradient_noise:
            return lambda outputs, step, worker: outputs
        return partial(_noisy, self.recipe, self.plan, self.order.seed)

    def _constants(self, named: Optimizer, optimizer: Optimizer) -> Callable[[int], None]:
        """What gives the optimizer the constants of a step."""
        momentum = momentum_of(self.recipe, self.plan)
        constants = run_constants(self.recipe, self.plan, self.trunk)
        average = optimizer if isinstance(optimizer, AveragedWeights) else None
        check_takes(self.recipe, named, constants)

        def set_all(step: int) -> None:
            if momentum is not None:
                momentum.set(cast(HasMomentum, named), step)
            constants.set(named, average, step)

        return set_all

    def _changed(self, named: Optimizer, optimizer: Optimizer, loss_scale: LossScale | NoLossScale) -> Changed:
        """What an update changes."""
        network, device = self.network, self.world.device
        layers = network.averages.layers
        buffers = [b for layer in layers for b in layer.buffers(recurse=False)]
        weights = [p for p in network.model.parameters() if p.requires_grad]
        return Changed(
            named, optimizer.state, weights, buffers,
            lambda: {**network.averages.state(), **loss_scale.state()}, lambda tensor: tensor.device == device,
        )  # fmt: skip

    def _loss_scale(self) -> LossScale | NoLossScale:
        if self.recipe.precision != "fp16":
            return NoLossScale()
        return LossScale(self.network.model.parameters(), growth_steps=growth_steps(self.plan.total_steps))


RIDERS: dict[str, Callable[[Assembly], Rider | None]] = {}
"""Name -> a measure in training: the rider of this run, None where it has no place in it.

Its numbers stand in every line of metrics.jsonl under the rider's name, as means over the line's steps.
"""

DECIDERS: dict[str, Callable[[Assembly], Decider]] = {
    "noise_scale": lambda assembly: noise_decider(assembly.recipe.minibatch.growth, assembly.plan),
    "curvature": lambda assembly: curvature_decider(assembly.recipe.minibatch.growth),
}
"""minibatch.growth.kind, of those that decide during the run -> the measure that decides."""


def requests() -> dict[str, Request]:
    """What every run's processes may ask of all: to stop, and to share news."""
    return {name: Request(name) for name in (STOP, NEWS)}


def _noisy(recipe: Recipe, plan: StepPlan, seed: int, outputs: torch.Tensor, step: int, worker: int) -> torch.Tensor:
    """Gradient noise over the step's n."""
    noise = GradientNoise(recipe.optimizer.gradient_noise, seed, plan.minibatch_at(step).per_worker)
    return noise(outputs, step, worker)
