"""Train a small encoder in processes that are killed, and once in one that is not; run by test_loop.py.

`python killed.py FOLDER KILLS`: every training is a forked child of this process, which only imports and waits, so a start costs
no import time and the kill signals come at random times of the training itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path


def train(folder: Path, name: str) -> None:
    """Train to the end, from the newest checkpoint if there is one, and write weights and history."""
    import numpy as np
    from safetensors.torch import save_file

    from rivals.data import Run
    from rivals.models import Encoder
    from rivals.negatives import Uniform
    from rivals.retrieve import Dense
    from rivals.training import LoopConfig, Negatives, Refresh, RetrieverConfig, train_retriever
    from tests.training.tiny import small_sample

    train, dev = small_sample(64, 10)
    rng = np.random.default_rng(0)
    document = np.concatenate([rng.permutation(len(train.documents))[:6] for _ in range(len(train.queries))])
    offsets = np.arange(len(train.queries) + 1) * 6
    run = Run.build(train.queries, train.documents, offsets, document, rng.random(len(document)), scorer="dense")
    encoder = Encoder.load(folder / "start", device="cpu", dtype="float32")
    loop = LoopConfig(
        epochs=4, learning_rate=1e-3, evaluations=4, checkpoint_seconds=0, precision="float32", accumulate=2
    )
    config = RetrieverConfig(batch_size=8, loop=loop, dropout=0.1, max_document_tokens=24, max_query_tokens=16)
    negatives = Negatives(run, Uniform(1))

    def mine(rows: np.ndarray) -> Run:
        return Dense(encoder, train.documents, show_progress=False)(train.take(rows), 6)

    result = train_retriever(
        encoder,
        train,
        config,
        negatives=negatives,
        regime=Refresh(negatives, mine, model=encoder, every=5, lag=1, chunks=2),
        dev=dev,
        folder=folder / name,
        resume=True,
    )
    save_file(encoder.state_dict(), folder / f"{name}.safetensors")
    history = {"losses": result.losses, "scores": result.scores, "best": result.best_step, "steps": result.steps}
    (folder / f"{name}.json").write_text(json.dumps(history), encoding="utf-8")


def start(folder: Path, name: str) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train(folder, name)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    import torch
    import transformers.models.bert.modeling_bert

    import rivals.models
    import rivals.training.retriever
    from rivals.data.sample import load_sample

    assert transformers.models.bert.modeling_bert is not None
    assert rivals.models is not None
    assert rivals.training.retriever is not None
    torch.set_num_threads(1)
    load_sample()
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    began = time.monotonic()
    assert os.waitpid(start(folder, "whole"), 0)[1] == 0
    seconds = time.monotonic() - began
    delays = random.Random(5)
    told = []
    for _ in range(kills):
        child = start(folder, "killed")
        time.sleep(seconds * delays.uniform(0.05, 0.4))
        found = [int(path.name[5:]) for path in (folder / "killed").glob("step-*")]
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told.append(max(found, default=0))
    assert os.waitpid(start(folder, "killed"), 0)[1] == 0
    print(json.dumps({"killed_at": told}))


if __name__ == "__main__":
    main()
