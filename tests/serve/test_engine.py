"""The engine serves what the pipeline objects give, and tells what every stage thought of each hit."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from rivals.data import Collection, Run, load_sample
from rivals.errors import IndexDamaged, RivalsError, RunFolderError
from rivals.models import Encoder
from rivals.models.pair_features import PairFeatures
from rivals.models.rerank import LateInteractionReranker
from rivals.retrieve import BM25, Dense, Index, fuse_reciprocal_rank
from rivals.serve import QueryError, SearchEngine, load_engine
from rivals.serve.engine import MAX_TEXT

QUERY = "What are the symptoms of childhood leukemia ?"


def asked(query: str = QUERY) -> Collection:
    return Collection(["q"], [query], name="query")


def ids(run: Run, k: int) -> list[str]:
    return run.documents.ids[run.document[:k]].tolist()


def test_one_stage_is_the_retriever(engine: SearchEngine, bm25: BM25, dense: Dense) -> None:
    for stage, retriever in (("bm25", bm25), ("dense", dense)):
        found = engine.search(QUERY, 5, stages=[stage])
        run = retriever(asked(), 20)
        assert [hit.id for hit in found.hits] == ids(run, 5)
        assert [hit.score for hit in found.hits] == run.score[:5].tolist()
        assert [hit.stages[stage].rank for hit in found.hits] == [1, 2, 3, 4, 5]
        assert all(list(hit.stages) == [stage] for hit in found.hits)
        assert found.stages == [stage]
        assert found.candidates == len(run)


def test_three_stages_are_the_pipeline(engine: SearchEngine, bm25: BM25, dense: Dense) -> None:
    assert engine.reranker is not None
    found = engine.search(QUERY, 10)
    run = ((bm25 | dense) >> engine.reranker)(asked(), 20)
    assert [hit.id for hit in found.hits] == ids(run, 10)
    assert found.stages == ["bm25", "dense", "rerank"]
    assert found.candidates == len(run) > 20
    lists = {"bm25": bm25(asked(), 20), "dense": dense(asked(), 20)}
    for place, hit in enumerate(found.hits):
        assert hit.rank == hit.stages["rerank"].rank == place + 1
        assert hit.score == hit.stages["rerank"].score
        for stage, own in lists.items():
            known = ids(own, 20)
            assert hit.stages[stage].rank == (known.index(hit.id) + 1 if hit.id in known else None)
            if hit.id in known:
                assert hit.stages[stage].score == pytest.approx(own.score[known.index(hit.id)], rel=1e-6)
    unseen = [hit for hit in found.hits if None in (hit.stages["bm25"].rank, hit.stages["dense"].rank)]
    assert unseen, "this query was chosen so that some hit comes from one first stage only"
    assert all(hit.stages["dense"].score is not None for hit in unseen)


def test_both_first_stages_are_fused(engine: SearchEngine, bm25: BM25, dense: Dense) -> None:
    found = engine.search(QUERY, 10, stages=["dense", "bm25"])
    fused = fuse_reciprocal_rank([bm25(asked(), 20), dense(asked(), 20)])
    assert [hit.id for hit in found.hits] == ids(fused, 10)
    assert found.stages == ["bm25", "dense"]
    assert set(found.milliseconds) == {"wait", "bm25", "dense", "fuse", "total"}


def test_reranker_after_one_stage(engine: SearchEngine, bm25: BM25, dense: Dense) -> None:
    assert engine.reranker is not None
    found = engine.search(QUERY, 4, stages=["rerank", "bm25"])
    run = bm25(asked(), 20)
    cosine = dense.score(run.queries, run.query, run.document)
    expected = engine.reranker(run.rescored(cosine, scorer="dense", score_kind="cosine"))
    assert [hit.id for hit in found.hits] == ids(expected, 4)
    assert list(found.hits[0].stages) == ["bm25", "rerank"]
    alone = engine.search(QUERY, 4, stages=["dense", "rerank"])
    assert [hit.id for hit in alone.hits] == ids((dense >> engine.reranker)(asked(), 20), 4)


def test_k_beyond_the_candidates_looks_deeper(engine: SearchEngine) -> None:
    assert len(engine.search(QUERY, 50, stages=["dense"]).hits) == 50
    everything = engine.search(QUERY, 1000, stages=["dense"])
    assert len(everything.hits) == everything.candidates == 240


def test_filters_hold_and_few_matches_are_said(engine: SearchEngine, documents: Collection, dense: Dense) -> None:
    found = engine.search(QUERY, 10, filters={"qtype": "treatment"})
    assert found.hits
    assert {hit.columns["qtype"] for hit in found.hits} == {"treatment"}
    assert found.notes == []
    ranked = [hit.stages["bm25"].rank for hit in found.hits if hit.stages["bm25"].rank]
    assert 1 in ranked, "ranks are counted among the documents that match"
    last = ids(dense(asked(), 240), 240)[-1]
    alone = engine.search(QUERY, 10, filters={"id": last})
    assert [hit.id for hit in alone.hits] == [last]
    assert alone.notes == ["Only 1 document matches the filter."]
    nothing = engine.search(QUERY, 10, filters={"id": []})
    assert nothing.hits == []
    assert nothing.notes == ["No document matches the filter."]
    again = engine.search(QUERY, 10, filters={"qtype": ["treatment"]})
    assert [hit.id for hit in again.hits] == [hit.id for hit in found.hits]


def test_matched_terms_are_spans_of_the_text(engine: SearchEngine, bm25: BM25) -> None:
    query = "symptom of leukemias"
    for hit in engine.search(query, 10).hits:
        words = [hit.text[start:end] for start, end in hit.matched_terms]
        assert all(bm25.words.terms(word)[0] in set(bm25.words.terms(query)) for word in words)
        assert ("leukemia" in hit.text.lower()) == any(word.lower().startswith("leukemia") for word in words)


def test_spans_count_code_points_and_titles_are_marked() -> None:
    documents = Collection(
        ["a"], ["\U0001f9e0\U0001f9e0 a broken heart \ufb01xed"], {"title": ["Hearts \u00e4nd minds"]}
    )
    hit = SearchEngine(documents, bm25=BM25(documents)).search("HEART").hits[0]
    assert [hit.text[a:b] for a, b in hit.matched_terms] == ["heart"]
    assert [(hit.title or "")[a:b] for a, b in hit.matched_title] == ["Hearts"]


def test_long_texts_are_cut_and_this_is_said() -> None:
    documents = Collection(["a", "b"], ["heart " * 5000, "short heart"])
    engine = SearchEngine(documents, bm25=BM25(documents))
    by_id = {hit.id: hit for hit in engine.search("heart").hits}
    assert len(by_id["a"].text) == MAX_TEXT
    assert by_id["a"].text_truncated
    assert not by_id["b"].text_truncated
    assert engine.document("a")["text"] == documents.texts[0]


def test_nothing_found_is_said(engine: SearchEngine) -> None:
    found = engine.search("xyzzy qwertz", stages=["bm25"])
    assert found.hits == []
    assert "word of the query" in found.notes[0]
    assert engine.search("xyzzy qwertz", stages=["bm25", "rerank"]).hits == []
    assert engine.search("xyzzy qwertz").hits, "the dense stage always has candidates"


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        ({"query": ""}, "query", "empty"),
        ({"query": " \n\t"}, "query", "empty"),
        ({"query": "a \ud800"}, "query", "surrogates"),
        ({"query": "a", "k": 0}, "k", "at least 1"),
        ({"query": "a", "k": True}, "k", "at least 1"),
        ({"query": "a", "stages": []}, "stages", "at least one of bm25 and dense"),
        ({"query": "a", "stages": ["rerank"]}, "stages", "at least one of bm25 and dense"),
        ({"query": "a", "stages": ["bm25", "magic"]}, "stages", "'magic' is not a stage"),
        ({"query": "a", "filters": {"colour": "red"}}, "filters.colour", "no column 'colour'"),
        ({"query": "a", "filters": {"qtype": 3}}, "filters.qtype", "holds string"),
    ],
)
def test_bad_queries(engine: SearchEngine, arguments: dict, field: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        engine.search(**arguments)
    assert caught.value.field == field


def test_engine_without_models() -> None:
    documents = Collection(["a", "b"], ["heart attack", "broken bones"])
    engine = SearchEngine(documents, bm25=BM25(documents))
    assert engine.stages == ("bm25",)
    assert [hit.id for hit in engine.search("bone").hits] == ["b"]
    with pytest.raises(QueryError, match=r"its stages are bm25$"):
        engine.search("bone", stages=["dense"])
    with pytest.raises(RivalsError, match="different documents"):
        SearchEngine(documents, bm25=BM25(documents.take([0])))
    with pytest.raises(RivalsError, match="candidates"):
        SearchEngine(documents, bm25=BM25(documents), candidates=0)


def test_columns_worth_a_choice(engine: SearchEngine, documents: Collection) -> None:
    offered = {filter["column"]: filter["values"] for filter in engine.filters}
    assert set(offered) <= {"source", "qtype", "focus", "topic"}
    counts = [value["count"] for value in offered["qtype"]]
    assert sum(counts) == 240
    assert counts == sorted(counts, reverse=True)


def test_a_query_is_encoded_once(
    documents: Collection, bm25: BM25, dense: Dense, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SearchEngine(documents, bm25=bm25, dense=dense, candidates=20)
    calls: list[list[str]] = []
    encode = dense.encoder.encode

    def counting(texts: list[str], **options: object) -> np.ndarray:
        calls.append(texts)
        return encode(texts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dense.encoder, "encode", counting)
    engine.search("how is asthma treated")
    engine.search("how is asthma treated", stages=["dense"], filters={"qtype": "treatment"})
    assert calls == [["how is asthma treated"]]


def test_many_threads_get_their_own_answers(engine: SearchEngine) -> None:
    queries = load_sample().split("test").queries.texts[:24]
    alone = {query: [(hit.id, hit.score) for hit in engine.search(query).hits] for query in queries}
    together: dict[str, list[tuple[str, float]]] = {}

    def work(part: list[str]) -> None:
        for query in part:
            together[query] = [(hit.id, hit.score) for hit in engine.search(query).hits]

    threads = [threading.Thread(target=work, args=(queries[i::6],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert together == alone


@pytest.fixture
def run_folder(tmp_path: Path, documents: Collection, encoder: Encoder, dense: Dense, bm25: BM25) -> Path:
    encoder.save(tmp_path / "run" / "models" / "retriever")
    index = Index(documents, vectors=dense.vectors, encoder_fingerprint=dense.fingerprint, bm25=bm25)
    index.save(tmp_path / "run" / "index")
    return tmp_path / "run"


def test_load_engine(run_folder: Path, engine: SearchEngine) -> None:
    loaded = load_engine(run_folder, candidates=20)
    assert loaded.stages == ("bm25", "dense")
    assert loaded.name == "run"
    for stages in (["bm25"], ["dense"], ["bm25", "dense"]):
        one, other = (e.search(QUERY, stages=stages) for e in (loaded, engine))
        assert [hit.id for hit in one.hits] == [hit.id for hit in other.hits]
        np.testing.assert_allclose([h.score for h in one.hits], [h.score for h in other.hits], rtol=1e-4)


def test_load_engine_with_a_second_stage(
    run_folder: Path, documents: Collection, encoder: Encoder, dense: Dense, bm25: BM25
) -> None:
    features, _ = PairFeatures.build(encoder, documents)
    reranker = LateInteractionReranker(features, weight=0.5, depth=15)
    reranker.save(run_folder / "models" / "second_stage")
    (run_folder / "config.json").write_text(json.dumps({"config": {"candidates": 25}}))
    loaded = load_engine(run_folder)
    assert loaded.stages == ("bm25", "dense", "rerank")
    assert loaded.candidates == 25
    run = ((bm25 | dense) >> reranker)(asked(), 25)
    found = loaded.search(QUERY)
    assert [hit.id for hit in found.hits] == ids(run, 10)
    np.testing.assert_allclose([hit.score for hit in found.hits], run.score[:10], rtol=1e-4)
    (run_folder / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"config\.json cannot be read"):
        load_engine(run_folder)


def test_load_engine_refuses(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run folder"):
        load_engine(tmp_path / "nowhere")
    (run_folder / "index" / "vectors.npy").write_bytes(b"cut")
    with pytest.raises(IndexDamaged, match=r"vectors\.npy"):
        load_engine(run_folder)
    (run_folder / "index").rename(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="no index/"):
        load_engine(run_folder)
