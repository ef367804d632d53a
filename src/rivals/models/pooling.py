"""From token vectors to one vector: the pooling modes and the Dense head of the sentence-transformers format."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rivals.errors import ModelError
from rivals.models._transformer import read_weights
from rivals.models.folder import ACTIVATIONS, DenseSpec, PoolingSpec

_MEAN = PoolingSpec()


def pool(
    token_vectors: torch.Tensor, attention_mask: torch.Tensor, *, spec: PoolingSpec = _MEAN, prompt_length: int = 0
) -> torch.Tensor:
    r"""Pool token vectors into one vector per text, in float32.

    Formula: with mask $m_t$ and vectors $h_t$: mean $\sum m_t h_t / \sum m_t$; mean_sqrt_len_tokens divides by
    $\sqrt{\sum m_t}$; weightedmean weighs token t by its position 1, 2, ...; max is over tokens; cls and lasttoken
    take the first and last token of the mask. Several modes are concatenated.
    Shapes: token_vectors [B, T, H], attention_mask [B, T] (right padding), returns [B, H * len(modes)].
    When to use: after a transformer. Equals the Pooling module of sentence-transformers for right-padded input.
    `prompt_length` leading tokens are left out when the spec says so.

    >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[2.0]]
    """
    hidden = token_vectors.float()
    mask = attention_mask.bool()
    if prompt_length and not spec.include_prompt:
        mask = mask.clone()
        mask[:, :prompt_length] = False
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    count = weight.sum(1).clamp_min(1e-9)
    out = []
    for mode in spec.modes:
        if mode == "mean":
            out.append((hidden * weight).sum(1) / count)
        elif mode == "mean_sqrt_len_tokens":
            out.append((hidden * weight).sum(1) / count.sqrt())
        elif mode == "weightedmean":
            position = (
                torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)[None, :, None] * weight
            )
            out.append((hidden * position).sum(1) / position.sum(1).clamp_min(1e-9))
        elif mode == "max":
            out.append(hidden.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1))
        elif mode == "cls":
            first = mask.to(torch.int64).argmax(1)
            out.append(hidden[torch.arange(len(hidden), device=hidden.device), first])
        elif mode == "lasttoken":
            last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
            out.append(hidden[torch.arange(len(hidden), device=hidden.device), last] * mask.any(1, keepdim=True))
        else:
            raise ModelError(f"pooling mode {mode!r} is not known")
    return out[0] if len(out) == 1 else torch.cat(out, -1)


class Dense(nn.Module):
    """Linear layer and activation after pooling, as the Dense module of sentence-transformers.

    Formula: $a(W x + b)$, plus $x$ (or $R x$) when residual. Shapes: [B, in] to [B, out]. Parameters are named as in
    its files.
    """

    def __init__(self, spec: DenseSpec) -> None:
        super().__init__()
        self.spec = spec
        self.linear = nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)
        if spec.residual and spec.in_features != spec.out_features:
            self.residual = nn.Linear(spec.in_features, spec.out_features, bias=False)
        self.activation = getattr(nn, ACTIVATIONS[spec.activation])()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.activation(self.linear(x))
        if self.spec.residual:
            out = out + (x if self.spec.in_features == self.spec.out_features else self.residual(x))
        return out

    @classmethod
    def load(cls, spec: DenseSpec, folder: Path) -> Dense:
        """Build the layer and read its weights."""
        layer = cls(spec)
        weights = read_weights(folder / spec.folder / "model.safetensors")
        try:
            layer.load_state_dict({name: value.float() for name, value in weights.items()})
        except RuntimeError:
            raise ModelError(
                f"{folder / spec.folder}: the weights do not fit the sizes in config.json; restore both files"
            ) from None
        return layer


class UnitLength(nn.Module):
    """Divide by the Euclidean norm: the Normalize of a sentence-transformers folder."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x, dim=-1)
