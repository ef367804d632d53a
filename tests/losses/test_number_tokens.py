"""Number token losses: by hand, options, positions that do not count; and the laws of `number_level_loss`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from rivals.errors import RivalsError
from rivals.losses import (
    expected_token_value,
    number_level_loss,
    number_token_loss,
    ordinal_wasserstein_loss,
    token_values,
)

NAN = math.nan
GENERATOR = torch.Generator().manual_seed(0)
DIGITS = torch.arange(10.0, dtype=torch.float64)
#: a vocabulary of 14: two words, the digits in another order, two words
VALUES = torch.tensor([NAN, NAN, 3, 0, 9, 1, 2, 8, 4, 7, 5, 6, NAN, NAN], dtype=torch.float64)
LOGITS = torch.randn(3, 5, 14, generator=GENERATOR, dtype=torch.float64) * 2
LABELS = torch.tensor([[2, 0, 4, -100, 5], [13, 1, 6, 7, 3], [11, 12, -100, 0, 8]])


def on(*masses: tuple[int, float]) -> torch.Tensor:
    """Logits [1, 10] with these shares of the mass."""
    logits = torch.full((1, 10), -60.0, dtype=torch.float64)
    for token, mass in masses:
        logits[0, token] = math.log(mass)
    return logits


def loop(kind: str, squash: float | None = None, reweigh: bool = False) -> torch.Tensor:
    """The terms [3, 5] position by position."""
    numbers = [i for i, v in enumerate(VALUES.tolist()) if v == v]
    v = VALUES[numbers].numpy()
    table = np.abs(v[:, None] - v[None])
    if squash is not None:
        low, high = table[table > 0].min(), table.max()
        table = np.where(table > 0, 1 + (table - low) * (squash - 1) / (high - low), 0.0)
    terms = torch.zeros(3, 5, dtype=torch.float64)
    for b in range(3):
        for t in range(5):
            label = int(LABELS[b, t])
            if label not in numbers:
                continue
            z = LOGITS[b, t].numpy()
            q = np.exp(z[numbers]) / np.exp(z[numbers]).sum()
            y = VALUES[label].item()
            error = (q * v).sum() - y
            term, worst = {
                "wasserstein": ((q * table[numbers.index(label)]).sum(), table.max()),
                "squared": (error**2, 81.0),
                "absolute": (abs(error), 9.0),
                "huber": (error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5, 8.5),
            }[kind]
            if reweigh:
                n = np.exp(z[numbers]).sum() / np.exp(z).sum()
                term = n * term + 1.01 * worst * (1 - n)
            terms[b, t] = term
    return terms


@pytest.mark.parametrize("reweigh", [False, True])
@pytest.mark.parametrize(
    ("kind", "squash"),
    [("wasserstein", None), ("wasserstein", 2.5), ("squared", None), ("absolute", None), ("huber", None)],
)
def test_against_a_loop(kind: str, squash: float | None, reweigh: bool) -> None:
    options = {"values": VALUES, "kind": kind, "squash": squash, "reweigh": reweigh}
    wanted = loop(kind, squash, reweigh)
    torch.testing.assert_close(number_token_loss(LOGITS, LABELS, reduction="none", **options), wanted)  # type: ignore[arg-type]
    torch.testing.assert_close(number_token_loss(LOGITS, LABELS, **options), wanted.sum() / 8)  # type: ignore[arg-type]
    weight = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)).double()
    counted = VALUES[LABELS.clamp(min=0)].isnan() | (LABELS == -100)
    found = number_token_loss(LOGITS, LABELS, weight=weight, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found, (weight * wanted).sum() / weight[~counted].sum())
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    found = number_token_loss(LOGITS, LABELS, mask, reduction="sum", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted[mask].sum())


def test_by_hand() -> None:
    uniform = torch.zeros(1, 10, dtype=torch.float64)
    four, none = torch.tensor([4]), torch.tensor([0])
    assert number_token_loss(uniform, four).item() == pytest.approx(2.5)
    assert number_token_loss(uniform, four, kind="squared").item() == pytest.approx(0.25)
    assert number_token_loss(uniform, none).item() == pytest.approx(4.5)
    assert number_token_loss(uniform, none, kind="squared").item() == pytest.approx(20.25)
    for kind in ("wasserstein", "squared", "absolute", "huber"):
        assert number_token_loss(on((4, 1.0)), four, kind=kind).item() == pytest.approx(0, abs=1e-20)  # type: ignore[arg-type]
    halves = on((0, 0.5), (8, 0.5))
    assert number_token_loss(halves, four, kind="squared").item() == pytest.approx(0, abs=1e-20)
    assert number_token_loss(halves, four).item() == pytest.approx(4)


def test_farther_is_worse() -> None:
    losses = [number_token_loss(on((2, 0.4), (far, 0.6)), torch.tensor([2])).item() for far in range(3, 10)]
    assert losses == sorted(losses)
    assert losses == pytest.approx([0.6 * (far - 2) for far in range(3, 10)])


def test_squash_of_nine_is_the_digits_own() -> None:
    torch.testing.assert_close(
        number_token_loss(LOGITS, LABELS, values=VALUES, squash=9.0), number_token_loss(LOGITS, LABELS, values=VALUES)
    )
    nearly = number_token_loss(LOGITS, LABELS, values=VALUES, squash=1 + 1e-9, reduction="none")
    chosen = ~(VALUES[LABELS.clamp(min=0)].isnan() | (LABELS == -100))
    numbers = LOGITS[chosen].masked_fill(VALUES.isnan(), -math.inf).softmax(-1)
    torch.testing.assert_close(nearly[chosen], 1 - numbers.gather(1, LABELS[chosen][:, None]).squeeze(1))


def test_a_permuted_vocabulary() -> None:
    order = torch.randperm(14, generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    moved = torch.where(LABELS < 0, LABELS, place[LABELS.clamp(min=0)])
    for options in ({}, {"reweigh": True, "squash": 3.0}):
        torch.testing.assert_close(
            number_token_loss(LOGITS[..., order], moved, values=VALUES[order], **options),  # type: ignore[arg-type]
            number_token_loss(LOGITS, LABELS, values=VALUES, **options),  # type: ignore[arg-type]
        )


def test_text_costs_a_little_more_than_the_worst_number() -> None:
    logits = torch.zeros(1, 14, dtype=torch.float64)
    logits[0, 0] = 80.0
    assert number_token_loss(logits, torch.tensor([2]), values=VALUES, reweigh=True).item() == pytest.approx(9.09)


def test_without_numbers_there_is_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    labels = torch.tensor([[0, 1, 12, 13, -100]] * 3)
    for reduction in ("mean", "sum", "none"):
        loss = number_token_loss(logits, labels, values=VALUES, reduction=reduction).sum()  # type: ignore[arg-type]
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_padded_positions_may_hold_anything() -> None:
    logits = torch.cat([LOGITS, torch.full((3, 1, 14), NAN)], 1).requires_grad_()
    labels = torch.cat([LABELS, torch.tensor([[-100], [-100], [99]])], 1)
    mask = torch.tensor([[True] * 6, [True] * 6, [True] * 5 + [False]])
    loss = number_token_loss(logits, labels, mask, values=VALUES, reweigh=True)
    torch.testing.assert_close(loss, number_token_loss(LOGITS, LABELS, values=VALUES, reweigh=True))
    gradient = torch.autograd.grad(loss, logits)[0]
    assert (gradient[:, 5] == 0).all()
    assert torch.isfinite(gradient).all()


def test_bad_input() -> None:
    for options in (
        {"squash": 1.0},
        {"squash": 2.0, "kind": "squared"},
        {"kind": "cubic"},
        {"values": torch.tensor([1.0] + [NAN] * 13)},
        {"values": torch.tensor([math.inf, 1.0] + [2.0] * 12)},
        {"values": torch.ones(3)},
        {"weight": -torch.ones(3, 5)},
        {"reduction": "median"},
    ):
        with pytest.raises(RivalsError, match=rf"\b{next(iter(options))}\b"):
            number_token_loss(LOGITS, LABELS, **options)  # type: ignore[arg-type]
    for labels in (LABELS + 200, LABELS[:2], LABELS.double(), torch.full_like(LABELS, -1)):
        with pytest.raises(RivalsError, match="labels"):
            number_token_loss(LOGITS, labels)
    with pytest.raises(RivalsError, match="logits"):
        number_token_loss(torch.zeros(4), torch.tensor(2))


# ------------------------------------------------------------------------------------------ soft targets, means, tables


def test_soft_targets() -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(4)).double()
    relevance = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)).double()
    values = torch.tensor([2.0, -1.0, 7.0, 3.0, 3.5, 0.0], dtype=torch.float64)
    order = values.argsort()
    f = scores.softmax(1)[:, order].cumsum(1)
    g = (relevance / relevance.sum(1, keepdim=True))[:, order].cumsum(1)
    wanted = ((f - g).abs()[:, :-1] * values[order].diff()).sum(1)
    found = ordinal_wasserstein_loss(scores, relevance, values=values, reduction="none")
    torch.testing.assert_close(found, wanted)
    labels = torch.tensor([3, 0, 5, 2])
    hard = ordinal_wasserstein_loss(scores, one_hot(labels, 6).double(), values=values)
    torch.testing.assert_close(hard, number_token_loss(scores, labels, values=values))
    torch.testing.assert_close(
        ordinal_wasserstein_loss(scores, scores.softmax(1), values=values).abs() < 1e-12, torch.tensor(True)
    )
    with pytest.raises(RivalsError, match="values"):
        ordinal_wasserstein_loss(scores, relevance, values=values[:3])
    with pytest.raises(RivalsError, match="values"):
        ordinal_wasserstein_loss(scores, relevance, values=values * NAN)


def test_the_mean_number() -> None:
    assert expected_token_value(on((2, 0.25), (6, 0.75)), DIGITS).item() == pytest.approx(5)
    wanted = LOGITS.masked_fill(VALUES.isnan(), -math.inf).softmax(-1) @ VALUES.nan_to_num()
    torch.testing.assert_close(expected_token_value(LOGITS, VALUES), wanted)


class Tokenizer:
    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


def test_which_tokens_are_numbers() -> None:
    tokenizer = Tokenizer("a", "7", " 7", "²", "٣", "12", "-3.5", "1_0", "nan", "inf", "1e999", "0", "")
    strict = token_values(tokenizer).tolist()
    assert [i for i, v in enumerate(strict) if v == v] == [1, 11]
    assert (strict[1], strict[11]) == (7.0, 0.0)
    loose = token_values(tokenizer, digits_only=False).tolist()
    assert {tokenizer.tokens[i]: v for i, v in enumerate(loose) if v == v} == {
        "7": 7.0,
        "12": 12.0,
        "-3.5": -3.5,
        "0": 0.0,
    }


# ------------------------------------------------------------------------------------------------- numbers of many digits


def written(*digits: int, point_at: int | None = None) -> torch.Tensor:
    """Logits that are sure of these digits; token 10 is the point."""
    tokens = list(digits)
    if point_at is not None:
        tokens.insert(point_at, 10)
    return 200.0 * torch.eye(12, dtype=torch.float64)[tokens]


ELEVEN = torch.cat([DIGITS, torch.tensor([NAN, NAN], dtype=torch.float64)])


def test_numbers_by_hand() -> None:
    labels = torch.tensor([1, 2, 11, 3, 11, 0])  # 12, 3 and 0
    logits = written(1, 5, 0, 4, 0, 0)
    terms = [3 / 27, 1 / 7, 0.0]
    options = {"values": ELEVEN}
    assert number_level_loss(logits, labels, **options).item() == pytest.approx(sum(terms) / 3)
    none = number_level_loss(logits, labels, reduction="none", **options)
    assert none.tolist() == pytest.approx([terms[0], 0, 0, terms[1], 0, 0], abs=1e-7)
    assert number_level_loss(logits, labels, reduction="sum", **options).item() == pytest.approx(none.sum().item())
    batch = number_level_loss(torch.stack([logits, logits.flip(0)]), torch.stack([labels, labels.flip(0)]), **options)
    backwards = [0.0, 1 / 7, 30 / 72]  # 0, 3 against 4, 21 against 51
    assert batch.item() == pytest.approx((sum(terms) + sum(backwards)) / 6)


def test_a_point_joins_what_is_around_it() -> None:
    labels = torch.tensor([1, 10, 2, 10])  # 1.2 and a full stop
    logits = written(1, 5, 0, point_at=1)
    apart = [0.0, 3 / 7]
    assert number_level_loss(logits, labels, values=ELEVEN).item() == pytest.approx(sum(apart) / 2)
    joined = number_level_loss(logits, labels, values=ELEVEN, point=10, reduction="none")
    assert joined.tolist() == pytest.approx([0.3 / 2.7, 0, 0, 0])
    torch.testing.assert_close(number_level_loss(logits, labels, point=10), joined.sum())


def test_the_mean_digit_fills_every_place() -> None:
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(4, 12, generator=generator, dtype=torch.float64).requires_grad_()
    mean = logits[:, :10].softmax(-1) @ DIGITS
    places = torch.tensor([1000.0, 100.0, 10.0, 1.0], dtype=torch.float64)
    y = torch.tensor([3.0, 1.0, 0.0, 7.0], dtype=torch.float64)
    x, true = (mean * places).sum(), (y * places).sum()
    found = number_level_loss(logits, y.long(), values=ELEVEN)
    torch.testing.assert_close(found, (x - true).abs() / (x + true), rtol=1e-7, atol=0)
    torch.autograd.gradcheck(lambda z: number_level_loss(z, y.long(), values=ELEVEN), logits)


def test_laws_of_numbers() -> None:
    """Padding, masks, nothing at all, extreme logits, long numbers, bad input."""
    labels, logits = torch.tensor([1, 2, 3]), written(1, 5, 3)
    wanted = number_level_loss(logits, labels, values=ELEVEN)
    wide = torch.cat([logits, torch.full((2, 12), NAN)]).requires_grad_()
    padded = number_level_loss(
        wide, torch.tensor([1, 2, 3, -100, 4]), torch.tensor([True] * 4 + [False]), values=ELEVEN
    )
    torch.testing.assert_close(padded, wanted)
    gradient = torch.autograd.grad(padded, wide)[0]
    assert (gradient[3:] == 0).all()
    assert torch.isfinite(gradient).all()
    nothing = number_level_loss(wide, torch.full((5,), -100), values=ELEVEN)
    assert nothing == 0
    assert (torch.autograd.grad(nothing, wide)[0] == 0).all()
    assert number_level_loss(torch.zeros(0, 12), torch.zeros(0, dtype=torch.int64), values=ELEVEN) == 0
    long = number_level_loss(torch.eye(12)[[9] * 60].half() * 1e4, torch.full((60,), 9), values=ELEVEN)
    assert long.item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(RivalsError, match="digits"):
        number_level_loss(LOGITS, LABELS, values=VALUES * 10)
    with pytest.raises(RivalsError, match="eps"):
        number_level_loss(LOGITS, LABELS, values=VALUES, eps=0.0)
    with pytest.raises(RivalsError, match="labels"):
        number_level_loss(torch.zeros(12), torch.tensor(3))
