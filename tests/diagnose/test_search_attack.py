"""The attack that asks: better than blind replacement, within its bounds, greedy as told, refused where it cannot ask."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Dataset, Judgements, load_sample
from rivals.data.pipeline import Transform
from rivals.diagnose.robustness import SearchSubstitutions, SubstituteWords, robustness_report
from rivals.errors import RivalsError
from rivals.retrieve import BM25


@pytest.fixture(scope="module")
def data() -> Dataset:
    sample = load_sample().split("test").take(range(25))
    wanted = np.unique(sample.judgements.document)
    rows = np.union1d(wanted, np.random.default_rng(0).choice(len(sample.documents), 300, replace=False))
    place = np.searchsorted(rows, sample.judgements.document)
    judgements = Judgements(sample.judgements.offsets, place, sample.judgements.relevance)
    return Dataset(sample.queries, sample.documents.take(rows), judgements, {}, "slice")


@pytest.fixture(scope="module")
def bm25(data: Dataset) -> BM25:
    return BM25(data.documents, threads=1)


def test_asking_beats_blind_replacement(data: Dataset, bm25: BM25) -> None:
    report = robustness_report(
        bm25,
        data,
        perturbations=[SearchSubstitutions(4), SubstituteWords(4)],
        resamples=100,
        permutations=100,
    )
    asked, blind = report["searched substitutions x4"], report["substituted words x4"]
    assert asked.reached > blind.reached
    assert asked.drop.estimate >= blind.drop.estimate


class Reranks(Transform):
    def __call__(self, run):
        return run


def test_its_bounds_and_that_no_step_loses(data: Dataset, bm25: BM25) -> None:
    run = bm25(data.queries, 50)
    attack = SearchSubstitutions(3, tries=5).against(bm25 >> Reranks())
    made = attack(data, run, seed=1)
    assert made.changed == attack(data, run, seed=1).changed
    assert made.changed != attack(data, run, seed=2).changed
    assert len(set(made.rival.tolist())) == len(made.rival) == 25
    relevant = set(data.judgements.positives.document.tolist())
    assert not relevant & set(made.rival.tolist())
    score = attack.scorer([*made.original, *made.changed])
    queries = [data.queries.full_texts[row] for row in made.query.tolist()]
    before, after = (np.asarray(score(queries, list(texts))) for texts in (made.original, made.changed))
    assert (after >= before - 1e-4).all()
    assert (after > before).mean() > 0.9
    for old, new in zip(made.original, made.changed, strict=True):
        assert sum(a != b for a, b in zip(old.split(), new.split(), strict=True)) <= 3


def test_a_scorer_of_ones_own_is_asked_and_obeyed(data: Dataset, bm25: BM25) -> None:
    """One that likes short texts gets them: long words are replaced by shorter ones."""
    asked: list[int] = []

    def shortest(texts):
        asked.append(len(texts))
        return lambda queries, documents: [-len(text) for text in documents]

    attack = SearchSubstitutions(2, tries=4, scorer=shortest)
    assert attack.against(bm25) is attack
    made = attack(data, bm25(data.queries, 50))
    assert all(len(new) < len(old) for old, new in zip(made.original, made.changed, strict=True))
    assert len(asked) == 2
    assert max(asked) <= 25 * 5


def test_what_is_refused(data: Dataset, bm25: BM25) -> None:
    run = bm25(data.queries, 50)
    with pytest.raises(RivalsError, match="no system to ask"):
        SearchSubstitutions()(data, run)
    with pytest.raises(RivalsError, match="tries must be"):
        SearchSubstitutions(tries=0)
    with pytest.raises(RivalsError, match="none of them NaN"):
        SearchSubstitutions(scorer=lambda texts: lambda q, d: [0.0])(data, run)
    with pytest.raises(RivalsError, match="scores no single texts"):
        robustness_report(
            lambda queries, k: bm25(queries, k), data, perturbations=[SearchSubstitutions()], permutations=100
        )
