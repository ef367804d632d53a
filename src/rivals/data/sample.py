"""The embedded sample: 2,863 medical questions over 3,514 answers, so that everything can be tried without a download.

It is one compressed Parquet file, a long table with a row per member: `kind` ("document" or "query"), `id`, `text`,
`topic`, `qtype` (the kind of question: symptoms, treatment, ...), for documents `focus` (the topic as the source
writes it), `source` and `url`, for queries `split` and `relevant` (a list of document ids). Origin, authors, licence
and citation stand in the file's schema metadata.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.errors import DataError

SAMPLE_PATH = Path(__file__).with_name("sample.parquet")

SAMPLE_ATTRIBUTION = (
    "Sample of MedQuAD by Asma Ben Abacha and Dina Demner-Fushman, CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/), changed: a selection, white space collapsed, questions split by "
    "topic. Cite: Ben Abacha, A., Demner-Fushman, D. A Question-Entailment Approach to Question "
    "Answering. BMC Bioinformatics 20(1):511, 2019."
)


@cache
def load_sample() -> Dataset:
    """Return the embedded sample, a part of MedQuAD with 1,738 train, 275 dev and 850 test questions split by topic.

    An answer is relevant (1) to a question if it has the same topic and the same question type, in whatever source.
    Texts are the bare question and the bare answer; `topic`, `qtype`, `focus`, `source` and `url` are columns for
    filters and for looking at errors, and must not be given to a model. A document that serves several topics carries
    those of the first. The dataset is read once a process.

    Source: Ben Abacha and Demner-Fushman, 2019, CC BY 4.0; see `SAMPLE_ATTRIBUTION`.

    Raises:
        DataError: the package's sample file is missing or damaged.

    >>> sample = load_sample()
    >>> sample
    Dataset(medquad-sample: 2863 queries (train 1738, dev 275, test 850), 3514 documents, 3551 judgements)
    >>> sample.split("test").queries.texts[0]
    'What are the symptoms of Adult Acute Lymphoblastic Leukemia ?'
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(SAMPLE_PATH)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"the embedded sample cannot be read ({error}); install rivals again", path=SAMPLE_PATH.name
        ) from None
    members = {kind: table.filter(pc.equal(table["kind"], kind)) for kind in ("document", "query")}
    documents = Collection.from_table(
        members["document"].select(["id", "text", "source", "focus", "topic", "qtype", "url"])
    )
    queries = Collection.from_table(members["query"].select(["id", "text", "topic", "qtype"]), name="query")
    relevant = members["query"]["relevant"].to_pylist()
    rows = lists.segment_ids(lists.offsets_from_lengths([len(found) for found in relevant]))
    judgements = Judgements.build(
        rows,
        documents.rows(identifier for found in relevant for identifier in found),
        np.ones(len(rows), np.float32),
        queries=len(queries),
        documents=len(documents),
    )
    split = members["query"]["split"].to_numpy(zero_copy_only=False)
    splits = {name: np.flatnonzero(split == name) for name in ("train", "dev", "test")}
    return Dataset(queries, documents, judgements, splits, "medquad-sample")
