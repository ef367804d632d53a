"""Which negatives should be the default? Every mining rule on four data sets, with frozen vectors and with a trained encoder.

    python -m papers.studies.mining_rules --encoder --seeds 3   # fine-tunes MiniLM (hours of CPU in all)
    python -m papers.studies.mining_rules --seeds 5             # residual maps of frozen vectors (minutes)
    python -m papers.studies.mining_rules --table               # prints the tables of docs/negatives.md

Each finished run is a line of results/mining_rules.jsonl; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from papers.common.data import generator, sentence_vectors
from papers.studies.mining_data import TASKS, Task
from rivals import lists
from rivals.data import Dataset, Judgements, Run
from rivals.data.pipeline import Transform
from rivals.losses import info_nce_loss
from rivals.measures import ndcg
from rivals.models import Encoder
from rivals.negatives import Draw, Mined, PositiveAware, Sampler, Softmax, Top, Uniform, mine_hard_negatives
from rivals.retrieve import Dense
from rivals.training import LoopConfig, Negatives, RetrieverConfig, train_retriever

RESULTS = Path(__file__).with_name("mining_rules.jsonl")
DEPTH = 100


class Truth(Transform):
    """Mark what is known to be a hidden positive: no judge is better, so this bounds what any filter can gain."""

    def __init__(self, truth: Judgements) -> None:
        self.truth = truth

    def __call__(self, run: Run) -> Run:
        place = lists.find_pairs(self.truth.offsets, self.truth.document, run.query, run.document)
        return run.mark(place >= 0, "hidden positive")


class Rule(NamedTuple):
    """Filters and sampler of a rule; `relabel` also gives the hidden positives found back to training."""

    filters: tuple[Transform, ...]
    sampler: Sampler
    oracle: bool = False
    relabel: bool = False


RULES: dict[str, Rule | None] = {
    "in-batch only": None,
    "hardest 4": Rule((), Top(4)),
    "hardest 4 after the first 10": Rule((), Top(4, skip=10)),
    "4 of the top 100": Rule((), Uniform(4, window=DEPTH)),
    "margin 0.05, hardest 4": Rule((PositiveAware(absolute=0.05),), Top(4)),
    "95 %, hardest 4": Rule((PositiveAware(relative=0.05),), Top(4)),
    "90 %, hardest 4": Rule((PositiveAware(relative=0.1),), Top(4)),
    "80 %, hardest 4": Rule((PositiveAware(relative=0.2),), Top(4)),
    "95 %, softmax of 10": Rule((PositiveAware(relative=0.05),), Softmax(4, window=10, temperature=0.05)),
    "95 %, 4 of the top 30": Rule((PositiveAware(relative=0.05),), Uniform(4, window=30)),
    "hidden positives removed, hardest 4": Rule((), Top(4), oracle=True),
    "hidden positives relabelled, hardest 4": Rule((), Top(4), oracle=True, relabel=True),
}
TRAINED = (
    "in-batch only",
    "hardest 4",
    "95 %, hardest 4",
    "hidden positives relabelled, hardest 4",
)


FINE_TUNED_ON = (
    "BANKING77",
    "Cranfield",
    "MedQuAD",
)  # SciFact's claims and abstracts cost as much as the others together


def mined_by(rule: Rule, task: Task, source: Dense, seed: int) -> tuple[Mined, Dataset]:
    """Mine for the training queries; return what was found and the labels to train on."""
    filters = (*rule.filters, *((Truth(task.truth.judgements),) if rule.oracle else ()))
    mined = mine_hard_negatives(
        source, task.train, filters=filters, sampler=rule.sampler, top_k=DEPTH, seed=seed, allow_none=True, show=False
    )
    if not rule.relabel:
        return mined, task.train
    found = mined.run.where_reason("hidden positive")
    known = task.train.judgements.positives
    query = np.concatenate([known.query, mined.run.query[found]])
    document = np.concatenate([known.document, mined.run.document[found]])
    unique = np.unique(query * len(task.train.documents) + document)
    query, document = np.divmod(unique, len(task.train.documents))
    sizes = {"queries": len(task.train.queries), "documents": len(task.train.documents)}
    judged = Judgements.build(query, document, np.ones(len(query), np.float32), **sizes)
    return mined, Dataset(task.train.queries, task.train.documents, judged)


def false_share(draw: Draw, truth: Judgements) -> float:
    """Return the share of drawn negatives that are hidden positives."""
    query = np.broadcast_to(np.arange(len(draw))[:, None], draw.mask.shape)[draw.mask]
    found = lists.find_pairs(truth.offsets, truth.document, query, draw.candidate[draw.mask])
    return float((found >= 0).mean()) if len(found) else 0.0


def test_score(queries: Tensor, documents: Tensor, data: Dataset) -> float:
    """Return mean nDCG@10 over all documents."""
    known = data.judgements.positives
    relevance = torch.zeros(len(data.queries), len(data.documents))
    relevance[torch.from_numpy(known.query), torch.from_numpy(known.document)] = 1
    return float(ndcg(queries @ documents.T, relevance, k=10).mean())


class Maps(nn.Module):
    """x -> normalise(x + W x), one W for queries and one for documents, at first zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asked, self.told = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.asked.weight)
        nn.init.zeros_(self.told.weight)

    def forward(self, vectors: Tensor, layer: nn.Linear) -> Tensor:
        return nn.functional.normalize(vectors + layer(vectors), dim=-1)


def with_frozen_vectors(task: Task, name: str, rule: Rule | None, seed: int) -> dict[str, float]:
    """Train residual maps, 300 steps of 64 questions, the best of 6 moments on dev; return test nDCG@10."""
    texts = {"train": task.train, "dev": task.dev, "test": task.test}
    documents = sentence_vectors(task.train.documents.full_texts, f"study-{name}-documents")
    asked = {part: sentence_vectors(d.queries.full_texts, f"study-{name}-{part}-{seed}") for part, d in texts.items()}
    source = Dense(_Given(asked["train"].numpy(), documents.numpy()), task.train.documents, show_progress=False)
    found = None if rule is None else mined_by(rule, task, source, seed)
    labels = task.train if found is None else found[1]
    known, maps, draw = labels.judgements.positives, Maps(documents.shape[1]), generator(seed)
    optimiser, best = torch.optim.AdamW(maps.parameters(), lr=1e-3), (-1.0, 0.0)
    rng = np.random.default_rng([seed, 9])
    for step in range(1, 301):
        rows = torch.randperm(len(labels.queries), generator=draw)[:64].numpy()
        lengths = np.diff(known.offsets)[rows]
        positive = known.document[known.offsets[rows] + (rng.random(len(rows)) * lengths).astype(np.int64)]
        columns, mask = _columns(rows, positive, known, found[0] if found else None)
        relevance = torch.zeros(mask.shape)
        relevance[torch.arange(len(rows)), torch.arange(len(rows))] = 1
        queries = maps(asked["train"][rows], maps.asked)
        scores = queries @ maps(documents[columns], maps.told).T
        optimiser.zero_grad()
        info_nce_loss(scores, relevance, mask, temperature=0.05).backward()
        optimiser.step()
        if step % 50 == 0:
            with torch.no_grad():
                told = maps(documents, maps.told)
                dev, test = (
                    test_score(maps(asked[part], maps.asked), told, data)
                    for part, data in (("dev", task.dev), ("test", task.test))
                )
            best = max(best, (dev, test))
    share = false_share(found[0].draw, task.truth.judgements) if found else 0.0
    untrained = test_score(asked["test"], documents, task.test)
    return {"nDCG@10": best[1], "untrained": untrained, "false negatives": share}


def _columns(
    rows: NDArray[np.int64], positive: NDArray[np.int64], known: Judgements, mined: Mined | None
) -> tuple[NDArray[np.int64], Tensor]:
    """Return the batch's documents and which of them may compete: not known positives, not candidates marked."""
    extra = mined.draw.candidate[rows][mined.draw.mask[rows]] if mined else np.zeros(0, np.int64)
    columns = np.concatenate([positive, np.setdiff1d(extra, positive)])
    pairs = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    hidden = lists.find_pairs(known.offsets, known.document, *pairs) >= 0
    if mined is not None:
        place = lists.find_pairs(mined.run.offsets, mined.run.document, *pairs)
        hidden |= (place >= 0) & ~mined.run.keep[place]
    mask = torch.from_numpy(~hidden.reshape(len(rows), len(columns)))
    mask[torch.arange(len(rows)), torch.arange(len(rows))] = True
    return columns, mask


class _Given:
    """Vectors computed before, in place of an encoder."""

    def __init__(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> None:
        self.vectors = {"query": queries, "document": documents}

    def encode(self, texts: Sequence[str], *, role: str, progress: Any = None) -> NDArray[np.float32]:
        return self.vectors[role][: len(texts)]

    def fingerprint(self) -> str:
        return "given"


def with_trained_encoder(task: Task, name: str, rule: Rule | None, seed: int) -> dict[str, float]:
    """Fine-tune all of MiniLM in one pass, texts cut to 64 tokens; return test nDCG@10 at its end."""
    encoder = Encoder.load("all-MiniLM-L6-v2", dtype="float32", max_length=64)
    source = Dense(encoder, task.train.documents, show_progress=False)
    found = None if rule is None else mined_by(rule, task, source, seed)
    config = RetrieverConfig(
        batch_size=32,
        negatives=4,
        group_size=1,
        late_interaction=0.0,
        max_document_tokens=64,
        loop=LoopConfig(evaluations=0, seed=seed),
    )
    trained = task.train if found is None else found[1]
    negatives = Negatives(found[0].run, rule.sampler, seed=seed) if found and rule else None
    train_retriever(encoder, trained, config, dev=task.dev, negatives=negatives)
    told = torch.from_numpy(encoder.encode(task.test.documents.full_texts, role="document", normalize=True))
    asked = torch.from_numpy(encoder.encode(task.test.queries.full_texts, role="query", normalize=True))
    share = false_share(found[0].draw, task.truth.judgements) if found else 0.0
    return {"nDCG@10": test_score(asked, told, task.test), "false negatives": share}


def run(seeds: Sequence[int], encoder: bool) -> None:
    """Run what is not in the results yet, one data set, rule and seed at a time."""
    train: Callable[[Task, str, Rule | None, int], dict[str, float]]
    train = with_trained_encoder if encoder else with_frozen_vectors
    way = "encoder" if encoder else "frozen"
    done = {(r["way"], r["data"], r["rule"], r["seed"]) for r in load()}
    for seed in seeds:
        for name in FINE_TUNED_ON if encoder else TASKS:
            task = TASKS[name](seed)
            for label in TRAINED if encoder else RULES:
                if (way, name, label, seed) in done:
                    continue
                started = time.process_time()
                figures = train(task, name, RULES[label], seed)
                row = {"way": way, "data": name, "rule": label, "seed": seed, **figures}
                row["CPU seconds"] = round(time.process_time() - started, 1)
                with RESULTS.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")
                print(row, flush=True)


def load() -> list[dict[str, Any]]:
    """Return all results so far."""
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []


def table(way: str) -> str:
    """Return a Markdown table: rules down, data sets across; nDCG@10 and its gain over in-batch, paired over seeds."""
    from scipy import stats

    rows = [r for r in load() if r["way"] == way]
    value = {(r["data"], r["rule"], r["seed"]): r for r in rows}
    names = [name for name in TASKS if any(r["data"] == name for r in rows)]
    text = ["| rule | " + " | ".join(names) + " | mean gain |", "|---|" + "---|" * (len(names) + 1)]
    for label in [r for r in RULES if any(row["rule"] == r for row in rows)]:
        cells, gains = [], []
        for name in names:
            seeds = sorted(s for n, r, s in value if n == name and r == label and (n, "in-batch only", s) in value)
            found = np.array([value[name, label, s]["nDCG@10"] for s in seeds])
            gain = found - np.array([value[name, "in-batch only", s]["nDCG@10"] for s in seeds])
            half = stats.t.ppf(0.975, len(seeds) - 1) * gain.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else 0
            false = np.mean([value[name, label, s]["false negatives"] for s in seeds])
            own = "" if label == "in-batch only" else f" ({gain.mean():+.3f} ± {half:.3f}; {false:.0%} false)"
            cells.append(f"{found.mean():.3f}{own}")
            gains.append(gain.mean())
        text.append(f"| {label} | " + " | ".join(cells) + f" | {np.mean(gains):+.3f} |")
    return "\n".join(text)


def main() -> None:
    """Run, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="store_true", help="fine-tune MiniLM instead of maps of frozen vectors")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the tables of what was run")
    options = parser.parse_args()
    if options.table:
        for way in ("frozen", "encoder"):
            print(f"\n{way}\n\n{table(way)}")
    else:
        run(range(options.seeds), options.encoder)


if __name__ == "__main__":
    main()
