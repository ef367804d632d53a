"""Negatives drawn for a whole batch at once, from the distribution that its queries share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError


class BatchShared:
    """Draws negatives for a batch: a document is the likelier, the more of the batch's examples have it as hard negative.

    Pr(j) = count of examples i of the batch with j in S_i, divided by the sum of the lists' lengths. A batch of B
    examples is given up to h B different documents, each a column for all of them.

    Use it with `Clustered`, whose batches share their hard negatives: few columns then serve many queries.

    Args:
        offsets, rows: the hard negatives S_i of every example, as `ranked_targets` gives them, or `of_run`. h: documents
            drawn an example. documents: how many there are; by default one more than the largest row.

    Source: Thirukovalluru et al. (2025), B3++. Paper 28. There drawn with repeats, which make no further column; here
    without.

    Raises:
        RivalsError: lists that do not fit, a negative row, h < 1.

    >>> shared = BatchShared([0, 2, 4], [5, 6, 6, 7])
    >>> shared.probabilities([0, 1])[5:].tolist()
    [0.25, 0.5, 0.25]
    """

    def __init__(self, offsets: Any, rows: Any, *, h: int = 5, documents: int | None = None) -> None:
        self.rows = np.ascontiguousarray(rows, np.int64)
        self.offsets = lists.as_offsets(offsets, len(self.rows), "the lists' offsets")
        if isinstance(h, bool) or not isinstance(h, int | np.integer) or h < 1:
            raise RivalsError(f"h must be a whole number, 1 or more, not {h!r}")
        least = int(self.rows.max(initial=-1)) + 1
        if self.rows.min(initial=0) < 0 or (documents is not None and documents < least):
            raise RivalsError(f"the lists name rows {self.rows.min(initial=0)} to {least - 1} of {documents} documents")
        self.h, self.documents = int(h), least if documents is None else int(documents)

    @classmethod
    def of_run(
        cls, run: Run, queries: Any = None, *, h: int = 5, skip: int = 0, width: int | None = None
    ) -> BatchShared:
        """Return the sampler of a run's usable candidates: kept, not labelled positive, after `skip`, `width` of them.

        Args:
            queries: the query row of every example (`Examples.query`); None is one example a query of the run.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(list("abc")), [0, 3], [0, 1, 2], [.9, .8, .7])
        >>> BatchShared.of_run(run, skip=1).probabilities([0]).tolist()
        [0.0, 0.5, 0.5]
        """
        if skip < 0 or (width is not None and width < 1):
            raise RivalsError(f"skip must be 0 or more and width 1 or more, not {skip} and {width}")
        usable = run.keep & (run.label != 1)
        place = lists.positions(lists.keep_values(usable, run.offsets))
        usable[np.flatnonzero(usable)] = (place >= skip) & (width is None or place < skip + (width or 0))
        offsets, rows = lists.keep_values(usable, run.offsets), run.document[usable]
        if queries is not None:
            index, offsets = lists.take_segments(offsets, queries)
            rows = rows[index]
        return cls(offsets, rows, h=h, documents=len(run.documents))

    def __len__(self) -> int:
        """The number of examples that have lists."""
        return len(self.offsets) - 1

    def probabilities(self, members: Any, *, exclude: Any = ()) -> NDArray[np.float64]:
        """Return the probability of every document to be drawn first for the batch of examples `members`, float64[N].

        Args:
            exclude: documents never drawn, such as the batch's positives. All zeros if that leaves none.
        """
        count = np.bincount(self.rows[lists.take_segments(self.offsets, members)[0]], minlength=self.documents)
        count[np.asarray(exclude, np.int64)] = 0
        return count / max(int(count.sum()), 1)

    def draw(self, members: Any, generator: np.random.Generator, *, exclude: Any = ()) -> NDArray[np.int64]:
        """Draw h documents for each of `members`, all different, for the batch as a whole; fewer if there are fewer."""
        members = np.asarray(members, np.int64)
        found, count = np.unique(self.rows[lists.take_segments(self.offsets, members)[0]], return_counts=True)
        allowed = ~np.isin(found, np.asarray(exclude, np.int64))
        found, count = found[allowed], count[allowed]
        noise = np.maximum(generator.random(len(found)), 2.0**-54)
        key = np.log(count) - np.log(-np.log(noise))
        return found[np.argsort(-key, kind="stable")[: self.h * len(members)]]

    def __repr__(self) -> str:
        return f"BatchShared({len(self)} lists, h={self.h})"
