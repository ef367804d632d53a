"""Batches hold every row once and keep to the budget; tokens are what the tokenizer of transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.models._transformer import load_tokenizer
from rivals.models.batching import FastTokenizer, Tokens, check_texts, token_batches

LENGTHS = st.lists(st.integers(0, 300), max_size=200)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.sampled_from([1, 8, 64]), st.sampled_from([None, 1, 7]))
def test_batches_hold_every_row_once_within_the_budget(
    lengths: list[int], budget: int, multiple: int, most: int | None
) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = token_batches(array, budget, multiple=multiple, max_count=most)
    rows = np.concatenate(batches) if batches else np.zeros(0, np.int64)
    assert sorted(rows.tolist()) == list(range(len(array)))
    for batch in batches:
        longest = max(int(array[batch].max()), 1)
        padded = -(-longest // multiple) * multiple
        assert len(batch) == 1 or padded * len(batch) <= budget
        assert most is None or len(batch) <= most
    again = token_batches(array, budget, multiple=multiple, max_count=most)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_batches_run_from_long_to_short_and_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(4, 256, 2000)
    batches = token_batches(lengths, 2048)
    heads = [int(lengths[batch].max()) for batch in batches]
    assert heads == sorted(heads, reverse=True)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.05 * lengths.sum()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.array([1]), 0, 1, None), "at least 1"),
        ((np.array([1]), 8, 0, None), "at least 1"),
        ((np.array([1]), 8, 1, 0), "at least 1"),
        ((np.array([-1]), 8, 1, None), "negative"),
    ],
)
def test_impossible_batches_are_refused(arguments: tuple[Any, int, int, int | None], words: str) -> None:
    lengths, budget, multiple, most = arguments
    with pytest.raises(RivalsError, match=words):
        token_batches(lengths, budget, multiple=multiple, max_count=most)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_take_and_pad_give_the_rows_asked_for(rows: list[list[int]], random: Any) -> None:
    flat = np.array([i for row in rows for i in row], dtype=np.int32)
    tokens = Tokens(flat, np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64))
    chosen = [random.randrange(len(rows)) for _ in range(5)]
    taken = tokens.take(np.array(chosen))
    ids, mask = tokens.pad(np.array(chosen), pad_id=7, multiple=4)
    assert ids.shape[1] % 4 == 0
    for at, row in enumerate(chosen):
        assert taken.ids[taken.offsets[at] : taken.offsets[at + 1]].tolist() == rows[row]
        assert ids[at].tolist() == rows[row] + [7] * (ids.shape[1] - len(rows[row]))
        assert int(mask[at].sum()) == len(rows[row])


def test_tokens_equal_those_of_transformers(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    fast = FastTokenizer(tokenizer)
    texts = ["the cat", "", "fever " * 50, "unknown ☃ sign", "a dog sat on the mat."]
    expected = tokenizer([f"query: {text}" for text in texts], truncation=True, max_length=16)["input_ids"]
    tokens = fast(texts, max_length=16, prompt="query: ")
    got = [tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    assert got == expected
    assert tokens.truncated == 1
    assert fast.prompt_length("query: ", 16) == len(expected[1]) - 1


def test_tokens_do_not_depend_on_the_chunk(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = FastTokenizer(load_tokenizer(tiny))
    texts = [f"cat {'dog ' * (i % 9)}" for i in range(50)]
    whole = fast(texts, max_length=32)
    monkeypatch.setattr("rivals.models.batching._CHUNK", 7)
    seen: list[int] = []
    parts = fast(texts, max_length=32, on_done=seen.append)
    assert np.array_equal(whole.ids, parts.ids)
    assert np.array_equal(whole.offsets, parts.offsets)
    assert sum(seen) == 50


def test_no_texts_give_no_tokens(tiny: Path) -> None:
    tokens = FastTokenizer(load_tokenizer(tiny))([], max_length=8)
    assert len(tokens) == 0
    assert token_batches(tokens.lengths, 100) == []


def test_a_row_that_is_no_string_is_named() -> None:
    with pytest.raises(RivalsError, match="row 2 is float"):
        check_texts(["a", "", float("nan")])  # type: ignore[list-item]
    with pytest.raises(RivalsError, match="one string"):
        check_texts("a text")


def test_pair_template_is_the_tokenizers_own(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    fast = FastTokenizer(tokenizer)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert fast.pair_template() == ([cls], [sep], [sep])
