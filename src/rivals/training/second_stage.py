"""Choosing and training the second stage: fit what the budget allows, keep what is best on dev."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.data.dataset import Dataset
from rivals.data.pipeline import Retriever
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.losses import softmax_loss
from rivals.measures import ndcg
from rivals.models.encoder import Encoder
from rivals.models.list_ranker import ContextRanker
from rivals.models.pair_features import PairFeatures
from rivals.models.rerank import LateInteractionReranker, ListwiseReranker, SecondStage, list_inputs
from rivals.progress import progress

_MIX = tuple(round(0.1 * i, 1) for i in range(1, 11))
_SHAPES: dict[str, dict[str, Any]] = {
    "list-wise, linear": {"fc": (), "n_layers": 0},
    "list-wise, in context": {"fc": (32,), "n_layers": 1, "heads": 2, "d_ff": 64, "dropout": 0.3, "fc_dropout": 0.2},
}
_SCALE = 10.0


@dataclass
class SecondStageResult:
    """What was tried, nDCG@10 of each on dev, which one was chosen ("none": the first stage alone was best) and the seconds spent."""

    chosen: str
    dev_scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def fit_second_stage(
    kind: str,
    *,
    first: Retriever,
    encoder: Encoder,
    train: Dataset,
    dev: Dataset,
    folder: Path,
    features: PairFeatures | None = None,
    depth: int = 50,
    candidates: int = 100,
    epochs: int = 0,
    seed: int = 0,
) -> SecondStageResult:
    """Fit second stages on the first stage's candidates, keep the best on dev and save it in `folder`.

    Args:
        kind: "late-interaction" (a mixing weight, nothing to train), "list-wise" (a ranker over pair features), "cross-encoder",
            "all" (these three), "auto" (the first two, and the cross-encoder where a GPU makes it affordable), or "none".
        first: the first stage over the same documents. depth: how many of its candidates are re-scored.
        features: token features of the documents, if they are there already. epochs: passes of training; 0 = what suits each kind.

    Raises:
        RivalsError: an unknown kind; dev without judged queries.
    """
    started = time.monotonic()
    wanted = _kinds(kind, encoder)
    dev_run = first(dev, candidates)
    scores = {"first stage alone": dev_score(dev_run, dev)}
    fitted: dict[str, SecondStage] = {}
    train_run = first(train, candidates).top(depth)
    if {"late-interaction", "list-wise"} & wanted:
        if features is None:
            features, _ = PairFeatures.build(encoder, train.documents)
        if "late-interaction" in wanted:
            fitted["late interaction"] = _fit_mixture(features, dev_run, dev, depth)
        if "list-wise" in wanted:
            fitted |= _fit_listwise(features, train_run, train, dev_run, dev, depth, epochs, seed)
    if "cross-encoder" in wanted:
        from rivals.training.cross_encoder import fit_cross_encoder

        fitted["cross-encoder"] = fit_cross_encoder(
            encoder, train_run, train, dev_run, dev, epochs=epochs or 1, seed=seed
        )
    for name, stage in fitted.items():
        scores[name] = dev_score(stage(dev_run), dev)
    chosen = max(fitted, key=lambda name: scores[name], default="none")
    if chosen == "none" or (kind in ("auto", "all") and scores[chosen] <= scores["first stage alone"]):
        return SecondStageResult("none", scores, time.monotonic() - started)
    fitted[chosen].save(folder)
    return SecondStageResult(chosen, scores, time.monotonic() - started)


def _kinds(kind: str, encoder: Encoder) -> set[str]:
    if kind == "auto":
        return {"late-interaction", "list-wise"} | ({"cross-encoder"} if encoder.device.type == "cuda" else set())
    kinds = {"late-interaction", "list-wise", "cross-encoder"}
    if kind == "all":
        return kinds
    if kind not in {*kinds, "none"}:
        raise RivalsError(
            f"second stage '{kind}' is not known; use auto, all, late-interaction, list-wise, cross-encoder or none"
        )
    return {kind} - {"none"}


def dev_score(run: Run, dataset: Dataset) -> float:
    """Return nDCG@10 of a run over the dataset's judged queries; a relevant document that is not in the run counts as missed."""
    judged = np.flatnonzero(np.diff(dataset.judgements.positives.offsets) > 0)
    if not len(judged):
        raise RivalsError("no dev query has a relevant document, so nothing can be chosen by it; check the splits")
    known = dataset.judgements.positives
    lists = run.lists(known)
    ideal = np.zeros((len(judged), int(np.diff(known.offsets).max())), np.float32)
    for place, row in enumerate(judged):
        relevance = known.relevance[known.offsets[row] : known.offsets[row + 1]]
        ideal[place, : len(relevance)] = relevance
    values = ndcg(lists.scores[judged], lists.relevance[judged], lists.mask[judged], k=10, ideal=ideal)
    return float(np.mean(values))


def _fit_mixture(features: PairFeatures, dev_run: Run, dev: Dataset, depth: int) -> LateInteractionReranker:
    """Choose the weight of MaxSim on dev."""
    best = (-1.0, 0.0)
    columns = features(dev_run.top(depth))
    for weight in _MIX:
        stage = LateInteractionReranker(_Fixed(features, columns), weight, depth)  # type: ignore[arg-type]
        best = max(best, (dev_score(stage(dev_run), dev), weight))
    return LateInteractionReranker(features, best[1], depth)


@dataclass
class _Fixed:
    """Features already computed for one run."""

    features: PairFeatures
    columns: NDArray[np.float32]

    def __call__(self, run: Run) -> NDArray[np.float32]:
        return self.columns


def _fit_listwise(
    features: PairFeatures,
    train_run: Run,
    train: Dataset,
    dev_run: Run,
    dev: Dataset,
    depth: int,
    epochs: int,
    seed: int,
) -> dict[str, SecondStage]:
    """Train the list-wise rankers with the softmax loss, each for the number of epochs that is best on dev."""
    columns = np.column_stack([train_run.score, features(train_run)])
    mean, deviation = columns.mean(0), np.maximum(columns.std(0), 1e-6)
    inputs, mask = list_inputs(columns, train_run.offsets, mean, deviation)
    lists = train_run.lists(train.judgements.positives)  # a grade below 0 is judged, not relevant
    useful = np.flatnonzero((lists.relevance > 0).any(1))
    if not len(useful):
        raise RivalsError(
            "the first stage finds no relevant document for any training query; a second stage cannot learn from that"
        )
    data = [torch.from_numpy(array[useful]) for array in (inputs, lists.scores * _SCALE, lists.relevance, mask)]
    dev_columns = features(dev_run.top(depth))
    fitted: dict[str, SecondStage] = {}
    for name, shape in _SHAPES.items():
        full = {"n_features": inputs.shape[-1], **shape}

        def build(ranker: ContextRanker, source: Any = features, shape: dict[str, Any] = full) -> ListwiseReranker:
            return ListwiseReranker(
                source, ranker, shape, mean.astype(np.float32), deviation.astype(np.float32), _SCALE, depth
            )

        def judge(ranker: ContextRanker, make: Callable[..., ListwiseReranker] = build) -> float:
            return dev_score(make(ranker, _Fixed(features, dev_columns))(dev_run), dev)

        ranker = train_ranker(full, data, judge, epochs=epochs or 12, seed=seed, description=f"Training {name}")
        fitted[name] = build(ranker)
    return fitted


def train_ranker(
    shape: dict[str, Any],
    data: list[torch.Tensor],
    judge: Callable[[ContextRanker], float],
    *,
    epochs: int,
    seed: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    description: str = "Training the second stage",
) -> ContextRanker:
    """Train a `ContextRanker` that corrects given base scores, and return it as it was after its best epoch on dev.

    Args:
        data: inputs [Q, C, F], base scores [Q, C], relevance [Q, C], mask bool[Q, C].
        judge: a ranker's score on dev, higher is better.

    It starts as the identity (output weights 0), so its first order is that of the base scores. Source: the softmax loss of paper 6.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    ranker = ContextRanker(**shape)
    torch.nn.init.zeros_(ranker.output.weight)
    torch.nn.init.zeros_(ranker.output.bias)
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=learning_rate, weight_decay=1e-2)
    inputs, base, relevance, mask = data
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, weights = judge(ranker), {k: v.clone() for k, v in ranker.state_dict().items()}
    with progress(description, steps) as advance:
        for _ in range(epochs):
            ranker.train()
            for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
                scores = base[rows] + ranker.score(inputs[rows], mask[rows])
                loss = softmax_loss(scores, relevance[rows], mask[rows], normalize_labels=True)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance(1)
            ranker.eval()
            score = judge(ranker)
            if score > best:
                best, weights = score, {k: v.clone() for k, v in ranker.state_dict().items()}
    ranker.load_state_dict(weights)
    return ranker.eval()


__all__ = ["SecondStageResult", "dev_score", "fit_second_stage", "train_ranker"]
