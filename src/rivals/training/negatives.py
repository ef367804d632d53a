"""The mined negatives that training uses now: a marked run, drawn from anew at every epoch, which a regime may replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rivals.data.run import Run

if TYPE_CHECKING:
    from rivals.negatives.samplers import Draw, Sampler


class Negatives:
    """A marked run over the training queries and the sampler that draws from it.

    Args:
        run: candidates with their marks; a marked one is hidden from its query wherever it comes up in a batch.
        sampler: draws anew each epoch, from (seed, version, epoch) alone.

    >>> from rivals.data import Collection
    >>> from rivals.negatives import Uniform
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.1, .2])
    >>> negatives = Negatives(run, Uniform(1))
    >>> negatives.draw(3).candidate.tolist() == negatives.draw(3).candidate.tolist()
    True
    """

    def __init__(self, run: Run, sampler: Sampler, *, seed: int = 0) -> None:
        self.run, self.sampler, self.seed, self.version = run, sampler, seed, 0

    def draw(self, epoch: int) -> Draw:
        """Return the negatives of every query for this epoch; places stay empty where a query has no candidate left."""
        version = [self.version] if self.version else []
        return self.sampler.at(epoch).draw_available(self.run, np.random.default_rng([self.seed, 23, epoch, *version]))

    def put(self, run: Run, version: int) -> None:
        """Use another run from now on; versions are counted from 0, the run that training began with."""
        self.run, self.version = run, version
