"""The catalogue holds everything that is public, reads docstrings rightly, and answers questions."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from typing import Any, get_args

import pytest

import rivals.losses
import rivals.measures
from rivals.catalogue import DATA, FORMS, TASKS, Entry, data_of, entries, find, suggest
from rivals.catalogue.entry import Form, Kind, _loose_fields, first_sentence, form_of, read_entry
from rivals.catalogue.first_choices import FIRST_CHOICES, Condition
from rivals.catalogue.outside import NOT_PROVIDED, OTHERS, SYNONYMS
from rivals.errors import RivalsError
from rivals.losses import LOSSES, PREFERENCE_LOSSES
from rivals.losses._fields import docstring_fields, source_papers

ALL = entries()
BY_NAME = {(entry.kind, entry.name): entry for entry in ALL}


# ---------------------------------------------------------------------------------- complete and true


def test_names_are_given_once() -> None:
    assert len(BY_NAME) == len(ALL)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_there_with_all_its_fields(name: str) -> None:
    entry, fields = BY_NAME["loss", name], docstring_fields(LOSSES[name])
    assert entry.resolve() is LOSSES[name]
    said = (
        entry.summary,
        entry.formula,
        entry.shapes,
        entry.when,
        entry.relations,
        entry.source,
        entry.raises,
        entry.example,
    )
    assert said == tuple(fields.values())
    assert entry.papers == source_papers(fields) != ()
    assert entry.signature.startswith(f"({next(iter(inspect.signature(LOSSES[name]).parameters))}")


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_every_named_preference_loss_is_there(name: str) -> None:
    entry = BY_NAME["loss", name]
    assert entry.resolve() is PREFERENCE_LOSSES[name]
    assert entry.form == "preferences"


@pytest.mark.parametrize("room", [rivals.losses, rivals.measures], ids=["losses", "measures"])
def test_every_public_function_and_class_is_there(room: Any) -> None:
    things = {name: getattr(room, name) for name in room.__all__}
    public = {name.removesuffix("_loss"): thing for name, thing in things.items() if inspect.isroutine(thing)}
    public |= {name: thing for name, thing in things.items() if inspect.isclass(thing)}
    found: dict[str, list[Any]] = {}
    for entry in ALL:
        if entry.provider == "rivals" and entry.symbol.startswith(room.__name__) and "[" not in entry.symbol:
            found.setdefault(entry.name, []).append(entry.resolve())
    assert {name: thing for name, thing in public.items() if thing not in found.get(name, [])} == {}


@pytest.mark.parametrize("entry", [e for e in ALL if e.status == "provided"], ids=lambda e: f"{e.kind}-{e.name}")
def test_what_is_provided_is_callable(entry: Entry) -> None:
    assert callable(entry.resolve())
    assert entry.summary
    assert entry.kind in get_args(Kind)
    assert entry.form in get_args(Form)
    assert set(entry.tasks) <= TASKS.keys()


def test_every_loss_is_for_a_task_and_for_data() -> None:
    losses = [entry for entry in ALL if entry.kind == "loss" and entry.provider == "rivals" and entry.form != "other"]
    assert [entry.name for entry in losses if not entry.tasks or not data_of(entry)] == []


def test_every_task_and_every_kind_of_data_has_losses() -> None:
    for task in TASKS.keys() - {"rag"}:
        assert len(find(task=task, kind="loss")) > 5, task
    for task in TASKS:
        assert find(task=task, kind="measure"), task
    for data in DATA:
        kind = "part" if data == "several tasks" else "loss"
        assert len([entry for entry in ALL if entry.kind == kind and data in data_of(entry)]) > 5, data


# ---------------------------------------------------------------------------------- other libraries


def test_the_table_of_other_libraries_is_explicit_and_resolves() -> None:
    for name, kind, *_, symbol in OTHERS:
        entry = BY_NAME[kind, name]
        assert entry.symbol == symbol
        assert entry.provider in ("torch", "scikit-learn")
        assert entry.resolve().__name__ == symbol.rpartition(".")[2]
        assert entry.formula


def test_what_is_not_provided_is_listed_and_says_so() -> None:
    for name, kind, _ in NOT_PROVIDED:
        entry = BY_NAME[kind, name]
        assert (entry.status, entry.provider, entry.symbol) == ("not provided", "", "")
        with pytest.raises(RivalsError, match=f"{name} is not provided"):
            entry.resolve()


def test_what_rivals_comes_to_provide_leaves_the_tables() -> None:
    from rivals.catalogue.outside import outside_entries

    left = {(entry.kind, entry.name) for entry in outside_entries({("loss", "ctc"), ("measure", "psnr")})}
    assert ("loss", "ctc") not in left
    assert ("measure", "psnr") not in left
    assert len(left) == len(OTHERS) + len(NOT_PROVIDED) - 2


def test_every_synonym_means_something_and_hides_nothing() -> None:
    for kind, table in SYNONYMS.items():
        for synonym, name in table.items():
            assert BY_NAME[kind, name] in find(synonym, kind), synonym
            assert (kind, synonym) not in BY_NAME or synonym == name, synonym


def test_a_missing_library_is_said_in_one_line() -> None:
    entry = Entry("x", "measure", "X.", provider="surely-missing", symbol="surely_missing.metrics.x")
    with pytest.raises(RivalsError, match="x comes from surely-missing, which is not installed; run: pip install"):
        entry.resolve()


# ---------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("info_nce", "info_nce"),
        ("info_nce_loss", "info_nce"),
        ("InfoNCE", "info_nce"),
        ("Circle loss", "circle"),
        ("RankNet", "pairwise_logistic"),
        ("MoCo", "momentum_contrast"),
        ("list-mle", "list_mle"),
        ("DPO", "dpo"),
        ("mse", "squared_error"),
    ],
)
def test_losses_are_found_by_what_people_call_them(name: str, found: str) -> None:
    assert [entry.name for entry in find(name, "loss")] == [found]


@pytest.mark.parametrize(
    ("name", "found"), [("nDCG@10", "ndcg"), ("MRR", "reciprocal_rank"), ("P(rel=2)@5", "precision")]
)
def test_measures_are_found_by_their_notation(name: str, found: str) -> None:
    assert [entry.name for entry in find(name, "measure")] == [found]


@pytest.mark.parametrize(
    ("name", "near"),
    [("info_nc", "info_nce"), ("pairwise_logstic", "pairwise_logistic"), ("Plackett-Luce", "list_mle")],
)
def test_an_unknown_name_gets_close_matches(name: str, near: str) -> None:
    with pytest.raises(RivalsError, match=rf"no loss is called '{name}'; did you mean .*\b{near}\b"):
        find(name, "loss")


def test_a_hopeless_name_gets_a_hint() -> None:
    with pytest.raises(RivalsError, match=r"no loss or measure is called 'qqqq'; `rivals losses` and"):
        find("qqqq")


def test_unknown_kinds_and_tasks_are_errors() -> None:
    with pytest.raises(RivalsError, match="no kind is called 'metric'; there are loss, measure, part"):
        find(kind="metric")  # type: ignore[arg-type]
    for ask in (lambda: find(task="sorting"), lambda: suggest("sorting")):
        with pytest.raises(RivalsError, match="no task is called 'sorting'; there are regression, binary"):
            ask()


def test_questions_combine() -> None:
    found = find(kind="loss", task="ranking", paper=21)
    assert {entry.name for entry in found} >= {"approx_ndcg", "lambda", "list_net"}
    assert all(entry.kind == "loss" and "ranking" in entry.tasks and 21 in entry.papers for entry in found)
    assert find("softmax", paper=99) == []
    assert {entry.name for entry in find(paper=66, kind="part")} >= {"combine_gradients", "conflict_report"}


def test_two_kinds_may_share_a_name() -> None:
    assert [entry.kind for entry in find("facility_location")] == ["loss", "part"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("huber", "regression"),
        ("binary_cross_entropy", "binary"),
        ("cross_entropy", "multiclass"),
        ("asymmetric", "multilabel"),
        ("pairwise_logistic", "ranking"),
        ("in_batch_info_nce", "retrieval"),
        ("pairwise_softmax", "recommendation"),
        ("in_batch_multi_similarity", "metric-learning"),
        ("dpo", "preference"),
        ("unlikelihood", "generation"),
    ],
)
def test_a_loss_everybody_knows_is_under_its_task(name: str, task: str) -> None:
    assert name in [entry.name for entry in find(kind="loss", task=task)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in_batch_info_nce", "pairs"),
        ("triplet", "pairs"),
        ("softmax", "graded lists"),
        ("lambda", "graded lists"),
        ("info_nce", "binary lists"),
        ("listwise_kl", "teacher"),
        ("focal", "labels"),
        ("log_sum_exp_multilabel", "many labels"),
        ("large_loss_modification", "partial labels"),
        ("generalized_cross_entropy", "noisy labels"),
        ("log_det", "labelled rows"),
        ("barlow_twins", "views"),
        ("quantile", "numbers"),
        ("simpo", "preferences"),
    ],
)
def test_a_loss_everybody_knows_is_under_its_data(name: str, data: str) -> None:
    assert data in data_of(BY_NAME["loss", name])


# ---------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("condition", get_args(Condition))
def test_suggestions_exist_and_have_a_reason_on_one_line(task: str, condition: Condition) -> None:
    given = {} if condition == "always" else {condition: True}
    chosen = suggest(task, **given)
    assert len({(choice.kind, choice.name) for choice in chosen}) == len(chosen) >= 2
    for choice in chosen:
        assert BY_NAME[choice.kind, choice.name].status == "provided"
        assert choice.reason
        assert "\n" not in choice.reason
    for kind in ("loss", "measure"):
        wanted = (*FIRST_CHOICES[task][kind].get(condition, ()), *FIRST_CHOICES[task][kind].get("always", ()))
        assert [choice.name for choice in chosen if choice.kind == kind] == list(dict.fromkeys(wanted))


def test_every_task_has_choices() -> None:
    assert FIRST_CHOICES.keys() == TASKS.keys()


def test_conditions_come_first_and_together() -> None:
    names = [choice.name for choice in suggest("ranking", graded=True, noisy=True)]
    assert names.index("lambda") < names.index("selection_weighted") < names.index("softmax")
    assert suggest("ranking")[0].reason == first_sentence(BY_NAME["loss", "softmax"].when)


# ---------------------------------------------------------------------------------- reading docstrings


def test_forms_are_found_by_leading_names() -> None:
    from tests.laws.forms import classify

    ours = {"lists": "lists", "targets": "targets", "embeddings": "embeddings"}
    ours |= {"labelled": "labelled rows", "classes": "labels"}
    for name, function in LOSSES.items():
        try:
            law = classify(function)
        except LookupError:
            continue
        assert form_of(function) == ours[law], name
    assert form_of(Entry) == "other"
    assert set(FORMS) == set(get_args(Form))


def test_a_docstring_without_fixed_fields_is_read() -> None:
    found = _loose_fields(
        "Share of x.\n\nx = a / b.\n\nShapes: scores[..., C] -> [...]. Use it for y.\nNot for z. O(C).\n\n"
        "Args:\n    k: a cut.\n\nSource: A (1999). Papers 4,\n5 and 6.\n\nRaises:\n    RivalsError: never.\n\n>>> 1\n1"
    )
    assert found["Summary"] == "Share of x."
    assert found["Formula"] == "x = a / b."
    assert found["Shapes"] == "scores[..., C] -> [...]."
    assert found["When to use"] == "Use it for y.\nNot for z. O(C)."
    assert found["Source"].endswith("5 and 6.")
    assert found["Raises"] == "RivalsError: never."
    assert found["Example"] == ">>> 1\n1"


def test_a_measure_is_read_whole() -> None:
    entry = BY_NAME["measure", "kendall_tau"]
    assert entry.formula.startswith("With P pairs in the same order")
    assert entry.when.startswith("Use it to compare two whole orders")
    assert entry.papers == (42, 55, 56, 78, 104)
    assert "O(C log^2 C)" in entry.cost
    assert entry.example.startswith(">>> import numpy")


def test_costs_are_those_the_docstring_states() -> None:
    assert BY_NAME["loss", "approx_ndcg"].cost == "O(C^2) time, O(C) memory for the gradient."
    assert BY_NAME["loss", "preference"].cost == "O(R^2) for each prompt"
    assert BY_NAME["loss", "log_det"].cost.startswith("O(N^3)")
    assert BY_NAME["loss", "softmax"].cost == ""


def test_papers_are_read_over_the_end_of_a_line() -> None:
    assert {57, 113} <= set(BY_NAME["loss", "preference"].papers)


def test_a_loss_without_fields_is_refused() -> None:
    def bare_loss(scores: Any) -> None:
        """Do a thing."""

    with pytest.raises(RivalsError, match="bare_loss must have the fields"):
        read_entry("bare", "loss", bare_loss, "nowhere.bare_loss")


def test_importing_the_catalogue_loads_no_torch() -> None:
    code = "import sys, rivals.catalogue\nassert not {'torch', 'numpy', 'rivals.losses'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert importlib.util.find_spec("rivals.catalogue") is not None
