"""Mining over Ray: workers encode, search and filter blocks of queries; this process draws, audits and collects.

A worker that dies costs its block, which another worker does again. When this process dies, the blocks stay, and the same
call with the same folder goes on. Drawing and the audit go through the blocks in order, in this process, because random
draws follow one generator: so the result is that of one process, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.errors import RivalsError
from rivals.negatives.engines.blocks import BlockFolder
from rivals.negatives.mine import Marked, Mined, collect, marked_blocks
from rivals.negatives.samplers import Sampler, Top
from rivals.progress import progress

if TYPE_CHECKING:
    from rivals.models.encoder import Encoder

#: Makes the source and the filters in a worker, of the dataset that is mined; called once a worker process.
Parts = Callable[[Dataset], tuple[Retriever, Sequence[Transform]]]

_SAMPLER = Top(4)
_ENCODED = 8  # blocks of texts that one task encodes


def mine_with_ray(
    parts: Parts,
    dataset: Dataset,
    folder: str | Path,
    *,
    about: str,
    sampler: Sampler = _SAMPLER,
    top_k: int = 100,
    seed: int = 0,
    block: int = 1000,
    hold: Literal["all", "drawn"] = "all",
    output: str | Path | None = None,
    allow_none: bool = False,
    examples: int = 20,
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 3,
    show: bool = True,
) -> Mined:
    """Mine hard negatives on a Ray cluster, or on this machine's processors: the same result as `mine_hard_negatives`.

    Use it when one process takes too long: every worker searches and filters blocks of queries. `mine_hard_negatives`
    with the same `block` draws the same candidates with the same scores, if the machines compute alike.

    Args:
        parts: a function of the dataset that gives (source, filters); it runs in the workers, so what it opens (indices,
            memory-mapped vectors, models) must be there under the same name on every machine. Ray pickles it.
        dataset: the queries to mine for; the workers get it through Ray's object store.
        folder: where blocks are kept until the job is done, on storage that every machine shares. The same call with the
            same folder goes on after an interruption. It is not removed here.
        about: names the pipeline (its configuration, say), so that blocks of another one are never taken up.
        sampler, top_k, seed, hold, output, allow_none, examples, show: as for `mine_hard_negatives`.
        block: queries a task; what a dead worker costs.
        address: of a cluster ("auto" on its head node); None starts Ray on this machine, unless it runs already.
        cpus, gpus: what one task needs; retries: how often a block is tried again after its worker died.

    Raises:
        RivalsError: Ray is not installed; a folder of another job; a block whose workers keep dying; and all that
            `mine_hard_negatives` raises, in workers too.
    """
    for name, value, least in (("block", block, 1), ("top_k", top_k, 1), ("seed", seed, 0), ("retries", retries, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
    total = len(dataset.queries)
    if not total:
        raise RivalsError("the dataset has no queries to mine negatives for; check the split")
    blocks = BlockFolder(folder)
    blocks.begin({"about": about, "top_k": top_k, "seed": seed, "block": block, "data": _fingerprint(dataset)})
    bounds = [(start, min(start + block, total)) for start in range(0, total, block)]
    missing = [number for number in range(len(bounds)) if not blocks.has(number)]
    options = {"top_k": top_k, "seed": seed, "folder": str(Path(folder).resolve())}
    jobs = {number: (number, *bounds[number], options) for number in missing}
    resources = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}

    def in_order() -> Iterator[Marked]:
        with (
            _finished(_mine_block, (parts, _lean(dataset)), jobs, address=address, resources=resources) as finished,
            progress("Mining negatives", total, show=show) as advance,
        ):
            waiting = set(missing)
            for number, (start, stop) in enumerate(bounds):
                while number in waiting:
                    waiting.remove(next(finished))
                yield blocks.read(number, dataset.queries.take(np.arange(start, stop)), dataset.documents)
                advance(stop - start)

    return collect(in_order(), sampler, seed=seed, hold=hold, output=output, allow_none=allow_none, examples=examples)


def encode_with_ray(
    encoder: Callable[[], Encoder],
    texts: Sequence[str],
    folder: str | Path,
    *,
    role: Literal["query", "document"] = "document",
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 3,
    show: bool = True,
) -> None:
    """Encode texts on a Ray cluster into a folder of blocks, where `rivals.models.blocks.encode_in_blocks` finds them.

    Call it before `mine_with_ray` where documents are many; then `encode_in_blocks(encoder, texts, role=role,
    folder=folder)`, here or in a worker, reads what was encoded. A block that is there already is not encoded again.

    Args:
        encoder: opens the encoder in a worker; the same weights and options as where the vectors are read.
        texts: all of them; a task gets its own.
        folder: on storage that every machine shares.
        address, cpus, gpus, retries, show: as for `mine_with_ray`.

    Raises:
        RivalsError: Ray is not installed, workers keep dying, or what the encoder raises.
    """
    from rivals.models.blocks import blocks_of

    chunks = list(blocks_of(texts))
    target = str(Path(folder).resolve())
    jobs = {number: (chunks[number : number + _ENCODED], role, target) for number in range(0, len(chunks), _ENCODED)}
    resources = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
    with (
        _finished(_encode_chunks, (encoder,), jobs, address=address, resources=resources) as finished,
        progress("Encoding", len(texts), show=show) as advance,
    ):
        for number in finished:
            advance(sum(map(len, chunks[number : number + _ENCODED])))


# ------------------------------------------------------------------------------------------------ in the workers

_opened: dict[str, Any] = {}  # what this worker process has opened, by job


def _once(job: str, make: Callable[[], Any]) -> Any:
    if job not in _opened:
        _opened.clear()  # one job at a time: indices and models are large
        _opened[job] = make()
    return _opened[job]


def _mine_block(job: str, shared: list[Any], number: int, start: int, stop: int, options: Mapping[str, Any]) -> None:
    import ray

    def open_parts() -> tuple[Retriever, tuple[Transform, ...], Dataset]:
        parts, dataset = ray.get(shared)
        source, filters = parts(dataset)
        check_same_documents(dataset.documents, source.documents)
        return source, tuple(filters), dataset

    source, filters, dataset = _once(job, open_parts)
    part = dataset.take(np.arange(start, stop))
    top_k, seed = options["top_k"], options["seed"]
    marked = next(marked_blocks(source, part, filters, top_k=top_k, seed=seed, block=stop - start, show=False))
    BlockFolder(options["folder"]).write(number, marked)


def _encode_chunks(
    job: str, shared: list[Any], chunks: list[list[str]], role: Literal["query", "document"], folder: str
) -> None:
    import ray

    from rivals.models.blocks import encode_in_blocks

    encoder = _once(job, lambda: ray.get(shared)[0]())
    for chunk in chunks:
        encode_in_blocks(encoder, chunk, role=role, folder=Path(folder), description="")


# ------------------------------------------------------------------------------------------------ the cluster


@contextmanager
def _finished(
    work: Callable[..., None],
    shared: tuple[Any, ...],
    jobs: Mapping[int, tuple[Any, ...]],
    *,
    address: str | None,
    resources: Mapping[str, Any],
) -> Iterator[Iterator[int]]:
    """Run jobs as Ray tasks, some more at a time than there are processors, and yield their numbers as they end.

    Every task gets a name of this job and references to the `shared` objects, which it opens once a process.
    """
    if not jobs:
        yield iter(())
        return
    with _session(address) as ray:
        task = ray.remote(work).options(**resources)
        job, held = uuid.uuid4().hex, [ray.put(each) for each in shared]
        room = 2 * max(int(ray.cluster_resources().get("CPU", 1) / max(resources["num_cpus"], 0.1)), 1)
        waiting = iter(jobs.items())
        running: dict[Any, int] = {}

        def ended() -> Iterator[int]:
            while True:
                for number, arguments in itertools.islice(waiting, max(room - len(running), 0)):
                    running[task.remote(job, held, *arguments)] = number
                if not running:
                    return
                for reference in ray.wait(list(running))[0]:
                    number = running.pop(reference)
                    _result(ray, reference, number, resources["max_retries"])
                    yield number

        try:
            yield ended()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _result(ray: Any, reference: Any, number: int, retries: int) -> None:
    """Raise what a task raised: a RivalsError as itself, a dead worker as one."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, RivalsError) else error from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise RivalsError(
            f"block {number} failed {retries + 1} times because its worker died ({type(error).__name__}); give a task more "
            "memory (fewer workers, smaller blocks) and start again with the same folder: finished blocks are kept"
        ) from None


@contextmanager
def _session(address: str | None) -> Iterator[Any]:
    """Yield ray, connected to the cluster, and leave it as it was found."""
    try:
        import ray
    except ImportError:
        raise RivalsError("mining over a cluster needs Ray; install it with: pip install 'rivals[ray]'") from None
    started = not ray.is_initialized()
    if started:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=address, **quiet) if address else ray.init(
                address="local", include_dashboard=False, **quiet
            )
        except ConnectionError as error:
            raise RivalsError(
                f"no Ray cluster answers at '{address}' ({error}); start one with: ray start --head"
            ) from None
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _lean(dataset: Dataset) -> Dataset:
    """Return the dataset as bare tables, so that what was computed from them is not sent along."""
    queries, documents = (
        Collection.from_table(members.table, name=members.name) for members in (dataset.queries, dataset.documents)
    )
    judgements = dataset.judgements
    return Dataset(queries, documents, Judgements(judgements.offsets, judgements.document, judgements.relevance))


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for column in (dataset.judgements.offsets, dataset.judgements.document, dataset.judgements.relevance):
        digest.update(column.tobytes())
    return f"{dataset.queries.fingerprint} {dataset.documents.fingerprint} {digest.hexdigest()}"
