"""False-negative rates from judged samples: who is sampled, how verdicts count, and whether the interval holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.measures.proportions import proportion_interval
from rivals.negatives import KnownPositives, MiningAudit, PositiveAware, Top, Uniform
from rivals.negatives.false_negatives import FalseNegatives, _sample, estimate_false_negatives, rank_bands
from rivals.negatives.judging.judges import LabelJudge, Verdicts


def big_run(queries: int = 200, documents: int = 40, seed: int = 0) -> tuple[Run, np.ndarray]:
    """A run whose candidate at rank r is relevant with probability 0.4 * 0.9 ** r, and that truth by run row."""
    generator = np.random.default_rng(seed)
    scores = -np.sort(-generator.random((queries, documents)).astype(np.float32), axis=1)
    run = Run.build(
        Collection([f"q{i}" for i in range(queries)], [f"query {i}" for i in range(queries)], name="query"),
        Collection([f"d{i:02}" for i in range(documents)], [f"text {i}" for i in range(documents)]),
        np.arange(queries + 1) * documents,
        np.tile(np.arange(documents), queries),
        scores.ravel(),
    )
    return run, generator.random(len(run)) < 0.4 * 0.9**run.rank


class Truth:
    """A judge that knows the truth by run row, as far as it was told."""

    name = "truth"

    def __init__(self, run: Run, relevant: np.ndarray, silent: float = 0.0) -> None:
        self.score = {
            (q, d): float(r)
            for q, d, r in zip(run.queries.ids[run.query], run.documents.ids[run.document], relevant, strict=True)
        }
        self.silent, self.asked = silent, 0

    def judge(self, run: Run) -> Verdicts:
        self.asked += len(run)
        pairs = zip(run.queries.ids[run.query], run.documents.ids[run.document], strict=True)
        score = np.array([self.score[pair] for pair in pairs], np.float32)
        score[np.arange(len(score)) < self.silent * len(score)] = np.nan
        return Verdicts(score)


def test_everything_judged_is_the_truth():
    run, relevant = big_run()
    draw = Top(10).draw(run, np.random.default_rng(0))
    found = estimate_false_negatives(run, draw, Truth(run, relevant), sample=None, show=False)
    rate = relevant[draw.chosen(run)].mean()
    assert found.estimate == pytest.approx(rate)
    assert (found.size, found.sampled, found.judged) == (2000, 2000, 2000)
    assert found.relevant == relevant[draw.chosen(run)].sum()
    assert found.low < rate < found.high
    assert sum(band.size for band in found.bands) == 2000
    assert [(band.first, band.last) for band in found.bands] == [(1, 2), (3, 5), (6, 7), (8, 10)]
    rates = [band.rate for band in found.bands]
    assert rates == sorted(rates, reverse=True)  # the truth falls with the rank


def test_a_sample_is_judged_once_and_only_it():
    run, relevant = big_run()
    draw, judge = Top(10).draw(run, np.random.default_rng(0)), Truth(run, relevant)
    found = estimate_false_negatives(run, draw, judge, sample=120, show=False)
    assert judge.asked == found.sampled == found.judged == 120
    assert found.low < relevant[draw.chosen(run)].mean() < found.high
    again = estimate_false_negatives(run, draw, judge, sample=120, show=False)
    assert again == found
    assert estimate_false_negatives(run, draw, judge, sample=120, seed=1, show=False) != found


def test_the_interval_covers_the_truth_as_often_as_it_says():
    run, relevant = big_run()
    draw, judge = Uniform(10).draw(run, np.random.default_rng(0)), Truth(run, relevant)
    truth = relevant[draw.chosen(run)].mean()
    found = [estimate_false_negatives(run, draw, judge, sample=100, seed=seed, show=False) for seed in range(120)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.93
    assert np.mean([one.estimate for one in found]) == pytest.approx(truth, abs=0.012)


def test_groups():
    run, relevant = big_run(queries=3, documents=6)
    run = KnownPositives()(
        run.replace(
            positive_offsets=np.array([0, 1, 2, 3]),
            positive=run.document[run.offsets[:-1]],
            positive_score=run.score[run.offsets[:-1]],
            positive_relevance=np.ones(3, np.float32),
        )
    ).mark(run.rank == 1, "suspected")
    draw, judge = Top(2).draw(run, np.random.default_rng(0)), Truth(run, relevant)
    sizes = {
        of: estimate_false_negatives(run, draw, judge, of=of, show=False).size for of in ("drawn", "kept", "marked")
    }
    assert sizes == {"drawn": 6, "kept": 12, "marked": 3}  # known positives are in no group
    assert estimate_false_negatives(run, None, judge, of="kept", show=False).size == 12
    relabelled = run.replace(label=np.where(run.rank == 1, 1, run.label))
    assert estimate_false_negatives(relabelled, None, judge, of="marked", show=False).size == 3


def test_no_verdict_is_left_out_and_counted():
    run, relevant = big_run()
    draw = Top(10).draw(run, np.random.default_rng(0))
    found = estimate_false_negatives(run, draw, Truth(run, relevant, silent=0.25), sample=200, show=False)
    assert (found.sampled, found.judged, found.unjudged) == (200, 150, 50)
    assert "50 without verdict left out" in str(found)


def test_labels_of_people_are_a_judge(tmp_path):
    run, relevant = big_run(queries=20, documents=10)
    draw = Top(4).draw(run, np.random.default_rng(0))
    chosen = np.flatnonzero(draw.chosen(run))
    lines = [
        f"{run.queries.ids[run.query[row]]} 0 {run.documents.ids[run.document[row]]} {int(relevant[row])}"
        for row in chosen
    ]
    (tmp_path / "labels.qrels").write_text("\n".join(lines[::2]) + "\n")
    found = estimate_false_negatives(run, draw, LabelJudge.load(tmp_path / "labels.qrels"), sample=None, show=False)
    assert (found.judge, found.sampled, found.judged) == ("labels", 80, 40)
    assert found.relevant == relevant[chosen[::2]].sum()


def test_a_function_of_texts_and_its_threshold():
    run, _ = big_run(queries=5, documents=8)
    draw = Top(8).draw(run, np.random.default_rng(0))

    def graded(queries, documents):
        assert queries[0].startswith("query ")
        return [int(text.split()[1]) / 10 for text in documents]

    found = [estimate_false_negatives(run, draw, graded, threshold=t).estimate for t in (0.5, 0.0, 0.7)]
    assert found == pytest.approx([2 / 8, 7 / 8, 0])  # above the threshold, not at it
    example = estimate_false_negatives(run, draw, graded).examples[0]
    assert example.document in ("text 6", "text 7")
    assert (example.positive_id, example.positive, example.positive_score) == ("", None, None)


def test_the_audit_keeps_prints_and_saves_estimates():
    run, relevant = big_run()
    draw, judge = Top(10).draw(run, np.random.default_rng(0)), Truth(run, relevant)
    audit = MiningAudit.of(run, draw)
    first = estimate_false_negatives(run, draw, judge, show=False)
    second = estimate_false_negatives(run, draw, judge, of="kept", show=False)
    both = audit.with_false_negatives(first).with_false_negatives(second)
    assert both.false_negatives == (first, second)
    newer = estimate_false_negatives(run, draw, judge, seed=5, show=False)
    assert both.with_false_negatives(newer).false_negatives == (second, newer)
    assert MiningAudit.from_json(both.to_json()) == both
    text = str(both)
    assert "false negatives, drawn" in text
    assert f"{first.estimate:.1%}" in text
    assert "Relevant among the drawn, by rank: 1-2:" in text
    assert FalseNegatives.of_dict(first.as_dict()) == first


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(1, 6), st.integers(1, 90), st.integers(0, 5))
def test_samples_are_drawn_in_proportion(ranks, bands, size, seed):
    ranks = np.array(ranks, np.int32)
    band = rank_bands(ranks, bands)
    assert band.max() < bands
    assert set(np.unique(band)) == set(range(band.max() + 1))
    order = np.argsort(ranks, kind="stable")
    assert (np.diff(band[order]) >= 0).all()  # bands are intervals of rank
    chosen = _sample(band, size, seed)
    assert len(chosen) == min(size, len(band))
    assert (np.diff(chosen) > 0).all()
    taken, counts = np.bincount(band[chosen], minlength=band.max() + 1), np.bincount(band)
    assert (np.abs(taken - counts * min(size / len(band), 1)) < 1).all()


def test_one_band_is_the_plain_interval():
    run, relevant = big_run()
    found = estimate_false_negatives(
        run, Top(10).draw(run, np.random.default_rng(0)), Truth(run, relevant), sample=150, bands=1, show=False
    )
    assert list(proportion_interval(found.relevant, 150)) == pytest.approx([found.estimate, found.low, found.high])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": "all"}, "of must be"),
        ({"draw": None}, "give the draw"),
        ({"sample": 0}, "sample must be"),
        ({"bands": True}, "bands must be"),
        ({"seed": -1}, "seed must be"),
        ({"level": 2.0}, "level is 2"),
        ({"of": "marked"}, "no marked candidate"),
        ({"judge": lambda q, d: [0.5]}, r"shape \(1,\) for 8 pairs"),
        ({"judge": lambda q, d: [2.0] * len(q)}, "outside 0 to 1"),
        ({"judge": lambda q, d: [float("nan")] * len(q)}, "no verdict on any of the 8"),
        ({"judge": LabelJudge({("q0", "d00"): 5, ("elsewhere", "x"): 5}), "of": "kept", "sample": 1}, "no verdict"),
    ],
)
def test_mistakes(change, said):
    run, _ = big_run(queries=4, documents=5)
    draw = Top(2).draw(run, np.random.default_rng(0))
    options = {"draw": draw, "judge": lambda q, d: [0.0] * len(q)} | change
    with pytest.raises(RivalsError, match=said):
        estimate_false_negatives(run, options.pop("draw"), options.pop("judge"), show=False, **options)


def test_planted_false_negatives_are_estimated_and_filters_lower_them():
    """The sample's own labels hide half of a topic's answers; the estimate finds what the filter leaves."""
    from rivals.data import Dataset, Judgements, load_sample
    from rivals.negatives import mine_hard_negatives
    from rivals.retrieve import BM25

    sample = load_sample().split("test")
    known = sample.judgements
    several = np.flatnonzero(np.diff(known.offsets) > 1)
    first = known.offsets[several]
    hidden = Dataset(
        sample.queries.take(several),
        sample.documents,
        Judgements.build(
            np.arange(len(several)),
            known.document[first],
            np.ones(len(several)),
            queries=len(several),
            documents=len(sample.documents),
        ),
    )
    truth = set(zip(sample.queries.ids[known.query], sample.documents.ids[known.document], strict=True))

    class Known:
        name = "the sample's labels"

        def judge(self, run: Run) -> Verdicts:
            pairs = zip(run.queries.ids[run.query], run.documents.ids[run.document], strict=True)
            return Verdicts(np.array([pair in truth for pair in pairs], np.float32))

    rates, words = [], BM25(sample.documents)
    for filters in ((), (PositiveAware(relative=0.2),)):
        mined = mine_hard_negatives(words, hidden, filters=filters, sampler=Top(4), top_k=30, show=False)
        whole = estimate_false_negatives(mined.run, mined.draw, Known(), sample=None, show=False)
        part = estimate_false_negatives(mined.run, mined.draw, Known(), sample=150, show=False)
        assert part.low <= whole.estimate <= part.high
        rates.append(whole.estimate)
    assert rates[1] < 0.8 * rates[0]
