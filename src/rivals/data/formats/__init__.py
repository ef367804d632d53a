"""File formats: tables (JSONL, CSV, Parquet), BEIR folders, TREC files, runs."""

from rivals.data.formats.beir import load_beir, save_beir
from rivals.data.formats.load import load_dataset, save_dataset
from rivals.data.formats.run_files import load_run, save_run
from rivals.data.formats.tables import read_table, write_table
from rivals.data.formats.trec import load_topics, save_qrels, save_topics

__all__ = [
    "load_beir",
    "load_dataset",
    "load_run",
    "load_topics",
    "read_table",
    "save_beir",
    "save_dataset",
    "save_qrels",
    "save_run",
    "save_topics",
    "write_table",
]
