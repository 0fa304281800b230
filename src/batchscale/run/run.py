"""A run on this process: folder, parts, loop, result. Every process of the run calls ``train_here`` alike."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchscale.build.algorithm import as_text as algorithm_text
from batchscale.build.build import build
from batchscale.build.constants import jump_warning
from batchscale.build.derive import as_text, derived_numbers, ended_decay_warning, lag_warning
from batchscale.build.deterministic import switches_kept
from batchscale.build.memory import evaluation_warning
from batchscale.build.together import load_together
from batchscale.build.trunk import Trunk
from batchscale.comm import World
from batchscale.comm.world.device import device_text, differing_models
from batchscale.comm.world.diagnosis import FAILED
from batchscale.data import OwnData
from batchscale.data.examples import Splits
from batchscale.data.map_style import MapExamples
from batchscale.errors import BatchscaleError, RecipeError, UsageError
from batchscale.launch.hardware import choose_device, threads_text
from batchscale.launch.signals import StopSignals
from batchscale.recipe import dump_recipe
from batchscale.records import Result, RunFolder
from batchscale.records.files import write_whole
from batchscale.records.provenance import environment
from batchscale.records.tensorboard import EventFiles
from batchscale.run import outcome
from batchscale.run.alike import check_alike
from batchscale.run.branch import forget_trunk, record_trunk
from batchscale.run.fingerprint import check_same, check_same_data, fingerprint
from batchscale.run.job import Job
from batchscale.run.measuring import LiveMeasures, own_copy
from batchscale.run.opening import Opened, check_finished, check_trained_on, open_together
from batchscale.run.restoring import take_up
from batchscale.system.launcher import in_its_words
from batchscale.task import Task
from batchscale.training import checkpoint as checkpoints
from batchscale.training.course import Course
from batchscale.training.loop import Loop
from batchscale.training.parts import Parts
from batchscale.training.progress import Progress
from batchscale.training.riders import NEWS, STOP
from batchscale.training.skipped import SkippedFiles
from batchscale.training.totals import Totals
from batchscale.words import shown


class Stopped(BatchscaleError):
    """The run was asked to stop, and did, with a checkpoint."""

    def __init__(self, number: int, steps: int, way_on: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {steps}; {way_on}")
        self.exit_code = 128 + number


@switches_kept()
def train_here(
    job: Job, model: nn.Module | None = None, data: OwnData | None = None, task: Task | None = None
) -> Result:
    """Train on this process, one of the W that the environment describes (one without a launcher).

    Args:
        job: what to train and where.
        model: one's own module, trained in place; None for the recipe's.
        data: one's own data set; None for the recipe's.
        task: one's own task; None for the recipe's.

    Returns:
        The result, on every process.

    Raises:
        UsageError: the recipe, the data or the folder will not do.
        ProcessError: another process died, hung or disagreed.
        Stopped: a signal to stop was received by a process of the run.
    """
    threads = torch.get_num_threads()
    bounds = job.recipe.execution
    world = World.connect(choose_device(job.recipe), bounds.timeout_seconds, bounds.startup_seconds)
    folder: RunFolder | None = None
    parts: Parts | None = None
    ended = False
    try:
        with StopSignals() as signals, _mistakes_told(world):
            check_alike(job, world)
            folder, opened = open_together(job, world)
            job = dataclasses.replace(job, out=opened.out)
            if job.out is not None and opened.finished is not None:
                check_finished(job, job.out, opened.data, world, data)
                ended = True
                return opened.finished
            dataset = _same_data(job, world, opened, data)
            copied = own_copy(job.recipe, model)
            parts = _build(job, world, dataset, opened, model, task, data is not None)
            parts.measuring = LiveMeasures(job, parts, copied)
            result = _train(job, parts, folder, opened, signals)
            ended = True
            return result
    finally:
        if parts is not None:
            parts.close()
        if folder is not None:
            folder.abandon()
            folder.close()
        torch.set_num_threads(threads)
        world.close(wait=ended)


@contextlib.contextmanager
def _mistakes_told(world: World) -> Iterator[None]:
    """Within it, a mistake that this process alone finds is the reason that the others give."""
    try:
        yield
    except UsageError as error:
        world.tell_alive(f"{FAILED}{error}", timed_out=False)
        raise


def _same_data(job: Job, world: World, opened: Opened, own_data: OwnData | None) -> Splits:
    """The data of the run: the same on all processes, and as before where it goes on."""
    with load_together(job.recipe, job.data_folder, own_data, world) as dataset:
        check_same_data(world.gather(dataset.contents, "comparing the data of all processes"))
    if opened.data:
        where = job.out if opened.resumed or opened.trunk is None else Path(opened.trunk.folder)
        check_trained_on(where or Path("run"), opened.data, dataset.contents)
    if dataset.passed_over and world.rank == 0:
        print(f"passed over beside the images: {dataset.passed_over}", file=sys.stderr, flush=True)
    if dataset.note and world.rank == 0 and not job.quiet:
        print(f"data {dataset.name}: {dataset.note}", file=sys.stderr, flush=True)
    return dataset


def _build(
    job: Job, world: World, dataset: Splits, opened: Opened, model: nn.Module | None, task: Task | None, own_data: bool
) -> Parts:
    """The parts of the run; too many processes are told in the words of what has started them."""
    try:
        return build(
            job.recipe,
            world,
            dataset,
            model=model,
            task=task,
            own_data=own_data,
            earlier=opened.decided,
            trunk=opened.trunk,
        )
    except RecipeError as error:
        sentence = in_its_words(str(error))
        if sentence == str(error):
            raise
        raise RecipeError(sentence) from error


def _begin(
    job: Job, parts: Parts, folder: RunFolder, opened: Opened, prints: dict[str, str], totals: Totals
) -> str | None:
    """Write what a run consists of before its first step; from here on the folder holds it. Returns why it failed."""
    first_step = opened.checkpoint.step if opened.checkpoint else 0
    if not opened.resumed:
        if opened.trunk is None:
            forget_trunk(folder.path)  # of a branch that was killed before it began here
        else:
            record_trunk(folder.path, opened.trunk)
        folder.write_recipe(dump_recipe(job.recipe))
    failed = folder.forget_failure()
    parts.world.tell_job(f"opened {folder.path.resolve()}")
    folder.rewind(first_step, totals.evaluation_is_due)
    if job.recipe.execution.tensorboard:
        folder.add_sink(EventFiles(folder.path / "tensorboard", first_step))
    rows = derived_numbers(
        job.recipe, len(parts.dataset.train), parts.world.size, opened.trunk, parts.step.task.examples
    )
    folder.write_environment(
        {
            **environment(job.command),
            "recipe": job.name,
            "processes": parts.world.size,
            "device": device_text(parts.world.device, parts.world.devices),
            "from_step": first_step,
            **_trunk_record(opened.trunk),
            "decided": parts.decided.as_json(),
            "fingerprint": prints,
            "data": parts.dataset.contents,
            "derived": [vars(row) for row in rows],
            "warnings": _warnings(parts, opened.trunk),
        }
    )
    return failed


def _trunk_record(trunk: Trunk | None) -> dict[str, Any]:
    """What environment.json says of a branch's trunk."""
    if trunk is None:
        return {}
    return {"trunk": {"folder": trunk.folder, "step": trunk.step, "state_sha256": trunk.state_sha256}}


def _warnings(parts: Parts, trunk: Trunk | None) -> list[str]:
    """What a reader of the run's figures should know beforehand."""
    lags = lag_warning(parts.recipe, parts.step.plan.total_steps) if parts.step.averages.layers else None
    ends, jumps = ended_decay_warning(parts.recipe, trunk), jump_warning(parts.recipe, parts.step.plan.fastest, trunk)
    models = differing_models(parts.world.devices)
    drawn = {part.warning for part in (parts.dataset.train, parts.dataset.test) if isinstance(part, MapExamples)}
    test, noun = parts.dataset.test, parts.step.task.examples
    memory = evaluation_warning(parts.recipe.numerics.evaluation_chunk, len(test), test.shape, noun)
    return [warning for warning in (lags, ends, jumps, memory, models, *drawn) if warning]


def _say_begin(job: Job, parts: Parts, opened: Opened, failed: str | None) -> None:
    if parts.world.rank or job.quiet:
        return
    rows = derived_numbers(
        job.recipe, len(parts.dataset.train), parts.world.size, opened.trunk, parts.step.task.examples
    )
    print(as_text(rows), file=sys.stderr, flush=True)
    for warning in _warnings(parts, opened.trunk):
        print(warning, file=sys.stderr, flush=True)
    if parts.world.device.type == "cuda":
        print(f"device: {device_text(parts.world.device, parts.world.devices)}", file=sys.stderr, flush=True)
    decided = parts.decided
    if decided.cores_per_thread is not None and decided.cores_per_thread > 1:
        print(threads_text(decided.threads, decided.cores_per_thread), file=sys.stderr, flush=True)
    if parts.world.size > 1:
        print(algorithm_text(decided.algorithm), file=sys.stderr, flush=True)
    if opened.trunk is not None and not opened.resumed:
        begins = f"branching at step {opened.trunk.step} of {shown(opened.trunk.folder)}"
        print(begins, file=sys.stderr, flush=True)
    if opened.resumed:
        ended = f"it failed: {failed}" if failed else "it was killed before its first checkpoint"
        step = opened.checkpoint.step if opened.checkpoint else 0
        why = f": {ended}" if failed or opened.at_trunk or not opened.checkpoint else ""
        print(f"resuming at step {step}{why}", file=sys.stderr, flush=True)


def _train(job: Job, parts: Parts, folder: RunFolder | None, opened: Opened, signals: StopSignals) -> Result:
    recipe, world = job.recipe, parts.world
    prints = fingerprint(recipe.numerics, parts.decided.threads, parts.decided.micro_batch, world.device)
    check_same(world.gather(prints, "waiting for all processes to be ready"), recipe.numerics.exact)
    first_step, totals = take_up(parts, opened, prints)
    failed = None
    if folder is not None:
        try:
            failed = _begin(job, parts, folder, opened, prints, totals)
        except BaseException:
            if not opened.resumed:
                folder.withdraw()
                forget_trunk(folder.path)
            raise
    _say_begin(job, parts, opened, failed)
    course = _course(job, parts, totals, first_step, prints, folder)
    if opened.at_trunk:
        course.save()  # from here on a resume needs the trunk no more
    parts.requests[STOP].ask_by(signals.requested)
    parts.requests[NEWS].ask_by(course.skipped.news)
    try:
        if not Loop(course).run():
            received = world.gather(signals.received, "telling which signal it was")
            raise Stopped(next((n for n in received if n), signal.SIGTERM), course.steps_done, job.way_on)
        with world.patience.longer():  # rank 0 alone writes what is left
            return _finish(job, parts, course, folder)
    except Exception as error:
        if folder is not None and not isinstance(error, Stopped):
            outcome.record_failure(job, parts, course, folder, error)
        raise
    finally:
        if not (world.rank or job.quiet):
            course.skipped.tell()


def _course(
    job: Job, parts: Parts, totals: Totals, first_step: int, prints: dict[str, str], folder: RunFolder | None
) -> Course:
    skipped = SkippedFiles(parts.dataset, parts.world, folder, job.recipe.data.skip_bad)
    plan = parts.step.plan
    progress = Progress(plan.total_steps, first_step, job.quiet or parts.world.rank > 0)
    progress.expect(plan.total_steps, plan.total_is_certain)
    return Course(parts, totals, first_step, prints, folder, skipped, progress)


def _finish(job: Job, parts: Parts, course: Course, folder: RunFolder | None) -> Result:
    weights = course.weights()
    content = outcome.ended(job, parts, course, weights)
    if folder is not None:
        course.skipped.write()
        for name, tensors in weights.items():
            write_whole(folder.path / f"{name}.safetensors", checkpoints.to_bytes(tensors))
        folder.write_result(content)
    content |= parts.world.from_rank_zero(course.skipped.count, "the end of the run")
    return Result.model_validate(content)
