"""batchscale data: fetch official data sets where the network allows, check what is on disk, pack image folders."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from batchscale.cli.options import add_common, add_data, folder_path, positive, print_json
from batchscale.errors import DataError, UsageError
from batchscale.words import counted

if TYPE_CHECKING:
    from batchscale.data.source import Reading

_SHOWN = 20  # bad files named one by one; --json has all


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare or check data sets", description=__doc__)
    parser.add_argument("action", choices=("prepare", "check"))
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="digits, mnist, fashion_mnist, cifar10, text, imagenet, folder, ..., "
        "and for check how they are read, as in a recipe: data.masks=instances",
    )
    add_data(parser)
    parser.add_argument(
        "--labels",
        choices=("names", "numbers"),
        help="imagenet, folder: what validation folders or a list's words are, where both are possible: names of "
        "classes, or labels from 0 (in a recipe: data.labels)",
    )
    packing = parser.add_argument_group("prepare imagenet, prepare folder: the packed form")
    packing.add_argument(
        "--out", type=folder_path, metavar="DIR", help="where to (default: the set's folder, and -packed)"
    )
    packing.add_argument("--short-side", type=positive, metavar="PIXELS", help="make larger images so small")
    packing.add_argument("--quality", type=positive, metavar="Q", help="JPEG quality of those, 1..100 (default 90)")
    packing.add_argument("--skip-bad", action="store_true", help="leave unreadable images out")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch, check or pack each of the named sets."""
    from batchscale.data.sources import source_of
    from batchscale.launch.signals import leaving

    entries = [word for word in options.names if "=" in word]
    names = [word for word in options.names if "=" not in word]
    _check_words(names, entries, options.action)
    for name in names:
        source_of(name)  # a mistake in one is said before the others take their time
    with leaving():
        if options.action == "prepare":
            rows = [_prepared(name, options) for name in names]
        else:
            rows = [_checked(name, options, entries) for name in names]
    errors = [words for row in rows if (words := _verdict(row))]
    if options.json:
        print_json({"data": rows})
    else:
        for row in rows:
            _print(row, errors)
    if errors:
        raise DataError("; ".join(errors))
    return 0


def _check_words(names: list[str], entries: list[str], action: str) -> None:
    """Raise where recipe entries are none of how a data set is read, or stand alone."""
    for entry in entries:
        if action == "prepare" or not entry.startswith("data.") or entry.startswith("data.name="):
            raise UsageError(
                f"data {action}: {entry}: must be the name of a data set, or, of `data check`, a recipe entry of how "
                f"it is read, such as data.masks=instances; leave it out"
            )
    if not names:
        raise UsageError(f"data {action}: {' '.join(entries)}: names no data set; give one before it")


def _verdict(row: dict[str, Any]) -> str:
    """What is wrong with a set, in one line; "" where nothing is."""
    faults = row.get("faults", [])
    bad = sum(len(row[part]["bad"]) for part in ("train", "val") if part in row)
    where = f"data {row['name']}" + (f" in {row['folder']}" if row.get("folder") else "")
    if faults and not bad and len(faults) == 1:
        return str(faults[0])
    if faults:
        also = f" and {counted(bad, 'file')} that cannot be read" if bad else ""
        return f"{where}: {counted(len(faults), 'fault')} of the whole{also}, named above; the first: {faults[0]}"
    if bad:
        return (
            f"{where}: {counted(bad, 'file')} cannot be read: repair or remove them, or train with data.skip_bad=true"
        )
    return ""


def _prepared(name: str, options: argparse.Namespace) -> dict[str, Any]:
    from batchscale.data.folders.folder_source import FolderSource
    from batchscale.data.folders.pack import Smaller
    from batchscale.data.folders.prepare_folders import prepare_folders
    from batchscale.data.official.prepare import prepare
    from batchscale.data.source import ReadAsItLies
    from batchscale.data.sources import source_of

    source = source_of(name)
    if options.quality is not None and (options.short_side is None or options.quality > 100):
        raise UsageError(f"--quality={options.quality}: must be in 1..100, and goes with --short-side PIXELS")
    smaller = Smaller(options.short_side, options.quality or Smaller.quality) if options.short_side else None
    if isinstance(source, ReadAsItLies):
        raise UsageError(
            f"data prepare {name}: is read as it lies on disk, or comes with a package: there is nothing to prepare; "
            f"use `batchscale data check {name}`"
        )
    if isinstance(source, FolderSource):
        return prepare_folders(source, options.data, options.out, smaller, options.skip_bad, options.labels)
    if options.out or smaller or options.skip_bad or options.labels:
        raise UsageError(
            f"--out, --short-side, --skip-bad, --labels: are for imagenet and folder, not for {name}; leave them out"
        )
    return prepare(name, options.data)


def _checked(name: str, options: argparse.Namespace, entries: list[str]) -> dict[str, Any]:
    from batchscale.data.folders.folder_source import FolderSource
    from batchscale.data.folders.prepare_folders import check_folders
    from batchscale.data.official.prepare import check
    from batchscale.data.source import ReadAsItLies
    from batchscale.data.sources import source_of

    source = source_of(name)
    try:
        if entries and not isinstance(source, ReadAsItLies):
            raise UsageError(f"data check {name}: {entries[0]}: is not read in several ways; leave it out")
        if isinstance(source, FolderSource):
            return check_folders(source, options.data, options.labels)
        if isinstance(source, ReadAsItLies):
            return source.summary(options.data, _reading(name, entries))
        if options.labels:
            raise UsageError(f"--labels={options.labels}: is for imagenet and folder, not for {name}; leave it out")
        return check(name, options.data)
    except DataError as fault:
        return {"name": name, "faults": [str(fault)]}


def _reading(name: str, entries: list[str]) -> Reading:
    """How a recipe with these entries reads the set; without any, in the usual way."""
    from batchscale.build.inputs import reading_of
    from batchscale.data.source import Reading
    from batchscale.members import TEXTS
    from batchscale.recipe import load_recipe

    if not entries:
        return Reading()
    usual = ["data.sequence=1"] if name in TEXTS else []  # a summary counts tokens, whatever an example has
    return reading_of(load_recipe("own", [f"data.name={name}", *usual, *entries]))


def _print(row: dict[str, Any], errors: list[str]) -> None:
    """What is known of a set; errors: what standard error will say."""
    if "message" in row:
        print(row["message"])
        return
    if "train" in row:
        _print_folders(row)
    for note in row.get("notes", []):
        print(f"{row['name']}: note: {note}")
    for fault in row["faults"]:
        if fault not in errors:
            print(f"{row['name']}: fault: {fault}")
    if "vocabulary_size" in row:
        print(
            f"{row['name']}: {row['train_tokens']} training and {row['test_tokens']} test {row['tokens']}, "
            f"{row['vocabulary_size']} different ones; {row['parts']}"
        )
    if "image_shape" in row:
        print(_images(row))


def _images(row: dict[str, Any]) -> str:
    """The images of a set in memory, or with boxes."""
    numbers = f"{row['name']}: {row['train_images']} training and {row['test_images']} test images of"
    shape = "x".join(map(str, row["image_shape"]))
    if "train_boxes_per_class" in row:
        boxes = row["train_boxes_per_class"]
        return f"{numbers} at most {shape}; training boxes of each class, the background first: {boxes}"
    if "train_percent_with_label" in row:
        return f"{numbers} {shape}; training images with each label: {row['train_percent_with_label']} %"
    if "train_percent_per_class" in row:
        return f"{numbers} {shape} with masks; training pixels of each class: {row['train_percent_per_class']} %"
    counts = row["train_images_per_class"]
    return f"{numbers} {shape}, every checksum right; training images of each class: {counts}"


def _print_folders(row: dict[str, Any]) -> None:
    print(f"{row['name']} in {row['folder']}: {counted(row['classes'], 'class')}")
    for part in ("train", "val"):
        summary = row[part]
        each = summary["images_per_class"]
        kinds = "".join(f", {number} {kind}" for kind, number in summary["kinds"].items())
        classes = f"{min(each, default=0)} to {max(each, default=0)} a class"
        print(
            f"  {part}: {counted(summary['images'], 'image')}, {classes}, sides "
            f"{summary['shortest_side']} to {summary['longest_side']}{kinds}; "
            f"{len(summary['bad'])} bad, {len(summary['damaged'])} damaged but readable"
        )
        for kind, passed in summary["passed_over"].items():
            more = ", ..." if passed["number"] > len(passed["such_as"]) else ""
            print(f"    passed over: {passed['number']} x {kind}: {', '.join(passed['such_as'])}{more}")
        for what in ("bad", "damaged"):
            for file, reason in list(summary[what].items())[:_SHOWN]:
                print(f"    {what}: {file}: {reason}")
            if len(summary[what]) > _SHOWN:
                print(f"    {what}: {len(summary[what]) - _SHOWN} more; --json names all")
