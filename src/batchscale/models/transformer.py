"""A Transformer that tells the next token: pre-norm, causal, learned places, the embedding tied to the logits.

    h <- h + attention(norm(h));   h <- h + W2 gelu(W1 norm(h)),   W1 four times as wide
    logits = E norm(h),   E the embedding of the tokens: one parameter, used twice

Dropout: of the embedded tokens, of the attention's weights and of both branches. First weights N(0, 0.02^2), those that
end a branch divided by sqrt(2 layers), biases 0.

Source: Vaswani et al. 2017 (tied weights: section 3.4); Radford et al. 2019, section 2.3 (pre-norm, first weights).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from batchscale.errors import RecipeError
from batchscale.models.taking import check_dropout, check_least, takes_tokens

_STD = 0.02


class CausalAttention(nn.Module):
    """Every place looks at itself and at those before it.

    softmax(q k^T / sqrt(d)) v,   d = width / heads
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixture = nn.Linear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(m, T, width) -> the same shape."""
        q, k, v = self.queries_keys_values(features).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self._dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        mixed = self.mixture(mixed.transpose(1, 2).flatten(2))
        return F.dropout(mixed, self._dropout, self.training)


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each around a residual connection, each after a norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(m, T, width) -> the same shape."""
        features = features + self.attention(self.norm1(features))
        branch: torch.Tensor = self.dropout(self.narrow(F.gelu(self.wide(self.norm2(features)))))
        return features + branch


class Transformer(nn.Module):
    """tokens int64 (m, T) -> logits (m, T, vocabulary).

    Args:
        sequence: T, the most places.
        vocabulary: tokens.
        width: of a place.
        layers: blocks.
        heads: of the attention.
        dropout: the probability.
    """

    def __init__(self, sequence: int, vocabulary: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(vocabulary, width), nn.Embedding(sequence, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("mixture.weight", "narrow.weight")):  # they end a branch
                parameter.data.div_(math.sqrt(2 * layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at every place."""
        features = self.dropout(self.embedding(tokens) + self.places.weight[: tokens.shape[1]])
        for block in self.blocks:
            features = block(features)
        return F.linear(self.norm(features), self.embedding.weight)


@takes_tokens
def transformer(
    sequence_shape: tuple[int, ...],
    num_classes: int,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:
    """A Transformer; by default one for two cores.

    Args:
        sequence_shape: (T,).
        num_classes: the vocabulary.
        width: of a place, a multiple of heads.
        layers: blocks.
        heads: of the attention.
        dropout: the probability, in training.

    Raises:
        RecipeError: an option out of its range.
    """
    check_least(width=width, layers=layers, heads=heads)
    check_dropout(dropout)
    if width % heads:
        raise RecipeError(
            f"model.options.heads={heads}: must divide width={width}; use {math.gcd(heads, width)}, or another width"
        )
    return Transformer(sequence_shape[0], num_classes, width, layers, heads, dropout)
