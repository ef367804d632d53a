"""A trained retriever adapter at work: filling false-negative probabilities, and re-ranking."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import ModelError, RivalsError
from rivals.files import checksum
from rivals.models.rerank import SPEC, VERSION, SecondStage
from rivals.negatives.adapter import RetrieverAdapter, check_encoder
from rivals.negatives.filters import known_positives
from rivals.negatives.vector_source import VectorSource, row_blocks, vectors_of

_FILE = "adapter.safetensors"


def pair_outputs(
    adapter: RetrieverAdapter, run: Run, source: VectorSource, *, of: Literal["probability", "similarity"]
) -> NDArray[np.float32]:
    """Return the false-negative probability, or cos(q, a), of every candidate of a run, float32[n].

    Raises:
        RivalsError: vectors of another width or encoder than the adapter's, a source over other documents.
    """
    queries, documents = vectors_of(run, source)
    check_encoder(adapter, source)
    if documents.shape[1] != adapter.dim:
        raise RivalsError(f"the adapter reads vectors of width {adapter.dim}, the source has {documents.shape[1]}")
    asked, out, weight = run.query, np.empty(len(run), np.float32), adapter.inner.weight
    was = adapter.training
    adapter.eval()
    with torch.inference_mode():
        for part in row_blocks(len(run), 4 * adapter.dim):
            rows = np.asarray(documents[run.document[part]], dtype=np.float32)
            pairs = [torch.from_numpy(v).to(weight.device, weight.dtype) for v in (queries[asked[part]], rows[:, None])]
            found = (
                adapter.false_negative_probability(*pairs) if of == "probability" else adapter.similarities(*pairs)[0]
            )
            out[part] = found[:, 0].float().cpu().numpy()
    adapter.train(was)
    return out


@dataclass(frozen=True, eq=False)
class AdapterFilter(Transform):
    """Fill `fn_probability` of every candidate by a trained adapter; with a threshold, mark what lies above it.

    A candidate's probability says how likely it is an unlabelled positive. `Resample` draws the fewer of them the
    likelier; with `threshold` they are marked (known positives are left to `KnownPositives`).

    Args:
        adapter: see `train_adapter`. source: the retriever whose vectors it reads, such as `Dense`. threshold: mark
            candidates of at least this probability, in (0, 1]; None marks none. Classes weigh the same in training, so
            0.5 is not the share of false negatives but the point where both are as likely had they been as many.

    Source: RRRA (2025), s_FN (paper 20).

    Raises:
        RivalsError: a threshold out of range; called on a run over other documents, or with vectors of another width
        or encoder than the adapter's.

    >>> from rivals.data import Collection
    >>> class Given:
    ...     documents, vectors = Collection(["a", "b"]), np.eye(2, dtype=np.float32)
    ...     def query_vectors(self, queries):
    ...         return np.array([[1.0, 0.0]], np.float32)
    >>> source = Given()
    >>> run = Run.build(Collection(["q"]), source.documents, [0, 2], [0, 1], [1.0, 0.0])
    >>> AdapterFilter(RetrieverAdapter(2), source, threshold=0.5)(run).keep.tolist()
    [False, True]
    """

    adapter: RetrieverAdapter
    source: VectorSource
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise RivalsError(f"threshold must lie in (0, 1], not {self.threshold!r}")

    def __call__(self, run: Run) -> Run:
        probability = pair_outputs(self.adapter, run, self.source, of="probability")
        run = run.replace(fn_probability=probability)
        if self.threshold is None:
            return run
        suspected = (probability >= self.threshold) & ~known_positives(run)
        return run.mark(suspected, f"adapter false negative {self.threshold:g}")

    def __repr__(self) -> str:
        return "AdapterFilter()" if self.threshold is None else f"AdapterFilter(threshold={self.threshold:g})"


def adapter_scores(
    scores: Any, similarity: Any, *, power: float = 1.0, score_kind: str = "cosine"
) -> NDArray[np.float32]:
    """Return base * ((1 + similarity) / 2) ** power, base = (1 + score) / 2 for cosines, else the score itself.

    Args:
        scores, similarity: float[...], the first stage's scores and cos(q, a). power: 0 or more; 0 keeps the order.

    Source: RRRA (2025), s_RR (paper 20); the shifts that keep products from turning the order of negative cosines round
    are ours, and so is power 1.

    Raises:
        RivalsError: power below 0 or not finite, scores of no cosine kind that are not above 0.

    >>> adapter_scores([0.6, 0.5], [0.0, 1.0]).round(3).tolist()
    [0.4000000059604645, 0.75]
    """
    if not (math.isfinite(power) and power >= 0):
        raise RivalsError(f"power must be a finite number, 0 or more, not {power!r}")
    base = np.asarray(scores, np.float32)
    if score_kind == "cosine":
        base = np.maximum((1 + base) / 2, 0)
    elif base.size and not base.min() > 0:
        raise RivalsError(
            f"scores of kind '{score_kind}' reach {base.min():g}, and a product needs them above 0; re-rank cosines or "
            "probabilities"
        )
    shifted = np.clip((1 + np.asarray(similarity, np.float32)) / 2, 0, 1)
    return (base * shifted**power).astype(np.float32)


@dataclass
class AdapterReranker(SecondStage):
    """Re-rank the head of a run by the first stage's score times the adapter's, (1 + cos(q, a)) / 2, to a power.

    Formula: `adapter_scores`. No cross-encoder, no text: microseconds a candidate.

    Args:
        adapter: see `train_adapter`. source: the retriever whose vectors it reads. power: of the adapter's score.
        depth: how many candidates are re-scored.

    Source: RRRA (2025), re-ranking (paper 20).

    Raises:
        RivalsError: power below 0, depth below 1; called as in `AdapterFilter`, and on scores `adapter_scores` refuses.

    >>> from rivals.data import Collection
    >>> class Given:
    ...     documents, vectors = Collection(["a", "b"]), np.eye(2, dtype=np.float32)
    ...     def query_vectors(self, queries):
    ...         return np.array([[0.6, 0.8]], np.float32)
    >>> source = Given()
    >>> run = Run.build(Collection(["q"]), source.documents, [0, 2], [0, 1], [0.6, 0.8], score_kind="cosine")
    >>> AdapterReranker(RetrieverAdapter(2), source)(run).score.round(2).tolist()
    [0.8100000023841858, 0.6399999856948853]
    """

    adapter: RetrieverAdapter
    source: VectorSource
    power: float = 1.0
    depth: int = 50
    kind = "adapter"

    def __post_init__(self) -> None:
        adapter_scores([], [], power=self.power)
        if self.depth < 1:
            raise RivalsError(f"depth must be 1 or more, not {self.depth}")

    def score_head(self, head: Run) -> NDArray[np.float32]:
        """Return the new scores of all candidates of a run that holds heads only, float32[n]."""
        similarity = pair_outputs(self.adapter, head, self.source, of="similarity")
        return adapter_scores(head.score, similarity, power=self.power, score_kind=head.score_kind)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the adapter into a folder and return what `load` needs to know."""
        self.adapter.save(folder / _FILE)
        return {"power": self.power}

    @classmethod
    def load(cls, folder: str | Path, source: VectorSource) -> AdapterReranker:
        """Load what `save` wrote, for the retriever whose vectors it reads.

        Raises:
            ModelError: the folder is missing, damaged, of another version or holds another second stage.
            RivalsError: the source's encoder is not the adapter's.
        """
        inside = Path(folder)
        try:
            about = json.loads((inside / SPEC).read_text(encoding="utf-8"))
            found = {"version": about["version"], "kind": about["kind"], "checksum": about["checksums"].get(_FILE)}
            power, depth = float(about["power"]) if about["kind"] == cls.kind else 0.0, int(about["depth"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{inside / SPEC} cannot be read ({error}); save the second stage again") from None
        if (found["version"], found["kind"]) != (VERSION, cls.kind):
            raise ModelError(
                f"{inside} holds a second stage '{found['kind']}' of version {found['version']}, not '{cls.kind}' of "
                f"version {VERSION}"
            )
        adapter = RetrieverAdapter.load(inside / _FILE)
        if checksum(inside / _FILE) != found["checksum"]:
            raise ModelError(f"{inside / _FILE} is damaged (its checksum differs); save the second stage again")
        check_encoder(adapter, source)
        return cls(adapter, source, power, depth)
