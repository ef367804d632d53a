"""Word substitution with search: an attacker who may ask the system which replacement lifts a document most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from rivals.data.dataset import Dataset
from rivals.data.pipeline import Pipeline
from rivals.data.run import Run
from rivals.diagnose.robustness.documents import (
    ChangedDocuments,
    DocumentChange,
    check_below,
    check_count,
    choose_rivals,
    rivals_changed,
)
from rivals.diagnose.robustness.edits import words_of
from rivals.diagnose.robustness.systems import text_scorer
from rivals.errors import RivalsError
from rivals.progress import progress

__all__ = ["SearchSubstitutions"]

PairScorer: TypeAlias = Callable[[list[str], list[str]], ArrayLike]
"""Scores of pairs (query, document), given as two lists of texts."""

_SEEN = 60  # words of the document found first that an attacker copies from


@dataclass(frozen=True)
class SearchSubstitutions(DocumentChange):
    """For every query one document that does not answer it gets up to `words` words replaced, each the best of some tries.

    Greedy search: at every step `tries` random replacements of a word by one of the query's, or of the beginning of the
    document found first, are scored by the system, and the best one stays if it raises the score. So the text keeps its
    length and most of its words. Rivals are chosen as by `SubstituteWords`, whose blind replacements are the floor to
    compare with.

    Args:
        words: replaced at most. tries: replacements asked about at every step. below: the rank under which rivals are
        taken. scorer: makes, for the texts of a step, a scorer of pairs of texts; None asks the system under test, of a
        pipeline its first stage (see `text_scorer`).

    Cost: words x tries texts a query are scored; an encoder reads them all.

    Source: word-substitution attacks on rankers, Wu et al. (2022), PRADA, with scores asked for in place of a copied
    model's gradients, and no constraint to synonyms; a perturbation of the kind of paper 55.

    Raises:
        RivalsError: words or tries below 1, below less than 0; when called, no system to ask, a scorer that gives the
            wrong number of scores or NaN.

    >>> SearchSubstitutions(4).name
    'searched substitutions x4'
    """

    words: int = 5
    tries: int = 12
    below: int = 10
    scorer: Callable[[Sequence[str]], PairScorer] | None = None

    def __post_init__(self) -> None:
        check_count(self.words, "words", "front")
        check_count(self.tries, "tries", "front")
        check_below(self.below)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"searched substitutions x{self.words}"

    def against(self, system: Any) -> SearchSubstitutions:
        """Return the attack on a system: the given scorer, or the system's own."""
        if self.scorer is not None:
            return self
        asked = system.source if isinstance(system, Pipeline) else system
        if not hasattr(asked, "documents"):
            raise RivalsError(
                "the system scores no single texts; give scorer=, a function from texts to a scorer of pairs"
            )
        return replace(self, scorer=lambda texts: text_scorer(asked, texts))

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with words of one rival a query replaced."""
        if self.scorer is None:
            raise RivalsError("no system to ask: call .against(system) first, or give scorer=")
        texts, queries = dataset.documents.full_texts, dataset.queries.full_texts
        chosen = choose_rivals(dataset, run, self.name, self.below, seed)
        asked = [queries[row] for row, _, _ in chosen]
        now = [dataset.documents.texts[rival].split() for _, rival, _ in chosen]
        free = [list(range(len(words))) for words in now]
        pools = [self._pool(queries[row], run, row, texts) for row, _, _ in chosen]
        best: list[float | None] = [None] * len(chosen)
        with progress("Searching substitutions", self.words) as advance:
            for _ in range(self.words):
                owners: list[int] = []
                moves: list[tuple[int, str] | None] = []
                for i, (_, _, rng) in enumerate(chosen):
                    if best[i] is None:
                        owners, moves = [*owners, i], [*moves, None]
                    for place, word in self._moves(now[i], free[i], pools[i], rng):
                        owners.append(i)
                        moves.append((place, word))
                self._step(asked, now, free, best, owners, moves)
                advance()
        return rivals_changed(dataset, chosen, [" ".join(words) for words in now])

    def _pool(self, query: str, run: Run, row: int, texts: Sequence[str]) -> list[list[str]]:
        """The words to copy: the query's, and those of the document found first."""
        found = run.document[run.offsets[row] : run.offsets[row + 1]]
        seen = words_of(texts[found[0]])[:_SEEN] if len(found) else []
        return [pool for pool in (list(dict.fromkeys(words_of(query))), list(dict.fromkeys(seen))) if pool]

    def _moves(
        self, words: Sequence[str], free: Sequence[int], pools: Sequence[Sequence[str]], rng: np.random.Generator
    ) -> list[tuple[int, str]]:
        """Different replacements (place, word), drawn at random."""
        if not free or not pools:
            return []
        found: dict[tuple[int, str], None] = {}
        for _ in range(self.tries):
            pool = pools[int(rng.integers(len(pools)))]
            place, word = free[int(rng.integers(len(free)))], pool[int(rng.integers(len(pool)))]
            if words[place] != word:
                found[place, word] = None
        return list(found)

    def _step(
        self,
        asked: Sequence[str],
        now: list[list[str]],
        free: list[list[int]],
        best: list[float | None],
        owners: Sequence[int],
        moves: Sequence[tuple[int, str] | None],
    ) -> None:
        """Score all proposals together; every document takes its best one if it beats what the document scores now."""
        proposals = []
        for i, move in zip(owners, moves, strict=True):
            words = list(now[i])
            if move is not None:
                words[move[0]] = move[1]
            proposals.append(" ".join(words))
        if not proposals:
            return
        assert self.scorer is not None
        scores = np.asarray(self.scorer(proposals)([asked[i] for i in owners], proposals), np.float64)
        if scores.shape != (len(proposals),) or np.isnan(scores).any():
            raise RivalsError(f"the scorer must give {len(proposals)} scores, none of them NaN; got {scores.shape}")
        top: dict[int, int] = {}
        for n, i in enumerate(owners):
            if moves[n] is None:
                best[i] = float(scores[n])
            elif i not in top or scores[n] > scores[top[i]]:
                top[i] = n
        for i, n in top.items():
            move, held = moves[n], best[i]
            if move is not None and (held is None or scores[n] > held):
                place, word = move
                now[i][place], best[i] = word, float(scores[n])
                free[i].remove(place)
