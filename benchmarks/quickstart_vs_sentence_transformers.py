"""The embedded sample the plain way of sentence-transformers: mine, train with MNRL, measure on test.

    python -m benchmarks.quickstart_vs_sentence_transformers [--seeds 0 1 2] [--batch 8] [--json FILE]

What is compared: `mine_hard_negatives` over all answers (one negative, relative margin 5 %, the rest default) and
`SentenceTransformerTrainer` with `MultipleNegativesRankingLoss` and default arguments: batches of 8, learning rate 5e-5
falling linearly, no warm-up, float32. It sees as many (question, answer) pairs as `rivals quickstart` does by default:
one a training question and pass. Nothing is written outside a temporary folder and nothing is read from the network.

The seconds are those of mining and training, without imports, loading the model and evaluation. For ours take the
seconds of the stages "mining" and "training" from a run folder's state.json and nDCG@10 of "retriever" from its
metrics.json; whole-command time is the stricter comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks._machine import cores, describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Train once a seed and print the result of all as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quickstart_vs_sentence_transformers",
        description="Train sentence-transformers on the embedded sample by its defaults; print seconds and nDCG@10.",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="one run each (0)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pairs a batch (8, the trainer's default)")
    parser.add_argument("--negatives", type=int, default=1, metavar="N", help="mined negatives a pair (1)")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a name or a folder (all-MiniLM-L6-v2)")
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="pairs of a pass (one a training question); fewer only to try it out, without figures of quality",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    options = parser.parse_args(arguments)
    if min(options.batch, options.negatives, options.pairs or 1, options.threads or 1) < 1:
        parser.error("--batch, --negatives, --pairs and --threads must be 1 or more")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"the folder of {options.json} does not exist")
    with tempfile.TemporaryDirectory(prefix="rivals-benchmark-") as folder:
        _keep_inside(folder)
        try:
            import datasets  # noqa: F401
            import sentence_transformers  # noqa: F401
        except ImportError as error:
            parser.error(f"{error.name} is not installed; pip install sentence-transformers datasets accelerate")
        import torch

        torch.set_num_threads(options.threads or cores())
        machine = describe()
        with redirect_stdout(sys.stderr):  # the trainer prints its logs
            runs = [_run(options, seed, Path(folder) / str(seed)) for seed in options.seeds]
    result = {
        "machine": machine,
        "threads": options.threads or cores(),
        "settings": {
            "batch": options.batch,
            "negatives": options.negatives,
            "learning_rate": runs[0]["learning_rate"],
            "precision": "float32",
            "pairs_seen": runs[0]["pairs_seen"],
            "model": Path(options.model).name,
        },
        "runs": runs,
        "mean": {
            key: mean(run[key] for run in runs)
            for key in ("seconds", "ndcg@10_untrained", "ndcg@10")
            if runs[0][key] is not None
        },
    }
    text = json.dumps(result, indent=2, allow_nan=False)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _keep_inside(folder: str) -> None:
    """Keep caches in a temporary folder, and telemetry and the network out; to be called before the peer's import."""
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=folder, HF_HUB_DISABLE_TELEMETRY="1", WANDB_MODE="disabled",
        WANDB_DIR=folder, TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error",
    )  # fmt: skip


def _run(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """Mine, train and measure once."""
    from datasets import Dataset as Table
    from datasets import disable_progress_bars
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import mine_hard_negatives
    from transformers import set_seed

    from rivals.data import load_sample
    from rivals.models import resolve_model
    from rivals.workflow.config import ExperimentConfig

    disable_progress_bars()
    set_seed(seed)
    sample = load_sample()
    train = sample.split("train")
    known = train.judgements.positives
    texts, questions = sample.documents.full_texts, train.queries.full_texts
    pairs = Table.from_dict(
        {"anchor": [questions[row] for row in known.query], "positive": [texts[row] for row in known.document]}
    )
    if options.pairs is not None:
        pairs = pairs.select(range(min(len(pairs), 2 * options.pairs)))
    model = SentenceTransformer(str(resolve_model(options.model)), device="cpu")
    untrained = _ndcg(model) if options.pairs is None else None
    started = time.perf_counter()
    mined = mine_hard_negatives(
        pairs,
        model,
        corpus=texts if options.pairs is None else texts[: 4 * options.pairs],
        num_negatives=options.negatives,
        relative_margin=0.05,
        output_format="n-tuple",
        verbose=False,
    )
    mining = time.perf_counter() - started
    passes = ExperimentConfig().retriever.epochs
    wanted = options.pairs or len(questions)
    chosen = mined.shuffle(seed=seed).select(range(min(wanted, len(mined))))
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=options.batch,
        max_steps=passes * -(-wanted // options.batch),  # passes over the pairs, gone on with if mining gave fewer
        seed=seed,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=settings, train_dataset=chosen, loss=MultipleNegativesRankingLoss(model)
    )
    started = time.perf_counter()
    trainer.train()
    training = time.perf_counter() - started
    return {
        "seed": seed,
        "pairs_mined": len(mined),
        "pairs_seen": passes * wanted,
        "steps": settings.max_steps,
        "learning_rate": settings.learning_rate,
        "seconds_mining": mining,
        "seconds_training": training,
        "seconds": mining + training,
        "ndcg@10_untrained": untrained,
        "ndcg@10": _ndcg(model) if options.pairs is None else None,
    }


def _ndcg(model: Any) -> float:
    """Return nDCG@10 on the test questions, ranked among all answers by the cosine of the model's vectors."""
    import numpy as np

    from rivals.data import load_sample
    from rivals.measures import ndcg

    test = load_sample().split("test")
    queries, documents = (
        model.encode(side.full_texts, normalize_embeddings=True) for side in (test.queries, test.documents)
    )
    known = test.judgements.positives
    relevance = np.zeros((len(test.queries), len(test.documents)), np.float32)
    relevance[known.query, known.document] = known.relevance
    return float(ndcg(queries @ documents.T, relevance, k=10).mean())


if __name__ == "__main__":
    sys.exit(main())
