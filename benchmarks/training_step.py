"""One training step of MiniLM: 32 questions, their answers and 32 mined negatives, against a step with MNRL.

Both sides read the same texts cut at the same lengths, tokenise them, take one loss over the 32 x 64 cosines, its
gradients, clip them and take one step of AdamW made for the occasion. Ours computes in bfloat16 where that pays, theirs
in float32, each by its default.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._harness import Case, Target, Variant, Workload

_RATE = 5e-5
_QUERY_TOKENS, _DOCUMENT_TOKENS = 64, 128


def workload(quick: bool) -> Workload:
    """Take one step with 32 questions (4 short ones when quick)."""
    import torch

    from rivals.data import Collection, Dataset, Judgements, Run, load_sample
    from rivals.models import Encoder, resolve_model
    from rivals.negatives import Top
    from rivals.training import LoopConfig, Negatives, RetrieverConfig, RetrieverObjective, fit

    size, longest = (4, 16) if quick else (32, _DOCUMENT_TOKENS)
    sample = load_sample().split("train")
    known = sample.judgements.positives
    generator = np.random.default_rng(0)
    places = generator.choice(np.unique(known.document, return_index=True)[1], size, replace=False)
    unrelated = generator.choice(np.setdiff1d(np.arange(len(sample.documents)), known.document[places]), size, False)
    questions = [sample.queries.full_texts[row] for row in known.query[places]]
    positives, negatives = (
        [sample.documents.full_texts[row] for row in rows] for rows in (known.document[places], unrelated)
    )
    rows = np.arange(size)
    dataset = Dataset(
        Collection([f"q{i}" for i in rows], questions, name="query"),
        Collection([f"d{i}" for i in range(2 * size)], positives + negatives),
        Judgements.build(rows, rows, np.ones(size), queries=size, documents=2 * size),
    )
    run = Run.build(dataset.queries, dataset.documents, np.arange(size + 1), rows + size, np.zeros(size))
    mined = Negatives(run, Top(1))
    loop = LoopConfig(learning_rate=_RATE, warmup=0.0, evaluations=0)
    config = RetrieverConfig(
        batch_size=size,
        negatives=1,
        late_interaction=0.0,
        max_query_tokens=min(longest, _QUERY_TOKENS),
        max_document_tokens=longest,
        loop=loop,
    )

    def step(encoder: Encoder, options: RetrieverConfig) -> Any:
        objective = RetrieverObjective(encoder, dataset, options, negatives=mined)
        return fit(objective, options.loop, description="")

    encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")
    variants = [Variant("rivals", lambda threads: step(encoder, config))]
    missing = []
    if find_spec("sentence_transformers") is None:
        missing.append("sentence-transformers")
    else:
        peer = PeerStep(str(resolve_model("all-MiniLM-L6-v2")), (questions, positives, negatives), longest)
        variants.append(Variant("sentence-transformers MNRL", lambda threads: peer.step()))
    exact, full = Encoder.load("all-MiniLM-L6-v2", device="cpu"), Encoder.load("all-MiniLM-L6-v2", device="cpu")
    in_float32 = replace(config, loop=replace(loop, precision="float32"))
    with_max_sim = replace(config, late_interaction=1.0)
    variants += [
        Variant("rivals, float32", lambda threads: step(exact, in_float32)),
        Variant("rivals, with MaxSim term (our default)", lambda threads: step(full, with_max_sim)),
    ]

    def checks(results: dict[str, Any]) -> dict[str, float]:
        fresh = Encoder.load("all-MiniLM-L6-v2", device="cpu")
        objective = RetrieverObjective(fresh, dataset, in_float32, negatives=mined)
        with torch.no_grad():
            own = float(objective.loss(objective.batches(0)[0], torch.Generator()))
        if missing:
            return {"loss without dropout": own}
        theirs = PeerStep(str(resolve_model("all-MiniLM-L6-v2")), (questions, positives, negatives), longest)
        return {"loss without dropout": own, "loss without dropout of sentence-transformers": theirs.held_out_loss()}

    return Workload(
        what=f"a step of all-MiniLM-L6-v2, {size} questions, {2 * size} answers of at most {longest} tokens",
        unit="pairs/s",
        amount=size,
        variants=variants,
        targets=[Target("at least 2x, so that a whole run can take half of sentence-transformers' time", "speed", 2.0)],
        checks=checks,
        missing=missing,
        notes=["each call makes its AdamW anew; dropout is on in the times, off in the losses"],
        rounds=3,
    )


class PeerStep:
    """A step as sentence-transformers' trainer takes it: collate, MultipleNegativesRankingLoss, clip, AdamW.

    With `chunk` it is CachedMultipleNegativesRankingLoss with mini-batches of so many rows, which makes its own backward pass.
    """

    def __init__(self, folder: str, columns: tuple[list[str], ...], longest: int, *, chunk: int = 0) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import losses

        self.model = SentenceTransformer(folder, device="cpu")
        self.model.max_seq_length = longest
        self.model.train()
        self.columns = columns
        self.loss: Any = (
            losses.CachedMultipleNegativesRankingLoss(self.model, mini_batch_size=chunk)
            if chunk
            else losses.MultipleNegativesRankingLoss(self.model)
        )

    def step(self) -> float:
        """Take one step with a new optimiser and return the loss."""
        import torch

        parameters = list(self.model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.0, fused=True)
        features = [self.model.preprocess(texts) for texts in self.columns]
        loss = self.loss(features, None)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def held_out_loss(self) -> float:
        """Return the loss of the batch without dropout."""
        import torch

        self.model.eval()
        with torch.no_grad():
            return float(self.loss([self.model.preprocess(texts) for texts in self.columns], None))


CASES: dict[str, Case] = {"": workload}
