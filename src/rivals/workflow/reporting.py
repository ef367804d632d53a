"""From a finished experiment to its report."""

from __future__ import annotations

import platform
import resource
import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rivals.data import SAMPLE_ATTRIBUTION, leakage_report
from rivals.data.pipeline import Retriever
from rivals.evaluate.report import (
    About,
    Curve,
    Mining,
    Overlap,
    ReportData,
    ScoreStage,
    Suspect,
    measured,
    save_report,
    worst_queries,
)
from rivals.workflow.run_folder import versions

if TYPE_CHECKING:
    from rivals.negatives import Mined
    from rivals.workflow.experiment import Experiment


def write_experiment_report(experiment: Experiment) -> None:
    """Write `report.json` and `report.html` of an experiment into its folder."""
    save_report(experiment.folder.path, report_data(experiment))


def report_data(experiment: Experiment) -> ReportData:
    """Gather what the report shows."""
    from rivals.workflow.experiment import DESCRIPTIONS

    names = tuple(experiment.runs)
    pairs = [("retriever", "untrained"), ("two-stage", "retriever")]
    parts = measured(
        experiment.evaluation,
        descriptions={name: DESCRIPTIONS[name] for name in names},
        milliseconds=experiment.milliseconds,
        pairs=[pair for pair in pairs if set(pair) <= set(names)],
    )
    best = "two-stage" if "two-stage" in names else "retriever"
    return ReportData(
        f"Two-stage search on {experiment.dataset.name}",
        _about(experiment),
        **parts._asdict(),
        scores=_scores(experiment),
        curves=(
            Curve(
                "retriever",
                tuple(experiment.training.losses),
                tuple(experiment.training.scores),
                "nDCG@10 on dev",
                experiment.training.best_step or None,
            ),
        ),
        mining=_mining(experiment.mined),
        worst=worst_queries(experiment.evaluation, experiment.runs, experiment.test, system=best),
        worst_of=best,
        leakage=_leakage(experiment),
        config=experiment.folder.read_json("config.json"),
    )


def _about(experiment: Experiment) -> About:
    dataset, seconds = experiment.dataset, experiment.folder.seconds()
    about = experiment.folder.read_json("config.json")
    second = f", then a second stage ({experiment.second.chosen})" if experiment.second.chosen != "none" else ""
    return About(
        dataset=dataset.name,
        documents=len(dataset.documents),
        queries={name: len(rows) for name, rows in dataset.splits.items()},
        judgements=len(dataset.judgements),
        trained=f"{experiment.config.model}, trained on {len(experiment.train.queries)} questions with mined negatives{second}",
        started=about["started"],
        seconds=sum(seconds.values()),
        seed=experiment.config.seed,
        peak_memory_bytes=peak_memory(),
        versions=versions(),
        attribution=SAMPLE_ATTRIBUTION if dataset.name == "medquad-sample" else "",
        machine=f"{platform.machine()}, {experiment.trained.device}",
        command=" ".join(["rivals", *sys.argv[1:]]),
        notes=tuple(f"{count} {reason}" for reason, count in dataset.report.items()),
    )


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _scores(experiment: Experiment) -> tuple[ScoreStage, ...]:
    """Scores of positives, usable negatives and marked candidates of the training questions, before and after training."""
    run = experiment.mined.run
    known = experiment.train.judgements.positives
    label = run.label != 1

    def parts(positive: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[NDArray, NDArray, NDArray]:
        return positive, candidate[run.keep & label], candidate[~run.keep & label]

    def trained(query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        system: Retriever = experiment.dense
        return system.score(experiment.train.queries, query, document)

    return ScoreStage.of(
        {
            "before training": parts(run.positive_score, run.score),
            "after training": parts(trained(known.query, known.document), trained(run.query, run.document)),
        }
    )


def _mining(mined: Mined) -> Mining:
    audit = mined.audit
    return Mining(
        queries=audit.queries,
        proposed=audit.proposed,
        marked={name: reason.marked for name, reason in audit.reasons.items()},
        kept=audit.kept,
        drawn=audit.drawn,
        examples=tuple(
            Suspect(
                e.query or e.query_id,
                e.positive or e.positive_id,
                e.document or e.document_id,
                ", ".join(e.reasons),
                e.positive_score,
                e.score,
            )
            for e in audit.examples[:8]
        ),
    )


def _leakage(experiment: Experiment) -> tuple[Overlap, ...]:
    """Overlap of each side's texts with the training split's."""
    meaning = {
        "queries": "a test question that was trained on is no test",
        "relevant documents": "answers seen as positives while training are easier to find",
        "topics": "a topic seen while training makes its test questions easier",
    }
    return tuple(
        Overlap(
            f"{overlap.what}: {overlap.second} also in {overlap.first}, exactly or nearly",
            overlap.exact + overlap.near,
            overlap.total,
            meaning.get(overlap.what, ""),
            tuple(f"{one} ~ {other}" for one, other, _ in overlap.examples),
        )
        for overlap in leakage_report(experiment.dataset).overlaps
        if "train" in (overlap.first, overlap.second)
    )
