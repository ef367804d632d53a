"""Log-probabilities of responses: the real model against transformers, tiny ones where lengths matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.models.language import LocalLanguageModel, Prompt
from rivals.models.language.likelihood import Likelihood, response_log_probabilities
from tests.models.language.test_local import CHAT, tiny


def by_hand(model: LocalLanguageModel, head: list[int], body: list[int]) -> float:
    with torch.no_grad():
        logs = model._model(torch.tensor([head + body])).logits[0].log_softmax(-1)
    return float(sum(logs[len(head) + place - 1, token] for place, token in enumerate(body)))


def test_plain_text_is_what_transformers_says(smollm2: LocalLanguageModel) -> None:
    prompts = ["The capital of France is", "Two and two make", ""]
    responses = [" Paris.", " four, and three and three make six.", "Hello there"]
    found = response_log_probabilities(smollm2, prompts, responses)
    tokenizer = smollm2._tokenizer
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        head = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        body = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert found.lengths[row] == len(body)
        assert found.sums[row] == pytest.approx(by_hand(smollm2, head, body), abs=2e-3)
    alone = response_log_probabilities(smollm2, prompts[1:2], responses[1:2])
    assert alone.sums[0] == pytest.approx(found.sums[1], abs=2e-3)
    assert found.means == pytest.approx(found.sums / found.lengths)


def test_a_chat_is_what_the_options_say(smollm2: LocalLanguageModel) -> None:
    prompts = [Prompt.of("What is the capital of France? Answer in one word."), Prompt.of("Is water wet?")]
    options = ["Paris", "Yes, it is"]
    table = smollm2.option_log_probabilities(prompts, options)
    for column, option in enumerate(options):
        found = response_log_probabilities(smollm2, prompts, [option] * 2)
        np.testing.assert_allclose(found.sums, table[:, column], atol=2e-3)


def test_better_text_is_likelier(smollm2: LocalLanguageModel) -> None:
    found = response_log_probabilities(smollm2, ["", ""], ["The cat sat on the mat.", "Mat the on sat cat the."])
    assert found.means[0] > found.means[1] + 1


def test_nothing_and_too_much() -> None:
    model = tiny(context=8)
    found = response_log_probabilities(model, ["a b", "a b", "a"], ["", "a b c d a b c d", "b c"])
    assert found.sums[0] == 0
    assert np.isnan(found.sums).tolist() == [False, True, False]
    assert found.lengths.tolist() == [0, 8, 2]
    assert found.means[0] == 0
    assert model.usage.errors == 1
    assert found.sums[2] == pytest.approx(by_hand(model, [6], [7, 8]), abs=1e-5)
    none = response_log_probabilities(model, [], [])
    assert isinstance(none, Likelihood)
    assert none.sums.shape == (0,)


def test_without_a_start_symbol_the_end_symbol_stands_in_front_of_nothing_only() -> None:
    model = tiny()
    found = response_log_probabilities(model, ["", "a"], ["b", "b"])
    assert found.sums[0] == pytest.approx(by_hand(model, [1], [7]), abs=1e-5)
    assert found.sums[1] == pytest.approx(by_hand(model, [6], [7]), abs=1e-5)
    chat = tiny(template=CHAT, context=32)
    answered = response_log_probabilities(chat, [Prompt.of("a")], ["b"])
    assert answered.sums[0] == pytest.approx(by_hand(chat, [3, 6, 4], [7]), abs=1e-5)


def test_bad_input_is_named() -> None:
    with pytest.raises(RivalsError, match="1 prompts and 2 responses"):
        response_log_probabilities(tiny(), ["a"], ["b", "c"])
    with pytest.raises(RivalsError, match="use a LocalLanguageModel"):
        response_log_probabilities(object(), ["a"], ["b"])  # type: ignore[arg-type]
