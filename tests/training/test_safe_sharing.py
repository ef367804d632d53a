"""Safe sharing: gates, paths, gradients, compacting and the stages of its training (paper 94's checks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.models.images import FeatureEncoder
from rivals.models.safe_sharing import SafeSharing
from rivals.training import LoopConfig, SupervisedObjective, fit
from rivals.training.safe_sharing import choose_gates, fit_safe
from tests.training.tiny import assert_same_weights, weights

X = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
Y = {"sum": X.sum(1, keepdim=True), "other": -3 * X[:, :1] * X[:, 1:2]}
LOOP = LoopConfig(epochs=12, learning_rate=0.02, evaluations=0, checkpoint_seconds=0)


def build(**options: Any) -> SafeSharing:
    def encoder(seed: int) -> nn.Module:
        return FeatureEncoder(5, 4, hidden=(6,), seed=seed)

    def decoders(seed: int) -> dict[str, nn.Module]:
        return {task: FeatureEncoder(4, 1, hidden=(), seed=seed + place) for place, task in enumerate(Y)}

    private = {task: encoder(place) for place, task in enumerate(Y)}
    if options.get("level") == "output":
        options["public_decoders"] = decoders(30)
    return SafeSharing(encoder(10), private, decoders(20), **options)


def error(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().mean()


def objectives(model: SafeSharing) -> dict[str, SupervisedObjective]:
    made = {}
    for task, wanted in Y.items():
        view = model.view(task)

        def score(view: nn.Module = view, wanted: Tensor = wanted) -> float:
            return -float(error(view(X), wanted))

        made[task] = SupervisedObjective(view, [X], [wanted], error, batch_size=16, validate=score)
    return made


@pytest.mark.parametrize("level", ["hidden", "output"])
def test_the_ends_of_the_gate_are_one_task_alone_and_hard_sharing(level: Any) -> None:
    model = build(level=level).eval()
    found = {}
    for path in ("private", "public"):
        with model.through(path):  # type: ignore[arg-type]
            found[path] = model(X)
    shared = model.public(X)
    for task in Y:
        after = model.public_decoders[task] if level == "output" else model.decoders[task]
        assert torch.equal(found["private"][task], model.decoders[task](model.private[task](X)))
        assert torch.equal(found["public"][task], after(shared))
    model.set_gates(dict.fromkeys(Y, 1e-9))
    torch.testing.assert_close(model(X), found["private"], atol=1e-5, rtol=1e-5)
    model.set_gates(dict.fromkeys(Y, 1 - 1e-7))
    torch.testing.assert_close(model(X), found["public"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(X, task="sum"), found["public"]["sum"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid2", "hard"])
def test_gates_begin_as_told_and_equal_encoders_make_them_idle(gate: Any) -> None:
    model = build(gate=gate, init=0.25)
    model.private["sum"].load_state_dict(model.public.state_dict())
    expected = model.decoders["sum"](model.public(X))
    torch.testing.assert_close(model(X, task="sum"), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.eval()(X, task="sum"), expected, atol=1e-5, rtol=1e-5)
    assert model.gates().tolist() == pytest.approx([0.0] * 2 if gate == "hard" else [0.25] * 2)
    even = build(gate=gate)
    assert even.gates().tolist() == ([0.0, 0.0] if gate == "hard" else [0.5, 0.5])  # sigmoid(u) = 0.5 is private


def test_gradients_reach_the_public_encoder_by_the_gate_and_private_ones_from_their_task() -> None:
    model = build()
    model.set_gates({"sum": 0.2, "other": 0.8})
    model.private["sum"].load_state_dict(model.public.state_dict())  # so that both paths have the same derivative
    model(X, task="sum").sum().backward()
    assert all(p.grad is None for p in model.private["other"].parameters())
    for shared, own in zip(model.public.parameters(), model.private["sum"].parameters(), strict=True):
        assert shared.grad is not None
        assert own.grad is not None
        torch.testing.assert_close(shared.grad * 4, own.grad, atol=1e-5, rtol=1e-4)
    assert model.gate_public.grad is not None
    assert model.gate_public.grad[1] == 0


@pytest.mark.parametrize("level", ["hidden", "output"])
@pytest.mark.parametrize("public", [(), ("sum",), ("sum", "other")])
def test_compact_predicts_the_same_with_fewer_parameters(level: Any, public: tuple[str, ...]) -> None:
    model = build(level=level, gate="hard").eval()
    model.set_gates({task: 0.9 if task in public else 0.1 for task in Y})
    small = model.compact()
    torch.testing.assert_close(small(X), model(X))
    torch.testing.assert_close(small(X, task="other"), model(X, task="other"))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert len(small.encoders) == len(Y) - len(public) + bool(public)


def test_hard_gates_draw_in_training_and_learn() -> None:
    torch.manual_seed(0)
    model = build(gate="hard")
    drawn = {tuple(model(X, task="sum").detach()[:2, 0].tolist()) for _ in range(40)}
    assert len(drawn) == 2
    error(model(X, task="sum"), Y["sum"]).backward()  # type: ignore[arg-type]
    assert model.gate_public.grad is not None
    assert bool(model.gate_public.grad[0] != 0)


@pytest.mark.parametrize("gate", ["softmax", "hard"])
def test_individual_stages_leave_no_task_below_its_own_model(gate: Any) -> None:
    start = weights(build(level="output", gate=gate))
    model = build(level="output", gate=gate)
    steps = (18, 18) if gate == "hard" else (15, 12)
    stopped = fit_safe(model, objectives(model), LOOP, strategy="individual", steps=steps)
    assert stopped.steps == 36
    assert model.gates().shape == (2,)
    if gate == "hard":
        made = objectives(model)
        model.eval()
        for task in Y:
            with model.through("private"):
                own = made[task].evaluate()
            assert made[task].evaluate() >= own
    for name, value in weights(model).items():
        if name.startswith(("private.", "decoders.")) and value.ndim > 1:
            assert not torch.equal(value, start[name])


def test_stages_train_their_own_parts_only() -> None:
    model = build(level="output")
    before = weights(model)
    seen: list[dict[str, Tensor]] = []
    tasks = objectives(model)
    inner = tasks["sum"].loss

    def watched(*given: Any) -> Tensor:
        seen.append(weights(model))
        return inner(*given)

    tasks["sum"].loss = watched  # type: ignore[method-assign]
    fit_safe(model, tasks, LOOP, strategy="individual", steps=(12, 12))
    states = [before, seen[12], seen[24], weights(model)]
    for stage, learnt in enumerate((("private.", "decoders."), ("public.", "public_decoders."), ("gate_",))):
        for name in before:
            same = torch.equal(states[stage][name], states[stage + 1][name])
            assert same != name.startswith(learnt), (stage, name)


@pytest.mark.parametrize("gate", ["softmax", "hard"])
def test_a_useless_public_encoder_is_left_out(gate: Any) -> None:
    model = build(level="output", gate=gate)
    with torch.no_grad():
        for parameter in model.public.parameters():
            parameter.normal_(std=5.0)
    config = LoopConfig(epochs=60, learning_rate=0.02, evaluations=0)
    steps = (179, 1) if gate == "hard" else (90, 1)
    fit_safe(model, objectives(model), config, strategy="individual", steps=steps, gate_rate=20.0)
    assert (model.gates() < 0.15).all()


@pytest.mark.parametrize("strategy", ["joint", "individual"])
def test_training_resumes_exactly(strategy: Any, tmp_path: Path) -> None:
    def run(folder: Path | None, stop: int = 0, resume: bool = False) -> SafeSharing:
        model = build(level="output")
        tasks = objectives(model)
        inner, calls = tasks["other"].loss, [0]

        def counted(*given: Any) -> Tensor:
            calls[0] += 1
            if calls[0] == stop:
                raise KeyboardInterrupt
            return inner(*given)

        tasks["other"].loss = counted  # type: ignore[method-assign]
        fit_safe(model, tasks, LOOP, strategy=strategy, folder=folder, resume=resume)
        return model

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=17)
    assert_same_weights(weights(whole), weights(run(tmp_path, resume=True)))


def test_joint_training_moves_gates_and_lowers_every_loss() -> None:
    model = build()
    before = {task: made.evaluate() for task, made in objectives(model).items()}
    fit_safe(model, objectives(model), LOOP)
    assert all(made.evaluate() > before[task] for task, made in objectives(model).items())
    assert bool((model.gates() != 0.5).all())


def test_a_single_task_alone_equals_its_private_path() -> None:
    """Stage one is what training the task's own encoder and decoder gives."""
    model = build(level="output", gate="hard")
    own = nn.Sequential(*build(level="output").private.values())[0]
    head = build(level="output").decoders["sum"]
    single = SupervisedObjective(nn.Sequential(own, head), [X], [Y["sum"]], error, batch_size=16)
    fit(single, LoopConfig(max_steps=18, epochs=12, learning_rate=0.02, evaluations=0, clip=1e6, weight_decay=0.0))
    config = LoopConfig(epochs=12, learning_rate=0.02, evaluations=0, clip=1e6, weight_decay=0.0)
    fit_safe(model, objectives(model), config, strategy="individual", steps=(18, 18))
    with model.through("private"):
        torch.testing.assert_close(model(X, task="sum"), single.model(X), atol=1e-5, rtol=1e-4)
    assert choose_gates(model, objectives(model), margin=1e9) == dict.fromkeys(Y, False)


def test_mistakes_are_told() -> None:
    part = {"a": nn.Linear(2, 3)}
    for options, message in (
        ({"decoders": {"b": nn.Linear(3, 1)}}, "give the same"),
        ({"level": "output"}, "needs public_decoders"),
        ({"gate": "soft"}, "softmax, sigmoid2 or hard"),
        ({"init": 1.0}, r"init in \(0, 1\)"),
        ({"tau": 0.0}, "tau above 0"),
    ):
        with pytest.raises(RivalsError, match=message):
            SafeSharing(nn.Linear(2, 3), part, **{"decoders": {"a": nn.Linear(3, 1)}, **options})  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="they must agree"):
        SafeSharing(nn.Linear(2, 4), part, {"a": nn.Linear(3, 1)})(torch.zeros(1, 2))
    model = build()
    with pytest.raises(RivalsError, match="'what' is not known"):
        model(X, task="what")
    with pytest.raises(RivalsError, match="mixes both paths"):
        model.compact()
    with pytest.raises(RivalsError, match="cannot be averaged"):
        fit_safe(model, objectives(model), LOOP, strategy="individual")
    with pytest.raises(RivalsError, match="set evaluations to 0"):
        fit_safe(model, objectives(model), LoopConfig(), strategy="individual")
    with pytest.raises(RivalsError, match="train longer"):
        fit_safe(build(gate="hard"), objectives(build()), LoopConfig(max_steps=1, evaluations=0), strategy="individual")
    with pytest.raises(RivalsError, match="objectives were given for"):
        fit_safe(model, {}, LOOP)
