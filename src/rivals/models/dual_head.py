"""Two heads on one encoder: one learns the labels and is used, the other takes a teacher's logits and is left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models._transformer import read_weights
from rivals.models.encoder import Encoder
from rivals.models.folder import read_json
from rivals.models.images import FeatureEncoder, ImageEncoder, load_small_encoder

_SPEC, _WEIGHTS, _BACKBONE = "rivals_dual_head.json", "heads.safetensors", "backbone"


class DualHead(nn.Module):
    """A backbone with a main head and an auxiliary one; training gives the scores of both, evaluation those of the main one.

    Args:
        backbone: gives float[N, D]: an `Encoder`, an `ImageEncoder` or `FeatureEncoder`, or any module with a `dimension`.
        outputs: classes, labels or candidates' scores that each head gives.
        auxiliary: "linear", or "mlp" (linear, dropout, batch norm, ReLU, linear) where the teacher is of another kind; None after a
            load without it.
        hidden, dropout: of the mlp. seed: of the heads' first weights.

    Shapes: training: -> (main, auxiliary), both float[N, outputs]; evaluation: -> main.
    When to use: distilling raw logits beside a loss on labels. Both on one linear layer fight in it; each on its own do not.
    Source: Yang et al. (2025), dual-head knowledge distillation (paper 101).
    Raises: RivalsError for sizes below 1, dropout outside [0, 1), an unknown kind of head, a backbone without a dimension; in
    training, a batch of one row under an mlp, whose batch norm has nothing to compare.

    >>> model = DualHead(FeatureEncoder(4, 8), 3)
    >>> [scores.shape for scores in model(torch.zeros(2, 4))], model.eval()(torch.zeros(2, 4)).shape
    ([torch.Size([2, 3]), torch.Size([2, 3])], torch.Size([2, 3]))
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        auxiliary: Literal["linear", "mlp"] | None = "linear",
        hidden: int = 200,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        width = getattr(backbone, "dimension", None)
        if not isinstance(width, int) or min(width, outputs, hidden) < 1 or not 0 <= dropout < 1:
            raise RivalsError(
                f"heads need the backbone's dimension, outputs and hidden of 1 or more and dropout in [0, 1); got {width}, {outputs}, "
                f"{hidden}, {dropout}"
            )
        if auxiliary not in ("linear", "mlp", None):
            raise RivalsError(f"auxiliary is {auxiliary!r}; use 'linear' or 'mlp'")
        self.options: dict[str, Any] = {
            "outputs": outputs, "auxiliary": auxiliary, "hidden": hidden, "dropout": dropout, "seed": seed,
        }  # fmt: skip
        self.backbone = backbone
        device = next(backbone.parameters(), torch.empty(0)).device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.main = nn.Linear(width, outputs).to(device)
            layers: list[nn.Module] = [nn.Linear(width, outputs)]
            if auxiliary == "mlp":
                layers = [nn.Linear(width, hidden), nn.Dropout(dropout), nn.BatchNorm1d(hidden), nn.ReLU()]
                layers.append(nn.Linear(hidden, outputs))
            self.auxiliary = None if auxiliary is None else nn.Sequential(*layers).to(device)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return (main, auxiliary) while training, else the main scores."""
        vectors = self.backbone(*inputs)
        main: Tensor = self.main(vectors)
        if not self.training:
            return main
        if self.auxiliary is None:
            raise RivalsError("this model was saved without its auxiliary head; it cannot be trained on")
        if len(vectors) == 1 and self.options["auxiliary"] == "mlp":
            raise RivalsError("the auxiliary head's batch norm needs two rows or more in a batch")
        return main, self.auxiliary(vectors)

    def save(self, folder: str | os.PathLike[str], *, keep_auxiliary: bool = True) -> Path:
        """Write the backbone's own folder and the heads, whole or not at all; without the auxiliary head it serves, no more."""
        from safetensors.torch import save_file

        if not isinstance(self.backbone, Encoder | ImageEncoder | FeatureEncoder):
            raise RivalsError(
                f"a backbone of type {type(self.backbone).__name__} has no folder; save its state_dict instead"
            )
        kept = keep_auxiliary and self.auxiliary is not None
        with atomic_folder(Path(folder)) as out:
            self.backbone.save(out / _BACKBONE)
            state = {name: v for name, v in self.state_dict().items() if name.startswith(("main.", "auxiliary."))}
            weights = {n: v.detach().cpu().contiguous() for n, v in state.items() if kept or n.startswith("main.")}
            save_file(weights, out / _WEIGHTS)
            spec = {**self.options, "auxiliary": self.options["auxiliary"] if kept else None}
            kind = "encoder" if isinstance(self.backbone, Encoder) else "small"
            (out / _SPEC).write_text(json.dumps({"backbone": kind, **spec}, indent=2), encoding="utf-8")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str = "auto", dtype: str = "auto") -> DualHead:
        """Load what `save` wrote; `device` and `dtype` are those of an `Encoder`.

        Raises: ModelError for a folder without a readable model.
        """
        path = Path(folder)
        spec, weights = read_json(path / _SPEC), read_weights(path / _WEIGHTS)
        try:
            small = spec.pop("backbone") == "small"
            inside = path / _BACKBONE
            backbone = load_small_encoder(inside) if small else Encoder.load(inside, device=device, dtype=dtype)
            model = cls(backbone, **spec)
            missing, unexpected = model.load_state_dict(weights, strict=False)
            wrong = [*unexpected, *(name for name in missing if not name.startswith("backbone."))]
            if wrong:
                raise KeyError(wrong[0])
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise ModelError(f"{path}: the heads do not fit what is said of them ({str(error)[:80]})") from None
        return model.eval()


__all__ = ["DualHead"]
