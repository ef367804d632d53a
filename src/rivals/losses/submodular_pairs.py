"""Contrastive losses read as submodular functions of classes: a class's members and its outsiders enter separately."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from rivals.lists import masked_logsumexp, masked_mean
from rivals.losses._class_sets import (
    BASE_TEMPERATURE,
    Style,
    class_sets,
    class_totals,
    reduce_classes,
    reduce_rows,
    temperature_factor,
)
from rivals.losses._common import Reduction, check_choice
from rivals.losses._distances import euclidean
from rivals.losses._in_batch import unit_rows

__all__ = ["submodular_snn_loss", "submodular_supcon_loss", "submodular_triplet_loss"]

Products: TypeAlias = Literal["cosine", "dot"]


def submodular_supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    kernel: Products = "cosine",
    temperature: float = BASE_TEMPERATURE,
    style: Style = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Supervised contrastive loss with outsiders alone in the denominator, averaged class by class.

    Formula:
        style="paper": L = mean over classes A of (1 / |A|) sum_{i in A} [ log sum_n e^{S_in / t} - mean_p S_ip / t ],
        n the rows outside A, p the other members of A.
        style="code": L = (t / 0.07) mean over rows i of [ log sum_n e^{l_in} - (1 / N) sum_p l_ip ],
        l_ij = S_ij / t - max_j S_ij / t with a constant maximum.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar; with reduction="none" one value a class, by
        rising label (paper), or float[N] (code). A batch of one class is worth 0. O(N^2 D).

    When to use:
        As supervised contrastive learning, where rare classes should count as much as frequent ones.

    Relations:
        The decoupled form of supervised contrastive learning: positives are not in the denominator. temperature=1 is
        the formula as printed.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `supcon_var.py`. Paper 27. The released code divides the positives by
        the batch size instead of their number and lets the row maximum into the value: style="code".

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown kernel, style or reduction, temperature <= 0.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
        >>> submodular_supcon_loss(embeddings, torch.tensor([0, 0, 1]), temperature=1.0, reduction="none")
        tensor([-0.4000,  1.2931])
    """
    check_choice(kernel, ("cosine", "dot"), "kernel")
    factor = temperature_factor(temperature)
    sets = class_sets(embeddings, labels, mask, kernel=kernel, style=style, reduction=reduction)
    logits, apart = sets.similarity / temperature, sets.outside.any(1)
    if style == "paper":
        rows = masked_logsumexp(logits, sets.outside) - masked_mean(logits, sets.friends, dim=1)
        return reduce_classes(class_totals(rows.masked_fill(~apart, 0.0), sets), sets, reduction)
    if len(logits):
        logits = logits - logits.detach().amax(1, keepdim=True)
    pulled = logits.masked_fill(~sets.friends, 0.0).sum(1) / max(len(logits), 1)
    return reduce_rows(factor * (masked_logsumexp(logits, sets.outside) - pulled), apart, sets, reduction)


def submodular_snn_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    kernel: Products = "cosine",
    temperature: float = BASE_TEMPERATURE,
    style: Style = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft nearest neighbours as a set function: the farthest member of the class and the nearest outsider, softly.

    Formula:
        style="paper": L = mean over classes A of (1 / |A|) sum_{i in A} [ log sum_p e^{D_ip / t} + log sum_n e^{S_in / t} ],
        p the other members of A, n the rows outside; S products and D squared distances of the vectors. A sum over
        nothing adds 0.
        style="code": (t / 0.07) mean over rows of the same, where every row that a sum leaves out counts as e^0.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar; with reduction="none" one value a class, by
        rising label (paper), or float[N] (code). kernel="cosine" takes the vectors at unit length. O(N^2 D).

    When to use:
        As `submodular_supcon_loss`, when the least typical member of a class matters most.

    Relations:
        The positive half is a soft maximum of distances, where supervised contrastive learning takes their mean.
        temperature=1 is the formula as printed.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `snn_var.py`. Paper 27.

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown kernel, style or reduction, temperature <= 0.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
        >>> submodular_snn_loss(embeddings, torch.tensor([0, 0, 1]), temperature=1.0, reduction="none")
        tensor([0.6000, 1.2931])
    """
    check_choice(kernel, ("cosine", "dot"), "kernel")
    factor = temperature_factor(temperature)
    sets = class_sets(embeddings, labels, mask, kernel=kernel, style=style, reduction=reduction)
    vectors = unit_rows(sets.vectors) if kernel == "cosine" else sets.vectors
    distance, logits = euclidean(vectors, vectors).square() / temperature, sets.similarity / temperature
    if style == "paper":
        rows = masked_logsumexp(distance, sets.friends) + masked_logsumexp(logits, sets.outside)
        return reduce_classes(class_totals(rows, sets), sets, reduction)
    rows = distance.masked_fill(~sets.friends, 0.0).logsumexp(1) + logits.masked_fill(~sets.outside, 0.0).logsumexp(1)
    return reduce_rows(factor * rows, sets.classes >= 0, sets, reduction)


def submodular_triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    kernel: Products = "cosine",
    style: Style = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared similarities to outsiders minus squared similarities inside the class.

    Formula:
        style="paper": L = mean over classes A of (1 / |A|) sum_{i in A} ( sum_n S_in^2 - sum_p S_ip^2 ), n the rows
        outside A, p the other members of A.
        style="code": L = - (1 / 0.07) mean over rows i of ( sum_n l_in - sum_p l_ip ), l_ij = S_ij^2 - max_j S_ij^2
        with a constant maximum.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] -> scalar; with reduction="none" one value a class, by
        rising label (paper), or float[N] (code). O(N^2 D).

    When to use:
        A baseline: no temperature, no margin, every pair with equal weight. Similarities of -1 count as alike.

    Relations:
        `graph_cut_loss` with form="information" and lam=1 over squared similarities.

    Source:
        Majee et al. (2024), SCoRe, table 1 and `triplet_var.py`. Paper 27. The released code has the opposite sign,
        and lets the row maximum into the value: style="code". Its temperature cancels.

    Raises:
        RivalsError: shapes or dtypes that do not fit, an unknown kernel, style or reduction.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
        >>> submodular_triplet_loss(embeddings, torch.tensor([0, 0, 1]), reduction="none")
        tensor([-0.6400,  0.7200])
    """
    check_choice(kernel, ("cosine", "dot"), "kernel")
    sets = class_sets(embeddings, labels, mask, kernel=kernel, style=style, reduction=reduction)
    squares = sets.similarity.square()
    if style == "code" and len(squares):
        squares = squares - squares.detach().amax(1, keepdim=True)
    rows = (squares.masked_fill(~sets.outside, 0.0) - squares.masked_fill(~sets.friends, 0.0)).sum(1)
    if style == "paper":
        return reduce_classes(class_totals(rows, sets), sets, reduction)
    return reduce_rows(-rows / BASE_TEMPERATURE, sets.classes >= 0, sets, reduction)
