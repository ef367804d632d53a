"""Plots by slices and of perturbations: the values drawn are the values given, hostile names stay text, tests are told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Dataset, Judgements, Run, load_sample
from rivals.diagnose.robustness import PadPassages, RobustnessReport, StuffKeywords, Typos, robustness_report
from rivals.errors import RivalsError
from rivals.evaluate import Evaluation, evaluate, plots
from rivals.retrieve import BM25

HOSTILE = "</script><script>document.title='broken'</script> \"x\" 'y' \\ <b>"


@pytest.fixture(scope="module")
def data() -> Dataset:
    sample = load_sample().split("test").take(range(90))
    wanted = np.unique(sample.judgements.document)
    rows = np.union1d(wanted, np.random.default_rng(0).choice(len(sample.documents), 200, replace=False))
    judgements = Judgements(
        sample.judgements.offsets, np.searchsorted(rows, sample.judgements.document), sample.judgements.relevance
    )
    return Dataset(sample.queries, sample.documents.take(rows), judgements, {}, "slice & <b>")


@pytest.fixture(scope="module")
def evaluation(data: Dataset) -> Evaluation:
    def run(k1: float, b: float) -> Run:
        return BM25(data.documents, k1=k1, b=b, threads=1)(data.queries, 50)

    systems = {"flat": run(0.2, 0.0), HOSTILE: run(1.2, 0.75)}
    return evaluate(
        systems,
        data,
        measures=["nDCG@10", "P@1"],
        baselines=["flat"],
        slices=["length", "qtype"],
        resamples=200,
        permutations=200,
    )


@pytest.fixture(scope="module")
def report(data: Dataset) -> RobustnessReport:
    return robustness_report(
        BM25(data.documents, threads=1),
        data,
        perturbations=[Typos(), PadPassages(), StuffKeywords()],
        resamples=200,
        permutations=200,
        name=HOSTILE,
    )


def drawn(plot: plots.Plot, *fields: str) -> list[dict[str, Any]]:
    """The first inline data whose rows have all the fields."""
    found: list[list[dict[str, Any]]] = []

    def look(node: Any) -> None:
        if isinstance(node, dict):
            values = node.get("values")
            if isinstance(values, list) and values and set(fields) <= values[0].keys():
                found.append(values)
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(plot.to_dict())
    return found[0]


@pytest.mark.parametrize("measure", [None, "P@1"])
def test_the_means_of_slices_are_those_of_the_evaluation(evaluation: Evaluation, measure: str | None) -> None:
    view = evaluation.slice_view("qtype")
    rows = drawn(plots.slice_means(evaluation, "qtype", measure), "system", "slice", "low")
    assert len(rows) == 2 * len(view.slicing.labels)
    for row in rows:
        place = [f"{a} ({b})" for a, b in zip(view.slicing.labels, view.slicing.sizes, strict=True)].index(row["slice"])
        interval = view.intervals[row["system"]][measure or "nDCG@10"][place]
        given = [None if np.isnan(part) else pytest.approx(float(part), abs=1e-6) for part in interval]
        assert [row["value"], row["low"], row["high"]] == given  # a slice of one query has no interval


def test_differences_of_slices_add_up_to_that_of_the_evaluation(evaluation: Evaluation) -> None:
    plot = plots.slice_differences(evaluation, "length", HOSTILE, "flat")
    rows = drawn(plot, "slice", "low")
    sizes = evaluation.slice_view("length").slicing.sizes
    mean = sum(row["value"] * size for row, size in zip(rows, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(evaluation.mean(HOSTILE, "nDCG@10") - evaluation.mean("flat", "nDCG@10"), abs=1e-5)
    assert "do slices differ? p" in json.dumps(plot.to_dict()["title"])


def test_what_slices_refuse(evaluation: Evaluation) -> None:
    with pytest.raises(RivalsError, match="no slices by 'seen'; there are length, qtype"):
        plots.slice_means(evaluation, "seen")
    with pytest.raises(RivalsError, match="flat was not tested against"):
        plots.slice_differences(evaluation, "length", "flat", HOSTILE)


def test_the_drops_drawn_are_the_drops_measured(report: RobustnessReport) -> None:
    rows = drawn(plots.robustness(report), "perturbation", "drop")
    assert [row["drop"] for row in rows] == sorted((row["drop"] for row in rows), reverse=True)
    for row in rows:
        result = report[row["perturbation"]]
        assert row["drop"] == pytest.approx(float(result.drop.estimate), abs=1e-6)
        assert (row["sure"] == "yes") == result.significant()


def test_pages_and_pictures(report: RobustnessReport, evaluation: Evaluation, tmp_path: Path) -> None:
    every = {
        "robustness": plots.robustness(report),
        "means": plots.slice_means(evaluation, "qtype"),
        "differences": plots.slice_differences(evaluation, "qtype", HOSTILE, "flat"),
    }
    for name, plot in every.items():
        assert plot.save(tmp_path / f"{name}.png", scale=1).read_bytes().startswith(b"\x89PNG\r\n")
    for page in (*(plot.to_html() for plot in every.values()), plots.robustness_page(report)):
        assert HOSTILE not in page
        assert "slice & <b>" not in page
        assert not re.search(r"(src|href)=\"(?!data:)|url\(", re.sub(r"<script.*?</script>", "", page, flags=re.S))


def test_the_page_tells_every_figure_and_the_worst_queries(report: RobustnessReport) -> None:
    page = plots.robustness_page(report)
    for result in report.results:
        assert f"{float(result.drop.estimate):+.3f} [" in page
        for case in result.worst:
            assert case.query in page
