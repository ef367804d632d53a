"""Cross-encoders: query and document read together by one transformer, one score a pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models import _transformer
from rivals.models import folder as _folder
from rivals.models._int8 import BATCH_TOKENS, in_threads
from rivals.models._precision import Frozen, choose_device, choose_dtype, config_text, weights_digest, weights_version
from rivals.models.batching import FastTokenizer, Tokens, check_texts, default_budget, token_batches
from rivals.progress import progress as show_progress

_IDENTITY = "torch.nn.modules.linear.Identity"
_SIGMOID = "torch.nn.modules.activation.Sigmoid"
_PAIRS = 1 << 15  # pairs whose tokens are held at once


@dataclass(frozen=True, slots=True)
class PairTokens:
    """Token ids of N pairs end to end, and where in each pair the second segment begins (int64[N]).

    `truncated`: how many documents were cut; `queries_cut`: how many pairs have a query so long that it was cut as
    well.
    """

    tokens: Tokens
    second: np.ndarray
    truncated: int
    queries_cut: int
    typed: bool

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Token count of every pair, int64[N]."""
        return self.tokens.lengths

    def pad(
        self, rows: np.ndarray, *, pad_id: int = 0, multiple: int = 1, device: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return (input_ids, attention_mask, token_type_ids or None), each int64[len(rows), longest]."""
        ids, mask = self.tokens.pad(rows, pad_id=pad_id, multiple=multiple, device=device)
        if not self.typed:
            return ids, mask, None
        start = torch.from_numpy(self.second[np.asarray(rows, dtype=np.int64)]).to(ids.device)
        types = (torch.arange(ids.shape[1], device=ids.device)[None, :] >= start[:, None]).to(mask.dtype) * mask
        return ids, mask, types


class CrossEncoder(nn.Module):
    """A transformer with a one-score head over (query, document) pairs.

    Formula: $s(q, d) = w^T \\tanh(W h_1 + b) + c$, $h_1$ the first token's vector of `[CLS] q [SEP] d [SEP]` (the head
    of the architecture's sequence-classification class in transformers).
    When to use: the second stage of search, or a teacher. `forward` gives raw scores for training, `score` is for
    inference.
    Equals: `sentence_transformers.CrossEncoder` on the same folder (within 1e-4 in float32).
    Source: Nogueira and Cho 2019.
    Raises: ModelError for a folder that cannot be used.

    >>> model = CrossEncoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32", seed=0)
    >>> model.score(["a cat"], ["cats purr"], progress=False).shape
    (1,)
    """

    def __init__(
        self, model: Any, tokenizer: Any, max_length: int, *, activation: str = _IDENTITY, dtype: str = "auto"
    ) -> None:
        super().__init__()
        if activation not in (_IDENTITY, _SIGMOID):
            raise ModelError(f"activation {activation!r} is not known for scores; use {_IDENTITY} or {_SIGMOID}")
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.activation = activation
        self.dtype = dtype
        self.fast_tokenizer = FastTokenizer(tokenizer)
        self._template = self.fast_tokenizer.pair_template()
        self._typed = (
            "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 2) > 1
        )
        self._frozen = Frozen()
        self._digest: tuple[Any, str] | None = None

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
        seed: int = 0,
    ) -> CrossEncoder:
        """Load a sequence-classification folder, or start from an encoder folder with a new head.

        A new head has weights drawn from N(0, initializer_range^2) under `seed`, zero biases and no final activation;
        a dense layer which the folder already holds (BERT's pooler) is kept. A loaded folder keeps the activation it
        names (Sigmoid if none).
        Raises: ModelError when the folder is damaged, has more than one score, or max_length exceeds the model's
        positions.
        """
        path = _folder.resolve_model(name)
        root, stated, lower = _score_layout(path)
        config = _transformer.load_config(root)
        ready = any(str(a).endswith("ForSequenceClassification") for a in config.architectures or ())
        if ready and config.num_labels != 1:
            raise ModelError(
                f"{path}: this classifier has {config.num_labels} outputs; a cross-encoder needs exactly one"
            )
        if ready:
            model = _transformer.load_transformer(root, kind="AutoModelForSequenceClassification")
            activation = _stated_activation(path, config)
        else:
            model = _start_head(root, seed)
            activation = _IDENTITY
        tokenizer = _transformer.load_tokenizer(root, lower_case=lower)
        longest = _transformer.longest_input(path, config, tokenizer, max_length if max_length is not None else stated)
        if max_length is not None and (max_length < 8 or longest < max_length):
            raise ModelError(f"max_length {max_length} is not possible: {path} reads 8 to {longest} tokens")
        return cls(model, tokenizer, longest, activation=activation, dtype=dtype).to(choose_device(device)).eval()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the folder, whole or not at all; transformers and sentence-transformers load it."""
        target = Path(folder)
        with atomic_folder(target) as out, _transformer.quiet_transformers():
            state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
            # the place where releases before 5.0 of sentence-transformers look
            self.model.config.sentence_transformers = {"activation_fn": self.activation, "version": "5.0.0"}
            self.model.save_pretrained(str(out), state_dict=state)
            self.tokenizer.model_max_length = self.max_length
            self.tokenizer.save_pretrained(str(out))
            _folder.write_json(
                out / "config_sentence_transformers.json",
                {
                    "model_type": "CrossEncoder",
                    "activation_fn": self.activation,
                    "prompts": {},
                    "default_prompt_name": None,
                },
            )
            _transformer.make_readable(out)
        return target

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return raw scores, float32[N], for ids, mask and segment ids of shape [N, T]."""
        return _scores(self.model, input_ids, attention_mask, token_type_ids)

    def tokenize_pairs(
        self, queries: Sequence[str], documents: Sequence[str], max_length: int | None = None
    ) -> PairTokens:
        """Tokenise pairs `(queries[i], documents[i])`, cutting only the document to fit `max_length`.

        A query that alone takes more than three quarters of the room is cut to that, and counted. Each distinct text is
        tokenised once.
        Raises: RivalsError for lists of different lengths, a row that is not a string, or a max_length above the
        model's.
        """
        check_texts(queries, "query")
        check_texts(documents, "document")
        if len(queries) != len(documents):
            raise RivalsError(f"{len(queries)} queries but {len(documents)} documents; give one document a query")
        longest = self.max_length if max_length is None else max_length
        prefix, middle, suffix = self._template
        room = longest - len(prefix) - len(middle) - len(suffix)
        if longest > self.max_length or room < 2:
            raise RivalsError(f"max_length {longest} is not possible: this model reads up to {self.max_length} tokens")
        left, cut = self._distinct(queries, max(room * 3 // 4, 1))
        right, _ = self._distinct(documents, room)
        second_room = room - left.lengths
        kept = np.minimum(right.lengths, second_room)
        full_lengths = right.lengths
        parts: list[tuple[Tokens | list[int], np.ndarray | None]] = [
            (prefix, None),
            (left, left.lengths),
            (middle, None),
            (right, kept),
            (suffix, None),
        ]
        lengths = left.lengths + kept + (longest - room)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.empty(offsets[-1], dtype=np.int32)
        at = offsets[:-1].copy()
        second = np.zeros(len(queries), dtype=np.int64)
        for number, (source, counts) in enumerate(parts):
            if number == 3:
                second = at - offsets[:-1]
            if isinstance(source, Tokens):
                assert counts is not None
                begin = np.cumsum(counts) - counts
                steps = np.arange(int(counts.sum())) - np.repeat(begin, counts)
                ids[np.repeat(at, counts) + steps] = source.ids[np.repeat(source.offsets[:-1], counts) + steps]
                at = at + counts
            else:
                for token in source:
                    ids[at] = token
                    at = at + 1
        # a document at the full room may have lost its end before it came here
        truncated = int(((full_lengths > kept) | (full_lengths >= room)).sum())
        return PairTokens(Tokens(ids, offsets), second, truncated, cut, self._typed)

    def _distinct(self, texts: Sequence[str], limit: int) -> tuple[Tokens, int]:
        number: dict[str, int] = {}
        rows = np.fromiter((number.setdefault(text, len(number)) for text in texts), dtype=np.int64, count=len(texts))
        tokens = self.fast_tokenizer(list(number), max_length=limit, special=False)
        cut = int((tokens.lengths[rows] >= limit).sum()) if len(rows) else 0
        return tokens.take(rows), cut

    def score(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        max_length: int | None = None,
        max_tokens: int | None = None,
        dtype: str | None = None,
        progress: bool | str = True,
    ) -> np.ndarray:
        """Return the score of every pair `(queries[i], documents[i])`, float32[N], through the folder's activation.

        Pairs of all queries are sorted by length together and run in batches of at most `max_tokens` padded tokens, a
        stretch of 32,768 pairs at a time. dtype: None is the model's own; "int8", and "fast" where it pays, is for BERT on
        CPUs with VNNI and comes close to float32 (see `choose_dtype`).
        Raises: as `tokenize_pairs`; RivalsError for scores that are not finite.
        """
        check_texts(queries, "query")
        check_texts(documents, "document")
        if len(queries) != len(documents):
            raise RivalsError(f"{len(queries)} queries but {len(documents)} documents; give one document a query")
        kind = choose_dtype(dtype or self.dtype, self.device, self._bert())
        out = np.empty(len(queries), dtype=np.float32)
        label = progress if isinstance(progress, str) else "Scoring pairs"
        training = self.training
        self.eval()
        try:
            with torch.inference_mode(), show_progress(label, len(out), show=bool(progress)) as advance:
                reader = self._reader(kind)
                for start in range(0, len(out), _PAIRS):
                    part = slice(start, start + _PAIRS)
                    pairs = self.tokenize_pairs(queries[part], documents[part], max_length)
                    for rows, raw in self._batches(pairs, reader, kind, max_tokens):
                        out[start + rows] = (raw.sigmoid() if self.activation == _SIGMOID else raw).cpu().numpy()
                        advance(len(rows))
        finally:
            self.train(training)
        if not np.isfinite(out).all():
            row = int(np.flatnonzero(~np.isfinite(out))[0])
            raise RivalsError(
                f"the model gave a score that is not finite for the pair in row {row}; its weights are damaged"
            )
        return out

    def _bert(self) -> Any:
        """The transformer below the head where it can be read in int8 (BERT with a pooler), else None."""
        body = (
            getattr(self.model, "bert", None) if type(self.model).__name__ == "BertForSequenceClassification" else None
        )
        return None if getattr(body, "pooler", None) is None else body

    def _reader(self, kind: torch.dtype) -> Callable[..., torch.Tensor]:
        """What turns ids, mask and segment ids into raw scores in this precision."""
        if kind != torch.int8:
            return partial(_scores, self._frozen.get(self.model, kind))
        body = self._bert()
        small: Any = self._frozen.get(body, kind)

        def read(ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
            first = small.first(ids, mask, types)
            raw: torch.Tensor = self.model.classifier(body.pooler(first[:, None])).float().squeeze(-1)
            return raw

        return read

    def _batches(
        self, pairs: PairTokens, reader: Callable[..., torch.Tensor], kind: torch.dtype, max_tokens: int | None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield (rows, raw scores) of length-sorted batches."""
        multiple = 1 if self.device.type == "cpu" else 8
        standard = BATCH_TOKENS if kind == torch.int8 else default_budget(self.device)
        batches = token_batches(pairs.lengths, standard if max_tokens is None else max_tokens, multiple=multiple)

        def compute(rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
            with torch.inference_mode():
                pad = self.fast_tokenizer.pad_id
                return rows, reader(*pairs.pad(rows, pad_id=pad, multiple=multiple, device=self.device))

        yield from (in_threads if kind == torch.int8 else map)(compute, batches)

    def fingerprint(self) -> str:
        """Hash of weights and configuration; computed again only after the weights changed."""
        version = weights_version(self)
        if self._digest is None or self._digest[0] != version:
            about = f"{self.activation}|{config_text(self.model.config)}|{self.fast_tokenizer.text}"
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


def _scores(model: Any, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
    extra = {} if types is None else {"token_type_ids": types}
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, **extra).logits
    return logits.float().squeeze(-1)


def _score_layout(path: Path) -> tuple[Path, int | None, bool]:
    """Return (transformer folder, stated length, lower case) of a folder of any of the three kinds."""
    if not (path / "modules.json").exists():
        _folder.read_layout(path)  # raises when this is no model folder at all
        return path, None, False
    modules = _folder.read_json(path / "modules.json")
    names = [str(m.get("type", "")).rsplit(".", 1)[-1] for m in modules] if isinstance(modules, list) else []
    if names == ["Transformer"]:
        length, lower = _folder.transformer_settings(path / str(modules[0].get("path", "")), task=None)
        return path / str(modules[0].get("path", "")), length, lower
    layout = _folder.read_layout(path)
    return path / layout.transformer, layout.max_length, layout.lower_case


def _stated_activation(path: Path, config: Any) -> str:
    place = path / "config_sentence_transformers.json"
    stated = _folder.read_json(place).get("activation_fn") if place.exists() else None
    nested = getattr(config, "sentence_transformers", None)
    if stated is None and isinstance(nested, dict):
        stated = nested.get("activation_fn")
    if stated is None:
        stated = getattr(config, "sbert_ce_default_activation_function", None)
    known = {"Identity": _IDENTITY, "Sigmoid": _SIGMOID}
    name = "Sigmoid" if stated is None else str(stated).rsplit(".", 1)[-1]
    if name not in known:
        raise ModelError(f"{path}: activation {stated!r} is not known for scores; known are Identity and Sigmoid")
    return known[name]


def _start_head(root: Path, seed: int) -> Any:
    """Load an encoder as a sequence classifier with one output and draw what it lacks from `seed`."""
    model, missing = _transformer.load_transformer_with_report(
        root, kind="AutoModelForSequenceClassification", num_labels=1
    )
    body = [name for name in missing if name.startswith(model.base_model_prefix + ".") and ".pooler." not in name]
    if body:
        raise ModelError(f"{root}: {len(body)} weights are missing ({', '.join(body[:3])}, ...); restore the file")
    generator = torch.Generator().manual_seed(seed)
    spread = float(getattr(model.config, "initializer_range", 0.02) or 0.02)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in sorted(missing):
            if name in parameters:
                value = parameters[name]
                drawn = (
                    torch.randn(value.shape, generator=generator) * spread
                    if value.ndim > 1
                    else torch.zeros(value.shape)
                )
                value.copy_(drawn)
    return model
