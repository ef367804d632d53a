"""Preference tuning from log-probabilities, as TRL computes them: chosen and rejected texts in one forward pass.

    python examples/preference_log_probs.py

`PREFERENCE_LOSSES` has the losses by name; "simpo" and "orpo" need no reference model and leave `ref_logps` out.
"""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from rivals.losses import PREFERENCE_LOSSES, preference_report, token_log_probs


def log_probs(model: PreTrainedModel, tokens: torch.Tensor, completion: torch.Tensor) -> torch.Tensor:
    """Return the summed log-probabilities [pairs, 2] of completions, whose tokens come as [pairs, 2, length]."""
    logits = model(tokens.flatten(0, 1)).logits
    return token_log_probs(logits, tokens.flatten(0, 1), completion.flatten(0, 1)).sums.unflatten(0, tokens.shape[:2])


def main(steps: int = 5) -> list[float]:
    """Train a tiny model on pairs, and return the share it has moved the right way at every step."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 50, (8, 2, 12))  # 8 prompts, a chosen and a rejected text each
    completion = (torch.arange(12) >= 4).expand(8, 2, 12)  # the first four tokens are the prompt
    relevance = torch.tensor([1.0, 0.0]).expand(8, 2)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    policy = AutoModelForCausalLM.from_config(config).eval()  # eval: no dropout
    reference = copy.deepcopy(policy).requires_grad_(False)
    ref_logps, accuracies = log_probs(reference, tokens, completion), []
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(steps):
        logps = log_probs(policy, tokens, completion)
        loss = PREFERENCE_LOSSES["dpo"](logps, relevance, ref_logps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        accuracies.append(preference_report(logps, relevance, ref_logps).score_accuracy.item())
    return accuracies


if __name__ == "__main__":
    print("pairs moved the right way:", *(f"{share:.0%}" for share in main()))
