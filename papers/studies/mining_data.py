"""Four retrieval data sets of different kinds, each with some true positives hidden from training, and known to be hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from papers.common.data import folder
from rivals.data import Collection, Dataset, Judgements, load_sample


class Task(NamedTuple):
    """Training queries with the labels a miner sees, all their true labels, and queries to choose and to test on.

    All four are over the same documents; `train` and `truth` have the same queries.
    """

    train: Dataset
    truth: Dataset
    dev: Dataset
    test: Dataset

    @property
    def hidden(self) -> int:
        """How many true positives of the training queries training does not see."""
        return len(self.truth.judgements) - len(self.train.judgements)


def medical(seed: int) -> Task:
    """MedQuAD's sample: 500 training, 150 dev and 400 test questions on different topics, 3,514 answers."""
    sample = load_sample()
    parts = [_some(sample.split(name), size, seed) for name, size in (("train", 500), ("dev", 150), ("test", 400))]
    return _task(*parts, seed)


def claims(seed: int) -> Task:
    """SciFact: 500 training and 150 dev claims of the train split, 300 test claims, 2,000 abstracts (all judged ones)."""
    corpus = pq.read_table(folder("scifact") / "corpus.parquet").to_pandas()
    asked = pq.read_table(folder("scifact") / "queries.parquet").to_pandas()
    judged = pq.read_table(folder("scifact") / "qrels.parquet").to_pandas()
    needed = corpus["doc_id"].isin(judged["doc_id"]).to_numpy()
    rest = np.random.default_rng(0).permutation(np.flatnonzero(~needed))[: max(0, 2000 - int(needed.sum()))]
    corpus = corpus.iloc[np.sort(np.concatenate([np.flatnonzero(needed), rest]))]
    texts = (corpus["title"] + ". " + corpus["text"]).tolist()
    whole = _dataset(asked["qid"], asked["text"], corpus["doc_id"], texts, judged["qid"], judged["doc_id"])
    trained = (asked["split"] == "train").to_numpy()
    order = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(trained))
    return _task(whole.take(order[:500]), whole.take(order[500:650]), whole.take(np.flatnonzero(~trained)), seed)


def aerodynamics(seed: int) -> Task:
    """Cranfield: 110 training, 40 dev and 75 test questions at random, 1,400 abstracts, many answers to a question."""
    corpus = pq.read_table(folder("cranfield") / "corpus.parquet").to_pandas()
    asked = pq.read_table(folder("cranfield") / "queries.parquet").to_pandas()
    judged = pq.read_table(folder("cranfield") / "qrels.parquet").to_pandas()
    texts = [text or title for title, text in zip(corpus["title"], corpus["text"], strict=True)]
    whole = _dataset(asked["qid"], asked["text"], corpus["doc_id"], texts, judged["qid"], judged["doc_id"])
    order = np.random.default_rng([seed, 2]).permutation(len(asked))
    return _task(*(whole.take(part) for part in np.split(order, [110, 150])), seed)


def intents(seed: int) -> Task:
    """BANKING77 as retrieval: 20 questions of each intent are documents, 500 others train, 200 choose, 770 test.

    A document answers a question of the same intent; training sees one of the 20, so false negatives are everywhere.
    """
    table = pq.read_table(folder("banking77") / "queries.parquet").to_pandas().drop_duplicates("text")
    rng = np.random.default_rng(0)
    train, test = (table[table["split"] == part] for part in ("train", "test"))
    train = train.iloc[rng.permutation(len(train))]
    place = train.groupby("intent").cumcount()
    documents, rest = train[place < 20], train[place >= 20]
    rest = rest.iloc[np.random.default_rng([seed, 3]).permutation(len(rest))]
    asked = [rest.iloc[:500], rest.iloc[500:700], test.groupby("intent").head(10)]
    intent = documents["intent"].to_numpy()
    parts = []
    for part in asked:
        query, document = np.nonzero(part["intent"].to_numpy()[:, None] == intent[None, :])
        ids, names = part["id"].astype(str).tolist(), documents["id"].astype(str).tolist()
        pairs = [ids[q] for q in query], [names[d] for d in document]
        parts.append(_dataset(ids, part["text"].tolist(), names, documents["text"].tolist(), *pairs))
    return _task(*parts, seed)


#: Data sets by the name they have in the tables.
TASKS: dict[str, Callable[[int], Task]] = {
    "MedQuAD": medical,
    "SciFact": claims,
    "Cranfield": aerodynamics,
    "BANKING77": intents,
}


def _dataset(query_ids, queries, document_ids, documents, asked, answer) -> Dataset:  # type: ignore[no-untyped-def]
    query_ids, document_ids = [str(q) for q in query_ids], [str(d) for d in document_ids]
    row = {name: number for number, name in enumerate(query_ids)}
    column = {name: number for number, name in enumerate(document_ids)}
    pairs = sorted({(row[str(q)], column[str(d)]) for q, d in zip(asked, answer, strict=True)})
    judged = Judgements.build(
        [q for q, _ in pairs],
        [d for _, d in pairs],
        [1.0] * len(pairs),
        queries=len(query_ids),
        documents=len(document_ids),
    )
    return Dataset(
        Collection(query_ids, list(queries), name="query"), Collection(document_ids, list(documents)), judged
    )


def _some(part: Dataset, size: int, seed: int) -> Dataset:
    order = np.random.default_rng([seed, len(part.queries)]).permutation(len(part.queries))
    return part.take(np.sort(order[:size]))


def _task(truth: Dataset, dev: Dataset, test: Dataset, seed: int) -> Task:
    """Hide all but one positive of every training query, at random."""
    known = truth.judgements.positives
    lengths = np.diff(known.offsets)
    truth = truth.take(np.flatnonzero(lengths > 0))
    known = truth.judgements.positives
    lengths = np.diff(known.offsets)
    kept = known.offsets[:-1] + (np.random.default_rng([seed, 4]).random(len(lengths)) * lengths).astype(np.int64)
    seen = Judgements.build(
        np.arange(len(lengths)),
        known.document[kept],
        known.relevance[kept],
        queries=len(lengths),
        documents=len(truth.documents),
    )
    return Task(Dataset(truth.queries, truth.documents, seen), truth, dev, test)
