"""Loss and score at every point, points shared among processes: a point is one process's alone, so W changes no bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from batchscale.build.state import State
from batchscale.comm import World
from batchscale.errors import UsageError
from batchscale.measure.averages import RecomputedAverages
from batchscale.measure.function import as_function
from batchscale.measure.landscape.kept import KeptPoints, Points, Values
from batchscale.measure.landscape.places import Around, Between
from batchscale.measure.landscape.question import Question
from batchscale.measure.objective import Objective
from batchscale.measure.refusals import raise_on_all
from batchscale.measure.stated import stated_set, watched

Places = Around | Between
Coordinates = Sequence[tuple[float, ...]]


class Judge:
    """Loss and score of a net at other weights, over the stated set and over other parts.

    Args:
        parts: the loss over the stated set, and over others, each of a world of one.
        places: where the weights and averages come from.
        averages: recomputes batch norm's; both parts are judged by those of the stated set, for a test part has none of
            its own. None: running averages.
    """

    def __init__(self, parts: Sequence[Objective], places: Places, averages: RecomputedAverages | None) -> None:
        self._model, self._parts, self._places = parts[0].model, parts, places
        self._recomputed: Callable[[], contextlib.AbstractContextManager[None]] = (
            averages.in_place if averages else contextlib.nullcontext
        )

    @classmethod
    def of(cls, state: State, question: Question, places: Places) -> Judge:
        """Of a state's net, over part of its training and test examples.

        Args:
            state: opened.
            question: with the numbers of examples filled in.
            places: where the weights and averages come from.
        """
        own, recipe = World(device=state.device), state.recipe
        chunk = question.chunk or recipe.numerics.evaluation_chunk
        parts = [Objective.of(state, question.examples or 0, chunk, own)]
        if question.test_examples:
            test = stated_set(state.dataset.test, question.test_examples)
            exact = recipe.numerics.exact
            parts.append(
                Objective(state.model, state.task, test, state.normalizer, chunk=chunk, world=own, exact=exact)
            )
        averages = None
        if question.batch_norm == "recomputed":
            averages = RecomputedAverages(
                state.model, parts[0].weights, parts[0].examples, state.normalizer, own, recipe.minibatch.per_worker
            )
        return cls(parts, places, averages)

    def at(self, point: Sequence[float]) -> Values:
        """Of one point."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(as_function(self._model, 1))
            stack.enter_context(self._parts[0].at(self._places.weights(point)))
            stack.enter_context(self._buffers(self._places.averages(point)))
            stack.enter_context(self._recomputed())
            numbers = [number for part in self._parts for number in part.evaluated()]
        return tuple(number if math.isfinite(number) else None for number in numbers)

    @contextlib.contextmanager
    def _buffers(self, contents: Mapping[str, torch.Tensor]) -> Iterator[None]:
        held = {name: buffer for name, buffer in self._model.named_buffers() if name in contents}
        earlier = {name: buffer.clone() for name, buffer in held.items()}
        try:
            for name, buffer in held.items():
                buffer.copy_(contents[name])
            yield
        finally:
            for name, buffer in held.items():
                buffer.copy_(earlier[name])


def measured_points(
    judges: Sequence[Callable[[], Judge]], points: Coordinates, kept: KeptPoints, world: World, values: int
) -> Points:
    """Of every run at every point, on every process.

    Args:
        judges: one a run, made when its points come.
        points: the same for every run.
        kept: what is on disk of them, and where what is measured goes.
        world: the processes that share them.
        values: how many each point has.

    Raises:
        UsageError: what any process cannot measure.
    """
    known = world.from_rank_zero(kept.read, "reading the points on disk")
    left = [(run, point) for run in range(len(judges)) for point in range(len(points)) if (run, point) not in known]
    own = left[world.rank :: world.size]
    computed: Points = {}
    judge, judged, refused = None, -1, None
    try:
        for run, point in watched(own, "landscape") if world.rank == 0 else own:
            if judge is None or run != judged:
                judge, judged = judges[run](), run
            computed[run, point] = judge.at(points[point])
            kept.add(world.rank, run, point, computed[run, point])
    except UsageError as error:
        refused = error
    raise_on_all(refused, world)
    return known | _together(left, computed, world, values)


def _together(left: Sequence[tuple[int, int]], computed: Points, world: World, values: int) -> Points:
    """The points of all processes; each is a row of one and zeros of the others, so the sum rounds nothing."""
    rows = torch.zeros((len(left), values, 2), dtype=torch.float64, device=world.device)
    for row, place in zip(rows, left, strict=True):
        for number, value in enumerate(computed.get(place, ())):
            row[number, 0], row[number, 1] = value or 0.0, float(value is not None)
    world.all_reduce(rows, "all-reduce of a landscape")
    return {
        place: tuple(value if finite else None for value, finite in row)
        for place, row in zip(left, rows.tolist(), strict=True)
    }
