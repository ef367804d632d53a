"""Text encoders: a transformers model, pooling and head, as one torch module that also encodes texts quickly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import nn

from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models import _transformer
from rivals.models import folder as _folder
from rivals.models._int8 import BATCH_TOKENS, in_threads
from rivals.models._precision import Frozen, choose_device, choose_dtype, config_text, weights_digest, weights_version
from rivals.models.batching import FastTokenizer, Tokens, TokenVectors, check_texts, default_budget, token_batches
from rivals.models.cache import text_keys
from rivals.models.folder import DenseSpec, Layout
from rivals.models.pooling import Dense, UnitLength, pool
from rivals.progress import progress as show_progress

if TYPE_CHECKING:
    from rivals.models.cache import VectorCache

Role = Literal["query", "document"]
_FLUSH_AT_ONCE = 64  # fewer new vectors than this wait in memory for company, so searches do not write a file each


class Encoder(nn.Module):
    """A bi-encoder: text in, one vector out, in the folder format of sentence-transformers.

    Formula: $e(x) = \\mathrm{head}(\\mathrm{pool}(\\mathrm{transformer}(x)))$ with the head the folder names.
    Shapes: forward [B, T] to [B, D]; encode N texts to float32 [N, D].
    When to use: retrieval, and every loss over vectors. `forward` is for training (float32 weights, autograd);
    `encode` is for inference (length-sorted token batches, in bfloat16 or int8 where the machine has units for it).
    Equals: `sentence_transformers.SentenceTransformer` on the same folder (cosine >= 0.9999 in float32).
    Source: Reimers and Gurevych 2019 (bi-encoder, pooling modes).
    Raises: ModelError for a folder that cannot be used.

    >>> encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32")
    >>> encoder.encode(["a cat", "a kitten"], progress=False).shape
    (2, 384)
    """

    def __init__(
        self, backbone: Any, tokenizer: Any, layout: Layout, head: Sequence[nn.Module], *, dtype: str = "auto"
    ) -> None:
        super().__init__()
        if layout.max_length is None:
            raise ModelError("an encoder needs a layout with max_length")
        self.backbone = backbone
        self.head = nn.ModuleList(head)
        self.tokenizer = tokenizer
        self.layout = layout
        self.dtype = dtype
        self.fast_tokenizer = FastTokenizer(tokenizer)
        self._unused: dict[str, torch.Tensor] = {}
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module):  # never reached by pooling over token vectors: kept for saving, not trained
            self._unused = {f"pooler.{name}": value.detach().clone() for name, value in pooler.state_dict().items()}
            backbone.pooler = None
        self._frozen = Frozen()
        self._digest: tuple[Any, str] | None = None

    @classmethod
    def load(
        cls, name: str | os.PathLike[str], *, device: str = "auto", dtype: str = "auto", max_length: int | None = None
    ) -> Encoder:
        """Load a model by folder or name; `dtype` is that of inference (see `choose_dtype`), training is float32.

        Raises: ModelError when the folder is missing, damaged, or not an encoder, or max_length exceeds the model's
        positions.
        """
        path = _folder.resolve_model(name)
        layout = _folder.read_layout(path)
        root = path / layout.transformer
        backbone = _transformer.load_transformer(root)
        tokenizer = _transformer.load_tokenizer(root, lower_case=layout.lower_case)
        stated = max_length if max_length is not None else layout.max_length
        longest = _transformer.longest_input(path, backbone.config, tokenizer, stated)
        if max_length is not None and (max_length < 1 or longest < max_length):
            raise ModelError(f"max_length {max_length} is not possible: {path} reads 1 to {longest} tokens")
        head: list[nn.Module] = [Dense.load(p, path) if isinstance(p, DenseSpec) else UnitLength() for p in layout.head]
        encoder = cls(backbone, tokenizer, replace(layout, max_length=longest), head, dtype=dtype)
        return encoder.to(choose_device(device)).eval()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model folder, whole or not at all; sentence-transformers and transformers load it."""
        from safetensors.torch import save_file

        target = Path(folder)
        with atomic_folder(target) as out:
            _transformer.save_transformer(
                out, self.backbone, self.tokenizer, also=self._unused, max_length=self.max_length
            )
            _folder.write_layout(out, replace(self.layout, transformer=""), hidden=self.hidden)
            for index, (spec, layer) in enumerate(zip(self.layout.head, self.head, strict=True)):
                if isinstance(spec, DenseSpec):
                    weights = {name: value.detach().cpu().contiguous() for name, value in layer.state_dict().items()}
                    save_file(
                        weights,
                        str(out / _folder.head_folder(index, spec) / "model.safetensors"),
                        metadata={"format": "pt"},
                    )
            _transformer.make_readable(out)
        return target

    @property
    def inference_dtype(self) -> torch.dtype:
        """What `dtype` comes to on this device."""
        return choose_dtype(self.dtype, self.device, self.backbone)

    @property
    def hidden(self) -> int:
        """Width of the token vectors."""
        return int(self.backbone.config.hidden_size)

    @property
    def dimension(self) -> int:
        """Width of the vectors `encode` gives."""
        widths = [part.out_features for part in self.layout.head if isinstance(part, DenseSpec)]
        return widths[-1] if widths else self.hidden * len(self.layout.pooling.modes)

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included; more is cut off."""
        assert self.layout.max_length is not None
        return self.layout.max_length

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    def token_vectors(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the transformer's last layer, [B, T, H], for ids and mask of shape [B, T]."""
        output: torch.Tensor = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return output

    def finish(
        self, token_vectors: torch.Tensor, attention_mask: torch.Tensor, *, prompt_length: int = 0
    ) -> torch.Tensor:
        """Pool token vectors and run the head, in float32: [B, T, H] to [B, D]."""
        vectors = pool(token_vectors, attention_mask, spec=self.layout.pooling, prompt_length=prompt_length)
        with torch.autocast(vectors.device.type, enabled=False):
            for part in self.head:
                vectors = part(vectors)
        return vectors

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *, prompt_length: int = 0) -> torch.Tensor:
        """Return one vector per row, float32[B, D], pooled and finished as the folder says."""
        return self.finish(self.token_vectors(input_ids, attention_mask), attention_mask, prompt_length=prompt_length)

    def compile(self, *, dynamic: bool = True, **options: Any) -> None:  # type: ignore[override]
        """Compile the transformer in place by `torch.compile`. Do so last: a copy would run the original's weights."""
        self.token_vectors = torch.compile(self.token_vectors, dynamic=dynamic, **options)  # type: ignore[method-assign]

    def prompt_for(self, role: Role | None) -> str:
        """The text put in front of queries or documents; without a role the folder's default prompt, if any."""
        prompts = self.layout.prompts
        if role is None:
            return "" if self.layout.default_prompt is None else prompts[self.layout.default_prompt]
        if role not in ("query", "document"):
            raise RivalsError(f"role is {role!r}; it must be 'query', 'document' or None")
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        return next((prompts[name] for name in names if name in prompts), "")

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        role: Role | None = None,
        longest: int | None = None,
        progress: bool = False,
    ) -> Tokens:
        """Tokenise texts, cut at `max_length` (or `longest`, if smaller); `prompt` (or that of `role`) goes in front of each.
        Raises: RivalsError naming the row of anything that is not a string.
        """
        check_texts(texts)
        if prompt is None:
            prompt = self.prompt_for(role)
        limit = min(longest or self.max_length, self.max_length)
        with show_progress("Tokenising", len(texts), show=progress) as advance:
            tokens = self.fast_tokenizer(texts, max_length=limit, prompt=prompt, on_done=advance)
        if prompt and not self.layout.pooling.include_prompt:
            tokens = replace(tokens, prompt_length=self.fast_tokenizer.prompt_length(prompt, limit))
        return tokens

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: Role | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        dtype: str | None = None,
        cache: VectorCache | None = None,
        progress: bool | str = True,
        normalize: bool | None = None,
    ) -> np.ndarray:
        """Return the vectors of texts, float32[N, D], in the order given.

        role picks the folder's prompt for queries or documents; `prompt` replaces it. max_tokens: padded tokens a
        batch holds (None = what suits the device). dtype: None = the encoder's own. cache: vectors there are not
        computed again. progress: False, True, or the words beside the bar. normalize: True divides by the
        norm even if the folder does not.
        When to use: inference. Training batches go through `forward`.
        Raises: RivalsError for a row that is not a string, or for vectors that are not finite.
        """
        check_texts(texts)
        prompt = self.prompt_for(role) if prompt is None else prompt
        kind = choose_dtype(dtype or self.dtype, self.device, self.backbone)
        label = progress if isinstance(progress, str) else "Encoding"
        show = bool(progress)
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        if cache is None:

            def keep(rows: np.ndarray, part: np.ndarray) -> None:
                out[rows] = part

            self._encode(texts, prompt, kind, max_tokens, label, show, keep)
        else:
            keys = text_keys(f"{self.fingerprint()}|{prompt}|{self.max_length}|{kind}", texts)
            out, found = cache.get(keys, self.dimension)
            missing = np.flatnonzero(~found)
            _, first, copies = np.unique(keys[missing], axis=0, return_index=True, return_inverse=True)
            wanted = missing[first]  # one row of each distinct missing text

            def keep(rows: np.ndarray, part: np.ndarray) -> None:
                out[wanted[rows]] = part
                cache.put(keys[wanted[rows]], part)

            self._encode([texts[row] for row in wanted], prompt, kind, max_tokens, label, show, keep)
            out[missing] = out[wanted[copies.reshape(-1)]]
            if len(wanted) >= _FLUSH_AT_ONCE:
                cache.flush()
        if normalize:
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        return out

    def _encode(
        self,
        texts: Sequence[str],
        prompt: str,
        dtype: torch.dtype,
        max_tokens: int | None,
        label: str,
        show: bool,
        keep: Callable[[np.ndarray, np.ndarray], None],
    ) -> None:
        """Compute vectors batch by batch, longest texts first, and hand (rows, vectors) to `keep`."""
        tokens = self.tokenize(texts, prompt=prompt, progress=show)

        def use(rows: np.ndarray, hidden: torch.Tensor, mask: torch.Tensor) -> None:
            vectors = self.finish(hidden, mask, prompt_length=tokens.prompt_length).float().cpu().numpy()
            finite = np.isfinite(vectors).all(1)
            if not finite.all():
                text = texts[int(rows[~finite][0])][:40]
                raise RivalsError(f"the model gave a vector that is not finite for {text!r}; its weights are damaged")
            keep(rows, vectors)

        self._run(tokens, dtype, max_tokens, label, show, use)

    def _run(
        self,
        tokens: Tokens,
        dtype: torch.dtype,
        max_tokens: int | None,
        label: str,
        show: bool,
        use: Callable[[np.ndarray, torch.Tensor, torch.Tensor], None],
    ) -> None:
        """Call `use(rows, token vectors, mask)` on length-sorted batches, in eval mode and without autograd."""
        device, lengths = self.device, tokens.lengths
        standard = BATCH_TOKENS if dtype == torch.int8 else default_budget(device)
        budget = max_tokens if max_tokens is not None else standard
        multiple = 1 if device.type == "cpu" else 8
        total = max(int(lengths.sum()), 1)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode(), show_progress(label, total, show=show) as advance:
                backbone = self._frozen.get(self.backbone, dtype)

                def compute(rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
                    ids, mask = tokens.pad(rows, pad_id=self.fast_tokenizer.pad_id, multiple=multiple, device=device)
                    return rows, backbone(input_ids=ids, attention_mask=mask).last_hidden_state, mask

                batches = token_batches(lengths, budget, multiple=multiple)
                for rows, hidden, mask in (in_threads if dtype == torch.int8 else map)(compute, batches):
                    use(rows, hidden, mask)
                    advance(int(lengths[rows].sum()))
        finally:
            self.train(training)

    def encode_tokens(
        self,
        texts: Sequence[str],
        *,
        role: Role | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        dtype: str | None = None,
        storage: Literal["float16", "float32"] = "float16",
        drop_special: bool = False,
        drop_punctuation: bool = False,
        progress: bool | str = True,
    ) -> TokenVectors:
        """Return the unit-length vectors of every token, for late interaction (Khattab and Zaharia 2020).

        storage: float16 halves the memory. drop_special leaves [CLS], [SEP] and the like out, drop_punctuation tokens
        of punctuation alone; a text may then be left with no token.
        Raises: as `encode`.
        """
        label, show = progress if isinstance(progress, str) else "Encoding tokens", bool(progress)
        tokens = self.tokenize(texts, prompt=prompt, role=role, progress=show)
        return self._token_vectors(tokens, label, show, max_tokens, dtype, storage, drop_special, drop_punctuation)

    def encode_with_tokens(
        self, texts: Sequence[str], *, role: Role | None = None, storage: Literal["float16", "float32"] = "float32"
    ) -> tuple[np.ndarray, TokenVectors]:
        """Return both, from one pass: unit pooled vectors float32[N, D], and token vectors without special tokens.

        When to use: a first stage by pooled vectors whose candidates are then re-ranked token by token.
        Raises: as `encode`.
        """
        pooled = np.empty((len(texts), self.dimension), dtype=np.float32)
        tokens = self.tokenize(texts, role=role)
        vectors = self._token_vectors(tokens, "", False, None, None, storage, True, False, pooled=pooled)
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return pooled, vectors

    def _token_vectors(
        self,
        tokens: Tokens,
        label: str,
        show: bool,
        max_tokens: int | None,
        dtype: str | None,
        storage: Literal["float16", "float32"],
        drop_special: bool,
        drop_punctuation: bool,
        *,
        pooled: np.ndarray | None = None,
    ) -> TokenVectors:
        """Compute unit token vectors; with `pooled` [N, D], fill it with the texts' vectors on the way."""
        kind = choose_dtype(dtype or self.dtype, self.device, self.backbone)
        keep = np.ones(len(tokens.ids), dtype=bool)
        if drop_special or drop_punctuation:
            distinct, where = np.unique(tokens.ids, return_inverse=True)
            keep = np.array([self._wanted(int(i), drop_special, drop_punctuation) for i in distinct], dtype=bool)[where]
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        out = np.empty((int(keep.sum()), self.hidden), dtype=storage)

        def use(rows: np.ndarray, hidden: torch.Tensor, mask: torch.Tensor) -> None:
            flat = nn.functional.normalize(hidden.float()[mask.bool()], dim=-1).cpu().numpy()
            if not np.isfinite(flat).all():
                raise RivalsError("the model gave token vectors that are not finite; its weights are damaged")
            lengths = tokens.lengths[rows]
            starts = np.cumsum(lengths) - lengths
            positions = np.arange(len(flat)) + np.repeat(tokens.offsets[rows] - starts, lengths)
            chosen = keep[positions]
            out[kept_before[positions[chosen]]] = flat[chosen]
            if pooled is not None:
                pooled[rows] = self.finish(hidden, mask, prompt_length=tokens.prompt_length).float().cpu().numpy()

        self._run(tokens, kind, max_tokens, label, show, use)
        return TokenVectors(out, kept_before[tokens.offsets], tokens.ids[keep])

    def _wanted(self, token_id: int, drop_special: bool, drop_punctuation: bool) -> bool:
        if token_id in self.fast_tokenizer.special_ids:
            return not drop_special
        surface = self.fast_tokenizer.text_of(token_id).lstrip("#Ġ▁")
        return not drop_punctuation or any(character.isalnum() for character in surface)

    def fingerprint(self) -> str:
        """Hash of weights, head and configuration (BLAKE2b-128); computed again only after the weights changed."""
        version = weights_version(self)
        if self._digest is None or self._digest[0] != version:
            head = [replace(part, folder="") if isinstance(part, DenseSpec) else part for part in self.layout.head]
            about = f"{self.layout.pooling}|{head}|{config_text(self.backbone.config)}|{self.fast_tokenizer.text}"
            self._digest = (version, weights_digest(self, about))
        return self._digest[1]

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; entering it forgets the hash and the frozen copy."""
        if mode:
            self.invalidate_fingerprint()
        return super().train(mode)

    def invalidate_fingerprint(self) -> None:
        """Forget the hash and the frozen copy, so both are made anew from the weights as they are."""
        self._digest = None
        self._frozen = Frozen()
