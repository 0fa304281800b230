"""The command line: one thin file per command. Help and reports never import torch."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from batchscale import __version__
from batchscale.cli.options import remove_unused, verdict
from batchscale.errors import BatchscaleError, UsageError
from batchscale.launch.processes import record_error
from batchscale.members.loading import load as load_plugins
from batchscale.system.disk import refusal
from batchscale.system.early import release
from batchscale.system.launcher import by_agent, check_one_task
from batchscale.system.streams import guarded, open_missing
from batchscale.system.working_folder import working_folder
from batchscale.words import UNWRITABLE, shown

_ABOUT = """\
Train neural networks by distributed synchronous SGD with large minibatches.

A run is defined by k workers of n images each; the processes it runs on never change it.

  batchscale demo                                     large minibatches fail naively and succeed by the rules
  batchscale recipes                                  what is shipped
  batchscale train fashion-mnist-cnn --processes 2    train one, on two processes of this machine
  batchscale train fashion-mnist-cnn minibatch.workers=32 --exact   the same bits on any number of processes
"""

_SPINS = "10000"
"""Looks at a flag before an OpenMP thread sleeps (libgomp: 300,000), for where another process has its core. It is read
when torch is loaded. On free cores no difference, on shared ones up to 14 times faster (docs/log.md)."""

_PATH_ERRORS = {
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EIO,
}  # fmt: skip

_COMMANDS = ("train", "study", "measure", "recipes", "data", "compare", "bench", "plan", "report", "demo")
"""Each a file, or a folder, of this name; in the order of the help."""
_WITHOUT_TORCH = {"recipes", "report", "plan"}
_OF_ONE_PROCESS = {"recipes", "report", "compare", "data", "plan"}
"""Train's, and a measure's, is one of W; the others start processes themselves."""


class _Parser(argparse.ArgumentParser):
    """Errors of usage in one line; the options name the parser of the command that they are of."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.set_defaults(parser=self)

    def words_of(self, words: Sequence[str]) -> Sequence[str]:
        """What the words of a command stand for; one that leaves some out puts its own function here."""
        return words

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(None if args is None else list(self.words_of(args)), namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {shown(message)}; see {self.prog} --help\n")


def parser(names: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The parser of all commands, or of those named: each is loaded with what it needs to know its flags."""
    top = _Parser(prog="batchscale", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"batchscale {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in names:
        import_module(f"batchscale.cli.{name}").add(commands)
    return top


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; overrides may stand anywhere among the flags."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    top = parser(typed[:1] if typed[:1] and typed[0] in _COMMANDS else _COMMANDS)
    options, rest = top.parse_known_args(["--resume=yes" if word == "--resume" else word for word in typed])
    options.typed = typed
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in overrides]
    if unknown or (overrides and not hasattr(options, "overrides")):
        options.parser.error(f"unrecognized arguments: {' '.join(unknown or overrides)}")
    if overrides:
        options.overrides = [*options.overrides, *overrides]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 failed, 2 bad usage, 130, 143, 129 or 138 stopped by SIGINT, SIGTERM, SIGHUP or SIGUSR1.
    """
    open_missing()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=UNWRITABLE)  # names of files may hold any byte
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    options, leaving = argparse.Namespace(), None
    with guarded() as output:
        try:
            options = _parse(arguments)
            if options.command != "train":
                release()
            code = _run(options)
        except SystemExit as exit_:  # of --help and --version, and of bad usage
            leaving, code = exit_, exit_.code if isinstance(exit_.code, int) else 1
        finally:
            remove_unused(options)
        judged = verdict(code, output, options)
        if leaving is not None and judged == code:
            raise leaving
        return judged


def _temporary(path: str) -> str:
    """The way out where a path lies in the folder for temporary files."""
    try:
        place = tempfile.gettempdir()
    except OSError:  # there is none
        return ""
    return f", or set TMPDIR (now {place}) to a folder that has room" if path.startswith(f"{place}/") else ""


def _load_plugins(options: argparse.Namespace) -> None:
    """Load them; a launcher that has started this process hears what is wrong with one."""
    try:
        load_plugins(getattr(options, "plugin", ()))
    except BatchscaleError as error:
        if by_agent():
            record_error(error)
        raise


def _run(options: argparse.Namespace) -> int:
    """The command's exit code, its errors told."""
    debug = getattr(options, "debug", False)
    try:
        if working_folder() is None and options.command not in _WITHOUT_TORCH:  # MKL ends a process that loads it there
            raise UsageError(
                f"{options.command}: the working folder was deleted, and torch must be loaded in one that exists; "
                "go to another one: cd DIR"
            )
        if options.command in _OF_ONE_PROCESS:
            check_one_task(options.command)
        _load_plugins(options)
        return int(options.run(options))
    except BatchscaleError as error:
        if debug:
            traceback.print_exc()
        print(f"batchscale: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        if error.errno not in _PATH_ERRORS or debug:
            raise
        path = "a file" if error.filename is None else os.fsdecode(error.filename)
        rule = refusal(error, "must be a path that can be used; give another")
        print(f"batchscale: {shown(path)}: cannot be used {rule}{_temporary(path)}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
