"""Second stages: fitted on dev, never below the first stage when the code chooses, saved and loaded the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import ModelError, RivalsError
from rivals.measures import ndcg
from rivals.models import Encoder
from rivals.models.list_ranker import ContextRanker
from rivals.models.pair_features import PairFeatures
from rivals.models.rerank import (
    LateInteractionReranker,
    ListwiseReranker,
    SecondStage,
    load_reranker,
    mixed,
    standardised,
)
from rivals.retrieve import Dense
from rivals.training.second_stage import dev_score, fit_second_stage, train_ranker
from tests.models.tiny import WORDS, write_tiny_bert

KINDS = ("late-interaction", "list-wise", "cross-encoder")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_tiny_bert(tmp_path_factory.mktemp("m") / "tiny"), device="cpu", dtype="float32")


def toy(queries: int, seed: int) -> Dataset:
    """Queries are three words of their document, so that exact matches tell what a random encoder does not."""
    rng = np.random.default_rng(7)
    texts = [" ".join(rng.choice(WORDS[:14], 8)) for _ in range(30)]
    rng = np.random.default_rng(seed)
    relevant = rng.integers(0, 30, queries)
    asked = [" ".join(rng.choice(texts[d].split(), 3, replace=False)) for d in relevant]
    others = (relevant + 1) % 30
    judgements = Judgements.build(
        [*range(queries), *range(queries)],
        [*relevant, *others],
        [1] * queries + [-1] * queries,  # judged and not relevant, as TREC does with spam
        queries=queries,
        documents=30,
    )
    ids = [f"s{seed}q{i}" for i in range(queries)]
    return Dataset(
        Collection(ids, asked, name="query"), DOCUMENTS or Collection([f"d{i}" for i in range(30)], texts), judgements
    )


DOCUMENTS: Collection | None = None
DOCUMENTS = toy(1, 0).documents


@pytest.fixture(scope="module")
def first(encoder: Encoder) -> Dense:
    return Dense(encoder, toy(1, 0).documents, show_progress=False)


@pytest.fixture(scope="module")
def features(encoder: Encoder) -> PairFeatures:
    return PairFeatures.build(encoder, toy(1, 0).documents)[0]


def fit_kind(kind: str, first: Dense, encoder: Encoder, folder: Path, **options: Any) -> Any:
    return fit_second_stage(
        kind,
        first=first,
        encoder=encoder,
        train=toy(40, 1),
        dev=toy(12, 2),
        folder=folder,
        **{"depth": 12, "candidates": 20, **options},
    )


class Fixed(SecondStage):
    """New scores as told, by document row."""

    kind = "fixed"

    def __init__(self, depth: int, score: Callable[[Run], np.ndarray]) -> None:
        self.depth, self.new = depth, score

    def score_head(self, head: Run) -> np.ndarray:
        return self.new(head)

    def write(self, folder: Path) -> dict[str, Any]:
        return {}


def random_run(lengths: list[int], scale: float = 1.0, seed: int = 0) -> Run:
    rng = np.random.default_rng(seed)
    documents = Collection([f"d{i:02d}" for i in range(40)], ["x"] * 40)
    document = np.concatenate([rng.permutation(40)[:n] for n in lengths] or [np.zeros(0, np.int64)])
    queries = Collection([f"q{i}" for i in range(len(lengths))], ["y"] * len(lengths), name="query")
    return Run.build(
        queries,
        documents,
        np.concatenate([[0], np.cumsum(lengths)]),
        document,
        scale * rng.random(len(document)),
        scorer="a",
    )


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("depth", [1, 3, 50])
def test_only_the_head_moves(scale: float, depth: int) -> None:
    run = random_run([7, 0, 3, 30, 1])
    stage = Fixed(depth, lambda head: (-scale * (1 + head.document)).astype(np.float32))
    done = stage(run)
    for row in range(5):
        before = run.document[run.offsets[row] : run.offsets[row + 1]].tolist()
        after = done.document[done.offsets[row] : done.offsets[row + 1]].tolist()
        assert after == sorted(before[:depth]) + before[depth:]
        scores = done.score[done.offsets[row] : done.offsets[row + 1]]
        assert (np.diff(scores[min(depth, len(scores)) - 1 :]) < 0).all() if len(scores) else True
    assert done.queries is run.queries
    assert "a" in done.features


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [4]])
def test_few_or_no_candidates(lengths: list[int]) -> None:
    run = random_run(lengths)
    done = Fixed(2, lambda head: head.score)(run)
    assert len(done) == len(run)
    assert np.array_equal(done.document, run.document)


def test_dev_score_counts_what_was_missed() -> None:
    data = toy(6, 3)
    rng = np.random.default_rng(0)
    document = np.concatenate([rng.permutation(30)[:12] for _ in range(6)])
    run = Run.build(data.queries, data.documents, np.arange(7) * 12, document, rng.random(72))
    known = data.judgements.positives
    expected = []
    for row in range(6):
        found = run.document[run.offsets[row] : run.offsets[row + 1]].tolist()[:10]
        (relevant,) = known.document[known.offsets[row] : known.offsets[row + 1]]
        expected.append(1 / np.log2(found.index(relevant) + 2) if relevant in found else 0.0)
    assert dev_score(run, data) == pytest.approx(np.mean(expected), rel=1e-6)
    unjudged = Dataset(data.queries, data.documents, Judgements.build([0], [0], [0], queries=6, documents=30))
    with pytest.raises(RivalsError, match="no dev query has a relevant document"):
        dev_score(run, unjudged)


def test_a_new_ranker_changes_no_order(first: Dense, features: PairFeatures) -> None:
    run = first(toy(12, 2), 20)
    for shape in ({"fc": (), "n_layers": 0}, {"fc": (8,), "n_layers": 1, "heads": 2, "d_ff": 8}):
        seen = []

        def judge(ranker: ContextRanker, shape: dict[str, Any] = shape, seen: list[Any] = seen) -> float:
            full = {"n_features": 18, **shape}
            stage = ListwiseReranker(features, ranker, full, np.zeros(9, np.float32), np.ones(9, np.float32), 8.0, 12)
            seen.append(stage(run).document)
            return -len(seen)  # the first is the best

        data = [
            torch.randn(9, 5, 18),
            torch.randn(9, 5),
            torch.eye(5)[torch.arange(9) % 5],
            torch.ones(9, 5, dtype=torch.bool),
        ]
        ranker = train_ranker({"n_features": 18, **shape}, data, judge, epochs=2, seed=0)
        assert np.array_equal(seen[0], run.document)
        assert not np.array_equal(seen[2], run.document)
        assert (ranker.output.weight == 0).all()  # what was best on dev is what comes back
        assert not ranker.training


def test_the_ranker_learns_and_repeats() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(128, 6, 3, generator=rng)
    mask = torch.rand(128, 6, generator=rng) < 0.8
    mask[:, 0] = True
    relevance = torch.zeros(128, 6)
    best = inputs[..., 1].masked_fill(~mask, -9).argmax(1)
    relevance[torch.arange(128), best] = 1
    base = torch.zeros(128, 6)

    def judge(ranker: ContextRanker) -> float:
        return float(ndcg(ranker.score(inputs, mask).detach(), relevance, mask, k=1).mean())

    shape = {"n_features": 3, "fc": (), "n_layers": 0}
    one, two = (
        train_ranker(shape, [inputs, base, relevance, mask], judge, epochs=8, seed=5, batch_size=8, learning_rate=0.03)
        for _ in range(2)
    )
    assert judge(one) > 0.9
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_asked_for_is_fitted_and_loads_as_it_was_saved(
    kind: str, first: Dense, encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    result = fit_kind(kind, first, encoder, folder, epochs=3 if kind == "list-wise" else 0)
    dev = toy(12, 2)
    run = first(dev, 20)
    stage = load_reranker(folder, encoder, dev.documents)
    assert stage.kind == kind
    assert dev_score(stage(run), dev) == pytest.approx(result.dev_scores[result.chosen], abs=1e-6)
    assert result.dev_scores["first stage alone"] == pytest.approx(dev_score(run, dev))
    assert result.chosen == max(
        (n for n in result.dev_scores if n != "first stage alone"), key=result.dev_scores.__getitem__
    )
    test = first(toy(5, 4), 20)
    stage.save(tmp_path / "copy")
    again = load_reranker(tmp_path / "copy", encoder)
    assert np.array_equal(again(test).document, stage(test).document)
    assert np.array_equal(again(test).score, stage(test).score)
    one = again(test.take([3]))  # one question, as a server asks
    assert np.array_equal(one.document, stage(test).take([3]).document)
    for odd in (test.take([]), Run.build(test.queries, test.documents, np.zeros(6, np.int64), [], [])):
        assert len(again(odd)) == 0
    some = Run.build(test.queries, test.documents, [0, 2, 2, 3, 3, 3], [4, 5, 9], [0.3, 0.2, 0.1])
    assert np.diff(again(some).offsets).tolist() == [2, 0, 1, 0, 0]


def test_list_wise_uses_exact_matches(first: Dense, encoder: Encoder, features: PairFeatures, tmp_path: Path) -> None:
    result = fit_kind("auto", first, encoder, tmp_path, features=features)
    assert result.chosen.startswith("list-wise")
    assert result.dev_scores[result.chosen] > result.dev_scores["first stage alone"] + 0.1
    assert result.dev_scores[result.chosen] == max(result.dev_scores.values())


def test_none_and_auto_that_finds_nothing_better(
    first: Dense, encoder: Encoder, features: PairFeatures, tmp_path: Path
) -> None:
    result = fit_kind("none", first, encoder, tmp_path / "a")
    assert result.chosen == "none"
    assert list(result.dev_scores) == ["first stage alone"]
    dev = toy(12, 2)
    best = first(dev, 1)  # dev questions whose relevant document is first already: nothing can be better
    judgements = Judgements.build(np.arange(12), best.document, np.ones(12), queries=12, documents=30)
    result = fit_second_stage(
        "auto",
        first=first,
        encoder=encoder,
        train=toy(10, 1),
        dev=Dataset(dev.queries, dev.documents, judgements),
        folder=tmp_path / "b",
        features=features,
        depth=12,
        candidates=20,
    )
    assert (result.chosen, result.dev_scores["first stage alone"]) == ("none", 1.0)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_nothing_to_learn_from(first: Dense, encoder: Encoder, features: PairFeatures, tmp_path: Path) -> None:
    with pytest.raises(RivalsError, match="'magic' is not known"):
        fit_kind("magic", first, encoder, tmp_path)
    train = toy(4, 1)
    empty = Dataset(train.queries, train.documents, Judgements.build([0], [3], [0], queries=4, documents=30))
    for kind in ("list-wise", "cross-encoder"):
        with pytest.raises(RivalsError, match="learn from that"):
            fit_second_stage(
                kind, first=first, encoder=encoder, train=empty, dev=toy(4, 2), folder=tmp_path, features=features
            )


@pytest.fixture(scope="module")
def saved(encoder: Encoder, features: PairFeatures, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from rivals.models import CrossEncoder
    from rivals.models.rerank import CrossEncoderReranker

    folder = tmp_path_factory.mktemp("saved")
    shape = {"n_features": 18, "fc": (), "n_layers": 0}
    nine = np.zeros(9, np.float32)
    encoder.save(folder / "encoder")
    stages: dict[str, SecondStage] = {
        "late-interaction": LateInteractionReranker(features, 0.3, 10),
        "list-wise": ListwiseReranker(features, ContextRanker(**shape), shape, nine, nine + 1, 10.0, 10),  # type: ignore[arg-type]
        "cross-encoder": CrossEncoderReranker(CrossEncoder.load(folder / "encoder", device="cpu"), 0.5, 10, 32),
    }
    for kind, stage in stages.items():
        stage.save(folder / kind)
    return {kind: folder / kind for kind in stages}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_names_itself_in_one_line(saved: dict[str, Path], kind: str, encoder: Encoder) -> None:
    """Errors and reports quote it; the weights have no place there."""
    stage = load_reranker(saved[kind], encoder)
    assert repr(stage) == f"{type(stage).__name__}(depth=10)"


@pytest.mark.parametrize("kind", ["late-interaction", "list-wise"])
def test_another_encoder_or_other_documents(
    saved: dict[str, Path], kind: str, encoder: Encoder, tmp_path: Path
) -> None:
    other = Encoder.load(write_tiny_bert(tmp_path / "other", seed=5), device="cpu", dtype="float32")
    with pytest.raises(ModelError, match="another encoder"):
        load_reranker(saved[kind], other)
    with pytest.raises(ModelError, match="other documents"):
        load_reranker(saved[kind], encoder, Collection(["a"], ["b"]))
    with pytest.raises(RivalsError, match="other documents"):
        load_reranker(saved[kind], encoder)(random_run([3]))


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "one bit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_one_clear_error(
    saved: dict[str, Path], encoder: Encoder, kind: str, how: str, tmp_path: Path
) -> None:
    import shutil

    names = [path.relative_to(saved[kind]) for path in sorted(saved[kind].rglob("*")) if path.is_file()]
    assert len(names) >= 6
    for name in names:
        if name.name == "second_stage.json" and how == "one bit":
            continue  # the file that holds the checksums has none
        copy = tmp_path / name.name
        shutil.copytree(saved[kind], copy)
        damaged(copy / name, how)
        with pytest.raises(ModelError) as caught:
            load_reranker(copy, encoder)
        assert "\n" not in str(caught.value)
        assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"kind": "other"},
        {"depth": "many"},
        {"depth": None},
        {"weight": None},
        {"checksums": 3},
        {"features": None},
        {"features": {}},
    ],
)
def test_a_spec_that_does_not_fit(
    saved: dict[str, Path], encoder: Encoder, change: dict[str, Any], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(saved["late-interaction"], folder)
    about = json.loads((folder / "second_stage.json").read_text())
    for name, value in change.items():
        if value is None:
            del about[name]
        else:
            about[name] = value
    (folder / "second_stage.json").write_text(json.dumps(about))
    with pytest.raises(ModelError):
        load_reranker(folder, encoder)
    (folder / "second_stage.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot be read"):
        load_reranker(folder, encoder)


def test_mixing_by_hand() -> None:
    offsets = np.array([0, 3, 3, 5, 6])
    values = np.array([1.0, 2.0, 3.0, 7.0, 7.0, 4.0])
    flat = np.sqrt(1.5)
    np.testing.assert_allclose(standardised(values, offsets), [-flat, 0, flat, 0, 0, 0], atol=1e-6)
    columns = np.column_stack([values, 10 * values + 3])
    np.testing.assert_allclose(standardised(columns, offsets)[:, 1], standardised(values, offsets), atol=1e-6)
    first, second = values.astype(np.float32), -values.astype(np.float32)
    np.testing.assert_allclose(mixed(first, second, offsets, 0.25), 0.5 * standardised(values, offsets), atol=1e-6)
