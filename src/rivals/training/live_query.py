"""Training the query side alone, on what it finds now: documents stay frozen, and every step searches them exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.losses.lambdas import lambda_loss
from rivals.retrieve._topk import PreparedDocuments, exact_top_k
from rivals.training.held_out import HeldOut, held_out_score
from rivals.training.regime import Regime
from rivals.training.scorers import Rows
from rivals.training.vector_scorers import Side

_DOCUMENTS = "documents.safetensors"


class LiveLists(NamedTuple):
    """What queries find, and what they ought to: `document` int64[Q, W], `relevance` float32[Q, W], `mask` bool[Q, W].

    `missed`: how many queries found no relevant document and had theirs appended.
    """

    document: NDArray[np.int64]
    relevance: NDArray[np.float32]
    mask: NDArray[np.bool_]
    missed: int


def live_lists(
    retrieved: NDArray[np.int64], positives: tuple[NDArray[np.int64], NDArray[np.int64]], *, append_missing: bool = True
) -> LiveLists:
    """Return the retrieved documents, with all relevant ones behind them for a query that found none of its own.

    Args:
        retrieved: int64[Q, n], best first. positives: (offsets int64[Q + 1], documents). append_missing: see above.

    Source: Zhan et al. 2021, ADORE, its `train` (paper 29).

    >>> found = live_lists(np.array([[3, 1], [2, 4]]), (np.array([0, 1, 3]), np.array([1, 0, 5])))
    >>> found.document.tolist(), found.relevance.tolist(), found.missed
    ([[3, 1, 0, 0], [2, 4, 0, 5]], [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], 1)
    """
    offsets, members = positives
    queries, n = retrieved.shape
    owner = np.repeat(np.arange(queries), n)
    hit = (lists.find_pairs(offsets, members, owner, retrieved.ravel()) >= 0).reshape(queries, n)
    missed = ~hit.any(1) & (np.diff(offsets) > 0)
    longest = int(np.diff(offsets)[missed].max(initial=0)) if append_missing else 0
    document = np.zeros((queries, n + longest), np.int64)
    mask = np.zeros(document.shape, bool)
    document[:, :n], mask[:, :n] = retrieved, True
    relevance = np.zeros(document.shape, np.float32)
    relevance[:, :n] = hit
    if longest:
        rows, own = lists.take_segments(offsets, np.flatnonzero(missed))
        query, place = np.flatnonzero(missed)[lists.segment_ids(own)], n + lists.positions(own)
        document[query, place], relevance[query, place], mask[query, place] = members[rows], 1.0, True
    return LiveLists(document, relevance, mask, int(missed.sum()))


class LiveQueryObjective:
    """ADORE: the pairs of what the present query vectors retrieve, each weighted by what its swap would do to the reciprocal rank.

    For a query's vector v and the frozen documents E: I = the n best by E v, and all its relevant documents behind them where I has
    none; L = mean over the pairs of a relevant i and another j of |1/i - 1/j| log(1 + exp(-(s_i - s_j))), i and j their places in
    the list, 1 / place being 0 beyond `cut`; mean over queries. Only v has a gradient.

    Args:
        queries: the side that learns; its parameters are named `query.`.
        dataset: training queries with judgements; those without a positive are left out (`without_positive`).
        documents: float[N, D], E: inner products with it are the scores. None until `freeze` or the regime `LiveQuery` gives them.
        n: how many are retrieved. cut: of the measure; 200 in the script. scale: of the scores, beside which the logistic is steep or
            flat; vectors of unit length want about 20.
        batch_size, seed: of the random batches. evaluate: held-out score.

    `missed` counts the queries so far that found none of theirs. One search of all documents a step: exact, and quick up to some
    100,000 on a CPU.

    When to use: after training both sides, on a corpus whose document vectors shall stay as they are.

    Source: Zhan et al. 2021, Optimizing dense retrieval model training with hard negatives (paper 29): n 200, learning rate 5e-6,
    batches of 32.

    Raises:
        RivalsError: n, cut or batch_size below 1, nothing to train on; in training, documents that are not there, other than the
            dataset's, or fewer than n.
    """

    def __init__(
        self,
        queries: Side,
        dataset: Dataset,
        *,
        documents: NDArray[Any] | None = None,
        n: int = 200,
        cut: int = 200,
        scale: float = 1.0,
        append_missing: bool = True,
        batch_size: int = 32,
        seed: int = 0,
        evaluate: HeldOut | None = None,
    ) -> None:
        for name, value in (("n", n), ("cut", cut), ("batch_size", batch_size)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise RivalsError(f"{name} must be a whole number, 1 or more, not {value!r}")
        if not scale > 0:
            raise RivalsError(f"scale must be above 0, not {scale!r}")
        if n > len(dataset.documents):
            raise RivalsError(f"n is {n}, but there are only {len(dataset.documents)} documents to retrieve")
        self.queries, self.dataset, self.scale = queries, dataset, scale
        self.n, self.cut, self.append_missing = int(n), int(cut), append_missing
        self.batch_size, self.seed, self._evaluate = int(batch_size), seed, evaluate
        self.model: nn.Module = nn.ModuleDict({"query": queries.module})
        self._known = dataset.judgements.positives
        self._trainable = np.flatnonzero(np.diff(self._known.offsets) > 0)
        if not len(self._trainable):
            raise RivalsError("no query has a positive; there is nothing to train on")
        self.without_positive = len(dataset.queries) - len(self._trainable)
        self.options = {
            "n": self.n,
            "cut": self.cut,
            "scale": scale,
            "append_missing": append_missing,
            "batch": batch_size,
        }
        self.missed = 0
        self._documents: tuple[PreparedDocuments, Tensor] | None = None
        if documents is not None:
            self.freeze(documents)

    @property
    def documents(self) -> NDArray[Any] | None:
        """The frozen document vectors, float[N, D]."""
        return None if self._documents is None else self._documents[0].vectors

    def freeze(self, documents: NDArray[Any]) -> None:
        """Take these document vectors from now on.

        Raises:
            RivalsError: as many rows as documents are not there.
        """
        if documents.ndim != 2 or len(documents) != len(self.dataset.documents):
            raise RivalsError(f"{documents.shape} vectors were given for {len(self.dataset.documents)} documents")
        self._documents = (PreparedDocuments(documents), torch.from_numpy(np.asarray(documents, np.float32)))

    def batches(self, epoch: int) -> Sequence[Rows]:
        """Return the epoch's batches of query rows."""
        order = np.random.default_rng([self.seed, 37, epoch]).permutation(self._trainable)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def loss(self, batch: Rows, generator: torch.Generator) -> Tensor:
        """Return the loss of what these queries retrieve now."""
        if self._documents is None:
            raise RivalsError("there are no document vectors; give documents=, or train under the regime LiveQuery")
        prepared, matrix = self._documents
        made, order = self.queries.chunks(batch)
        vectors = torch.cat([part()[0] for part in made]).float()
        vectors = vectors[torch.from_numpy(np.argsort(order)).to(vectors.device)]
        retrieved = exact_top_k(vectors.detach().cpu().numpy(), prepared, self.n)[1]
        members, offsets = lists.take_segments(self._known.offsets, batch)
        found = live_lists(retrieved, (offsets, self._known.document[members]), append_missing=self.append_missing)
        self.missed += found.missed
        listed = matrix[torch.from_numpy(found.document)].to(vectors.device)
        scores = self.scale * (listed @ vectors.unsqueeze(-1)).squeeze(-1)
        places = torch.arange(1, found.document.shape[1] + 1, device=scores.device)
        return lambda_loss(
            scores,
            torch.from_numpy(found.relevance).to(scores.device),
            torch.from_numpy(found.mask).to(scores.device),
            scheme="mrr",
            k=self.cut,
            positions=places.expand(scores.shape),
            normalize=False,
            log_base=math.e,
            reduction="list_mean",
        )

    def evaluate(self) -> float:
        """Return the held-out score."""
        return held_out_score(self._evaluate)


class LiveQuery(Regime):
    """Freezes the documents at its first step and lets the query side alone learn: the second stage of STAR -> ADORE.

    The frozen vectors are kept in every checkpoint, so that with one encoder for both sides they stay those of the beginning.

    Args:
        objective: whose document vectors are made. encode: gives them, float[N, D], by the weights at this step;
            `document_side.all`, or that divided by the norms for cosines.
        trains: beginnings of the names of what learns.

    Source: Zhan et al. 2021, ADORE (paper 29).

    Raises:
        RivalsError: nothing named to learn.
    """

    def __init__(
        self,
        objective: LiveQueryObjective,
        encode: Callable[[], NDArray[Any]],
        *,
        trains: Sequence[str] = ("query.",),
    ) -> None:
        if isinstance(trains, str) or not trains or not all(trains):
            raise RivalsError(
                "name what learns, as a list of beginnings of names; the document side must not be among it"
            )
        self.objective, self.encode, self.learning = objective, encode, tuple(trains)
        self._frozen = False

    def trains(self, parameter: str, step: int) -> bool:
        return parameter.startswith(self.learning)

    def should_refresh(self, step: int) -> bool:
        return self.objective.documents is None

    def refresh(self, step: int) -> Mapping[str, Any]:
        vectors = np.array(self.encode(), np.float32)
        self.objective.freeze(vectors)
        return {"frozen": len(vectors)}

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.objective.documents is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._frozen = bool(state["frozen"])

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        if self.objective.documents is not None:
            save_file({"vectors": np.ascontiguousarray(self.objective.documents, np.float32)}, folder / _DOCUMENTS)

    def load(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        if self._frozen:
            self.objective.freeze(load_file(folder / _DOCUMENTS)["vectors"])


__all__ = ["LiveLists", "LiveQuery", "LiveQueryObjective", "live_lists"]
