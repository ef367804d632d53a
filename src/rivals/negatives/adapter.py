"""A retriever adapter: a small network over pairs of vectors that learns to tell false negatives from true ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals import lists
from rivals.data.run import Run
from rivals.errors import ModelError, RivalsError
from rivals.files import atomic_file
from rivals.negatives.filters import known_positives
from rivals.negatives.vector_source import VectorSource, vectors_of
from rivals.progress import progress

_FORMAT = "rivals-retriever-adapter-1"


class RetrieverAdapter(nn.Module):
    """Moves a candidate's vector along the line to the query's; how far says how likely it is relevant.

        z = [sqrt(D) (q - c) ; D (q * c) ; sqrt(D) (q + c)],  a = c + MLP(z)
        p = sigmoid(kappa (cos(q, a) - cos(a, c)) + beta)

    The MLP has one GELU layer and starts at 0 (a = c), kappa = 10 and beta = 0 are learnt. p is near 1 where a came
    close to the query, near 0 where it stayed with the candidate. Adapted vectors depend on the query, so they cannot
    be indexed: use the adapter on a run's candidates, O(D hidden) each.

    Args:
        dim: D, the width of the retriever's vectors. hidden: of the MLP, `dim` by default. seed: of the weights.
        encoder: fingerprint of the encoder whose vectors it reads; "" = not known, not checked.

    Source: RRRA (2025), the adapter and its residual (paper 20). How p comes of the two cosines is our reading; the
    scales of z, which bring the parts of unit vectors to size 1, are ours.

    Raises:
        RivalsError: dim or hidden below 1; called with vectors of another width.

    >>> adapter = RetrieverAdapter(2)
    >>> q, c = torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> adapter(q, c).tolist() == c.tolist(), adapter.false_negative_probability(q, c).tolist()
    (True, [[0.5, 4.539...e-05]])
    """

    def __init__(self, dim: int, hidden: int | None = None, *, seed: int = 0, encoder: str = "") -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        if dim < 1 or hidden < 1:
            raise RivalsError(f"dim and hidden must be 1 or more, not {dim} and {hidden}")
        self.dim, self.hidden, self.encoder = dim, hidden, encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner, self.outer = nn.Linear(3 * dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.kappa, self.beta = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return the adapted vectors float[B, C, D] of candidates[B, C, D] for queries[B, D]."""
        width = (queries.shape[-1], candidates.shape[-1])
        if width != (self.dim, self.dim) or candidates.ndim != 3 or queries.shape != candidates.shape[::2]:
            raise RivalsError(
                f"the adapter reads queries [B, {self.dim}] and candidates [B, C, {self.dim}]; got "
                f"{tuple(queries.shape)} and {tuple(candidates.shape)}"
            )
        asked = queries.unsqueeze(1)
        scale = math.sqrt(self.dim)
        parts = (scale * (asked - candidates), self.dim * asked * candidates, scale * (asked + candidates))
        return candidates + self.outer(F.gelu(self.inner(torch.cat(parts, -1))))

    def similarities(self, queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cos(q, a) and cos(a, c), float[B, C], and a, the adapted vectors."""
        adapted = self(queries, candidates)
        asked = queries.unsqueeze(1)
        return F.cosine_similarity(asked, adapted, dim=-1), F.cosine_similarity(adapted, candidates, dim=-1), adapted

    def logits(self, queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-odds of being relevant, float[B, C], and the adapted vectors."""
        to_query, to_candidate, adapted = self.similarities(queries, candidates)
        return self.kappa * (to_query - to_candidate) + self.beta, adapted

    def false_negative_probability(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return p, float[B, C], of candidates[B, C, D] for queries[B, D]."""
        return self.logits(queries, candidates)[0].sigmoid()

    def save(self, path: str | Path) -> None:
        """Write the adapter to one safetensors file, whole or not at all."""
        from safetensors.torch import save

        about = {"format": _FORMAT, "dim": str(self.dim), "hidden": str(self.hidden), "encoder": self.encoder}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic_file(path, "wb") as out:
            out.write(save(tensors, about))

    @classmethod
    def load(cls, path: str | Path) -> RetrieverAdapter:
        """Read what `save` wrote.

        Raises:
            ModelError: the file is missing, damaged or no adapter.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise ModelError(f"{path} holds no adapter of the format {_FORMAT}; train and save it again")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            adapter = cls(int(about["dim"]), int(about["hidden"]), encoder=about["encoder"])
            adapter.load_state_dict(tensors)
        except ModelError:
            raise
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path} cannot be read ({error}); train and save the adapter again") from None
        return adapter.eval()


def line_penalty(queries: Tensor, candidates: Tensor, adapted: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared distance of adapted vectors from the segment between their candidate and their query.

    min over alpha in [0, 1] of |a - (alpha q + (1 - alpha) c)|^2, alpha = clip(<a - c, q - c> / |q - c|^2, 0, 1), or 0
    where q = c.

    Shapes: queries float[B, D], candidates and adapted float[B, C, D], mask bool[B, C] -> scalar, 0 without any pair.

    Source: RRRA (2025), the line constraint (paper 20).

    Raises:
        RivalsError: shapes that do not fit, a mask that is not boolean.

    >>> q, c, a = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1, 2), torch.tensor([[[0.5, 0.2]]])
    >>> line_penalty(q, c, a)
    tensor(0.0400)
    """
    if candidates.shape != adapted.shape or candidates.ndim != 3 or queries.shape != candidates.shape[::2]:
        raise RivalsError(
            f"queries [B, D] need candidates and adapted vectors [B, C, D]; got {tuple(queries.shape)}, "
            f"{tuple(candidates.shape)} and {tuple(adapted.shape)}"
        )
    _check_pairs(mask, candidates[..., 0], "mask")
    way, gone = queries.unsqueeze(1) - candidates, adapted - candidates
    length = way.square().sum(-1)
    alpha = (gone * way).sum(-1) / length.where(length > 0, torch.ones_like(length))
    alpha = alpha.clamp(0.0, 1.0).where(length > 0, torch.zeros_like(length)).detach()  # the minimum: no gradient of it
    distance = (gone - alpha.unsqueeze(-1) * way).square().sum(-1)
    return _mean(distance, torch.ones_like(distance, dtype=torch.bool) if mask is None else mask)


class AdapterLoss(NamedTuple):
    """The two parts of an adapter's loss: of telling relevant from not, and of staying on the line."""

    classification: Tensor
    line: Tensor


def adapter_loss(
    adapter: RetrieverAdapter, queries: Tensor, candidates: Tensor, relevance: Tensor, mask: Tensor | None = None
) -> AdapterLoss:
    """Return the losses of an adapter over pairs: binary cross entropy, both classes weighing the same, and `line_penalty`.

    Stage 2 (the adapter alone, frozen vectors) minimises their sum; stage 3 (with the encoder) adds 0.1 times the
    classification to the contrastive loss.

    Shapes: queries float[B, D], candidates float[B, C, D], relevance [B, C] (above 0 = relevant), mask bool[B, C]
    (False: not judged, left out) -> two scalars. A class without any pair counts 0.

    Source: RRRA (2025), stages 2 and 3 (paper 20); the two-class form and 0.1 are ours, four classes by the retriever's
    decision are the paper's.

    Raises:
        RivalsError: shapes that do not fit, a mask that is not boolean.

    >>> q, c = torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> [round(float(part.detach()), 4) for part in adapter_loss(RetrieverAdapter(2), q, c, torch.tensor([[1, 0]]))]
    [0.3466, 0.0]
    """
    _check_pairs(mask, candidates[..., 0], "mask")
    if relevance.shape != candidates.shape[:2]:
        raise RivalsError(f"relevance must have shape {tuple(candidates.shape[:2])}; got {tuple(relevance.shape)}")
    logits, adapted = adapter.logits(queries, candidates)
    there = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask
    positive = relevance > 0
    terms = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    both = [_mean(terms, there & chosen) for chosen in (positive, ~positive)]
    return AdapterLoss((both[0] + both[1]) / 2, line_penalty(queries, candidates, adapted, there))


class TrainedAdapter(NamedTuple):
    """A trained adapter, its mean losses by epoch, and the queries: trained on, and left out for want of a positive."""

    adapter: RetrieverAdapter
    losses: tuple[tuple[float, float], ...]
    queries: int
    without_positive: int


def train_adapter(
    run: Run,
    source: VectorSource,
    *,
    hard: int = 20,
    random: int = 4,
    low_ranked: int = 4,
    hidden: int | None = 64,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    line_weight: float = 10.0,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> TrainedAdapter:
    """Train a retriever adapter on frozen vectors: known positives against random and low-ranked documents.

    What ranks in a query's first `hard` without being known to be relevant is never trained on: whether it is a false
    negative is what the adapter is to say. Queries with several known positives teach most.

    Args:
        run: candidates of the training queries with their positives, `source(dataset, 200)`. source: the retriever
            whose vectors the adapter reads, such as `Dense`. hard: see above. random, low_ranked: negatives a query and
            visit, of all documents and of the run's ranks from `hard` on. hidden: see `RetrieverAdapter`; 64 is as good
            as the vectors' width and several times faster. epochs: passes over the queries; a hundred steps suffice.
            line_weight: of `line_penalty`; 10 suits vectors of length 1, and at 1 the adapter overfits.

    Source: RRRA (2025), stage 2 (paper 20). Which pairs count as what is our reading; sizes and rates are ours, by
    MedQuAD's questions with several answers.

    Raises:
        RivalsError: options out of range, a run over other documents than the source's, no query with a positive, no
        negative to learn from, vectors that are not finite.

    >>> from rivals.data import Collection
    >>> generator = np.random.default_rng(0)
    >>> class Given:
    ...     documents = Collection([str(i) for i in range(40)])
    ...     vectors = generator.normal(size=(40, 4)).astype(np.float32)
    ...     def query_vectors(self, queries):
    ...         return self.vectors[: len(queries)]
    >>> source, queries = Given(), Collection([str(i) for i in range(20)], name="query")
    >>> known = (np.arange(21), np.arange(20))  # query i is document i
    >>> run = Run.build(queries, source.documents, np.zeros(21), [], [], positives=known)
    >>> trained = train_adapter(run, source, epochs=30)
    >>> trained.queries, trained.losses[-1][0] < trained.losses[0][0]
    (20, True)
    """
    _check_options(hard, random, low_ranked, epochs, batch_size, learning_rate, weight_decay, line_weight)
    queries, documents = vectors_of(run, source)
    pairs = _Pairs(run, hard, random, low_ranked)
    if not np.isfinite(queries).all():
        raise RivalsError("the query vectors hold NaN or infinity")
    adapter = RetrieverAdapter(
        documents.shape[1], hidden, seed=seed, encoder=str(getattr(source, "fingerprint", ""))
    ).to(device)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=learning_rate, weight_decay=weight_decay)
    losses = []
    steps = epochs * -(-len(pairs.asked) // batch_size)
    with progress("Training the retriever adapter", steps, show=show) as advance:
        for epoch in range(epochs):
            generator = np.random.default_rng([seed, 20, epoch])
            order = generator.permutation(pairs.asked)
            total = np.zeros(2)
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                document, mask = pairs.draw(rows, generator)
                relevance = torch.zeros(document.shape, device=device)
                relevance[:, 0] = 1
                candidates = torch.from_numpy(np.asarray(documents[document], dtype=np.float32)).to(device)
                asked = torch.from_numpy(queries[rows]).to(device)
                loss = adapter_loss(adapter, asked, candidates, relevance, torch.from_numpy(mask).to(device))
                optimizer.zero_grad()
                (loss.classification + line_weight * loss.line).backward()
                optimizer.step()
                total += len(rows) * np.array([float(loss.classification.detach()), float(loss.line.detach())])
                advance(1)
            if not np.isfinite(total).all():
                raise RivalsError(
                    f"the adapter's loss is {total.sum()} in epoch {epoch}; look for NaN in the document vectors, or "
                    "lower the learning rate"
                )
            mean = total / len(order)
            losses.append((float(mean[0]), float(mean[1])))
    left_out = len(run.queries) - len(pairs.asked)
    return TrainedAdapter(adapter.cpu().eval(), tuple(losses), len(pairs.asked), left_out)


class _Pairs:
    """Draws training pairs: a positive of every query, then random documents and low-ranked candidates."""

    def __init__(self, run: Run, hard: int, random: int, low_ranked: int) -> None:
        self.run, self.random, self.low_ranked = run, random, low_ranked
        self.size = len(run.documents)
        self.asked = np.flatnonzero(np.diff(run.positive_offsets) > 0)
        if not len(self.asked):
            raise RivalsError(
                "no query has a known positive to learn from; call the retriever with the dataset, source(dataset, 200)"
            )
        first = run.rank < hard
        low = ~first & ~known_positives(run)
        self.low, self.low_offsets = run.document[low], lists.keep_values(low, run.offsets)
        owner = lists.segment_ids(run.positive_offsets)
        keys = np.concatenate([owner * self.size + run.positive, run.query[first] * self.size + run.document[first]])
        self.held = np.unique(keys)  # positives and hard candidates are no random negatives
        drawable = (random > 0) & (np.bincount(self.held // max(self.size, 1), minlength=len(run.queries)) < self.size)
        if not (drawable | ((low_ranked > 0) & (np.diff(self.low_offsets) > 0)))[self.asked].any():
            raise RivalsError(
                f"there is no negative to learn from: all {self.size} documents are positives or among the first {hard} "
                "candidates, which are left out; lower `hard`"
            )

    def draw(self, rows: NDArray[np.int64], generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return documents int64[B, 1 + random + low_ranked] for queries int64[B], and which of them count."""
        count = len(rows)
        positive, _ = _one_of(self.run.positive, self.run.positive_offsets, rows, generator.random((count, 1)))
        anything = generator.integers(0, self.size, (count, self.random))
        keys = rows[:, None] * self.size + anything
        place = np.minimum(np.searchsorted(self.held, keys), len(self.held) - 1)
        free = self.held[place] != keys
        low, there = _one_of(self.low, self.low_offsets, rows, generator.random((count, self.low_ranked)))
        sure = np.ones((count, 1), bool)
        return np.concatenate([positive, anything, low], 1), np.concatenate([sure, free, there], 1)


def _one_of(
    values: NDArray[np.int64], offsets: NDArray[np.int64], rows: NDArray[np.int64], share: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each share[B, k] in [0, 1) a member of the row's list, and whether it has one (else 0)."""
    length = np.diff(offsets)[rows, None]
    there = np.broadcast_to(length > 0, share.shape)
    place = np.where(there, offsets[:-1][rows, None] + (share * length).astype(np.int64), 0)
    return np.where(there, values[place] if len(values) else 0, 0), there


def check_encoder(adapter: RetrieverAdapter, source: VectorSource) -> None:
    """Raise a RivalsError if the source's encoder is known not to be the one whose vectors the adapter was trained on."""
    now = str(getattr(source, "fingerprint", ""))
    if adapter.encoder and now and adapter.encoder != now:
        raise RivalsError(
            "the adapter was trained on another encoder's vectors; train it again, or set its `encoder` to "
            "the fingerprint of the encoder it was trained along with"
        )


def _check_options(
    hard: int,
    random: int,
    low_ranked: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    line_weight: float,
) -> None:
    for name, value, least in (
        ("hard", hard, 0),
        ("random", random, 0),
        ("low_ranked", low_ranked, 0),
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("weight_decay", weight_decay, 0),
        ("line_weight", line_weight, 0),
    ):
        if not (math.isfinite(value) and value >= least):
            raise RivalsError(f"{name} must be {least} or more, not {value!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise RivalsError(f"learning_rate must be above 0, not {learning_rate!r}")


def _check_pairs(mask: Tensor | None, like: Tensor, name: str) -> None:
    if mask is not None and (mask.shape != like.shape or mask.dtype != torch.bool):
        raise RivalsError(f"{name} must be bool{list(like.shape)}; got {mask.dtype} {list(mask.shape)}")


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)
