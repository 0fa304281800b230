"""batchscale train: a recipe to final weights."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscale.cli import workers
from batchscale.cli.options import (
    add_common,
    add_data,
    command_words,
    data_folder,
    default_folder,
    folder_path,
    not_negative,
    positive,
    print_json,
)
from batchscale.errors import BatchscaleError, RecipeError, UsageError
from batchscale.members.loading import loaded
from batchscale.recipe import load_recipe
from batchscale.recipe.explain import UnknownMember
from batchscale.records.folder import holds_run
from batchscale.records.run import RunRecords
from batchscale.system.early import release
from batchscale.system.launcher import is_worker
from batchscale.words import counted, shown

if TYPE_CHECKING:
    from batchscale.records import Result
    from batchscale.run.job import Job

_ABOUT = """\
Train RECIPE: a shipped recipe's name (see `batchscale recipes`) or a YAML file.

key=value overrides an entry by its dotted name:
  batchscale train fashion-mnist-cnn minibatch.workers=32 learning_rate.warmup.epochs=2 --processes 2
Values are YAML; names of files (model.pretrained, data.subset) are taken as typed.

The run is k workers of n images; --processes only says how many processes host the workers. A run that was
killed goes on with --resume, on any number of processes:
  batchscale train fashion-mnist-cnn --out runs/a --processes 4
  batchscale train fashion-mnist-cnn --out runs/a --processes 2 --resume

Several machines: srun -N2 -n16 batchscale train RECIPE --out DIR, or mpirun, or
  torchrun --nnodes=... --nproc-per-node=... -m batchscale train RECIPE --out DIR
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train", help="train a recipe", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a recipe entry")
    parser.add_argument("--processes", type=positive, default=1, metavar="W", help="local processes (default 1)")
    add_data(parser)
    parser.add_argument("--out", type=folder_path, metavar="DIR", help="the run's folder (default runs/RECIPE-TIME)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        default="no",
        choices=("yes", "auto"),
        help="go on with the run in --out; =auto: start it or go on",
    )
    parser.add_argument(
        "--branch", type=folder_path, metavar="RUN", help="go on from a checkpoint of RUN, under this recipe"
    )
    parser.add_argument(
        "--at", type=positive, metavar="STEP", help="the step of RUN to branch from (default: its newest checkpoint)"
    )
    parser.add_argument(
        "--exact", action="store_true", help="bitwise the same weights for every W (numerics.exact=true)"
    )
    parser.add_argument(
        "--max-restarts", type=not_negative, default=0, metavar="R", help="start all processes again after a failure"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train in this process, or launch W of them."""
    if not is_worker():
        return _parent(options)
    return _worker(options, workers.enter(options, (("processes", 1), ("max-restarts", 0))))


def _job(options: argparse.Namespace, out: Path | None) -> Job:
    overrides = [*options.overrides, *(["numerics.exact=true"] if options.exact else [])]
    try:
        recipe = load_recipe(options.recipe, overrides)  # a mistake in it is said before torch is imported
    except UnknownMember as error:
        raise _with_plugins(error, options, out) from None
    from batchscale.launch.processes import launched, launched_command
    from batchscale.run.job import BranchPoint, Job

    if options.at is not None and options.branch is None:
        raise UsageError(f"--at {options.at}: of which run? give it with --branch RUN")
    branch = BranchPoint(Path(options.branch), options.at) if options.branch is not None else None
    command = launched_command() if launched() else tuple(command_words(options))
    return Job(
        _name(options),
        recipe,
        out,
        data_folder(options),
        options.resume,
        command=command,
        debug=options.debug,
        branch=branch,
    )


def _with_plugins(error: UnknownMember, options: argparse.Namespace, out: Path | None) -> RecipeError:
    """A name that is unknown here, and the plugins that a run at hand had: the one gone on with, or trained again."""
    recipe = Path(options.recipe)
    folders = [
        *([out] if out and options.resume != "no" else []),
        *([recipe.parent] if recipe.name == "recipe.yaml" else []),
    ]
    folder = next((folder for folder in folders if holds_run(folder)), None)
    if folder is None:
        return error
    present = {plugin["name"] for plugin in loaded()}
    rows = [row for attempt in RunRecords(folder).attempts() for row in attempt.get("plugins") or []]
    names = dict.fromkeys(str(row["name"]) for row in rows if row["name"] not in present)
    flags = " ".join(f"--plugin {name}" for name in names)
    return RecipeError(f"{error.sentence}{f'; the run in {folder} had {flags}: give it again' if flags else ''}")


def _name(options: argparse.Namespace) -> str:
    return Path(options.recipe).stem


def _out(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out)
    if options.resume != "no":
        raise UsageError("--resume: which run? give its folder with --out DIR")
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise UsageError(
            "--out: missing; a run that may be restarted must be found again; give its folder with --out DIR"
        )
    if int(os.environ.get("RANK", "0")) > 0:
        return Path("runs") / _name(options)  # until rank 0, which makes the folder, has told its name
    return default_folder(options, _name(options))


def _parent(options: argparse.Namespace) -> int:
    out = _out(options)
    job = _job(options, out)
    from batchscale.launch.processes import Interrupted
    from batchscale.records.folder import attempts
    from batchscale.run.run import Stopped
    from batchscale.run.start import start

    begun = attempts(out)
    try:
        result = start(job, options.processes, options.max_restarts)
    except (Interrupted, Stopped):
        raise
    except Exception:
        if options.json and attempts(out) > begun:
            _print_failure(out)
        raise
    return _report(result, options, already=attempts(out) == begun)


def _print_failure(out: Path) -> None:
    """The result of an attempt that has failed; none where it was stopped, or another attempt follows."""
    from batchscale.records import read_result

    restarts = [int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS")]
    if restarts[0] < restarts[1]:
        return

    with contextlib.suppress(BatchscaleError):
        print_json(read_result(out).model_dump())


def _worker(options: argparse.Namespace, ours: bool) -> int:
    """One of W processes: errors go to the launcher; under an outside one rank 0 says them, where it can."""
    from batchscale.launch.processes import record_error
    from batchscale.records.folder import attempts

    first, begun, out = workers.is_first(), 0, None
    try:
        from batchscale.run.start import start

        out = _out(options)
        begun = attempts(out)
        job = _job(options, out if first or options.out is not None else None)
        release()  # a wait for the others in torch would hold a handler of ours up
        result = start(job)
    except BaseException as error:
        record_error(error)
        if first and not ours and options.json and out is not None and attempts(out) > begun:
            _print_failure(out)
        return workers.leave(workers.tell(error, options, ours), options)
    if first and not ours:
        _report(result, options)
    return workers.leave(0, options)


def _report(result: Result, options: argparse.Namespace, already: bool = False) -> int:
    options.keeps = result.folder or None
    if options.json:
        print_json(result.model_dump())
    else:
        speed = _speed(result)
        done = f"{'was finished before' if already else result.status}{_early(result)}"
        print(
            f"{done}: {result.evaluated_on} {result.judged_by.words} after {counted(result.steps, 'step')} "
            f"({counted(result.epochs, 'epoch', 'g')}), {speed}, "
            f"{result.wall_seconds:.1f} s; weights {(result.weights_sha256 or '')[:12]}; {shown(result.folder)}"
        )
    return 0 if result.status == "done" else 1


def _speed(result: Result) -> str:
    """In examples, and in what they consist of."""
    extra = result.model_extra or {}
    nouns = {str(extra.get("examples", "images")): result.images_per_second}
    if part := extra.get("parts"):
        nouns[part] = extra[f"{part}_per_second"]
    return ", ".join(f"{speed:,.0f} {noun}/s" for noun, speed in nouns.items() if speed is not None) or "-"


def _early(result: Result) -> str:
    """That a run ended before its last step, because an evaluation was past a bound of its recipe."""
    extra = result.model_extra or {}
    return ", stopped at its goal" if extra.get("stopped_below") or extra.get("stopped_at") else ""
