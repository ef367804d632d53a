"""Self-critical training: sampled texts or lists gain likelihood as far as they beat a baseline."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, check_choice, check_finite, check_shape, check_targets, reduce_lists

__all__ = ["self_critical_loss"]


def self_critical_loss(
    log_prob: Tensor,
    reward: Tensor,
    mask: Tensor | None = None,
    *,
    baseline: Literal["leave_one_out", "mean"] | Tensor | None = "leave_one_out",
    reduction: Reduction = "mean",
) -> Tensor:
    """Policy gradient of sampled responses: the log-likelihood of each times how far its reward beats a baseline.

    Formula:
        L_q = - 1/R sum_r (u_r - b_r) log P(r), u and b without gradient. b: given (the reward of the greedy response
        makes it self-critical training), the mean of the other responses' rewards ("leave_one_out"), of all ("mean"),
        or 0 (None). Mean over prompts with a response.

    Shapes:
        log_prob, reward float[..., R], one entry a sampled response, log_prob its sum over the response's own tokens;
        mask bool[..., R]; a baseline float[...] -> scalar, or float[...] with reduction="none".

    When to use:
        Training a generator on a reward without gradient: BLEU, ROUGE, a judge, a checked answer. One sample a prompt
        needs a given baseline.

    Relations:
        Whole rankings drawn from scores: `policy_gradient_loss`; two stages: `two_stage_policy_gradient_loss`.
        "leave_one_out" is "mean" times R / (R - 1).

    Source:
        Rennie et al. (2017), self-critical sequence training; Xu et al. (2023), multi-strategy reframing, its content
        reward. Paper 73. Baselines from the other samples as in paper 97.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a reward or baseline that is not finite, no place for a response
        (R = 0), "leave_one_out" for a prompt with a single response, an unknown name.

    Example:
        O(R) a prompt.

        >>> import torch
        >>> self_critical_loss(torch.tensor([[-2.0]]), torch.tensor([[0.6]]), baseline=torch.tensor([0.4]))
        tensor(0.4000)
    """
    given = isinstance(baseline, Tensor)
    if not given:
        check_choice(baseline, ("leave_one_out", "mean", None), "baseline")
    lists = check_targets(log_prob, reward, mask, None, reduction)
    if log_prob.shape[-1] < 1:
        raise RivalsError("log_prob has no place for a response; its last dimension must be 1 or more")
    count = lists.mask.sum(-1)
    rewards = lists.relevance.detach()
    total = rewards.sum(-1, keepdim=True)
    number = count.unsqueeze(-1).to(rewards.dtype)
    if isinstance(baseline, Tensor):
        check_shape(baseline, tuple(log_prob.shape[:-1]), "baseline", log_prob.device)
        level = baseline.detach().to(rewards.dtype).masked_fill(count == 0, 0.0)
        check_finite(level, "baseline")
        advantage = rewards - level.unsqueeze(-1)
    elif baseline == "leave_one_out":
        if (count == 1).any():
            raise RivalsError(
                'baseline="leave_one_out" needs at least 2 responses a prompt; some have 1: draw more, or give a baseline'
            )
        advantage = rewards - (total - rewards) / (number - 1).clamp(min=1)
    elif baseline == "mean":
        advantage = rewards - total / number.clamp(min=1)
    else:
        advantage = rewards
    terms = (advantage * lists.scores).masked_fill(~lists.mask, 0.0).sum(-1)
    return reduce_lists(-terms / count.clamp(min=1), count > 0, reduction)
