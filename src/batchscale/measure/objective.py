"""The mean loss of a net over a stated set of examples, as a function of its weights; its derivatives.

    f(w) = (1 / M) sum over M examples of l(x, w),   l the training loss of the task

A function of the weights alone: the net is in evaluation mode, nothing is dropped, batch norm normalises by averages.
Each pass computes in the weights' own precision; what is summed over chunks is summed in float64 (``chunks.py``), so
the same bits come out for every W, and the same numbers to rounding for every size of the chunks.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

from batchscale.build.deterministic import switches_kept, use_deterministic_algorithms
from batchscale.build.state import State
from batchscale.comm import World
from batchscale.data.examples import Examples
from batchscale.data.feed import Normalizer
from batchscale.errors import UsageError
from batchscale.measure.averages import RecomputedAverages
from batchscale.measure.chunks import ChunkSums
from batchscale.measure.derivatives import flat, gauss_newton_products, gradient, hessian_products, shaped
from batchscale.measure.forward import forward_products, forward_serves, has_convolutions
from batchscale.measure.function import as_function, check_drew_nothing, check_function, is_once_only, once_only
from batchscale.measure.parts import trained_weights
from batchscale.measure.stated import stated_set
from batchscale.structure import mapped, part
from batchscale.task import Evaluated, Task
from batchscale.words import counted

BatchNorm = Literal["averages", "recomputed"]
Precision = Literal["run", "fp64"]
_MOST_IN_CHUNK = 256


class Objective:
    """f of a net, a task and examples.

    Args:
        model: any module; in ``precision="fp64"`` a copy of it is measured.
        task: whose training loss it is.
        examples: the stated set, M of them.
        normalizer: makes inputs of the examples.
        chunk: examples of one pass.
        device: of the model; None for the normalizer's.
        world: the processes that share the chunks; all call alike.
        batch_norm: by the running averages as they are; or by averages recomputed over the examples at the weights of
            each call, which derivatives hold as they are.
        parameters: names of modules or weights: a part of the net; None for all that is trained.
        per_worker: n of the passes that recompute averages.
        precision: that of the weights; or "fp64", double.
        threads: of torch; another number may give other bits.
        exact: deterministic algorithms alone, on a GPU.

    Attributes:
        model, task, examples, world: as measured.
        weights: those that are varied, a shared one once, frozen ones not.
        size: P, their numbers.

    Raises:
        RecipeError: the loss is no function of the weights alone.
        UsageError: a part that the net does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        examples: Examples,
        normalizer: Normalizer,
        *,
        chunk: int,
        device: torch.device | None = None,
        world: World | None = None,
        batch_norm: BatchNorm = "averages",
        parameters: Sequence[str] | None = None,
        per_worker: int | None = None,
        precision: Precision = "run",
        threads: int = 1,
        exact: bool = False,
    ) -> None:
        check_function(model, task)
        self.model = copy.deepcopy(model).double() if precision == "fp64" else model
        self.task, self.examples, self.batch_norm = task, examples, batch_norm
        self.device = device or normalizer.device
        self.world = world or World(device=self.device)
        self._normalizer, self._dtype = normalizer, torch.float64 if precision == "fp64" else None
        self.weights = trained_weights(self.model, parameters)
        self.size = sum(weight.numel() for weight in self.weights)
        self._sums, self._threads, self._exact = ChunkSums(len(examples), chunk, self.world), threads, exact
        self._averages: RecomputedAverages | None = None
        self._checked = False
        self._forward: bool | None = None
        if batch_norm == "recomputed":
            self._averages = RecomputedAverages(
                self.model, self.weights, examples, self._inputs, self.world, per_worker or self._sums.chunk
            )

    @classmethod
    def of(
        cls, state: State, examples_count: int, chunk: int | None = None, world: World | None = None, **settings: Any
    ) -> Objective:
        """f of a run's state, over the first examples of the stated order.

        Args:
            state: opened.
            examples_count: M, of the training examples.
            chunk: examples of one pass; None: n of the run, at most 256.
            world: the processes that share the chunks.
            settings: as of the class.

        Raises:
            UsageError: more examples than there are.
        """
        population, per_worker = len(state.dataset.train), state.recipe.minibatch.per_worker
        if examples_count > population:
            raise UsageError(
                f"--examples={examples_count}: must not exceed the {counted(population, 'training example')}; lower it"
            )
        defaults = {"device": state.device, "per_worker": per_worker, "exact": state.recipe.numerics.exact}
        return cls(
            state.model,
            state.task,
            stated_set(state.dataset.train, examples_count),
            state.normalizer,
            chunk=chunk or min(per_worker, _MOST_IN_CHUNK),
            world=world,
            **{**defaults, **settings},
        )

    @property
    def chunk(self) -> int:
        """Examples of one pass; fewer than asked for where memory did not suffice."""
        return self._sums.chunk

    def vector(self) -> torch.Tensor:
        """The weights, float64 (P,)."""
        return flat(self.weights, self.weights)

    @torch.no_grad()
    def assign(self, vector: torch.Tensor) -> None:
        """weights <- vector (P,), rounded to the weights' own type."""
        for weight, piece in zip(self.weights, shaped(vector, self.weights), strict=True):
            weight.copy_(piece)

    @contextlib.contextmanager
    def at(self, vector: torch.Tensor) -> Iterator[None]:
        """Within it, the weights are these (P,); the ones before come back bit by bit."""
        earlier = [weight.detach().clone() for weight in self.weights]
        try:
            self.assign(vector)
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, earlier, strict=True):
                    weight.copy_(value)

    def loss(self) -> float:
        """f at the weights of now."""
        with self._ready(), torch.no_grad():
            total = self._sums.total(lambda chunk: self._loss(self._batch(chunk)).double().view(1), 1)
        return float(total[0]) / len(self.examples)

    def evaluated(self) -> tuple[float, float]:
        """f, and the task's score of the same examples, from one forward pass over them; on every process."""
        passes: dict[tuple[int, int], Sequence[Any]] = {}

        def of_chunk(chunk: slice) -> torch.Tensor:
            inputs, targets = self._batch(chunk)
            outputs = self.task.outputs(self.model, inputs, targets)
            loss = self._loss((inputs, targets), lambda *_: outputs)
            judged = self.task.evaluate_pass(lambda *_: outputs, inputs, targets)
            passes[chunk.start, chunk.stop] = judged.predictions
            counts = judged.counts.double().view(-1)
            return torch.cat([torch.stack([loss.double(), judged.loss.double()]), counts.to(loss.device)])

        with self._ready(), torch.no_grad():
            loss, judged, *counts = self._sums.total(of_chunk, 2 + self.task.evaluation_counts).tolist()
        count = len(self.examples)
        evaluated = Evaluated(count, judged / count, tuple(map(int, counts)), self._in_order(passes))
        scores = self.world.from_rank_zero(lambda: self.task.checked_scores(evaluated), "the score of a measure")
        return loss / count, scores[self.task.score.name]

    def _in_order(self, passes: dict[tuple[int, int], Sequence[Any]]) -> list[Any]:
        """The predictions of all processes in the order of the examples; on rank 0, which scores them, alone."""
        if not self.task.predicts:
            return []
        everywhere: dict[tuple[int, int], Sequence[Any]] = {}
        for own in self.world.gather_at_zero(passes, "gathering the predictions of a measure"):
            everywhere |= own
        chunks = [(chunk.start, chunk.stop) for chunks in self._sums.parts() for chunk in chunks]
        return [row for chunk in chunks if chunk in everywhere for row in everywhere[chunk]]

    def gradient(self) -> tuple[float, torch.Tensor]:
        """(f, its gradient float64 (P,)) at the weights of now."""

        def of_chunk(chunk: slice) -> torch.Tensor:
            loss = self._loss(self._batch(chunk))
            return torch.cat([loss.detach().double().view(1), gradient(loss, self.weights)])

        with self._ready():
            total = self._sums.total(of_chunk, 1 + self.size) / len(self.examples)
        return float(total[0]), total[1:]

    def hessian_product(self, vector: torch.Tensor) -> torch.Tensor:
        """H v, float64 (P,), of a vector (P,)."""
        return self.hessian_products(vector[None])[0]

    def hessian_products(self, vectors: torch.Tensor) -> torch.Tensor:
        """H v of every row v of vectors (r, P), float64 (r, P): cheaper together than one by one.

        Raises:
            UsageError: a layer without a second derivative, named.
        """
        if self._forward is None:
            self._forward = has_convolutions(self.model) and self._forward_serves(vectors[0])
        if self._forward:
            return self._products(
                vectors, lambda batch: forward_products(self.task, self.model, batch, self.weights, vectors)
            )
        return self._products(vectors, lambda batch: hessian_products(self._loss(batch), self.weights, vectors))

    def _forward_serves(self, vector: torch.Tensor) -> bool:
        """Whether forward mode gives the products of the two first examples: the same on every process."""
        with self._ready():
            batch = self._batch(slice(min(2, len(self.examples))))
            return forward_serves(self._loss(batch), self.task, self.model, batch, self.weights, vector)

    def gauss_newton_product(self, vector: torch.Tensor) -> torch.Tensor:
        """G v, float64 (P,), of a vector (P,): the Hessian without the outputs' own second derivatives."""
        return self.gauss_newton_products(vector[None])[0]

    def gauss_newton_products(self, vectors: torch.Tensor) -> torch.Tensor:
        """G v of every row v of vectors (r, P), float64 (r, P)."""
        return self._products(
            vectors, lambda batch: gauss_newton_products(self.task, self.model, batch, self.weights, vectors)
        )

    def _products(self, vectors: torch.Tensor, of_batch: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        def of_chunk(chunk: slice) -> torch.Tensor:
            batch = self._batch(chunk)
            try:
                return of_batch(batch).view(-1)
            except RuntimeError as error:
                if not is_once_only(error):
                    raise
                raise once_only(error, self.model, part(batch[0], slice(2))) from None

        with self._ready():
            total = self._sums.total(of_chunk, vectors.numel())
        return total.view(vectors.shape) / len(self.examples)

    def _loss(self, batch: tuple[Any, Any], model: Any = None) -> torch.Tensor:
        """Summed over a chunk."""
        earlier = torch.get_rng_state()
        loss, _ = self.task.train_pass(model or self.model, *batch)
        if model is None and not self._checked:
            check_drew_nothing(earlier)
            self._checked = True
        return loss

    def _batch(self, chunk: slice) -> tuple[Any, Any]:
        inputs, targets = self.examples.part(chunk)
        return self._inputs(inputs), mapped(lambda tensor: tensor.to(self.device), targets)

    def _inputs(self, inputs: Any) -> Any:
        normalized = self._normalizer(inputs)
        if self._dtype is None:
            return normalized
        return mapped(lambda tensor: tensor.to(self._dtype) if tensor.is_floating_point() else tensor, normalized)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        """Within it, a pass of the model is a pass of f."""
        with contextlib.ExitStack() as stack:
            if self._exact:
                stack.enter_context(switches_kept())
                use_deterministic_algorithms(self.device)
            stack.enter_context(as_function(self.model, self._threads))
            if self._averages is not None:
                stack.enter_context(self._averages.in_place())
            yield
