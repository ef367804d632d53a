"""Plots of what the library returns, each a `Plot` that shows itself in notebooks and saves itself.

    from rivals.evaluate import plots
    plots.rank_groups(evaluation).save("groups.html")          # opens without a network
    plots.differences(evaluation, "ours", "bm25").save("differences.png")

Every function takes values, never files: an `Evaluation`, scores, a `ReliabilityCurve`, a `LossCurve` or `LossSurface`,
a fitted `ScalingLadder`, a `RobustnessReport`. Colours can be told apart with any of the common colour vision
deficiencies, and pages follow the reader's light or dark. HTML needs the extra `report` (altair); PNG and SVG need the
extra `plots` (vl-convert-python).
"""

from rivals.evaluate.plots.ladder import scaling_ladder
from rivals.evaluate.plots.landscape import loss_curves, loss_surface
from rivals.evaluate.plots.perturbations import robustness, robustness_page
from rivals.evaluate.plots.plot import Plot
from rivals.evaluate.plots.scores import reliability, score_distribution
from rivals.evaluate.plots.slices import slice_differences, slice_means
from rivals.evaluate.plots.systems import differences, means, rank_groups

__all__ = [
    "Plot",
    "differences",
    "loss_curves",
    "loss_surface",
    "means",
    "rank_groups",
    "reliability",
    "robustness",
    "robustness_page",
    "scaling_ladder",
    "score_distribution",
    "slice_differences",
    "slice_means",
]
