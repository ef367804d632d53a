"""Rankers that score the candidates of a query together: each candidate's score depends on the others in its list."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype

Norm = Literal["annotated", "torch"]
Activation = Literal["relu", "gelu", "tanh", "sigmoid"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class AnnotatedNorm(nn.Module):
    """a (x - mean) / (std + 1e-6) + b with the unbiased standard deviation: the layer norm of the reference, not torch's.

    >>> AnnotatedNorm(2)(torch.tensor([0., 1.])).tolist()
    [-0.70710..., 0.70710...]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.std(-1, keepdim=True)
        return self.scale * (x - x.mean(-1, keepdim=True)) / (deviation + 1e-6) + self.shift


class _Block(nn.Module):
    """Pre-norm self-attention over the candidates of a list, then a feed-forward layer; both with a residual."""

    def __init__(self, width: int, heads: int, d_ff: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, d_ff), nn.Linear(d_ff, width)
        self.norms = nn.ModuleList(_norm(norm, width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention of every candidate over those that are there; in a list with none, nothing flows."""
        shape = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        q, k, v = (layer(x).view(shape).transpose(-2, -3) for layer in (self.query, self.key, self.value))
        logits = q @ k.transpose(-1, -2) / math.sqrt(shape[-1])
        nobody = ~mask.any(-1)[..., None, None, None]
        logits = logits.masked_fill(~mask[..., None, None, :] & ~nobody, float("-inf"))
        weights = self.dropout(logits.softmax(-1).masked_fill(nobody, 0.0))
        return self.out((weights @ v).transpose(-2, -3).reshape(x.shape))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attend(self.norms[0](x), mask))
        inner = self.dropout(torch.relu(self.wide(self.norms[1](x))))
        return x + self.dropout(self.narrow(inner))


class ContextRanker(nn.Module):
    """A set transformer over the candidates of a list: permutation-equivariant, one score per candidate.

    Formula: x <- FC(features); x <- x + MHA(LN(x)); x <- x + W2 relu(W1 LN(x)), `n_layers` times; score = w . LN(x) + b, or the sum
    of `d_output` outputs after `output_activation`.

    Args:
        n_features: F. fc: widths of the input layers, the last is the model width (none = F itself).
        n_layers: 0 gives a plain multi-layer perceptron, blind to the rest of the list.
        positional: None, or "fixed" for sines of the first-stage rank (`indices`).
        norm: "annotated" as in the reference code, "torch" for `nn.LayerNorm`.

    When to use: re-ranking by features when what is best depends on what else is there (duplicates, sections of one topic).
    Source: Pobrotyn et al. (2020), "Context-aware learning to rank with self-attention"; paper 21.
    Raises: RivalsError for heads that do not divide the width, or sizes out of range.

    >>> ranker = ContextRanker(3, fc=(8,), n_layers=1).eval()
    >>> ranker.score(torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=bool)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        n_features: int,
        *,
        fc: tuple[int, ...] = (128,),
        fc_activation: Activation | None = None,
        fc_dropout: float = 0.0,
        n_layers: int = 2,
        heads: int = 2,
        d_ff: int = 256,
        dropout: float = 0.1,
        positional: Literal["fixed"] | None = None,
        d_output: int = 1,
        output_activation: Activation | None = None,
        norm: Norm = "annotated",
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = (n_features, *fc)
        if min(*widths, d_output, heads) < 1 or n_layers < 0:
            raise RivalsError("a ranker needs positive widths, heads and outputs, and no negative number of layers")
        if n_layers and widths[-1] % heads:
            raise RivalsError(
                f"{heads} heads do not divide the width {widths[-1]}; choose a width that is a multiple of the heads"
            )
        if norm == "annotated" and ((n_layers and widths[-1] < 2) or (input_norm and n_features < 2)):
            raise RivalsError("the annotated norm needs a width of at least 2 (one value has no deviation)")
        self.positional = positional
        self.input_norm = _norm(norm, n_features) if input_norm else nn.Identity()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), _activation(fc_activation), nn.Dropout(fc_dropout)]
        self.fc = nn.Sequential(*layers)
        self.blocks = nn.ModuleList(_Block(widths[-1], heads, d_ff, dropout, norm) for _ in range(n_layers))
        self.norm = _norm(norm, widths[-1]) if n_layers else nn.Identity()
        self.output = nn.Linear(widths[-1], d_output)
        self.activation = _activation(output_activation)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, mask: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
        """Return outputs [Q, C] (or [Q, C, d_output]) for features x[Q, C, F] and mask bool[Q, C].

        `indices[Q, C]` are first-stage ranks, needed with a positional encoding only. Outputs of absent candidates are 0.
        """
        if mask is None:
            mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        if x.shape[:-1] != mask.shape:
            raise RivalsError(
                f"features are {tuple(x.shape)}, so the mask must be {tuple(x.shape[:-1])}, not {tuple(mask.shape)}"
            )
        hidden = self.fc(self.input_norm(x.masked_fill(~mask[..., None], 0.0)))
        if self.positional == "fixed":
            if indices is None:
                raise RivalsError("a ranker with a positional encoding needs `indices`, the first-stage ranks")
            hidden = math.sqrt(hidden.shape[-1]) * hidden + _sines(indices, hidden.shape[-1], hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, mask)
        outputs = self.activation(self.output(self.norm(hidden))).masked_fill(~mask[..., None], 0.0)
        return outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs

    def score(self, x: Tensor, mask: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
        """Return one score per candidate, [Q, C]: the output, or the sum of the outputs."""
        outputs = self.forward(x, mask, indices)
        return outputs if outputs.ndim == x.ndim - 1 else outputs.sum(-1)


def _norm(kind: Norm, width: int) -> nn.Module:
    if kind not in ("annotated", "torch"):
        raise RivalsError(f"norm is '{kind}'; it must be 'annotated' or 'torch'")
    return AnnotatedNorm(width) if kind == "annotated" else nn.LayerNorm(width)


def _activation(name: Activation | None) -> nn.Module:
    if name is None:
        return nn.Identity()
    if name not in _ACTIVATIONS:
        raise RivalsError(f"activation is '{name}'; it must be one of {', '.join(_ACTIVATIONS)} or None")
    return _ACTIVATIONS[name]()


def _sines(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return sine and cosine of each position at geometric frequencies, interleaved, [..., width]."""
    exact = compute_dtype(torch.empty(0, dtype=dtype))
    steps = torch.arange(0, width, 2, device=positions.device, dtype=exact)
    angles = positions[..., None].to(exact) * torch.exp(-math.log(10000.0) / width * steps)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :width].to(dtype)
