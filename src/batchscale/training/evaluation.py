"""Evaluation: fixed chunks of examples dealt to processes, sums in chunk order, every readable example once.

loss = (1 / M) sum over M examples of l(x);   counts = sum over M examples;   scores: the task's, of these
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from batchscale.comm import World
from batchscale.data.examples import Examples
from batchscale.data.feed import Normalizer
from batchscale.data.feed.delivery import batches_ahead
from batchscale.errors import DataError
from batchscale.structure import num_examples
from batchscale.task import Evaluated, Task
from batchscale.words import counted


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    examples: Examples,
    normalizer: Normalizer,
    world: World,
    chunk_examples: int,
    tell: Callable[[float], None] = lambda share: None,
) -> Evaluated:
    """Loss and counts of a model on a set, the same bits for every W.

    Args:
        model: as a pass calls it (compiled, or in a low precision); put into evaluation mode, and back.
        task: what the model has learned.
        examples: the set, with its targets; M of it can be read.
        normalizer: as in training.
        world: the processes that share the chunks.
        chunk_examples: examples of one pass; the same for every W.
        tell: takes the share that is done, before each of this process's chunks.

    Returns:
        The evaluation, on every process; predictions on rank 0 alone.

    Raises:
        DataError: not one example can be read.
    """
    chunks = -(-len(examples) // chunk_examples)
    # A row a chunk: examples, summed loss, counts. The rows of the others' chunks are zero, so the sum rounds nothing.
    rows = torch.zeros((chunks, 2 + task.evaluation_counts), dtype=torch.float64, device=world.device)
    was_training = model.training
    model.eval()
    numbers = range(world.rank, chunks, world.size)
    slices = [slice(number * chunk_examples, (number + 1) * chunk_examples) for number in numbers]
    predictions: dict[int, Sequence[Any]] = {}
    for number, batch in zip(
        numbers, batches_ahead(examples.readable, slices, normalizer, normalizer.device), strict=True
    ):
        tell((number - world.rank) / chunks)
        if batch is None:
            continue
        chunk = task.evaluate_pass(model, batch.inputs, batch.targets)
        rows[number, 0] = num_examples(batch.targets)
        rows[number, 1] = chunk.loss
        rows[number, 2:] = chunk.counts
        predictions[number] = chunk.predictions
    model.train(was_training)
    world.all_reduce(rows, "all-reduce of the evaluation")
    ordered = _in_order(world, predictions) if task.predicts else ()
    return _summed(rows.tolist(), ordered, len(examples), task.examples)


def _summed(rows: list[list[float]], predictions: Sequence[Any], wanted: int, noun: str) -> Evaluated:
    """The sums over all chunks, one after the other: a fixed order, so the same bits for every W."""
    evaluated, loss, counts = 0, 0.0, [0] * (len(rows[0]) - 2)
    for chunk_examples, chunk_loss, *chunk_counts in rows:
        evaluated += int(chunk_examples)
        loss += chunk_loss
        counts = [total + int(count) for total, count in zip(counts, chunk_counts, strict=True)]
    if not evaluated:
        raise DataError(
            f"evaluation: not one of {counted(wanted, noun.removesuffix('s'))} can be read; see `batchscale data check`"
        )
    chunks = tuple((int(examples), total / examples) for examples, total, *_ in rows if examples)
    return Evaluated(evaluated, loss / evaluated, tuple(counts), predictions, chunks)


def _in_order(world: World, predictions: dict[int, Sequence[Any]]) -> list[Any]:
    """The predictions of all processes, in the order of the examples; on rank 0, which scores them, alone."""
    chunks: dict[int, Sequence[Any]] = {}
    for part in world.gather_at_zero(predictions, "gathering the predictions of the evaluation"):
        chunks |= part
    return [prediction for number in sorted(chunks) for prediction in chunks[number]]
