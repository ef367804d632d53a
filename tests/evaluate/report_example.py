"""Random but plausible data for a report, and a reader of its HTML."""

from __future__ import annotations

import html.parser
import math

import numpy as np

from rivals.evaluate.report import (
    About,
    Comparison,
    Curve,
    Differences,
    Hit,
    Interval,
    Mining,
    Overlap,
    ReportData,
    ScoreStage,
    Slice,
    Slices,
    Suspect,
    System,
    WorstQuery,
)

MEASURES = {"nDCG@10": 0.0, "RR@10": -0.02, "R@10": 0.08, "R@100": 0.16, "P@1": -0.11}
SYSTEMS = {
    "BM25": (0.452, 0.4, "words in common, stemmed"),
    "untrained encoder": (0.668, 3.1, "all-MiniLM-L6-v2 as published"),
    "fusion": (0.661, 3.6, "BM25 and the untrained encoder, reciprocal ranks"),
    "trained encoder": (0.788, 3.1, "info_nce over in-batch and mined negatives"),
    "two stages": (0.812, 21.4, "trained encoder, then late interaction over its first 50"),
}
HOSTILE = "</script><script>document.title='broken'</script><!-- <img src=x onerror=alert(1)> & \u2028 \"quoted\" 'x'"


def example(queries: int = 850, *, hostile: bool = False, seed: int = 0) -> ReportData:
    """Random but plausible data of a quickstart run."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, queries)
    per_query: dict[str, np.ndarray] = {}
    for name, (mean, _, _) in SYSTEMS.items():
        latent = 0.8 * ease + 0.6 * rng.normal(0, 1, queries) + (mean - 0.5) * 3.3
        rank = np.exp(np.clip(2.2 - 1.9 * latent, -1, 5)).astype(int)
        per_query[name] = np.where(rank < 10, 1 / np.log2(rank + 2), 0.0)
    systems = tuple(
        System(name, {m: around(mean + shift, queries, rng) for m, shift in MEASURES.items()}, about, ms, ms * 1.7)
        for name, (mean, ms, about) in SYSTEMS.items()
    )
    comparisons = tuple(
        compare(a, b, m, np.clip(per_query[a] + MEASURES[m], 0, 1) - np.clip(per_query[b] + MEASURES[m], 0, 1))
        for m in MEASURES
        for b in ("BM25", "untrained encoder")
        for a in SYSTEMS
        if a != b and not (a == "BM25" and b == "untrained encoder")
    )
    pairs = (("trained encoder", "untrained encoder"), ("two stages", "trained encoder"))
    differences = tuple(Differences(a, b, "nDCG@10", tuple((per_query[a] - per_query[b]).tolist())) for a, b in pairs)
    scores = ScoreStage.of(
        {
            "before training": (
                rng.normal(0.72, 0.11, 1738),
                rng.normal(0.49, 0.13, 20000),
                rng.normal(0.74, 0.06, 700),
            ),
            "after training": (
                rng.normal(0.79, 0.09, 1738),
                rng.normal(0.36, 0.15, 20000),
                rng.normal(0.77, 0.07, 420),
            ),
        }
    )
    steps = range(1, 241)
    loss = tuple((s, float(0.5 + 2.1 * math.exp(-s / 50) + rng.normal(0, 0.12))) for s in steps)
    dev = tuple(
        (s, float(0.80 - 0.125 * math.exp(-s / 45) - max(0, s - 180) * 1e-4 + rng.normal(0, 0.002)))
        for s in range(0, 241, 20)
    )
    kept = max(dev, key=lambda pair: pair[1])[0]
    question = "What are the symptoms of Adult Acute Lymphoblastic Leukemia ?"
    answer = (
        "Signs and symptoms of adult ALL include fever, feeling tired, and easy bruising or bleeding. The early signs "
        "and symptoms of ALL may be like the flu or other common diseases. Check with your doctor if you have fever."
    )
    other = (
        "Key Points - Adult acute lymphoblastic leukemia (ALL) is a type of cancer in which the bone marrow makes too "
        "many lymphocytes (a type of white blood cell). - Leukemia may affect red blood cells and platelets. " * 4
    )
    if hostile:
        question, answer, other = (f"{text} {HOSTILE}" for text in (question, answer, other))
    worst = tuple(
        WorstQuery(
            f"01-{i:07d}_1-2",
            question if not i else f"How is the inheritance of disease {i} described ?",
            {name: float(rng.choice([0, 0, 0.29, 0.43])) if name != "two stages" else 0.0 for name in SYSTEMS},
            {
                name: tuple(
                    Hit(
                        f"01-{rng.integers(9999):07d}",
                        [other, answer, other][j],
                        j == 1 and name == "BM25",
                        0.9 - 0.05 * j,
                    )
                    for j in range(3)
                )
                for name in SYSTEMS
            },
            (answer,),
        )
        for i in range(8)
    )
    return ReportData(
        title=f"MedQuAD sample: search over medical answers{HOSTILE if hostile else ''}",
        about=About(
            dataset="MedQuAD sample",
            documents=3514,
            queries={"train": 1738, "dev": 275, "test": queries},
            judgements=3551,
            trained="all-MiniLM-L6-v2 with info_nce over in-batch and mined negatives; then late interaction.",
            started="2026-11-23T12:17:05+00:00",
            seconds=431.2,
            seed=13,
            peak_memory_bytes=3_310_000_000,
            versions={
                "rivals": "0.1.0",
                "Python": "3.11.9",
                "torch": "2.13.0",
                "transformers": "5.2.0",
                "altair": "6.3.0",
            },
            attribution="MedQuAD, Ben Abacha and Demner-Fushman 2019, CC BY 4.0.",
            machine="2 CPU cores, bfloat16, 8 GB",
            command="rivals quickstart --seed 13",
            notes=("12 answers longer than 256 tokens were cut.",),
        ),
        systems=systems,
        tie_groups=(("BM25",), ("untrained encoder", "fusion"), ("trained encoder",), ("two stages",)),
        comparisons=comparisons,
        differences=differences,
        slices=(
            Slices(
                "length",
                tuple(
                    Slice(label, n, {name: around(mean + shift, n, rng) for name, (mean, _, _) in SYSTEMS.items()})
                    for label, n, shift in (("4 to 7 words", 312, 0.05), ("8 to 18 words", 538, -0.03))
                ),
                (f"two stages against BM25: no sign that the difference differs{HOSTILE if hostile else ''}.",),
            ),
        ),
        scores=scores,
        curves=(
            Curve("Retriever", loss, dev, "nDCG@10", kept),
            Curve(
                "Second stage",
                tuple((s, 0.4 + v / 3) for s, v in loss[:90]),
                tuple((s, v + 0.02) for s, v in dev[:5]),
                "nDCG@10",
                60,
            ),
        ),
        mining=Mining(
            queries=1738,
            proposed=171_233,
            marked={"scores above 95% of the positive": 9_204, "same text as a positive": 311, "known positive": 1_850},
            kept=160_121,
            drawn=13_904,
            proposed_by={"BM25": 86_900, "dense": 86_900},
            examples=tuple(
                Suspect(question, answer, other, "scores above 95% of the positive", 0.74, 0.73 + 0.01 * i)
                for i in range(3)
            ),
        ),
        worst=worst,
        worst_of="two stages",
        leakage=(
            Overlap("Test questions that are also asked in train", 0, queries, "None was seen in training."),
            Overlap(
                "Relevant test answers that are positives in train",
                14,
                861,
                "A few answers are shared by several diseases.",
                (answer,),
            ),
        ),
        config={
            "model": "all-MiniLM-L6-v2",
            "training": {"batch": 64, "temperature": 0.05, "note": HOSTILE if hostile else ""},
        },
    )


def around(mean: float, n: int, rng: np.random.Generator) -> Interval:
    half = 1.96 * 0.40 / math.sqrt(n)
    return Interval(mean, mean - half * rng.uniform(0.9, 1.1), min(mean + half * rng.uniform(0.9, 1.1), 1))


def compare(system: str, baseline: str, measure: str, values: np.ndarray) -> Comparison:
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    error = spread / math.sqrt(len(values))
    p = math.erfc(abs(mean / error) / math.sqrt(2))
    interval = Interval(mean, mean - 1.96 * error, mean + 1.96 * error)
    return Comparison(system, baseline, measure, interval, p, min(1, 4 * p), mean / spread, 2.8 * error)


class Page(html.parser.HTMLParser):
    """Collects elements, checks that they nest."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1:] == [tag], f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and (not self.stack or self.stack[-1] != "style"):
            self.texts.append(data)
