"""Context rankers: the recorded vectors of paper 21, a plain reference of every formula, and the checks of its card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.models.list_ranker import AnnotatedNorm, ContextRanker

#: Reference name -> ours, for what does not depend on the layer.
NAMES = {
    "encoder.norm.a_2": "norm.scale",
    "encoder.norm.b_2": "norm.shift",
    "output_layer.w_1.weight": "output.weight",
    "output_layer.w_1.bias": "output.bias",
}
LINEARS = ("query", "key", "value", "out")


def our_name(name: str) -> str:
    """Map a parameter name of allRank onto `ContextRanker`."""
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    if parts[0] == "input_layer":
        return f"fc.{3 * int(parts[2])}.{parts[3]}"
    block, rest = f"blocks.{parts[2]}", parts[3:]
    if rest[0] == "self_attn":
        return f"{block}.{LINEARS[int(rest[2])]}.{rest[3]}"
    if rest[0] == "feed_forward":
        return f"{block}.{'wide' if rest[1] == 'w_1' else 'narrow'}.{rest[2]}"
    return f"{block}.norms.{rest[1]}.{'scale' if rest[3] == 'a_2' else 'shift'}"


def ranker_cases(vectors: Path) -> list[dict[str, Any]]:
    (path,) = vectors.glob("021-*.json")
    return [case for case in json.loads(path.read_text())["cases"] if "state" in case["inputs"]]


def test_recorded_vectors(vectors: Path) -> None:
    cases = ranker_cases(vectors)
    assert cases
    for case in cases:
        params, inputs = case["params"], case["inputs"]
        activation = params["output_activation"]
        ranker = ContextRanker(
            params["n_features"],
            fc=(params["d_model"],),
            n_layers=params["n_layers"],
            heads=params["heads"],
            d_ff=params["d_ff"],
            dropout=0.0,
            d_output=params["d_output"],
            output_activation=None if activation is None else activation.lower(),
        ).double()
        ranker.load_state_dict({our_name(k): torch.tensor(v, dtype=torch.float64) for k, v in inputs["state"].items()})
        x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
        mask = torch.tensor(inputs["mask"])
        scores = ranker.score(x, mask)
        scores[mask].sum().backward()
        torch.testing.assert_close(scores, torch.tensor(case["output"], dtype=torch.float64), rtol=1e-9, atol=1e-12)
        expected = torch.tensor(case["grad"]["x"], dtype=torch.float64)
        torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-12)


def plain(ranker: ContextRanker, x: Tensor, indices: Tensor | None) -> Tensor:
    """One list without padding, [C, F] -> outputs [C, d_output], written out item by item from the card."""
    state = dict(ranker.state_dict())

    def linear(name: str, value: Tensor) -> Tensor:
        return state[f"{name}.weight"] @ value + state[f"{name}.bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        mean = value.mean()
        deviation = ((value - mean) ** 2).sum().div(len(value) - 1).sqrt()
        return state[f"{name}.scale"] * (value - mean) / (deviation + 1e-6) + state[f"{name}.shift"]

    items = list(x)
    if "input_norm.scale" in state:
        items = [norm("input_norm", item) for item in items]
    for layer in range(len(ranker.fc) // 3):
        items = [torch.relu(linear(f"fc.{3 * layer}", item)) for item in items]
    width = len(items[0])
    if indices is not None:
        for place, index in enumerate(indices.tolist()):
            angles = [index / 10000 ** (2 * (i // 2) / width) for i in range(width)]
            code = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)]
            items[place] = math.sqrt(width) * items[place] + torch.tensor(code, dtype=torch.float64)
    for number, block in enumerate(ranker.blocks):
        name, heads = f"blocks.{number}", block.heads  # type: ignore[union-attr]
        size = width // heads  # type: ignore[operator]
        normed = [norm(f"{name}.norms.0", item) for item in items]
        q, k, v = ([linear(f"{name}.{part}", item) for item in normed] for part in ("query", "key", "value"))
        after = []
        for i, item in enumerate(items):
            parts = []
            for head in range(heads):  # type: ignore[arg-type]
                cut = slice(head * size, (head + 1) * size)
                logits = torch.stack([q[i][cut] @ k[j][cut] / math.sqrt(size) for j in range(len(items))])
                share = logits.exp() / logits.exp().sum()
                parts.append(sum(share[j] * v[j][cut] for j in range(len(items))))
            after.append(item + linear(f"{name}.out", torch.cat(parts)))  # type: ignore[arg-type]
        items = [
            item + linear(f"{name}.narrow", torch.relu(linear(f"{name}.wide", norm(f"{name}.norms.1", item))))
            for item in after
        ]
    if len(ranker.blocks):
        items = [norm("norm", item) for item in items]
    return torch.stack([torch.sigmoid(linear("output", item)) for item in items])


def make(**options: Any) -> ContextRanker:
    torch.manual_seed(0)
    sizes = {"fc": (6,), "fc_activation": "relu", "n_layers": 2, "heads": 2, "d_ff": 5, "output_activation": "sigmoid"}
    ranker = ContextRanker(4, **{**sizes, **options}).double().eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return ranker


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d_output": 3},
        {"n_layers": 0, "d_output": 2},
        {"positional": "fixed", "fc": (6, 4)},
        {"input_norm": True, "heads": 3, "d_output": 4},
        {"fc": (), "heads": 1},
    ],
)
def test_against_a_plain_reference(options: dict[str, Any]) -> None:
    ranker = make(**options)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False], [False, False, True, False, False]])
    indices = torch.tensor([[3, 0, 1, 4, 2]] * 3) if "positional" in options else None
    outputs = ranker(x, mask, indices)
    scores = ranker.score(x, mask, indices)
    assert scores.shape == (3, 5)
    for row in range(3):
        there = mask[row]
        expected = plain(ranker, x[row][there], None if indices is None else indices[row][there])
        found = outputs[row][there].reshape(len(expected), -1)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(scores[row][there], expected.sum(-1), rtol=1e-9, atol=1e-12)
    assert (scores[~mask] == 0).all()
    scores.sum().backward()
    for parameter in ranker.parameters():
        place = tuple(0 for _ in parameter.shape)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter[place] += step
                values.append(float(ranker.score(x, mask, indices).sum()))
                parameter[place] -= step
        slope = 0.0 if parameter.grad is None else float(parameter.grad[place])
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("positional", [None, "fixed"])
def test_permuting_items_permutes_scores(positional: Any) -> None:
    ranker = make(positional=positional, d_output=2)
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mask = torch.tensor([[True] * 7, [True, True, False, True, False, True, False]])
    indices = torch.arange(7).expand(2, 7)
    order = torch.tensor([4, 2, 0, 6, 5, 1, 3])
    scores = ranker.score(x, mask, indices)
    permuted = ranker.score(x[:, order], mask[:, order], indices[:, order])
    torch.testing.assert_close(permuted, scores[:, order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"fc": ()}, {"input_norm": True}, {"norm": "torch"}])
def test_padding_anywhere_changes_nothing(options: dict[str, Any]) -> None:
    ranker = make(**options)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 4, 4, generator=generator, dtype=torch.float64)
    scores = ranker.score(x)
    wide = torch.full((1, 7, 4), float("nan"), dtype=torch.float64)
    real = torch.tensor([1, 2, 4, 6])
    wide[:, real] = x
    mask = torch.zeros(1, 7, dtype=torch.bool)
    mask[:, real] = True
    wide.requires_grad_()
    padded = ranker.score(wide, mask)
    torch.testing.assert_close(padded[:, real], scores, rtol=0, atol=1e-12)
    padded.sum().backward()
    assert wide.grad is not None
    assert (wide.grad[~mask] == 0).all()
    assert wide.grad[mask].isfinite().all()
    assert all(p.grad.isfinite().all() for p in ranker.parameters() if p.grad is not None)


@pytest.mark.filterwarnings("ignore:std")  # of no item at all
def test_one_item_and_none() -> None:
    ranker = make()
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mask = torch.tensor([[False, True, False], [False, False, False]])
    scores = ranker.score(x, mask)
    torch.testing.assert_close(scores[0, 1], ranker.score(x[:1, 1:2])[0, 0], rtol=0, atol=1e-12)
    assert (scores[1] == 0).all()
    scores.sum().backward()
    assert all(p.grad.isfinite().all() for p in ranker.parameters() if p.grad is not None)
    assert ranker.score(torch.zeros(0, 3, 4, dtype=torch.float64)).shape == (0, 3)


def test_without_layers_items_are_scored_alone() -> None:
    linear = make(fc=(), n_layers=0, output_activation=None)
    x, y = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    zero = linear.score(torch.zeros_like(x))
    torch.testing.assert_close(
        linear.score(2 * x - 3 * y) - zero, 2 * (linear.score(x) - zero) - 3 * (linear.score(y) - zero)
    )
    for n_layers, changes in ((0, False), (1, True)):
        ranker = make(n_layers=n_layers)
        other = x.clone()
        other[0, 0] += 1
        moved = (ranker.score(other) - ranker.score(x))[0].abs()
        assert moved[0] > 1e-6
        assert bool((moved[1:] > 1e-9).all()) == changes
        assert bool((moved[1:] > 0).any()) == changes


def test_the_norm_is_the_references() -> None:
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = AnnotatedNorm(2).double()(x)
    torch.testing.assert_close(
        found, torch.tensor([-0.7071057812, 0.7071057812], dtype=torch.float64), rtol=0, atol=1e-10
    )
    constant = torch.full((1, 3), 2.0, requires_grad=True)
    AnnotatedNorm(3)(constant).sum().backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()


def test_initial_weights_are_xavier_uniform() -> None:
    torch.manual_seed(0)
    ranker = ContextRanker(10, fc=(64,), n_layers=1, d_ff=128)
    for name, parameter in ranker.named_parameters():
        if parameter.ndim == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert parameter.abs().max() <= bound, name
            if parameter.numel() > 500:
                assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name


def test_float32_and_bfloat16_stay_in_their_type() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        ranker = make(positional="fixed").to(dtype)
        scores = ranker.score(torch.zeros(1, 3, 4, dtype=dtype), indices=torch.arange(3)[None])
        assert scores.dtype == dtype


def test_dropout_acts_in_training_only() -> None:
    ranker = make(dropout=0.5)
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    assert torch.equal(ranker.score(x), ranker.score(x))
    ranker.train()
    assert not torch.equal(ranker.score(x), ranker.score(x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 4}, "heads do not divide"),
        ({"fc": (0,)}, "positive"),
        ({"n_layers": -1}, "negative number of layers"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"output_activation": "swish"}, "activation is 'swish'"),
        ({"fc": (1,), "heads": 1}, "at least 2"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RivalsError, match=words):
        make(**options)


def test_bad_inputs() -> None:
    with pytest.raises(RivalsError, match="the mask must be"):
        make().score(torch.zeros(2, 3, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(RivalsError, match="indices"):
        make(positional="fixed").score(torch.zeros(2, 3, 4, dtype=torch.float64))
