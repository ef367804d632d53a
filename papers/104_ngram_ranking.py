"""Paper 104: do n-gram models of the target language rank machine translations as people do, without references?

WMT 2019 from Kazakh and Gujarati into English: outputs of 15 systems, compared with people's pairwise judgements. Beside
it a case with a known order: held-out sentences of MedQuAD in five states of corruption.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from papers.common.claim import Above, Higher, Paper
from papers.common.data import folder
from rivals.diagnose import NgramLM, rank_agreement, rank_outputs, system_ranking

RATES = (0.0, 0.1, 0.2, 0.4, 0.6)


def words(text: str) -> list[str]:
    """Return words and marks, lower-cased."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def sentences(texts: list[str]) -> list[str]:
    """Return the sentences of texts that have 5 to 40 words."""
    parts = (part for text in texts for part in re.split(r"(?<=[.!?])\s+", text))
    return list(dict.fromkeys(part for part in parts if 5 <= len(words(part)) <= 40))


@functools.lru_cache(maxsize=1)
def news() -> list[str]:
    """Return sentences of the articles of CNN/Daily Mail and XSum."""
    return sentences(pq.read_table(folder("summary_judgements") / "documents.parquet")["source"].to_pylist())


@functools.lru_cache(maxsize=1)
def medical() -> list[str]:
    """Return sentences of MedQuAD's answers."""
    return sentences(pq.read_table(folder("medquad") / "answers.parquet")["text"].to_pylist()[:2500])


def model(order: int, texts: list[str]) -> NgramLM:
    """Return an interpolated Kneser-Ney model that knows what an unknown word is worth."""
    return NgramLM(order, min_count=2, tokeniser=words).fit(texts)


def corrupted(text: str, rate: float, known: list[str], draw: np.random.Generator) -> str:
    """Return a text of which a share of words was swapped with the next one, dropped, or replaced, a third each."""
    out, at, kept = words(text), 0, []
    while at < len(out):
        kind = draw.integers(3) if draw.random() < rate else 3
        if kind == 0 and at + 1 < len(out):
            kept += [out[at + 1], out[at]]
            at += 1
        elif kind in (0, 3):
            kept.append(out[at])
        elif kind == 2:
            kept.append(known[draw.integers(len(known))])
        at += 1
    return " ".join(kept)


def translations(seed: int, smoke: bool) -> dict[str, float]:
    """Return the share of people's preferences that each way of scoring shares, and the agreement over systems."""
    draw = np.random.default_rng(seed)
    tables = {
        name: pq.read_table(folder("wmt19_darr") / f"{name}.parquet").to_pandas() for name in ("outputs", "preferences")
    }
    judged = tables["preferences"]
    segments = draw.permutation(judged["seg_id"].unique())[: 8 if smoke else 500]
    judged = judged[judged["seg_id"].isin(segments)]
    systems, row = sorted(tables["outputs"]["system"].unique()), {name: i for i, name in enumerate(segments)}
    outputs: list[list[str | None]] = [[None] * len(systems) for _ in segments]
    for segment, system, text in tables["outputs"].itertuples(index=False):
        if segment in row:
            outputs[row[segment]][systems.index(system)] = text
    better, worse, at = (
        judged[name].map({n: i for i, n in enumerate(names)}).to_numpy()
        for name, names in (("better", systems), ("worse", systems), ("seg_id", segments))
    )
    won = np.bincount(better, minlength=len(systems)), np.bincount(worse, minlength=len(systems))
    human = -won[0] / np.maximum(won[0] + won[1], 1)
    corpus = [news()[i] for i in draw.permutation(len(news()))[: 300 if smoke else 12_000]]
    found = {}
    for name, order, normalise in (
        ("trigram", 3, "token"),
        ("bigram", 2, "token"),
        ("unigram", 1, "token"),
        ("trigram, sum", 3, "none"),
        ("matched n-grams", 3, "match"),
    ):
        ranks = rank_outputs(model(order, corpus), outputs, normalise=normalise)  # type: ignore[arg-type]
        first, second = ranks[at, better], ranks[at, worse]
        found[f"preferences shared, {name}"] = float(((first < second) + 0.5 * (first == second)).mean())
        every: NDArray[np.float64] = system_ranking(ranks)
        found[f"system Kendall tau, {name}"] = rank_agreement(every[None], human[None])
    return found


def corruptions(seed: int, smoke: bool) -> dict[str, float]:
    """Return Kendall's tau between scores and the known order of corruption."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(medical()))
    held, corpus = order[: 8 if smoke else 300], [medical()[i] for i in order[300 : 600 if smoke else 12_300]]
    known = sorted({word for text in corpus for word in words(text)})
    outputs = [[corrupted(medical()[i], rate, known, draw) for rate in RATES] for i in held]
    truth = np.tile(np.arange(1.0, len(RATES) + 1), (len(held), 1))
    found = {}
    for name, size, normalise in (("trigram", 3, "token"), ("unigram", 1, "token"), ("trigram, sum", 3, "none")):
        ranks = rank_outputs(model(size, corpus), outputs, normalise=normalise)  # type: ignore[arg-type]
        found[f"corruption Kendall tau, {name}"] = rank_agreement(ranks, truth)
        found[f"corruption systems, {name}"] = rank_agreement(system_ranking(ranks)[None], truth[:1])
    return found


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Rank translations and corrupted sentences."""
    found = translations(seed, smoke) | corruptions(seed, smoke)
    return found | {"preferences shared by the trigram above one half": found["preferences shared, trigram"] - 0.5}


PAPER = Paper(
    number=104,
    claim="Ranks of machine translations by n-gram approximations agree with those that people give (figures not known).",
    expects=(
        Above("preferences shared by the trigram above one half"),
        Above("system Kendall tau, trigram"),
        Higher("preferences shared, trigram", "preferences shared, unigram"),
        Higher("preferences shared, trigram", "preferences shared, trigram, sum"),
        Higher("corruption Kendall tau, trigram", "corruption Kendall tau, unigram"),
        Higher("corruption Kendall tau, trigram", "corruption Kendall tau, trigram, sum"),
        Above("corruption systems, trigram", margin=0.999),
    ),
    data="WMT19 kk-en and gu-en: 500 segments a seed, outputs of 15 systems, people's preferences; n-grams of 12,000 sentences "
    "of news; 300 MedQuAD sentences in five states of corruption, n-grams of 12,000 others",
    run=run,
    notes="The paper's order, smoothing and corpus are not known; ours are trigrams with interpolated Kneser-Ney, fixed "
    "beforehand, learnt from other news. Preferences are of pairs that people told apart.",
)
