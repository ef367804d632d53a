"""Paper 110: forgetting without a reference model (SimNPO) against negative preference optimisation with one (NPO).

A perceptron knows all ten digits; the images of digit 3 are to be forgotten, with no retain term. Measured is the
accuracy on the other nine digits once digit 3 is forgotten.
"""

from __future__ import annotations

from functools import partial

from papers.common.claim import Higher, Paper
from papers.common.forgetting import forget_a_digit

ARMS = {
    "NPO": ("npo", 1.0),
    "NPO, beta 2.5": ("npo", 2.5),
    "SimNPO": ("simnpo", 2.5),
    "SimNPO, beta 1": ("simnpo", 1.0),
}

PAPER = Paper(
    number=110,
    claim="Dropping the reference model and normalising by length forgets better than NPO on TOFU and MUSE at similar "
    "utility.",
    expects=(
        Higher("others after 1000 steps, SimNPO", "others after 1000 steps, NPO"),
        Higher("others after 1000 steps, SimNPO, beta 1", "others after 1000 steps, NPO"),
        Higher("others after 1000 steps, SimNPO", "others after 1000 steps, NPO, beta 2.5"),
    ),
    data="digits: accuracy on nine digits while the tenth is forgotten, MLP 128, SGD 0.1, no retain term",
    run=partial(forget_a_digit, arms=ARMS),
    notes="A classifier, not a language model: every text has length 1, so only the missing reference is tested. The card's "
    "comparison is beta 2.5 against NPO's 1; the same beta on both sides stands beside it.",
)
