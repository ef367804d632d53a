"""How far may a judge be trusted? Agreement of small judges with people, about 100 pairs of two data sets.

    python -m papers.studies.judges          # minutes of CPU: a language model of 135 million parameters
    python -m papers.studies.judges --table  # prints the table of docs/negatives.md

SICK: does one sentence entail the other, by its corrected labels? LiveQA: is the answer one of the top two of four grades?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from papers.common.data import ROOT, folder
from rivals.data import Collection, Dataset, Judgements
from rivals.models import Encoder
from rivals.models.language import CachedLanguageModel, LocalLanguageModel, PromptTemplate
from rivals.negatives.judging import GradedJudge, Judge, ScoreJudge, YesNoJudge, judge_agreement
from rivals.retrieve import Dense

RESULTS = Path(__file__).with_name("judges.json")
ANSWERS = ROOT / "papers" / ".cache" / "judges.db"
ENTAILS = PromptTemplate.parse(
    "[system]\nAnswer with one word, Yes or No.\n[user]\nPremise: {query}\n\nHypothesis: {document}\n\n"
    "Does the premise imply the hypothesis? Answer Yes or No:"
)


def entailment(count: int = 102) -> Dataset:
    """SICK's test pairs, as many of each corrected label; the second sentence is relevant if the first entails it."""
    table = pq.read_table(folder("sick") / "pairs.parquet").to_pandas()
    table = table[table.split == "test"].groupby("label_corrected").sample(count // 3, random_state=0)
    queries = Collection([f"q{i}" for i in table.id], table.sentence1.tolist(), name="query")
    documents = Collection([f"d{i}" for i in table.id], table.sentence2.tolist())
    relevant = (table.label_corrected == "ENTAILMENT").astype(float)
    rows = range(len(table))
    judged = Judgements.build(rows, rows, relevant, queries=len(table), documents=len(table))
    return Dataset(queries, documents, judged, name="SICK")


def graded_answers(count: int = 100) -> Dataset:
    """LiveQA's questions at random until there are about `count` graded answers; grades 0 to 3, means of two rounded half up."""
    topics = pq.read_table(folder("liveqa_med") / "topics.parquet").to_pandas().set_index("qid")
    judged = pq.read_table(folder("liveqa_med") / "qrels.parquet").to_pandas().dropna(subset=["medquad_answer_id"])
    answers = pq.read_table(folder("medquad") / "answers.parquet").to_pandas().set_index("answer_id").text
    judged = judged.groupby(["qid", "medquad_answer_id"], as_index=False).grade.mean()
    judged["grade"] = np.floor(judged.grade + 0.5) - 1
    order = judged.qid.drop_duplicates().sample(frac=1, random_state=0).tolist()
    size = judged.groupby("qid").size()
    judged = judged[
        judged.qid.isin([q for q, total in zip(order, size[order].cumsum(), strict=True) if total <= count])
    ]
    asked, told = sorted(set(judged.qid)), sorted(set(judged.medquad_answer_id))
    texts = [topics.summary[q] or topics.paraphrase[q] or topics.message[q] for q in asked]
    queries, documents = Collection(asked, texts, name="query"), Collection(told, [answers[i] for i in told])
    sizes = {"queries": len(asked), "documents": len(told)}
    rows = queries.find(judged.qid), documents.find(judged.medquad_answer_id)
    return Dataset(queries, documents, Judgements.build(*rows, judged.grade, **sizes), name="LiveQA")


def run() -> None:
    """Judge both data sets and write what was found."""
    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32")
    found: dict[str, dict[str, object]] = {}
    ANSWERS.parent.mkdir(exist_ok=True)
    with CachedLanguageModel(
        LocalLanguageModel.load("SmolLM2-135M-Instruct", device="cpu", dtype="float32"), ANSWERS
    ) as model:
        for data, relevant in ((entailment(), 1.0), (graded_answers(), 2.0)):
            judges: list[Judge] = [
                ScoreJudge(Dense(encoder, data.documents, name="MiniLM", show_progress=False), name="MiniLM cosine"),
                YesNoJudge(model, max_words=100, name="SmolLM2, yes or no"),
            ]
            if data.name == "SICK":
                judges.append(YesNoJudge(model, template=ENTAILS, max_words=100, name="SmolLM2, asked for entailment"))
            else:
                judges.append(GradedJudge(model, max_words=100, name="SmolLM2, grades"))
            for judge in judges:
                agreement = judge_agreement(judge, data, relevant=relevant)
                print(agreement, flush=True)
                found.setdefault(data.name, {})[judge.name] = json.loads(agreement.to_json())
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of what was run")
    if not parser.parse_args(arguments).table:
        run()
        return
    print("| data | judge | AUC | kappa at 0.5 |\n|---|---|---|---|")
    for data, judges in json.loads(RESULTS.read_text("utf-8")).items():
        for name, agreement in judges.items():
            cells = (
                f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in (agreement["auc"], agreement["kappa"])
            )
            print(f"| {data} | {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
