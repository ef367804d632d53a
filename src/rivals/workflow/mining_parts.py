"""The parts that a mining configuration can name: sources, filters, samplers and judges, a row of a table each.

A row names what makes the part and says which of its arguments mining itself supplies (`Materials`); the others are its
options. A new part is a new row.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rivals import lists
from rivals.data import Dataset, load_run
from rivals.data.formats.tables import Table, read_table
from rivals.errors import DataError
from rivals.negatives import Ambiguous, PositiveAware, Softmax, Strided, Top, Uniform
from rivals.negatives.answer_match import AnswerMatch
from rivals.negatives.closer_than_positive import CloserThanPositive
from rivals.negatives.clusters import Choose, ClusterSource, ClusterWeight, Of, SameCluster
from rivals.negatives.complementary import Complementary
from rivals.negatives.ensemble import EnsembleSource
from rivals.negatives.joint import Joint
from rivals.negatives.judging import (
    Cascade,
    GradedJudge,
    Judge,
    JudgeThreshold,
    LabelJudge,
    ListJudge,
    ScoreJudge,
    SoftTargets,
    Verify,
    YesNoJudge,
)
from rivals.negatives.listed_sources import ReadyMade
from rivals.negatives.neighbour_filter import NeighbourNoise
from rivals.negatives.partial_labels import AsymmetricPseudoLabels, LargeLoss
from rivals.negatives.rescore import Rescore
from rivals.negatives.samplers_hardness import Resample, SelfAdversarial
from rivals.negatives.samplers_schedule import Rotate, SlidingWindow
from rivals.negatives.sources import InBatchSource, RandomSource
from rivals.negatives.walks import LinkSource
from rivals.retrieve import BM25, Dense
from rivals.workflow.config import model_name
from rivals.workflow.mining_materials import Materials
from rivals.workflow.mining_options import Part

if TYPE_CHECKING:
    from rivals.models.language import LanguageModel
    from rivals.negatives.adapter_transforms import AdapterFilter

# ------------------------------------------------------------------------------------------------ sources


def bm25(
    materials: Materials, *, k1: float = 1.2, b: float = 0.75, language: str = "english", name: str = "bm25"
) -> BM25:
    """Words in common with the query."""
    options: dict[str, Any] = {"k1": k1, "b": b, "language": language or None, "name": name}
    if materials.folder is None:
        return BM25(materials.documents, **options)
    about = f"{sorted(options.items())} {materials.documents.fingerprint}"
    folder = materials.folder / f"bm25-{hashlib.blake2b(about.encode(), digest_size=12).hexdigest()}"
    if not folder.exists():
        BM25(materials.documents, **options).save(folder)
    return BM25.load(folder, materials.documents)


def dense(materials: Materials, *, model: str = "", name: str = "dense") -> Dense:
    """The nearest vectors of the configured encoder, or of another `model` under a name of its own."""
    if name == "dense" and model in ("", materials.model):
        return materials.dense
    return materials.dense_of(model or materials.model, name)


def ensemble(
    materials: Materials, *, models: list[str], variance: float = 0.95, name: str = "ensemble"
) -> EnsembleSource:
    """The nearest vectors of several encoders end to end, reduced to the axes that hold `variance` of their spread."""
    encoders = [materials.open_encoder(model) for model in models]
    vectors = [materials.vectors_of(model) for model in models]
    return EnsembleSource(
        encoders, materials.documents, vectors=vectors, variance=variance, name=name, seed=materials.seed
    )


def cluster_members(
    materials: Materials,
    *,
    clusters: int = 128,
    nearest: int = 3,
    skip: int = 0,
    choose: Choose = "nearest",
    name: str = "clusters",
) -> ClusterSource:
    """Members of the clusters nearest to the query."""
    found = materials.clusters(clusters)
    return ClusterSource(
        materials.dense, found, nearest=nearest, skip=skip, choose=choose, seed=materials.seed, name=name
    )


def links(
    materials: Materials,
    *,
    path: str,
    source: str = "source",
    target: str = "target",
    hops: int = 2,
    paths: int = 3,
    length: int = 3,
    top_k: int = 5,
    random_extra: int = 1,
) -> LinkSource:
    """Documents met on walks along the links around the positives; `source` and `target` are columns of document ids."""
    table, documents = _table_with(path, "links", source, target), materials.documents
    left, right = (documents.find(map(str, table.columns[column])) for column in (source, target))
    known = (left >= 0) & (right >= 0)
    if not known.all():
        warnings.warn(
            f"{path}: {int((~known).sum())} of {len(known)} links leave the collection and are left out", stacklevel=2
        )
    left, right = left[known], right[known]
    order = np.argsort(left, kind="stable")
    offsets = lists.offsets_from_lengths(np.bincount(left, minlength=len(documents)))
    dense = materials.dense
    return LinkSource(
        documents,
        dense.vectors,
        (offsets, right[order]),
        dense.query_vectors,
        hops=hops,
        paths=paths,
        length=length,
        top_k=top_k,
        random_extra=random_extra,
        seed=materials.seed,
    )


def _table_with(path: str, what: str, *columns: str) -> Table:
    """Read a table that must have some columns."""
    table = read_table(path)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"a table of {what} lacks the column {', '.join(missing)}; it has {', '.join(table.columns)}", path=path
        )
    return table


def saved_run(dataset: Dataset, *, path: str, name: str = "run") -> ReadyMade:
    """The candidates of a saved run, with its scores: to mark and draw anew without searching again."""
    return ReadyMade(load_run(path, dataset.queries, dataset.documents), name=name)


# ------------------------------------------------------------------------------------------------ filters, judges


def cross_encoder(materials: Materials, *, model: str, max_length: int = 0) -> Rescore:
    """Scores all candidates and positives anew with a cross-encoder, for the filters behind it."""
    return Rescore(_open_cross_encoder(materials, model, max_length))


def _open_cross_encoder(materials: Materials, model: str, max_length: int) -> Any:
    from rivals.models import CrossEncoder

    return CrossEncoder.load(model_name(model), device=materials.device, max_length=max_length or None)


def complementary(
    materials: Materials,
    *,
    model: str,
    threshold: float = 0.9,
    to: Literal["query", "positive"] = "query",
    action: Literal["drop", "weight"] = "drop",
    weight: float = 0.0,
) -> Complementary:
    """Marks what another encoder than the configured one finds too similar."""
    return Complementary(materials.dense_of(model, "complementary"), threshold, to=to, action=action, weight=weight)


def same_cluster(materials: Materials, *, clusters: int = 128, of: Of = "positive") -> SameCluster:
    """Marks candidates of the cluster in which the positive, or the query, lies."""
    return SameCluster(materials.clusters(clusters), of=of, source=materials.dense)


def cluster_weight(
    materials: Materials,
    *,
    clusters: int = 128,
    same: float = 0.0,
    hard: float = 1.0,
    rest: float = 1.0,
    of: Of = "positive",
) -> ClusterWeight:
    """Weighs candidates by their cluster: the positive's (or query's) own, the next one, the rest."""
    found = materials.clusters(clusters)
    return ClusterWeight(found, materials.dense, same=same, hard=hard, rest=rest, of=of)


def adapter(materials: Materials, *, path: str, threshold: float | None = None) -> AdapterFilter:
    """Fills in the probability of being a false negative, by an adapter that was trained and saved."""
    from rivals.negatives.adapter import RetrieverAdapter
    from rivals.negatives.adapter_transforms import AdapterFilter

    return AdapterFilter(RetrieverAdapter.load(path), materials.dense, threshold=threshold)


def answer_match(materials: Materials, *, path: str, query: str = "query_id", answer: str = "answer") -> AnswerMatch:
    """Marks candidates that contain an accepted answer; `query` and `answer` are columns, an answer or a list of them a row."""
    table = _table_with(path, "answers", query, answer)
    answers: dict[str, list[str]] = {}
    for row, (name, given) in enumerate(zip(table.columns[query], table.columns[answer], strict=True)):
        several = given if isinstance(given, list) else [given]
        if not all(isinstance(one, str) for one in several):
            raise table.error(row, f"the answer {str(given)[:100]!r} is no text; write a text or a list of texts")
        answers.setdefault(str(name), []).extend(several)
    strangers = len(answers.keys() - set(materials.dataset.queries.ids.tolist()))
    if strangers == len(answers):
        raise DataError(f"no query of the data is among the {strangers} of the column {query}", path=path)
    return AnswerMatch(answers)


def dense_judge(
    materials: Materials, *, threshold: float | None = None, relative: float | None = None, name: str = ""
) -> Judge:
    """The configured encoder's cosine, by a threshold or relative to the positive's."""
    return ScoreJudge(materials.dense, threshold=threshold, relative=relative, name=name)


def cross_encoder_judge(
    materials: Materials,
    *,
    model: str,
    max_length: int = 0,
    threshold: float | None = None,
    relative: float | None = None,
    name: str = "",
) -> Judge:
    """A cross-encoder's score, by a threshold or relative to the positive's."""
    opened = _open_cross_encoder(materials, model, max_length)
    return ScoreJudge(opened, threshold=threshold, relative=relative, name=name)


def language_model_judge(
    materials: Materials,
    *,
    model: str,
    ask: Literal["yes-no", "grade", "list"] = "yes-no",
    url: str = "",
    api_key_variable: str = "",
    prompt: str = "",
    cache: str = "",
    max_words: int = 400,
    max_tokens: int = 0,
    max_cost: float = 0.0,
    price_in: float = 0.0,
    price_out: float = 0.0,
    name: str = "",
) -> Judge:
    """A language model, local or behind a URL, that is asked yes or no or a grade about a pair, or to choose from a list."""
    from rivals.models.language import Budget, CachedLanguageModel, EndpointLanguageModel, LocalLanguageModel

    opened: LanguageModel
    if url:
        limits = Budget(max_tokens=max_tokens or None, max_cost=max_cost or None) if max_tokens or max_cost else None
        key = api_key_variable or None
        opened = EndpointLanguageModel(
            url, model, api_key_variable=key, budget=limits, price_in=price_in, price_out=price_out
        )
    else:
        opened = LocalLanguageModel.load(model_name(model), device=materials.device)
    opened = CachedLanguageModel(opened, cache) if cache else opened
    kinds: dict[str, Any] = {"yes-no": YesNoJudge, "grade": GradedJudge, "list": ListJudge}
    template = [Path(prompt)] if prompt else []  # else the packaged one
    judge: Judge = kinds[ask](opened, *template, max_words=max_words, name=name)
    return judge


# ------------------------------------------------------------------------------------------------ the tables

#: Who proposes candidates. United in the order given; the last one that scores pairs scores all of them.
SOURCES: dict[str, Part] = {
    "bm25": Part(bm25, materials="itself"),
    "dense": Part(dense, materials="itself", encodes=True),
    "ensemble": Part(ensemble, materials="itself", encodes=True),
    "clusters": Part(cluster_members, materials="itself", encodes=True),
    "links": Part(links, materials="itself", encodes=True),
    "random": Part(RandomSource, documents="documents", seed="seed"),
    "in-batch": Part(InBatchSource, dataset="dataset", seed="seed"),
    "file": Part(ReadyMade.load, dataset="dataset"),
    "run": Part(saved_run, dataset="dataset"),
}

#: What marks candidates, in the order given, behind known positives and duplicate texts.
FILTERS: dict[str, Part] = {
    "positive-aware": Part(PositiveAware),
    "closer-than-positive": Part(CloserThanPositive, source="dense"),
    "neighbour-noise": Part(NeighbourNoise, source="dense"),
    "answer-match": Part(answer_match, materials="itself"),
    "complementary": Part(complementary, materials="itself", encodes=True),
    "same-cluster": Part(same_cluster, materials="itself", encodes=True),
    "cluster-weight": Part(cluster_weight, materials="itself", encodes=True),
    "adapter": Part(adapter, materials="itself", encodes=True),
    "large-loss": Part(LargeLoss),
    "pseudo-labels": Part(AsymmetricPseudoLabels),
    "cross-encoder": Part(cross_encoder, materials="itself"),
    "judge": Part(JudgeThreshold, judges=("judge",)),
    "soft-targets": Part(SoftTargets, judges=("judge",)),
    "verify": Part(Verify, judges=("verifiers",)),
    "cascade": Part(Cascade, judges=("judges",)),
}

#: How negatives are drawn from what is left.
SAMPLERS: dict[str, Part] = {
    "top": Part(Top, k="negatives"),
    "uniform": Part(Uniform, k="negatives"),
    "softmax": Part(Softmax, k="negatives"),
    "ambiguous": Part(Ambiguous, k="negatives"),
    "strided": Part(Strided, k="negatives"),
    "rotate": Part(Rotate, k="negatives"),
    "sliding-window": Part(SlidingWindow, k="negatives"),
    "resample": Part(Resample, k="negatives"),
    "self-adversarial": Part(SelfAdversarial, k="negatives"),
    "joint": Part(Joint, k="negatives"),
}

#: Who says whether a candidate is relevant, for filters and for the estimate of false negatives.
JUDGES: dict[str, Part] = {
    "labels": Part(LabelJudge.load),
    "dense": Part(dense_judge, materials="itself", encodes=True),
    "cross-encoder": Part(cross_encoder_judge, materials="itself"),
    "language-model": Part(language_model_judge, materials="itself"),
}

TABLES: dict[str, dict[str, Part]] = {"source": SOURCES, "filter": FILTERS, "sampler": SAMPLERS, "judge": JUDGES}
