"""Exact top-k of inner products, on the CPU or a GPU.

A cheap product (int8 or bfloat16 where the processor multiplies those fast, float32 elsewhere) proposes, and a float32
rescoring of every document that could still be among the k best decides. What "could still be" means is derived from
how much of each vector the cheap product lost, so the lists do not depend on which product was used.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError

Precision = Literal["auto", "int8", "bfloat16", "float32"]

_BLOCK = 32_768  # documents a block
_STRETCH = 8_192  # documents of every block but the first that go at once: their products stay near the processor
_TILE = 512  # queries a tile; every product rearranges its documents once, which few queries do not repay
_CELLS = 1 << 24  # products held at once by all threads, each with a tile of 64 queries or more
_KEEP = 2 << 30  # bytes of prepared documents kept in memory


@functools.cache
def best_precision() -> Literal["int8", "bfloat16", "float32"]:
    """Return the cheapest product of this processor: bfloat16 with AMX, int8 with VNNI, else float32."""
    import torch

    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    amx = found.get("amx_bf16", False) and getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)()
    if amx:
        return "bfloat16"
    if (found.get("avx512_vnni") or found.get("avx_vnni")) and _int8_works():
        return "int8"
    return "float32"


def _int8_works() -> bool:
    """Whether torch's int8 product, which is not a public function, is there and gives exact sums."""
    import torch

    left = torch.arange(-127, 128, dtype=torch.int8).repeat(64)[: 37 * 67].view(37, 67)
    right = torch.arange(127, -128, -1, dtype=torch.int8).repeat(64)[: 53 * 67].view(53, 67)
    out = torch.empty(37, 53, dtype=torch.int32)
    try:
        torch._int_mm(left, right.T, out=out)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((out == left.int() @ right.int().T).all())


@dataclass(frozen=True)
class _Block:
    """A stretch of documents ready for the product. `codes` is the cheap copy, a torch tensor [n, D]."""

    start: int
    vectors: NDArray[np.float32]
    codes: Any
    scale: NDArray[np.float32]
    norm: float
    residual: float
    step: float


class PreparedDocuments:
    """Documents made ready for many searches: checked, centred and copied once in the cheap format.

    Ranking by inner product does not change when one vector is subtracted from every document, so the cheap copy is
    made of the documents less their mean, which loses less.

    Args:
        vectors: float[N, D], an array or a memory map. float32 is not copied; other floats are converted block by
            block.
        precision: the product's format; "auto" asks `best_precision`.
        keep: cheap copies up to this many bytes in all stay in memory, beyond that they are made again by every search,
            so the documents may be larger than memory.

    Raises:
        RivalsError: not a matrix of floats; NaN, infinity or values too large in a row (found when the row is first
            read).
    """

    def __init__(self, vectors: NDArray[Any], *, precision: Precision = "auto", keep: int = _KEEP) -> None:
        self.vectors = _matrix(vectors, "documents")
        chosen = best_precision() if precision == "auto" else precision
        if chosen == "int8" and not 2 <= self.vectors.shape[1] <= 1 << 16:
            chosen = "float32"  # torch's int8 product errs for one dimension and could overflow for very many
        if chosen not in ("int8", "bfloat16", "float32"):
            raise RivalsError(f"precision is {precision!r}; use 'auto', 'int8', 'bfloat16' or 'float32'")
        self.precision: str = chosen
        size, width = self.vectors.shape
        bytes_each = {"int8": 1, "bfloat16": 2, "float32": 0}[chosen]
        if self.vectors.dtype != np.float32:
            bytes_each += 4
        self._keeps = size * width * bytes_each <= keep
        self._blocks: dict[int, _Block] = {}
        sample = np.asarray(self.vectors[:: max(1, size // 4096)], dtype=np.float32)
        centre = sample.mean(axis=0) if size else np.zeros(width, np.float32)
        usable = np.linalg.norm(centre.astype(np.float64)) < 1e18  # False for NaN too; its row is named when it is read
        self.centre = centre if usable else np.zeros(width, np.float32)
        # Subtractive dither for the documents, plain dither for the queries: see `_margins`.
        self.dither, self.query_dither = np.random.default_rng(20).uniform(-0.5, 0.5, (2, width)).astype(np.float32)

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def block(self, start: int) -> _Block:
        """Return the block which begins at document `start`."""
        held = self._blocks.get(start)
        if held is None:
            held = self._make(start)
            if self._keeps:
                self._blocks[start] = held
        return held

    def _make(self, start: int) -> _Block:

        vectors = np.ascontiguousarray(self.vectors[start : start + _BLOCK], dtype=np.float32)
        codes, scale, norm, residual = _encode(vectors, self.centre, self.dither, 1, self.precision)
        check_norms(vectors, norm, start, "documents")
        return _Block(
            start=start,
            vectors=vectors,
            codes=codes,
            scale=scale,
            norm=float(norm.max(initial=0)),
            residual=float(residual.max(initial=0)),
            step=float(scale.max(initial=0)),
        )


def exact_top_k(
    queries: NDArray[Any],
    documents: NDArray[Any] | PreparedDocuments,
    k: int,
    *,
    order: NDArray[np.int64] | None = None,
    proven: bool = False,
    precision: Precision = "auto",
    device: str | None = None,
    threads: int | None = None,
    advance: Callable[[float], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k documents of largest inner product for each query.

    Scores float32[Q, K] and document rows int64[Q, K], K = min(k, N).

    Ordered by score descending, ties by `order` ascending (by default the document's row), and cut in that order, so
    the result does not depend on blocks, threads or precision. Equal document vectors get equal scores.

    The cheap product errs by e(q, d). A document is rescored in float32 unless its cheap score is more than a margin
    below the k-th best. With `proven=True` the margin comes from the bound of Cauchy and Schwarz, `|e| <= |q - q'|
    |d| + |q'| |d - d'|` with q', d' the copies, and the list is that of a full float32 scan. By default int8, whose
    rounding is dithered so that e is a sum of independent bounded terms whatever the vectors hold, takes six standard
    deviations (eight against a k-th best that errs as well): a member is lost with a probability below 1e-7, and far
    fewer documents are rescored. bfloat16 and float32 always use the bound.

    Args:
        queries: float[Q, D].
        documents: float[N, D] or `PreparedDocuments` of it (prepare once to search often). May be a memory map.
        k: how many; 0 gives empty lists, more than N gives all N.
        order: int64[N], a permutation of 0..N-1: the rank of each document among equal scores.
        proven: use the strict margin everywhere.
        precision: the product's format on the CPU; "auto" asks the processor.
        device: a torch device such as "cuda" to compute on; None is the CPU.
        threads: threads, by default torch's number, each with queries of its own; 1 leaves the product to torch's setting.
        advance: called with the number of query-document pairs done, for a progress display.

    Raises:
        RivalsError: shapes that do not fit, k < 0, NaN or infinite values, vectors of norm above 1e18.

    Source: blocked exhaustive search as in Johnson, Douze, Jegou 2017 (Billion-scale similarity search with GPUs);
    the margins and the kernel are ours.

    >>> import numpy as np
    >>> documents = np.eye(3, dtype=np.float32)
    >>> scores, rows = exact_top_k(np.array([[0.1, 0.9, 0.5]], dtype=np.float32), documents, 2)
    >>> rows.tolist(), scores.round(3).tolist()
    ([[1, 2]], [[0.8999999761581421, 0.5]])
    """
    held = documents if isinstance(documents, PreparedDocuments) else PreparedDocuments(documents, precision=precision)
    matrix = np.ascontiguousarray(_matrix(queries, "queries"), dtype=np.float32)
    size, width = held.vectors.shape
    if matrix.shape[1] != width:
        raise RivalsError(
            f"queries have {matrix.shape[1]} dimensions and documents {width}; encode both with the same model"
        )
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 0:
        raise RivalsError(f"k is {k!r}; it must be a whole number, 0 or more")
    if order is not None:
        order = np.ascontiguousarray(order, dtype=np.int64)
        if order.shape != (size,) or (size and (np.bincount(order.clip(0, size - 1), minlength=size) != 1).any()):
            raise RivalsError(f"order must be a permutation of the {size} document rows")
    k = min(int(k), size)
    norm = np.sqrt(np.einsum("qd,qd->q", matrix, matrix, dtype=np.float64)).astype(np.float32)
    check_norms(matrix, norm, 0, "queries")
    if k == 0 or not len(matrix):
        return np.empty((len(matrix), k), np.float32), np.empty((len(matrix), k), np.int64)
    if (device is not None and not device.startswith("cpu")) or not compiled():
        from rivals.retrieve._topk_torch import search

        keys = search(matrix, held, k, order, device or "cpu", advance)
    else:
        keys = _search(matrix, norm, held, k, order, proven, threads, advance)
    return unpack(keys, order)


def unpack(keys: NDArray[np.int64], order: NDArray[np.int64] | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Split sorted keys (score in the upper half, rank among equals in the lower) into scores and document rows."""
    ordered = (~(keys >> 32)).astype(np.int32)
    scores = (ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    rows = keys & np.int64(0xFFFFFFFF)
    if order is not None:
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        rows = inverse[rows]
    return scores, rows


@functools.cache
def compiled() -> bool:
    """Return whether numba is installed."""
    try:
        import numba  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        return False
    return True


def _matrix(vectors: Any, what: str) -> NDArray[Any]:
    array = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise RivalsError(
            f"{what} must be a matrix [rows, dimensions] with at least one dimension, not shape {array.shape}"
        )
    if array.dtype.kind != "f":
        raise RivalsError(f"{what} must be floats, not {array.dtype}")
    return array


def check_norms(vectors: NDArray[Any], norm: NDArray[np.float32], start: int, what: str) -> None:
    """Raise a RivalsError that names the first row whose norm is not below 1e18; `norm` may be that of centred rows."""
    if (norm < 1e18).all():
        return
    with np.errstate(over="ignore", invalid="ignore"):
        raw = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = ~(raw < 1e18)
    if bad.any():
        row = int(bad.argmax())
        large = "has values too large for inner products in float32 (norm above 1e18)"
        fault = large if np.isfinite(vectors[row]).all() else "holds NaN or infinity"
        raise RivalsError(
            f"{what}: row {start + row} (counted from 0) {fault}; {int(bad.sum())} such rows in this block"
        )


def _encode(
    vectors: NDArray[np.float32], centre: NDArray[np.float32], dither: NDArray[np.float32], back: int, precision: str
) -> tuple[Any, Any, Any, Any]:
    """Return the cheap copy, each row's scale, its norm and the norm of what the copy lost."""
    import torch

    size = len(vectors)
    scale, norm, residual = np.ones(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    if precision == "int8":
        from rivals.retrieve._select import quantise

        small = np.empty(vectors.shape, np.int8)
        quantise(vectors, centre, dither, np.float32(back), small, scale, norm, residual)
        return torch.from_numpy(small), scale, norm, residual
    if precision == "float32":
        norm[:] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        if torch.get_float32_matmul_precision() != "highest":  # then torch may round its inputs to bfloat16
            residual[:] = norm * 2.0**-8
        return torch.from_numpy(vectors), scale, norm, residual
    copy = torch.empty(vectors.shape, dtype=torch.bfloat16)
    step = max(1, (1 << 18) // vectors.shape[1])
    for i in range(0, size, step):
        part = torch.from_numpy(vectors[i : i + step] - centre)
        copy[i : i + step] = part
        norm[i : i + step] = part.norm(dim=1).numpy()
        residual[i : i + step] = (part - copy[i : i + step].float()).norm(dim=1).numpy()
    return copy, scale, norm, residual


def _search(
    queries: NDArray[np.float32],
    norm: NDArray[np.float32],
    documents: PreparedDocuments,
    k: int,
    order: NDArray[np.int64] | None,
    proven: bool,
    threads: int | None,
    advance: Callable[[float], None] | None,
) -> NDArray[np.int64]:
    import torch

    precision, width = documents.precision, queries.shape[1]
    codes, scale, _, residual = _encode(queries, np.zeros(width, np.float32), documents.query_dither, 0, precision)
    offset = np.zeros(len(queries), np.float32) if precision != "int8" else codes.float().numpy() @ documents.dither
    shift = queries @ documents.centre if precision != "float32" else np.zeros(len(queries), np.float32)
    best, held = np.empty((len(queries), k), np.int64), np.zeros(len(queries), np.int64)
    before = torch.get_num_threads()
    # Each thread takes a tile of queries through the product and the selection by itself: torch's own threads would wait for
    # each other after every product. For a few queries, threads cost more than they give; torch's share the product then.
    workers = max(1, min(before if threads is None else int(threads), len(queries) // 32))
    rounding = np.float32(2.0**-8 * 1.01 if precision == "bfloat16" else 0.0)
    local = threading.local()
    with ExitStack() as stack:
        run: Callable[..., Iterator[int]] = map
        if workers > 1:
            stack.callback(torch.set_num_threads, before)
            pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
            run = stack.enter_context(pool).map
        for block in map(documents.block, range(0, len(documents), _BLOCK)):
            running, window = _margins(norm, scale, residual, block, width, proven or precision != "int8")
            state = (offset, queries, scale, shift, running, window, best, held)
            # The first documents fill the lists, which costs least in one go; a few queries gain nothing from stretches.
            stretch = _STRETCH if block.start and len(queries) >= _TILE else _BLOCK
            for begin in range(0, len(block.vectors), stretch):
                inside = slice(begin, begin + stretch)
                size, at = len(block.vectors[inside]), block.start + begin
                ranks = np.arange(at, at + size) if order is None else order[at : at + size]
                here = (block.scale[inside], block.vectors[inside], ranks, rounding)
                tile = min(_TILE, max(_CELLS // (size * workers), 64), -(-len(queries) // workers))
                scan = functools.partial(_scan, local, codes, block.codes[inside], here, state, tile)
                for done in run(scan, range(0, len(queries), tile)):
                    if advance is not None:
                        advance(done * size)
    return best


def _scan(
    local: threading.local, codes: Any, part: Any, here: tuple[Any, ...], state: tuple[Any, ...], tile: int, first: int
) -> int:
    """Take the queries `first` to `first + tile` through the product with some documents and fold it into their lists."""
    import torch

    from rivals.retrieve._select import select

    left = codes[first : first + tile]
    shape, kind = (len(left), len(part)), torch.int32 if codes.dtype == torch.int8 else codes.dtype
    buffer = getattr(local, "buffer", None)
    if buffer is None or len(buffer) < shape[0] * shape[1]:
        buffer = local.buffer = torch.empty(shape[0] * shape[1], dtype=kind)
    product = buffer[: shape[0] * shape[1]].view(shape)
    (torch._int_mm if kind == torch.int32 else torch.mm)(left, part.T, out=product)
    scores = (product.float() if kind == torch.bfloat16 else product).numpy()
    document_scale, vectors, ranks, rounding = here
    offset, queries, scale, shift, running, window, best, held = (column[first : first + tile] for column in state)
    select(scores, document_scale, offset, vectors, ranks, queries, scale, shift, running, window, rounding, best, held)
    return len(left)


def _margins(
    norm: NDArray[np.float32],
    scale: NDArray[np.float32],
    residual: NDArray[np.float32],
    block: _Block,
    width: int,
    strict: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far below the exact k-th so far, and below the block's approximate k-th, a candidate may lie; one a query."""
    sums = norm * np.float32(block.norm * width * 2.0**-22)  # rounding of the sums themselves, generously
    if strict:
        lost = residual * np.float32(block.norm) + (norm + residual) * np.float32(block.residual) + sums
        return lost, 2 * lost
    # Subtractive dither makes the loss of a document's value uniform in a step s, variance s^2 / 12, whatever the
    # value; plain dither makes a query's loss one of two values a step apart with mean 0, sub-Gaussian with s^2 / 4
    # (Hoeffding).
    from_documents = ((norm + residual) * np.float32(block.step)) ** 2 / 12
    from_queries = (scale * np.float32(block.norm)) ** 2 / 4
    deviation = np.sqrt(from_documents + from_queries)
    return 6 * deviation + 2 * sums, 8 * deviation + 2 * sums
