"""Initial weights of a local file, as training scripts save them: a state dict, alone or among others.

Names are compared without the prefixes that wrappers put before them: ``module.`` (DistributedDataParallel, averaged
models) and ``_orig_mod.`` (torch.compile), in any order and number.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from batchscale.errors import RecipeError

Weights = Mapping[str, torch.Tensor]

_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
"""Of the whole model, and of parts compiled by themselves; a part may be called module."""

_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Of batch norm, not in files from before torch 0.4.1; of torch's averaged models, not in plain ones."""

_DEEPEST = 3  # mappings in mappings that are looked through
_SHOWN = 3


def load_pretrained(model: nn.Module, file: str, key: str | None = None) -> None:
    """Put the weights of a local file into the model.

    Args:
        model: changed in place.
        file: safetensors, or what torch.save wrote: a state dict, alone or in mappings such as "state_dict", "model".
        key: of the state dict that is wanted, where several fit; its mappings' keys joined by dots.

    Raises:
        RecipeError: the file cannot be read, holds another model's weights, or several of this one's.
    """
    names = {_bare(name): name for name in model.state_dict()}
    if len(names) < len(model.state_dict()):
        names = {name: name for name in model.state_dict()}
    shapes = {bare: model.state_dict()[name].shape for bare, name in names.items()}
    inside = dict(_state_dicts(_read(file)))
    if not inside:
        raise RecipeError(f"model.pretrained={file}: holds no state dict; save model.state_dict(), or use safetensors")
    if key is not None and key not in inside:
        raise RecipeError(
            f"model.pretrained_key={key}: {file} holds no state dict of that name, but {_some([*inside])}; give one of "
            f"these"
        )
    candidates = {name: _matched(weights, shapes) for name, weights in inside.items() if key is None or name == key}
    fitting = {name: weights for name, weights in candidates.items() if not _misfits(weights, shapes)}
    if not fitting:
        nearest = max(candidates, key=lambda name: len(candidates[name].keys() & shapes.keys()))
        raise RecipeError(
            f"model.pretrained={file}{f' ({nearest})' if nearest else ''}: {_misfits(candidates[nearest], shapes)}; "
            f"give weights of this model, classes and image channels"
        )
    (first, weights), *others = fitting.items()
    differing = [name for name, other in others if not _equal(weights, other)]
    if differing:
        raise RecipeError(
            f"model.pretrained={file}: holds several weights that fit: {_some([first, *differing])}; say which with "
            f"model.pretrained_key={differing[0]}, for example"
        )
    model.load_state_dict({**model.state_dict(), **{names[name]: t for name, t in weights.items() if name in names}})


def _bare(name: str) -> str:
    return _PREFIXES.sub("", name)


def _state_dicts(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """Every mapping of names to tensors alone, with the keys that lead to it."""
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, content
    elif depth < _DEEPEST:
        for name, value in content.items():
            yield from _state_dicts(value, f"{key}.{name}" if key else name, depth + 1)


def _matched(weights: Weights, shapes: Mapping[str, torch.Size]) -> Weights:
    """The weights by the model's names, without prefixes; as they are named where two would share a name."""
    if weights.keys() == shapes.keys():
        return weights
    bare = {_bare(name): tensor for name, tensor in weights.items()}
    return bare if len(bare) == len(weights) else weights


def _misfits(weights: Weights, shapes: Mapping[str, torch.Size]) -> str:
    """What of the weights does not fit the model, in words; "" where all does."""
    missing = [name for name in shapes if name not in weights and not name.endswith(_COUNTERS)]
    beyond = [name for name in weights if name not in shapes and not name.endswith(_COUNTERS)]
    odd = [
        f"{name} is {tuple(weights[name].shape)} there, {tuple(shape)} in the model"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    total = f" of {len(shapes)}" if missing else ""
    faults = [f"{len(missing)}{total} tensors missing there: {_some(missing)}"] if missing else []
    faults += [f"{len(beyond)} there without a place in the model: {_some(beyond)}"] if beyond else []
    faults += [f"{len(odd)} of another shape: {_some(odd)}"] if odd else []
    return "; ".join(faults)


def _some(names: list[str]) -> str:
    return ", ".join(name or "the file itself" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _equal(a: Weights, b: Weights) -> bool:
    """Whether two that fit are the same, bit for bit where they share names."""
    return all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a.keys() & b.keys())


def _read(file: str) -> Any:
    path = Path(file)
    if path.is_dir():
        raise RecipeError(f"model.pretrained={file}: is a folder; give the file of weights in it")
    if not path.is_file():
        raise RecipeError(f"model.pretrained={file}: no such file; give a local file (nothing is downloaded)")
    way_out = "give safetensors, or a state dict by torch.save"
    try:
        if _is_safetensors(path):
            return load_safetensors(path.read_bytes())  # its own reader of files wants names in UTF-8
        with open(path, "rb") as stream:  # by its path, torch would go by the extension
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # readers refuse damage, and the unpickler code, with many kinds of errors
        reason = "damaged, or not tensors alone"
        if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:  # EINVAL: cut short
            reason = error.strerror
        elif not path.stat().st_size:
            reason = "empty"
        raise RecipeError(f"model.pretrained={file}: cannot be read as weights ({reason}); {way_out}") from None


def _is_safetensors(path: Path) -> bool:
    """By the content: eight bytes with the length of a JSON object, little-endian, then that object (its README)."""
    with open(path, "rb") as stream:
        length, brace = int.from_bytes(stream.read(8), "little"), stream.read(1)
    return brace == b"{" and length <= path.stat().st_size - 8
