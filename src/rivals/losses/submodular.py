"""Losses that treat each class of a batch as a set and measure it with a submodular function of similarities."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_logsumexp
from rivals.losses._class_sets import (
    BASE_TEMPERATURE,
    ClassSets,
    Style,
    class_sets,
    class_totals,
    reduce_classes,
    reduce_rows,
    temperature_factor,
)
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_positive,
    check_rows,
    reduce_lists,
)
from rivals.losses.set_functions import Kernel, log_det, log_rbf, similarity_kernel

__all__ = ["facility_location_loss", "graph_cut_loss", "log_det_loss"]


def facility_location_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    kernel: Kernel = "cosine",
    lam: float = 1.0,
    temperature: float = BASE_TEMPERATURE,
    style: Style = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Facility location of the classes as sets: no outsider may be near to its nearest member of a class.

    Formula:
        style="paper": L = mean over classes A of (1 / |A|) sum_{i not in A} max_{j in A} S_ij.
        style="code": L = mean over rows j of log sum_i e^{K_ij}, K_ij = S_ij for rows of other classes and 0 for the
        class's own (which therefore count as e^0).

        Both times lam and temperature / 0.07; S is `similarity_kernel(embeddings, kernel)`.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar; with reduction="none" one value a class, by
        rising label (paper), or float[N] (code). O(N^2 D).

    When to use:
        Classes of very unequal size, before a linear classifier on the frozen encoder.

    Relations:
        The hardest-negative view of `graph_cut_loss`. Total information and total correlation of this function differ
        by a constant, so there is one form.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `FL.py`. Paper 27. The paper's formula is the default; the released
        code (style="code") does not take the own class out of the sum.

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown kernel, style or reduction, lam < 0, temperature <= 0.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
        >>> facility_location_loss(embeddings, torch.tensor([0, 0, 1]), reduction="none")
        tensor([0.3000, 1.2000])
    """
    check_at_least_zero(lam, "lam")
    factor = temperature_factor(temperature) * lam
    batch = class_sets(embeddings, labels, mask, kernel=kernel, style=style, reduction=reduction)
    if style == "code":
        rows = factor * batch.similarity.masked_fill(~batch.outside, 0.0).logsumexp(0)
        return reduce_rows(rows, batch.outside.any(1), batch, reduction)
    count, classes = len(batch.similarity), len(batch.sizes)
    nearest = batch.similarity.new_full((count, classes), -torch.inf).scatter_reduce(
        1, batch.classes.expand(count, count), batch.similarity, "amax", include_self=False
    )
    own = batch.classes.unsqueeze(1) == torch.arange(classes, device=embeddings.device)
    return reduce_classes(factor * nearest.masked_fill(own, 0.0).sum(0), batch, reduction)


def graph_cut_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    form: Literal["correlation", "information", "log_ratio"] = "correlation",
    kernel: Kernel = "cosine",
    lam: float = 1.0,
    temperature: float = BASE_TEMPERATURE,
    style: Style = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Graph cut of the classes as sets: similarity across classes, against similarity inside them.

    Formula:
        With out(A) = sum of S_ij over i in A and j outside, in(A) the same over i, j in A, i != j:

        - form="correlation": L = mean over classes of lam out(A) / |A|;
        - form="information": L = mean over classes of (out(A) - lam in(A)) / |A|;
        - form="log_ratio": L = - mean over rows i of log(lam in_i / out_i), the sums of row i.

        All times temperature / 0.07; S is `similarity_kernel(embeddings, kernel)`. style="code" changes
        "correlation" to the mean over rows of lam out_i / (number of other members of i's class).

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar; with reduction="none" one value a class, by
        rising label, or float[N] where the formula goes by rows. Rows without another member, or without an outsider,
        are left out of the formulas by rows. O(N^2 D).

    When to use:
        "log_ratio" (with kernel="rbf") for classes of unequal size. "correlation" only pushes apart.

    Relations:
        The mean-similarity view of `facility_location_loss`. "log_ratio" is the soft-nearest-neighbour ratio.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `GC.py`. Paper 27. The diagonal of S never counts, as in the code.

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown form, kernel, style or reduction, "information" with
        style="code" (which has no such form), lam < 0 (or 0 in "log_ratio"), temperature <= 0, sums that are not
        positive in "log_ratio".

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
        >>> graph_cut_loss(embeddings, torch.tensor([0, 0, 1]), form="information", reduction="none")
        tensor([-0.4000,  1.2000])
    """
    check_at_least_zero(lam, "lam")
    check_choice(form, ("correlation", "information", "log_ratio"), "form")
    factor = temperature_factor(temperature)
    batch = class_sets(embeddings, labels, mask, kernel=kernel, style=style, reduction=reduction)
    if form == "log_ratio":
        check_positive(lam, "lam")
        counted = batch.friends.any(1) & batch.outside.any(1)
        ratio = math.log(lam) + _log_sums(batch.friends, counted, batch, kernel)
        ratio = ratio - _log_sums(batch.outside, counted, batch, kernel)
        return reduce_rows(-factor * ratio, counted, batch, reduction)
    outside = batch.similarity.masked_fill(~batch.outside, 0.0).sum(1)
    if style == "code":
        if form == "information":
            raise RivalsError('form="information" has no style="code"; the released code uses form="log_ratio"')
        friends = batch.friends.sum(1)
        return reduce_rows(factor * lam * outside / friends.clamp(min=1), friends > 0, batch, reduction)
    rows = lam * outside
    if form == "information":
        rows = outside - lam * batch.similarity.masked_fill(~batch.friends, 0.0).sum(1)
    return reduce_classes(factor * class_totals(rows, batch), batch, reduction)


def log_det_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    form: Literal["correlation", "information"] = "correlation",
    kernel: Literal["cosine", "rbf", "dot"] = "cosine",
    ridge: float = 0.5,
    temperature: float = BASE_TEMPERATURE,
    style: Style = "paper",
) -> Tensor:
    """Log-determinant of the classes as sets: the volume they span, one by one and together.

    Formula:
        f(A) = log det(S_A + ridge 1), S = `similarity_kernel(embeddings, kernel)`.

        - form="correlation": L = sum over classes of f(A) - f(all rows);
        - form="information": L = mean over classes of f(A) / |A|, times temperature / 0.07; style="code":
          L = - mean over classes of f(A), times the same factor.

        One number a batch.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar. Computed in float64. O(N^3) ("correlation"),
        O(number of classes x largest^3) ("information").

    When to use:
        "correlation": compact classes in directions of their own, also for rare classes.

    Relations:
        "correlation" is 0 when the classes are orthogonal to each other, and never negative.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `logdet.py`. Paper 27. The released code maximises the volume of
        classes in its "information" form, against the paper; that sign is style="code" alone. The code takes plain
        products of vectors (kernel="dot").

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown form, kernel or style, ridge <= 0, temperature <= 0.

    Example:
        >>> import torch
        >>> embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> log_det_loss(embeddings, labels), log_det_loss(embeddings, 1 - labels.roll(1))
        (tensor(0.), tensor(0.5878))
    """
    check_positive(ridge, "ridge")
    check_choice(form, ("correlation", "information"), "form")
    check_choice(kernel, ("cosine", "rbf", "dot"), "kernel")
    factor = temperature_factor(temperature)
    check_choice(style, get_args(Style), "style")
    rows = check_rows(embeddings, labels, mask)
    vectors = rows.rows.double() if embeddings.device.type != "mps" else rows.rows
    similarity = similarity_kernel(vectors, kernel)
    _, classes, sizes = rows.labels.unique(return_inverse=True, return_counts=True)
    blocks, there = _blocks(similarity, classes, sizes)
    volumes = log_det(blocks, there, ridge=ridge)
    if form == "correlation":
        value = volumes.sum() - log_det(similarity, torch.ones_like(rows.labels, dtype=torch.bool), ridge=ridge)
    else:
        terms = volumes / sizes if style == "paper" else -volumes
        value = factor * reduce_lists(terms, torch.ones_like(sizes), "mean")
    return value.to(rows.rows.dtype)


def _log_sums(where: Tensor, counted: Tensor, batch: ClassSets, kernel: Kernel) -> Tensor:
    """Return the logarithm of each row's similarities summed over `where`; 0 where the row does not count."""
    if kernel == "rbf":
        return masked_logsumexp(log_rbf(batch.vectors), where).masked_fill(~counted, 0.0)
    sums = batch.similarity.masked_fill(~where, 0.0).sum(1).masked_fill(~counted, 1.0)
    if sums.device.type == "cpu" and not torch.compiler.is_compiling() and bool((sums <= 0).any()):
        raise RivalsError(
            f'form="log_ratio" needs similarities that add up to more than 0 in every row; found {float(sums.detach().min()):g}. '
            f'Take kernel="rbf"'
        )
    return sums.log()


def _blocks(similarity: Tensor, classes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the similarities inside each class, padded to the largest: [C, m, m], and which rows are there [C, m]."""
    order = classes.argsort(stable=True)
    there = torch.arange(int(sizes.max()) if len(sizes) else 0, device=sizes.device) < sizes.unsqueeze(1)
    rows = torch.zeros_like(there, dtype=torch.int64).masked_scatter(there, order)
    return similarity[rows.unsqueeze(2), rows.unsqueeze(1)], there
