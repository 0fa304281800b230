"""An LSTM that tells the next token: embedding, layers with dropout before each and after the last, a linear layer.

    i, f, o = s(W x + U h + b);   g = tanh(W x + U h + b);   c <- f c + i g;   h <- o tanh(c)

The state is 0 at the start of every sequence: sequences are examples, and no example hangs on another.

Source: Hochreiter, Schmidhuber 1997; Zaremba et al. 2014 (where dropout stands); Shallue et al. 2018, appendix B.
"""

from __future__ import annotations

import torch
from torch import nn

from batchscale.models.taking import check_dropout, check_least, takes_tokens


class LSTMLanguage(nn.Module):
    """tokens int64 (m, T) -> logits (m, T, vocabulary).

    Args:
        vocabulary: tokens.
        width: of the embedding and of every layer.
        layers: how many.
        dropout: the probability.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        # A layer a module: cuDNN's own dropout between layers draws from a state that no seed of a worker sets anew.
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at every place."""
        features = self.embedding(tokens)
        for layer in self.layers:
            features, _ = layer(self.dropout(features))
        logits: torch.Tensor = self.last(self.dropout(features))
        return logits


@takes_tokens
def lstm(
    sequence_shape: tuple[int, ...], num_classes: int, *, width: int = 64, layers: int = 2, dropout: float = 0.0
) -> nn.Module:
    """An LSTM; by default one for two cores.

    Args:
        sequence_shape: (T,).
        num_classes: the vocabulary.
        width: of the embedding and of every layer.
        layers: how many.
        dropout: the probability, in training.

    Raises:
        RecipeError: an option out of its range.
    """
    check_least(width=width, layers=layers)
    check_dropout(dropout)
    return LSTMLanguage(num_classes, width, layers, dropout)
