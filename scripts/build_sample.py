"""Make `src/rivals/data/sample.parquet`, the sample that ships with the package, from the MedQuAD tables.

    python scripts/build_sample.py ../shared/data/medquad

The output depends on the input tables and the pyarrow version only. What the file holds is described in
`rivals.data.sample`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rivals.files import atomic_file

TARGET = Path(__file__).resolve().parents[1] / "src" / "rivals" / "data" / "sample.parquet"

METADATA = {
    "name": "medquad-sample",
    "title": "A sample of MedQuAD: medical questions and answers of the U.S. National Institutes of Health and CDC",
    "authors": "Asma Ben Abacha, Dina Demner-Fushman",
    "citation": "Ben Abacha, A., Demner-Fushman, D. A Question-Entailment Approach to Question Answering. "
    "BMC Bioinformatics 20(1):511, 2019.",
    "license": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "origin": "github.com/abachaa/MedQuAD @ 577bd37b96c02d1833b2c9eed2de9f96964e96cb",
    "changes": "Answers of 8 to 400 words from six sources (CancerGov, NIDDK, NINDS, NIHSeniorHealth, NHLBI, CDC) "
    "about topics with at least three answers; white space collapsed; equal answer texts stored once; "
    "questions split by topic.",
}


def build(folder: Path) -> pa.Table:
    """Return the long table: a row per document, then a row per query."""
    texts = {row["answer_id"]: row["text"] for row in pq.read_table(folder / "answers.parquet").to_pylist()}
    facts = {row["uid"]: row for row in pq.read_table(folder / "qa.parquet").to_pylist()}
    pairs = pq.read_table(folder / "quickstart.parquet").to_pylist()
    documents: dict[str, dict[str, object]] = {}
    queries: dict[str, dict[str, object]] = {}
    relevant: dict[str, list[str]] = {}
    for pair in pairs:
        fact = facts[pair["uid"]]
        documents.setdefault(
            pair["answer_id"],
            {
                "kind": "document",
                "id": pair["answer_id"],
                "text": texts[pair["answer_id"]],
                "topic": pair["focus_key"],
                "qtype": pair["qtype"],
                "focus": fact["focus"],
                "source": fact["source"],
                "url": fact["url"],
            },
        )
        found = relevant.setdefault(pair["query_id"], [])
        if pair["answer_id"] not in found:
            found.append(pair["answer_id"])
        if pair["is_query"]:
            queries[pair["query_id"]] = {
                "kind": "query",
                "id": pair["query_id"],
                "text": fact["question"],
                "topic": pair["focus_key"],
                "qtype": pair["qtype"],
                "split": pair["split"],
                "relevant": found,
            }
    strings = ("kind", "id", "text", "topic", "qtype", "focus", "source", "url", "split")
    schema = pa.schema(
        [*((name, pa.string()) for name in strings), ("relevant", pa.list_(pa.string()))], metadata=METADATA
    )
    return pa.Table.from_pylist([*documents.values(), *queries.values()], schema=schema)


def main() -> None:
    """Read the tables, write the sample, print its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the folder with answers.parquet, qa.parquet and quickstart.parquet")
    parser.add_argument("--out", type=Path, default=TARGET, help="where to write (default: inside the package)")
    arguments = parser.parse_args()
    table = build(arguments.folder)
    with atomic_file(arguments.out, "wb") as out:
        pq.write_table(table, out, compression="zstd", compression_level=19, write_statistics=False)
    print(f"{arguments.out.name}: {table.num_rows} rows, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
