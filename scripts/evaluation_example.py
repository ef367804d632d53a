"""Three comparisons on the embedded sample in which a single number misleads, and its leakage, for docs/evaluation.md.

    python scripts/evaluation_example.py                  # prints every figure of the page, in a few minutes
    python scripts/evaluation_example.py --plots folder   # and draws the plots there

Nothing is trained and every draw is seeded: BM25, a small encoder as published, and both fused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rivals.data import Dataset, Run, leakage_report, load_sample
from rivals.evaluate import Evaluation, evaluate
from rivals.evaluate.evaluation_negatives import EvaluationNegatives
from rivals.evaluate.full import full_ranking
from rivals.models import Encoder
from rivals.retrieve import BM25, Dense, ReciprocalRankFusion

ENCODER = "all-MiniLM-L6-v2"
MEASURES = ("nDCG@10", "RR@10", "R@100")
SMALL, FEW = 60, (30, 60, 100)  # questions of small test sets, and of those that settings are chosen on
DRAWS = 1000
DEFAULT = "k1=1.2 b=0.75"
NEGATIVES = 100  # documents that each answer is ranked among in the sampled protocol


def main() -> None:
    """Run the four parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plots", type=Path, help="a folder to draw into")
    folder = parser.parse_args().plots
    sample = load_sample()
    test = sample.split("test")
    words = BM25(sample.documents, name="BM25")
    dense = Dense(Encoder.load(ENCODER), sample.documents, name="encoder")
    fused = ReciprocalRankFusion([words, dense], name="fused")
    evaluation = two_means(test, {system.name: system(test, 100) for system in (words, dense, fused)})
    sampled_ranks(test, words, dense)
    best_of_many(test)
    leakage(sample)
    if folder is not None:
        from rivals.evaluate import plots

        plots.rank_groups(evaluation).save(folder / "groups.png")
        plots.differences(evaluation, "fused", "encoder").save(folder / "differences.png")


def two_means(test: Dataset, runs: dict[str, Run]) -> Evaluation:
    """Two systems whose means differ: what the whole test set says, and what small ones would have said."""
    print("1. Two means\n")
    evaluation = evaluate(runs, test, measures=MEASURES, baselines=["encoder"])
    print(evaluation)
    fused, dense = (evaluation.per_query[name]["nDCG@10"] for name in ("fused", "encoder"))
    difference = fused - dense
    generator = np.random.default_rng(0)
    drawn = np.array([difference[generator.choice(len(difference), SMALL, replace=False)].mean() for _ in range(DRAWS)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    print(
        f"\nOf {DRAWS:,} test sets of {SMALL} questions drawn from these {len(difference)}, fused has the higher mean in "
        f"{(drawn > 0).mean():.0%}, the encoder in {(drawn < 0).mean():.0%}; 95% of the differences lie between "
        f"{low:+.3f} and {high:+.3f}."
    )
    return evaluation


def sampled_ranks(test: Dataset, words: BM25, dense: Dense) -> None:
    """Each answer among all documents, and among a hundred drawn ones."""
    print(f"\n2. Ranks among {NEGATIVES} documents\n")
    every = np.arange(len(test.documents))
    negatives = EvaluationNegatives.draw(test.judgements, NEGATIVES, documents=len(every), seed=0)
    for system in (words, dense):

        def scores(rows: np.ndarray, system: BM25 | Dense = system) -> np.ndarray:
            pairs = np.repeat(rows, len(every)), np.tile(every, len(rows))
            return system.score(test.queries, *pairs).reshape(len(rows), -1)

        found = full_ranking(scores, test.judgements, negatives=negatives)
        assert found.sampled is not None
        print(
            f"{system.name}: R@10 among all {len(every):,} documents {found.list_values(['R@10'])['R@10'].mean():.3f}, "
            f"among {NEGATIVES} drawn ones {found.sampled.list_values(['R@10'])['R@10'].mean():.3f}"
        )


def best_of_many(test: Dataset) -> None:
    """The best of 25 settings on a few questions, and what is left of its lead on all others."""
    print("\n3. The best of 25 settings\n")
    settings = [(k1, b) for k1 in (0.6, 0.9, 1.2, 1.5, 2.0) for b in (0.2, 0.4, 0.6, 0.75, 0.9)]
    runs = {f"k1={k1} b={b}": BM25(test.documents, k1=k1, b=b)(test, 10) for k1, b in settings}
    evaluation = evaluate(runs, test, measures=["nDCG@10"], baselines=[DEFAULT])
    gain = evaluation.values[:, 0] - evaluation.per_query[DEFAULT]["nDCG@10"]
    for size in FEW:
        generator, seen, left = np.random.default_rng(0), [], []
        for _ in range(DRAWS):
            order = generator.permutation(gain.shape[1])
            best = gain[:, order[:size]].mean(axis=1).argmax()
            seen.append(gain[best, order[:size]].mean())
            left.append(gain[best, order[size:]].mean())
        print(
            f"chosen on {size} questions: gain over the default {np.mean(seen):+.3f} on these, {np.mean(left):+.3f} on the "
            f"others; no better than the default there in {np.mean(np.array(left) <= 0):.0%} of {DRAWS:,} draws"
        )
    rows = np.random.default_rng(0).permutation(len(test.queries))[:SMALL]
    for questions in (test.take(rows), test):
        found = (
            evaluation if questions is test else evaluate(runs, questions, measures=["nDCG@10"], baselines=[DEFAULT])
        )
        best = max(found.comparisons, key=lambda c: c.difference)
        below = [
            sum(p < 0.05 for p in ps) for ps in zip(*((c.p, c.p_corrected) for c in found.comparisons), strict=True)
        ]
        print(
            f"{len(found.queries)} questions: best {best.system}, {best.difference:+.3f} [{best.low:+.3f}, {best.high:+.3f}] "
            f"to the default, p {best.p:.4f}, corrected {best.p_corrected:.4f}; of {len(found.comparisons)} tests {below[0]} "
            f"are below 0.05, corrected {below[1]}; {sum('a' in g for g in found.groups.values())} settings in the best group"
        )


def leakage(sample: Dataset) -> None:
    """What the splits of the sample share."""
    print("\n4. Leakage\n")
    print(leakage_report(sample))


if __name__ == "__main__":
    main()
