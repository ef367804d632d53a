"""Late-interaction models against sentence-transformers' own, their folders, and scores of units (paper 31's checks)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import ModelError, RivalsError
from rivals.models.encoder import Encoder
from rivals.models.late_interaction import any_granularity_score, max_sim, unit_max_sim
from rivals.models.late_interaction_model import LateInteraction, MultiVectorLayout, QueryExpansion
from rivals.models.scored_tokens import unit_of_tokens
from rivals.models.vocabulary import add_tokens

QUERIES = ["cause of flu", "the red zebra!", "a"]
DOCUMENTS = ["the cat sat on a mat.", "fever, cause of flu. treat red zebra!", "virus"]


@pytest.fixture
def encoder(tiny: Path) -> Encoder:
    return Encoder.load(tiny, device="cpu", dtype="float32")


LAYOUTS = {
    "plain": (MultiVectorLayout(), 8),
    "no layer": (MultiVectorLayout(query_length=4), None),
    "lengths": (MultiVectorLayout(query_length=6, document_length=7, similarity="maxsim"), 8),
    "expanded": (MultiVectorLayout(expansion=QueryExpansion(10), skip=(".", ","), similarity="maxsim"), 8),
    "attended": (MultiVectorLayout(expansion=QueryExpansion(10, attend=True), skip=("!",)), 8),
    "at least": (MultiVectorLayout(expansion=QueryExpansion(5, fixed=False), query_length=8), 8),
}


def made(encoder: Encoder, name: str, **options: object) -> LateInteraction:
    layout, dimension = LAYOUTS[name]
    return LateInteraction.from_encoder(encoder, dimension=dimension, layout=layout, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("form", ["sentence-transformers", "pylate"])
def test_sentence_transformers_reads_both_forms_alike(encoder: Encoder, tmp_path: Path, name: str, form: str) -> None:
    from sentence_transformers import MultiVectorEncoder

    model = made(encoder, name, markers={"query": "[Q]", "document": "[D]"})
    if form == "pylate" and name in ("no layer", "at least"):
        with pytest.raises(RivalsError, match="PyLate's format has"):
            model.save(tmp_path / "saved", form="pylate")
        assert not (tmp_path / "saved").exists()
        return
    model.save(tmp_path / "saved", form=form)  # type: ignore[arg-type]
    theirs = MultiVectorEncoder(str(tmp_path / "saved"), device="cpu")
    for role, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        mine = model.encode(texts, role, storage="float32", progress=False)  # type: ignore[arg-type]
        expected = (theirs.encode_query if role == "query" else theirs.encode_document)(texts, convert_to_numpy=True)
        assert np.diff(mine.offsets).tolist() == [len(rows) for rows in expected]
        np.testing.assert_allclose(mine.vectors, np.concatenate(expected), atol=1e-5)
    scores = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS)).cpu().numpy()
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), scores, atol=1e-4)
    back = LateInteraction.load(tmp_path / "saved", device="cpu", dtype="float32")
    np.testing.assert_allclose(back.score(QUERIES, DOCUMENTS), model.score(QUERIES, DOCUMENTS), atol=1e-6)


def test_what_sentence_transformers_writes_is_read(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    theirs = MultiVectorEncoder(str(tiny), device="cpu")
    theirs[0].query_expansion = {"strategy": "fixed", "attend": False, "length": 12}
    theirs.save(str(tmp_path / "theirs"))
    model = LateInteraction.load(tmp_path / "theirs", device="cpu", dtype="float32")
    assert model.dimension == 128
    assert model.layout.expansion == QueryExpansion(12)
    expected = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS)).cpu().numpy()
    np.testing.assert_allclose(model.score(QUERIES, DOCUMENTS), expected, atol=1e-4)


def test_batches_do_not_matter_and_training_mode_stays(encoder: Encoder) -> None:
    model = made(encoder, "expanded")
    whole = model.encode(DOCUMENTS * 3, "document", storage="float32", progress=False)
    model.train()
    cut = model.encode(DOCUMENTS * 3, "document", storage="float32", max_tokens=8, progress=False)
    assert model.training
    np.testing.assert_allclose(whole.vectors, cut.vectors, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(whole.vectors, axis=1), 1, atol=1e-5)


def test_forward_is_what_encode_gives(encoder: Encoder) -> None:
    model = made(encoder, "expanded")
    tokens = model.tokenize(QUERIES, "query")
    ids, mask = tokens.pad(np.arange(3))
    assert ids.shape == (3, 10)
    assert mask.sum(1).tolist() == tokens.attended.tolist()
    vectors = model(ids, mask)[torch.from_numpy(tokens.scored_mask(np.arange(3), 10))]
    expected = model.encode(QUERIES, "query", storage="float32", progress=False)
    np.testing.assert_allclose(vectors.detach().numpy(), expected.vectors, atol=1e-5)


def test_markers_are_new_rows_that_start_from_others(encoder: Encoder) -> None:
    before = encoder.backbone.get_input_embeddings().weight.detach().clone()
    model = made(encoder, "plain", markers={"query": "[Q]", "document": "[D]", "fine": "[Q1]"})
    weight = encoder.backbone.get_input_embeddings().weight.detach()
    assert len(weight) == len(before) + 3
    assert torch.equal(weight[: len(before)], before)
    ids = encoder.tokenizer.convert_tokens_to_ids(["[CLS]", "[Q]", "[D]", "[Q1]"])
    for new in ids[1:]:
        assert torch.equal(weight[new], weight[ids[0]])
    assert model.tokenize(["flu"], "query").ids[:2].tolist() == ids[:2]
    assert model.tokenize(["flu"], "query", fine=True).ids[:2].tolist() == [ids[0], ids[3]]
    assert add_tokens(encoder.backbone, encoder.tokenizer, {"[Q]": "[SEP]"}) == {"[Q]": ids[1]}  # there already: kept
    assert torch.equal(encoder.backbone.get_input_embeddings().weight[ids[1]], weight[ids[0]])


SENTENCES = [[(0, 3), (4, 21)], [(0, 20), (21, 37)], [(0, 5)]]


def test_units_are_scored_by_their_own_tokens_of_the_whole_passage(encoder: Encoder) -> None:
    model = made(encoder, "plain", markers={"query": "[Q]", "fine": "[Q1]"})
    with torch.no_grad():  # otherwise both markers are one
        weight = encoder.backbone.get_input_embeddings().weight
        weight[-1] = weight[7]
    scores = model.score_units(QUERIES, DOCUMENTS, SENTENCES, alpha=0.5)
    found = model.encode(DOCUMENTS, "document", storage="float32", progress=False)
    spans = model.token_spans(DOCUMENTS, "document")
    fine = model.encode(QUERIES, "query", fine=True, storage="float32", progress=False)
    coarse = model.score(QUERIES, DOCUMENTS)
    column = 0
    for document, own in enumerate(SENTENCES):
        for first, last in own:
            rows = np.arange(found.offsets[document], found.offsets[document + 1])
            rows = rows[(spans[rows, 0] >= first) & (spans[rows, 0] < last)]
            for query in range(3):
                asked = fine.vectors[fine.offsets[query] : fine.offsets[query + 1]]
                expected = (asked @ found.vectors[rows].T).max(1).mean() + 0.5 * coarse[query, document]
                assert scores[query, column] == pytest.approx(expected, abs=1e-5)
            column += 1
    assert not np.allclose(scores, model.score_units(QUERIES, DOCUMENTS, SENTENCES, alpha=0.5, fine=False))
    far = model.score_units(QUERIES, DOCUMENTS, SENTENCES, alpha=1e4)  # the units follow their passages
    assert (coarse.argmax(1) == np.repeat(np.arange(3), [2, 2, 1])[far.argmax(1)]).all()


def test_one_unit_that_covers_all_is_the_passage_up_to_its_special_tokens(encoder: Encoder) -> None:
    model = made(encoder, "no layer")
    whole = [[(0, len(text))] for text in DOCUMENTS]
    scores = model.score_units(QUERIES, DOCUMENTS, whole, alpha=0.0)
    assert (scores <= model.score(QUERIES, DOCUMENTS) + 1e-6).all()
    mixed = model.score_units(QUERIES, DOCUMENTS, [[(0, 3), (3, len(t))] for t in DOCUMENTS], alpha=0.0)
    assert (mixed.reshape(3, 3, 2) <= scores[:, :, None] + 1e-6).all()


def test_a_unit_cut_off_is_absent_and_parts_of_queries_count_alone(encoder: Encoder) -> None:
    model = LateInteraction.from_encoder(encoder, layout=MultiVectorLayout(document_length=6))
    text = "the cat sat on a mat"
    scores = model.score_units(["cat flu"], [text], [[(0, 7), (15, 20)]])
    assert np.isfinite(scores[0, 0])
    assert scores[0, 1] == -np.inf
    part = model.score_units(["cat flu"], [text], [[(0, 7)]], parts=[(0, 3)], alpha=0.0)
    asked = model.encode(["cat flu"], "query", storage="float32", progress=False).vectors[1]
    found = model.encode([text], "document", storage="float32", progress=False).vectors[1:3]
    assert part[0, 0] == pytest.approx(float((found @ asked).max()), abs=1e-5)
    with pytest.raises(RivalsError, match="part of query 0 holds no token"):
        model.score_units(["cat flu"], [text], [[(0, 7)]], parts=[(3, 4)])


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 7), st.integers(1, 4)),
    own=st.booleans(),
    seed=st.integers(0, 99),
)
def test_unit_max_sim_is_the_loop(sizes: tuple[int, int, int, int, int], own: bool, seed: int) -> None:
    q, t, c, length, units = sizes
    rng = torch.Generator().manual_seed(seed)
    queries = torch.randn(q, t, 3, generator=rng, dtype=torch.float64)
    lead = (q, c) if own else (c,)
    documents = torch.randn(*lead, length, 3, generator=rng, dtype=torch.float64)
    ids = torch.randint(-1, units, (*lead, length), generator=rng)
    mask = torch.rand(q, t, generator=rng) < 0.8
    scores, there = unit_max_sim(queries, documents, mask, ids, units, reduction="sum")
    whole = max_sim(queries, documents, mask, ids >= 0, reduction="sum")
    for i in range(q):
        for j in range(c):
            vectors, place = (documents[i, j], ids[i, j]) if own else (documents[j], ids[j])
            for u in range(units):
                chosen = vectors[place == u]
                assert bool(there[i if own else 0, j, u]) == bool(len(chosen))
                best = (queries[i][mask[i]] @ chosen.T).amax(1).sum() if len(chosen) else torch.zeros(())
                assert float(scores[i, j, u]) == pytest.approx(float(best), abs=1e-9)
                if len(chosen):  # a unit never beats its passage under the same query
                    assert float(scores[i, j, u]) <= float(whole[i, j]) + 1e-9
    permuted = torch.where(ids >= 0, units - 1 - ids, ids)
    torch.testing.assert_close(
        unit_max_sim(queries, documents, mask, permuted, units, reduction="sum")[0].flip(-1), scores
    )


def test_one_unit_is_max_sim() -> None:
    rng = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(2, 3, 4, generator=rng), torch.randn(5, 6, 4, generator=rng)
    mask = torch.ones(2, 3, dtype=torch.bool)
    units = unit_max_sim(queries, documents, mask, torch.zeros(5, 6, dtype=torch.long), 1)[0][..., 0]
    torch.testing.assert_close(units, max_sim(queries, documents, mask, torch.ones(5, 6, dtype=torch.bool)))


def test_passage_scores_join_units_of_different_passages() -> None:
    unit, passage = torch.tensor([[[0.1, 0.3], [0.9, 0.2]]]), torch.tensor([[1.0, 0.0]])
    assert any_granularity_score(unit, passage, alpha=2.0).tolist() == [
        [[pytest.approx(2.1), pytest.approx(2.3)], [pytest.approx(0.9), pytest.approx(0.2)]]
    ]
    with pytest.warns(UserWarning, match="alpha is -1"):
        any_granularity_score(unit, passage, alpha=-1)
    with pytest.raises(RivalsError, match="need passage scores"):
        any_granularity_score(unit, passage[0])
    with pytest.raises(RivalsError, match=r"-1\.\.1; found 0\.\.2"):
        unit_max_sim(torch.ones(1, 1, 1), torch.ones(1, 3, 1), torch.ones(1, 1).bool(), torch.tensor([[0, 1, 2]]), 2)


@pytest.mark.parametrize("units", [[[(0, 0)]], [[(0, 3), (2, 4)]], [[(0, 99)]], [[(-1, 2)]], [[(3, 4), (0, 2)]]])
def test_bad_units_are_told(units: list[list[tuple[int, int]]]) -> None:
    with pytest.raises(RivalsError, match="of text 0 is empty, overlaps"):
        unit_of_tokens(np.array([[0, 2]]), np.array([0, 1]), units, ["ab cd"])


def test_other_mistakes_are_told(encoder: Encoder, tiny: Path, tmp_path: Path, make_tiny: Callable[..., Path]) -> None:
    with pytest.raises(RivalsError, match="units for 1 texts"):
        unit_of_tokens(np.array([[0, 2]]), np.array([0, 1]), [[]], ["a", "b"])
    with pytest.raises(ModelError, match="from_encoder"):
        LateInteraction.load(tiny)
    encoder.save(tmp_path / "single")
    with pytest.raises(ModelError, match="one vector a text"):
        LateInteraction.load(tmp_path / "single")
    model = made(encoder, "plain")
    model.save(tmp_path / "multi")
    assert (
        json.loads((tmp_path / "multi" / "config_sentence_transformers.json").read_text())["model_type"]
        == "MultiVectorEncoder"
    )
    (tmp_path / "multi" / "1_Dense" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="damaged"):
        LateInteraction.load(tmp_path / "multi")
    with pytest.raises(RivalsError, match="no marker for fine queries"):
        model.encode(["a"], "query", fine=True)
    with pytest.raises(RivalsError, match="marker 'other'"):
        LateInteraction.from_encoder(encoder, markers={"other": "[O]"})
    with pytest.raises(RivalsError, match="must be 1 or more"):
        QueryExpansion(0)
    with pytest.raises(ModelError, match=r"no token '.nothing.'"):
        LateInteraction.from_encoder(encoder, layout=MultiVectorLayout(expansion=QueryExpansion(4, token="[nothing]")))
