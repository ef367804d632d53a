"""Paper 81: do a hybrid teacher's soft labels and the 95 per cent rule on them improve mined negatives?

Five negatives a question from BM25 and latent words fused by rank; a known, noisy teacher filters them, labels them, or both.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.data import folder
from papers.common.maps import MEDICAL, NOTES, STEPS, Bench, Maps, bench, by_rate, contrast, searched, shuffled
from papers.common.rerankers import latent_vectors
from rivals.data import Dataset, Run
from rivals.losses import listwise_kl_loss
from rivals.measures import ndcg
from rivals.negatives import Top
from rivals.negatives.batching import Batch
from rivals.negatives.judging import JudgeThreshold, Verdicts
from rivals.retrieve import BM25, ReciprocalRankFusion

NEGATIVES, WEIGHT, SOFTNESS = 5, 0.5, (0.05, 0.2)


def grades(data: Dataset) -> Tensor:
    """Return float[Q, N]: 1 for the question's own answer, 0.6 for the same topic and kind, 0.3 for the topic, else 0."""
    table = pq.read_table(folder("medquad") / "quickstart.parquet").to_pandas()
    column = {name: number for number, name in enumerate(data.documents.ids.tolist())}
    about = table.assign(column=table["answer_id"].map(column)).groupby("focus_key")["column"].apply(list)
    asked = table[table["is_query"]].drop_duplicates("query_id").set_index("query_id").loc[data.queries.ids.tolist()]
    grade, known = torch.zeros(len(data.queries), len(data.documents)), data.judgements.positives
    for row, topic in enumerate(asked["focus_key"]):
        grade[row, about[topic]] = 0.3
    grade[torch.from_numpy(known.query), torch.from_numpy(known.document)] = 0.6
    grade[torch.arange(len(grade)), torch.tensor(asked["answer_id"].map(column).tolist())] = 1.0
    return grade


class Teacher:
    """Gives the grades of the training questions with noise of 0.05."""

    name = "teacher"

    def __init__(self, truth: Dataset, seed: int) -> None:
        noise = np.random.default_rng([seed, 81]).normal(0, 0.05, (len(truth.queries), len(truth.documents)))
        self.scores = (grades(truth) + torch.from_numpy(noise.astype(np.float32))).clamp(0, 1)
        self.row = {name: number for number, name in enumerate(truth.queries.ids.tolist())}

    def judge(self, run: Run) -> Verdicts:
        """Score the candidates of a run over training questions."""
        query = np.array([self.row[name] for name in run.queries.ids.tolist()])[run.query]
        return Verdicts(self.scores[query, run.document].numpy())


def soft(scores: Tensor, batch: Batch, teacher: Teacher, softness: float) -> Tensor:
    """Return half InfoNCE, half divergence of the softmax from the teacher's over the positive and its negatives."""
    told = teacher.scores[torch.from_numpy(batch.anchor)][:, torch.from_numpy(batch.columns)]
    mask = torch.from_numpy(batch.mask)
    taught = listwise_kl_loss(scores, told, mask, temperature=0.05, target_temperature=softness)
    return (1 - WEIGHT) * contrast(scores, batch) + WEIGHT * taught


def hybrid(given: Bench) -> Bench:
    """Return the bench with candidates of BM25 and latent words, fused by reciprocal ranks."""
    train = given.task.train
    asked, told = latent_vectors(train.documents.full_texts, train.queries.full_texts, 100)
    words = searched(torch.from_numpy(asked), torch.from_numpy(told), train)
    fused = ReciprocalRankFusion([BM25(train.documents, threads=1), words])
    return given._replace(source=fused)  # type: ignore[arg-type]  # any retriever will do


def graded_ndcg(given: Bench, maps: Maps) -> tuple[float, float]:
    """Return test nDCG@10 with the teacher's grades without noise, and with the data set's own."""
    grade = grades(given.task.test)
    with torch.no_grad():
        scores = maps.queries(given.asked["test"]) @ maps.documents(given.documents).T
    return tuple(float(ndcg(scores, truth, k=10).mean()) for truth in (grade, (grade >= 0.6).float()))  # type: ignore[return-value]


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return graded and plain test nDCG@10 of every way."""
    given = hybrid(bench("MedQuAD", seed))
    teacher = Teacher(given.task.truth, seed)
    figures = {}
    for rule, filters in {"": (), "95 % rule": (JudgeThreshold(teacher, relative=0.05),)}.items():
        mined = given.mine(Top(NEGATIVES), *filters, top_k=50, seed=seed)
        batches = partial(shuffled, given.examples(mined, Top(NEGATIVES), share="own", seed=seed), seed)
        ways = {rule or "plain": by_rate(given, batches, seed, smoke)}
        ways["both" if rule else "soft labels"] = [
            way
            for softness in SOFTNESS
            for way in by_rate(given, batches, seed, smoke, loss=partial(soft, teacher=teacher, softness=softness))
        ]
        for name, options in ways.items():
            _, maps = max((option() for option in options), key=lambda found: found[0])
            figures[f"graded nDCG@10 {name}"], figures[f"nDCG@10 {name}"] = graded_ndcg(given, maps)
    return figures


PAPER = Paper(
    number=81,
    claim="Soft labels of a hybrid retrieval teacher and dropping negatives above 95 per cent of the positive's score raise an "
    "embedding model's mean over 41 English tasks by 0.63 and 0.39, to about 74.1.",
    expects=(
        Higher("graded nDCG@10 both", "graded nDCG@10 plain"),
        Higher("graded nDCG@10 soft labels", "graded nDCG@10 plain"),
        Higher("graded nDCG@10 95 % rule", "graded nDCG@10 plain"),
        Higher("graded nDCG@10 both", "graded nDCG@10 soft labels"),
        Higher("graded nDCG@10 both", "graded nDCG@10 95 % rule"),
    ),
    data=f"{MEDICAL}; training sees one of several positives of a question",
    run=run,
    notes=f"{NOTES} {STEPS} steps of 64 questions with {NEGATIVES} own negatives of the first 50 of BM25 and 100 latent "
    "components of words. The teacher is an oracle with noise of 0.05: 1 for the question's own answer, 0.6 for topic and kind, 0.3 "
    f"for the topic; its temperature from {SOFTNESS}. Instructions, examples and stages are not tested.",
)
