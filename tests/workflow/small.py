"""A small slice of the embedded sample as files, a tiny model and short settings: a whole experiment in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.models.tiny import write_tiny_bert

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = """
candidates = 20
max_length = 48
seed = 3

[mining]
candidates = 20

[retriever]
epochs = 1
members = 2
batch_size = 8
learning_rate = 1e-3
max_query_tokens = 24
max_document_tokens = 40
evaluations = 2
precision = "float32"

[second_stage]
depth = 10
epochs = 2
"""


@dataclass(frozen=True)
class Small:
    """The files of a small experiment."""

    documents: Path
    pairs: Path
    config: Path
    model: Path

    @property
    def data(self) -> list[str]:
        """The options that name the data and the model."""
        return ["--documents", str(self.documents), "--pairs", str(self.pairs), "--model", str(self.model)]

    @property
    def train(self) -> list[str]:
        """The command that runs the whole experiment, without `--output`."""
        return ["train", *self.data, "--config", str(self.config), "--device", "cpu", "--quiet"]


def write_small(folder: Path, *, queries: dict[str, int] | None = None, documents: int = 120) -> Small:
    """Write documents.jsonl, pairs.jsonl, small.toml and a tiny BERT: a real slice of the sample with its splits."""
    from rivals.data import load_sample

    folder.mkdir(parents=True, exist_ok=True)
    sample = load_sample()
    known, rng = sample.judgements.positives, np.random.default_rng(7)
    pairs, used = [], []
    for split, count in (queries or {"train": 36, "dev": 10, "test": 14}).items():
        for row in sorted(rng.choice(sample.splits[split], count, replace=False).tolist()):
            for document in known.document[known.offsets[row] : known.offsets[row + 1]].tolist():
                used.append(document)
                pair = {
                    "query_id": sample.queries.ids[row],
                    "query": sample.queries.texts[row],
                    "document_id": sample.documents.ids[document],
                    "relevance": 1,
                    "split": split,
                }
                pairs.append(pair)
    others = np.setdiff1d(np.arange(len(sample.documents)), used)
    rows = sorted({*used, *rng.choice(others, max(documents - len(set(used)), 0), replace=False).tolist()})
    texts = [
        {"id": sample.documents.ids[row], "text": sample.documents.texts[row][:400], "topic": str(row % 3)}
        for row in rows
    ]
    for name, lines in (("documents", texts), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "small.toml").write_text(SETTINGS, encoding="utf-8")
    model = write_tiny_bert(folder / "model")
    return Small(folder / "documents.jsonl", folder / "pairs.jsonl", folder / "small.toml", model)


def environment() -> dict[str, str]:
    """What a started command sees: this checkout's code, no network, one thread."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }


def command(*words: str | Path) -> list[str]:
    """Return the words that start `rivals` in a process of its own."""
    return [sys.executable, "-m", "rivals", *map(str, words)]


def rivals(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line to its end."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=540, check=False
    )
