"""The configuration of mining: what is written is read back, every part can be set, mistakes name their line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import load_sample
from rivals.errors import DataError, RivalsError
from rivals.negatives import PositiveAware, Top, Uniform
from rivals.negatives.judging import Cascade, JudgeThreshold
from rivals.workflow.config import DataConfig
from rivals.workflow.mining_config import (
    EstimateConfig,
    MiningPlan,
    load_mining_plan,
    parse_part,
    part_line,
    plan_to_toml,
    with_window,
)
from rivals.workflow.mining_options import Part, check_part
from rivals.workflow.mining_parts import FILTERS, SAMPLERS, TABLES


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mining.toml"
    path.write_text(text, encoding="utf-8")
    return path


FULL = """
model = "all-MiniLM-L6-v2"
candidates = 30
negatives = 2
form = "lists"
fusion = "union"

[data]
documents = "docs.jsonl"
pairs = "/data/pairs.jsonl"

[sampler]
kind = "softmax"   # as in the paper
temperature = 0.05

[[sources]]
kind = "bm25"
k1 = 0.9

[[sources]]
kind = "random"

[[filters]]
kind = "positive-aware"
absolute = 0.1
anchor = "max"

[[filters]]
kind = "cascade"
judges = ["cheap", "people"]

[[filters]]
kind = "judge"
judge = "cheap"
threshold = 0.5

[[judges]]
kind = "dense"
name = "cheap"
relative = 0.05

[[judges]]
kind = "labels"
name = "people"
path = "labels.tsv"

[estimate]
judge = "people"
groups = ["drawn", "marked"]
"""


def test_a_whole_pipeline_is_read_and_opened(tmp_path):
    plan = load_mining_plan(written(tmp_path, FULL))
    assert (plan.candidates, plan.negatives, plan.form) == (30, 2, "lists")
    assert plan.data.documents == str((tmp_path / "docs.jsonl").resolve())
    assert plan.data.pairs == "/data/pairs.jsonl"
    assert plan.judges[1]["path"] == str((tmp_path / "labels.tsv").resolve())
    assert plan.judge_names == ("cheap", "people")
    assert plan.estimate == EstimateConfig("people", 200, ("drawn", "marked"))
    (tmp_path / "labels.tsv").write_text("query_id\tdocument_id\trelevance\nq\td\t1\n")

    class Cheap:
        name = "cheap"

        def judge(self, run):
            raise AssertionError("not asked here")

    materials = plan.materials(load_sample())
    materials._judges["cheap"] = Cheap()  # what would load an encoder
    first, cascade, judge = plan.open_filters(materials)
    assert first == PositiveAware(absolute=0.1, anchor="max")
    assert isinstance(cascade, Cascade)
    assert [one.name for one in cascade.judges] == ["cheap", "people"]
    assert isinstance(judge, JudgeThreshold)
    sampler = plan.open_sampler(materials)
    assert (sampler.k, sampler.temperature) == (2, 0.05)
    source = plan.source(materials)
    assert [member.name for member in source.members] == ["bm25", "random"]
    assert source.members[0].settings["k1"] == 0.9
    assert source.scorer.name == "bm25"  # the last that scores pairs


def test_defaults_are_what_mine_hard_negatives_does():
    plan = MiningPlan()
    plan.check()
    assert [spec["kind"] for spec in plan.sources] == ["bm25", "dense"]
    assert plan.open_filters(plan.materials(load_sample())) == (PositiveAware(relative=0.05),)
    assert isinstance(plan.open_sampler(plan.materials(load_sample())), Top)
    assert plan.encoders == ("all-MiniLM-L6-v2",)
    assert MiningPlan(sources=({"kind": "bm25"},)).encoders == ()


parts = st.fixed_dictionaries(
    {"kind": st.sampled_from(["positive-aware"]), "relative": st.floats(0.001, 0.999)},
    optional={"anchor": st.sampled_from(["min", "max", "mean"]), "strict": st.booleans()},
)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
plans = st.builds(
    MiningPlan,
    seed=st.integers(0, 2**63 - 1),
    candidates=st.integers(1, 10_000),
    negatives=st.integers(1, 10),
    split=words,
    form=st.sampled_from(["triples", "tuples", "lists", "run"]),
    fusion=st.sampled_from(["union", "rrf"]),
    data=st.builds(DataConfig, documents=st.just("/data/d.jsonl"), split_by=words),
    sampler=st.fixed_dictionaries({"kind": st.just("softmax"), "temperature": st.floats(0.01, 9)}),
    filters=st.lists(parts, max_size=3).map(tuple),
    judges=st.just(({"kind": "labels", "name": "people", "path": "/data/labels.tsv"},)),
    estimate=st.builds(EstimateConfig, judge=st.sampled_from(["", "people"])),
)


@settings(deadline=None, max_examples=60)
@given(plans)
def test_what_is_written_is_read_back(plan):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mining.toml"
        path.write_text(plan_to_toml(plan), encoding="utf-8", newline="")
        assert load_mining_plan(path) == plan


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("seed = 1\ncandidats = 2\n", 2, "unknown option 'candidats'"),
        ("seed = -1\n", 1, "option 'seed' = -1 is out of range"),
        ("seed = 1\nform = 'poem'\n", 2, "form"),
        ("sources = []\n", 1, "sources"),
        ("seed = 1\nsources = ['bm25']\n", 2, "sources"),
        (
            "[[sources]]\nkind = 'bm25'\n\n[[sources]]\nkind = 'bm52'\n",
            5,
            "no source is called 'bm52'.* did you mean 'bm25'",
        ),
        ("[[sources]]\nk1 = 1.0\n", 1, "a source needs a kind"),
        ("[[sources]]\nkind = 'file'\n", 1, "source 'file' needs the option 'path'"),
        (
            "[[filters]]\nkind = 'positive-aware'\nrelativ = 0.1\n",
            3,
            "has no option 'relativ'; it has relative, absolute",
        ),
        ("[[filters]]\nkind = 'positive-aware'\nrelative = '0.1'\n", 3, "option 'relative'.*float"),
        (
            "seed = 1\n[[filters]]\nkind = 'positive-aware'\nrelative = 7\n",
            4,
            "filter 'positive-aware': relative must lie",
        ),
        ("[[filters]]\nkind = 'positive-aware'\n", 1, "needs a rule"),
        ("[sampler]\nkind = 'uniform'\nwindow = 2\n", 3, "a window of 2 cannot give 4"),
        ("[sampler]\nkind = 'lottery'\n", 2, "no sampler is called 'lottery'"),
        ("[[judges]]\nkind = 'dense'\n[[judges]]\nkind = 'dense'\n", 3, "two judges are called 'dense'"),
        ("[estimate]\njudge = 'nobody'\n", 2, "no judge is called 'nobody'"),
        ("[estimate]\nsample = 0\n", 2, "estimate.sample"),
        ("[data]\ndocument = 'x'\n", 2, "unknown option 'data.document'"),
    ],
)
def test_mistakes_name_their_line(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=said) as caught:
        load_mining_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}: "), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_toml(tmp_path):
    with pytest.raises(DataError, match="is not TOML"):
        load_mining_plan(written(tmp_path, "seed = = 1\n"))
    with pytest.raises(DataError, match="cannot be read"):
        load_mining_plan(tmp_path / "none.toml")


def test_lines_of_parts():
    text = '[sampler]\nkind = "top"\n[[ filters ]] # first\n"kind" = 1\n[[filters]]\n'
    assert part_line(text, "sampler", None, "kind") == 2
    assert part_line(text, "filters", 0, "kind") == 4
    assert part_line(text, "filters", 1, "kind") == 5  # where the part begins
    assert part_line("filters = [{kind = 1}]", "filters", 0, "kind") == 1
    assert part_line(text, "judges", 0, "kind") is None


# ------------------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize(
    ("what", "kind"), [(what, kind) for what, table in TABLES.items() for kind in table], ids=lambda name: name
)
def test_every_part_says_what_it_is_and_what_it_takes(what, kind):
    part = TABLES[what][kind]
    assert part.about.endswith((".", ":", ",")) or len(part.about) > 20
    assert set(part.required()) <= set(part.options())
    with pytest.raises(RivalsError, match="has no option 'no_such_option'"):
        check_part(TABLES[what], what, {"kind": kind, "no_such_option": 1})


def test_a_part_whose_argument_no_file_can_hold_is_a_mistake_of_ours():
    def strange(thing: object) -> None:
        """Nothing."""

    with pytest.raises(TypeError, match="thing"):
        Part(strange).options()


def test_judges_are_named_or_all_and_made_once(tmp_path):
    text = "[[filters]]\nkind = 'cascade'\n[[filters]]\nkind = 'judge'\n"
    judges = "".join(f"[[judges]]\nkind = 'labels'\nname = '{name}'\npath = 'l.tsv'\n" for name in ("a", "b"))
    (tmp_path / "l.tsv").write_text("query_id\tdocument_id\trelevance\nq\td\t1\n")
    plan = load_mining_plan(written(tmp_path, text + judges))
    materials = plan.materials(load_sample())
    with pytest.raises(RivalsError, match="which of the judges a, b"):
        plan.open_filters(materials)
    assert [judge.name for judge in materials.judges_named(None)] == ["a", "b"]
    assert materials.judges_named(["a"])[0] is materials.judges_named(None)[0]
    with pytest.raises(RivalsError, match="no judge is called 'c'; the configured ones are a, b"):
        materials.judges_named(["c"])
    alone = load_mining_plan(written(tmp_path, "[[filters]]\nkind = 'judge'\n"))
    with pytest.raises(RivalsError, match="a judge is needed here"):
        alone.open_filters(alone.materials(load_sample()))


# ------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("top", {"kind": "top"}),
        ("softmax temperature=0.05 keep-top1=true", {"kind": "softmax", "temperature": 0.05, "keep_top1": True}),
        ("file path=a/b.jsonl", {"kind": "file", "path": "a/b.jsonl"}),
        ("file path='my file.jsonl'", {"kind": "file", "path": "my file.jsonl"}),
        ('cascade judges=["a","b"]', {"kind": "cascade", "judges": ["a", "b"]}),
    ],
)
def test_parts_on_the_command_line(text, spec):
    assert parse_part(text) == spec


@pytest.mark.parametrize("text", ["", "relative=0.1", "top skip", "top =3", "top 'skip=1"])
def test_parts_that_cannot_be_read(text):
    with pytest.raises(RivalsError):
        parse_part(text)


def test_windows():
    assert with_window({"kind": "uniform"}, None) == {"kind": "uniform", "window": 10}
    assert with_window({"kind": "uniform"}, 30) == {"kind": "uniform", "window": 30}
    assert with_window({"kind": "uniform", "window": 5}, 30) == {"kind": "uniform", "window": 5}
    assert with_window({"kind": "ambiguous"}, None) == {"kind": "ambiguous"}
    assert with_window({"kind": "top"}, 30) == {"kind": "top"}
    plan = MiningPlan(sampler=with_window({"kind": "uniform"}, None))
    assert repr(plan.open_sampler(plan.materials(load_sample()))) == repr(Uniform(4, window=10))


def test_tables_hold_what_the_house_has():
    assert {"positive-aware", "closer-than-positive", "judge", "cascade"} <= set(FILTERS)
    assert {"top", "uniform", "softmax", "ambiguous"} <= set(SAMPLERS)
