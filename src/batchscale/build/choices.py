"""Threads and micro-batch of a run: as the recipe says, as an earlier attempt chose, or by a trial."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batchscale.build.agreement import together
from batchscale.build.trial import PassTimer
from batchscale.comm import World
from batchscale.errors import RecipeError
from batchscale.launch.hardware import most_threads
from batchscale.recipe import Recipe
from batchscale.training.decided import DecidedEarlier

_TRIAL = "a trial of pass sizes"


def group_examples(recipe: Recipe) -> int:
    """g n, the examples that are normalised together: the fewest that a pass may hold."""
    return recipe.minibatch.per_worker * recipe.batch_norm.span


@dataclass(frozen=True)
class Choices:
    """What is chosen on all processes together before the first step.

    Attributes:
        recipe, world: of the run.
        workers: most that this process will host.
        timer: of passes.
        single: why a pass may hold one group alone; "" where it may hold several.
        earlier: what holds on from earlier attempts.
    """

    recipe: Recipe
    world: World
    workers: range
    timer: PassTimer
    single: str
    earlier: DecidedEarlier

    def micro_batch(self) -> tuple[int, int | None]:
        """Examples of one pass, the same everywhere; the most that fit into memory, where the trial met that limit.

        Raises:
            RecipeError: the recipe wants more than may be together.
        """
        wanted, group = self.recipe.numerics.micro_batch, group_examples(self.recipe)
        if isinstance(wanted, int):
            if self.single and wanted != group:
                unit = "worker" if self.recipe.batch_norm.span == 1 else "group of workers"
                raise RecipeError(
                    f"numerics.micro_batch={wanted}: {self.single}, so it runs one {unit} a pass; "
                    f"use numerics.micro_batch={group} or auto"
                )
            return wanted, None
        if self.single or self.recipe.numerics.exact:
            return group, None  # also where an earlier attempt, or a trunk, was free to hold more
        if self.earlier.micro_batch is not None:
            return self.earlier.micro_batch, None
        # All try, as all will train; a size must fit everywhere.
        tried = together(self.world, lambda: self.timer.tried_sizes(self.workers), _TRIAL)
        largest = min((sizes.largest for sizes in tried if sizes.largest is not None), default=None)
        common = min((sizes.within(largest) for sizes in tried), key=len)
        chosen = self.timer.fastest(common, self.workers, lambda seconds: max(self.world.gather(seconds, _TRIAL)))
        return group * chosen, None if largest is None else group * largest

    def threads(self, random: bool) -> tuple[int, int | None]:
        """Set this process's threads; returns them, and the cores a thread by the trial.

        What holds everywhere is cores a thread: hosts may differ, and a resume may have other processes.

        Args:
            random: the model draws random numbers.
        """
        numerics, most = self.recipe.numerics, most_threads(self.recipe.numerics)
        if numerics.threads != "auto" or numerics.exact:
            return most, None
        cores_per_thread = self.earlier.cores_per_thread
        if cores_per_thread is None:
            # Not where numerics.compile=true: it would compile anew for every number of threads.
            free = self.world.device.type == "cpu" and not numerics.compile and most > 1
            one_group = random or numerics.micro_batch == group_examples(self.recipe)
            best = self.timer.cores_per_thread(most, self.workers, one_group) if free else 1  # all try here, too
            cores_per_thread = self.world.from_rank_zero(lambda: best)
        threads = max(most // cores_per_thread, 1)
        torch.set_num_threads(threads)
        return threads, cores_per_thread


def single_group(draws_random: bool, worker_loss: bool) -> str:
    """Why a pass may hold one group of workers alone; "" where it may hold several.

    Args:
        draws_random: the model draws random numbers, keyed by the worker.
        worker_loss: the task's loss is a worker's, not an example's.
    """
    if draws_random:
        return "the model draws random numbers"
    return "the task's loss is a worker's" if worker_loss else ""
