"""Tables: queries, documents, judgements (`Dataset`), candidates (`Run`), and the pipelines over them."""

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.data.pipeline import Pipeline, Retriever, Transform
from rivals.data.run import Run
from rivals.data.sample import SAMPLE_ATTRIBUTION, load_sample

# isort: split
from rivals.data.formats import (
    load_beir,
    load_dataset,
    load_run,
    load_topics,
    save_beir,
    save_dataset,
    save_qrels,
    save_run,
    save_topics,
)
from rivals.data.formats.triples import load_triples
from rivals.data.leakage import LeakageReport, leakage_between, leakage_report
from rivals.data.triples import Triples

__all__ = [
    "SAMPLE_ATTRIBUTION",
    "Collection",
    "Dataset",
    "Judgements",
    "LeakageReport",
    "Pipeline",
    "Retriever",
    "Run",
    "Transform",
    "Triples",
    "leakage_between",
    "leakage_report",
    "load_beir",
    "load_dataset",
    "load_run",
    "load_sample",
    "load_topics",
    "load_triples",
    "save_beir",
    "save_dataset",
    "save_qrels",
    "save_run",
    "save_topics",
]
