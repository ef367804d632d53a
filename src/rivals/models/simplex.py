"""SimpleX: users from an embedding mixed with their pooled history, items from an embedding, cosine between them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import masked_log_softmax

Pooling = Literal["mean", "user_attention", "self_attention"]


class HistoryMixer(nn.Module):
    """A user's vector mixed with the pooled vectors of the items in their history.

    user = g e + (1 - g) W_v p with p the mean of the history, or a softmax-weighted sum of it: weights from
    e . tanh(W_k h_t + b) ("user_attention") or q . tanh(W_k h_t + b) ("self_attention"). An empty history leaves g e.

    Args:
        dimension: of the vectors. pooling: how the history is pooled. gamma: g, the share of the user's own vector.
        legacy_padding: give every padded place the weight of a logit of 0, as the released code does.

    Source: Mao et al. (2021), SimpleX, eq. 3 to 7 (paper 23).

    Raises:
        RivalsError: gamma outside 0..1, an unknown pooling.

    >>> mixer = HistoryMixer(2, gamma=0.5)
    >>> with torch.no_grad(): _ = mixer.value.weight.copy_(torch.eye(2))
    >>> mixer(torch.ones(1, 2), torch.tensor([[[3.0, 1.0], [9.0, 9.0]]]), torch.tensor([[True, False]])).tolist()
    [[2.0, 1.0]]
    """

    def __init__(
        self, dimension: int, *, pooling: Pooling = "mean", gamma: float = 0.5, legacy_padding: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= gamma <= 1:
            raise RivalsError(f"gamma, the share of the user's own vector, must lie in 0..1; got {gamma!r}")
        if pooling not in ("mean", "user_attention", "self_attention"):
            raise RivalsError(f"pooling must be 'mean', 'user_attention' or 'self_attention'; got {pooling!r}")
        self.pooling, self.gamma, self.legacy_padding = pooling, gamma, legacy_padding
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.key = None if pooling == "mean" else nn.Linear(dimension, dimension)
        self.query: nn.Parameter | None = None
        if pooling == "self_attention":
            self.query = nn.Parameter(torch.empty(dimension, 1))
            nn.init.xavier_normal_(self.query)

    def forward(self, users: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Mix users [B, D] with history [B, T, D], mask bool[B, T] False where it has ended: [B, D]."""
        history = history.masked_fill(~mask.unsqueeze(-1), 0.0)
        if self.key is None:
            pooled = history.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            keys = torch.tanh(self.key(history))
            asked = users.unsqueeze(-1) if self.query is None else self.query
            logits = (keys @ asked).squeeze(-1)
            if self.legacy_padding:
                weights = torch.softmax(logits.masked_fill(~mask, 0.0), -1)
            else:
                weights = masked_log_softmax(logits, mask).exp().masked_fill(~mask, 0.0)
            pooled = (weights.unsqueeze(-1) * history).sum(1)
        return self.gamma * users + (1 - self.gamma) * self.value(pooled)


class SimpleX(nn.Module):
    """A recommender that is little more than matrix factorisation; train it with `cosine_contrastive_loss`.

    Args:
        users, items: how many there are. dimension: of the vectors. pooling: of the history; None leaves it out.
        gamma: share of the user's own vector. dropout: of the user's vector after normalisation, in training.

    Source: Mao et al. (2021), SimpleX (paper 23).

    >>> model = SimpleX(3, 5, dimension=4, pooling=None)
    >>> model.score(torch.tensor([0, 2]), torch.tensor([[0, 1], [3, 4]])).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        users: int,
        items: int,
        *,
        dimension: int = 64,
        pooling: Pooling | None = "mean",
        gamma: float = 0.5,
        dropout: float = 0.1,
        legacy_padding: bool = False,
    ) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, dimension), nn.Embedding(items, dimension)
        nn.init.normal_(self.users.weight, std=1e-2)
        nn.init.normal_(self.items.weight, std=1e-2)
        self.mixer: HistoryMixer | None = None
        if pooling is not None:
            self.mixer = HistoryMixer(dimension, pooling=pooling, gamma=gamma, legacy_padding=legacy_padding)
        self.dropout = nn.Dropout(dropout)

    def user(self, users: Tensor, history: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return unit vectors [B, D] of users int[B] with their history of items int[B, T], mask bool[B, T]."""
        vectors = self.users(users)
        if self.mixer is not None and history is not None:
            there = torch.ones_like(history, dtype=torch.bool) if mask is None else mask
            if there.shape != history.shape:
                raise RivalsError(f"mask must have shape {tuple(history.shape)}; got {tuple(there.shape)}")
            vectors = self.mixer(vectors, self.items(history.masked_fill(~there, 0)), there)
        return self.dropout(F.normalize(vectors, dim=-1))

    def item(self, items: Tensor) -> Tensor:
        """Return unit vectors [..., D] of items int[...]."""
        return F.normalize(self.items(items), dim=-1)

    def score(self, users: Tensor, items: Tensor, history: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return cosines [B, C] of users int[B] and items int[B, C]."""
        return (self.item(items) @ self.user(users, history, mask).unsqueeze(-1)).squeeze(-1)
