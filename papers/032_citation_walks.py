"""Paper 32: are documents met on walks through citations better negatives than random or most similar ones?

CACM's abstracts and their citations; a question is a random tenth of an abstract's words, its answer that abstract.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.data import folder
from papers.common.maps import RATES, Bench, Maps, best_test, random_documents, searched, shuffled, train
from papers.studies.mining_data import Task
from rivals.data import Collection, Dataset, Judgements, Run
from rivals.negatives import Draw, LinkSource, Top, Uniform, mine_hard_negatives

STEPS, TEST, DEV, LEAST, SHARE = 200, 300, 150, 30, 0.1

Links = tuple[NDArray[np.int64], NDArray[np.int64]]


def abstracts() -> tuple[Collection, Links]:
    """Return CACM's documents, and what each cites or is cited by (the set stores citations without direction)."""
    corpus = pq.read_table(folder("cacm") / "corpus.parquet").to_pandas()
    links = pq.read_table(folder("cacm") / "links.parquet").to_pandas().query("kind == 5")
    texts = [f"{title} {text}" for title, text in zip(corpus["title"], corpus["text"], strict=True)]
    documents = Collection(corpus["doc_id"].tolist(), texts)
    one, other = documents.rows(links["doc_id"]), documents.rows(links["other_id"])
    start, end = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.argsort(start, kind="stable")
    return documents, (np.cumsum([0, *np.bincount(start, minlength=len(documents))]), end[order])


def bench(seed: int) -> tuple[Bench, Links]:
    """Return questions made of words of linked abstracts in three parts, with vectors of 128 dimensions, and the links."""
    documents, links = abstracts()
    rng = np.random.default_rng([seed, 32])
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit(documents.texts)
    axes = TruncatedSVD(128, random_state=0).fit(words.transform(documents.texts))

    def vectors(texts: list[str]) -> Tensor:
        found = torch.from_numpy(axes.transform(words.transform(texts)).astype(np.float32)) + 1e-6
        return torch.nn.functional.normalize(found, dim=-1)

    long = np.array([len(text.split()) >= LEAST for text in documents.texts])
    rows = rng.permutation(np.flatnonzero(long & (np.diff(links[0]) > 0)))
    asked: list[str] = []
    for row in rows:
        told = documents.texts[row].split()
        asked.append(
            " ".join(told[i] for i in np.sort(rng.choice(len(told), max(3, round(SHARE * len(told))), replace=False)))
        )
    queries = Collection([f"q{row}" for row in rows], asked, name="query")
    known = Judgements.build(
        np.arange(len(rows)), rows, np.ones(len(rows)), queries=len(rows), documents=len(documents)
    )
    whole = Dataset(queries, documents, known)
    cuts = {"test": slice(0, TEST), "dev": slice(TEST, TEST + DEV), "train": slice(TEST + DEV, None)}
    parts = {name: whole.take(np.arange(len(rows))[cut]) for name, cut in cuts.items()}
    found, told = vectors(asked), vectors(list(documents.texts))
    by_part = {name: found[cut] for name, cut in cuts.items()}
    task = Task(parts["train"], parts["train"], parts["dev"], parts["test"])
    return Bench(task, told, by_part, searched(by_part["train"], told, parts["train"])), links


def trained(
    given: Bench, run: Run | None, negatives: Callable[[int], Draw] | Uniform | Top, rate: float, seed: int, smoke: bool
) -> tuple[float, Maps]:
    """Train with one negative a question beside those of the batch."""
    options = {"run": run, "negatives": negatives, "seed": seed}
    batches = shuffled(given.examples(None, **options), seed)
    return train(given, batches, rate=rate, steps=2 if smoke else STEPS)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return test nDCG@10 under each kind of negative, and without any training."""
    given, links = bench(seed)
    rates = RATES[: 1 if smoke else None]

    def walked(hops: int) -> Run:
        source = LinkSource(
            given.task.train.documents,
            given.documents.numpy(),
            links,
            lambda _: given.asked["train"].numpy(),
            hops=hops,
            seed=seed,
        )
        options = {"top_k": 100, "seed": seed, "allow_none": True, "show": False}
        return mine_hard_negatives(source, given.task.train, sampler=Uniform(1), **options).run

    kinds: dict[str, tuple[Run | None, Callable[[int], Draw] | Uniform | Top]] = {
        "random": (None, random_documents(given, 1, seed)),
        "most similar": (given.mine(Top(1), seed=seed).run, Top(1)),
        "walks": (walked(2), Uniform(1)),
        "cited only": (walked(1), Uniform(1)),
    }
    figures = {}
    for name, (mined, negatives) in kinds.items():
        options = [partial(trained, given, mined, negatives, rate, seed, smoke) for rate in rates]
        figures[f"nDCG@10, {name}"] = best_test(given, options)
    figures["nDCG@10, untrained"] = best_test(given, [lambda: (0.0, Maps(given.documents.shape[1]))])
    return figures


PAPER = Paper(
    number=32,
    claim="Citation-walk negatives improve small retrievers on BEIR and LoTTE after 20 steps.",
    expects=(
        Higher("nDCG@10, walks", "nDCG@10, random"),
        Higher("nDCG@10, walks", "nDCG@10, most similar"),
        Higher("nDCG@10, walks", "nDCG@10, cited only"),
        Higher("nDCG@10, walks", "nDCG@10, untrained"),
    ),
    data=f"CACM: 3,204 abstracts, citations; questions are 10 % of the words of linked abstracts of {LEAST} words or more, "
    f"{TEST} to test, {DEV} to choose on",
    run=run,
    notes=f"TF-IDF in 128 singular directions, residual linear maps, AdamW, {STEPS} steps of 64 questions, one negative each beside "
    "those of the batch; learning rate from 3e-4 and 1e-3 and the best of three moments by nDCG@10 on dev. With 30 % of the words the "
    "untrained vectors reach 0.93 already, so 10 % were taken, before any training; walks follow citations both ways.",
)
