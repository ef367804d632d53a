"""Paper 59: alignment by right and wrong solutions, whose scores are pushed apart freely or with a bound.

GSM8K: a small three-gram network (not conditioned on the question) learns reference solutions, then 1,319 x 4
solutions marked right or wrong, beside the likelihood of references. Measured on held-out questions: how often a
right solution scores higher (A-accuracy), and what the likelihood of reference and wrong solutions becomes.
"""

from __future__ import annotations

import collections
import re
from functools import lru_cache

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import folder, generator
from papers.common.training import batches, fit
from rivals.losses import PREFERENCE_LOSSES
from rivals.measures import pair_accuracy

WORDS, LENGTH = 400, 64
ARMS = {"none": "aft", "detached": "aft_detached", "boundary": "aft_boundary"}


def words(text: str) -> list[str]:
    """Return words, single digits and signs, without calculator notes."""
    return re.findall(r"[A-Za-z]+|\d|[^\w\s]|\n", re.sub(r"<<.*?>>", "", text))


@lru_cache(maxsize=1)
def solutions() -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens of references [P, LENGTH], of solutions [Q, 4, LENGTH] and which are right [Q, 4]; 0 = padding."""
    problems = pq.read_table(folder("gsm8k") / "problems.parquet").to_pylist()
    rows = pq.read_table(folder("gsm8k") / "test_solutions.parquet").to_pylist()
    counts = collections.Counter(word for row in rows for word in words(row["solution"]))
    number = {word: place + 2 for place, (word, _) in enumerate(counts.most_common(WORDS - 2))}

    def tokens(text: str) -> list[int]:
        found = [number.get(word, 1) for word in words(text)[:LENGTH]]
        return found + [0] * (LENGTH - len(found))

    groups: dict[int, list[tuple[list[int], bool]]] = {}
    for row in rows:
        groups.setdefault(row["n"], []).append((tokens(row["solution"]), row["is_correct"]))
    full = [group for group in groups.values() if 0 < sum(right for _, right in group) < len(group) == 4]
    references = [tokens(row["answer"]) for row in problems if row["split"] == "train"]
    shown = torch.tensor([[text for text, _ in group] for group in full])
    return torch.tensor(references), shown, torch.tensor([[right for _, right in group] for group in full]).float()


class ThreeGram(nn.Module):
    """Logits of the next word from the two before."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.words = nn.Embedding(WORDS, 32)
            self.layers = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, WORDS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log probability and the length of every text [..., LENGTH]."""
        before = nn.functional.pad(tokens, (2, 0))
        inner = torch.cat([self.words(before[..., :-2]), self.words(before[..., 1:-1])], -1)
        there = tokens > 0
        found = self.layers(inner).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return (found * there).sum(-1), there.sum(-1).clamp(min=1).float()


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Learn references, then align with every constraint from the same start."""
    references, shown, right = solutions()
    order = torch.randperm(len(shown), generator=generator(seed))
    order, held = order[:-200], order[-200:]
    mixed = torch.randperm(len(references), generator=generator(seed))
    references, kept = references[mixed[:-300]], references[mixed[-300:]]
    model = ThreeGram(seed)

    def likelihood(tokens: Tensor) -> Tensor:
        logps, lengths = model(tokens)
        return -logps.sum() / lengths.sum()

    rows = batches(len(references), 64, seed=seed)
    fit(model, lambda r: likelihood(references[r]), rows, steps=3 if smoke else 200, learning_rate=3e-3, seed=seed)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    figures: dict[str, float] = {}

    def measured(arm: str) -> None:
        with torch.no_grad():
            logps, lengths = model(shown[held])
            figures[f"A-accuracy {arm}"] = float(pair_accuracy(logps / lengths, right[held]).mean())
            figures[f"NLL of references {arm}"] = float(likelihood(kept))
            figures[f"NLL of wrong solutions {arm}"] = float(likelihood(shown[held][right[held] == 0]))

    measured("before")
    for arm, name in ARMS.items():
        model.load_state_dict(start)
        aligned = PREFERENCE_LOSSES[name]

        def loss(chosen: Tensor, aligned=aligned) -> Tensor:  # type: ignore[no-untyped-def]
            logps, lengths = model(shown[order[chosen]])
            alignment = aligned(logps, right[order[chosen]], lengths=lengths)
            return torch.as_tensor(alignment + likelihood(references[next(rows)[:32]]))

        chosen = batches(len(order), 32, seed=seed)
        fit(model, loss, chosen, steps=3 if smoke else 120, learning_rate=1e-3, seed=seed)
        measured(arm)
    return figures


PAPER = Paper(
    number=59,
    claim="Alignment with a bound on how far wrong solutions are pushed down keeps the model intact and beats "
    "unbounded ranking losses (GSM8K, ECQA, AQuA).",
    expects=(
        Higher("NLL of references none", "NLL of references boundary"),
        Higher("NLL of wrong solutions none", "NLL of wrong solutions boundary"),
        Higher("A-accuracy boundary", "A-accuracy before"),
        Higher("A-accuracy none", "A-accuracy before"),
    ),
    data="GSM8K references and four models' marked solutions, a three-gram network of 400 words, 120 steps",
    run=run,
    notes="No language model worth the name and no answers generated; the likelihood term is part of every arm. NLL a "
    "word: 'A > B' says that B's is lower.",
)
