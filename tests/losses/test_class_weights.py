"""Class weights: the checks of papers 39 and 70."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rivals.errors import RivalsError
from rivals.losses import binary_cross_entropy_loss, class_balanced_weights, positive_weights

LABELS = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1]])


def test_effective_numbers_of_paper_39() -> None:
    for beta in (0.0, 0.5, 0.9999):
        assert class_balanced_weights(torch.tensor([1]), beta=beta).tolist() == pytest.approx([1.0])
    counts = torch.tensor([10, 1000])
    assert class_balanced_weights(counts, beta=0.0).tolist() == [1, 1]
    assert class_balanced_weights(counts, beta=0.999).tolist() == pytest.approx([0.1004508, 0.0015816], abs=1e-7)
    near_one = class_balanced_weights(counts.double(), beta=1 - 1e-12)
    assert near_one.tolist() == pytest.approx([0.1, 0.001], rel=1e-6)


def test_weights_of_positives() -> None:
    assert positive_weights(LABELS).tolist() == [4, 4, 1]
    assert positive_weights(LABELS, limits=(0.0, 3.0)).tolist() == pytest.approx([3, 3, 0.25])
    assert positive_weights(LABELS, scheme="inverse").tolist() == pytest.approx([5 / 3, 5 / 3, 5 / 12])
    expected = class_balanced_weights(torch.tensor([1, 1, 4]), beta=0.9)
    assert positive_weights(LABELS, scheme="effective", beta=0.9).tolist() == pytest.approx(expected.tolist())


def test_unknown_labels_and_labels_without_a_positive() -> None:
    mask = torch.ones_like(LABELS, dtype=torch.bool)
    mask[3:, 1] = False
    relevance = LABELS.float().masked_fill(~mask, float("nan"))
    assert positive_weights(relevance, mask).tolist() == [4, 2, 1]
    assert positive_weights(torch.zeros(30, 2)).tolist() == [20, 20]
    assert positive_weights(LABELS[:, :1].T).tolist() == [1, 1, 1, 1, 1]


def test_they_fit_the_weight_of_cross_entropy() -> None:
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    weights = positive_weights(LABELS)
    ours = binary_cross_entropy_loss(scores, LABELS, weight=torch.where(LABELS > 0, weights, 1.0))
    theirs = F.binary_cross_entropy_with_logits(scores, LABELS.float(), pos_weight=weights)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"scheme": "log"}, "scheme"), ({"limits": (3.0, 1.0)}, "limits"), ({"scheme": "effective", "beta": 1.0}, "beta")],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        positive_weights(LABELS, **options)


def test_bad_counts() -> None:
    with pytest.raises(RivalsError, match="counts"):
        class_balanced_weights(torch.tensor([3, 0]))
    with pytest.raises(RivalsError, match="counts"):
        class_balanced_weights([3, 1])  # type: ignore[arg-type]
