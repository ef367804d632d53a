"""Hard negative queries: roles swapped, verified by two, grouped for a reranker."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.negatives import Top, swap_roles
from rivals.negatives.generating import TemplateGenerator, query_groups, write_queries
from rivals.negatives.judging import Verify
from tests.negatives.judging.models import RuleJudge
from tests.negatives.test_roles import same


@pytest.fixture
def pages() -> Dataset:
    """Two pages with a question each, one of them with a second question; a third page without."""
    queries = Collection(["q0", "q1", "q2"], ["sales in 2021 ?", "staff in 2021 ?", "sales in 2022 ?"], name="query")
    documents = Collection(["a", "b", "c"], ["Sales: 2021 3, 2022 4", "Staff: 2021 7", "Nothing"])
    judged = Judgements.build([0, 1, 2], [0, 1, 0], [1, 1, 1], queries=3, documents=3)
    return Dataset(queries, documents, judged, {"train": np.array([0, 1]), "test": np.array([2])})


def test_new_queries_stand_behind_the_old(pages):
    written = write_queries(pages, TemplateGenerator(["year"]), n=12, show=False)
    queries = written.dataset.queries
    assert queries.ids[:3].tolist() == ["q0", "q1", "q2"]
    assert len(queries) == 3 + written.report.kept
    owners = queries.table["generated_for"].to_pylist()[3:]
    assert set(owners) == {"a", "b"}  # the first query of each page is varied; page c has none
    assert [i.split("~")[0] for i in queries.ids[3:]] == ["q0" if owner == "a" else "q1" for owner in owners]
    assert written.report.dropped["same as a positive"] == 1  # 2022 on page a is its other question
    assert "sales in 2022 ?" not in queries.texts[3:]
    assert len(written.dataset.judgements) == 3
    assert written.dataset.splits == pages.splits
    assert written.dataset.split("test").queries.ids.tolist() == ["q2"]


def test_verified_negatives_become_groups(pages):
    written = write_queries(pages, TemplateGenerator(["year"]), n=6, show=False)
    texts = dict(zip(written.dataset.queries.ids, written.dataset.queries.texts, strict=True))
    rejects = RuleJudge(lambda q, d: 0.2, "one")
    strict = RuleJudge(lambda q, d: 0.8 if "2020" in texts[q] or "2019" in texts[q] else 0.1, "two")
    verified = Verify([rejects, strict])(written.run)
    dropped = {q for q in texts if "~" in q and ("2020" in texts[q] or "2019" in texts[q])}
    groups = query_groups(verified, negatives=3)
    ids = written.dataset.queries.ids[groups.query].tolist()
    assert not dropped & set(ids)
    assert np.diff(groups.offsets).tolist() == [4, 4]
    assert groups.label.tolist() == [1, 0, 0, 0] * 2
    assert groups.document.tolist() == [0] * 4 + [1] * 4
    assert (ids[0], ids[4]) == ("q0", "q1")
    survivors = [q for q in written.dataset.queries.ids[3:].tolist() if q.startswith("q0") and q not in dropped]
    assert ids[1:4] == survivors[:3]  # the first ones written
    assert {(ids[row], int(groups.label[row])) for row in range(8)} >= {("q0", 1), ("q1", 1)}


def test_pages_without_survivors_make_no_group(pages):
    written = write_queries(pages, TemplateGenerator(["year"]), n=3, show=False)
    on_a = written.run.document == 0
    groups = query_groups(written.run.mark(on_a, "answered"), negatives=2)
    assert groups.document.tolist() == [1, 1, 1]
    none = query_groups(written.run.mark(np.ones(len(written.run), dtype=bool), "answered"))
    assert len(none.query) == 0
    assert none.offsets.tolist() == [0]
    with pytest.raises(RivalsError, match="negatives must be"):
        query_groups(written.run, negatives=0)


def test_swapped_roles_rank_queries_for_pages_and_back(pages):
    run = write_queries(pages, TemplateGenerator(["year"]), n=5, show=False).run
    swapped = swap_roles(run)
    assert swapped.queries.ids.tolist() == ["a", "b", "c"]
    assert np.diff(swapped.offsets).tolist() == [5, 5, 0]
    assert swapped.positive.tolist() == [0, 2, 1]
    first = swapped.documents.ids[Top(3)(swapped).document].tolist()
    assert first == [f"{q}~{i}" for q in ("q0", "q1") for i in (1, 2, 3)]
    same(swap_roles(swapped), run)
