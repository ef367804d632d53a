"""A boosted sum of small networks in which each sees the hidden features of the one before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError


class GrowNetLearner(nn.Module):
    """One stage: h = norm(leaky_relu(W1 x)); g = W2 h is handed on; the output is w3 . relu(g).

    From the second stage on x is the batch-normalised features with the hidden features of the stage before
    (`normalize_input`). What is handed on is g before its ReLU.

    Shapes: x float[N, F] -> (g float[N, hidden], output float[N]).
    Source: Badirli et al. (2020), GrowNet, `MLP_2HL`. Paper 69.
    Raises: RivalsError for widths below 1.

    >>> hidden, output = GrowNetLearner(4, 8).eval()(torch.zeros(3, 4))
    >>> hidden.shape, output.shape
    (torch.Size([3, 8]), torch.Size([3]))
    """

    def __init__(self, in_dim: int, hidden: int, *, normalize_input: bool = False) -> None:
        super().__init__()
        if in_dim < 1 or hidden < 1:
            raise RivalsError(f"a learner needs at least one feature and one hidden unit; got {in_dim} and {hidden}")
        self.input_norm = nn.BatchNorm1d(in_dim) if normalize_input else nn.Identity()
        self.inner = nn.Linear(in_dim, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)
        for layer in (self.inner, self.hidden, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden features to hand on and the output."""
        handed_on = self.hidden(self.norm(F.leaky_relu(self.inner(self.input_norm(x)), 0.1)))
        return handed_on, self.output(F.relu(handed_on)).squeeze(-1)


class GrowNetEnsemble(nn.Module):
    """F(x) = offset + boost_rate * (sum of all learners' outputs), learner k on [x, hidden features of learner k - 1].

    It begins without learners; `add_learner` appends one. `boost_rate` is one trainable number for the whole sum.

    Args: n_features F; hidden, the width of every learner; offset, the prediction without learners (c0).

    Shapes: x float[N, F] -> (prediction float[N], hidden features of the last learner float[N, hidden]).
    Source: Badirli et al. (2020), GrowNet, `DynamicNet`. Paper 69.
    Raises: RivalsError for widths below 1, a call without learners.

    >>> ensemble = GrowNetEnsemble(4, hidden=8, offset=0.5)
    >>> for _ in range(2):
    ...     _ = ensemble.add_learner()
    >>> prediction, hidden = ensemble.eval()(torch.zeros(3, 4))
    >>> prediction.shape, [learner.inner.in_features for learner in ensemble.learners]
    (torch.Size([3]), [4, 12])
    """

    offset: Tensor

    def __init__(self, n_features: int, hidden: int, *, offset: float = 0.0, boost_rate: float = 1.0) -> None:
        super().__init__()
        if n_features < 1 or hidden < 1:
            raise RivalsError(f"an ensemble needs features and hidden units; got {n_features} and {hidden}")
        self.n_features, self.hidden = n_features, hidden
        self.learners = nn.ModuleList()
        self.boost_rate = nn.Parameter(torch.tensor(float(boost_rate), dtype=torch.float64))
        self.register_buffer("offset", torch.tensor(float(offset), dtype=torch.float64))

    def add_learner(self) -> GrowNetLearner:
        """Append a freshly initialised learner, the next stage, and return it."""
        first = len(self.learners) == 0
        width = self.n_features if first else self.n_features + self.hidden
        learner = GrowNetLearner(width, self.hidden, normalize_input=not first)
        self.learners.append(learner)
        return learner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction and the hidden features of the last learner."""
        if len(self.learners) == 0:
            raise RivalsError("an ensemble without learners predicts nothing; call add_learner first")
        total, handed_on = x.new_zeros(len(x)), x[:, :0]
        for learner in self.learners:
            handed_on, output = learner(torch.cat([x, handed_on], dim=-1))
            total = total + output
        return self.offset.to(x.dtype) + self.boost_rate.to(x.dtype) * total, handed_on
