"""What averaging retrievers of several seeds gains: `python -m papers.studies.soup RUN RUN [RUN ...]`, finished run folders of one recipe.

Every run's retriever and the average of their weights rank all answers for the sample's dev and test questions. Figures: nDCG@10 of
each, and the average against every member (paired randomisation tests, Holm's correction).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rivals.data import Dataset, Run, load_sample
from rivals.evaluate import evaluate
from rivals.models import Encoder
from rivals.retrieve import Dense
from rivals.training.branch_merging import weighted_average
from rivals.training.checkpoint import restore_weights, trainable_state

_DEPTH = 100


def rankings(encoder: Encoder, name: str, dev: Dataset, test: Dataset) -> tuple[Run, Run]:
    """Return an encoder's runs over the dev and the test questions."""
    dense = Dense(encoder, dev.documents, name=name)
    return dense(dev.queries, _DEPTH), dense(test.queries, _DEPTH)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    folders = parser.parse_args(arguments).runs
    sample = load_sample()
    dev, test = sample.split("dev"), sample.split("test")
    found: dict[str, tuple[Run, Run]] = {}
    states = []
    for folder in folders:
        encoder = Encoder.load(folder / "models" / "retriever")
        states.append(trainable_state(encoder))
        found[folder.name] = rankings(encoder, folder.name, dev, test)
    restore_weights(encoder, weighted_average(states, [1.0] * len(states)))
    found["average"] = rankings(encoder, "average", dev, test)
    for part, place, data in (("dev", 0, dev), ("test", 1, test)):
        print(part)
        print(
            evaluate(
                {name: runs[place] for name, runs in found.items()},
                data,
                measures=["nDCG@10"],
                baselines=[f.name for f in folders],
            )
        )


if __name__ == "__main__":
    main()
