"""Paper 67: do quotas repair a shortlist from biased rankings, and does the score function decide how fast?

Shortlists of 8 of 40 items from 3 to 300 rankings that under-rate half of the items, with and without at least 4 of each
half; worth = committee score on 2,000 unbiased rankings, as a share of the best.
"""

from __future__ import annotations

import numpy as np

from papers.common.claim import Above, Higher, Paper
from rivals.evaluate.biased_rankings import bias_rankings, constraint_benefit_curve, score_smoothness
from rivals.evaluate.committees import Kind

ITEMS, CHOSEN = 40, 8
NAMES: dict[Kind, str] = {"sntv": "SNTV", "bloc": "Bloc", "borda": "Borda", "chamberlin_courant": "CC"}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return recovery by score and number of rankings, without bounds and with, and the smoothness of every score."""
    draw = np.random.default_rng([seed, 0])
    latent, group = draw.random(ITEMS), np.arange(ITEMS) >= ITEMS // 2
    counts = (3, 10) if smoke else (3, 10, 30, 100, 300)
    rows = constraint_benefit_curve(
        latent, group, k=CHOSEN, kinds=list(NAMES), rankings=counts, lower=CHOSEN // 2, beta=0.6, noise=0.2,
        repeats=1 if smoke else 20, seed=seed,
    )  # fmt: skip
    found, names = {}, {str(kind): name for kind, name in NAMES.items()}
    for row in rows:
        found[f"{names[row.kind]} free, {row.rankings}"] = row.free
        found[f"{names[row.kind]} quota, {row.rankings}"] = row.bounded
    noisy = latent + 0.2 * draw.standard_normal((max(counts), ITEMS))
    seen = bias_rankings(noisy, group, beta=0.6)
    for kind, name in NAMES.items():
        smooth = score_smoothness(seen, latent, group, CHOSEN, kind)
        found[f"agreement inside a group, {name}"] = smooth.agreement
    found["lead of Borda over SNTV with quota, 10"] = found["Borda quota, 10"] - found["SNTV quota, 10"]
    found["shortfall of SNTV with quota, most"] = 1 - found[f"SNTV quota, {max(counts)}"]
    return found


PAPER = Paper(
    number=67,
    claim="With fairness constraints a shortlist from biased rankings comes close to the best one; smooth score functions "
    "need few rankings for that, others exponentially many (theorems).",
    expects=(
        Higher("Borda quota, 10", "Borda free, 10"),
        Higher("Bloc quota, 10", "Bloc free, 10"),
        Above("lead of Borda over SNTV with quota, 10", margin=0.1),
        Above("shortfall of SNTV with quota, most", margin=0.05),
        Higher("agreement inside a group, Borda", "agreement inside a group, SNTV"),
    ),
    data="generated as on the paper's subject: 40 items, 20 of them rated at 0.6 of their utility, normal noise of 0.2, 3 to "
    "300 rankings, 20 repeats a seed; utilities anew for each seed",
    run=run,
    notes="A theorem cannot be tested by a simulation, only its direction at these sizes. The bias model is that of Kleinberg "
    "and Raghavan; CC is chosen greedily.",
)
