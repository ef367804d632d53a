"""BM25: lexical retrieval over words, the first stage that needs no training."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data import Collection, Retriever, Run
from rivals.errors import IndexDamaged, RivalsError
from rivals.retrieve._topk import compiled, unpack
from rivals.retrieve.sealed import map_array, save_array, sealing, unseal

Method = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]

_VERSION = 1
_ARRAYS = ("data", "indices", "indptr", "absent")
_WORDS = re.compile(r"(?u)\b\w\w+\b")

#: language -> (PyStemmer algorithm, name of the stop word list in bm25s or None)
LANGUAGES: dict[str, tuple[str, str | None]] = {
    **{name: (name, None) for name in ("arabic", "armenian", "basque", "catalan", "esperanto", "estonian", "finnish")},
    **{name: (name, None) for name in ("greek", "hindi", "hungarian", "indonesian", "irish", "lithuanian", "nepali")},
    **{name: (name, None) for name in ("romanian", "serbian", "tamil", "yiddish")},
    **{name: (name, name) for name in ("danish", "dutch", "english", "french", "german", "italian", "norwegian")},
    **{name: (name, name) for name in ("portuguese", "russian", "spanish", "swedish", "turkish")},
}

_STEMS_KEPT = 1 << 20  # words whose stems a BM25 remembers


class Words:
    """Splits texts into the terms BM25 counts: lower case, words of two letters or more, no stop words, stemmed.

    >>> Words("english").terms("The patients were treated")
    ['patient', 'were', 'treat']
    """

    def __init__(
        self, language: str | None = "english", *, stem: bool = True, stop_words: bool | Iterable[str] = True
    ) -> None:
        if language is not None and language not in LANGUAGES:
            known = ", ".join(sorted(LANGUAGES))
            raise RivalsError(
                f"language is {language!r}; use one of {known}, or None for no stemming and no stop words"
            )
        self.language = language
        self.stemmer: Any = None
        algorithm, listed = (None, None) if language is None else LANGUAGES[language]
        if stem and algorithm is not None:
            import Stemmer

            self.stemmer = Stemmer.Stemmer(algorithm)
        if stop_words is True:
            from bm25s.tokenization import _infer_stopwords

            self.stop_words = frozenset(_infer_stopwords(listed) if listed else ())
        else:
            self.stop_words = frozenset(stop_words or ())
        self._term_of: dict[str, str] = {}

    def split(self, text: str) -> list[str]:
        """Return the words of a text in order, stop words left out, not stemmed."""
        return [word for word in _WORDS.findall(text.lower()) if word not in self.stop_words]

    def term(self, word: str) -> str:
        """Return the term of a word."""
        if self.stemmer is None:
            return word
        term = self._term_of.get(word)
        if term is None:
            if len(self._term_of) >= _STEMS_KEPT:  # a server meets new words for ever
                self._term_of.clear()
            term = self._term_of[word] = self.stemmer.stemWord(word)
        return term

    def terms(self, text: str) -> list[str]:
        """Return the terms of a text in order."""
        return [self.term(word) for word in self.split(text)]


class BM25(Retriever):
    """Okapi BM25 over the words of the documents.

    score(q, d) = sum over words t of q of idf(t) * tf / (tf + k1 * (1 - b + b * |d| / mean |d|)), a word of q counted
    as often as it stands there; idf(t) = log(1 + (N - n_t + 0.5) / (n_t + 0.5)) for "lucene". Only documents that
    share a word with the query are candidates. Equal scores are ordered, and cut, by document id descending.

    When to use: always as the first baseline; beside a dense retriever where names, numbers and rare words matter.
    Equals: `bm25s.BM25` with the same settings (its scores are the index here); the search over them is ours, because
    its compiled search is compiled anew in every process and breaks ties arbitrarily.
    Source: Robertson and Zaragoza 2009; variants as in Kamphuis et al. 2020.

    Args:
        documents: what is searched; with a `title` column, title and text.
        k1, b: term saturation and length normalisation.
        language: one of `LANGUAGES`; None for no stemming and no stop words.
        stem: reduce words to stems (Snowball).
        stop_words: True for the language's list (some languages have none), False for none, or words.
        method: the variant.
        threads: threads that search, by default one a processor.

    Raises:
        RivalsError: an unknown language or method, k1 < 0, b outside [0, 1], no document with a word.

    >>> documents = Collection(["a", "b"], ["heart attack symptoms", "treating a broken heart"])
    >>> run = BM25(documents)(Collection(["q"], ["symptoms of heart attacks"]), k=2)
    >>> documents.ids[run.document].tolist()
    ['a', 'b']
    """

    score_kind = "bm25"

    def __init__(
        self,
        documents: Collection,
        *,
        k1: float = 1.2,
        b: float = 0.75,
        language: str | None = "english",
        stem: bool = True,
        stop_words: bool | Iterable[str] = True,
        method: Method = "lucene",
        name: str = "bm25",
        threads: int | None = None,
    ) -> None:
        if not (math.isfinite(k1) and k1 >= 0 and 0 <= b <= 1):
            raise RivalsError(f"k1 is {k1} and b is {b}; k1 must be 0 or more and b between 0 and 1")
        if method not in ("lucene", "robertson", "atire", "bm25l", "bm25+"):
            raise RivalsError(f"method is {method!r}; use 'lucene', 'robertson', 'atire', 'bm25l' or 'bm25+'")
        self.documents, self.name, self.threads = documents, name, threads
        stop_words = stop_words if isinstance(stop_words, bool) else sorted(stop_words)
        self.words = Words(language, stem=stem, stop_words=stop_words)
        self.settings: dict[str, Any] = {
            "k1": float(k1), "b": float(b), "language": language, "stem": stem, "stop_words": stop_words, "method":
            method,
        }  # fmt: skip
        self._index([self.words.terms(text) for text in documents.full_texts])

    def _index(self, terms: list[list[str]]) -> None:
        import bm25s

        vocabulary = sorted(set().union(*terms)) if terms else []
        if not vocabulary:
            raise RivalsError(
                f"none of the {len(terms)} documents has a word to index; check their texts and stop words"
            )
        self.vocabulary = {term: i for i, term in enumerate(vocabulary)}
        scorer = bm25s.BM25(
            k1=self.settings["k1"], b=self.settings["b"], method=self.settings["method"], backend="numpy"
        )
        rows = [[self.vocabulary[term] for term in text] for text in terms]
        found = scorer.build_index_from_ids(list(range(len(vocabulary))), rows, show_progress=False)
        data, indices, indptr = found["data"], found["indices"].astype(np.int32), found["indptr"].astype(np.int64)
        keep = data > 1e-30  # a term in most documents weighs nothing in some variants
        self._data = np.ascontiguousarray(data[keep], dtype=np.float32)
        self._indices, self._indptr = np.ascontiguousarray(indices[keep]), lists.keep_values(keep, indptr)
        absent = scorer.nonoccurrence_array
        self._absent = np.zeros(len(vocabulary), np.float32) if absent is None else np.asarray(absent, np.float32)

    def query_terms(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return each text's known terms, and which texts have no word at all.

        As offsets int64[Q + 1] over the term rows int64[n], and bool[Q].
        """
        lookup = self.vocabulary
        split = [self.words.terms(text) for text in texts]
        known = [[lookup[term] for term in terms if term in lookup] for terms in split]
        flat = np.fromiter((row for terms in known for row in terms), dtype=np.int64)
        return lists.offsets_from_lengths([len(t) for t in known]), flat, np.array([not t for t in split], dtype=bool)

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return up to `k` documents per query which share a word with it.

        A query without a word, or without one that any document has, gets no candidate; `unanswered(queries)` counts
        them.
        """
        offsets, terms, _ = self.query_terms(queries.full_texts)
        order = len(self.documents) - 1 - self.documents.tie_order
        k = min(k, len(self.documents))
        keys, held = np.empty((len(queries), k), np.int64), np.zeros(len(queries), np.int64)
        self._search(offsets, terms, order, keys, held)
        flat = keys[np.arange(k) < held[:, None]]
        score, document = unpack(flat, order)
        run_offsets = lists.offsets_from_lengths(held)
        constant = lists.segment_reduce(np.add, self._absent[terms], offsets)
        score = score + np.repeat(constant, held)
        return Run.build(
            queries, self.documents, run_offsets, document, score, scorer=self.name, score_kind=self.score_kind
        )

    def _search(self, offsets: Any, terms: Any, order: Any, keys: NDArray[np.int64], held: NDArray[np.int64]) -> None:
        if not compiled():
            _search_plainly(offsets, terms, self._indptr, self._indices, self._data, order, keys, held)
            return
        from rivals.retrieve._bm25_kernel import search

        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(count if self.threads is None else self.threads, 1 + len(held) // 64)
        cuts = np.linspace(0, len(held), workers + 1).astype(int).tolist()

        def part(low: int, high: int) -> None:
            search(
                offsets[low : high + 1],
                terms,
                self._indptr,
                self._indices,
                self._data,
                order,
                keys[low:high],
                held[low:high],
            )

        if workers == 1:
            part(0, len(held))
            return
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(part, cuts[:-1], cuts[1:]))

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the BM25 score of each pair, float32[m], bit-equal to the retrieved one; 0 without a common word.

        Raises:
            RivalsError: a row out of range.
        """
        query_row, document_row = np.asarray(query_row, np.int64), np.asarray(document_row, np.int64)
        check_rows(query_row, document_row, len(queries), len(self.documents))
        used, place = np.unique(query_row, return_inverse=True)
        texts = queries.full_texts
        offsets, terms, _ = self.query_terms([texts[row] for row in used.tolist()])
        out = np.zeros(len(query_row), np.float32)
        pair_scores: Any = _pair_scores_plainly
        if compiled():
            from rivals.retrieve._bm25_kernel import pair_scores
        pair_scores(offsets, terms, self._indptr, self._indices, self._data, place, document_row, out)
        return out + lists.segment_reduce(np.add, self._absent[terms], offsets)[place]

    def unanswered(self, queries: Collection) -> dict[str, int]:
        """Count the queries that get no candidate: those without a word, and those whose words no document has."""
        offsets, _, empty = self.query_terms(queries.full_texts)
        return {"without words": int(empty.sum()), "without known words": int(((np.diff(offsets) == 0) & ~empty).sum())}

    def matched_terms(self, query: str, document_row: int) -> dict[str, float]:
        """Return the words of a query which a document holds, each with what it adds to the score, largest first.

        >>> bm25 = BM25(Collection(["a", "b"], ["heart attacks", "broken bones"]))
        >>> list(bm25.matched_terms("The heart attack", 0))
        ['heart', 'attack']
        """
        check_rows(np.zeros(1, np.int64), np.array([document_row]), 1, len(self.documents))
        shares: dict[int, tuple[str, float]] = {}
        for word in self.words.split(query):
            term = self.vocabulary.get(self.words.term(word))
            if term is None:
                continue
            low, high = int(self._indptr[term]), int(self._indptr[term + 1])
            at = low + int(np.searchsorted(self._indices[low:high], document_row))
            if at < high and self._indices[at] == document_row:
                first, share = shares.get(term, (word, 0.0))
                shares[term] = (first, share + float(self._data[at]))
        return dict(sorted(shares.values(), key=lambda pair: -pair[1]))

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the index's files into an existing folder and return what `read` needs besides."""
        for name in _ARRAYS:
            save_array(folder / f"{name}.npy", getattr(self, f"_{name}"))
        words = json.dumps(list(self.vocabulary), ensure_ascii=False)
        (folder / "vocabulary.json").write_text(words, encoding="utf-8")
        about = {"name": self.name, "documents": len(self.documents), "corpus": self.documents.fingerprint}
        return self.settings | about

    @classmethod
    def read(cls, folder: Path, about: dict[str, Any], documents: Collection) -> BM25:
        """Map an index written by `write`; `folder` has been checked by the caller."""
        self = cls.__new__(cls)
        self.documents, self.name, self.threads = documents, about["name"], None
        self.settings = {key: about[key] for key in ("k1", "b", "language", "stem", "stop_words", "method")}
        self.words = Words(about["language"], stem=about["stem"], stop_words=about["stop_words"])
        self._data, self._indices, self._indptr, self._absent = (map_array(folder / f"{name}.npy") for name in _ARRAYS)
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self.vocabulary = {term: i for i, term in enumerate(vocabulary)}
        return self

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder of its own, whole or not at all; the documents are not in it."""
        about: dict[str, Any] = {}
        with sealing(folder, kind="bm25", version=_VERSION, about=about) as inside:
            about.update(self.write(inside))

    @classmethod
    def load(cls, folder: str | Path, documents: Collection) -> BM25:
        """Load an index over the same documents, memory-mapped.

        Raises:
            IndexDamaged: the folder is damaged, of another version, or over other documents.
        """
        rebuild = "BM25(documents).save(folder)"
        about = unseal(folder, kind="bm25", version=_VERSION, rebuild=rebuild)
        if about["corpus"] != documents.fingerprint:
            raise IndexDamaged(f"{folder}: it indexes other documents than those given; rebuild it with {rebuild}")
        return cls.read(Path(folder), about, documents)


def check_rows(query_row: NDArray[np.int64], document_row: NDArray[np.int64], queries: int, documents: int) -> None:
    """Raise a RivalsError unless all rows exist and both arrays have the same length."""
    if query_row.shape != document_row.shape or query_row.ndim != 1:
        raise RivalsError(
            f"query_row {query_row.shape} and document_row {document_row.shape} must be of the same length"
        )
    for rows, size, what in ((query_row, queries, "query"), (document_row, documents, "document")):
        if len(rows) and (rows.min() < 0 or rows.max() >= size):
            raise RivalsError(f"{what}_row holds {rows.min()} to {rows.max()}, but there are {size} rows")


def _search_plainly(
    starts: Any,
    terms: Any,
    indptr: Any,
    indices: Any,
    data: Any,
    order: Any,
    keys: NDArray[np.int64],
    held: NDArray[np.int64],
) -> None:
    """`_bm25_kernel.search` in numpy."""
    for q in range(len(held)):
        scores = np.zeros(len(order), np.float32)
        for term in terms[starts[q] : starts[q + 1]]:
            scores[indices[indptr[term] : indptr[term + 1]]] += data[indptr[term] : indptr[term + 1]]
        found = np.flatnonzero(scores)
        bits = scores[found].view(np.int32)
        packed = np.sort((~bits).astype(np.int64) << 32 | order[found])[: keys.shape[1]]
        held[q] = len(packed)
        keys[q, : len(packed)] = packed


def _pair_scores_plainly(
    starts: Any, terms: Any, indptr: Any, indices: Any, data: Any, query: Any, document: Any, out: NDArray[np.float32]
) -> None:
    """`_bm25_kernel.pair_scores` in numpy: one look-up for all (pair, term) combinations."""
    size = np.int64(max(int(indices.max(initial=0)), int(document.max(initial=0))) + 1)
    index, pairs = lists.take_segments(starts, query)
    pair, term = lists.segment_ids(pairs), terms[index]
    postings = lists.segment_ids(indptr) * size + indices
    wanted = term * size + document[pair]
    place = np.minimum(np.searchsorted(postings, wanted), max(len(postings) - 1, 0))
    hit = postings[place] == wanted if len(postings) else np.zeros(len(wanted), bool)
    np.add.at(out, pair[hit], data[place[hit]])
