"""Condensed lists: rankings without the documents that nobody judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rivals.data.dataset import Judgements
    from rivals.data.run import Run
    from rivals.evaluate.result import Evaluation


def condense(run: Run, judgements: Judgements) -> Run:
    """Return a run with only the judged candidates of every query; order stays, ranks are numbered anew.

    Measured so, a system is not charged for documents that nobody looked at. Use it beside the usual way, never alone:
    counting the unjudged as not relevant is too hard on systems that did not feed the judgements, leaving them out is
    too kind to them, and the truth is between. `evaluate(..., condensed=True)` reports both.

    Args:
        run: over the same query rows and documents as the judgements.

    Source: Sakai 2007 (doi 10.1145/1277741.1277756); the bias of either way: Sakai 2008.

    >>> from rivals.data import Collection, Judgements, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 3], [0, 1, 2], [.9, .8, .7])
    >>> short = condense(run, Judgements.build([0, 0], [0, 2], [0, 1], queries=1, documents=3))
    >>> short.documents.ids[short.document].tolist(), short.rank.tolist()
    (['a', 'c'], [0, 1])
    """
    return run.select(judgements.find(run) >= 0)


def condensed_order(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the systems by the mean of the primary measure on condensed lists, highest first; () without them."""
    means = {name: float(row[evaluation.primary].estimate) for name, row in evaluation.condensed.items()}
    return tuple(sorted(means, key=lambda system: (-means[system], system)))


def condensed_note(evaluation: Evaluation) -> str:
    """Return whether leaving out the unjudged documents changes the order of the systems, in one sentence.

    If no condensed lists were measured and the systems' unjudged shares differ much, return the advice to do so.
    """
    if evaluation.condensed:
        order = condensed_order(evaluation)
        if order == evaluation.order:
            return f"Without unjudged documents the systems keep their order on {evaluation.primary}."
        return (
            f"Without unjudged documents the order on {evaluation.primary} is another: {', '.join(order)}. "
            "What nobody judged decides between these systems; judge more before believing either order."
        )
    shares = [seen.unjudged_at_10 for seen in evaluation.coverage.values()]
    if len(shares) > 1 and max(shares) - min(shares) > UNEVEN:
        return (
            f"The systems differ in unjudged documents ({min(shares):.0%} to {max(shares):.0%} of the first 10), which "
            "count as not relevant; condensed lists show how much depends on that."
        )
    return ""


UNEVEN = 0.1
"""Unjudged shares of the first 10 that differ by more than this make a caution."""
