"""Paper 57: forgetting a class by negative preference optimisation (NPO) against gradient ascent.

A perceptron knows all ten digits; the images of digit 3 are to be forgotten, with no retain term. Measured is the
accuracy on the other nine digits after few and after many steps, when digit 3 is forgotten either way.
"""

from __future__ import annotations

from functools import partial

from papers.common.claim import Higher, Paper
from papers.common.forgetting import forget_a_digit

ARMS = {"gradient ascent": ("gradient_ascent", 1.0), "NPO": ("npo", 1.0), "NPO, beta 0.1": ("npo", 0.1)}


PAPER = Paper(
    number=57,
    claim="NPO forgets without the collapse of gradient ascent, whose damage grows faster.",
    expects=(
        Higher("others after 30 steps, NPO", "others after 30 steps, gradient ascent", margin=0.5),
        Higher("others after 1000 steps, NPO", "others after 1000 steps, gradient ascent", margin=0.5),
        Higher("others after 30 steps, NPO, beta 0.1", "others after 30 steps, gradient ascent"),
    ),
    data="digits: accuracy on nine digits while the tenth is forgotten, MLP 128, SGD 0.1, no retain term",
    run=partial(forget_a_digit, arms=ARMS),
    notes="A classifier, not a language model; step size and margin of 0.5 were fixed beforehand. Ascent stops where log "
    "probabilities overflow; stopping it early, or a smaller step, was not tried.",
)
