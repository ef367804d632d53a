"""Small encoders of pictures and of feature vectors, and the heads that turn any encoder's vectors into scores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.files import atomic_folder

_CONFIG, _WEIGHTS = "rivals_encoder.json", "model.safetensors"
Normalisation = Literal["group", "batch", "none"]


class _Small(nn.Module):
    """What small encoders share: they know how they were made, and save and load without pickles."""

    options: dict[str, Any]
    dimension: int

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the options and weights (safetensors) into a folder, which `load_small_encoder` reads."""
        from safetensors.torch import save_file

        with atomic_folder(Path(folder)) as out:
            save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, out / _WEIGHTS)
            (out / _CONFIG).write_text(
                json.dumps({"kind": type(self).__name__, **self.options}, indent=2), encoding="utf-8"
            )
        return Path(folder)


class ImageEncoder(_Small):
    """A small convolutional encoder: blocks of 3 x 3 convolution, normalisation, ReLU and halving, then global mean and a linear layer.

    Args:
        channels: of the pictures, 1 or 3. dimension: of the vectors. widths: channels of the blocks; each halves height and width.
        normalisation: "group" (8 groups; each picture by itself, so that the gradient cache stays exact), "batch" or "none".
        seed: of the initial weights.

    Shapes: pictures float[N, channels, H, W] in 0..1, H and W at least 2^blocks -> float[N, dimension].
    When to use: metric learning, contrastive and multi-label training on small pictures on a CPU; 32 x 32 pictures take about
    0.1 ms each. For more, give any torch module in its place: objectives ask for nothing but a call.
    Source: the four-block encoder of Vinyals et al. 2016 and Snell et al. 2017, with group normalisation (Wu and He 2018).
    Raises: RivalsError for sizes below 1, widths that 8 groups do not divide, pictures of another shape.

    >>> ImageEncoder(channels=3, dimension=16, widths=(8, 8))(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        dimension: int = 64,
        widths: Sequence[int] = (32, 64, 64),
        normalisation: Normalisation = "group",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(channels, dimension, *widths) < 1 or not widths:
            raise RivalsError(
                f"channels, dimension and widths must be 1 or more, not {channels}, {dimension}, {tuple(widths)}"
            )
        if normalisation not in ("group", "batch", "none"):
            raise RivalsError(f"normalisation is {normalisation!r}; use group, batch or none")
        if normalisation == "group" and any(width % 8 for width in widths):
            raise RivalsError(f"group normalisation has 8 groups, which do not divide the widths {tuple(widths)}")
        self.options = {
            "channels": channels, "dimension": dimension, "widths": list(widths), "normalisation": normalisation, "seed": seed,
        }  # fmt: skip
        self.dimension, self.channels = dimension, channels
        layers: list[nn.Module] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = channels
            for width in widths:
                norm = (
                    {"group": nn.GroupNorm(8, width), "batch": nn.BatchNorm2d(width)} if normalisation != "none" else {}
                )
                layers += [
                    nn.Conv2d(before, width, 3, padding=1),
                    norm.get(normalisation, nn.Identity()),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                ]
                before = width
            self.blocks = nn.Sequential(*layers)
            self.output = nn.Linear(before, dimension)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return one vector a picture, not normalised."""
        if pictures.ndim != 4 or pictures.shape[1] != self.channels:
            raise RivalsError(f"pictures must be [N, {self.channels}, H, W], not {tuple(pictures.shape)}")
        found: Tensor = self.output(self.blocks(pictures).mean((2, 3)))
        return found


class FeatureEncoder(_Small):
    """A perceptron over feature vectors: linear layers with ReLU and dropout between.

    Args:
        features: width of the input. dimension: of the vectors, or the number of scores. hidden: widths between. seed: of the weights.

    Shapes: float[..., features] -> float[..., dimension].
    Raises: RivalsError for sizes below 1, dropout outside [0, 1).

    >>> FeatureEncoder(4, 2, hidden=(8,))(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, features: int, dimension: int, *, hidden: Sequence[int] = (128,), dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        if min(features, dimension, *hidden, 1) < 1 or not 0 <= dropout < 1:
            raise RivalsError(
                f"features, dimension and hidden must be 1 or more and dropout in [0, 1); got {features}, {dimension}"
            )
        self.options = {
            "features": features,
            "dimension": dimension,
            "hidden": list(hidden),
            "dropout": dropout,
            "seed": seed,
        }
        self.dimension = dimension
        layers: list[nn.Module] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = features
            for width in hidden:
                layers += [nn.Linear(before, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
                before = width
            layers.append(nn.Linear(before, dimension))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return one vector a row."""
        found: Tensor = self.layers(features)
        return found


class Headed(nn.Module):
    """An encoder with a linear head: vectors for metric losses, scores of classes or labels for the others, trained together.

    Args:
        encoder: any module that gives float[N, D]; `dimension` D is read from it where not given.
        outputs: scores the head gives. unit: put vectors on the unit sphere before the head.

    >>> model = Headed(FeatureEncoder(4, 8), outputs=3)
    >>> model(torch.zeros(2, 4)).shape, model.vectors(torch.zeros(2, 4)).shape
    (torch.Size([2, 3]), torch.Size([2, 8]))
    """

    def __init__(self, encoder: nn.Module, *, outputs: int, dimension: int | None = None, unit: bool = False) -> None:
        super().__init__()
        width = dimension if dimension is not None else getattr(encoder, "dimension", None)
        if not isinstance(width, int) or width < 1 or outputs < 1:
            raise RivalsError(
                f"a head needs the encoder's dimension and at least one output; got {width} and {outputs}"
            )
        self.encoder, self.unit, self.head = encoder, unit, nn.Linear(width, outputs)

    def vectors(self, *inputs: Tensor) -> Tensor:
        """Return the encoder's vectors."""
        found: Tensor = self.encoder(*inputs)
        return nn.functional.normalize(found, dim=-1) if self.unit else found

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the head's scores, float[N, outputs]."""
        scores: Tensor = self.head(self.vectors(*inputs))
        return scores


def load_small_encoder(folder: str | os.PathLike[str]) -> ImageEncoder | FeatureEncoder:
    """Load what `ImageEncoder.save` or `FeatureEncoder.save` wrote.

    Raises: RivalsError for a folder without a readable encoder, naming it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load_small_encoder(FeatureEncoder(4, 2, seed=3).save(f"{folder}/encoder"))
    >>> again.options["seed"]
    3
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    try:
        options = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        kinds: dict[str, Any] = {"ImageEncoder": ImageEncoder, "FeatureEncoder": FeatureEncoder}
        model = kinds[options.pop("kind")](**options)
        model.load_state_dict(load_file(path / _WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RivalsError(
            f"{path} holds no encoder that can be read ({error}); it needs {_CONFIG} and {_WEIGHTS}"
        ) from None
    found: ImageEncoder | FeatureEncoder = model.eval()
    return found
