"""Paper 82: does the document that meets all conditions still win as a query grows, and do scores fall as they break?

Sentences of MedQuAD's answers are the conditions, the likest sentences of other answers break them; BM25, MiniLM by one
vector and by MaxSim score the same items, made anew for every seed.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow.parquet as pq

from papers.common.claim import Above, Higher, Paper
from papers.common.data import folder
from papers.common.readers import Read, bm25_scorer
from rivals.diagnose.condition_sets import condition_items
from rivals.diagnose.conditions import condition_report
from rivals.diagnose.robustness.edits import sentences_of

CONDITIONS, ITEMS, WORDS = 6, 40, 150


@functools.lru_cache(maxsize=1)
def answers() -> list[str]:
    """The answers of the quickstart sample that have 6 to 9 sentences and at most 150 words."""
    ids = pq.read_table(folder("medquad") / "quickstart.parquet", columns=["answer_id"]).to_pandas()["answer_id"]
    table = pq.read_table(folder("medquad") / "answers.parquet").to_pandas().set_index("answer_id")["text"]
    texts = [" ".join(table.loc[one].split()) for one in ids.drop_duplicates()]
    return [text for text in texts if 6 <= len(sentences_of(text)) <= 9 and len(text.split()) <= WORDS]


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return win rates, monotonicity and flips of every scorer."""
    corpus = answers()
    items = condition_items(corpus, conditions=CONDITIONS, items=3 if smoke else ITEMS, seed=seed).items
    documents = list(dict.fromkeys(text for item in items for text in (*item.chain, *item.rivals)))
    queries = [text for item in items for text in (*item.queries, item.running[-1])]
    read = Read([*documents, *queries])
    chance = np.random.default_rng(seed)
    scorers = {
        "BM25": bm25_scorer(corpus, documents),
        "MiniLM": read.vector_score,
        "MaxSim": read.max_sim_score,
        "random": lambda asked, told: chance.standard_normal(len(asked)).astype(np.float32),
    }
    figures = {"documents cut": read.cut(documents)}
    for name, score in scorers.items():
        report = condition_report(items, score, batch_size=1 << 14, resamples=100)
        figures |= {
            f"wins with 1 condition, {name}": report.win_rate[0],
            f"wins with 6 conditions, {name}": report.win_rate[-1],
            f"loss of wins, {name}": -float(report.drop.estimate),
            f"steps right, {name}": float(np.mean(report.steps)),
            f"chains broken, {name}": 1 - report.chain_rate,
            f"flips, {name}": report.flip_rate,
        }
    return figures


PAPER = Paper(
    number=82,
    claim="All retrievers lose as queries gather conditions, and scores often fail to fall as conditions are broken.",
    expects=(
        Higher("wins with 1 condition, MiniLM", "wins with 6 conditions, MiniLM"),
        Higher("wins with 1 condition, BM25", "wins with 6 conditions, BM25"),
        Higher("wins with 1 condition, MaxSim", "wins with 6 conditions, MaxSim"),
        Higher("loss of wins, MiniLM", "loss of wins, MaxSim"),
        Above("chains broken, MiniLM", 0.5),
        Above("chains broken, MaxSim", 0.5),
    ),
    data=f"{ITEMS} answers of MedQuAD's small sample a seed, of 6 to 9 sentences and at most {WORDS} words, 6 conditions",
    run=run,
    notes="Conditions are sentences as they stand, so that words match better than in the paper, whose language model writes "
    "and edits them; a broken one is the likest sentence of another answer by TF-IDF. The first query names one condition and "
    "its rival breaks that one. No trained reranker takes part: MaxSim is MiniLM's own tokens. Seeds draw answers and what "
    "breaks.",
)
