"""Risk data for the scripts on predictive multiplicity: loans (German Credit) and re-offending (COMPAS)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from papers.common.data import folder

NAMES = ("german_credit", "compas")


class People(NamedTuple):
    """Standardised features [N, D], the outcome feared (0 or 1), and who belongs to a small group."""

    features: NDArray[np.float64]
    outcome: NDArray[np.int64]
    minority: NDArray[np.bool_]

    def take(self, rows: NDArray[Any]) -> People:
        """Return some of them."""
        return People(*(part[rows] for part in self))


@functools.lru_cache(maxsize=2)
def people(name: str) -> People:
    """Read "german_credit" (1,000; feared: a bad loan; small group: workers who are not foreign, 4 %) or "compas" (7,214;
    feared: re-offending in two years; small group: neither African-American nor Caucasian, 15 %).

    No feature names the group.
    """
    import pyarrow.parquet as pq

    file = {"german_credit": "german_credit.parquet", "compas": "compas_two_years.parquet"}[name]
    table = pq.read_table(folder("tabular_risk") / file)

    def column(key: str) -> NDArray[Any]:
        return table.column(key).to_numpy(zero_copy_only=False)

    if name == "german_credit":
        numbers = (
            "duration",
            "amount",
            "installment_rate",
            "residence_since",
            "age",
            "existing_credits",
            "people_liable",
        )
        kinds = ("status", "credit_history", "savings")
        outcome, minority = column("credit_risk") == "bad", column("foreign_worker") == "A202"
    else:
        numbers = ("age", "priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
        kinds = ("sex", "c_charge_degree")
        outcome = column("two_year_recid") == 1
        minority = ~np.isin(column("race").astype(str), ("African-American", "Caucasian"))
    columns = [column(key).astype(np.float64) for key in numbers]
    for key in kinds:
        values = column(key).astype(str)
        columns += [(values == value).astype(np.float64) for value in np.unique(values)[1:]]
    features = np.stack(columns, axis=1)
    return People((features - features.mean(0)) / features.std(0), outcome.astype(np.int64), minority)
