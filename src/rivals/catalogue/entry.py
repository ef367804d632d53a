"""One entry of the catalogue, and how the docstring of a public name becomes one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.losses import PreferenceForm

Kind = Literal["loss", "measure", "part"]
Form = Literal["lists", "targets", "labels", "labelled rows", "embeddings", "pairs", "preferences", "other"]

FORMS: dict[str, str] = {
    "lists": "the scores of each query's candidates and their relevance: (scores, relevance, mask)",
    "targets": "scores and a number for each, a quantity or a teacher's score: (scores, targets, mask)",
    "labels": "one row of logits an example, and its class: (logits, labels, mask)",
    "labelled rows": "one embedding an example, and its label: (embeddings, labels, mask)",
    "embeddings": "the vectors of queries and of documents: (queries, documents, relevance, mask)",
    "pairs": "the vectors of two or more views of every example: (left, right, ...)",
    "preferences": "log-probabilities, or token logits, of better and worse texts: (logps, relevance, ...)",
    "other": "arguments of its own",
}
"""The forms that arguments come in, found by the names of the leading ones."""

_LEADING: tuple[tuple[tuple[str, ...], Form], ...] = (
    (("scores", "relevance"), "lists"),
    (("yes", "no", "relevance"), "lists"),
    (("scores", "targets"), "targets"),
    (("predictions", "targets"), "targets"),
    (("logits", "labels"), "labels"),
    (("logits", "relevance"), "labels"),
    (("logits", "tokens"), "preferences"),
    (("logps",), "preferences"),
    (("embeddings",), "labelled rows"),
    (("queries",), "embeddings"),
    (("left",), "pairs"),
    (("left_predictions",), "pairs"),
    (("first",), "pairs"),
    (("anchors",), "pairs"),
    (("views",), "pairs"),
)
_LABELS = (
    "Formula",
    "Shapes",
    "When to use",
    "Relations",
    "Source",
    "Raises",
    "Raises RivalsError",
    "Args",
    "Warns",
    "Example",
)
_LABEL = re.compile(rf"({'|'.join(_LABELS)}): ?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One loss, measure or part, with what its docstring says; a field is empty where it says nothing.

    `kind` part: what stands beside losses and measures, such as a sampler of candidates, a module that keeps a queue or
    a test of significance. `symbol` is the import path, `module` the file it is written in. `provider` is rivals, or
    the library that computes it; `status` "not provided" lists what a reader may look for and will not find. `tasks`
    are names of `TASKS`, `aliases` other names it is known by.
    """

    name: str
    kind: Kind
    summary: str
    form: Form = "other"
    formula: str = ""
    shapes: str = ""
    when: str = ""
    relations: str = ""
    source: str = ""
    raises: str = ""
    example: str = ""
    cost: str = ""
    papers: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    provider: str = "rivals"
    status: Literal["provided", "not provided"] = "provided"
    symbol: str = ""
    module: str = ""
    signature: str = ""

    @property
    def reason(self) -> str:
        """When to use it, in one sentence; the summary where nothing is said.

        >>> Entry("x", "loss", "A loss.", when="Rare classes. Not for others.").reason
        'Rare classes.'
        """
        return first_sentence(self.when) or self.summary

    @property
    def text(self) -> str:
        """What it is and what it is for, on one line: what groups look for their words in."""
        return " ".join(f"{self.summary} {self.when} {self.shapes}".split())

    def resolve(self) -> Callable[..., Any]:
        """Return the function or class itself.

        Raises:
            RivalsError: the entry is not provided, or its library is not installed.

        >>> Entry("join", "part", "Joins paths.", provider="Python", symbol="posixpath.join").resolve()("a", "b")
        'a/b'
        """
        if self.status != "provided":
            raise RivalsError(f"{self.name} is not provided; the catalogue lists it for those who look for it")
        place, _, key = self.symbol.partition("[")
        module, _, attribute = place.rpartition(".")
        try:
            found = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise RivalsError(
                f"{self.name} comes from {self.provider}, which is not installed; run: pip install {self.provider}"
            ) from error
        return found[key.strip("]'\"")] if key else found


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence, on one line.

    >>> first_sentence('Labels, e.g. "npo" of one kind. More.')
    'Labels, e.g. "npo" of one kind.'
    """
    flat = " ".join(text.split())
    end = re.search(r"(?<!e\.g)(?<!i\.e)(?<!\bcf)\.(?= [A-Z`\"(]|$)", flat)
    return flat if end is None else flat[: end.end()]


def form_of(thing: Callable[..., Any]) -> Form:
    """Return the form of a function by the names of its leading arguments; a class is of no form but "other".

    >>> form_of(lambda scores, relevance, mask=None: None)
    'lists'
    """
    if inspect.isclass(thing):
        return "other"
    names = tuple(inspect.signature(thing).parameters)
    return next((form for leading, form in _LEADING if names[: len(leading)] == leading), "other")


def read_entry(name: str, kind: Kind, thing: Callable[..., Any], symbol: str) -> Entry:
    """Return the entry of a public function or class; a loss whose docstring lacks a field raises RivalsError."""
    from rivals.losses._fields import docstring_fields, papers_in

    strict = kind == "loss"
    found = docstring_fields(thing) if strict else _loose_fields(inspect.cleandoc(thing.__doc__ or ""))
    summary, shapes, example = found["Summary"], found.get("Shapes", ""), found.get("Example", "")
    source = found.get("Source", "")
    return Entry(
        name=name,
        kind=kind,
        form=form_of(thing),
        summary=summary,
        formula=found.get("Formula", ""),
        shapes=shapes,
        when=found.get("When to use", ""),
        relations=found.get("Relations", ""),
        source=source,
        raises=found.get("Raises", ""),
        example=example,
        cost=_cost(example, shapes, "" if strict else found.get("When to use", "")),
        papers=papers_in(source) or papers_in(summary),
        aliases=() if kind == "part" else _nicknames(summary, name),
        symbol=symbol,
        module=thing.__module__,
        signature=_signature(thing),
    )


_LABELS_OF = {
    "pairs": "A better and a worse response",
    "joint_pairs": "Several responses in an order, all pairs under one logarithm",
    "best_vs_rest": "A best response and the rest",
    "suffixes": "Several responses in an order",
    "list_mle": "Several responses in an order",
    "softmax": "Several responses with rewards",
    "pointwise": "Responses marked by themselves, good or bad",
    "negatives_only": "Texts to forget, and nothing to put in their place",
    "sorted_margins": "Better and worse responses, compared as two distributions of margins",
    "sorted_scores": "Good and bad responses that are not pairs, compared as two distributions",
}


def read_preference(name: str, form: PreferenceForm) -> Entry:
    """Return the entry of a named set of options of `preference_loss`: its options say when to use it."""
    standard = type(form)()
    changed = {
        field.name: getattr(form, field.name)
        for field in fields(form)
        if getattr(form, field.name) != getattr(standard, field.name)
    }
    options = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    reference = (
        "with a reference model" if form.score in ("log_ratio", "mean_log_ratio") else "without a reference model"
    )
    noisy = ", some labels wrong" if form.label_smoothing >= 0.05 else ""
    likely = " The better response is kept likely by its own log-likelihood." if form.nll_weight else ""
    return Entry(
        name=name,
        kind="loss",
        form="preferences",
        summary=f"`preference_loss` with {options or 'its defaults'}.",
        when=f"{_LABELS_OF[form.structure]}, {reference}{noisy}.{likely}",
        relations="A set of options of `preference_loss`, which has the formula, the arguments and the sources.",
        symbol=f'rivals.losses.PREFERENCE_LOSSES["{name}"]',
        module="rivals.losses.preference_forms",
        signature="(logps, relevance, ref_logps=None, lengths=None, mask=None)",
    )


def _loose_fields(doc: str) -> dict[str, str]:
    """Read a docstring without fixed fields: labelled paragraphs, "Use it ..." and formulas by their looks."""
    start = re.search(r"^ *>>>", doc, re.MULTILINE)
    prose, example = (doc, "") if start is None else (doc[: start.start()], inspect.cleandoc(doc[start.start() :]))
    found: dict[str, str] = {}
    paragraphs = [part for part in re.split(r"\n\s*\n", prose) if part.strip()]
    found["Summary"] = " ".join(paragraphs[0].split()) if paragraphs else ""
    free: list[str] = []
    for paragraph in paragraphs[1:]:
        match = _LABEL.match(paragraph.strip())
        if match:
            label = match[1].removesuffix(" RivalsError")
            found[label] = "\n".join(filter(None, [found.get(label, ""), inspect.cleandoc(match[2]).strip()]))
        else:
            free.append(paragraph.rstrip())
    for label in ("Shapes", "Formula"):  # "... -> [...]. Use it for this. Equals that."
        text, use, when = found.get(label, "").partition("Use it ")
        if use:
            found[label], found["When to use"] = text.strip(), "Use it " + when.strip()
    found.setdefault("Formula", "\n\n".join(paragraph for paragraph in free if " = " in paragraph))
    found["Example"] = "\n\n".join(filter(None, [found.get("Example", "").strip(), example]))
    return found


def _cost(example: str, *others: str) -> str:
    """Return what is stated about time and memory: before an example or in its remarks, else in other fields."""
    found = _sentences(example.split(">>>")[0], r"\bO\(|\bmemory\b|\btime\b|\bgrows\b|\[\.\.\., C, C\]")
    remark = re.search(r"#\s*(.*\bO\(.*)", example)
    return found or (remark[1].strip() if remark else _sentences(" ".join(others), r"\bO\(|\bmemory\b"))


def _sentences(text: str, words: str) -> str:
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z\"])", " ".join(text.split()))
    return " ".join(sentence for sentence in sentences if re.search(words, sentence, re.IGNORECASE))


def _nicknames(summary: str, own: str) -> tuple[str, ...]:
    """Return the names that a summary gives in brackets, or before a colon: "... (RankNet).", "SimSiam: ..."."""
    names = [name.strip() for group in re.findall(r"\(([^()]+)\)", summary) for name in group.split(",")]
    head = re.match(r"((?:\S+ ){0,2}\S+): ", summary)
    if head:
        names.append(head[1])
    names = [re.sub(r"'s .*$| loss$| form$", "", name) for name in names]
    known = {own.replace("_", "")}
    return tuple(
        name
        for name in dict.fromkeys(names)
        if re.fullmatch(r"[A-Z][\w-]+( [\w-]+)?", name) and re.sub(r"\W", "", name).lower() not in known
    )


def _signature(thing: Callable[..., Any]) -> str:
    """Return the arguments with their defaults, without annotations."""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return "(...)"
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))
