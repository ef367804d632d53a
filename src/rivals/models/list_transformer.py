"""Passages of one query look at each other as vectors, and a long list is scored in rounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError

_PASSAGE, _QUERY = 0, 1


class ListContrastRanker(nn.Module):
    """A reranker on embeddings: two views of each passage, by itself and after the passages have seen each other.

    Formula: [q', p'] = layers of post-norm self-attention over LN([q + e_query, p + e_passage]), where the query
    attends only to itself and passages to the query and to all passages; score = w . [relu(A [q; p]), relu(B [q'; p'])]
    + b. No positions: the order of the passages does not matter. A probability is the score's sigmoid.

    Args:
        dim: width of the embeddings. list_dim: width inside, after a linear layer (None = dim, without one).
        heads, layers, d_ff, dropout: of the transformer; heads must divide the width.

    Source: Liu et al. (2025), ListConRanker: two layers of width 1792 with d_ff 2048 over a 1024-wide encoder. Paper 116.

    Raises:
        RivalsError: heads that do not divide the width; in use, vectors or a mask of other shapes.

    >>> ranker = ListContrastRanker(8, heads=2).eval()
    >>> ranker(torch.zeros(1, 8), torch.zeros(1, 3, 8), torch.tensor([[True, True, False]])).shape
    torch.Size([1, 3])
    """

    def __init__(
        self,
        dim: int,
        *,
        list_dim: int | None = None,
        heads: int = 4,
        layers: int = 2,
        d_ff: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        width = dim if list_dim is None else list_dim
        if heads < 1 or width % heads:
            raise RivalsError(f"heads={heads} does not divide the width {width}; choose another number of heads")
        self.dim = dim
        self.inner = nn.Identity() if list_dim is None else nn.Linear(dim, list_dim)
        self.kind = nn.Embedding(2, width)
        self.kind_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, d_ff, dropout, activation="gelu", batch_first=True)
            for _ in range(layers)
        )
        self.alone, self.together = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.output = nn.Linear(2 * width, 1)

    def forward(self, query: Tensor, passages: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return scores [Q, C] for a query [Q, dim] and passages [Q, C, dim]; 0 where the mask [Q, C] is False."""
        if (
            query.ndim != 2
            or passages.shape != (len(query), *passages.shape[1:2], self.dim)
            or query.shape[1] != self.dim
        ):
            raise RivalsError(
                f"query must be [Q, {self.dim}] and passages [Q, C, {self.dim}]; got {tuple(query.shape)} and "
                f"{tuple(passages.shape)}"
            )
        if mask is None:
            mask = torch.ones(passages.shape[:2], dtype=torch.bool, device=passages.device)
        if mask.shape != passages.shape[:2] or mask.dtype != torch.bool:
            raise RivalsError(f"mask must be bool{list(passages.shape[:2])}; got {mask.dtype}{list(mask.shape)}")
        first = self.inner(query).unsqueeze(1)
        listed = self.inner(passages.masked_fill(~mask.unsqueeze(-1), 0.0))
        seen = self.kind_norm(torch.cat([first + self.kind.weight[_QUERY], listed + self.kind.weight[_PASSAGE]], 1))
        absent = torch.cat([torch.zeros_like(mask.any(1, keepdim=True)), ~mask], 1)
        blocked = torch.zeros(seen.shape[1], seen.shape[1], dtype=torch.bool, device=seen.device)
        blocked[0, 1:] = True
        for block in self.blocks:
            seen = block(seen, src_mask=blocked, src_key_padding_mask=absent)
        alone = self.alone(torch.cat([first.expand_as(listed), listed], -1)).relu()
        together = self.together(torch.cat([seen[:, :1].expand_as(listed), seen[:, 1:]], -1)).relu()
        return self.output(torch.cat([alone, together], -1)).squeeze(-1).masked_fill(~mask, 0.0)


def iterative_rerank(
    score: Callable[[Tensor], Tensor], n: int, *, keep: int = 20, drop: float = 0.2, min_drop: int = 10
) -> Tensor:
    """Score a long list in rounds that each drop the lowest, so that the last ones are compared in a short list.

    While more than `keep` are left: score those left together and drop the max(min_drop, ceil(drop * left)) lowest and
    whatever ties with the last of them. The result is an item's last score plus the number of rounds it survived, so
    with scores in [0, 1) every survivor stands above every dropped one. Where all that are left tie, the rounds end.

    Args:
        score: a function of the indices int64[L] of the items left that returns their scores [L]. n: number of items.

    Returns:
        float64[n].

    Source: Liu et al. (2025), ListConRanker, iterative inference. Paper 116. Here items are told apart by index; the
    release tells them apart by text.

    Raises:
        RivalsError: n < 1, keep < 1, drop outside (0, 1), min_drop < 1, scores of another shape.

    >>> values = torch.linspace(0, 0.99, 30)
    >>> iterative_rerank(lambda left: values[left], 30)[[0, 29]]
    tensor([0.0000, 1.9900], dtype=torch.float64)
    """
    if n < 1 or keep < 1 or min_drop < 1:
        raise RivalsError(f"n, keep and min_drop must be at least 1; got {n}, {keep} and {min_drop}")
    if not 0 < drop < 1:
        raise RivalsError(f"drop must lie between 0 and 1; got {drop!r}")
    left = torch.arange(n)
    result = torch.empty(n, dtype=torch.float64)
    rounds = 0
    while True:
        found = torch.as_tensor(score(left)).detach().to("cpu", torch.float64)
        if found.shape != left.shape:
            raise RivalsError(f"score returned shape {tuple(found.shape)} for {len(left)} items")
        result[left] = found + rounds
        count = max(min_drop, math.ceil(drop * len(left)))
        if len(left) <= keep or count >= len(left):
            return result
        stays = found > found.kthvalue(count).values
        if not stays.any():
            return result
        left = left[stays]
        rounds += 1
