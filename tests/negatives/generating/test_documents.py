"""Generated documents: what is kept of them, where they live, and how they meet retrieved ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import DataError, RivalsError
from rivals.negatives import PositiveAware, Top, mine_hard_negatives
from rivals.negatives.generating import (
    GeneratedForOthers,
    GeneratedSource,
    SpliceGenerator,
    TemplateGenerator,
    TextChecks,
    Widened,
    extended,
    style_probe_auc,
    write_negatives,
)
from rivals.negatives.generating.writing import write_texts
from rivals.retrieve import BM25


class Scripted:
    """Writes what a function of (query, attempt) says; attempts are told by their seeds."""

    name = "scripted"

    def __init__(self, write: Callable[[str, int], list[str]], needs_positive: bool = True) -> None:
        self.write, self.needs_positive = write, needs_positive
        self.seeds: list[int] = []
        self.calls: list[tuple[list[str], list[str], int]] = []

    def generate(self, queries, positives, n, *, seed):
        if seed not in self.seeds:
            self.seeds.append(seed)
        self.calls.append((list(queries), list(positives), n))
        return [self.write(query, self.seeds.index(seed)) for query in queries]


@pytest.fixture
def data() -> Dataset:
    texts = [
        "Gout is a kind of arthritis. It hurts at night.",
        "Gout is treated with rest. Ice helps as well.",
        "Flu is an infection. It passes in a week.",
        "Flu is treated with fluids. Sleep does the rest.",
    ]
    queries = Collection(["q0", "q1", "q2"], ["What is gout ?", "How is flu treated ?", "Who asks ?"], name="query")
    documents = Collection(["a", "b", "c", "d"], texts, {"title": ["Gout", "", "Flu", ""]})
    judgements = Judgements.build([0, 1, 1], [0, 3, 2], [1, 2, 1], queries=3, documents=4)
    return Dataset(queries, documents, judgements, {"train": np.array([0, 1])})


def test_old_rows_stay_and_new_ones_are_marked(data):
    written = write_negatives(data, SpliceGenerator(data.documents.texts), n=2, show=False)
    more = written.dataset.documents
    assert more.ids[:4].tolist() == data.documents.ids.tolist()
    assert more.texts[:4] == data.documents.texts
    assert more.full_texts[0].startswith("Gout. Gout is")
    assert set(more.table.column_names) == {"id", "text", "title", "generated_for", "generated_by"}
    owners = more.table["generated_for"].to_pylist()
    assert owners[:4] == [None] * 4
    assert set(owners[4:]) == {"q0", "q1"}
    assert more.ids[4:].tolist() == [
        f"{owner}~{owners[4:i].count(owner) + 1}" for i, owner in enumerate(owners) if i > 3
    ]
    assert set(more.table["generated_by"].to_pylist()[4:]) == {"splice"}
    assert written.dataset.judgements is data.judgements
    assert written.dataset.splits is data.splits
    assert written.report.skipped == 1  # q2 has no positive
    assert written.report.kept == len(more) - 4
    assert len(data.documents) == 4  # the evaluation corpus is as it was


def test_twice_is_another_extension(data):
    once = write_negatives(data, SpliceGenerator(data.documents.texts), show=False)
    writer = TemplateGenerator(["negation"], change="positive")  # one word apart, which the usual checks refuse
    twice = write_negatives(once.dataset, writer, checks=TextChecks(overlap=None), show=False)
    ids = twice.dataset.documents.ids.tolist()
    assert len(set(ids)) == len(ids)
    assert "q0~2" in ids
    run = twice.source()(twice.dataset, k=5)
    assert run.documents.ids[run.document].tolist() == ["q0~1", "q0~2", "q1~1", "q1~2"]


def test_what_is_dropped_is_counted_and_asked_for_again(data):
    good = "Pains in the toe come and go over many years."
    scripts = {
        "What is gout ?": [["", "what is  GOUT ?"], [good]],
        "How is flu treated ?": [
            [data.documents.full_texts[3].upper(), "Short.", "word " * 40],
            [],
            [good, good, "Other words, quite enough of them here."],
        ],
    }

    def write(query: str, attempt: int) -> list[str]:
        rounds = scripts[query]
        return rounds[attempt] if attempt < len(rounds) else []

    writer = Scripted(write)
    written = write_negatives(data, writer, n=2, show=False)
    report = written.report
    assert report.dropped == {
        "empty": 1, "same as the query": 1, "same as a positive": 1, "too short": 1, "too long": 1, "repeated": 1,
    }  # fmt: skip
    assert (report.wanted, report.kept, report.unfilled, report.without, report.attempts) == (4, 3, 1, 0, 3)
    assert [call[0] for call in writer.calls] == [["What is gout ?", "How is flu treated ?"]] * 3
    assert len(set(writer.seeds)) == 3
    texts = written.dataset.documents.texts[4:]
    assert texts == [good, good, "Other words, quite enough of them here."]


def test_checks_one_by_one():
    positive = "alpha beta gamma delta epsilon"
    checks = TextChecks(shortest=0.5, longest=2.0, overlap=0.5)
    assert checks.fault("one two", [positive], "q", set()) == "too short"
    assert checks.fault("w " * 11, [positive], "q", set()) == "too long"
    assert checks.fault("alpha beta gamma delta zeta", [positive], "q", set()) == "too close to a positive"
    assert checks.fault("alpha beta one two three", ["x y z", positive], "q", set()) is None
    assert checks.fault("ALPHA  beta gamma delta EPSILON", [positive], "q", set()) == "same as a positive"
    assert checks.fault("one two three four", [positive], "q", {"one two three four"}) == "repeated"
    assert TextChecks(None, None, None).fault("one", [positive], "q", set()) is None
    assert checks.fault("any length", [], "q", set()) is None
    for options in ({"shortest": -1}, {"overlap": 1.5}, {"shortest": 2, "longest": 1}):
        with pytest.raises(RivalsError):
            TextChecks(**options)


def test_a_writer_that_needs_no_positive_writes_for_all(data):
    writer = Scripted(lambda query, attempt: [f"Some five words on {query}"], needs_positive=False)
    written = write_negatives(data, writer, show=False)
    assert written.dataset.documents.table["generated_for"].to_pylist()[4:] == ["q0", "q1", "q2"]
    assert writer.calls[0][1] == [data.documents.full_texts[0], data.documents.full_texts[2], ""]


def test_nothing_that_survives_is_an_error(data):
    with pytest.raises(RivalsError, match=r"nothing that 'scripted' wrote survived .* dropped: empty 6"):
        write_negatives(data, Scripted(lambda query, attempt: [""]), show=False)
    one = Scripted(lambda query, attempt: ["Five words are enough here."] if "gout" in query else [""])
    report = write_negatives(data, one, show=False).report
    assert (report.without, report.without_ids) == (1, ("q1",))
    with pytest.raises(RivalsError, match="gave 1 lists for 2 pairs"):
        write_negatives(
            data, type("Few", (), {"name": "few", "generate": lambda self, q, p, n, seed: [[]]})(), show=False
        )
    with pytest.raises(RivalsError, match="n must be a whole number"):
        write_negatives(data, one, n=0, show=False)
    with pytest.raises(RivalsError, match="nothing to write hard negatives for"):
        write_negatives(data.take([2]), one, show=False)


def test_blocks_do_not_change_what_is_written():
    names = [f"q{i}" for i in range(600)]
    queries = [f"asked in {1990 + i % 30} of {i} ?" for i in range(600)]
    options = {"checks": TextChecks(overlap=None), "show": False}
    writer = TemplateGenerator(["year", "number"])
    whole, _ = write_texts(writer, names, queries, [""] * 600, [[query] for query in queries], 2, **options)
    tail, _ = write_texts(writer, names[500:], queries[500:], [""] * 100, [[q] for q in queries[500:]], 2, **options)
    assert whole[500:] == tail


def test_extended_collections(data):
    with pytest.raises(DataError, match="'a' appears twice"):
        extended(data.documents, ["a"], ["x"], {})
    with pytest.raises(RivalsError, match="have no texts"):
        extended(Collection(["a"]), ["b"], ["x"], {})
    assert extended(data.documents, ["z"], ["x"], {}).table["title"].to_pylist()[-1] is None


# ------------------------------------------------------------------------------------------------ as a source


def test_generated_and_retrieved_meet_in_one_run(data):
    written = write_negatives(data, SpliceGenerator(data.documents.texts), n=1, show=False)
    more = written.dataset.documents
    people, everyone = BM25(data.documents, name="people"), BM25(more, name="everyone")
    source = Widened(people, more) | written.source() | everyone
    run = source(written.dataset.split("train"), k=4)
    assert run.documents is more
    assert run.scorer == source.name or run.scorer == "everyone"
    generated = run.document >= 4
    assert generated.any()
    assert not generated.all()
    own = GeneratedForOthers()(run)
    whose = more.table["generated_for"].to_pylist()
    for row in range(len(run)):
        owner = whose[run.document[row]]
        assert own.keep[row] == (owner is None or owner == run.queries.ids[run.query[row]])
    assert not own.keep.all()  # `everyone` brought one query's text to the other
    assert own.where_reason("generated for another query").any()
    assert not np.isnan(run.positive_score).any()
    filters = [GeneratedForOthers(), PositiveAware(relative=0.05)]
    mined = mine_hard_negatives(
        source, written.dataset.split("train"), filters=filters, sampler=Top(2), top_k=4, show=False
    )
    drawn = [whose[row] for row in mined.negatives.document]
    assert all(
        owner in (None, mined.negatives.queries.ids[q]) for owner, q in zip(drawn, mined.negatives.query, strict=True)
    )
    index_alone = Widened(people, more)(written.dataset.split("train"), k=10)
    assert (index_alone.document < 4).all()  # no generated text is in that index


def test_generated_alone(data):
    written = write_negatives(data, SpliceGenerator(data.documents.texts), n=2, show=False)
    source = written.source()
    run = source(written.dataset, k=1)
    assert run.documents.ids[run.document].tolist() == ["q0~1", "q1~1"]
    assert run.score.tolist() == [1.0, 1.0]
    assert np.isnan(run.positive_score).all()
    with pytest.raises(RivalsError, match="has no score"):
        PositiveAware(relative=0.05, without_positive="keep")(run)
    scored = written.source(BM25(written.dataset.documents))(written.dataset.split("train"), k=2)
    assert not np.isnan(scored.positive_score).any()
    assert scored.score_kind == "bm25"
    wholly = source.score(written.dataset.queries, np.array([0, 0, 1]), run.document[[0, 1, 1]])
    np.testing.assert_array_equal(wholly, np.float32([1, np.nan, 1]))
    with pytest.raises(RivalsError, match="no column 'generated_for'"):
        GeneratedSource(data.documents)


def test_a_widened_retriever_scores_what_it_knows(data):
    written = write_negatives(data, SpliceGenerator(data.documents.texts), n=1, show=False)
    wide = Widened(BM25(data.documents), written.dataset.documents)
    assert wide.score(data.queries, np.array([0]), np.array([0])).shape == (1,)
    with pytest.raises(RivalsError, match="has not indexed the generated document 'q0~1'"):
        wide.score(data.queries, np.array([0]), np.array([4]))
    with pytest.raises(RivalsError, match="not the first of these"):
        Widened(BM25(data.documents), data.documents.take([1, 0, 2, 3]))


def test_documents_without_the_column_belong_to_nobody(data):
    run = Run.build(data.queries, data.documents, [0, 1, 1, 1], [0], [0.9])
    assert GeneratedForOthers()(run).keep.all()


# ------------------------------------------------------------------------------------------------ style


def test_the_probe_sees_a_style_and_sees_none():
    generator = np.random.default_rng(0)
    alike = [style_probe_auc(*generator.normal(size=(2, 150, 16)), seed=seed) for seed in range(5)]
    assert 0.4 < np.mean(alike) < 0.6
    people, machine = generator.normal(size=(2, 150, 16))
    assert style_probe_auc(people, machine + 0.8) > 0.95
    assert style_probe_auc(people, machine[:40] + 0.8) > 0.9  # sides of different sizes
    assert style_probe_auc(people, machine) == style_probe_auc(people, machine)
    for bad in ((people[:, :3], machine), (people[:3], machine), (people * np.nan, machine)):
        with pytest.raises(RivalsError):
            style_probe_auc(*bad)
