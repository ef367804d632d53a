"""An encoder whose feed-forward blocks exist once per domain, and every text goes through those of its own domain."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models._transformer import read_weights
from rivals.models.batching import FastTokenizer, check_texts
from rivals.models.encoder import Encoder, Role
from rivals.models.folder import read_json
from rivals.models.routed import RoutedExperts
from rivals.models.vocabulary import add_tokens

_SPEC, _WEIGHTS, _BASE = "rivals_routed.json", "experts.safetensors", "encoder"
_BLOCKS = (("mlp",), ("ffn",), ("feed_forward",), ("intermediate", "output"))
Select = Callable[[nn.Module], Sequence[str]]


class _Route:
    """The experts of the batch that is in the encoder now; one object for a model and its copies in other dtypes."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.tokens: list[int] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Route:
        return self

    def put_tokens(
        self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Before the transformer runs: the domain's token takes the first token's place."""
        if self.tokens and self.rows is not None:
            ids = named["input_ids"].clone()
            ids[:, 0] = torch.tensor(self.tokens, device=ids.device)[self.rows]
            named = {**named, "input_ids": ids}
        return given, named


class _Block(nn.Module):
    """A block of a layer in as many copies as there are domains."""

    def __init__(self, block: nn.Module, experts: int, route: _Route) -> None:
        super().__init__()
        self.copies, self._route = RoutedExperts(block, experts), route

    def forward(self, hidden: Tensor, *more: Tensor) -> Tensor:
        found: Tensor = self.copies(hidden, self._route.rows, *more)
        return found


def feed_forward_blocks(layer: nn.Module) -> Sequence[str]:
    """Return the names of the children of a transformer's layer that make up its feed-forward block; none if there is none.

    >>> feed_forward_blocks(nn.ModuleDict({"attention": nn.Identity(), "mlp": nn.Identity()}))
    ('mlp',)
    """
    names = {name for name, _ in layer.named_children()}
    return next((found for found in _BLOCKS if names.issuperset(found)), ())


class RoutedEncoder(nn.Module):
    """An encoder with one copy of every feed-forward block per domain; attention and embeddings are shared.

    Args:
        encoder: converted in place; the copies start equal, so its vectors stay as they were, whatever the route.
        experts: number of domains.
        layers: which of the transformer's layers, counted from 0; a single one in the middle keeps most of the gain at less memory.
        select: names the children of a layer that are to be copied; default: its feed-forward block (of BERT with the norm after it).
        domain_tokens: a token per domain, put in place of the first token ([CLS]) of its texts; its embedding starts as that one's.

    Formula: in every layer, text b goes, whole, through the copy of its domain: no gate, no balancing term.
    Shapes: forward int[B, T] ids and mask and route int64[B] to float32[B, D].
    When to use: several domains that must each be separated finely, where a model for each would be too many.
    Source: Hallee et al. 2024 (paper 3). Its pooler (mean, norm, two linear layers) is not added: the encoder's own pooling stays.
    Raises: RivalsError for fewer than one expert, layers that do not exist, domain tokens that are not one per domain.

    >>> model = RoutedEncoder(Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32"), 2, layers=[3])
    >>> model.encode(["a cat", "a gene"], np.array([0, 1])).shape
    (2, 384)
    """

    def __init__(
        self,
        encoder: Encoder,
        experts: int,
        *,
        layers: Literal["all"] | Sequence[int] = "all",
        select: Select = feed_forward_blocks,
        domain_tokens: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if experts < 1:
            raise RivalsError(f"experts must be at least 1, not {experts}")
        if domain_tokens and len(set(domain_tokens)) != experts:
            raise RivalsError(f"{experts} domains need as many different domain tokens, not {list(domain_tokens)}")
        found = _layers(encoder.backbone, select)
        chosen = list(range(len(found))) if layers == "all" else sorted({int(number) for number in layers})
        if not chosen or chosen[0] < 0 or chosen[-1] >= len(found):
            raise RivalsError(
                f"layers is {layers!r}; the transformer has layers 0..{len(found) - 1} with a block to copy"
            )
        self.encoder, self.experts, self.layers = encoder, experts, chosen
        self.domain_tokens, self._select, self._route = tuple(domain_tokens), select, _Route()
        if domain_tokens:
            first = encoder.tokenizer.cls_token or encoder.tokenizer.bos_token
            if first is None:
                raise RivalsError("this tokenizer puts no token before a text that a domain's token could replace")
            ids = add_tokens(encoder.backbone, encoder.tokenizer, dict.fromkeys(domain_tokens, first))
            encoder.fast_tokenizer = FastTokenizer(encoder.tokenizer)
            self._route.tokens = [ids[token] for token in domain_tokens]
        encoder.backbone.register_forward_pre_hook(self._route.put_tokens, with_kwargs=True)
        self._blocks: list[tuple[nn.Module, str]] = []
        for number in chosen:
            for name in select(found[number]):
                block = _Block(getattr(found[number], name), experts, self._route)
                setattr(found[number], name, block)
                self._blocks.append((found[number], name))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @contextmanager
    def routed(self, route: Tensor | NDArray[np.int64]) -> Iterator[None]:
        """Send what the encoder reads inside the block, row by row, through these experts, int64[B]."""
        rows = torch.as_tensor(route)
        if rows.is_floating_point() or rows.dtype == torch.bool:
            raise TypeError(f"route must hold integers, the domain of each text; got {rows.dtype}")
        if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < self.experts:
            raise RivalsError(f"route must lie in 0..{self.experts - 1}; found {int(rows.min())}..{int(rows.max())}")
        self._route.rows = rows.to(self.device)
        try:
            yield
        finally:
            self._route.rows = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, route: Tensor) -> Tensor:
        """Return one vector a text, float32[B, D]."""
        if len(route) != len(input_ids):
            raise RivalsError(f"route must have one entry per text, {len(input_ids)}; got {len(route)}")
        with self.routed(route):
            found: Tensor = self.encoder(input_ids, attention_mask)
        return found

    def encode(
        self,
        texts: Sequence[str],
        route: NDArray[np.int64],
        *,
        role: Role | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] | None = None,
        normalize: bool | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of texts, float32[N, D], each through its domain; int8 and caches are for plain encoders."""
        check_texts(texts)
        where = np.asarray(route)
        if where.shape != (len(texts),):
            raise RivalsError(f"route must have one entry per text, {len(texts)}; got shape {where.shape}")
        if dtype not in (None, "auto", "float32", "bfloat16"):
            raise RivalsError(f"a routed encoder computes in float32 or bfloat16, not {dtype!r}")
        out = np.zeros((len(texts), self.encoder.dimension), np.float32)
        own = self.encoder.dtype if self.encoder.dtype in ("auto", "float32", "bfloat16") else "auto"
        for domain in np.unique(where).tolist():
            rows = np.flatnonzero(where == domain)
            with self._all_through(domain):
                out[rows] = self.encoder.encode(
                    [texts[int(row)] for row in rows],
                    role=role,
                    dtype=dtype or own,
                    normalize=normalize,
                    progress=False,
                )
        return out

    @contextmanager
    def _all_through(self, domain: int) -> Iterator[None]:
        """Send whatever comes, in batches of any size, through one domain."""

        def each(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._route.rows = torch.full((len(named["input_ids"]),), domain, device=named["input_ids"].device)

        with self.routed(np.array([domain])):
            handle = self.encoder.backbone.register_forward_pre_hook(each, with_kwargs=True, prepend=True)
            try:
                self.encoder.invalidate_fingerprint()  # so that a copy in another dtype has this hook
                yield
            finally:
                handle.remove()
                self.encoder.invalidate_fingerprint()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the encoder through the first domain as a model folder, the other domains' blocks and what belongs where."""
        from safetensors.torch import save_file

        wrapped = [getattr(layer, name) for layer, name in self._blocks]
        others = {
            f"{place}.{expert}.{key}": value.detach().cpu().clone().contiguous()
            for place, block in enumerate(wrapped)
            for expert in range(1, self.experts)
            for key, value in block.copies.experts[expert].state_dict().items()
        }
        with atomic_folder(Path(folder)) as out:
            try:
                for (layer, name), block in zip(self._blocks, wrapped, strict=True):
                    setattr(layer, name, block.copies.experts[0])
                self.encoder.save(out / _BASE)
            finally:
                for (layer, name), block in zip(self._blocks, wrapped, strict=True):
                    setattr(layer, name, block)
            save_file(others, out / _WEIGHTS)
            spec = {"experts": self.experts, "layers": self.layers, "domain_tokens": list(self.domain_tokens)}
            (out / _SPEC).write_text(json.dumps(spec, indent=2), encoding="utf-8")
        return Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str = "auto",
        dtype: str = "auto",
        select: Select = feed_forward_blocks,
    ) -> RoutedEncoder:
        """Load what `save` wrote; `select` must be the one it was made with.

        Raises: ModelError for a folder without a readable routed encoder.
        """
        path = Path(folder)
        spec, weights = read_json(path / _SPEC), read_weights(path / _WEIGHTS)
        encoder = Encoder.load(path / _BASE, device=device, dtype=dtype)
        try:
            model = cls(
                encoder,
                spec["experts"],
                layers=spec["layers"],
                domain_tokens=spec["domain_tokens"],
                select=select,
            )
            for place, (layer, name) in enumerate(model._blocks):
                for expert in range(1, model.experts):
                    start = f"{place}.{expert}."
                    own = {key[len(start) :]: value for key, value in weights.items() if key.startswith(start)}
                    getattr(layer, name).copies.experts[expert].load_state_dict(own)
        except (KeyError, TypeError, RuntimeError, RivalsError) as error:
            raise ModelError(f"{path}: the experts do not fit the encoder beside them ({str(error)[:80]})") from None
        return model.eval()


def _layers(backbone: nn.Module, select: Select) -> list[nn.Module]:
    """Return the layers of a transformer that have a block to copy."""
    stacks = [
        [layer for layer in module if select(layer)]
        for module in backbone.modules()
        if isinstance(module, nn.ModuleList)
    ]
    return max(stacks, key=len, default=[])


__all__ = ["RoutedEncoder", "feed_forward_blocks"]
