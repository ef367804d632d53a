"""The commands `rivals mine` and `rivals review`: their options; importing this loads nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["mine", "review"]

_Words = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def mine(
    *,
    output: str,
    documents: str = "",
    pairs: str = "",
    folder: str = "",
    config: str = "",
    model: str = "",
    split: str = "",
    negatives: int | None = None,
    candidates: int | None = None,
    sources: str = "",
    filters: _Words = None,
    relative: float | None = None,
    sampler: str = "",
    window: int | None = None,
    form: Literal["triples", "tuples", "lists", "run"] | None = None,
    labels: str = "",
    sample: int | None = None,
    seed: int | None = None,
    device: str = "",
    engine: Literal["local", "ray"] = "local",
    address: str = "",
    cpus: float = 1.0,
    gpus: float = 0.0,
    work: str = "",
    print_config: bool = False,
    quiet: bool = False,
) -> None:
    """Mine hard negatives, mark the false ones and say what was marked and why.

    Example: rivals mine --documents docs.jsonl --pairs pairs.jsonl --output negatives.jsonl

    Without data files it mines the embedded sample. Parts with options are written "kind option=value ...", for example
    --filters "positive-aware absolute=0.05" "closer-than-positive", --sampler "softmax temperature=0.05".

    Parameters
    ----------
    output
        The file to write; beside it go OUTPUT.audit.json, OUTPUT.audit.html, OUTPUT.run.parquet (every candidate with its marks,
        for rivals review) and OUTPUT.toml (the configuration).
    documents
        The documents.
    pairs
        Questions with their relevant documents.
    folder
        A BEIR folder, instead of single files.
    config
        A TOML file that spells the pipeline; the options here override it.
    model
        The encoder that scores candidates and positives (default: all-MiniLM-L6-v2).
    split
        Mine for the queries of one split only.
    negatives
        Negatives per query (default: 4).
    candidates
        How deep each source looks (default: 100).
    sources
        Who proposes candidates, with commas; the last one that can scores all of them (default: bm25,dense).
    filters
        What marks candidates, in order (default: "positive-aware relative=0.05"); none for no filter.
    relative
        For the default filter: a candidate scoring above (1 - relative) times its positive is a suspected false negative.
    sampler
        How the negatives are drawn from the survivors (default: top).
    window
        The hardest survivors that a sampler draws from (default: 10 for uniform and softmax).
    form
        triples (query, positive, negatives), tuples (anchor, positive, negative_1...), lists (labelled), or run (Parquet).
    labels
        Judged pairs (qrels or a table) to estimate the rate of false negatives from.
    sample
        How many negatives are judged for the estimate (default: 200, with labels all that are judged).
    seed
        Seed of every random draw.
    device
        auto, cpu, cuda or cuda:N.
    engine
        local, or ray: over a Ray cluster, or this machine's processors, in blocks that survive an interruption.
    address
        The Ray cluster (default: one on this machine).
    cpus
        Processors that a Ray task takes.
    gpus
        GPUs that a Ray task takes.
    work
        Where blocks and vectors are kept until mining is done, shared by all machines (default with ray: OUTPUT.work).
    print_config
        Print the configuration as TOML and stop.
    quiet
        No progress.
    """
    from rivals.cli.mine import run_mine

    run_mine(
        output=output,
        data={"documents": documents, "pairs": pairs, "folder": folder},
        config=config,
        model=model,
        split=split,
        negatives=negatives,
        candidates=candidates,
        sources=sources,
        filters=filters,
        relative=relative,
        sampler=sampler,
        window=window,
        form=form,
        labels=labels,
        sample=sample,
        seed=seed,
        device=device,
        engine=engine,
        address=address,
        cpus=cpus,
        gpus=gpus,
        work=work,
        print_config=print_config,
        quiet=quiet,
    )


def review(
    run: str,
    *,
    documents: str = "",
    pairs: str = "",
    folder: str = "",
    of: Literal["suspects", "drawn"] = "suspects",
    order: Literal["nearest", "farthest", "random"] = "nearest",
    limit: int = 20,
    per_query: int = 1,
    seed: int = 0,
    sheet: str = "",
    apply: str = "",
    output: str = "",
    judgements: str = "",
) -> None:
    """List suspected false negatives for a person, and turn the answers into labels.

    Example: rivals review negatives.jsonl --sheet suspects.tsv

    Fill in the column "relevant" with yes or no, then: rivals review negatives.jsonl --apply suspects.tsv

    Parameters
    ----------
    run
        What rivals mine wrote, or its run file (.parquet).
    documents
        The documents, for their texts (default: those that were mined).
    pairs
        Questions with their relevant documents, for their texts.
    folder
        A BEIR folder, instead of single files.
    of
        suspects (marked candidates that score at or above the positive), or drawn: a random sample of the drawn negatives, whose
        answers give the rate of false negatives.
    order
        nearest above the positive first, farthest first, or random.
    limit
        How many to list.
    per_query
        At most this many suspects of one query; 0 for all.
    seed
        Seed of a random order.
    sheet
        Also write them to this file (.tsv, .csv or .jsonl), to be filled in.
    apply
        A sheet that was filled in; its answers are added to those given before.
    output
        Where the reviewed run goes (default: beside the run, ending in .reviewed.parquet).
    judgements
        Where all judgements go, known positives and answers (default: beside the run, ending in .judgements.jsonl).
    """
    from rivals.cli.review import run_review

    run_review(
        run=run,
        data={"documents": documents, "pairs": pairs, "folder": folder},
        of=of,
        order=order,
        limit=limit,
        per_query=per_query,
        seed=seed,
        sheet=sheet,
        apply=apply,
        output=output,
        judgements=judgements,
    )
