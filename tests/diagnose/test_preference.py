"""The report on preference models: hand values, the card's checks on flips, ties, and a real model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.diagnose.preference import PreferenceRanking, model_preference_ranking, preference_ranking
from rivals.errors import RivalsError
from rivals.losses import preference_loss
from rivals.measures import spearman
from rivals.models.language import Prompt
from tests.models.language.smollm import smollm2
from tests.models.language.test_local import tiny

LOGPS = np.array([[-10.0, -12.0], [-9.0, -8.0], [-20.0, -30.0], [-7.0, -7.0]])
REF = np.array([[-11.0, -9.0], [-9.0, -9.0], [-21.0, -30.0], [-6.0, -7.5]])
LENGTHS = np.array([[4, 5], [3, 3], [10, 20], [2, 2]])


def test_by_hand() -> None:
    found = preference_ranking(LOGPS, REF, LENGTHS, vote_share=[0.75, 0.5, 1.0, 0.2])
    assert found.pairs == 4
    assert found.ties == 0
    assert found.ranking.estimate == pytest.approx(3 / 4)  # equal likelihoods count as right
    assert found.ranking_per_token.estimate == pytest.approx(1 / 4)  # -2.5 < -2.4, wrong, -2 < -1.5, a tie
    assert found.reference.estimate == pytest.approx(3 / 4)
    assert found.reward.estimate == pytest.approx(2 / 4)  # gains 1, -3; 0, 1; 1, 0; -1, 0.5
    assert found.difficulty.tolist() == [2, 0, -9, -1.5]
    assert found.required_loss == pytest.approx(np.log1p(np.exp(-0.1 * found.difficulty)))
    assert found.transitions.fraction.tolist() == [0.5, 0.25, 0.25, 0]
    assert found.ideal == (0.5, 0.5, 0.5)  # votes decide at small beta, the reference at large beta, two of four each
    assert found.alignment_gap == pytest.approx(found.ideal.median - 0.75)
    assert found.ranking.low < 0.75 < found.ranking.high


def test_the_paper_says_which_pairs_are_right_from_the_loss() -> None:
    """The card's first check: c = 2, beta 0.1; loss 0.513 is below the threshold 0.598, 0.621 is not."""
    for own, loss, right in ((-12.0, 0.5130152524, 1.0), (-9.5, 0.6209570, 0.0)):
        found = preference_ranking([[-10.0, own]], [[-11.0, -9.0]], beta=0.1)
        assert found.required_loss[0] == pytest.approx(0.5981388693)
        assert (loss <= found.required_loss[0]) == bool(right)
        assert found.ranking.estimate == right


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.5, 2.0]))
def test_a_pair_is_right_exactly_if_its_loss_is_low_enough(seed: int, beta: float) -> None:
    draw = np.random.default_rng(seed)
    logps, ref = draw.normal(-30, 6, (2, 40, 2))
    found = preference_ranking(logps, ref, beta=beta)
    losses = preference_loss(
        torch.from_numpy(logps), torch.tensor([[1.0, 0.0]] * 40), torch.from_numpy(ref), beta=beta, reduction="none"
    )
    right = losses.numpy() <= found.required_loss * (1 + 1e-9)
    assert found.ranking.estimate == pytest.approx(right.mean())
    assert found.transitions.fraction.sum() == pytest.approx(1)


def tune_table(size: int, steps: int, *, ref_weight: float = 1.0, check: bool = False) -> dict[str, float]:
    """Tune a bigram table by DPO on 400 pairs whose order the start has wrong on 45 %; return what flipped and when."""
    draw = torch.Generator().manual_seed(0)
    count, words = 400, 8
    texts = torch.randint(size, (count, 2, words), generator=draw)
    table = torch.randn(size, size, generator=draw)

    def logps(weights: torch.Tensor) -> torch.Tensor:
        return weights.log_softmax(-1)[texts[..., :-1], texts[..., 1:]].sum(-1)

    order = logps(table).argsort(1, descending=True)
    wrong = torch.rand(count, generator=draw) < 0.45
    order[wrong] = order[wrong].flip(1)
    texts = texts.gather(1, order.unsqueeze(-1).expand(-1, -1, words))
    ref = logps(table)
    assert preference_ranking(ref, ref).ranking.estimate == pytest.approx(1 - wrong.double().mean().item())
    weights, chosen = table.clone().requires_grad_(), torch.tensor([[1.0, 0.0]] * count)
    flipped_at, share = torch.full((count,), steps), float("nan")
    for step in range(steps):
        now = logps(weights)
        losses = preference_loss(now, chosen, ref, beta=0.1, ref_weight=ref_weight, reduction="none")
        right = now[:, 0] >= now[:, 1]
        if check:
            report = preference_ranking(now.detach(), ref)
            assert report.ranking.estimate == pytest.approx(right.double().mean().item())
            sure = (now[:, 0] - now[:, 1]).abs() > 1e-3
            assert (right == (losses <= torch.from_numpy(report.required_loss)))[sure].all()
            assert report.transitions.fraction[2] == pytest.approx((right & wrong).double().mean().item())
        flipped_at = torch.where(right & wrong & (flipped_at == steps), step, flipped_at)
        if np.isnan(share) and losses.mean() < 0.5:
            share = ((right & wrong).sum() / wrong.sum()).item()
        weights.grad = None
        losses.mean().backward()
        with torch.no_grad():
            weights -= 20.0 * weights.grad
    seen = wrong & (flipped_at < steps)
    difficulty = ref[:, 1] - ref[:, 0]
    order_kept = spearman(difficulty[seen].numpy()[None], flipped_at[seen].numpy()[None])
    return {
        "flipped": float((right & wrong).sum()),
        "share at a loss of 0.5": share,
        "order": float(order_kept[0]),
        "difficulty left": float(difficulty[wrong & ~seen].mean() - difficulty[seen].mean()),
    }


def test_tuned_tables_flip_the_easy_pairs_first() -> None:
    """Ranked right means a loss at the threshold, at every step; hard pairs flip later.

    The card expects fewer than half flipped at a loss of 0.5. With random texts over one table 71 % are: all pairs share
    the table's rows, so that pushing one pair moves many others. What is asserted is that a good part is still wrong then.
    """
    found = tune_table(40, 300, check=True)
    assert found["order"] > 0.8
    assert 0 < found["share at a loss of 0.5"] < 0.75
    assert found["difficulty left"] > 0


def test_without_the_reference_more_pairs_flip_in_as_many_steps() -> None:
    assert tune_table(12, 120, ref_weight=0.0)["flipped"] > tune_table(12, 120)["flipped"]


def test_ties_are_left_out_and_counted() -> None:
    relevance = [[0, 1], [1, 1], [1, 0], [2, 1]]
    found = preference_ranking(LOGPS, REF, LENGTHS, relevance=relevance)
    swapped = LOGPS.copy()
    swapped[0] = swapped[0, ::-1]
    expected = preference_ranking(swapped[[0, 2, 3]])
    assert (found.pairs, found.ties) == (3, 1)
    assert found.ranking == expected.ranking
    assert found.difficulty[0] == -2
    assert "1 ties left out" in str(found)


def test_it_prints_and_saves() -> None:
    full, bare = preference_ranking(LOGPS, REF, LENGTHS), preference_ranking(LOGPS)
    for text in ("4 pairs", "ranking accuracy", "reward accuracy", "over beta", "left wrong"):
        assert text in str(full)
    assert "reward" not in str(bare)
    assert bare.alignment_gap is None
    again = json.loads(json.dumps(full.to_dict()))
    assert again["ranking"]["estimate"] == 0.75
    assert len(again["difficulty"]) == 4
    assert json.loads(json.dumps(bare.to_dict()))["ideal"] is None


def test_a_real_model() -> None:
    model = smollm2()
    prompts = ["The capital of France is", "Water is made of", "The opposite of hot is"]
    good, bad = [" Paris.", " hydrogen and oxygen.", " cold."], [" purple.", " elephants and tin.", " seven."]
    found = model_preference_ranking(model, prompts, good, bad)
    assert isinstance(found, PreferenceRanking)
    assert found.ranking.estimate == 1
    assert found.reward.estimate == 0  # it is its own reference
    assert (found.difficulty < 0).all()
    assert model_preference_ranking(model, prompts, bad, good).ranking.estimate == 0
    chat = model_preference_ranking(model, [Prompt.of("What is the capital of France?")], ["Paris."], ["Seventeen."])
    assert chat.ranking.estimate == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preference_ranking(np.zeros((0, 2))), "no pair"),
        (lambda: preference_ranking(LOGPS, relevance=np.ones((4, 2))), "no pair to rank \\(4 ties"),
        (lambda: preference_ranking(LOGPS[0]), "it must be \\[pairs, 2\\]"),
        (lambda: preference_ranking(LOGPS, REF[:3]), "ref_logps has shape \\[3, 2\\]"),
        (lambda: preference_ranking(LOGPS * np.nan), "logps must be finite"),
        (lambda: preference_ranking(LOGPS, REF, beta=0), "beta"),
        (lambda: preference_ranking(LOGPS, REF, vote_share=[1.0]), "vote_share has shape"),
        (lambda: preference_ranking(LOGPS, REF, vote_share=2.0), "vote_share"),
        (lambda: model_preference_ranking(tiny(), ["a"], ["b"], []), "0 rejected"),
        (lambda: model_preference_ranking(tiny(context=4), ["a"], ["b"], ["a a a a a"]), "1 pairs do not fit"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(RivalsError, match=message):
        call()
