"""BERT with int8 products, for inference on processors that multiply int8 fast (AVX-512 VNNI).

Formula: a linear layer is $y = s_x (X_q W_q^\\top) s_w + b$ with int8 codes of every input row (dynamic) and of every
output channel of the weights, and exact int32 sums. Embeddings, attention and layer norms stay float32.
Source: Zafrir et al. 2019 (Q8BERT: which layers are quantised); Dettmers et al. 2022 (LLM.int8(), vector-wise scales).
"""

from __future__ import annotations

import copy
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

T = TypeVar("T")
R = TypeVar("R")

BATCH_TOKENS = 1024  # padded tokens of a batch: one thread works on one batch
_STEP = 8  # attention is a third slower for lengths that are no multiple of it
# Least-squares fit of (Phi(x) - 1/2) / x in x^2 on |x| <= 4; gelu errs by less than 2e-4, a hundredth of a code
_GELU = np.array(
    [
        0.39889267086982727, -0.0663473904132843, 0.009832963347434998, -0.0011189286597073078, 9.613332076696679e-05,
        -5.997171683702618e-06, 2.531366476432595e-07, -6.388686468739024e-09, 7.21475032494645e-11,
    ],
    dtype=np.float32,
)  # fmt: skip


@functools.cache
def int8_pays() -> bool:
    """Say whether this processor has int8 dot products, torch's int8 product is exact here and numba is installed."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (found.get("avx512_vnni") or found.get("avx_vnni")):
        return False
    try:
        import numba  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        return False
    return _product_is_exact()


def _product_is_exact() -> bool:
    """Compare torch's int8 product, which is not a public function, with int32 sums, at the extremes as well."""
    generator = torch.Generator().manual_seed(0)
    try:
        for rows, width, channels in ((1, 32, 32), (3, 384, 64), (37, 67, 53), (16, 1536, 96)):
            left = torch.randint(-127, 128, (rows, width), dtype=torch.int8, generator=generator)
            right = torch.randint(-127, 128, (channels, width), dtype=torch.int8, generator=generator)
            left[0], right[0] = -127, 127
            if not torch.equal(torch._int_mm(left, right.T), left.int() @ right.int().T):
                return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def supports_int8(module: nn.Module) -> bool:
    """Say whether `Int8Bert` computes what this module does: a plain BERT encoder with gelu and finite weights."""
    config: Any = getattr(module, "config", None)
    return (
        type(module).__name__ == "BertModel"
        and getattr(config, "model_type", None) == "bert"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
        and config.hidden_size >= 16
        and config.intermediate_size >= 16
        and all(
            type(part).__module__.split(".")[0] in ("torch", "transformers") for part in module.modules()
        )  # no adapters
    )


class _Linear:
    """Weights of one or several linear layers side by side as int8 codes, a scale and a bias per output channel."""

    def __init__(self, *layers: Any) -> None:
        weight = torch.cat([layer.weight.detach().float() for layer in layers])
        scale = weight.abs().amax(1) / 127
        self.codes = (weight / scale.clamp_min(1e-30)[:, None]).round().to(torch.int8)
        self.scale = scale.numpy()
        self.bias = torch.cat([layer.bias.detach().float() for layer in layers]).numpy()

    def __call__(self, codes: torch.Tensor) -> np.ndarray:
        return self.product(codes, 0)

    def product(self, codes: torch.Tensor, start: int, stop: int | None = None) -> np.ndarray:
        """Sums int32[n, stop - start] of the output channels from `start` to `stop`."""
        out: np.ndarray = torch._int_mm(codes, self.codes[start:stop].T).numpy()
        return out


class _Norm:
    def __init__(self, layer: Any) -> None:
        self.gain, self.shift = (t.detach().float().numpy().copy() for t in (layer.weight, layer.bias))
        self.epsilon = np.float32(layer.eps)


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention = layer.attention
        self.inputs = _Linear(attention.self.query, attention.self.key, attention.self.value)
        self.mix = _Linear(attention.output.dense)
        self.mix_norm = _Norm(attention.output.LayerNorm)
        self.widen = _Linear(layer.intermediate.dense)
        self.narrow = _Linear(layer.output.dense)
        self.norm = _Norm(layer.output.LayerNorm)

    def finish(
        self, mixed: np.ndarray, place: np.ndarray, codes: torch.Tensor, scale: np.ndarray, state: np.ndarray
    ) -> None:
        """What follows attention: writes the layer's output to state[n, H] and its codes and scales for the next.

        The attention's output for row i is mixed[place[i]].
        """
        from rivals.models import _int8_kernels as kernels

        small, other = codes.numpy(), np.empty_like(scale)
        wide = torch.empty(len(codes), len(self.widen.scale), dtype=torch.int8)
        kernels.gather_quantise(mixed, place, small, scale)
        part, norm = self.mix, self.mix_norm
        kernels.add_norm_quantise(
            part(codes), scale, part.scale, part.bias, state, norm.gain, norm.shift, norm.epsilon, small, other
        )
        part = self.widen
        kernels.gelu_quantise(part(codes), other, part.scale, part.bias, _GELU, wide.numpy(), scale)
        part, norm = self.narrow, self.norm
        kernels.add_norm_quantise(
            part(wide), scale, part.scale, part.bias, state, norm.gain, norm.shift, norm.epsilon, small, other
        )
        scale[:] = other


class Int8Bert(nn.Module):
    """An inference copy of a transformers `BertModel` with int8 linear layers.

    Shapes: input_ids and attention_mask [B, T] (padding on the right) to `last_hidden_state` float32[B, T, H], zero at
    the padding, which takes no part in the linear layers.
    When to use: `Frozen.get(backbone, torch.int8)` makes it; cosine with float32 measured 0.995 to 0.999 for MiniLM.
    Equals: `BertModel` up to the rounding to int8. The same bits for the same batch whatever the thread count.
    """

    def __init__(self, bert: Any) -> None:
        super().__init__()
        embeddings = bert.embeddings
        self.heads = int(bert.config.num_attention_heads)
        self.words = embeddings.word_embeddings.weight.detach().float().clone()
        self.kinds = embeddings.token_type_embeddings.weight.detach().float().clone()
        self.places = embeddings.position_embeddings.weight.detach().float().clone()
        self.norm = _Norm(embeddings.LayerNorm)
        self.layers = [_Layer(layer) for layer in bert.encoder.layer]
        self.last = copy.deepcopy(bert.encoder.layer[-1]).float().eval() if self.layers else None

    @torch.inference_mode()
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> SimpleNamespace:
        batch = _Batch(attention_mask)
        out = torch.zeros(batch.count * batch.length, self.words.shape[1])
        if len(batch.rows):
            out[batch.rows] = self._run(batch, input_ids, token_type_ids, self.layers)[0]
        return SimpleNamespace(last_hidden_state=out.view(batch.count, batch.length, -1))

    @torch.inference_mode()
    def first(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the first token's vector of every text, float32[B, H]; zero for a text without tokens.

        For heads that read nothing else. Of the last layer only what these vectors need is computed: everybody's keys and
        values in int8 as ever, the rest for the first tokens alone, and that in float32.
        """
        batch = _Batch(attention_mask)
        width = self.words.shape[1]
        out = torch.zeros(batch.count, width)
        owner = batch.text[batch.first]
        if self.last is None or not len(batch.rows):
            out[owner] = self.forward(input_ids, attention_mask, token_type_ids).last_hidden_state[owner, 0]
            return out
        from rivals.models import _int8_kernels as kernels

        hidden, codes, scale = self._run(batch, input_ids, token_type_ids, self.layers[:-1])
        asking, part, attention = hidden[batch.first], self.layers[-1].inputs, self.last.attention
        both = torch.zeros(batch.count * batch.longest, 2 * width)
        sums = part.product(codes, width)
        kernels.dequantise(sums, scale, part.scale[width:], part.bias[width:], batch.place, both.numpy())
        query = torch.zeros(batch.count, width)
        query[owner] = attention.self.query(asking)
        key, value = both.view(batch.count, batch.longest, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(
            query.view(batch.count, 1, self.heads, -1).transpose(1, 2), key, value, attn_mask=batch.bias
        )
        between = attention.output(mixed.reshape(batch.count, width)[owner], asking)
        out[owner] = self.last.output(self.last.intermediate(between), between)
        return out

    def _run(
        self, batch: _Batch, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None, layers: Sequence[_Layer]
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Return the vectors of all tokens after some layers, float32[n, H], and their codes and scales."""
        from rivals.models import _int8_kernels as kernels

        size, width = len(batch.rows), self.words.shape[1]
        hidden = self.words[input_ids.view(-1)[batch.rows]] + self.places[batch.position]
        hidden += self.kinds[0] if token_type_ids is None else self.kinds[token_type_ids.view(-1)[batch.rows]]
        state = hidden.numpy()
        codes, scale = torch.empty(size, width, dtype=torch.int8), np.empty(size, np.float32)
        joint = torch.zeros(batch.count * batch.longest, 3 * width)
        kernels.norm_quantise(state, self.norm.gain, self.norm.shift, self.norm.epsilon, codes.numpy(), scale)
        for layer in layers:
            part = layer.inputs
            kernels.dequantise(part(codes), scale, part.scale, part.bias, batch.place, joint.numpy())
            query, key, value = joint.view(batch.count, batch.longest, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=batch.bias)
            layer.finish(mixed.transpose(1, 2).reshape(-1, width).numpy(), batch.place, codes, scale, state)
        return hidden, codes, scale


class _Batch:
    """Where the tokens of a padded batch stand: without padding in the linear layers, padded and masked in attention."""

    def __init__(self, attention_mask: torch.Tensor) -> None:
        mask = attention_mask.bool()
        self.count, self.length = mask.shape
        self.rows = mask.view(-1).nonzero().view(-1)
        self.text, self.position = self.rows // max(self.length, 1), self.rows % max(self.length, 1)
        self.first = (self.position == 0).nonzero().view(-1)
        self.longest = self.length + -self.length % _STEP
        self.place = (self.text * self.longest + self.position).numpy()
        self.bias: torch.Tensor | None = None
        if len(self.rows) < self.count * self.longest:
            self.bias = torch.full((self.count, 1, 1, self.longest), -1e9)
            self.bias[:, 0, 0, : self.length].masked_fill_(mask, 0.0)


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield work(item) in order, as many items at a time as torch has threads, each item in one thread."""
    workers = min(torch.get_num_threads(), len(items))
    if workers <= 1:
        yield from map(work, items)
        return
    before = torch.get_num_threads()
    waiting: deque[Any] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
