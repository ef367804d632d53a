"""Any scorer under any loss: list-wise rankers, students of rankers, and that a broken-off training ends the same."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import (
    info_nce_loss,
    lambda_loss,
    pairwise_logistic_loss,
    progressive_info_nce_loss,
    softmax_loss,
)
from rivals.losses.progressive import ProgressiveInfoNCE
from rivals.negatives import Uniform
from rivals.negatives.joint import Joint
from rivals.training import CachedGradients, LoopConfig, Negatives, Plain, Refresh, Together, fit
from rivals.training.held_out import Reranking
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.ranker import ScorerObjective, TaughtObjective, frozen_scores, zero_loss_share
from rivals.training.schedules import Progressive
from rivals.training.scorers import rescore
from tests.training.small_world import QUERIES, World, accuracy, assert_same_after_breaks, train


def negatives_of(world: World, k: int = 3) -> Negatives:
    return Negatives(world.run(), Uniform(k))


class Fixed:
    """Scores that are given, by place in the list."""

    def __init__(self, values: list[float]) -> None:
        self.model = nn.Linear(1, 1)
        self.values = nn.Parameter(torch.tensor(values))

    def __call__(self, query: Any, document: Any, mask: Any) -> Tensor:
        return self.values.expand(len(query), -1).masked_fill(~torch.from_numpy(mask), 0.0)


def test_the_list_wise_loss_by_hand() -> None:
    world = World()
    objective = ScorerObjective(
        Fixed([2.0, 1.0, 0.0]), QueryBatches(world.dataset, 4, negatives=negatives_of(world, 2))
    )
    loss = objective.loss(objective.batches(0)[0], torch.Generator())
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)), abs=1e-6)
    assert loss.item() == pytest.approx(0.407605964, abs=1e-6)


def test_star_and_ance_are_one_loss_over_other_columns() -> None:
    world = World()
    negatives, scorer = negatives_of(world, 1), world.retriever(dropout=0.0)
    star = ScorerObjective(
        scorer, QueryBatches(world.dataset, 4, negatives=negatives, share="all"), pairwise_logistic_loss
    )
    batch = star.batches(0)[0]
    matrix = scorer(batch.anchor, batch.columns, np.ones(batch.mask.shape, bool)).detach().double().numpy()
    known = world.dataset.judgements.positives
    terms = []
    for row, query in enumerate(batch.anchor):
        own = matrix[row][batch.relevance[row] > 0].item()
        relevant = known.document[known.query == query]
        terms += [
            np.logaddexp(0, matrix[row, column] - own)
            for column, document in enumerate(batch.columns)
            if document not in relevant
        ]
    assert float(star.loss(batch, torch.Generator()).detach()) == pytest.approx(np.mean(terms), rel=1e-5)
    ance = ScorerObjective(scorer, QueryBatches(world.dataset, 4, negatives=negatives), pairwise_logistic_loss)
    lists = CandidateLists.of(ance.batches(0)[0])
    pairs = scorer(lists.query, lists.document, lists.mask).detach()
    expected = torch.nn.functional.softplus(pairs[:, 1] - pairs[:, 0]).mean()
    assert float(ance.loss(ance.batches(0)[0], torch.Generator()).detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["retriever", "ranker"])
def test_it_learns(kind: str) -> None:
    world = World()
    scorer = getattr(world, kind)(dropout=0.0)
    before = accuracy(scorer)
    objective = ScorerObjective(scorer, QueryBatches(world.dataset, 6, negatives=negatives_of(world, 6)))
    fit(objective, LoopConfig(epochs=25, learning_rate=0.03, evaluations=0, precision="float32"))
    assert accuracy(scorer) > before + 0.2


@pytest.mark.parametrize(
    "loss", [softmax_loss, pairwise_logistic_loss, lambda_loss, partial(info_nce_loss, temperature=1.0)]
)
@pytest.mark.parametrize("kind", ["retriever", "ranker"])
def test_any_scorer_trains_under_any_list_loss(kind: str, loss: Any) -> None:
    world = World()
    objective = ScorerObjective(
        getattr(world, kind)(dropout=0.0), QueryBatches(world.dataset, 18, negatives=negatives_of(world)), loss
    )
    batch = objective.batches(0)[0]
    before = float(objective.loss(batch, torch.Generator()).detach())
    fit(objective, LoopConfig(epochs=15, learning_rate=0.01, evaluations=0, precision="float32"))
    assert float(objective.loss(batch, torch.Generator()).detach()) < before


def test_the_run_s_weights_reach_the_loss() -> None:
    world = World()
    run = world.run()
    run = run.replace(weight=np.where(run.rank == 0, 5.0, 1.0))
    batches = QueryBatches(world.dataset, 18, negatives=Negatives(run, Uniform(6)))
    scorer = world.retriever(dropout=0.0)
    plain, weighted = (
        ScorerObjective(scorer, batches, pairwise_logistic_loss, weighted=on).loss(batches(0)[0], torch.Generator())
        for on in (False, True)
    )
    found = CandidateLists.of(batches(0)[0])
    relevance, mask, weight = found.tensors(torch.device("cpu"))
    expected = pairwise_logistic_loss(frozen_scores(scorer, found), relevance, mask, weight=weight)
    assert float(weighted.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert float(weighted.detach()) > float(plain.detach())


def test_lists_without_negatives_are_counted_and_give_no_gradient() -> None:
    world = World()
    run = world.run()
    objective = ScorerObjective(
        world.retriever(),
        QueryBatches(world.dataset, 6, negatives=Negatives(run.mark(np.ones(len(run), bool), "all"), Uniform(2))),
    )
    with pytest.warns(UserWarning, match="have no negative"):
        loss = objective.loss(objective.batches(0)[0], torch.Generator())
    loss.backward()
    assert float(loss.detach()) == 0
    assert objective.unfilled == 6
    assert all(p.grad is None or not p.grad.any() for p in objective.model.parameters())


def test_the_gradient_cache_gives_the_same_training() -> None:
    world = World()
    for share in ("own", "all"):
        found = []
        for executor in (Plain(), CachedGradients()):
            scorer = world.retriever(dropout=0.0)
            objective = ScorerObjective(
                scorer, QueryBatches(world.dataset, 6, negatives=negatives_of(world), share=share)
            )  # type: ignore[arg-type]
            losses = fit(
                objective,
                LoopConfig(epochs=2, learning_rate=0.01, evaluations=0, precision="float32"),
                executor=executor,
            ).losses
            found.append([loss for _, loss in losses])
        assert found[0] == pytest.approx(found[1], rel=1e-5)
    objective = ScorerObjective(world.ranker(), QueryBatches(world.dataset, 6, negatives=negatives_of(world)))
    with pytest.raises(RivalsError, match="FeatureScorer scores pairs in one piece"):
        fit(objective, LoopConfig(evaluations=0), executor=CachedGradients())


def test_broken_off_it_ends_the_same(tmp_path: Path) -> None:
    world = World()

    def build() -> Any:
        scorer = world.retriever()
        negatives = negatives_of(world)
        regime = Refresh(negatives, lambda rows: scorer.search(world.dataset, 12, rows), every=4)
        evaluate = Reranking(scorer, world.run(), world.dataset)
        return ScorerObjective(scorer, QueryBatches(world.dataset, 6, negatives=negatives), evaluate=evaluate), regime

    assert_same_after_breaks(build, tmp_path, losses=(3, 7), refreshes=(1, 2), evaluations=3)


def test_held_out_scores_are_those_of_the_reranked_run() -> None:
    world = World()
    scorer, run = world.retriever(), world.run()
    score = Reranking(scorer, run, world.dataset)()
    from rivals.training.second_stage import dev_score

    assert score == dev_score(rescore(scorer, run), world.dataset)
    with pytest.raises(RivalsError, match="needs a held-out score"):
        ScorerObjective(scorer, QueryBatches(world.dataset, 6, negatives=negatives_of(world))).evaluate()


# ------------------------------------------------------------------------------------------------- joint negatives


def test_a_ranker_on_the_joint_negatives_of_two_retrievers() -> None:
    from rivals.negatives import KnownPositives
    from rivals.retrieve import Dense

    world = World()

    class By:
        """An encoder that knows rows only."""

        def __init__(self, name: str, flip: float) -> None:
            self.name, self.flip = name, flip

        def encode(self, texts: list[str], *, role: str, progress: Any) -> np.ndarray:
            vectors = world.queries if role == "query" else world.documents
            return vectors * np.where(np.arange(6) % 2, self.flip, 1.0).astype(np.float32)

        def fingerprint(self) -> str:
            return self.name

    from rivals.data import Collection, Dataset

    dataset = Dataset(
        *(
            Collection(part.ids, part.ids.tolist(), name=part.name)
            for part in (world.dataset.queries, world.dataset.documents)
        ),
        world.dataset.judgements,
    )
    one, other = (
        Dense(By(name, flip), dataset.documents, name=name, similarity="dot", show_progress=False)
        for name, flip in (("one", 1.0), ("other", 0.1))
    )
    run = KnownPositives()((one | other)(dataset, 8))
    objective = ScorerObjective(world.ranker(), QueryBatches(dataset, 6, negatives=Negatives(run, Joint(4))))
    known = dataset.judgements.positives
    for batch in objective.batches(0):
        lists = CandidateLists.of(batch)
        assert lists.mask.all()
        for query, documents in zip(lists.query, lists.document, strict=True):
            assert not set(documents[1:]) & set(known.document[known.query == query])
            assert len(set(documents)) == 5
    train(lambda: (objective, None), epochs=1)


def test_easy_lists_are_told() -> None:
    world = World()
    steep = world.ranker(dropout=0.0)
    with torch.no_grad():
        for p in steep.model.parameters():
            p.zero_()
    assert zero_loss_share(steep, world.run()) == 0.0  # equal scores: log of the list's length
    run = world.run()

    class Knows:
        model = nn.Linear(1, 1)

        def __call__(self, query: Any, document: Any, mask: Any) -> Tensor:
            good = (document == query[:, None]) | ((document == 30) & (query[:, None] == 0))
            return torch.from_numpy(np.where(good & (query[:, None] != 4), 50.0, 0.0)).float()

    assert zero_loss_share(Knows(), run) == pytest.approx((QUERIES - 1) / QUERIES)
    assert math.isnan(zero_loss_share(steep, run.mark(np.ones(len(run), bool), "all")))


# ------------------------------------------------------------------------------------------------------- distillation


def test_a_student_s_loss_by_hand() -> None:
    world = World()
    batches = QueryBatches(world.dataset, 4, negatives=negatives_of(world, 1))
    student, teacher = Fixed([0.0, 0.0]), Fixed([math.log(3.0), 0.0])
    objective = TaughtObjective(student, teacher, batches)
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = objective.loss(batches(0)[0], torch.Generator())
    assert loss.item() == pytest.approx(kl + math.log(2), abs=1e-6)
    loss.backward()
    assert student.values.grad is not None
    assert teacher.values.grad is None
    halves = [
        TaughtObjective(student, teacher, batches, contrastive=c, distillation=d) for c, d in ((0.0, 1.0), (2.0, 0.0))
    ]
    values = [half.loss(batches(0)[0], torch.Generator()).item() for half in halves]
    assert values == pytest.approx([kl, 2 * math.log(2)], abs=1e-6)


def test_a_student_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    world = World()
    teacher = world.ranker()

    def build() -> Any:
        batches = QueryBatches(world.dataset, 6, negatives=negatives_of(world, 5))
        return TaughtObjective(world.retriever(dropout=0.1), teacher, batches, contrastive=0.0), None

    objective = build()[0]
    batch = objective.batches(0)[0]
    before = float(objective.loss(batch, torch.Generator()).detach())
    train(lambda: (objective, None), epochs=20, learning_rate=0.01)
    assert float(objective.loss(batch, torch.Generator()).detach()) < 0.7 * before
    assert teacher.model.training
    assert_same_after_breaks(build, tmp_path, losses=(5,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrastive": -1.0}, "weights must be 0 or more"),
        ({"contrastive": 0.0, "distillation": 0.0}, "not both 0"),
        ({"temperature": 0.0}, "temperatures must be above 0"),
    ],
)
def test_impossible_teaching_is_told(options: Any, message: str) -> None:
    world = World()
    with pytest.raises(RivalsError, match=message):
        TaughtObjective(world.retriever(), world.ranker(), QueryBatches(world.dataset, 6, share="all"), **options)


# -------------------------------------------------------------------------------------------------------- progressive


def test_a_progressive_loss_starts_plain_and_ends_hard(tmp_path: Path) -> None:
    world = World()

    def build(mode: Any = "weights") -> Any:
        loss, negatives = ProgressiveInfoNCE(1, mode=mode, temperature=0.5), negatives_of(world)
        batches = QueryBatches(world.dataset, 6, negatives=negatives, share="all")
        regime = Together([Progressive(losses=[loss])])
        scorer = world.retriever()
        cosine = type(scorer)(scorer.query, scorer.document, similarity="cosine")
        return ScorerObjective(cosine, batches, loss), regime

    seen: list[float] = []
    objective, regime = build()
    loss = objective.list_loss
    real = objective.loss
    objective.loss = lambda *a: (seen.append(loss.progress), real(*a))[1]
    train(lambda: (objective, regime))
    assert seen == [i / 9 for i in range(9)]
    found = CandidateLists.of(objective.batches(0)[0])
    scores = frozen_scores(objective.scorer, found)
    relevance, mask, _ = found.tensors(scores.device)
    plain = info_nce_loss(scores, relevance, mask, temperature=0.5)
    regime.begin(0, 12)
    assert float(loss(scores, relevance, mask)) == pytest.approx(float(plain), rel=1e-6)
    regime.begin(6, 12)
    half = progressive_info_nce_loss(scores, relevance, mask, temperature=0.5, progress=0.5)
    assert float(loss(scores, relevance, mask)) == pytest.approx(float(half), rel=1e-6)
    for mode in ("weights", "curricular"):
        assert_same_after_breaks(lambda mode=mode: build(mode), tmp_path / mode, losses=(4, 8))
