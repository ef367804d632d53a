"""From raw generations to texts worth keeping: checks with counts, retries, and new rows in a collection."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rivals.data.collection import Collection, normalise_text
from rivals.errors import RivalsError
from rivals.negatives.generating.generators import Generator
from rivals.progress import progress

_BLOCK = 256  # pairs written for at a time
_WORD = re.compile(r"\w+")

#: The column of a collection that says for which query, or page, a row was written; null for rows that people wrote.
GENERATED_FOR = "generated_for"
GENERATED_BY = "generated_by"


@dataclass(frozen=True)
class TextChecks:
    """What a generated text must be to stay: not empty, new, of like length, not a near copy of the positive.

    - equal up to case, Unicode form and blanks to the query, a known positive or another text kept: dropped, always;
    - fewer than `shortest` or more than `longest` times the positive's words: dropped (None = any length; not looked at
      where there is no positive);
    - Jaccard overlap of its set of words with that of a positive above `overlap`: dropped (None = any).

    Source: the pitfalls of generated negatives, paper 68: 0.3 to 3 times the length, overlap below 0.8.

    Raises:
        RivalsError: a bound below 0, overlap above 1, shortest above longest.

    >>> TextChecks().fault("a b c d", ["a b c e"], "q", set()), TextChecks().fault("x", ["a b c d e"], "q", set())
    (None, 'too short')
    """

    shortest: float | None = 0.3
    longest: float | None = 3.0
    overlap: float | None = 0.8

    def __post_init__(self) -> None:
        for name in ("shortest", "longest", "overlap"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise RivalsError(f"{name} must be a finite number, 0 or more, or None, not {value}")
        if self.overlap is not None and self.overlap > 1:
            raise RivalsError(f"overlap is a share of words, at most 1, not {self.overlap}")
        if self.shortest is not None and self.longest is not None and self.shortest > self.longest:
            raise RivalsError(f"shortest {self.shortest} is above longest {self.longest}: nothing would stay")

    def fault(self, text: str, positives: Sequence[str], query: str, others: set[str]) -> str | None:
        """Return why a text is dropped, or None; `others` are normalised texts that stand already."""
        plain = normalise_text(text)
        if not plain:
            return "empty"
        if plain == normalise_text(query):
            return "same as the query"
        if any(plain == normalise_text(positive) for positive in positives):
            return "same as a positive"
        if plain in others:
            return "repeated"
        if not positives:
            return None
        size = len(positives[0].split())
        if self.shortest is not None and len(text.split()) < self.shortest * size:
            return "too short"
        if self.longest is not None and len(text.split()) > self.longest * size:
            return "too long"
        if self.overlap is not None:
            words = set(_WORD.findall(plain))
            for positive in positives:
                known = set(_WORD.findall(normalise_text(positive)))
                if words | known and len(words & known) > self.overlap * len(words | known):
                    return "too close to a positive"
        return None


@dataclass(frozen=True)
class GenerationReport:
    """What was written: for `pairs` pairs `wanted` texts, `written` in up to `attempts` rounds, `kept` of them.

    `dropped` counts by reason what was thrown away; `unfilled` places stayed empty; `without` pairs got nothing at all
    (`without_ids`: the first 20). `skipped` pairs had no positive where the writer needs one.

    >>> print(GenerationReport("rules", pairs=1, wanted=2, written=3, kept=2, dropped={"empty": 1}))
    rules wrote 3 texts for 1 pairs: 2 of 2 wanted kept, 0 unfilled, 0 pairs without any, 0 skipped
      dropped: empty 1
    """

    generator: str
    pairs: int = 0
    wanted: int = 0
    written: int = 0
    kept: int = 0
    unfilled: int = 0
    without: int = 0
    without_ids: tuple[str, ...] = ()
    skipped: int = 0
    attempts: int = 1
    dropped: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    def __str__(self) -> str:
        head = (
            f"{self.generator} wrote {self.written:,} texts for {self.pairs:,} pairs: {self.kept:,} of {self.wanted:,} "
            f"wanted kept, {self.unfilled:,} unfilled, {self.without:,} pairs without any, {self.skipped:,} skipped"
        )
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.dropped.items()))
        return f"{head}\n  dropped: {dropped}" if dropped else head


def write_texts(
    generator: Generator,
    names: Sequence[str],
    queries: Sequence[str],
    shown: Sequence[str],
    known: Sequence[Sequence[str]],
    n: int,
    *,
    checks: TextChecks,
    retries: int = 2,
    seed: int = 0,
    role: str = "",
    show: bool = True,
) -> tuple[list[list[str]], GenerationReport]:
    """Return up to `n` checked texts for every pair, in the order written, and the report.

    What a check drops is asked for again with a new seed, `retries` times; then its place stays empty.

    Args:
        names: of the pairs, for the report. queries, shown: what the generator gets, the query and its positive.
        known: the texts that `checks` compares with, the likest first. role: what is being written, for messages.

    Raises:
        RivalsError: n below 1, retries or seed below 0, no pair, a generator that gives another number of lists, or
        nothing that survives for any pair.
    """
    for name, value, least in (("n", n, 1), ("retries", retries, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
    if not len(names):
        raise RivalsError(f"there is nothing to write {role or 'texts'} for; check the split and its positives")
    kept: list[list[str]] = [[] for _ in names]
    seen: list[set[str]] = [set() for _ in names]
    dropped: Counter[str] = Counter()
    written, attempts = 0, 0
    with progress(f"Writing {role or 'texts'} by {generator.name}", len(names), show=show) as advance:
        for start in range(0, len(names), _BLOCK):
            pending = list(range(start, min(start + _BLOCK, len(names))))
            size = len(pending)
            for attempt in range(retries + 1):
                attempts = max(attempts, attempt + 1)
                missing = max(n - len(kept[row]) for row in pending)
                texts = generator.generate(
                    [queries[row] for row in pending],
                    [shown[row] for row in pending],
                    n if attempt == 0 else missing,
                    seed=int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0]),
                )
                if len(texts) != len(pending):
                    raise RivalsError(f"generator '{generator.name}' gave {len(texts)} lists for {len(pending)} pairs")
                for row, group in zip(pending, texts, strict=True):
                    for text in group:
                        if len(kept[row]) == n:
                            break
                        written += 1
                        fault = checks.fault(text, known[row], queries[row], seen[row])
                        if fault is None:
                            kept[row].append(" ".join(text.split()))
                            seen[row].add(normalise_text(text))
                        else:
                            dropped[fault] += 1
                pending = [row for row in pending if len(kept[row]) < n]
                if not pending:
                    break
            advance(size)
    empty = [name for name, texts in zip(names, kept, strict=True) if not texts]
    total = sum(map(len, kept))
    report = GenerationReport(
        generator.name, len(names), n * len(names), written, total, n * len(names) - total, len(empty),
        tuple(empty[:20]), 0, attempts, dict(dropped),
    )  # fmt: skip
    if not total:
        raise RivalsError(f"nothing that '{generator.name}' wrote survived the checks: {report}".replace("\n ", ";"))
    return kept, report


def extended(
    collection: Collection, ids: Sequence[str], texts: Sequence[str], columns: Mapping[str, Any]
) -> Collection:
    """Return the collection with rows appended: the old rows keep their numbers, so runs and judgements stay valid.

    Columns that only one side has are null on the other.

    Raises:
        DataError: an id that is there already.

    >>> more = extended(Collection(["a"], ["x"]), ["b"], ["y"], {"generated_for": ["q"]})
    >>> more.ids.tolist(), more.table["generated_for"].to_pylist()
    (['a', 'b'], [None, 'q'])
    """
    if not collection.has_texts:
        raise RivalsError(f"these {collection.name} rows have no texts, so texts cannot be written to go with them")
    new = Collection(ids, texts, columns, name=collection.name).table
    table = pa.concat_tables([collection.table, new], promote_options="default")
    return Collection.from_table(table, name=collection.name)


def fresh_ids(collection: Collection, owners: Sequence[str]) -> list[str]:
    """Return a new id for each text written for `owners[i]`: "owner~1", "owner~2", ..., passing over those taken.

    >>> fresh_ids(Collection(["q~1"]), ["q", "q", "r"])
    ['q~2', 'q~3', 'r~1']
    """
    number: dict[str, int] = {}
    made: list[str] = []
    for owner in owners:
        number[owner] = number.get(owner, 0) + 1
        while f"{owner}~{number[owner]}" in collection:
            number[owner] += 1
        made.append(f"{owner}~{number[owner]}")
    return made
