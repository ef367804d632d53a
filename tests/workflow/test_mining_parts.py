"""Every part that a mining configuration can name mines: opened by its row, over real questions and a tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rivals.data import Dataset, load_dataset, save_run
from rivals.errors import RivalsError
from rivals.negatives import Top, mine_hard_negatives
from rivals.negatives.adapter import RetrieverAdapter
from rivals.retrieve import BM25
from rivals.workflow.mining_config import MiningPlan
from rivals.workflow.mining_materials import Materials
from rivals.workflow.mining_parts import FILTERS, JUDGES, SAMPLERS, SOURCES
from tests.workflow.small import write_small


class World:
    """A small data set, its files, and materials whose encoder is loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        small = write_small(folder / "few", queries={"train": 20, "dev": 3, "test": 3}, documents=60)
        data = load_dataset(documents=small.documents, pairs=small.pairs)
        self.dataset: Dataset = data.split("train")
        self.model = str(small.model)
        self.materials: Materials = self.plan().materials(self.dataset)
        ids = self.dataset.documents.ids.tolist()
        (folder / "links.csv").write_text(
            "source,target\n" + "".join(f"{a},{b}\n" for a, b in zip(ids, ids[1:] + ids[:1], strict=True))
        )
        save_run(BM25(self.dataset.documents)(self.dataset, 20), folder / "run.parquet")
        queries = self.dataset.queries.ids.tolist()
        (folder / "negatives.jsonl").write_text(
            "".join(
                f'{{"query_id": "{q}", "positive_id": "{ids[0]}", "negative_ids": ["{ids[1]}", "{ids[2]}"]}}\n'
                for q in queries
            )
        )
        (folder / "labels.csv").write_text(
            "query_id,document_id,relevance\n"
            + "".join(f"{q},{d},{int(i % 9 == 0)}\n" for q in queries for i, d in enumerate(ids))
        )
        word = self.dataset.documents.full_texts[0].split()[0]
        (folder / "answers.csv").write_text("query_id,answer\n" + "".join(f"{q},{word}\n" for q in queries))
        RetrieverAdapter(self.materials.open_encoder(self.model).dimension).save(folder / "adapter.safetensors")

    def plan(self, **changes: Any) -> MiningPlan:
        judges = ({"kind": "labels", "name": "people", "path": str(self.folder / "labels.csv"), "highest": 1.0},)
        return MiningPlan(**({"model": self.model, "device": "cpu", "negatives": 2, "judges": judges} | changes))

    def options(self, what: str, kind: str) -> dict[str, Any]:
        """What a part needs to be told, here."""
        path = self.folder
        return {
            ("source", "ensemble"): {"models": [self.model]},
            ("source", "clusters"): {"clusters": 6},
            ("source", "links"): {"path": str(path / "links.csv")},
            ("source", "in-batch"): {"batch_size": 8},
            ("source", "file"): {"path": str(path / "negatives.jsonl")},
            ("source", "run"): {"path": str(path / "run.parquet")},
            ("filter", "positive-aware"): {"relative": 0.1},
            ("filter", "answer-match"): {"path": str(path / "answers.csv")},
            ("filter", "complementary"): {"model": self.model, "threshold": 0.95},
            ("filter", "same-cluster"): {"clusters": 6},
            ("filter", "cluster-weight"): {"clusters": 6, "hard": 2.0},
            ("filter", "adapter"): {"path": str(path / "adapter.safetensors")},
            ("filter", "cross-encoder"): {"model": self.model, "max_length": 32},
            ("filter", "judge"): {"threshold": 0.5},
        }.get((what, kind), {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def mined(world: World, plan: MiningPlan) -> Any:
    materials = plan.materials(world.dataset)
    materials.__dict__.update(
        {name: world.materials.__dict__.setdefault(name, {}) for name in ("_encoders", "_vectors")}
    )
    source, filters = plan.source(materials), plan.open_filters(materials)
    return mine_hard_negatives(
        source,
        world.dataset,
        filters=filters,
        sampler=plan.open_sampler(materials),
        top_k=15,
        allow_none=True,
        show=False,
    )


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_proposes(world: World, kind: str) -> None:
    plan = world.plan(sources=({"kind": kind, **world.options("source", kind)},), filters=())
    plan.check()
    found = mined(world, plan)
    assert found.audit.proposed > 0
    assert found.draw.mask.any()


@pytest.mark.parametrize("kind", FILTERS)
def test_every_filter_marks(world: World, kind: str) -> None:
    spec = {"kind": kind, **world.options("filter", kind)}
    plan = world.plan(sources=({"kind": "bm25"}, {"kind": "dense"}), filters=(spec,))
    plan.check()
    found = mined(world, plan)
    assert found.audit.proposed == len(found.run)
    assert len(found.audit.steps) == 5  # source, two marks that always are, the filter, the sampler


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_draws(world: World, kind: str) -> None:
    filters = ({"kind": "adapter", **world.options("filter", "adapter")},) if kind == "resample" else ()
    plan = world.plan(sampler={"kind": kind}, sources=({"kind": "bm25"}, {"kind": "dense"}), filters=filters)
    plan.check()
    found = mined(world, plan)
    assert found.draw.k == 2
    assert found.draw.mask.any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("labels", {"path": "labels.csv", "highest": 1.0}),
        ("dense", {"relative": 0.05}),
        ("cross-encoder", {"threshold": 0.0, "max_length": 32}),
        ("language-model", {"url": "http://127.0.0.1:9/v1", "cache": "answers.db", "max_tokens": 1000}),
        ("language-model", {"url": "http://127.0.0.1:9/v1", "ask": "grade"}),
        ("language-model", {"url": "http://127.0.0.1:9/v1", "ask": "list"}),
    ],
)
def test_every_judge_opens(world: World, kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    spec = {"kind": kind, "name": "it", **options}
    for name in ("path", "cache"):
        if name in spec:
            spec[name] = str((world.folder if name == "path" else tmp_path) / spec[name])
    if "model" in JUDGES[kind].required():
        spec["model"] = "any" if "url" in spec else world.model
    plan = world.plan(judges=(spec,))
    plan.check()
    (judge,) = plan.materials(world.dataset).judges_named(["it"])
    assert judge.name == "it"
    if "url" not in spec:
        run = BM25(world.dataset.documents)(world.dataset, 5)
        assert len(judge.judge(run).score) == len(run)


def test_vectors_are_kept_in_a_folder_and_found_again(world: World, tmp_path: Path) -> None:
    first = world.plan().materials(world.dataset, tmp_path)
    kept = first.dense.vectors
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np*")}
    assert any(path.suffix == ".npy" for path in files)
    second = world.plan().materials(world.dataset, tmp_path)
    assert second.dense.vectors.tobytes() == kept.tobytes() == world.materials.dense.vectors.tobytes()
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np*")}
    plan = world.plan(sources=({"kind": "bm25"},))
    one, two = (plan.source(plan.materials(world.dataset, tmp_path))(world.dataset, 9) for _ in range(2))
    assert one.score.tobytes() == two.score.tobytes()


def test_encoders_that_need_vectors_are_known_before(world: World) -> None:
    plan = world.plan(
        sources=({"kind": "bm25"}, {"kind": "dense", "model": "other", "name": "second"}),
        filters=({"kind": "closer-than-positive"}, {"kind": "cross-encoder", "model": "reader"}),
    )
    assert plan.encoders == ("other", world.model)


def test_links_that_are_no_links(world: World) -> None:
    (world.folder / "wrong.csv").write_text("from,to\na,b\n")
    plan = world.plan(sources=({"kind": "links", "path": str(world.folder / "wrong.csv")},))
    with pytest.raises(RivalsError, match=r"wrong\.csv: .*lacks the column source, target; it has from, to"):
        mined(world, plan)
    (world.folder / "far.csv").write_text("from,to\na,b\n")
    far = {"kind": "links", "path": str(world.folder / "far.csv"), "source": "from", "target": "to"}
    with (
        pytest.warns(UserWarning, match="1 of 1 links leave the collection"),
        pytest.raises(RivalsError, match="no document has a link"),
    ):
        mined(world, world.plan(sources=(far,)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "q", "answer": "x"}', r"answers lacks the column query_id; it has query, answer"),
        ('{"query_id": "stranger", "answer": ["x"]}', "no query of the data is among the 1 of the column query_id"),
        ('{"query_id": "q", "answer": 3}', r"line 1: the answer '3' is no text; write a text or a list of texts"),
    ],
)
def test_answers_that_are_none(world: World, content: str, message: str) -> None:
    (world.folder / "wrong.jsonl").write_text(content + "\n")
    plan = world.plan(filters=({"kind": "answer-match", "path": str(world.folder / "wrong.jsonl")},))
    with pytest.raises(RivalsError, match=message):
        mined(world, plan)


def test_the_defaults_of_the_sampler_are_tops(world: World) -> None:
    assert repr(world.plan().open_sampler(world.materials)) == repr(Top(2))
