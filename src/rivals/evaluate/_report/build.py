"""From an `Evaluation` and runs to the parts of a `ReportData`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rivals.errors import RivalsError
from rivals.evaluate._report.data import Comparison, Differences, Hit, Interval, Slice, Slices, System, WorstQuery
from rivals.evaluate._report.words import clip
from rivals.evaluate.tables import slice_findings

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset
    from rivals.data.run import Run
    from rivals.evaluate.evaluation import Evaluation

_TEXT = 2000  # characters of a document that go into the report's data


class Measured(NamedTuple):
    """The parts of a `ReportData` which come from an `Evaluation`: `ReportData(title, about, **measured._asdict())`."""

    systems: tuple[System, ...]
    primary: str
    tie_groups: tuple[tuple[str, ...], ...]
    comparisons: tuple[Comparison, ...]
    differences: tuple[Differences, ...]
    correction: str
    slices: tuple[Slices, ...]


def measured(
    evaluation: Evaluation,
    *,
    descriptions: Mapping[str, str] | None = None,
    milliseconds: Mapping[str, float] | None = None,
    milliseconds_p95: Mapping[str, float] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
) -> Measured:
    """Return what a report shows of an evaluation.

    Args:
        descriptions: one clause per system, such as "BM25, then the trained encoder".
        milliseconds, milliseconds_p95: time per query of each system, median and 95th percentile.
        pairs: (system, baseline) whose per-query differences are drawn, such as ("trained", "untrained").

    Raises:
        RivalsError: a name is not a system of the evaluation.
    """
    for name in (
        *(descriptions or {}),
        *(milliseconds or {}),
        *(milliseconds_p95 or {}),
        *(n for pair in pairs for n in pair),
    ):
        if name not in evaluation.systems:
            raise RivalsError(f"no system is called '{name}'; there are {', '.join(evaluation.systems)}")
    systems = tuple(
        System(
            name,
            {measure: _interval(*evaluation.intervals[name][measure][:3]) for measure in evaluation.measures},
            (descriptions or {}).get(name, ""),
            (milliseconds or {}).get(name),
            (milliseconds_p95 or {}).get(name),
        )
        for name in evaluation.systems
    )
    members: dict[str, list[str]] = {}
    for name, letters in evaluation.groups.items():
        for letter in re.findall(r"\([a-z]+\d+\)|[a-z]", letters):
            members.setdefault(letter, []).append(name)
    comparisons = tuple(
        Comparison(
            c.system,
            c.baseline,
            c.measure,
            _interval(c.difference, c.low, c.high),
            c.p,
            c.p_corrected,
            c.effect_size if math.isfinite(c.effect_size) else None,
            c.detectable if math.isfinite(c.detectable) else None,
        )
        for c in evaluation.comparisons
    )
    primary = evaluation.primary
    differences = tuple(
        Differences(
            system,
            baseline,
            primary,
            tuple((evaluation.per_query[system][primary] - evaluation.per_query[baseline][primary]).round(6).tolist()),
        )
        for system, baseline in pairs
    )
    groups = tuple(tuple(group) for group in members.values())
    return Measured(systems, primary, groups, comparisons, differences, evaluation.correction, _slices(evaluation))


def _slices(evaluation: Evaluation) -> tuple[Slices, ...]:
    """The views that have something to compare."""
    return tuple(
        Slices(
            view.slicing.by,
            tuple(
                Slice(
                    label,
                    size,
                    {
                        name: _interval(*view.intervals[name][evaluation.primary][place][:3])
                        for name in evaluation.systems
                    },
                )
                for place, (label, size) in enumerate(zip(view.slicing.labels, view.slicing.sizes, strict=True))
            ),
            tuple(slice_findings(evaluation, view)),
        )
        for view in evaluation.slices
        if len(view.slicing.labels) > 1
    )


def worst_queries(
    evaluation: Evaluation, runs: Mapping[str, Run], dataset: Dataset, *, system: str, n: int = 10, hits: int = 3
) -> tuple[WorstQuery, ...]:
    """Return the `n` queries on which `system` does worst, with the first `hits` documents of every system.

    Raises:
        RivalsError: a system has no run here; the data has no texts.
    """
    if missing := [name for name in evaluation.systems if name not in runs]:
        raise RivalsError(f"no run was given for {', '.join(missing)}; give one for every evaluated system")
    judgements = dataset.judgements.positives
    out = []
    for worst in evaluation.worst_queries(system, n):
        row = dataset.queries.row(worst.query)
        relevant = judgements.document[judgements.offsets[row] : judgements.offsets[row + 1]]
        relevant_ids = set(dataset.documents.ids[relevant].tolist())
        returned = {name: _hits(runs[name], dataset, worst.query, relevant_ids, hits) for name in evaluation.systems}
        texts = tuple(clip(dataset.documents.full_texts[i], _TEXT) for i in relevant.tolist())
        out.append(
            WorstQuery(
                worst.query, clip(dataset.queries.full_texts[row], _TEXT), dict(worst.all_values), returned, texts
            )
        )
    return tuple(out)


def _hits(run: Run, dataset: Dataset, query: str, relevant: set[str], hits: int) -> tuple[Hit, ...]:
    row = int(run.queries.find([query])[0])
    if row < 0:
        return ()
    places = np.arange(run.offsets[row], min(run.offsets[row] + hits, run.offsets[row + 1]))
    ids = run.documents.ids[run.document[places]].tolist()
    texts = [clip(dataset.documents.full_texts[dataset.documents.row(i)], _TEXT) for i in ids]
    scores = run.score[places].tolist()
    return tuple(Hit(i, text, i in relevant, score) for i, text, score in zip(ids, texts, scores, strict=True))


def _interval(value: float, low: float, high: float) -> Interval:
    """An interval whose ends are unknown (one query) shrinks to its value."""
    return Interval(value, low if math.isfinite(low) else value, high if math.isfinite(high) else value)
