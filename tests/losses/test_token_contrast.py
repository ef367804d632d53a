"""CRINGE, its pairwise form and unlikelihood (papers 112, 95): values by hand, draws, and their laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    cringe_loss,
    cringe_terms,
    pairwise_cringe_loss,
    preference_loss,
    token_log_probs,
    unlikelihood_loss,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


TOKENS, LABELS = torch.tensor([0, 3, 2, 5, 1, 4]), torch.tensor([1, 0, 0, -1, 0, 1])


# ---------------------------------------------------------------------------------- texts without pairs


def test_contrast_by_hand() -> None:
    """Checks 1 and 3."""
    for token, loss in ((0, 1.3132616875), (2, 0.1269280110)):
        logits = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
        found = cringe_loss(logits, torch.tensor([token]), torch.tensor([0]), k=1)
        assert found.item() == pytest.approx(loss)
        (slope,) = torch.autograd.grad(found, logits)
        other = 1 if token == 0 else 0
        push = 1 / (1 + math.exp((logits[0, other] - logits[0, token]).item()))
        assert slope[0, token].item() == pytest.approx(push)
        assert slope[0, other].item() == pytest.approx(-push)
        assert slope.count_nonzero() == 2
        held = cringe_loss(logits, torch.tensor([token]), torch.tensor([0]), k=1, detach_positives=True)
        assert torch.autograd.grad(held, logits)[0].count_nonzero() == 1


def test_against_loops() -> None:
    logits = draw(6, 8)
    for k, alpha, reverse, learn in ((1, 1.0, False, True), (3, 0.4, True, True), (7, 2.0, True, False)):
        expected, counted = [], 0
        for row, token, label in zip(logits, TOKENS.tolist(), LABELS.tolist(), strict=True):
            others = sorted((i for i in range(8) if i != token), key=lambda i: -row[i].item())[:k]
            chance = row[others].softmax(0)
            sign = 1 if label == 0 else -1
            contrast = sum(
                q.item() * softplus(sign * (row[token] - row[i]).item()) for q, i in zip(chance, others, strict=True)
            )
            value = -row.log_softmax(0)[token].item() if label == -1 or (label == 1 and learn) else 0.0
            value += alpha * contrast if label == 0 or (label == 1 and reverse) else 0.0
            counted += label == -1 or label == 0 or learn or reverse
            expected.append(value)
        options: dict[str, Any] = {"contrast_on_positives": reverse, "cross_entropy_on_positives": learn}
        options |= {"k": k, "alpha": alpha}
        found = cringe_loss(logits, TOKENS, LABELS, reduction="none", **options)
        assert found.tolist() == pytest.approx(expected)
        assert cringe_loss(logits, TOKENS, LABELS, **options).item() == pytest.approx(sum(expected) / counted)


def test_good_texts_alone_are_cross_entropy() -> None:
    """Check 6."""
    logits, mask = draw(6, 8), torch.tensor([True] * 5 + [False])
    for label in (1, -1):
        found = cringe_loss(logits, TOKENS, torch.full((6,), label), mask, k=3)
        assert found.item() == pytest.approx(F.cross_entropy(logits[:5], TOKENS[:5]).item())


def test_what_is_drawn() -> None:
    """Checks 2, 4 and 7: candidates are the top k others, as often as their softmax says; the seed decides."""
    logits = torch.tensor([3.0, 2.5, 2.0, 1.0, -4.0, -5.0], dtype=torch.float64)
    count, k = 20000, 3
    for token, candidates in ((1, [0, 2, 3]), (5, [0, 1, 2])):
        rows = logits.expand(count, -1)
        generator = torch.Generator().manual_seed(1)
        losses = cringe_loss(
            rows, torch.full((count,), token), torch.zeros(count, dtype=torch.long), k=k, generator=generator,
            reduction="none",
        )  # fmt: skip
        possible = F.softplus(logits[token] - logits[candidates])
        drawn = (losses.unsqueeze(1) - possible).abs().argmin(1)
        assert torch.allclose(losses, possible[drawn])
        share = logits[candidates].softmax(0) * count
        chi_square = ((torch.bincount(drawn, minlength=k) - share) ** 2 / share).sum().item()
        assert chi_square < 13.8  # p > 0.001 with two degrees of freedom
        mean = cringe_loss(rows[:1], torch.tensor([token]), torch.tensor([0]), k=k)
        assert losses.mean().item() == pytest.approx(mean.item(), abs=0.02)
    first, second = (
        cringe_loss(draw(6, 8), TOKENS, LABELS, k=4, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert first == second
    tied = torch.tensor([[1.0, 5.0, 5.0, 5.0]])
    seeds = {
        cringe_loss(
            tied, torch.tensor([0]), torch.tensor([0]), k=3, generator=torch.Generator().manual_seed(seed)
        ).item()
        for seed in range(20)
    }
    assert len(seeds) == 1


# ---------------------------------------------------------------------------------- pairs


def pair(seed: int = 0) -> dict[str, Tensor]:
    """Three pairs of texts of up to four and five tokens over six words."""
    return {
        "logits": draw(3, 4, 6, seed=seed),
        "tokens": torch.tensor([[0, 1, 2, 3], [4, 5, 0, 1], [2, 2, 2, 2]]),
        "mask": torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, False]]),
        "rejected_logits": draw(3, 5, 6, seed=seed + 1),
        "rejected_tokens": torch.tensor([[5, 4, 3, 2, 1], [0, 0, 1, 1, 2], [3, 4, 5, 0, 1]]),
        "rejected_mask": torch.tensor([[True] * 5, [True, True, False, False, False], [True] * 4 + [False]]),
    }


def test_the_gate_of_a_pair() -> None:
    """Check 5: off far ahead, the binary loss far behind, half at the margin, hard as the temperature falls."""
    texts = pair()
    parts = []
    margins = []
    for p in range(3):
        chosen, rejected = texts["mask"][p], texts["rejected_mask"][p]
        good = F.cross_entropy(texts["logits"][p][chosen], texts["tokens"][p][chosen])
        bad = cringe_loss(
            texts["rejected_logits"][p][rejected],
            texts["rejected_tokens"][p][rejected],
            torch.zeros(int(rejected.sum()), dtype=torch.long),
            k=2,
        )
        parts.append((good + 0.3 * bad).item())
        sums = [
            token_log_probs(texts[f"{side}logits"][p], texts[f"{side}tokens"][p], texts[f"{side}mask"][p], shift=False)
            for side in ("", "rejected_")
        ]
        margins.append((sums[0].sums - sums[1].sums).item())
    options: dict[str, Any] = {"k": 2, "alpha": 0.3, "reduction": "none"}
    assert pairwise_cringe_loss(**texts, margin=1e6, **options).tolist() == pytest.approx(parts)
    assert pairwise_cringe_loss(**texts, margin=-1e6, **options).tolist() == pytest.approx([0, 0, 0])
    soft = pairwise_cringe_loss(**texts, margin=1.0, temperature=2.0, **options).tolist()
    gates = [1 / (1 + math.exp((m - 1) / 2)) for m in margins]
    assert soft == pytest.approx([g * part for g, part in zip(gates, parts, strict=True)])
    half = pairwise_cringe_loss(**texts, margin=margins[1], **options)[1].item()
    assert half == pytest.approx(parts[1] / 2)
    hard = pairwise_cringe_loss(**texts, margin=0.5, hard=True, **options)
    cold = pairwise_cringe_loss(**texts, margin=0.5, temperature=1e-4, **options)
    assert hard.tolist() == pytest.approx(cold.tolist())
    logps = torch.stack([torch.tensor(margins), torch.zeros(3)], 1) - 99  # the gate of `preference_loss` is the same
    gated, plain = (
        preference_loss(
            logps, torch.tensor([[1, 0]] * 3), score="log_prob", pair_weight=weight, gate_margin=1.0,
            gate_temperature=2.0, reduction="none",
        )
        for weight in ("gate", None)
    )  # fmt: skip
    assert (gated / plain).tolist() == pytest.approx(gates, rel=1e-4)


def test_the_gate_has_a_gradient_only_on_request() -> None:
    texts = pair()
    leaf = texts["logits"].requires_grad_()
    held, moved = (
        torch.autograd.grad(pairwise_cringe_loss(**texts, k=1, gate_grad=on), leaf)[0] for on in (False, True)
    )
    assert not torch.allclose(held, moved)
    assert torch.autograd.gradcheck(
        lambda logits: pairwise_cringe_loss(**(texts | {"logits": logits}), k=1, gate_grad=True), leaf
    )


# ---------------------------------------------------------------------------------- unlikelihood


def test_unlikelihood() -> None:
    logits = draw(6, 8)
    p = logits.softmax(-1).gather(1, TOKENS[:, None]).squeeze(1)
    assert unlikelihood_loss(logits, TOKENS).item() == pytest.approx(-torch.log(1 - p).mean().item())
    others = torch.stack([row[torch.arange(8) != t].logsumexp(0) for row, t in zip(logits, TOKENS, strict=True)])
    own = logits.gather(1, TOKENS[:, None]).squeeze(1)
    assert torch.allclose(unlikelihood_loss(logits, TOKENS, reduction="none"), F.softplus(own - others))
    contrast = cringe_terms(logits, TOKENS, torch.zeros(6, dtype=torch.long), k=1).contrast
    assert (unlikelihood_loss(logits, TOKENS, reduction="none") <= contrast).all()


# ---------------------------------------------------------------------------------- laws


def run(name: str, logits: Tensor, mask: Tensor, **options: Any) -> Tensor:
    if name == "unlikelihood":
        return unlikelihood_loss(logits, TOKENS, mask, **options)
    return cringe_loss(logits, TOKENS, LABELS, mask, k=1, contrast_on_positives=True, **options)


@pytest.mark.parametrize("name", ["cringe", "unlikelihood"])
def test_laws_of_token_losses(name: str) -> None:
    mask = torch.tensor([True, True, False, True, False, True])
    logits = draw(6, 8)
    loss = run(name, logits, mask)
    for garbage in (math.nan, math.inf, -1e4):
        changed = logits.masked_fill(~mask.unsqueeze(1), garbage).requires_grad_()
        found = run(name, changed, mask)
        assert found.item() == pytest.approx(loss.item(), rel=1e-12)
        assert not torch.autograd.grad(found, changed)[0][~mask].any()
    each, total = (run(name, logits, mask, reduction=reduction) for reduction in ("none", "sum"))
    assert each.sum().item() == pytest.approx(total.item())
    assert not each[~mask].any()
    nothing = logits.clone().requires_grad_()
    found = run(name, nothing, torch.zeros_like(mask))
    assert found == 0
    assert not torch.autograd.grad(found, nothing)[0].any()
    assert torch.autograd.gradcheck(lambda x: run(name, x, mask), logits.clone().requires_grad_())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        extreme = (draw(6, 8).clamp(-3, 3) * 3e3).to(dtype).requires_grad_()
        found = run(name, extreme, mask)
        assert found.isfinite()
        assert torch.autograd.grad(found, extreme)[0].isfinite().all()


def test_laws_of_the_pairwise_form() -> None:
    texts = pair()
    loss = pairwise_cringe_loss(**texts, k=2)
    for garbage in (math.nan, math.inf, -1e4):
        changed = dict(texts)
        for side in ("", "rejected_"):
            hidden = ~texts[f"{side}mask"]
            changed[f"{side}logits"] = (
                texts[f"{side}logits"].masked_fill(hidden.unsqueeze(-1), garbage).requires_grad_()
            )
            changed[f"{side}tokens"] = texts[f"{side}tokens"].masked_fill(hidden, -100)
        found = pairwise_cringe_loss(**changed, k=2)
        assert found.item() == pytest.approx(loss.item(), rel=1e-12)
        for side in ("", "rejected_"):
            (gradient,) = torch.autograd.grad(found, changed[f"{side}logits"], retain_graph=True)
            assert not gradient[~texts[f"{side}mask"]].any()
    longer = {name: torch.cat([value, value[:1]]) for name, value in texts.items()}
    for side in ("", "rejected_"):
        longer[f"{side}mask"][3] = False
    assert pairwise_cringe_loss(**longer, k=2).item() == pytest.approx(loss.item(), rel=1e-12)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        extreme = {n: (v.clamp(-3, 3) * 3e3).to(dtype) if v.is_floating_point() else v for n, v in texts.items()}
        extreme["logits"].requires_grad_()
        found = pairwise_cringe_loss(**extreme, k=2)
        assert found.isfinite()
        assert torch.autograd.grad(found, extreme["logits"])[0].isfinite().all()


def test_bad_input_is_named() -> None:
    logits, texts = draw(6, 8), pair()
    one_sided = texts | {"mask": texts["mask"] & torch.tensor([[False], [True], [True]])}
    for bad, message in (
        (lambda: cringe_loss(logits, TOKENS, LABELS, k=8), "k must lie"),
        (lambda: cringe_loss(logits, TOKENS, LABELS, k=0), "k must lie"),
        (lambda: cringe_loss(logits, TOKENS + 3, LABELS), "tokens"),
        (lambda: cringe_loss(logits, TOKENS, LABELS + 1), "labels"),
        (lambda: cringe_loss(logits, TOKENS, LABELS[:2]), "labels"),
        (lambda: cringe_loss(logits, TOKENS, LABELS, alpha=-1), "alpha"),
        (lambda: cringe_loss(logits, TOKENS, LABELS, torch.ones(6)), "mask"),
        (lambda: cringe_loss(logits, TOKENS, LABELS, reduction="median"), "reduction"),  # type: ignore[arg-type]
        (lambda: cringe_loss(logits.long(), TOKENS, LABELS), "logits.*floating"),
        (lambda: pairwise_cringe_loss(**texts, temperature=0), "temperature"),
        (lambda: pairwise_cringe_loss(**texts, k=6), "k must lie"),
        (lambda: pairwise_cringe_loss(**texts, hard=True, gate_grad=True), "gate_grad"),
        (lambda: pairwise_cringe_loss(**one_sided), "mask"),
        (lambda: pairwise_cringe_loss(**(texts | {"tokens": texts["tokens"] + 9})), "tokens"),
        (lambda: unlikelihood_loss(logits[:, :1], TOKENS * 0), "columns"),
        (lambda: unlikelihood_loss(logits, TOKENS.float()), "tokens"),
    ):
        with pytest.raises(RivalsError, match=message):
            bad()
