"""Full-ranking evaluation of a recommender, 3,000 users x 20,000 items, against implicit's own evaluation.

Ten answers and thirty training items a user, random vectors, so that an answer's rank may be anywhere: the hardest case for
a ranker that counts. Ours returns every rank as well; implicit's the first ten places. torch's top-k is the plain way.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload

_WIDTH, _ANSWERS, _KNOWN, _K = 64, 10, 30, 10


def workload(quick: bool) -> Workload:
    """Rank 3,000 x 20,000 (30 x 200 when quick) with vectors of 64."""
    import torch

    from rivals.data.dataset import Judgements
    from rivals.evaluate.full import full_ranking, vector_scores

    users, items = (30, 200) if quick else (3_000, 20_000)
    generator = np.random.default_rng(0)
    factors = [generator.standard_normal((size, _WIDTH), dtype=np.float32) for size in (users, items)]
    drawn = np.stack([generator.choice(items, _ANSWERS + _KNOWN, replace=False) for _ in range(users)])

    def judged(part: Any) -> Judgements:
        rows = np.repeat(np.arange(users), part.shape[1])
        return Judgements.build(rows, part.ravel(), np.ones(part.size), queries=users, documents=items)

    answers, known = judged(drawn[:, :_ANSWERS]), judged(drawn[:, _ANSWERS:])

    def ours(threads: int) -> float:
        ranking = full_ranking(vector_scores(*factors), answers, known=known, threads=threads)
        return float(ranking.list_values([f"nDCG@{_K}"])[f"nDCG@{_K}"].mean())

    discount = 1 / np.log2(np.arange(2, _K + 2))

    def plain(threads: int) -> float:
        """Mask, take torch's top-k by blocks, and look the places up."""
        vectors, total = [torch.from_numpy(part) for part in factors], 0.0
        for start in range(0, users, 512):
            block = slice(start, min(start + 512, users))
            scores = vectors[0][block] @ vectors[1].T
            scores.scatter_(1, torch.from_numpy(drawn[block, _ANSWERS:]), -torch.inf)
            best = scores.topk(_K, dim=1).indices.numpy()
            total += float(((best[:, :, None] == drawn[block, None, :_ANSWERS]).any(2) * discount).sum())
        return total / users / float(discount.sum())

    variants, missing = [Variant("rivals", ours)], []
    if find_spec("implicit") is None:
        missing.append("implicit")
    else:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.evaluation import ranking_metrics_at_k
        from scipy.sparse import csr_matrix

        model = AlternatingLeastSquares(factors=_WIDTH)
        model.user_factors, model.item_factors = factors
        train, test = (
            csr_matrix((np.ones(len(part), np.float32), part.document, part.offsets), shape=(users, items))
            for part in (known, answers)
        )

        def theirs(threads: int) -> float:
            options = {"K": _K, "show_progress": False, "num_threads": threads}
            return float(ranking_metrics_at_k(model, train, test, **options)["ndcg"])

        variants.append(Variant("implicit", theirs))
    variants.append(Variant("torch top-k", plain))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        own = results.pop("rivals")
        return {f"nDCG difference from {name}": abs(own - value) for name, value in results.items()}

    return Workload(
        what=f"filtered ranks and nDCG@{_K}, {users:,} users x {items:,} items x {_WIDTH}, {_ANSWERS} answers each",
        unit="users/s",
        amount=users,
        flops=2.0 * users * items * _WIDTH,
        variants=variants,
        targets=[Target("at least 1.5x implicit's rate", "speed", 1.5)],
        checks=checks,
        missing=missing,
        notes=["without implicit the target is against torch's top-k"] if missing else [],
    )


CASES: dict[str, Case] = {"": workload}
