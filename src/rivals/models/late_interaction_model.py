"""Late-interaction models: a vector for every token, scored by MaxSim, for whole documents or any part of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals import lists
from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_folder
from rivals.models import _transformer
from rivals.models._precision import choose_device, choose_dtype, weights_digest
from rivals.models.batching import FastTokenizer, TokenVectors, check_texts
from rivals.models.encoder import Encoder, Role
from rivals.models.folder import DenseSpec, Layout, resolve_model
from rivals.models.late_interaction import max_sim_pairs
from rivals.models.multi_vector_folder import (
    FolderFormat,
    MultiVectorLayout,
    QueryExpansion,
    dense_folder,
    read_multi_vector,
    write_multi_vector,
)
from rivals.models.pooling import Dense
from rivals.models.scored_tokens import ScoredTokens, Span, unit_of_tokens
from rivals.models.vocabulary import add_tokens

_IDENTITY = "torch.nn.modules.linear.Identity"


class LateInteraction(nn.Module):
    """A transformer and linear layers that give every token a unit vector; a document's score is MaxSim.

    Args:
        encoder: the transformer with its tokenizer; how it pools does not matter here.
        layout: markers, lengths, query expansion, what does not count, sum or mean (see `MultiVectorLayout`).
        head: the linear layers of `layout.head`.

    Formula: s(q, d) = (1 / |q|) sum_i max_j q_i . d_j over token vectors; "maxsim" leaves the division out.
    Shapes: forward int[B, T] ids and mask to float32 [B, T, D], unit length.
    When to use: re-ranking or retrieval where single words decide, and ranking of sentences from an index of passages.
    Equals: `sentence_transformers.MultiVectorEncoder` on the same folder (cosine >= 0.9999 in float32).
    Source: Khattab and Zaharia (2020), ColBERT; Reddy et al. (2024), AGRaME (paper 31).

    >>> model = LateInteraction.from_encoder(Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32"))
    >>> scores = model.score(["cats"], ["kittens and cats", "stock markets"])
    >>> scores.shape, bool(scores[0, 0] > scores[0, 1])
    ((1, 2), True)
    """

    def __init__(self, encoder: Encoder, layout: MultiVectorLayout, head: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        if len(head) != len(layout.head):
            raise RivalsError(f"the layout names {len(layout.head)} linear layers, {len(head)} were given")
        if layout.similarity not in ("maxsim", "meanmaxsim"):
            raise RivalsError(f"similarity is {layout.similarity!r}; use 'maxsim' or 'meanmaxsim'")
        self.encoder, self.layout, self.head = encoder, layout, nn.ModuleList(head)
        self._adapt()

    def _adapt(self) -> None:
        """Take over what depends on the tokenizer."""
        tokenizer, expansion = self.encoder.tokenizer, self.layout.expansion
        words = tokenizer.convert_tokens_to_ids(list(self.layout.skip)) if self.layout.skip else []
        self._skip = np.array([i for i in words if i is not None and i != tokenizer.unk_token_id], np.int64)
        self._filler = 0
        if expansion is not None:
            token = expansion.token or tokenizer.mask_token or tokenizer.eos_token
            if token is None or token not in tokenizer.get_vocab():
                raise ModelError(
                    f"queries cannot be expanded: the tokenizer has no token {token or '[MASK]'!r}; name another"
                )
            self._filler = int(tokenizer.convert_tokens_to_ids(token))

    @classmethod
    def from_encoder(
        cls,
        encoder: Encoder,
        *,
        dimension: int | None = None,
        layout: MultiVectorLayout = MultiVectorLayout(),  # noqa: B008 - frozen
        markers: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> LateInteraction:
        """Make a late-interaction model of an encoder's transformer, which both then share.

        dimension: of a linear layer after the transformer, drawn from `seed`; None = the transformer's own vectors, which work
        untrained. markers: tokens put before texts, by "query", "document" and "fine"; each becomes one new row of the vocabulary
        that starts from [CLS], "fine" from the query's marker.
        Raises: RivalsError for a dimension below 1 or an unknown marker's name.
        """
        if unknown := set(markers or {}) - {"query", "document", "fine"}:
            raise RivalsError(f"marker {min(unknown)!r} is not known; markers are for 'query', 'document' and 'fine'")
        head: list[nn.Module] = []
        if dimension is not None:
            if dimension < 1 or layout.head:
                raise RivalsError("dimension must be 1 or more, and the layout without linear layers of its own")
            spec = DenseSpec(encoder.hidden, dimension, bias=False, activation=_IDENTITY)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                head = [Dense(spec).to(encoder.device)]
            layout = replace(layout, head=(spec,))
        if markers:
            first = encoder.tokenizer.cls_token or encoder.tokenizer.bos_token or encoder.tokenizer.eos_token
            like = {markers[role]: first for role in ("query", "document") if role in markers}
            if "fine" in markers:
                like[markers["fine"]] = markers.get("query", first)
            add_tokens(encoder.backbone, encoder.tokenizer, like)
            encoder.fast_tokenizer = FastTokenizer(encoder.tokenizer)
            layout = replace(layout, prompts={**layout.prompts, **markers})
        return cls(encoder, layout, head).eval()

    @classmethod
    def load(
        cls, name: str | os.PathLike[str], *, device: str = "auto", dtype: str = "auto", max_length: int | None = None
    ) -> LateInteraction:
        """Load a folder in the multi-vector format of sentence-transformers or in that of PyLate.

        Raises: ModelError when the folder is missing, damaged, or holds another kind of model.
        """
        path = resolve_model(name)
        transformer, layout, stated, lower = read_multi_vector(path)
        root = path / transformer
        backbone = _transformer.load_transformer(root)
        tokenizer = _transformer.load_tokenizer(root, lower_case=lower)
        longest = _transformer.longest_input(path, backbone.config, tokenizer, stated)
        if max_length is not None and not 1 <= max_length <= longest:
            raise ModelError(f"max_length {max_length} is not possible: {path} reads 1 to {longest} tokens")
        whole = Layout(max_length=max_length or longest, lower_case=lower)
        encoder = Encoder(backbone, tokenizer, whole, [], dtype=dtype)
        model = cls(encoder, layout, [Dense.load(spec, path) for spec in layout.head])
        return model.to(choose_device(device)).eval()

    def save(self, folder: str | os.PathLike[str], *, form: FolderFormat = "sentence-transformers") -> Path:
        """Write the model folder, whole or not at all; sentence-transformers from 6.2 on reads either form, PyLate up to 3 its own."""
        from safetensors.torch import save_file

        encoder = self.encoder
        with atomic_folder(Path(folder)) as out:
            _transformer.save_transformer(
                out, encoder.backbone, encoder.tokenizer, also=encoder._unused, max_length=encoder.max_length
            )
            write_multi_vector(
                out, self.layout, max_length=encoder.max_length, lower_case=encoder.layout.lower_case, form=form
            )
            for index, layer in enumerate(self.head):
                weights = {name: value.detach().cpu().contiguous() for name, value in layer.state_dict().items()}
                save_file(weights, str(out / dense_folder(index) / "model.safetensors"), metadata={"format": "pt"})
            _transformer.make_readable(out)
        return Path(folder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def dimension(self) -> int:
        """Width of the token vectors."""
        return self.layout.head[-1].out_features if self.layout.head else self.encoder.hidden

    @property
    def reduction(self) -> Literal["mean", "sum"]:
        """What `max_sim` does over query tokens for this model."""
        return "mean" if self.layout.similarity == "meanmaxsim" else "sum"

    def fingerprint(self) -> str:
        """Hash of weights and layout."""
        return weights_digest(self.head, f"{self.encoder.fingerprint()}|{self.layout}")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit token vectors, float32 [B, T, D]."""
        return self.finish(self.encoder.token_vectors(input_ids, attention_mask))

    def finish(self, hidden: Tensor) -> Tensor:
        """Run the linear layers over the transformer's vectors [B, T, H] and divide by the norm, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            vectors = hidden.float()
            for layer in self.head:
                vectors = layer(vectors)
            return nn.functional.normalize(vectors, dim=-1)

    def prompt_for(self, role: Role, *, fine: bool = False) -> str:
        """The text put in front; `fine` is for queries that are to find a part of a document."""
        if role not in ("query", "document") or (fine and role != "query"):
            raise RivalsError(f"role is {role!r}; it must be 'query' (fine or not) or 'document'")
        if fine and "fine" not in self.layout.prompts:
            raise RivalsError("this model has no marker for fine queries; give markers={'fine': ...} to from_encoder")
        return self.layout.prompts.get("fine" if fine else role, "")

    def tokenize(
        self, texts: Sequence[str], role: Role, *, fine: bool = False, longest: int | None = None
    ) -> ScoredTokens:
        """Tokenise queries or documents, cut at their length (or `longest`, if smaller), queries expanded as the layout says."""
        check_texts(texts)
        prompt, limit = self.prompt_for(role, fine=fine), self._limit(role, longest)
        plain = self.encoder.fast_tokenizer(texts, max_length=limit, prompt=prompt)
        expansion = self.layout.expansion if role == "query" else None
        if expansion is None:
            scored = np.ones(len(plain.ids), bool) if role == "query" else ~np.isin(plain.ids, self._skip)
            return ScoredTokens(plain.ids, plain.offsets, 0, plain.truncated, plain.lengths, scored)
        floor = min(expansion.length, limit)
        lengths = np.maximum(plain.lengths, floor)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        own = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) < np.repeat(plain.lengths, lengths)
        ids = np.full(offsets[-1], self._filler, np.int32)
        ids[own] = plain.ids
        attended = lengths if expansion.attend else plain.lengths
        return ScoredTokens(ids, offsets, 0, plain.truncated, attended, np.ones(len(ids), bool))

    def _limit(self, role: Role, longest: int | None = None) -> int:
        expansion, own = self.layout.expansion, self.encoder.max_length
        stated = self.layout.query_length if role == "query" else self.layout.document_length
        if role == "query" and expansion is not None and expansion.fixed:
            stated = expansion.length
        return min(own, stated or own, longest or own)

    def encode(
        self,
        texts: Sequence[str],
        role: Role,
        *,
        fine: bool = False,
        max_tokens: int | None = None,
        dtype: str | None = None,
        storage: Literal["float16", "float32"] = "float16",
        progress: bool | str = True,
    ) -> TokenVectors:
        """Return the unit vectors of all tokens that count in MaxSim, in the texts' order.

        storage: float16 halves the memory. The other arguments are those of `Encoder.encode`.
        Raises: RivalsError for a row that is not a string, or for vectors that are not finite.
        """
        tokens = self.tokenize(texts, role, fine=fine)
        kind = choose_dtype(dtype or self.encoder.dtype, self.device, self.encoder.backbone)
        if kind == torch.int8 and bool((tokens.attended < tokens.lengths).any()):
            kind = torch.float32  # the int8 kernels do not compute tokens that no other sees
        kept_before = np.concatenate([[0], np.cumsum(tokens.scored)])
        out = np.empty((int(kept_before[-1]), self.dimension), dtype=storage)

        def use(rows: np.ndarray, hidden: Tensor, mask: Tensor) -> None:
            scored = tokens.scored_mask(rows, hidden.shape[1])
            vectors = self.finish(hidden)[torch.from_numpy(scored).to(hidden.device)].cpu().numpy()
            if not np.isfinite(vectors).all():
                raise RivalsError("the model gave token vectors that are not finite; its weights are damaged")
            index, _ = lists.take_segments(tokens.offsets, rows)
            out[kept_before[index[tokens.scored[index]]]] = vectors

        training = self.training
        self.eval()
        try:
            label = progress if isinstance(progress, str) else "Encoding tokens"
            self.encoder._run(tokens, kind, max_tokens, label, bool(progress), use)
        finally:
            self.train(training)
        return TokenVectors(out, kept_before[tokens.offsets], tokens.ids[tokens.scored])

    def token_spans(self, texts: Sequence[str], role: Role, *, fine: bool = False) -> NDArray[np.int64]:
        """Return where in its text each token that `encode` gives lies, int64[total, 2]; (-1, -1) for markers and the like."""
        tokens = self.tokenize(texts, role, fine=fine)
        found = self.encoder.fast_tokenizer.spans(
            texts, max_length=self._limit(role), prompt=self.prompt_for(role, fine=fine)
        )
        spans = np.full((len(tokens.ids), 2), -1, np.int64)
        places = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], tokens.lengths)
        own = self.encoder.fast_tokenizer(texts, max_length=self._limit(role), prompt=self.prompt_for(role, fine=fine))
        spans[places < np.repeat(own.lengths, tokens.lengths)] = found
        return spans[tokens.scored]

    def score(self, queries: Sequence[str], documents: Sequence[str], *, fine: bool = False) -> NDArray[np.float32]:
        """Return the scores of every query with every document, float32[Q, C]."""
        rows = np.repeat(np.arange(len(queries)), len(documents)), np.tile(np.arange(len(documents)), len(queries))
        return self.score_pairs(queries, documents, *rows, fine=fine).reshape(len(queries), len(documents))

    def score_pairs(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        query_row: NDArray[np.int64],
        document_row: NDArray[np.int64],
        *,
        fine: bool = False,
    ) -> NDArray[np.float32]:
        """Return the scores of listed pairs, float32[m], such as the candidates of a run (its `query` and `document`)."""
        asked = self.encode(queries, "query", fine=fine, storage="float32", progress=False)
        found = self.encode(documents, "document", storage="float32", progress=False)
        return self._scaled(max_sim_pairs(asked, found, query_row, document_row, device=self.device), asked, query_row)

    def _scaled(self, scores: NDArray[np.float32], asked: TokenVectors, row: NDArray[np.int64]) -> NDArray[np.float32]:
        return scores if self.reduction == "mean" else scores * np.diff(asked.offsets)[row].astype(np.float32)

    def score_units(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        units: Sequence[Sequence[Span]],
        *,
        alpha: float = 1.0,
        fine: bool | None = None,
        parts: Sequence[Span] | None = None,
    ) -> NDArray[np.float32]:
        """Return the scores of every unit of every document for every query, float32[Q, units]; -inf for a unit without a token.

        units: of each document, the (first, past last) characters of its units, rising and apart. A unit's score is its own MaxSim,
        by the fine query where the model has a marker for it (`fine` None), plus alpha times its document's by the coarse one.
        parts: the span of each query that counts (a proposition in its sentence); the whole query is encoded.
        Source: Reddy et al. (2024), AGRaME, section 2 (paper 31).
        Raises: RivalsError for spans that overlap or leave their text, a part without a token.
        """
        fine = "fine" in self.layout.prompts if fine is None else fine
        found = self.encode(documents, "document", storage="float32", progress=False)
        owner = unit_of_tokens(self.token_spans(documents, "document"), found.offsets, units, documents)
        total = sum(len(own) for own in units)
        order = np.argsort(owner, kind="stable")[int((owner < 0).sum()) :]
        sizes = np.bincount(owner[owner >= 0], minlength=total)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        pieces = TokenVectors(found.vectors[order], offsets, found.ids[order])
        row = np.repeat(np.arange(len(queries)), total)
        fine_queries = self._asked(queries, fine, parts)
        unit = np.tile(np.arange(total), len(queries))
        scores = self._scaled(max_sim_pairs(fine_queries, pieces, row, unit, device=self.device), fine_queries, row)
        scores = scores.reshape(len(queries), total)
        if alpha:
            coarse = self._asked(queries, False, parts) if fine else fine_queries
            rows = np.repeat(np.arange(len(queries)), len(documents))
            columns = np.tile(np.arange(len(documents)), len(queries))
            whole = self._scaled(max_sim_pairs(coarse, found, rows, columns, device=self.device), coarse, rows)
            passage = np.repeat(np.arange(len(documents)), [len(own) for own in units])
            scores = scores + np.float32(alpha) * whole.reshape(len(queries), -1)[:, passage]
        scores[:, sizes == 0] = -np.inf
        return scores

    def _asked(self, queries: Sequence[str], fine: bool, parts: Sequence[Span] | None) -> TokenVectors:
        """Encode queries; with `parts` only the tokens inside each one's span are kept."""
        asked = self.encode(queries, "query", fine=fine, storage="float32", progress=False)
        if parts is None:
            return asked
        if len(parts) != len(queries):
            raise RivalsError(f"there are {len(parts)} parts for {len(queries)} queries; give one span each")
        spans = self.token_spans(queries, "query", fine=fine)
        inside = unit_of_tokens(spans, asked.offsets, [[part] for part in parts], queries) >= 0
        before = np.concatenate([[0], np.cumsum(inside)])[asked.offsets]
        if (empty := np.diff(before) == 0).any():
            raise RivalsError(
                f"the part of query {int(empty.argmax())} holds no token; check its span or the query's length"
            )
        return TokenVectors(asked.vectors[inside], before, asked.ids[inside])


__all__ = ["LateInteraction", "MultiVectorLayout", "QueryExpansion", "ScoredTokens"]
