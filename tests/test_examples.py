"""The examples do what they say."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import write_tiny_bert

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> dict[str, Any]:
    """Return what an example defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_a_loss_in_a_torch_loop() -> None:
    measured = example("torch_loop")["main"]()
    assert measured[-1] > max(0.95, measured[0])


def test_log_probabilities_into_a_preference_loss() -> None:
    shares = example("preference_log_probs")["main"](steps=4)
    assert len(shares) == 4
    assert shares[-1] > 0.8


def test_log_probabilities_are_those_of_the_model() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_positions=8, n_embd=4, n_layer=1, n_head=1)).eval()
    tokens = torch.randint(0, 7, (3, 2, 5), generator=torch.Generator().manual_seed(0))
    completion = torch.tensor([False, False, True, True, True]).expand(3, 2, 5)
    found = example("preference_log_probs")["log_probs"](model, tokens, completion)
    for pair in range(3):
        for text in range(2):
            logits = model(tokens[pair, text][None]).logits[0].log_softmax(-1)
            expected = sum(logits[t - 1, tokens[pair, text, t]] for t in (2, 3, 4))
            torch.testing.assert_close(found[pair, text], expected)


def test_a_loss_inside_the_trainer_of_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setitem(os.environ, switch, "1")
    define = example("sentence_transformers_loss")
    model = write_tiny_bert(tmp_path / "tiny")
    log = define["main"](str(model), steps=2)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_its_loss_is_the_library_s(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from rivals.losses import in_batch_info_nce_loss

    define = example("sentence_transformers_loss")
    encoder = SentenceTransformer(str(write_tiny_bert(tmp_path / "tiny")), device="cpu").eval()
    columns = list(define["PAIRS"].values())
    features = [encoder.tokenize(column) for column in columns]
    found = define["InBatch"](encoder)(features, None)
    queries, documents = (encoder.encode(column, convert_to_tensor=True) for column in columns)
    expected = in_batch_info_nce_loss(queries.clone(), documents.clone(), temperature=0.05, margin=0.1)
    assert float(found.detach()) == pytest.approx(float(expected), abs=1e-4)


def test_cached_gradients_in_a_lightning_style_loop() -> None:
    import torch

    define = example("lightning_loop")
    before, after = define["main"]()
    assert after > max(0.9, before)
    module, batch = define["TwoTowers"](chunk=3), define["data"](10, 5)
    torch.manual_seed(1)
    (module.training_step(batch) / 4).backward()
    cached = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    torch.manual_seed(1)
    vectors = [
        torch.cat([tower(rows) for rows in side.split(3)])
        for tower, side in zip((module.query, module.document), batch, strict=True)
    ]
    (define["in_batch_info_nce_loss"](*vectors, temperature=0.1) / 4).backward()
    for one, parameter in zip(cached, module.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_cached_gradients_inside_the_trainer_of_sentence_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout the trained weights are those of the loss in one piece."""
    import torch
    from sentence_transformers import SentenceTransformer

    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setitem(os.environ, switch, "1")
    cached = example("sentence_transformers_cached")
    model = SentenceTransformer(str(write_tiny_bert(tmp_path / "tiny")))
    log = cached["main"](str(tmp_path / "tiny"), steps=2)
    assert len([entry for entry in log if "loss" in entry]) == 2
    columns = [model.tokenize(cached["PAIRS"][name]) for name in ("query", "document")]
    loss = cached["in_batch_info_nce_loss"]
    model.eval()
    cached["Cached"](model, loss, chunk=3)(columns, torch.zeros(4)).backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    loss(*(model(dict(column))["sentence_embedding"] for column in columns)).backward()
    expected = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_sharded_weights_give_the_losses_and_the_model_of_one_process(tmp_path: Path) -> None:
    """Two real processes over gloo against one: the same losses, and the same weights in the folder they write."""
    folder = write_tiny_bert(tmp_path / "tiny")
    alone = example("fsdp_loop")["main"](str(folder), steps=3, save=str(tmp_path / "one"))
    options = json.dumps({"model": str(folder), "steps": 3, "save": str(tmp_path / "two")})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(EXAMPLES / "fsdp_loop.py"), options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [
        json.loads(found) for found in re.findall(r"\[[^\]]*\]", done.stdout)
    ]  # lines of two processes may run together
    assert len(told) == 2
    assert told[0] == told[1] == pytest.approx(alone, rel=1e-5)
    from rivals.models import Encoder

    one, two = (Encoder.load(tmp_path / name, device="cpu", dtype="float32").state_dict() for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
