"""batchscale data: fetch official data sets where the network allows, check what is on disk."""

from __future__ import annotations

import argparse
from typing import Any

from batchscale.cli.options import add_common, add_data, print_json


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare or check data sets", description=__doc__)
    parser.add_argument("action", choices=("prepare", "check"))
    parser.add_argument("names", nargs="+", metavar="NAME", help="digits, mnist, fashion_mnist, cifar10")
    add_data(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch or check each of the named sets."""
    from batchscale.data.prepare import check, prepare

    act = prepare if options.action == "prepare" else check
    rows = [act(name, options.data) for name in options.names]
    if options.json:
        print_json({"data": rows})
        return 0
    for row in rows:
        if "message" in row:
            print(row["message"])
            continue
        shape = "x".join(map(str, row["image_shape"]))
        print(
            f"{row['name']}: {row['train_images']} training and {row['test_images']} test images of {shape}, "
            f"every checksum right; training images of each class: {row['train_images_per_class']}"
        )
    return 0
