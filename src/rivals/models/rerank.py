"""Second stages: transforms that re-score the head of a run, saved and loaded as one folder."""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import ModelError
from rivals.files import atomic_folder, checksum
from rivals.models.cross_encoder import CrossEncoder
from rivals.models.encoder import Encoder
from rivals.models.list_ranker import ContextRanker
from rivals.models.pair_features import FEATURES, PairFeatures
from rivals.models.token_store import TokenStore

SPEC = "second_stage.json"
VERSION = 1
NAME = "rerank"


class SecondStage(Transform):
    """Re-scores the first `depth` candidates of every query; the rest keep their order below them."""

    kind: str
    depth: int

    @abstractmethod
    def score_head(self, head: Run) -> NDArray[np.float32]:
        """Return the new scores of all candidates of a run that holds heads only, float32[n]."""

    def over(self, documents: Collection, others: Collection) -> SecondStage:
        """Return the same second stage for other documents than those it was made for: itself, where it stores none.

        Raises:
            RivalsError: it was not made for `documents`.
        """
        stored = getattr(self, "features", None)
        if not isinstance(stored, PairFeatures):
            return self
        return replace(self, features=stored.over(documents, others))  # type: ignore[type-var]

    def __call__(self, run: Run) -> Run:
        inside = run.rank < self.depth
        head = run.select(inside)
        score = np.empty(len(run), np.float32)
        score[inside] = self.score_head(head)
        if not inside.all():
            lowest = lists.segment_reduce(np.minimum, score[inside], head.offsets, empty=0.0)
            step = np.maximum(1e-3, 1e-6 * np.abs(lowest))  # large enough to tell float32 scores of that size apart
            below = run.query[~inside]
            score[~inside] = lowest[below] - step[below] * (1 + run.rank[~inside] - self.depth)
        return run.rescored(score, scorer=NAME)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(depth={self.depth})"

    @abstractmethod
    def write(self, folder: Path) -> dict[str, Any]:
        """Write the parts into a folder and return what `load_reranker` needs to know."""

    def save(self, folder: Path) -> None:
        """Write the second stage, whole or not at all."""
        with atomic_folder(folder) as inside:
            about = {"version": VERSION, "kind": self.kind, "depth": self.depth, **self.write(inside)}
            about["checksums"] = {
                path.relative_to(inside).as_posix(): checksum(path)
                for path in sorted(inside.rglob("*"))
                if path.is_file()
            }
            (inside / SPEC).write_text(json.dumps(about, indent=2), encoding="utf-8")


@dataclass(repr=False)
class LateInteractionReranker(SecondStage):
    """(1 - weight) times the first stage's cosine plus `weight` times MaxSim over token vectors.

    Source: Khattab and Zaharia (2020), ColBERT; the mixture with the pooled cosine is ours.
    """

    features: PairFeatures
    weight: float
    depth: int = 50
    kind = "late-interaction"

    def score_head(self, head: Run) -> NDArray[np.float32]:
        similarity = self.features(head)[:, FEATURES.index("soft_plain")]
        return ((1 - self.weight) * head.score + self.weight * similarity).astype(np.float32)

    def write(self, folder: Path) -> dict[str, Any]:
        return {"weight": self.weight, "features": self.features.write(folder)}


@dataclass(repr=False)
class ListwiseReranker(SecondStage):
    """The first stage's cosine plus what a list-wise ranker makes of pair features, seen against the other candidates.

    Formula: score = scale * cosine + g(features)[candidate], g a `ContextRanker` over the list.
    Source: Pobrotyn et al. (2020), paper 21; passage embeddings compared inside a list: Liu et al. (2025), paper 116.
    """

    features: PairFeatures
    ranker: ContextRanker
    shape: dict[str, Any]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    scale: float
    depth: int = 50
    kind = "list-wise"

    def score_head(self, head: Run) -> NDArray[np.float32]:
        if not len(head):
            return np.zeros(0, np.float32)
        columns = np.column_stack([head.score, self.features(head)])
        inputs, mask = list_inputs(columns, head.offsets, self.mean, self.deviation)
        self.ranker.eval()
        with torch.inference_mode():
            change = self.ranker.score(torch.from_numpy(inputs), torch.from_numpy(mask)).numpy()
        return (self.scale * head.score + change[mask]).astype(np.float32)

    def write(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in self.ranker.state_dict().items()}, folder / "ranker.safetensors")
        return {
            "shape": self.shape,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "scale": self.scale,
            "features": self.features.write(folder),
        }


@dataclass(repr=False)
class CrossEncoderReranker(SecondStage):
    """(1 - weight) times the first stage's standardised score plus `weight` times a cross-encoder's, over the head of the list.

    Both are standardised inside each list, so the mixture does not depend on either's scale.
    """

    model: CrossEncoder
    weight: float
    depth: int = 20
    max_length: int = 192
    kind = "cross-encoder"

    def logits(self, head: Run) -> NDArray[np.float32]:
        """Return the cross-encoder's scores of a run's candidates."""
        queries, documents = head.queries.full_texts, head.documents.full_texts
        return self.model.score(
            [queries[i] for i in head.query],
            [documents[i] for i in head.document],
            max_length=self.max_length,
            progress=False,
        )

    def score_head(self, head: Run) -> NDArray[np.float32]:
        return mixed(head.score, self.logits(head), head.offsets, self.weight)

    def write(self, folder: Path) -> dict[str, Any]:
        self.model.save(folder / "model")
        return {"weight": self.weight, "max_length": self.max_length}


def mixed(
    first: NDArray[np.float32], second: NDArray[np.float32], offsets: NDArray[np.int64], weight: float
) -> NDArray[np.float32]:
    """Return (1 - weight) * first + weight * second, each standardised inside its list."""
    return ((1 - weight) * standardised(first, offsets) + weight * standardised(second, offsets)).astype(np.float32)


def standardised(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return values minus their list's mean, divided by its standard deviation (0 where a list is constant).

    >>> standardised(np.array([1., 3., 5.]), np.array([0, 2, 3])).tolist()
    [-1.0, 1.0, 0.0]
    """
    shape = (-1, *([1] * (values.ndim - 1)))
    lengths = np.maximum(np.diff(offsets), 1).reshape(shape)
    rows = lists.segment_ids(offsets)
    values = np.asarray(values, np.float64)
    centred = values - (_segment_sum(values, offsets) / lengths)[rows]
    deviation = np.sqrt(_segment_sum(centred**2, offsets) / lengths)[rows]
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-9).astype(np.float32)


def _segment_sum(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    return running[offsets[1:]] - running[offsets[:-1]]


def list_inputs(
    columns: NDArray[np.float32], offsets: NDArray[np.int64], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return padded inputs [Q, C, 2F] of a list-wise ranker and their mask: features standardised over the training set and, beside
    them, inside each list."""
    both = np.hstack([(columns - mean) / deviation, standardised(columns, offsets)]).astype(np.float32)
    mask = lists.pad_mask(offsets)
    padded = np.zeros((*mask.shape, both.shape[1]), np.float32)
    padded[mask] = both
    return padded, mask


def load_reranker(folder: str | Path, encoder: Encoder, documents: Collection | None = None) -> SecondStage:
    """Load a second stage from its folder; late interaction and list-wise ones need the encoder they were trained with.

    Raises:
        ModelError: the folder is missing, damaged, of a newer version, or belongs to another encoder.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        version = about["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / SPEC} cannot be read ({error}); train the second stage again") from None
    if version != VERSION:
        raise ModelError(
            f"{folder} is of version {version}, this program reads {VERSION}; use the program that wrote it"
        )
    try:
        _check_files(folder, about["checksums"], about.get("features", {}).get("checksums", {}))
        stage = _read_stage(folder, about, encoder)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder} is damaged ({error!r}); train the second stage again") from None
    features = getattr(stage, "features", None)
    if documents is not None and features is not None and features.fingerprint != documents.fingerprint:
        raise ModelError(f"the second stage in {folder} was built for other documents; load it with its own run's")
    return stage


def _check_files(folder: Path, checksums: dict[str, str], checked_elsewhere: dict[str, str]) -> None:
    for name, expected in checksums.items():
        if name not in checked_elsewhere and checksum(folder / name) != expected:
            raise ModelError(f"{folder / name} is damaged (its checksum differs); train the second stage again")


def _read_stage(folder: Path, about: dict[str, Any], encoder: Encoder) -> SecondStage:
    kind, depth = about["kind"], int(about["depth"])
    if kind not in ("cross-encoder", "late-interaction", "list-wise"):
        raise ModelError(f"{folder} holds a second stage of the unknown kind '{kind}'")
    if kind == "cross-encoder":
        model = CrossEncoder.load(folder / "model", device=str(encoder.device))
        return CrossEncoderReranker(model, about["weight"], depth, about["max_length"])
    features = PairFeatures.read(folder, about["features"], encoder)
    if kind == "late-interaction":
        return LateInteractionReranker(features, about["weight"], depth)
    from safetensors.torch import load_file

    shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["shape"].items()}
    ranker = ContextRanker(**shape)
    try:
        ranker.load_state_dict(load_file(folder / "ranker.safetensors"))
    except Exception as error:  # a damaged file raises safetensors' own error
        raise ModelError(
            f"{folder / 'ranker.safetensors'} cannot be read ({error}); train the second stage again"
        ) from None
    mean, deviation = (np.asarray(about[name], np.float32) for name in ("mean", "deviation"))
    return ListwiseReranker(features, ranker, shape, mean, deviation, about["scale"], depth)


__all__ = [
    "CrossEncoderReranker",
    "LateInteractionReranker",
    "ListwiseReranker",
    "SecondStage",
    "TokenStore",
    "load_reranker",
    "mixed",
    "standardised",
]
