"""`rivals diagnose`: what typos, rewording, padding, stuffed rivals and the like cost a search. Loads nothing heavy."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from rivals.errors import DataError, RivalsError

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset
    from rivals.data.pipeline import Retriever
    from rivals.diagnose.robustness import Perturbation
    from rivals.diagnose.robustness.edits import Synonyms

__all__ = ["diagnose"]

Stage = Literal["auto", "bm25", "retriever", "two-stage"]
_DEFAULT_MODEL = "all-MiniLM-L6-v2"


def diagnose(
    run: str = "",
    *,
    documents: str = "",
    pairs: str = "",
    queries: str = "",
    judgements: str = "",
    folder: str = "",
    split: str = "",
    system: Stage = "auto",
    model: str = "",
    perturbations: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    synonyms: str = "",
    conditions: int = 0,
    measure: str = "nDCG@10",
    k: int = 100,
    sample: int = 0,
    repeats: int = 1,
    json: str = "",
    html: str = "",
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Say what typos, other words, padded passages, stuffed rivals and the like cost a search on your own data.

    Example: rivals diagnose runs/first --sample 200

    Give the folder of a finished run, which is tested on its test questions, or data files, on which BM25 (or, with --model, an
    encoder) is tested.

    Parameters
    ----------
    run
        The run folder.
    documents
        The documents to search.
    pairs
        Questions with their relevant documents.
    queries
        Queries by id, when pairs name them by id.
    judgements
        TREC qrels, instead of pairs.
    folder
        A BEIR folder, instead of single files.
    split
        The questions of one split only (default: test, where there is one).
    system
        Which system of the run: bm25, retriever or two-stage (default: the last one it has).
    model
        A model folder or name to test on data files, instead of BM25.
    perturbations
        Which, by name: typos, case, punctuation, reword, synonyms, word-order, drop-words, negate, pad, near-duplicates, stuff,
        substitute, search-substitute, candidate-order (default: all that the system can take, but for search-substitute,
        which asks the first stage about 60 texts a question).
    synonyms
        A JSON file of words, {"word": ["other", ...]}, or "corpus" for a table made of the encoder's own token vectors.
    conditions
        Also test the first stage on queries of 1 to this many conditions, made from the documents' sentences.
    measure
        Such as nDCG@10, RR@10, R@100.
    k
        How deep the system is asked.
    sample
        At most this many questions, drawn at random (default: all).
    repeats
        How many draws of every perturbation.
    json
        Also write the whole report to this file.
    html
        Also write a page with a chart, all figures and the worst queries, which opens without a network.
    seed
        Seed of every random draw.
    device
        auto, cpu, cuda or cuda:N.
    quiet
        Print results only, no progress.
    """
    from rivals.cli._console import result_console
    from rivals.diagnose.robustness import robustness_report
    from rivals.files import atomic_file
    from rivals.progress import set_quiet

    set_quiet(quiet)
    files = {"documents": documents, "pairs": pairs, "queries": queries, "judgements": judgements, "folder": folder}
    if run and (any(files.values()) or model):
        raise RivalsError(
            "a run folder is tested on its own data; give the folder, or data files and a model, not both"
        )
    if not run and not any(files.values()):
        raise RivalsError("nothing to diagnose: give a run folder, or --documents with --pairs, or --folder")
    if sample < 0 or conditions < 0:
        raise RivalsError(f"--sample is {sample} and --conditions {conditions}; both must be 0 or more")
    dataset, tested = _of_run(run, system, device) if run else _of_files(files, system, model, device)
    dataset = _questions(dataset, split, sample, seed)
    table = _synonyms(synonyms, dataset, tested)
    chosen = _perturbations(perturbations, table)
    report = robustness_report(
        tested,
        dataset,
        perturbations=chosen,
        synonyms=table,
        measure=measure,
        k=k,
        repeats=repeats,
        seed=seed,
        name=_name(tested),
    )
    console = result_console()
    console.print(report)
    if conditions:
        console.print(_conditions(tested, dataset, conditions, sample, seed), markup=False)
    if json:
        with atomic_file(json) as out:
            out.write(report.to_json())
        console.print(f"Wrote {json}", markup=False)
    if html:
        from rivals.evaluate.plots import robustness_page

        with atomic_file(html) as out:
            out.write(robustness_page(report))
        console.print(f"Wrote {html}", markup=False)


def _of_run(run: str, system: Stage, device: str) -> tuple[Dataset, Retriever]:
    """The data a run was started with, and one of its systems."""
    from rivals.cli.train import open_data
    from rivals.serve.engine import load_engine
    from rivals.workflow.run_folder import RunFolder

    settings = RunFolder.open(run).config()
    dataset = open_data(settings.data, settings.seed)
    engine = load_engine(run, device=device)
    first = list(engine.first.values())
    if system == "auto":
        system = "two-stage" if engine.reranker is not None else "retriever" if len(first) > 1 else "bm25"
    if system == "bm25":
        return dataset, first[0]
    if len(first) < 2:
        raise RivalsError(f"{run} has no trained retriever; test it with --system bm25")
    if system == "retriever":
        return dataset, first[1]
    if engine.reranker is None:
        raise RivalsError(f"{run} has no second stage; test it with --system retriever")
    return dataset, (first[0] | first[1]) >> engine.reranker


def _of_files(files: Mapping[str, str], system: Stage, model: str, device: str) -> tuple[Dataset, Retriever]:
    """The data of files, and BM25 or an encoder over it."""
    from rivals.data import load_dataset
    from rivals.retrieve import BM25, Dense
    from rivals.workflow.config import model_name

    if system == "two-stage":
        raise RivalsError("data files bring no second stage; give a run folder, or --system bm25 or retriever")
    given = {name: value for name, value in files.items() if value and name != "folder"}
    if files["folder"] and given:
        raise RivalsError(f"give a folder or single files, not both (folder {files['folder']} and {', '.join(given)})")
    dataset = load_dataset(files["folder"]) if files["folder"] else load_dataset(**given)  # type: ignore[arg-type]
    print(dataset.describe())
    if system == "bm25" and model:
        raise RivalsError("BM25 takes no model; leave --model out, or test --system retriever")
    if system == "bm25" or (system == "auto" and not model):
        return dataset, BM25(dataset.documents)
    from rivals.models import Encoder

    encoder = Encoder.load(model_name(model or _DEFAULT_MODEL), device=device)
    return dataset, Dense(encoder, dataset.documents)


def _questions(dataset: Dataset, split: str, sample: int, seed: int) -> Dataset:
    """One split's questions, `sample` of them at random."""
    import numpy as np

    if split or "test" in dataset.splits:
        dataset = dataset.split(split or "test")
    if sample and sample < len(dataset.queries):
        dataset = dataset.take(np.sort(np.random.default_rng(seed).permutation(len(dataset.queries))[:sample]))
    return dataset


def _synonyms(synonyms: str, dataset: Dataset, tested: Retriever) -> Synonyms | None:
    """The table of a file, or one made of the corpus."""
    if not synonyms:
        return None
    if synonyms == "corpus":
        from rivals.diagnose.robustness import corpus_synonyms
        from rivals.models import Encoder

        encoder = next(
            (part.encoder for part in _parts(tested) if isinstance(getattr(part, "encoder", None), Encoder)), None
        )
        if encoder is None:
            encoder = Encoder.load(_DEFAULT_MODEL, device="cpu")
        return corpus_synonyms(encoder, dataset.documents.full_texts)
    try:
        table = json_format.loads(Path(synonyms).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", path=synonyms) from None
    right = isinstance(table, dict) and all(
        isinstance(others, list) and all(isinstance(other, str) for other in others) for others in table.values()
    )
    if not right:
        raise DataError('must hold an object of lists, {"word": ["other", ...]}', path=synonyms)
    return {word.lower(): others for word, others in table.items()}


def _perturbations(names: list[str] | None, synonyms: Synonyms | None) -> list[Perturbation] | None:
    """The perturbations of the names given; None for the default suite."""
    from rivals.diagnose import robustness as room

    if names is None:
        return None
    makers: dict[str, Any] = {
        "typos": room.Typos,
        "case": lambda: room.ChangeCase("upper"),
        "punctuation": room.ChangePunctuation,
        "reword": room.Reword,
        "synonyms": lambda: room.ReplaceSynonyms(synonyms or {}),
        "word-order": room.WordOrder,
        "drop-words": room.DropWords,
        "negate": room.Negate,
        "pad": room.PadPassages,
        "near-duplicates": room.NearDuplicates,
        "stuff": room.StuffKeywords,
        "substitute": room.SubstituteWords,
        "search-substitute": room.SearchSubstitutions,
        "candidate-order": room.CandidateOrder,
    }
    for name in names:
        if name not in makers:
            raise RivalsError(f"no perturbation is called '{name}'; there are {', '.join(makers)}")
    if "synonyms" in names and synonyms is None:
        raise RivalsError("synonyms need a table: give --synonyms FILE, or --synonyms corpus")
    return [makers[name]() for name in names]


def _conditions(tested: Retriever, dataset: Dataset, conditions: int, sample: int, seed: int) -> str:
    """The multi-condition test of the first stage, on items made from the documents."""
    from rivals.data.pipeline import Pipeline
    from rivals.diagnose.condition_sets import condition_items
    from rivals.diagnose.conditions import condition_report
    from rivals.diagnose.robustness import text_scorer

    source = tested.source if isinstance(tested, Pipeline) else tested
    documents = dataset.documents
    made = condition_items(
        documents.texts, conditions=conditions, items=sample or 200, ids=documents.ids.tolist(), seed=seed
    )
    texts = [text for item in made.items for text in (*item.chain, *item.rivals)]
    report = condition_report(made.items, text_scorer(source, texts), seed=seed, batch_size=1 << 14)
    return (
        f"\n{source.name} on queries of up to {conditions} conditions ({made.too_short} documents are too short for "
        f"an item):\n{report}"
    )


def _name(tested: Retriever) -> str:
    from rivals.data.pipeline import Pipeline

    return "two-stage" if isinstance(tested, Pipeline) else tested.name


def _parts(tested: Any) -> list[Any]:
    """A retriever's parts, itself last."""
    inner = [tested.source] if hasattr(tested, "source") else list(getattr(tested, "members", ()))
    return [part for member in inner for part in _parts(member)] + [tested]
