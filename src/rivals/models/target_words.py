"""Texts with one word marked: the input of models that compare the senses of a word in two usages."""

from __future__ import annotations

from typing import Any

from rivals.errors import RivalsError

__all__ = ["mark_target"]


def mark_target(
    text: str,
    start: int,
    end: int,
    tokenizer: Any = None,
    *,
    max_length: int = 128,
    special_tokens: int = 2,
    markers: tuple[str, str] = ("<t>", "</t>"),
) -> str:
    """Put markers around a word of a text and, with a tokenizer, cut the text so that the word stays in the middle.

    With room = max_length - special_tokens and a span of the marked word's tokens, each side keeps at most
    floor((room - span) / 2) tokens, those next to the word; room that a short side leaves is not given to the other.

    Args:
        start, end: the word is text[start:end].
        tokenizer: a fast transformers tokenizer, such as `Encoder.tokenizer`; without one nothing is cut.
        special_tokens: what the model adds to every text ([CLS] and [SEP]).
        markers: add them to the tokenizer's vocabulary to make each one token.

    Source: Cassotti et al. (2023), XL-LEXEME; Sachin and Schlechtweg (2025), XL-DURel. Paper 119.

    Raises RivalsError: a span that is empty or outside the text, a text that already holds a marker, markers that are
    empty or alike, a tokenizer without offsets, a max_length below what the marked word needs.

    >>> mark_target("a bank by the river", 2, 6)
    'a <t>bank</t> by the river'
    """
    if not 0 <= start < end <= len(text):
        raise RivalsError(
            f"start and end must hold a word inside the text of {len(text)} characters; got {start}, {end}"
        )
    opening, closing = markers
    if not opening or not closing or opening == closing:
        raise RivalsError(f"markers must be two different texts; got {markers!r}")
    if opening in text or closing in text:
        raise RivalsError(f"the text holds a marker already, {opening!r} or {closing!r}; take other markers")
    left, right = text[:start], text[end:]
    marked = opening + text[start:end] + closing
    if tokenizer is not None:
        if not getattr(tokenizer, "is_fast", False):
            raise RivalsError("tokenizer must be a fast transformers tokenizer, which knows where its tokens stand")
        room = max_length - special_tokens - len(_places(tokenizer, marked))
        if room < 0:
            raise RivalsError(
                f"max_length is {max_length}; the marked word and {special_tokens} special tokens need {max_length - room}"
            )
        side = room // 2
        before, after = _places(tokenizer, left), _places(tokenizer, right)
        if len(before) > side:
            left = left[before[-side][0] :] if side else ""
        if len(after) > side:
            right = right[: after[side - 1][1]] if side else ""
    return left + marked + right


def _places(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where a text's tokens start and end."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(found["offset_mapping"])
