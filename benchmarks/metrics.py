"""Four measures of 10,000 lists of 100 documents, against pytrec_eval and ir-measures with their inputs prebuilt.

Ours starts from arrays in no particular order and sorts them; theirs starts from dictionaries.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload

_OURS = ("nDCG@10", "AP@100", "RR", "R@100")
_TREC = {"nDCG@10": "ndcg_cut_10", "AP@100": "map_cut_100", "RR": "recip_rank", "R@100": "recall_100"}
_JUDGED = 5  # relevant documents a query, some of them not in the list


def workload(quick: bool) -> Workload:
    """Measure 10,000 x 100 (20 x 100 when quick)."""
    from rivals.measures import measure_all

    lists, width = (20, 100) if quick else (10_000, 100)
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((lists, width)).astype(np.float32)
    grades = generator.integers(1, 4, (lists, _JUDGED))
    # Documents 0..99 are in the list; a query's relevant ones are five different ones of 0..119.
    judged = np.argsort(generator.random((lists, width + 20)), axis=1)[:, :_JUDGED]
    whole = np.zeros((lists, width + 20), np.int64)
    np.put_along_axis(whole, judged, grades, 1)
    relevance = np.ascontiguousarray(whole[:, :width])

    def ours(threads: int) -> dict[str, float]:
        values = measure_all(_OURS, scores, relevance, ideal=grades)
        return {name: float(value.mean()) for name, value in values.items()}

    qrels = {
        f"q{i}": {f"d{d}": g for d, g in zip(*pair, strict=True)}
        for i, pair in enumerate(zip(judged.tolist(), grades.tolist(), strict=True))
    }
    run = {f"q{i}": {f"d{d}": s for d, s in enumerate(row)} for i, row in enumerate(scores.tolist())}
    variants = [Variant("rivals", ours)]
    missing = []
    if find_spec("pytrec_eval") is None:
        missing.append("pytrec_eval")
    else:
        import pytrec_eval

        evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map_cut.100", "recip_rank", "recall.100"})

        def theirs(threads: int) -> dict[str, float]:
            values = evaluator.evaluate(run)
            return {name: sum(v[trec] for v in values.values()) / len(values) for name, trec in _TREC.items()}

        variants.append(Variant("pytrec_eval", theirs))
        if find_spec("ir_measures") is None:
            missing.append("ir-measures")
        else:
            import ir_measures

            chosen = [ir_measures.parse_measure(name) for name in _OURS]
            wrapped = ir_measures.evaluator(chosen, qrels)

            def by_ir_measures(threads: int) -> dict[str, float]:
                return {str(name): value for name, value in wrapped.calc_aggregate(run).items()}

            variants.append(Variant("ir-measures", by_ir_measures))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        own = results.pop("rivals")
        return {
            f"largest difference from {peer}": max(abs(own[name] - values[name]) for name in _OURS)
            for peer, values in results.items()
        }

    return Workload(
        what=f"nDCG@10, AP@100, RR and R@100 of {lists:,} x {width}",
        unit="queries/s",
        amount=lists,
        variants=variants,
        targets=[Target("at least 8x pytrec_eval", "speed", 8.0)],
        checks=checks,
        missing=missing,
    )


CASES: dict[str, Case] = {"": workload}
