"""The command line: `rivals quickstart | train | mine | review | evaluate | diagnose | search | serve | losses | measures`.

Importing this module loads no torch; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, Parameter

import rivals
from rivals.cli.diagnose import diagnose
from rivals.cli.mining import mine, review
from rivals.errors import RivalsError

app = App(
    name="rivals",
    help="Train, clean, evaluate and serve anything that ranks, by learning from negatives.",
    version=rivals.__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

__all__ = ["app", "main"]

SecondStage = Literal["auto", "all", "late-interaction", "list-wise", "cross-encoder", "none"]


@app.command
def quickstart(
    *,
    fast: bool = False,
    full: bool = False,
    model: str = "all-MiniLM-L6-v2",
    output: str = "",
    resume: str = "",
    seed: int = 0,
    second_stage: SecondStage = "auto",
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Train and prove a two-stage search on the embedded sample of medical questions.

    Example: rivals quickstart --output runs/first

    Parameters
    ----------
    fast
        Two minutes instead of eight: fewer steps, shorter texts.
    full
        No time limit: more passes and every kind of second stage.
    model
        A model folder, a Hugging Face name, or all-MiniLM-L6-v2 from the installed package.
    output
        The run folder to write (default: runs/quickstart-DATE-TIME).
    resume
        Continue the run in this folder; its own configuration holds, other options are ignored.
    seed
        Seed of every random draw.
    second_stage
        What re-ranks; auto takes the best on the dev questions.
    device
        auto, cpu, cuda or cuda:N.
    quiet
        Print results only, no progress.
    """
    from rivals.cli.train import run_quickstart

    run_quickstart(
        fast=fast,
        full=full,
        model=model,
        output=output,
        resume=resume,
        seed=seed,
        second_stage=second_stage,
        device=device,
        quiet=quiet,
    )


@app.command
def train(
    *,
    documents: str = "",
    pairs: str = "",
    queries: str = "",
    judgements: str = "",
    folder: str = "",
    config: str = "",
    model: str = "",
    output: str = "",
    resume: str = "",
    seed: int | None = None,
    device: str = "",
    print_config: bool = False,
    quiet: bool = False,
) -> None:
    """Train, evaluate and index a two-stage search on your own data.

    Example: rivals train --documents docs.jsonl --pairs pairs.jsonl --output runs/mine

    Files are JSONL, CSV, TSV or Parquet. Documents have id and text (and title); pairs have a question (or query id) and a document
    id (or text), and may have relevance and split.

    Parameters
    ----------
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
    config
        A TOML file with any option; the options here override it.
    model
        A model folder or name to start from.
    output
        The run folder to write (default: runs/train-DATE-TIME).
    resume
        Continue the run in this folder with the configuration and data it was started with.
    seed
        Seed of every random draw.
    device
        auto, cpu, cuda or cuda:N.
    print_config
        Print the resolved configuration as TOML and stop.
    quiet
        Print results only, no progress.
    """
    from rivals.cli.train import run_train

    given = {"documents": documents, "pairs": pairs, "queries": queries, "judgements": judgements, "folder": folder}
    run_train(
        data=given,
        config=config,
        model=model,
        output=output,
        resume=resume,
        seed=seed,
        device=device,
        print_config=print_config,
        quiet=quiet,
    )


app.command(mine)
app.command(review)
app.command(diagnose)


@app.command
def evaluate(
    runs: list[str],
    *,
    judgements: str = "",
    queries: str = "",
    documents: str = "",
    folder: str = "",
    split: str = "",
    training: str = "",
    measures: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    baseline: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    slices: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    level: float = 0.95,
    correction: Literal["holm", "benjamini-hochberg"] = "holm",
    power: float = 0.8,
    condensed: bool = False,
    common: bool = False,
    on_unknown: Literal["error", "unjudged"] = "error",
    json: str = "",
    per_query: str = "",
    seed: int = 0,
) -> None:
    """Compare run files with intervals, paired tests, effect sizes, power and tie groups, and look for leakage.

    Example: rivals evaluate runs/first/runs/bm25.trec runs/first/runs/two-stage.trec --judgements qrels.txt

    Parameters
    ----------
    runs
        Run files with six columns (query Q0 document rank score tag), or Parquet.
    judgements
        A qrels file with four columns: query 0 document relevance; or a table, such as BEIR's qrels TSV.
    queries
        The queries' texts and columns, for slices and leakage: JSONL, CSV, TSV, Parquet or TREC topics.
    documents
        The documents that were searched; a run with others is then an error.
    folder
        A whole data set instead of the three files above; its training split is searched for leakage.
    split
        The split of that data set to evaluate (default: test, if there is one).
    training
        A folder or file of pairs that the systems were trained on, to report what it shares with the test.
    measures
        Names such as nDCG@10, RR@10, R@100, P(rel=2)@5 (default: those of the report).
    baseline
        Runs, by file name without ending, to test the others against (default: the first).
    slices
        Views by length, relevant, seen, split, or any column of the queries.
    level
        The level of the intervals; tests are made at 1 minus this.
    correction
        For several tests: holm (any false alarm) or benjamini-hochberg (the share of false alarms).
    power
        How surely a difference of the smallest detectable size is found.
    condensed
        Also measure lists without the documents that nobody judged.
    common
        Measure only the queries that every run answers.
    on_unknown
        Whether a document that is not in the data is an error or counts as unjudged.
    json
        Also write the whole evaluation to this file.
    per_query
        Also write every value per query to this file: CSV, TSV, JSONL or Parquet.
    seed
        Seed of bootstrap and randomisation.
    """
    from rivals.cli.evaluate import run_evaluate

    run_evaluate(
        runs=runs,
        judgements=judgements,
        queries=queries,
        documents=documents,
        folder=folder,
        split=split,
        training=training,
        measures=measures,
        baselines=baseline,
        slices=slices,
        level=level,
        correction=correction,
        power=power,
        condensed=condensed,
        common=common,
        on_unknown=on_unknown,
        json_file=json,
        per_query=per_query,
        seed=seed,
    )


@app.command
def search(run: str, question: str, *, k: int = 5, device: str = "auto", json: bool = False) -> None:
    """Search a finished run for a question.

    Example: rivals search runs/first "What are the symptoms of glaucoma?"

    Parameters
    ----------
    run
        The run folder.
    question
        What to look for.
    k
        How many documents to show.
    device
        auto, cpu, cuda or cuda:N.
    json
        Print the whole answer as JSON.
    """
    from rivals.cli.search import run_search

    run_search(run=run, question=question, k=k, device=device, as_json=json)


@app.command
def serve(run: str, *, host: str = "127.0.0.1", port: int = 8080, api_key: str = "", device: str = "auto") -> None:
    """Serve a finished run: a web page at / and POST /search.

    Example: rivals serve runs/first --port 8080

    Parameters
    ----------
    run
        The run folder.
    host
        The address to bind to; anything but loopback needs an API key.
    port
        The port.
    api_key
        Ask for this key (or set RIVALS_API_KEY).
    device
        auto, cpu, cuda or cuda:N.
    """
    from rivals.cli.search import run_serve

    run_serve(run=run, host=host, port=port, api_key=api_key or os.environ.get("RIVALS_API_KEY", ""), device=device)


@app.command
def losses(name: str = "", *, paper: int = 0, task: str = "", form: str = "", parts: bool = False) -> None:
    """List the losses, or show one: formula, shapes, when to use it, relations, source, cost, example.

    Example: rivals losses info_nce

    Parameters
    ----------
    name
        The loss to show, by any name people use: info_nce, "InfoNCE", RankNet, dpo. Without a name all are listed.
    paper
        Only what comes from the paper of this number, parts included.
    task
        Only what is for this task: regression, binary, multiclass, multilabel, ranking, retrieval, recommendation,
        metric-learning, preference, generation, rag.
    form
        Only what takes this form of data: lists, targets, labels, "labelled rows", embeddings, pairs, preferences, other.
    parts
        Also list what stands beside the losses: samplers, weights, queues, modules.
    """
    from rivals.cli.losses import run_losses

    run_losses(name=name, paper=paper, task=task, form=form, parts=parts)


@app.command
def measures(name: str = "", *, paper: int = 0, task: str = "", form: str = "", parts: bool = False) -> None:
    """List the measures, or show one: formula, shapes, when to use it, source, example.

    Example: rivals measures ndcg

    Parameters
    ----------
    name
        The measure to show: ndcg, nDCG@10, MRR, f1_score. Without a name all are listed.
    paper
        Only what comes from the paper of this number, parts included.
    task
        Only what is for this task: regression, binary, multiclass, multilabel, ranking, retrieval, recommendation,
        metric-learning, preference, generation, rag.
    form
        Only what takes this form of data: lists, targets, labels, other.
    parts
        Also list what stands beside the measures: intervals, tests of significance, names.
    """
    from rivals.cli.losses import run_measures

    run_measures(name=name, paper=paper, task=task, form=form, parts=parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with one line and status 2, an interrupt with status 130."""
    try:
        app(arguments)
    except RivalsError as error:
        print(f"rivals: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print("; ".join(["rivals: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        print(f"rivals: {what}", file=sys.stderr)
        sys.exit(2)
