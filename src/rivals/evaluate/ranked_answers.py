"""`RankedAnswers`: where a full ranking put every answer, and all measures that follow from it, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError
from rivals.evaluate.ratios import ratio_interval
from rivals.measures.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from rich.table import Table

Ties = Literal["realistic", "optimistic", "pessimistic"]
LIST_MEASURES = ("nDCG@10", "R@10", "RR@10", "Success@10")
RANK_MEASURES = ("MRR", "hits@1", "hits@3", "hits@10", "mean rank", "adjusted mean rank", "adjusted mean rank index")
_BASES = ("nDCG", "DCG", "RR", "R", "P", "Success", "AP")
_SHARE = {"optimistic": 0.0, "realistic": 0.5, "pessimistic": 1.0}


@dataclass(frozen=True, eq=False)
class RankedAnswers:
    """Every answer's rivals above and beside it: what `full_ranking` returns.

    `queries` int64[Q] are the query rows that have an answer; answers of the i-th are `offsets[i]:offsets[i + 1]` of
    `document`, `relevance`, `score`, `above` (rivals that score higher) and `tied` (rivals with the same score).
    `rivals` int64[Q] is how many documents are neither answers nor filtered; `left_out` how many queries have no answer;
    `sampled` the same among stored negatives, if they were given.

    Two families of measures, which must not be mixed:

    - of lists, one value a query (`list_values`): all answers of a query stand in one ranking: nDCG@k, R@k, RR@k (first
      answer), Success@k, P@k, AP@k, as `rivals.measures` defines them. The habit for recommenders.
    - of ranks, one value an answer (`rank_values`): each answer alone against the rivals, other answers filtered: MRR,
      hits@k, mean rank, adjusted mean rank (1 for a random scorer, lower is better) and its index (0 for a random
      scorer, 1 for a perfect one). The habit for knowledge graphs.

    >>> one = np.array([0, 1])
    >>> found = RankedAnswers(one[:1], one, one[1:], np.ones(1), np.ones(1), np.array([3]), np.array([2]), np.array([9]), 0)
    >>> [found.ranks(ties).item() for ties in ("optimistic", "realistic", "pessimistic")]
    [4.0, 5.0, 6.0]
    """

    queries: NDArray[np.int64]
    offsets: NDArray[np.int64]
    document: NDArray[np.int64]
    relevance: NDArray[Any]
    score: NDArray[np.float64]
    above: NDArray[np.int64]
    tied: NDArray[np.int64]
    rivals: NDArray[np.int64]
    left_out: int
    sampled: RankedAnswers | None = None

    def __len__(self) -> int:
        """The number of answers."""
        return len(self.document)

    @property
    def query(self) -> NDArray[np.int64]:
        """The query row of every answer."""
        return self.queries[lists.segment_ids(self.offsets)]

    def ranks(self, ties: Ties = "realistic") -> NDArray[np.float64]:
        """Return the filtered rank of every answer: 1 + above (optimistic), + tied (pessimistic), + tied / 2 (realistic)."""
        return 1.0 + self.above + self._share(ties) * self.tied

    def take(self, places: Any) -> RankedAnswers:
        """Return the ranking of some queries, by their place in `queries`: for slices such as users with few items."""
        chosen = np.asarray(places)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        rows, offsets = lists.take_segments(self.offsets, chosen)
        return RankedAnswers(
            self.queries[chosen],
            offsets,
            self.document[rows],
            self.relevance[rows],
            self.score[rows],
            self.above[rows],
            self.tied[rows],
            self.rivals[chosen],
            self.left_out,
            None if self.sampled is None else self.sampled.take(chosen),
        )

    # -------------------------------------------------------------------------------------------------------- measures

    def list_values(
        self, measures: Sequence[str] = LIST_MEASURES, ties: Ties = "realistic"
    ) -> dict[str, NDArray[np.float64]]:
        """Return measures of lists for every query, [Q] by name; each needs a cut-off.

        With ties, optimistic puts answers before the rivals they equal, pessimistic behind; realistic is the mean of
        both values.

        Raises:
            RivalsError: a measure without a cut-off, or one that is not of lists.
        """
        from rivals.measures.names import measure_all, parse_measure

        parsed = [parse_measure(measure) for measure in measures]
        for measure in parsed:
            if measure.base not in _BASES or measure.k is None:
                raise RivalsError(
                    f"a full ranking cannot take {measure}; give {', '.join(_BASES)} with a cut-off, as nDCG@10"
                )
        depth = max((measure.k or 1 for measure in parsed), default=1)
        share = self._share(ties)
        ends = {0.0: (0,), 1.0: (1,), 0.5: (0, 1)}[share]
        if not self.tied.any():
            ends = (0,)
        grades = lists.pad(self.relevance.astype(np.float64), self.offsets, fill=0.0)
        found: dict[str, NDArray[np.float64]] = {}
        for end in ends:
            ranked = self._top(end, depth)
            values = measure_all(parsed, np.zeros_like(ranked), ranked, ideal=grades, ranked=True)
            for name, value in values.items():
                found[name] = found.get(name, 0.0) + np.asarray(value) / len(ends)
        return found

    def _top(self, end: int, depth: int) -> NDArray[np.float64]:
        """Return the relevance at the first `depth` places, [Q, depth]; answers stand before (0) or behind (1) ties."""
        query = lists.segment_ids(self.offsets)
        grade = self.relevance if end else -self.relevance
        order = np.lexsort((grade, -self.score, query))
        place = np.empty(len(order), np.int64)
        place[order] = lists.positions(self.offsets)
        place += self.above + end * self.tied
        inside = place < depth
        top = np.zeros((len(self.queries), depth))
        top[query[inside], place[inside]] = self.relevance[inside]
        return top

    def rank_values(self, measures: Sequence[str] = RANK_MEASURES, ties: Ties = "realistic") -> dict[str, float]:
        """Return measures of ranks over all answers, by name.

        MRR = mean 1 / r, hits@k = share with r <= k, adjusted mean rank = sum r / sum E[r], its index = 1 - sum (r - 1)
        / sum (E[r] - 1), with E[r] = rivals / 2 + 1 the expected rank of a random scorer; NaN where there are no rivals.

        Source: Berrendorf, Faerman, Vermue and Tresp 2020 (arXiv 2002.06914).

        Raises:
            RivalsError: an unknown name.
        """
        values = {}
        for name in measures:
            top, bottom = self._ratio(name, ties)
            values[name] = _value(name, top.sum(), bottom.sum())
        return values

    def _ratio(self, name: str, ties: Ties) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the two sums of every query whose ratio, over queries, is a measure of ranks."""
        ranks, counts = self.ranks(ties), np.diff(self.offsets).astype(np.float64)
        kind, _, cut = name.partition("@")
        if kind == "hits" and cut.isdigit() and int(cut) > 0:
            top, bottom = (ranks <= int(cut)).astype(np.float64), counts
        elif name == "MRR":
            top, bottom = 1 / ranks, counts
        elif name == "mean rank":
            top, bottom = ranks, counts
        elif name == "adjusted mean rank":
            top, bottom = ranks, counts * (self.rivals / 2 + 1)
        elif name == "adjusted mean rank index":
            top, bottom = ranks - 1, counts * self.rivals / 2
        else:
            raise RivalsError(
                f"no measure of ranks is called '{name}'; there are {', '.join(RANK_MEASURES)} and hits@k"
            )
        return np.add.reduceat(top, self.offsets[:-1]), bottom

    def intervals(
        self,
        measures: Sequence[str] = (*LIST_MEASURES, *RANK_MEASURES),
        *,
        ties: Ties = "realistic",
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
    ) -> dict[str, Interval]:
        """Return measures of both families with bootstrap intervals over queries, by name.

        Queries are drawn again with all their answers, since those are not independent. Of lists: BCa; of ranks:
        percentiles of the ratio of sums.

        Raises:
            RivalsError: as `list_values`, `rank_values` and `bootstrap_interval`.
        """
        of_ranks = [name for name in measures if name in RANK_MEASURES or name.startswith("hits@")]
        of_lists = [name for name in measures if name not in of_ranks]
        found: dict[str, Interval] = {}
        if of_lists:
            values = self.list_values(of_lists, ties)
            ends = bootstrap_interval(np.stack(list(values.values())), level=level, resamples=resamples, seed=seed)
            found |= {n: Interval(*(float(e[i]) for e in ends)) for i, n in enumerate(values)}
        for name in of_ranks:
            top, bottom = self._ratio(name, ties)
            value, low, high = ratio_interval(top, bottom, level=level, resamples=resamples, seed=seed)
            index = name == "adjusted mean rank index"
            found[name] = Interval(1 - value, 1 - high, 1 - low) if index else Interval(value, low, high)
        return found

    # --------------------------------------------------------------------------------------------------------- showing

    def table(self, measures: Sequence[str] = (*LIST_MEASURES, *RANK_MEASURES), *, ties: Ties = "realistic") -> Table:
        """Return the measures with intervals as a rich table; those on sampled negatives beside them, marked biased."""
        from rich.table import Table

        title = f"{len(self):,} answers of {len(self.queries):,} queries, ties {ties}"
        table = Table(
            title=title + (f"; {self.left_out:,} queries without an answer left out" if self.left_out else "")
        )
        for column in ("measure", "value", "95% interval"):
            table.add_column(column)
        rows = [
            (n, f"{i.estimate:.4f}", f"{i.low:.4f} to {i.high:.4f}")
            for n, i in self.intervals(measures, ties=ties).items()
        ]
        if self.sampled is None:
            for row in rows:
                table.add_row(*row)
            return table
        table.add_column("on sampled negatives (biased)")
        beside = self.sampled.intervals(measures, ties=ties)
        for row in rows:
            table.add_row(*row, f"{beside[row[0]].estimate:.4f}")
        return table

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Table]:
        yield self.table()

    def __repr__(self) -> str:
        beside = "" if self.sampled is None else ", with sampled ranks beside"
        return f"RankedAnswers({len(self)} answers of {len(self.queries)} queries, {self.left_out} left out{beside})"

    def _share(self, ties: Ties) -> float:
        if ties not in _SHARE:
            raise RivalsError(f"ties is '{ties}'; it can be {', '.join(_SHARE)}")
        return _SHARE[ties]


def _value(name: str, top: float, bottom: float) -> float:
    """Return a measure of ranks from its two sums."""
    if bottom == 0:
        return float("nan")
    return float(1 - top / bottom if name == "adjusted mean rank index" else top / bottom)
