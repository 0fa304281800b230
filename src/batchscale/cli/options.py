"""Options that several commands share, and what they print."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from batchscale.errors import UsageError
from batchscale.records.command import this_command
from batchscale.records.files import cannot_write, finite
from batchscale.system.disk import new_folder
from batchscale.system.streams import Stream
from batchscale.words import UNWRITABLE, shown


def add_common(parser: argparse.ArgumentParser) -> None:
    """--json, --plugin and --debug."""
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that registers models, data sets, tasks, optimizers, all-reduces (again for another one)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data DIR."""
    parser.add_argument(
        "--data",
        type=folder_path,
        metavar="DIR",
        help="folder of the data sets, one folder each (default: the environment variable BATCHSCALE_DATA)",
    )


def data_folder(options: argparse.Namespace) -> Path | None:
    """The folder of the data sets, from --data or BATCHSCALE_DATA.

    Raises:
        UsageError: it is no folder.
    """
    folder = options.data or (Path(os.environ["BATCHSCALE_DATA"]) if os.environ.get("BATCHSCALE_DATA") else None)
    if folder is not None and not folder.is_dir():
        source = "--data" if options.data else "BATCHSCALE_DATA"
        raise UsageError(f"{source}={folder}: is not a folder; give the folder that holds the data sets")
    return folder


def command_words(options: argparse.Namespace) -> list[str]:
    """The words of this command, with the folder of the data where only the environment names it."""
    words, data = this_command(options.typed), data_folder(options)
    return words if options.data or data is None else [*words, "--data", str(data)]


def folder_path(text: str) -> Path:
    """A folder's path, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder: give its path ('.' for this one), or leave it out")
    return Path(text)


def file_path(text: str) -> Path:
    """A path of something that is read or written, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no path: give one ('.' for this folder)")
    return Path(text)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if re.fullmatch("0*[1-9][0-9]{18,}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 to {10**18 - 1:,}")
    value = int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return value


def not_negative(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    return positive(text) if text != "0" else 0


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(_writable(finite(document)), indent=2), flush=True)


def _writable(value: Any) -> Any:
    """A document with bytes that are no UTF-8 as ``\\xff``: readers of JSON refuse lone surrogates."""
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_writable(inner) for inner in value]
    return value.encode("utf-8", UNWRITABLE).decode() if isinstance(value, str) else value


def default_folder(options: argparse.Namespace, name: str) -> Path:
    """runs/NAME-TIME, made now, so that no other command begun in this second takes it, too.

    Args:
        options: of the command; whatever stays empty is removed at its end.
        name: of the recipe, or what else the folder is of.

    Raises:
        FolderError: it cannot be made.
    """
    runs = Path("runs")
    options.made = [] if runs.exists() else [runs]
    path = runs / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        folder = new_folder(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    options.made.insert(0, folder)
    return folder


def remove_unused(options: argparse.Namespace) -> None:
    """Remove folders that ``default_folder`` has made and nothing was written to."""
    for folder in getattr(options, "made", []):
        with contextlib.suppress(OSError):
            folder.rmdir()


def verdict(code: int, output: Stream, options: argparse.Namespace) -> int:
    """The exit code of a command, with a line where what it printed is lost.

    A reader that leaves is no error. A document of --json that is lost, is one; so is the text of a command that leaves
    nothing but text. One whose results lie in a folder is done all the same.

    Args:
        code: of the command.
        output: standard output.
        options: of the command.
    """
    output.flush()
    if output.lost is None or isinstance(output.lost, BrokenPipeError):
        return code
    what = "the document of --json" if getattr(options, "json", False) else "what this command prints"
    kept = getattr(options, "keeps", None)
    where = f"; all of it lies in {shown(kept)}" if kept else "; give it a file or a pipe, and the same command again"
    print(f"batchscale: standard output: {output.lost.strerror}: {what} is lost{where}", file=sys.stderr, flush=True)
    return code if code or (kept and not getattr(options, "json", False)) else 1
