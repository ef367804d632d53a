"""`Examples`: what batchers deal with, a dataset's queries with their positives and drawn negatives, made into batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.batching.batch import Batch, first_seen
from rivals.negatives.samplers import Draw, Sampler

Per = Literal["query", "pair", "judgement"]
Share = Literal["all", "negatives", "own"]
Negatives = Sampler | Draw | Callable[[int], Draw]

_PART = 31  # this part's number among the seeds


class Examples:
    """The training examples of a dataset: queries with positives, and mined negatives if there are any.

    Args:
        dataset: queries, documents and judgements.
        per: one example a "query", its positive drawn anew in every epoch; one a "pair" of a query and a positive; or
            one a "judgement", those of relevance 0 too (graded pairs, for losses over `relevance`).
        run: the mined run over the same queries. What it marked (`keep` False) never competes for its query, and its
            weights and targets enter the batch.
        negatives: where every query's own negatives come from: a sampler, which draws from `run` anew in every epoch; a
            draw; or a function from the epoch to one. None: the batch's other documents are the only negatives.
        share: which columns compete for an anchor: "all" in the batch; its own and the "negatives" of all, but no other
            anchor's positive; its "own" positive and negatives only.
        seed: of the positives and negatives drawn.

    Source: the mask is that of STAR (paper 29), of relabelled positives (26) and of in-batch de-duplication; "negatives"
    is the batch of Conan-embedding (43), "own" those of UniME-V2 (7) and DocReRank (9).

    Raises:
        RivalsError: options unknown, a run over other queries, a sampler without run, nothing to train on.

    >>> from rivals.data import Collection, Judgements
    >>> judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    >>> examples = Examples(Dataset(Collection(["p", "q"]), Collection(["a", "b"]), judged))
    >>> examples.batch([1, 0], epoch=0).columns.tolist()
    [1, 0]
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        per: Per = "query",
        run: Run | None = None,
        negatives: Negatives | None = None,
        share: Share = "all",
        seed: int = 0,
    ) -> None:
        if per not in ("query", "pair", "judgement"):
            raise RivalsError(f"per must be 'query', 'pair' or 'judgement', not {per!r}")
        check_share(share)
        if run is not None and len(run.queries) != len(dataset.queries):
            raise RivalsError(
                f"the mined run is over {len(run.queries)} queries, the data over {len(dataset.queries)}; mine with the "
                "same queries"
            )
        if isinstance(negatives, Sampler) and run is None:
            raise RivalsError(f"{negatives!r} needs the run to draw from; give run=")
        if seed < 0:
            raise RivalsError(f"seed must be 0 or more, not {seed}")
        self.dataset, self.run, self.negatives = dataset, run, negatives
        self.per, self.share, self.seed = per, share, int(seed)
        positives = dataset.judgements.positives
        self._judged = dataset.judgements if per == "judgement" else positives
        if per == "query":
            self.query = np.flatnonzero(np.diff(positives.offsets) > 0)
        else:
            self.query = self._judged.query
        if not len(self.query):
            raise RivalsError("no query has a positive; there is nothing to train on")
        self.without_positive = int((np.diff(positives.offsets) == 0).sum())
        documents = dataset.documents
        self._text = documents.text_groups if documents.has_texts else np.arange(len(documents))
        self._known, self._known_text = positives.offsets, self._text[positives.document]
        self._held: tuple[int, NDArray[np.int64], NDArray[np.float32], Draw | None] | None = None
        self._warned = False

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.query)

    def __repr__(self) -> str:
        return f"Examples({len(self)}, per={self.per!r}, share={self.share!r})"

    def positive(self, epoch: int) -> NDArray[np.int64]:
        """Return the document of every example in an epoch, int64[E]."""
        return self._epoch(epoch)[0]

    def draw(self, epoch: int) -> Draw | None:
        """Return the negatives of every query of the dataset in an epoch, or None without negatives."""
        return self._epoch(epoch)[2]

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.float32], Draw | None]:
        if self._held is None or self._held[0] != epoch:
            rows = np.arange(len(self.query))
            if self.per == "query":
                offsets = self._judged.offsets
                chance = np.random.default_rng([self.seed, _PART, epoch]).random(len(rows))
                rows = offsets[self.query] + (chance * np.diff(offsets)[self.query]).astype(np.int64)
            self._held = (epoch, self._judged.document[rows], self._judged.relevance[rows], self._drawn(epoch))
        return self._held[1:]

    def _drawn(self, epoch: int) -> Draw | None:
        if self.negatives is None:
            return None
        if isinstance(self.negatives, Draw):
            draw = self.negatives
        elif isinstance(self.negatives, Sampler):
            assert self.run is not None
            sampler = self.negatives.at(epoch)
            generator = np.random.default_rng([self.seed, sampler.seed, _PART, epoch])
            draw = sampler.draw_available(self.run, generator)
        else:
            draw = self.negatives(epoch)
        if len(draw) != len(self.dataset.queries):
            raise RivalsError(f"the draw is for {len(draw)} queries, the data has {len(self.dataset.queries)}")
        return draw

    def keys(self, epoch: int, *, negatives: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what every example must not share within a batch, as (offsets int64[E + 1], keys int64[m] from 0).

        The texts of its query, of its document and, if wanted, of its negatives, equal whichever of these they are; rows
        where there are no texts.
        """
        asked, told = self._things
        parts = [asked[self.query][:, None], told[self.positive(epoch)][:, None]]
        draw = self.draw(epoch) if negatives else None
        there = np.ones((len(self), 2), bool)
        if draw is not None:
            parts.append(told[draw.candidate[self.query]])
            there = np.concatenate([there, draw.mask[self.query]], axis=1)
        values = np.concatenate(parts, axis=1)[there]
        return lists.offsets_from_lengths(there.sum(1)), np.unique(values, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def _things(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A number for every query and every document, the same for the same text."""
        queries, documents = self.dataset.queries, self.dataset.documents
        if queries.has_texts and documents.has_texts:
            hashes = np.concatenate([queries.text_hashes, documents.text_hashes])
            numbers = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
            return numbers[: len(queries)], numbers[len(queries) :]
        asked = queries.text_groups if queries.has_texts else np.arange(len(queries))
        return asked, len(queries) + self._text

    def batch(
        self,
        rows: Any,
        *,
        epoch: int,
        step: int = 0,
        merge: bool = False,
        share: Share | None = None,
        negatives: int | None = None,
        extra: Any = (),
    ) -> Batch:
        """Return the batch of the examples `rows`.

        Args:
            epoch: whose positives and negatives. step: number of the batch. merge: make one anchor of the examples of a
                query, with several positives. share: instead of the examples' own. negatives: use this many of those
                drawn. extra: further documents that compete for all anchors.

        Raises:
            RivalsError: a row out of range.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise RivalsError(f"a batch names example {rows.min()} to {rows.max()}, but there are {len(self)}")
        share = self.share if share is None else check_share(share)
        document, grade, draw = self._epoch(epoch)
        anchor, owner = self.query[rows], np.arange(len(rows))
        if merge:
            anchor, owner = first_seen(anchor)
        members, borne = [document[rows]], [owner]
        if draw is not None:
            width = draw.k if negatives is None else negatives
            there = draw.mask[anchor, :width]
            members.append(draw.candidate[anchor, :width][there])
            borne.append(np.nonzero(there)[0])
        positives = len(rows)
        members.append(np.asarray(extra, np.int64))
        columns, place = first_seen(np.concatenate(members))
        bearer = np.concatenate(borne)
        own_place, drawn_place = place[:positives], place[positives : len(bearer)]
        drawn_owner = bearer[positives:]
        shape = (len(anchor), len(columns))
        drawn = np.zeros(shape, bool)
        drawn[drawn_owner, drawn_place] = True
        mask = drawn.copy()
        if share == "all":
            mask[:] = True
        elif share == "negatives":
            mask[:, place[positives:]] = True
        mask[:, place[len(bearer) :]] = True
        weight, target, marked = self._columns_of_run(anchor, columns)
        mask &= ~self._known_positive(anchor, columns) & (~marked | drawn)
        relevance = np.zeros(shape, np.float32)
        np.maximum.at(relevance, (owner, own_place), grade[rows])
        mask[owner, own_place] = True
        if draw is not None:
            weight[drawn_owner, drawn_place] = draw.weight[anchor, :width][there]
            soft = draw.target[anchor, :width][there]
            if target is None and np.isfinite(soft).any():
                target = np.full(shape, np.nan, np.float32)
            if target is not None:
                target[drawn_owner, drawn_place] = soft
        batch = Batch(anchor, columns, relevance, mask, weight, target, step=step)
        if not self._warned and self.per != "judgement" and batch.lonely.any():
            self._warned = True
            warnings.warn(
                f"{int(batch.lonely.sum())} of {len(batch)} anchors of a batch have no negative and no soft target, so "
                "their loss is 0; said once",
                stacklevel=2,
            )
        return batch

    def _known_positive(self, anchor: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which columns are known positives of an anchor or say the same, bool[Q, C]."""
        index, offsets = lists.take_segments(self._known, anchor)
        owner, wanted = _grid(len(anchor), self._text[columns])
        return (lists.find_pairs(offsets, self._known_text[index], owner, wanted) >= 0).reshape(len(anchor), -1)

    def _columns_of_run(
        self, anchor: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.bool_]]:
        """The run's weight and target of every pair, each [Q, C], and which pairs it marked."""
        shape = (len(anchor), len(columns))
        weight, marked = np.ones(shape, np.float32), np.zeros(shape, bool)
        if self.run is None or not len(self.run):
            return weight, None, marked
        index, offsets = lists.take_segments(self.run.offsets, anchor)
        place = lists.find_pairs(offsets, self.run.document[index], *_grid(len(anchor), columns)).reshape(shape)
        found = place >= 0
        rows = index[place[found]]
        weight[found], marked[found] = self.run.weight[rows], ~self.run.keep[rows]
        target = None
        if np.isfinite(self.run.target[index]).any():
            target = np.full(shape, np.nan, np.float32)
            target[found] = self.run.target[rows]
        return weight, target, marked


def check_share(share: Share) -> Share:
    """Return `share`, or raise a RivalsError if it is unknown."""
    if share not in ("all", "negatives", "own"):
        raise RivalsError(f"share must be 'all', 'negatives' or 'own', not {share!r}")
    return share


def _grid(anchors: int, columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.repeat(np.arange(anchors), len(columns)), np.tile(columns, anchors)
