"""How likely a model on this machine finds given texts: summed log-probabilities of responses, each after its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.models.language.base import Prompt
from rivals.models.language.local import LocalLanguageModel
from rivals.progress import progress

_CPU_TOKENS, _GPU_TOKENS = 1024, 16384  # a float32 row of logits a token, and vocabularies are large


class Likelihood(NamedTuple):
    """Log-probabilities of responses, `sums` float64[N], and how many tokens they are, `lengths` int64[N].

    A response that does not fit into the model's context with its prompt has the sum NaN and the length it would have.
    """

    sums: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean log-probability per token, float64[N]; 0 for a response without tokens."""
        return self.sums / np.maximum(self.lengths, 1)


def response_log_probabilities(
    model: LocalLanguageModel, prompts: Sequence[Prompt | str], responses: Sequence[str]
) -> Likelihood:
    """Return log P(response | prompt) of every pair: the sum over the response's tokens, prompt tokens not counted.

    A `Prompt` goes through the model's chat template, and its response follows the marks that open an answer. A plain
    string is text that the response goes on with, so give the blank between them to either; after "" the first token
    follows the model's start symbol, its end symbol if it has no other, and is not counted if it has neither. Special
    tokens spelled out in a response are read as plain text. No end symbol is counted.

    Shapes: N prompts and N responses -> `Likelihood` of two [N]. What else is in the call changes a sum by the rounding
    of float32 only.

    When to use: whether a preference model ranks (`rivals.diagnose.preference_ranking`), fluency of candidates,
    log-probabilities for `rivals.losses.preference_loss`. For a few fixed answers: `option_log_probabilities`.

    Source: what the papers on preferences start from (Rafailov et al. 2023; Chen et al. 2024). Papers 73, 76.

    Raises:
        RivalsError: not as many prompts as responses, a model that is not a `LocalLanguageModel`.
    """
    from rivals.models.batching import token_batches

    if not isinstance(model, LocalLanguageModel):
        raise RivalsError(f"{type(model).__name__} does not give the probability of a text; use a LocalLanguageModel")
    if len(prompts) != len(responses):
        raise RivalsError(
            f"there are {len(prompts)} prompts and {len(responses)} responses; give one prompt a response"
        )
    heads, bodies = _ids(model, prompts, responses)
    lengths = np.array([len(body) for body in bodies], dtype=np.int64)
    whole = lengths + np.array([len(head) for head in heads], dtype=np.int64)
    sums = np.where(whole > model.context_length, np.nan, 0.0)
    wanted = np.flatnonzero((lengths > 0) & (whole <= model.context_length))
    budget = min(model.max_batch_tokens, _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS)
    with progress("Reading responses", float(whole[wanted].sum())) as advance:
        for batch in token_batches(whole[wanted], budget):
            rows = wanted[batch]
            sums[rows], lengths[rows] = _score(model, [heads[row] for row in rows], [bodies[row] for row in rows])
            model.usage.add(calls=len(rows), prompt_tokens=int(whole[rows].sum()))
            advance(float(whole[rows].sum()))
    model.usage.add(errors=int(np.isnan(sums).sum()))
    return Likelihood(sums, lengths)


def _ids(
    model: LocalLanguageModel, prompts: Sequence[Prompt | str], responses: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompts and of responses as they follow them."""
    rendered = [prompt if isinstance(prompt, str) else model.render(prompt) for prompt in prompts]
    plain = [model._broken_up(text) for text in responses]
    tokenizer = model._tokenizer
    start = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), None)
    found = model._fast(
        [*rendered, *(head + body for head, body in zip(rendered, plain, strict=True)), *plain],
        max_length=None,
        special=False,
    )
    ids = [part.tolist() for part in np.split(found.ids, found.offsets[1:-1])] if len(found) else []
    count = len(plain)
    heads, joined, alone = ids[:count], ids[count : 2 * count], ids[2 * count :]
    bodies = [
        both[len(head) :] if both[: len(head)] == head else body
        for head, both, body in zip(heads, joined, alone, strict=True)
    ]
    begun = bool(tokenizer.chat_template)
    opening = [] if start is None else [int(start)]
    own = [opening if not (begun and isinstance(prompt, Prompt)) else [] for prompt in prompts]
    needs_none = tokenizer.bos_token_id is None  # an end symbol is put only where nothing else stands in front
    return [([] if needs_none and head else mark) + head for mark, head in zip(own, heads, strict=True)], bodies


def _score(
    model: LocalLanguageModel, heads: list[list[int]], bodies: list[list[int]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import torch

    from rivals.losses import token_log_probs

    width = max(len(head) + len(body) for head, body in zip(heads, bodies, strict=True))
    ids = torch.full((len(heads), width), model._fast.pad_id, dtype=torch.long)
    there, target = torch.zeros(ids.shape, dtype=torch.long), torch.zeros(ids.shape, dtype=torch.bool)
    for row, (head, body) in enumerate(zip(heads, bodies, strict=True)):
        end = len(head) + len(body)
        ids[row, :end], there[row, :end] = torch.tensor(head + body), 1
        target[row, len(head) : end] = True
    ids, there, target = (part.to(model.device) for part in (ids, there, target))
    with torch.inference_mode():
        logits = model._model(input_ids=ids, attention_mask=there, use_cache=False).logits
        found = token_log_probs(logits, ids, target)
    return found.sums.double().cpu().numpy(), found.lengths.cpu().numpy()
