"""`rivals mine`."""

from __future__ import annotations

from pathlib import Path

from rivals.errors import RivalsError
from rivals.progress import set_quiet
from rivals.workflow.config import DataConfig


def run_mine(
    *,
    output: str,
    documents: str,
    pairs: str,
    folder: str,
    model: str,
    split: str,
    negatives: int,
    candidates: int,
    relative: float,
    sampler: str,
    window: int,
    form: str,
    seed: int,
    device: str,
    quiet: bool,
) -> None:
    """Mine hard negatives for a dataset's queries and write them with their audit."""
    from rivals.cli.train import open_data
    from rivals.data import load_sample, save_run
    from rivals.files import atomic_file
    from rivals.models import Encoder
    from rivals.negatives import PositiveAware, Softmax, Top, Uniform, mine_hard_negatives
    from rivals.negatives import export as writers
    from rivals.retrieve import BM25, Dense

    set_quiet(quiet)
    if Path(output).is_dir():
        raise RivalsError(f"{output} is a folder; --output names the file to write")
    endings = (".parquet",) if form == "run" else (".jsonl", ".parquet")
    if Path(output).suffix not in endings:
        raise RivalsError(f"cannot write {form} to {output}; let its name end in {' or '.join(endings)}")
    given = any((documents, pairs, folder))
    dataset = open_data(DataConfig(folder=folder, documents=documents, pairs=pairs), seed) if given else load_sample()
    if split:
        dataset = dataset.split(split)
    known = dataset.judgements.positives.offsets
    answered = (known[1:] > known[:-1]).nonzero()[0]
    if len(answered) < len(dataset.queries):
        print(f"{len(dataset.queries) - len(answered)} queries have no relevant document and are left out")
        dataset = dataset.take(answered)
    samplers = {"top": Top, "uniform": Uniform, "softmax": Softmax}
    options = {} if sampler == "top" else {"window": window}
    source = BM25(dataset.documents) | Dense(Encoder.load(model, device=device), dataset.documents)
    mined = mine_hard_negatives(
        source,
        dataset,
        filters=PositiveAware(relative=relative),
        sampler=samplers[sampler](negatives, **options),
        top_k=candidates,
        seed=seed,
    )
    if form == "run":
        save_run(mined.run, output)
        rows = len(mined.run)
    else:
        forms = {"triples": writers.write_triples, "tuples": writers.write_tuples, "lists": writers.write_lists}
        rows = forms[form](mined.run, mined.draw, output).rows
    with atomic_file(f"{output}.audit.json") as out:
        out.write(mined.audit.to_json())
    print(mined.audit)
    print(f"Wrote {rows} rows to {output} and the audit to {output}.audit.json")
