"""The document of ``bench data`` as an aligned table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscale.bench.table import ratios_text, rows_text
from batchscale.words import counted

_RATIOS = {
    "to_best_peer": "batchscale / {best}, the best peer",
    "to_pil": "batchscale / dataloader_pil",
    "to_torchvision": "batchscale / dataloader_torchvision",
    "packed_to_files": "batchscale_packed / batchscale",
    "processes_to_threads": "batchscale_processes / batchscale",
}
_MACHINE = ("cpu", "cores", "load_average", "date", "rounds", "minibatches_per_turn")


def as_table(document: Mapping[str, Any]) -> str:
    """What the data are, rows, ratios with their spread, conditions and notes, as lines of text."""
    data, minibatch, conditions = document["data"], document["minibatch"], document["conditions"]
    shape = " x ".join(map(str, data["image_shape"]))
    turns = ", ".join(f"{name} {count}" for name, count in conditions["minibatches_per_turn"].items())
    unsteady = "not measurable now: the iqr is over a tenth of the ratio; a quieter machine, or more --seconds, helps"
    lines = [
        f"{document['recipe']}: minibatches of {minibatch['workers']} x {minibatch['per_worker']} = "
        f"{minibatch['images']} normalised float32 images {shape}, "
        f"{counted(document['threads'], 'decoding thread')} or {counted(document['threads'], 'loader worker')}",
        f"data: {data['name']}, {data['what']}: {data['images']:,} images of {data['mean_bytes']:,} bytes on average; "
        f"{_augmentation(data['augment'])}",
        "",
        rows_text(document),
        "",
        ratios_text(document, {key: text.format(best=document["best_peer"]) for key, text in _RATIOS.items()}),
        *([unsteady] if document["not_measurable_now"] else []),
        "",
        f"{conditions['date']}, {conditions['cpu']}, {counted(conditions['cores'], 'core')}, "
        f"load {conditions['load_average']:g}, "
        + ", ".join(f"{package} {version}" for package, version in conditions.items() if package not in _MACHINE),
        f"{counted(conditions['rounds'], 'round')}; minibatches in a turn: {turns}",
        *(f"note: {note}" for note in document["notes"]),
    ]
    return "\n".join(lines)


def _augmentation(augment: Mapping[str, Any]) -> str:
    crop = {"none": "", "padded": f"padded by {augment['padding']} and cropped", "scale-aspect": "scale-aspect crop"}
    words = [part for part in (crop[augment["crop"]], "mirrored" if augment["flip"] else "") if part]
    return ", ".join(words) or "not augmented"
