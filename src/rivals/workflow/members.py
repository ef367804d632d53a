"""The retriever's trainings in an experiment: their options, their logs as one, and what the average of several gave."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rivals.files import atomic_file
from rivals.training.keeper import read_log
from rivals.training.loop import LoopConfig
from rivals.training.retriever_config import RetrieverConfig
from rivals.training.soup import Soup
from rivals.workflow.config import RetrieverTraining


def training_config(options: RetrieverTraining, seed: int) -> RetrieverConfig:
    """Return what `train_retriever` needs to know."""
    loop = LoopConfig(
        epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        evaluations=options.evaluations,
        patience=options.patience,
        precision=options.precision,
        seed=seed,
    )
    return RetrieverConfig(
        batch_size=options.batch_size,
        negatives=options.negatives,
        group_size=options.group_size,
        temperature=options.temperature,
        late_interaction=options.late_interaction,
        max_query_tokens=options.max_query_tokens,
        max_document_tokens=options.max_document_tokens,
        loop=loop,
    )


def join_logs(logs: Sequence[Path], target: Path) -> None:
    """Write several trainings' logs end to end, steps counted on; where there are several, every line says its `member`."""
    before = 0
    with atomic_file(target) as out:
        for member, log in enumerate(logs):
            lines = read_log(log.parent)
            of = {"member": member} if len(logs) > 1 else {}
            out.writelines(json.dumps({**of, **line, "step": before + line["step"]}) + "\n" for line in lines)
            before += max((line["step"] for line in lines if "loss" in line), default=0)


def describe_soup(soup: Soup) -> str:
    """Return a sentence about the members and their average."""
    if math.isnan(soup.score):
        return f"Average of {len(soup.members)} trainings, not scored"
    alone = ", ".join(f"{member.best_score:.4f}" for member in soup.members)
    end = "" if soup.kept else "; the best member is kept"
    return f"Average of {len(soup.members)} trainings: dev nDCG@10 {soup.score:.4f}, alone {alone}{end}"
