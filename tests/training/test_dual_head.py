"""Two heads: what evaluation gives, who gets which gradient, alignment, folders, training (paper 101's checks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.errors import ModelError, RivalsError
from rivals.losses import align_gradients
from rivals.models.dual_head import DualHead
from rivals.models.encoder import Encoder
from rivals.models.images import FeatureEncoder
from rivals.training import CachedGradients, LoopConfig, Plain, fit
from rivals.training.dual_head import AlignedGradients, DualHeadObjective
from tests.models.tiny import write_tiny_bert
from tests.training.tiny import assert_same_weights, weights

ROWS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.eye(3)[(ROWS[:, 0] > 0).long() + (ROWS[:, 1] > 0).long()]
TEACHER = 3 * LABELS - 1 + 0.3 * torch.randn(24, 3, generator=torch.Generator().manual_seed(1))


def objective(auxiliary: Any = "linear", **options: Any) -> DualHeadObjective:
    model = DualHead(FeatureEncoder(4, 6, hidden=(8,), seed=1), 3, auxiliary=auxiliary, hidden=5, seed=2)
    return DualHeadObjective(model, [ROWS], [LABELS], TEACHER, batch_size=8, chunk=3, **options)


def gradients(made: DualHeadObjective, executor: Any) -> dict[str, torch.Tensor]:
    made.model.zero_grad()
    executor.backward(made, made.batches(0)[0], torch.Generator(), 1.0)
    return {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_evaluation_is_the_main_head_alone(kind: Any) -> None:
    model = objective(kind).model
    main, auxiliary = model(ROWS)
    assert auxiliary.shape == (24, 3)
    torch.testing.assert_close(model.eval()(ROWS), main)


def test_each_loss_reaches_its_own_head_and_both_the_backbone() -> None:
    made = objective()
    batch = made.batches(0)[0]
    for name, own, other in (("main", "main.", "auxiliary."), ("auxiliary", "auxiliary.", "main.")):
        made.model.zero_grad()
        made.task_losses(batch, torch.Generator())[name].backward()
        reached = {n for n, p in made.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert any(n.startswith(own) for n in reached)
        assert any(n.startswith("backbone.") for n in reached)
        assert not any(n.startswith(other) for n in reached)


def test_the_executors_agree_where_nothing_is_aligned() -> None:
    made = objective(alpha=0.3)
    plain, cached = gradients(made, Plain()), gradients(made, CachedGradients())
    assert plain.keys() == cached.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, cached[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("scope", ["shared", "all"])
def test_what_opposes_the_main_gradient_is_taken_out(scope: Any) -> None:
    made = objective()
    made.targets[-1] = -TEACHER  # a teacher that says the opposite
    alone = {}
    for name, weight in (("main", (1.0, 0.0)), ("auxiliary", (0.0, 1.0))):
        made.gamma, made.alpha = weight
        alone[name] = {n: g for n, g in gradients(made, Plain()).items() if bool(g.any())}
    made.gamma = made.alpha = 1.0
    shared = [n for n in alone["main"] if n in alone["auxiliary"]]
    product = sum(float((alone["main"][n] * alone["auxiliary"][n]).sum()) for n in shared)
    assert product < 0
    found, expected = (
        gradients(made, AlignedGradients(scope)),
        align_gradients(alone["main"], alone["auxiliary"], scope=scope),
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    assert (
        sum(float((found[n] * alone["main"][n]).sum()) for n in alone["main"])
        >= sum(float(alone["main"][n].square().sum()) for n in alone["main"]) - 1e-5
    )


@pytest.mark.parametrize("executor", [Plain(), CachedGradients(), AlignedGradients()])
def test_it_learns_and_resumes_exactly(executor: Any, tmp_path: Path) -> None:
    def accuracy(model: DualHead) -> float:
        return float((model(ROWS).argmax(1) == LABELS.argmax(1)).float().mean())  # type: ignore[union-attr]

    config = LoopConfig(epochs=30, learning_rate=0.02, evaluations=0, checkpoint_seconds=0)
    whole = objective()
    fit(whole, config, executor=executor)
    assert accuracy(whole.model) > 0.9

    class Killed(DualHeadObjective):
        calls = 0

        def _rows(self, batch: Any) -> Any:
            self.calls += 1
            if self.calls == 40:
                raise KeyboardInterrupt
            return super()._rows(batch)

    first = objective()
    killed = Killed(first.model, [ROWS], [LABELS], TEACHER, batch_size=8, chunk=3)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, config, executor=executor, folder=tmp_path)
    resumed = objective()
    fit(resumed, config, executor=executor, folder=tmp_path, resume=True)
    assert_same_weights(weights(whole.model), weights(resumed.model))


def test_folders_come_back_with_and_without_the_second_head(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_bert(tmp_path / "tiny"), device="cpu", dtype="float32")
    ids, mask = encoder.tokenize(["a cat", "flu virus"]).pad(np.arange(2))
    for place, model in enumerate((DualHead(encoder, 3, auxiliary="mlp"), objective("mlp").model)):
        inputs = (ids, mask) if place == 0 else (ROWS,)
        model.save(tmp_path / f"both{place}")
        back = DualHead.load(tmp_path / f"both{place}", device="cpu", dtype="float32")
        assert_same_weights(weights(model.main), weights(back.main))
        assert model.auxiliary is not None
        assert back.auxiliary is not None
        assert_same_weights(weights(model.auxiliary), weights(back.auxiliary))
        expected = model.eval()(*inputs)
        torch.testing.assert_close(back(*inputs), expected)
        model.save(tmp_path / f"one{place}", keep_auxiliary=False)
        alone = DualHead.load(tmp_path / f"one{place}", device="cpu", dtype="float32")
        torch.testing.assert_close(alone(*inputs), expected)
        assert alone.auxiliary is None
        with pytest.raises(RivalsError, match="without its auxiliary head"):
            alone.train()(*inputs)
    (tmp_path / "one1" / "rivals_dual_head.json").write_text('{"backbone": "small", "outputs": 4, "auxiliary": null}')
    with pytest.raises(ModelError, match="heads do not fit"):
        DualHead.load(tmp_path / "one1")


def test_mistakes_are_told() -> None:
    with pytest.raises(RivalsError, match="gamma and alpha"):
        objective(alpha=-1)
    with pytest.raises(RivalsError, match=r"finite logits \[N, 3\]"):
        DualHeadObjective(objective().model, [ROWS], [LABELS], TEACHER[:, :2])
    with pytest.raises(RivalsError, match="auxiliary is 'deep'"):
        objective("deep")
    with pytest.raises(RivalsError, match="heads need"):
        DualHead(torch.nn.Linear(2, 2), 3)
    with pytest.raises(RivalsError, match="two rows"):
        objective("mlp").model(ROWS[:1])
    with pytest.raises(RivalsError, match="scope is 'some'"):
        AlignedGradients("some")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="has one"):
        AlignedGradients().backward(object(), None, torch.Generator(), 1.0)
    model = torch.nn.Linear(2, 2)
    model.dimension = 2  # type: ignore[assignment]
    with pytest.raises(RivalsError, match="has no folder"):
        DualHead(model, 3).save("nowhere")
