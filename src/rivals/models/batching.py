"""Tokens of many texts, flat, and batches of about equal work made from them.

A batch is filled up to a budget of padded tokens (count x longest), over texts sorted by token count, so short texts
go by hundreds and long ones by a few, and little of the work is spent on padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.errors import ModelError, RivalsError

if TYPE_CHECKING:
    import torch

_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of N texts end to end: text i is `ids[offsets[i]:offsets[i + 1]]`.

    ids int32[total]; offsets int64[N + 1]. `prompt_length`: leading tokens (special ones included) that belong to a
    prompt and are to be left out of pooling; 0 = none. `truncated`: how many texts were cut at the model's length.

    >>> tokens = Tokens(np.array([5, 6, 7], np.int32), np.array([0, 1, 3]))
    >>> len(tokens), tokens.lengths.tolist()
    (2, [1, 2])
    """

    ids: np.ndarray
    offsets: np.ndarray
    prompt_length: int = 0
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Token count of every text, int64[N]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Tokens:
        """Return the texts of `rows`, in that order.

        >>> Tokens(np.array([5, 6, 7], np.int32), np.array([0, 1, 3])).take(np.array([1])).ids.tolist()
        [6, 7]
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Tokens(self.ids[positions], offsets, self.prompt_length)

    def pad(
        self, rows: np.ndarray, *, pad_id: int = 0, multiple: int = 1, device: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (input_ids, attention_mask), both int64[len(rows), longest], padded on the right.

        >>> ids, mask = Tokens(np.array([5, 6, 7], np.int32), np.array([0, 1, 3])).pad(np.array([0, 1]))
        >>> ids.tolist(), mask.tolist()
        ([[5, 0], [6, 7]], [[1, 0], [1, 1]])
        """
        import torch

        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        longest = max(int(lengths.max(initial=1)), 1)
        longest += -longest % multiple
        mask = np.arange(longest)[None, :] < lengths[:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = self.take(rows).ids
        ids_tensor, mask_tensor = torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
        return (ids_tensor, mask_tensor) if device is None else (ids_tensor.to(device), mask_tensor.to(device))


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Vectors of every token of N texts end to end: text i is `vectors[offsets[i]:offsets[i + 1]]`, with its `ids`.

    vectors float[total, D]; offsets int64[N + 1]; ids int32[total].
    """

    vectors: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def token_batches(
    lengths: np.ndarray, max_tokens: int, *, multiple: int = 1, max_count: int | None = None
) -> list[np.ndarray]:
    r"""Split rows into batches of at most `max_tokens` padded tokens, longest rows first.

    Formula: rows are sorted by length descending, ties by row; a batch grows while
    $|b| \cdot \lceil \max_{i \in b} \ell_i / m \rceil m \le$ `max_tokens`. A single row longer than the budget is a
    batch alone.
    Shapes: lengths int[N]; returns index arrays (int64) which together hold every row exactly once.
    When to use: wherever texts of mixed length are run through a model; `max_count` bounds the rows a batch may hold.
    Raises: RivalsError for a budget, multiple or count below 1, or negative lengths.

    >>> [batch.tolist() for batch in token_batches(np.array([3, 9, 2, 3]), 9)]
    [[1], [0, 3, 2]]
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if max_tokens < 1 or multiple < 1 or (max_count is not None and max_count < 1):
        raise RivalsError(
            f"max_tokens ({max_tokens}), multiple ({multiple}) and max_count ({max_count}) must be at least 1"
        )
    if lengths.size and lengths.min() < 0:
        raise RivalsError("a text cannot have a negative number of tokens")
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        longest += -longest % multiple
        count = max(max_tokens // longest, 1)
        if max_count is not None:
            count = min(count, max_count)
        batches.append(order[start : start + count])
        start += count
    return batches


def default_budget(device: torch.device) -> int:
    """Padded tokens a batch holds when the caller says nothing.

    On CPUs small batches whose activations stay in the cache are fastest (measured: 512 to 2,048 a core), on GPUs
    large ones.
    """
    import torch

    return min(1024 * max(torch.get_num_threads(), 1), 16384) if device.type == "cpu" else 65536


def check_texts(texts: Sequence[str], what: str = "text") -> None:
    """Raise RivalsError naming the first row which is not a string.

    >>> check_texts(["a", None])
    Traceback (most recent call last):
    rivals.errors.RivalsError: text in row 1 is NoneType, not str; give every row as a string (an empty one is legal)
    """
    if isinstance(texts, str):
        raise RivalsError(f"expected a list of {what}s but got one string; put it in a list")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise RivalsError(
                f"{what} in row {row} is {kind}, not str; give every row as a string (an empty one is legal)"
            )


class FastTokenizer:
    """A private copy of a transformers fast tokenizer that turns many texts into `Tokens`.

    The copy has its own truncation and no padding, so the tokenizer that is saved with the model is never altered.
    Raises: ModelError for a tokenizer without a fast (Rust) implementation.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(tokenizer).__name__} has no fast implementation; save the model with a tokenizer.json"
            )
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        self.text: str = self._backend.to_str()
        self._cutters: dict[int, Any] = {}
        self._direction = getattr(tokenizer, "truncation_side", "right")
        pad = tokenizer.pad_token_id
        if pad is None:
            pad = tokenizer.eos_token_id
        self.pad_id = 0 if pad is None else int(pad)
        self.special_ids = frozenset(int(i) for i in tokenizer.all_special_ids)

    def _cutting_at(self, max_length: int | None) -> Any:
        """A tokenizer that cuts there. Each length has its own, so threads do not collide."""
        if max_length is None:
            return self._backend
        cutter = self._cutters.get(max_length)
        if cutter is None:
            from tokenizers import Tokenizer

            cutter = Tokenizer.from_str(self.text)
            cutter.enable_truncation(max_length, strategy="longest_first", direction=self._direction)
            if len(self._cutters) >= 8:
                self._cutters = {}
            self._cutters[max_length] = cutter
        return cutter

    def __call__(
        self,
        texts: Sequence[str],
        *,
        max_length: int | None,
        prompt: str = "",
        special: bool = True,
        on_done: Callable[[int], None] | None = None,
    ) -> Tokens:
        """Tokenise texts (each with `prompt` in front), at most `max_length` tokens each, in chunks."""
        backend = self._cutting_at(max_length)
        parts: list[np.ndarray] = []
        lengths = np.zeros(len(texts), dtype=np.int64)
        truncated = 0
        for start in range(0, len(texts), _CHUNK):
            chunk = (
                [prompt + text for text in texts[start : start + _CHUNK]]
                if prompt
                else list(texts[start : start + _CHUNK])
            )
            encodings = backend.encode_batch_fast(chunk, add_special_tokens=special)
            rows = [encoding.ids for encoding in encodings]
            lengths[start : start + len(rows)] = [len(row) for row in rows]
            parts.append(np.fromiter((i for row in rows for i in row), dtype=np.int32, count=sum(map(len, rows))))
            truncated += sum(1 for encoding in encodings if encoding.overflowing)
            if on_done is not None:
                on_done(len(chunk))
        ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), 0, truncated)

    def spans(self, texts: Sequence[str], *, max_length: int | None, prompt: str = "") -> np.ndarray:
        """Return where every token of `self(texts, ...)` lies in its text, (first, past last) characters, int64[total, 2].

        Special tokens and those of the prompt lie at (-1, -1).
        """
        backend, shift = self._cutting_at(max_length), len(prompt)
        encodings = backend.encode_batch([prompt + text for text in texts])
        found = [
            (-1, -1) if special or start < shift else (start - shift, end - shift)
            for encoding in encodings
            for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def prompt_length(self, prompt: str, max_length: int | None) -> int:
        """Number of leading tokens a prompt takes, special tokens in front included, a trailing special token not."""
        ids = self([prompt], max_length=max_length).ids
        return len(ids) - int(len(ids) > 0 and int(ids[-1]) in self.special_ids)

    def text_of(self, token_id: int) -> str:
        """The surface form of one token id."""
        return str(self._backend.id_to_token(token_id) or "")

    def pair_template(self) -> tuple[list[int], list[int], list[int]]:
        """Special tokens before, between and after the two texts of a pair: ([CLS], [SEP], [SEP]) for BERT."""
        encoding = self._backend.encode("a", "a")
        owner = list(encoding.sequence_ids)
        first = [at for at, sequence in enumerate(owner) if sequence == 0]
        second = [at for at, sequence in enumerate(owner) if sequence == 1]
        if not first or not second or first[-1] > second[0]:
            raise ModelError(
                "this tokenizer cannot encode a pair of texts; use a model whose tokenizer has a pair template"
            )
        ids = encoding.ids
        return ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
