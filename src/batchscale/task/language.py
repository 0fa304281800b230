"""Language: the next token at every place of a sequence, the loss a mean over its tokens, judged by cross-entropy.

l(x) = (1 / T) sum over places t of -log softmax(z_t)_(y_t)

    cross-entropy  = mean of l over all sequences, which have T tokens each: nats a token
    perplexity     = exp(cross-entropy);   bits a token = cross-entropy / log 2
    token accuracy = 100 / (M T) sum over tokens [argmax z_t = y_t],   whole numbers

Every sequence weighs the same, so kn sequences are kn T tokens.

Source: Shallue et al. 2018, section 2 and table 1 (cross-entropy a token as the goal).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from batchscale.errors import RecipeError
from batchscale.task.base import Evaluated, EvaluatedPass, Model, ScoreKind, Task, described
from batchscale.words import counted


class Language(Task):
    """Logits (m, T, vocabulary) against the next tokens int64 (m, T).

    Args:
        num_classes: the vocabulary.
        label_smoothing: of the cross-entropy, in training alone.
    """

    name = "language"
    examples = "sequences"
    parts = "tokens"
    score_kinds = (
        ScoreKind("cross-entropy"),
        ScoreKind("perplexity"),
        ScoreKind("bits-per-token"),
        ScoreKind("token-accuracy", "%", "higher"),
    )
    count_names = ("right_tokens", "tokens")
    evaluation_counts = 2

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        self._vocabulary, self._smoothing = num_classes, label_smoothing

    def train_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every sequence's mean over its tokens, summed over sequences."""
        logits = model(inputs)
        return self.losses(logits, targets).sum(), logits

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with smoothing, of each."""
        return _means(outputs, targets, self._smoothing)

    def evaluate_pass(self, model: Model, inputs: Any, targets: torch.Tensor) -> EvaluatedPass:
        """Cross-entropy without smoothing, and how many tokens are told right."""
        logits = model(inputs)
        right = (logits.argmax(2) == targets).sum()
        counts = torch.stack([right, right.new_tensor(targets.numel())])
        return EvaluatedPass(_means(logits, targets, 0.0).sum(), counts)

    def scores(self, evaluated: Evaluated) -> dict[str, float]:
        """All four."""
        nats, (right, tokens) = evaluated.loss, evaluated.counts
        return {
            "cross-entropy": nats,
            "perplexity": torch.tensor(nats, dtype=torch.float64).exp().item(),  # infinite where math.exp would raise
            "bits-per-token": nats / math.log(2),
            "token-accuracy": 100 * right / tokens,
        }

    def sentence(self, scores: Mapping[str, float], evaluated: Evaluated) -> str:
        """Cross-entropy, perplexity and accuracy, and what they are of."""
        return (
            f"cross-entropy {evaluated.loss:.4f} nats a token (perplexity {scores['perplexity']:.4g}, tokens right "
            f"{scores['token-accuracy']:.2f} %) over {counted(evaluated.examples, 'sequence')} of "
            f"{evaluated.counts[1] // evaluated.examples} tokens"
        )

    def check(self, outputs: Any, examples: int) -> None:
        """Logits for every place."""
        wanted = f"({examples}, T, {self._vocabulary})"
        is_tensor = isinstance(outputs, torch.Tensor) and outputs.ndim == 3
        if is_tensor and (outputs.shape[0], outputs.shape[2]) == (examples, self._vocabulary):
            return
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise RecipeError(f"model: gives {shape} for {counted(examples, 'sequence')}: must give logits {wanted}")

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """The next token at every place."""
        fits = isinstance(targets, torch.Tensor) and targets.dtype == torch.int64
        if not fits or targets.shape != outputs.shape[:2]:
            raise RecipeError(
                f"task=language: the data's targets are {described(targets)}: must be tokens int64 "
                f"{tuple(outputs.shape[:2])}, one for every place of the logits; use a text, or the task that these "
                f"are of"
            )


def _means(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Of every sequence the mean over its tokens, (m,)."""
    tokens = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing)
    return tokens.view(targets.shape).mean(1)
