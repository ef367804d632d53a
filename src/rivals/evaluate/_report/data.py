"""What a report shows: plain frozen dataclasses that turn into JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rivals.errors import RivalsError, RunFolderError


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; all three finite."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise RivalsError(f"a report shows finite values only, not {self.value} in [{self.low}, {self.high}]")


@dataclass(frozen=True)
class About:
    """What was done, with what, when and at what cost; unknown costs are None and are left out of the page."""

    dataset: str
    documents: int
    queries: Mapping[str, int]  # by split, in the order to show
    judgements: int
    trained: str  # one plain sentence: what was trained, how, and from where
    started: str  # ISO 8601, with the offset from UTC
    seconds: float
    seed: int
    peak_memory_bytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    attribution: str = ""  # authors, source and licence of the data
    machine: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()  # what was dropped, cut or left out, each in one sentence


@dataclass(frozen=True)
class System:
    """One system's results on the test queries: measures by name (`nDCG@10`, ...) and time per query."""

    name: str
    measures: Mapping[str, Interval]
    description: str = ""
    milliseconds: float | None = None  # median per query
    milliseconds_p95: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired randomisation test of one system against a baseline on one measure.

    `effect_size` is the mean difference divided by the standard deviation of the per-query differences; `detectable` is
    the smallest true difference that a test of this size finds in 80 % of repetitions.
    """

    system: str
    baseline: str
    measure: str
    difference: Interval  # system minus baseline
    p: float
    p_corrected: float  # after the report's correction
    effect_size: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Differences:
    """Per-query differences of two systems on one measure, `system` minus `baseline`, in any order."""

    system: str
    baseline: str
    measure: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """Queries of one kind: how many they are, and each system's mean on the report's primary measure."""

    label: str
    queries: int
    means: Mapping[str, Interval]


@dataclass(frozen=True)
class Slices:
    """The test queries split by one property; `findings` say whether differences differ between slices, and what to mind."""

    by: str
    slices: tuple[Slice, ...]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreStage:
    """Histograms of one model's scores: bin edges (n + 1), counts (n) of positives, negatives, marked false negatives.

    `separation` is the chance that a random positive scores above a random negative (ties count half); built by `of`.
    """

    stage: str
    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    marked: tuple[int, ...]
    separation: float | None = None

    @classmethod
    def of(
        cls, stages: Mapping[str, tuple[Any, Any, Any]], *, bins: int = 48, common: bool = True
    ) -> tuple[ScoreStage, ...]:
        """Bin the scores of several stages, `{stage: (positives, negatives, marked)}`, on common edges.

        Args:
            common: False gives every stage its own edges, for stages whose scores are on different scales.

        Raises:
            RivalsError: a score is not finite.

        >>> stage, = ScoreStage.of({"before": ([.9, .8], [.1, .8], [])}, bins=2)
        >>> stage.positives, stage.negatives, stage.separation
        ((0, 2), (1, 1), 0.875)
        """
        arrays = {name: [np.asarray(part, np.float64).ravel() for part in parts] for name, parts in stages.items()}
        for name, parts in arrays.items():
            if any(not np.isfinite(part).all() for part in parts):
                raise RivalsError(
                    f"the scores of '{name}' hold a value that is not finite; leave unscored candidates out"
                )
        everything = np.concatenate([part for parts in arrays.values() for part in parts] or [np.zeros(0)])
        built = []
        for name, (positives, negatives, marked) in arrays.items():
            seen = everything if common else np.concatenate((positives, negatives, marked))
            edges = np.histogram_bin_edges(seen, bins) if len(seen) else np.array([0.0, 1.0])
            counts = [tuple(np.histogram(part, edges)[0].tolist()) for part in (positives, negatives, marked)]
            built.append(
                cls(name, tuple(edges.tolist()), counts[0], counts[1], counts[2], _separation(positives, negatives))
            )
        return tuple(built)


def _separation(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    if not len(positives) or not len(negatives):
        return None
    ordered = np.sort(negatives)
    below, up_to = np.searchsorted(ordered, positives), np.searchsorted(ordered, positives, side="right")
    return float((below + up_to).mean() / 2 / len(ordered))


@dataclass(frozen=True)
class Curve:
    """A model's training: (step, loss) pairs, (step, measure on dev) pairs, and the step whose weights were kept."""

    name: str
    loss: tuple[tuple[int, float], ...]
    evaluations: tuple[tuple[int, float], ...] = ()
    measure: str = "nDCG@10"
    chosen_step: int | None = None


@dataclass(frozen=True)
class Suspect:
    """A candidate that was marked as a probable false negative."""

    query: str
    positive: str
    candidate: str
    reason: str
    positive_score: float | None = None
    candidate_score: float | None = None


@dataclass(frozen=True)
class Mining:
    """Counts of candidates: proposed, marked by each reason (one can have several), kept, drawn for training."""

    queries: int
    proposed: int
    marked: Mapping[str, int]
    kept: int
    drawn: int
    proposed_by: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Suspect, ...] = ()


@dataclass(frozen=True)
class Hit:
    """One returned document."""

    id: str
    text: str
    relevant: bool
    score: float | None = None


@dataclass(frozen=True)
class WorstQuery:
    """A query that went badly: its value per system on the report's primary measure, and each system's first hits."""

    id: str
    text: str
    values: Mapping[str, float]
    returned: Mapping[str, tuple[Hit, ...]]
    relevant: tuple[str, ...] = ()  # texts of the relevant documents


@dataclass(frozen=True)
class Overlap:
    """One leakage check between train and test: how many of how many are found on both sides."""

    what: str
    count: int
    of: int
    meaning: str = ""  # one sentence: why it matters or why it is harmless
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. Parts that are empty or None are left out of the page.

    `tie_groups` name systems that the data cannot tell apart on `primary`; groups may overlap (A ties with B, B with C,
    but not A with C).
    """

    title: str
    about: About
    systems: tuple[System, ...]
    primary: str = "nDCG@10"
    tie_groups: tuple[tuple[str, ...], ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    differences: tuple[Differences, ...] = ()
    slices: tuple[Slices, ...] = ()
    scores: tuple[ScoreStage, ...] = ()
    curves: tuple[Curve, ...] = ()
    mining: Mining | None = None
    worst: tuple[WorstQuery, ...] = ()
    worst_of: str = ""  # the system whose worst queries these are
    leakage: tuple[Overlap, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    correction: str = "holm"  # of the comparisons' p-values: "holm" or "benjamini-hochberg"

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if not names:
            raise RivalsError("a report needs at least one system; evaluate something first")
        if len(set(names)) != len(names):
            raise RivalsError(f"two systems of the report have the same name; the names are {', '.join(names)}")
        if self.correction not in ("holm", "benjamini-hochberg"):
            raise RivalsError(f"correction is '{self.correction}'; a report knows 'holm' and 'benjamini-hochberg'")
        for system in self.systems:
            if self.primary not in system.measures:
                raise RivalsError(f"system '{system.name}' has no {self.primary}, the report's primary measure")
        named = {name for group in self.tie_groups for name in group}
        named |= {name for c in self.comparisons for name in (c.system, c.baseline)}
        named |= {name for d in self.differences for name in (d.system, d.baseline)}
        named |= {name for view in self.slices for part in view.slices for name in part.means}
        named |= {name for query in self.worst for name in (*query.values, *query.returned)}
        named |= {self.worst_of} - {""}
        if unknown := sorted(named - set(names)):
            raise RivalsError(
                f"the report names unknown systems: {', '.join(unknown)}; its systems are {', '.join(names)}"
            )

    def to_json(self) -> bytes:
        """Return the data as indented JSON; `from_json` is the inverse."""
        import msgspec

        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def from_json(cls, content: bytes | str, *, path: object = "report.json") -> ReportData:
        """Read what `to_json` wrote.

        Raises:
            RunFolderError: it is not JSON, or not the JSON of a report.
        """
        import msgspec

        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, RivalsError, UnicodeDecodeError) as error:
            raise RunFolderError(
                f"{path} is not the data of a report ({error}); evaluate the run again to write it"
            ) from None
