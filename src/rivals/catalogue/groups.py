"""Which losses and measures belong to which task, and to which data: rules on forms and on the words of docstrings.

No loss is named here. A rule holds for a loss if its form is among the rule's forms (any, if it has none) and its summary,
its "When to use" or its shapes match the rule's words. Measures go by the files they stand in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rivals.catalogue.entry import Entry, Form, Kind


@dataclass(frozen=True)
class Rule:
    """Forms, words and files, all of which an entry of one of the kinds must have; an empty one asks for nothing."""

    forms: tuple[Form, ...] = ()
    words: str = ""
    kinds: tuple[Kind, ...] = ("loss",)
    without: str = ""
    files: tuple[str, ...] = ()

    def holds(self, entry: Entry) -> bool:
        """Say whether an entry follows the rule."""
        return (
            entry.kind in self.kinds
            and (not self.forms or entry.form in self.forms)
            and (not self.files or entry.module.rpartition(".")[2] in self.files)
            and bool(re.search(self.words, entry.text, re.IGNORECASE))
            and not (self.without and re.search(self.without, entry.text, re.IGNORECASE))
        )


def _measures(*files: str, words: str = "") -> Rule:
    """Return the rule of the measures in some files of `rivals.measures`."""
    return Rule((), words, ("measure",), files=files)


@dataclass(frozen=True)
class Group:
    """A task or a kind of data: what it is, and the rules of which one must hold."""

    title: str
    about: str
    rules: tuple[Rule, ...]

    def holds(self, entry: Entry) -> bool:
        """Say whether an entry belongs to the group."""
        return any(rule.holds(entry) for rule in self.rules)


_SCORES: tuple[Form, ...] = ("lists", "targets", "other")
_TEACHER = r"teacher|distil"
_FALSE_NEGATIVES = r"(?<!and )false negatives"  # "false positives and false negatives" are errors, not documents

TASKS: dict[str, Group] = {
    "regression": Group(
        "Regression",
        "a number for each example",
        (
            Rule(("targets",), r"\berrors?\b|counts?\b|quantile", without=r"student|teacher's scores of"),
            Rule(
                ("labels", "labelled rows"), r"number token|written digit|for a number|time to an event|ordered grades"
            ),
            Rule(("lists",), r"ordinal classes"),
            _measures("regression", "survival"),
        ),
    ),
    "binary": Group(
        "Binary classification",
        "yes or no, one score an example: a list of examples is one list of candidates",
        (
            Rule(
                ("lists",),
                r"log-odds|threshold|imbalanced|maximum-margin|\broc\b|binary|false alarm|predicted probabilit|f1\b|"
                r"intersection over",
            ),
            _measures("classification", "calibration", "roc", "thresholds"),
        ),
    ),
    "multiclass": Group(
        "Classification",
        "one class an example",
        (
            Rule(("labels",), without=r"number token|written digit|hazard"),
            Rule(("lists",), r"one_hot\(labels"),
            Rule(("other",), r"target logit"),
            _measures("classification", "calibration"),
            _measures("label_ranking", words="several classes"),
        ),
    ),
    "multilabel": Group(
        "Multi-label classification",
        "several labels an example, perhaps not all known",
        (
            Rule(
                ("lists", "labelled rows"),
                r"multi-?label|unknown label|one known relevant|several labels|a few positives each|shared labels",
            ),
            _measures("label_ranking", words="multi-label"),
            _measures("classification"),
        ),
    ),
    "ranking": Group(
        "Ranking",
        "lists to be put in order: rerankers and learning to rank",
        (
            Rule(
                _SCORES,
                r"rank|\blists?\b|\bdocument\b|\bgrade|\border\b|pairs? (?:loss|of)|candidates|ndcg",
                without=r"one_hot\(labels|quantile|\bcounts:",
            ),
            _measures("ranking", "cascade", "correlation", "roc"),
        ),
    ),
    "retrieval": Group(
        "Retrieval",
        "encoders of queries and documents that are searched by similarity",
        (
            Rule(("embeddings",)),
            Rule(
                ("lists", "targets", "pairs"),
                rf"retriev|in-batch|mined|hard negatives|encoder|infonce|sentence|{_FALSE_NEGATIVES}|link prediction",
            ),
            _measures("ranking", "cascade"),
        ),
    ),
    "recommendation": Group(
        "Recommendation and advertising",
        "items for users, from clicks and other implicit feedback",
        (
            Rule((), r"recommend|implicit feedback|\bclicks?\b|auction|advertis|purchas|profit|link prediction"),
            _measures("ranking", "roc", "money"),
        ),
    ),
    "metric-learning": Group(
        "Metric learning",
        "vectors in which like is near to like",
        (
            Rule(("labelled rows", "pairs")),
            Rule(("labels", "lists", "embeddings"), r"\(cosines|\(minus|triplet|prototype|nearest neighbours"),
            Rule(("other",), r"same view"),
            _measures("ranking", words="relevant documents|precisions"),
        ),
    ),
    "preference": Group(
        "Preference tuning and unlearning",
        "texts a language model should prefer, avoid or forget",
        (Rule(("preferences",)), _measures("correlation", words="preference pairs|reward model")),
    ),
    "generation": Group(
        "Generation",
        "models that write text",
        (
            Rule(("preferences",)),
            Rule((), r"language models?\b|decoder|summar(?:y|ies)|hypothes|generated text"),
            _measures("text", "overlap"),
        ),
    ),
    "rag": Group(
        "Answers from retrieved texts",
        "is an answer right, relevant and supported",
        (_measures("rag"), _measures("text", words="answer|prediction")),
    ),
}
"""The tasks that `find` and `suggest` know."""

DATA: dict[str, Group] = {
    "pairs": Group(
        "Pairs: a query and a document that answers it",
        "The other documents of the batch, and mined ones, are the negatives.",
        (
            Rule(("embeddings",)),
            Rule(
                ("lists",),
                rf"in-batch|mined|infonce|hard negatives|{_FALSE_NEGATIVES}|retriev|implicit feedback|clicks",
            ),
            Rule(("lists",), r"triplet|a positive must|positives? .*negatives? (?:of|alone|above)"),
        ),
    ),
    "binary lists": Group(
        "Lists of candidates, some of them relevant",
        "One or several positives a list, the rest negatives, each with a score.",
        (
            Rule(("lists",), without=r"\bgraded?\b|one_hot\(labels|multi-?label|unknown label"),
            Rule(("other",), r"candidate"),
        ),
    ),
    "graded lists": Group(
        "Graded lists: some candidates are better than others",
        "Relevance with more than two levels, or an order.",
        (
            Rule(
                ("lists", "targets", "labels", "pairs", "other"), r"\bgrad(?:e|es|ed)\b|order that|ndcg|sentence pairs"
            ),
            Rule(("lists", "other"), r"permutation"),
            Rule(("lists", "targets", "other"), r"rank measure|orders? of a list|the one measure|at one measure"),
        ),
    ),
    "teacher": Group(
        "A teacher's scores or order",
        "Distillation from a stronger model, or a judge's scores.",
        (Rule((), rf"{_TEACHER}|a judge'?s|old (?:model|output)"),),
    ),
    "labels": Group(
        "Labels: one class an example",
        "Logits over classes, or an example's classes as its list of candidates.",
        (Rule(("labels",)), Rule(("lists",), r"one_hot\(labels"), Rule(("other",), r"target logit")),
    ),
    "many labels": Group(
        "Several labels an example",
        "The labels are the candidates of the list; relevance says which hold.",
        (
            Rule(
                ("lists", "labelled rows"),
                r"multi-?label|several labels|tagg|shared labels|a few positives each|\bf1\b|intersection over",
            ),
        ),
    ),
    "partial labels": Group(
        "Partial labels: positives known, the rest unknown or assumed negative",
        "A masked label is one nobody knows; some losses look for the hidden positives.",
        (
            Rule(
                (),
                r"unknown (?:label|positive)|unknown ones|unknown\b.*bool|presumed|assumed|unjudged|suspected|"
                rf"one known relevant|{_FALSE_NEGATIVES}",
            ),
        ),
    ),
    "noisy labels": Group(
        "Noisy labels: some are wrong",
        "Bounded losses, and losses that trust no single label.",
        (
            Rule(
                (),
                r"nois[ye]\w* (?:graded )?labels|labels? (?:with noise|of which)|wrong label|gross errors",
                without=r"without gross",
            ),
        ),
    ),
    "labelled rows": Group(
        "Embeddings with labels",
        "Metric learning: every row of a batch is an anchor against all others.",
        (Rule(("labelled rows",)), Rule(("labels",), r"cosines"), Rule(("embeddings",), r"prototype")),
    ),
    "views": Group(
        "Views without labels",
        "Two or more views of every example: self-supervised, or a query and its document as views.",
        (
            Rule(("pairs",), without=r"sentence pairs|hinge|margin"),
            Rule((), r"\bviews?\b|without labels"),
        ),
    ),
    "numbers": Group(
        "Numbers: prices, counts, times, grades on a scale",
        "The score is the number, or orders the examples by it.",
        (*TASKS["regression"].rules, Rule(("targets",), r"profit|amount|subjective")),
    ),
    "preferences": Group(
        "Preferences: better and worse texts",
        "Log-probabilities of responses, with or without a reference model.",
        (*TASKS["preference"].rules,),
    ),
    "several tasks": Group(
        "Several tasks, or several losses, trained together",
        "Weights of losses, and combinations of their gradients.",
        (
            Rule(
                (),
                r"\btasks?\b|losses weighted|sum of losses|gradients (?:of (?:m|several|an)|between)|combined update|"
                r"means of gradients|combine_gradients",
                ("part",),
            ),
        ),
    ),
}
"""Kinds of data: the first question of `docs/losses.md`."""


_USUAL: dict[Form, tuple[str, str]] = {
    "lists": ("ranking", "binary lists"),
    "targets": ("regression", "numbers"),
    "labels": ("multiclass", "labels"),
    "labelled rows": ("metric-learning", "labelled rows"),
    "embeddings": ("retrieval", "pairs"),
    "pairs": ("metric-learning", "views"),
    "preferences": ("preference", "preferences"),
}


def tasks_of(entry: Entry) -> tuple[str, ...]:
    """Return the names of the tasks an entry is for; a loss of which no rule holds has the usual one of its form.

    >>> tasks_of(Entry("x", "loss", "Mean error of scores against targets.", form="targets"))
    ('regression',)
    """
    return _groups(entry, TASKS) or (_USUAL[entry.form][:1] if entry.kind == "loss" and entry.form in _USUAL else ())


def data_of(entry: Entry) -> tuple[str, ...]:
    """Return the kinds of data (names of `DATA`) an entry is for, found as its tasks are.

    >>> data_of(Entry("x", "loss", "Agreement of two views.", form="pairs"))
    ('views',)
    """
    return _groups(entry, DATA) or (_USUAL[entry.form][1:] if entry.kind == "loss" and entry.form in _USUAL else ())


def _groups(entry: Entry, table: dict[str, Group]) -> tuple[str, ...]:
    return tuple(name for name, group in table.items() if group.holds(entry))
