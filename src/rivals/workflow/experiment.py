"""One experiment from data to report: baselines, mining, retriever, second stage, evaluation. Stages resume where they stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.dataset import Dataset
from rivals.data.pipeline import Pipeline, Retriever
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.evaluate import Evaluation, evaluate
from rivals.models import Encoder
from rivals.models.blocks import encode_in_blocks
from rivals.models.pair_features import PairFeatures
from rivals.models.rerank import load_reranker
from rivals.negatives import Mined, PositiveAware, Sampler, Softmax, Top, Uniform, mine_hard_negatives
from rivals.retrieve import BM25, Dense, Index, WeightedFusion
from rivals.training.distributed import World, join_world
from rivals.training.executor import CachedGradients
from rivals.training.held_out import PoolRanking, fast_similarities
from rivals.training.loop import LOG, TrainingResult
from rivals.training.negatives import Negatives
from rivals.training.refresh import Refresh
from rivals.training.retriever import train_retriever
from rivals.training.second_stage import SecondStageResult, fit_second_stage
from rivals.training.soup import train_soup
from rivals.workflow.config import ExperimentConfig
from rivals.workflow.members import describe_soup, join_logs, training_config
from rivals.workflow.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Systems that are evaluated, in the order of the story, with a clause each.
DESCRIPTIONS = {
    "bm25": "words in common, no model",
    "untrained": "the encoder as it comes",
    "fusion": "bm25 and untrained, weighted on dev",
    "retriever": "the encoder trained here",
    "two-stage": "bm25 and the trained retriever, then the second stage",
}
SLICES = ("length", "relevant")
MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "P@1")
_DEV_POOL_DEPTH = 5
_TIMED_QUERIES = 20

Say = Callable[[str], None]


class Experiment:
    """An experiment in progress; `run` takes it to its end.

    Args:
        config: what to do. dataset: with splits train, dev and test. folder: where it lives. say: where progress sentences go.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        dataset: Dataset,
        folder: RunFolder,
        *,
        say: Say = print,
        world: World | None = None,
    ) -> None:
        check_splits(dataset)
        self.config, self.dataset, self.folder, self.say = config, dataset, folder, say
        self.world = world if world is not None else join_world()
        self.train, self.dev, self.test = (dataset.split(name) for name in ("train", "dev", "test"))
        answered = np.flatnonzero(np.diff(self.train.judgements.positives.offsets))
        if len(answered) < len(self.train.queries):
            self.say(
                f"{len(self.train.queries) - len(answered)} train queries have no relevant document and are left out"
            )
            self.train = self.train.take(answered)
        self.documents = dataset.documents
        self.runs: dict[str, Run] = {}
        self.milliseconds: dict[str, float] = {}

    def run(self) -> Evaluation:
        """Do every stage that is not complete, and return the evaluation on test."""
        with self._stage("baselines"):
            self._baselines()
        with self._stage("mining"):
            self.mined = self._mine()
        with self._stage("training"):
            self.training = self._train()
        if not self.world.is_main:
            self.world.barrier()
            return Evaluation.from_json((self.folder.path / "metrics.json").read_text(encoding="utf-8"))
        with self._stage("indexing"):
            self._index()
        with self._stage("second stage"):
            self.second = self._second_stage()
        with self._stage("evaluation"):
            self.evaluation = self._evaluate()
        with self._stage("report"):
            from rivals.workflow.reporting import write_experiment_report

            write_experiment_report(self)
        self.world.barrier()
        return self.evaluation

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        if self.world.is_main:
            self.folder.begin(name)
        yield
        if self.world.is_main:
            self.folder.finish(name, time.monotonic() - started)

    # ------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def bm25(self) -> BM25:
        """The lexical retriever."""
        return BM25(self.documents, language=self.config.language)

    @cached_property
    def untrained(self) -> Encoder:
        """The encoder as it comes."""
        return self._encoder(self.config.model, self.config.mining.precision)

    def _dense(self, encoder: Encoder, name: str, what: str) -> Dense:
        vectors = encode_in_blocks(
            encoder,
            self.documents.full_texts,
            role="document",
            folder=self.folder.vectors,
            description=f"Encoding answers, {what}",
        )
        return Dense(encoder, self.documents, vectors=vectors, name=name)

    def _baselines(self) -> None:
        self.say(f"Data: {self.dataset}")
        self.untrained_dense = self._dense(self.untrained, "dense", "untrained")
        k = self.config.candidates
        fusion = WeightedFusion.fit([self.bm25, self.untrained_dense], self.dev, name="fusion")
        for name, system in (("bm25", self.bm25), ("untrained", self.untrained_dense), ("fusion", fusion)):
            self.runs[name] = system(self.test.queries, k)
            self.milliseconds[name] = self._latency(system)
        self.say(self._line("On test before training", ("bm25", "untrained", "fusion")))

    def _mine(self) -> Mined:
        mined = self._mined_by(self.untrained_dense, self.train)
        if self.world.is_main:
            self.folder.write_json("mining.json", _decoded(mined.audit.to_json()))
        self.say(str(mined.audit))
        if not mined.draw.mask.any():
            self.say("No hard negative is left; the retriever trains against the other answers of each batch alone.")
        return mined

    def _mined_by(self, dense: Dense, queries: Dataset, *, show: bool = True) -> Mined:
        options = self.config.mining
        return mine_hard_negatives(
            self.bm25 | dense,
            queries,
            filters=PositiveAware(relative=options.relative),
            sampler=self._sampler(),
            top_k=options.candidates,
            seed=self.config.seed,
            allow_none=True,
            show=show,
        )

    def _mined_anew(self, rows: NDArray[np.int64]) -> Run:
        """Return the marked candidates of some training queries under the weights being trained."""
        dense = Dense(self.trained, self.documents, name="dense", show_progress=False)
        return self._mined_by(dense, self.train.take(rows), show=False).run

    def _sampler(self) -> Sampler:
        k, window = max(self.config.retriever.negatives, 1), self.config.mining.window
        samplers: dict[str, Callable[[], Sampler]] = {
            "top": lambda: Top(k),
            "uniform": lambda: Uniform(k, window=max(window, k)),
            "softmax": lambda: Softmax(k, window=max(window, k)),
        }
        return samplers[self.config.mining.sampler]()

    def _train(self) -> TrainingResult:
        if self.folder.done("training"):
            self.trained = self._encoder(self.folder.retriever, self.config.precision)
            return TrainingResult(**self.folder.read_json("training.json"))
        options = self.config.retriever
        self.trained = self._encoder(self.config.model, self.config.precision)
        pool = self._dev_pool()
        held_out = PoolRanking(partial(fast_similarities, self.trained), self.dev, pool)
        soup = train_soup(
            self.trained,
            lambda member: self._train_member(member, pool),
            options.members,
            evaluate=(lambda: self.world.broadcast(held_out())) if options.evaluations else None,
        )
        result = soup.joined()
        if self.world.is_main:
            self.trained.save(self.folder.retriever)
            join_logs([self._member_folder(member) / LOG for member in range(options.members)], self.folder.path / LOG)
            self.folder.write_json("training.json", result.__dict__)
        best = f"; best on dev at step {result.best_step}: nDCG@10 {result.best_score:.4f}" if result.scores else ""
        self.say(f"Trained the retriever: {result.steps} steps in {result.seconds:.0f} s{best}")
        if options.members > 1:
            self.say(describe_soup(soup))
        return result

    def _train_member(self, member: int, pool: NDArray[np.int64]) -> TrainingResult:
        """Train the retriever once; members differ in their seeds only."""
        options, seed = self.config.retriever, self.config.seed + member
        negatives = Negatives(self.mined.run, self._sampler(), seed=seed)
        every = options.refresh_every
        return train_retriever(
            self.trained,
            self.train,
            training_config(options, seed),
            negatives=negatives,
            executor=CachedGradients() if options.gradient_cache else None,
            regime=Refresh(negatives, self._mined_anew, every=every) if every else None,
            dev=self.dev,
            dev_pool=pool,
            folder=self._member_folder(member),
            resume=True,
            world=self.world,
        )

    def _member_folder(self, member: int) -> Path:
        """Return where a member's checkpoints and log are."""
        folder = self.folder.checkpoints
        return folder if self.config.retriever.members == 1 else folder / f"member-{member}"

    def _encoder(self, name: str | Path, precision: str) -> Encoder:
        max_length = None if name == self.folder.retriever else self.config.max_length or None
        return Encoder.load(name, device=self.config.device, dtype=precision, max_length=max_length)

    def _dev_pool(self) -> NDArray[np.int64]:
        """Documents that dev queries are ranked against while training: their relevant ones and the hardest of both first stages."""
        found = [system(self.dev.queries, _DEV_POOL_DEPTH).document for system in (self.bm25, self.untrained_dense)]
        return np.unique(np.concatenate([*found, self.dev.judgements.document]))

    def _index(self) -> None:
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)  # the retriever is saved and the stage complete
        self.features: PairFeatures | None = None
        if self.config.second_stage.kind in ("auto", "all", "late-interaction", "list-wise"):
            self.features, vectors = PairFeatures.build(
                self.trained, self.documents, folder=self.folder.vectors, description="Encoding answers, trained"
            )
            self.dense = Dense(self.trained, self.documents, vectors=vectors, name="dense")
        else:
            self.dense = self._dense(self.trained, "dense", "trained")
        if not self.folder.done("indexing"):
            index = Index(
                self.documents,
                vectors=self.dense.vectors,
                encoder_fingerprint=self.trained.fingerprint(),
                bm25=self.bm25,
            )
            index.save(self.folder.index)

    def _second_stage(self) -> SecondStageResult:
        first = self.bm25 | self.dense
        if self.folder.done("second stage"):
            result = SecondStageResult(**self.folder.read_json("second_stage.json"))
        else:
            result = fit_second_stage(
                self.config.second_stage.kind,
                first=first,
                encoder=self.trained,
                train=self.train,
                dev=self.dev,
                folder=self.folder.second_stage,
                features=self.features,
                depth=self.config.second_stage.depth,
                candidates=self.config.candidates,
                epochs=self.config.second_stage.epochs,
                seed=self.config.seed,
            )
            self.folder.write_json("second_stage.json", result.__dict__)
        for name, score in result.dev_scores.items():
            self.say(f"Second stage on dev: {name} nDCG@10 {score:.4f}{'  <- chosen' if name == result.chosen else ''}")
        self.reranker = load_reranker(self.folder.second_stage, self.trained) if result.chosen != "none" else None
        return result

    def _evaluate(self) -> Evaluation:
        k = self.config.candidates
        systems: dict[str, Retriever] = {"retriever": self.dense}
        if self.reranker is not None:
            systems["two-stage"] = Pipeline(self.bm25 | self.dense, (self.reranker,))
        for name, system in systems.items():
            self.runs[name] = system(self.test.queries, k)
            self.milliseconds[name] = self._latency(system)
        evaluation = evaluate(
            self.runs,
            self.test,
            measures=MEASURES,
            baselines=("bm25", "untrained", "retriever"),
            slices=SLICES,
            seed=self.config.seed,
        )
        self._save_runs()
        self.folder.write_json("metrics.json", _decoded(evaluation.to_json()))
        self.folder.write_json("latency.json", self.milliseconds)
        return evaluation

    # ------------------------------------------------------------------------------------------------------- help

    def _save_runs(self) -> None:
        """Write runs and judgements in TREC format; what it cannot hold (ids with blanks) goes to Parquet, and is said."""
        from rivals.data import save_qrels, save_run

        try:
            for name, run in self.runs.items():
                save_run(run, self.folder.runs / f"{name}.trec", name)
            save_qrels(self.test, self.folder.runs / "test.qrels")
        except DataError as error:
            self.say(f"TREC format cannot hold this data, so the runs are saved as Parquet. {error}")
            for name, run in self.runs.items():
                save_run(run, self.folder.runs / f"{name}.parquet")

    def _latency(self, system: Retriever) -> float:
        """Return the median milliseconds of one query at a time, after a warm-up."""
        rows = np.linspace(
            0, len(self.test.queries) - 1, num=min(_TIMED_QUERIES, len(self.test.queries)), dtype=np.int64
        )
        spent = []
        for row in (rows[0], *rows):
            one = self.test.queries.take([row])
            started = time.perf_counter()
            system(one, self.config.candidates)
            spent.append((time.perf_counter() - started) * 1000)
        return float(np.median(spent[1:]))

    def _line(self, title: str, names: tuple[str, ...]) -> str:
        measured = evaluate(
            {name: self.runs[name] for name in names}, self.test, measures=MEASURES[:1], permutations=100, resamples=100
        )
        return f"{title}: " + ", ".join(f"{name} {measured.mean(name):.3f}" for name in names) + " nDCG@10"


def check_splits(dataset: Dataset) -> None:
    """Raise unless the dataset has train, dev and test queries."""
    for split in ("train", "dev", "test"):
        if split not in dataset.splits or not len(dataset.splits[split]):
            raise RivalsError(
                f"the data has no '{split}' queries; give a split column, or set data.dev and data.test to shares"
            )


def _decoded(text: str) -> Any:
    import json

    return json.loads(text)


def run_experiment(
    config: ExperimentConfig, dataset: Dataset, folder: str | Path, *, resume: bool = False, say: Say = print
) -> Experiment:
    """Run (or, with `resume`, continue) an experiment in a run folder and return it, finished.

    Args:
        config: what to do; on resume the folder's own configuration is used.
        dataset: queries with splits train, dev and test, documents and judgements.
        folder: a new folder, or the one to continue.

    Raises:
        RivalsError: data without splits or pairs, a folder that is not empty or not a run, changed data on resume.
    """
    world = join_world()
    path = Path(folder)
    if resume:
        opened = RunFolder.open(path)
        opened.check_data(dataset)
        config = opened.config()
    else:
        check_splits(dataset)
        opened = RunFolder.create(path, config, dataset) if world.is_main else RunFolder(path)
    with opened.locked() if world.is_main else nullcontext():
        if world.is_main and resume:
            opened.recover()
        world.barrier()
        experiment = Experiment(config, dataset, opened, say=say if world.is_main else _silent, world=world)
        experiment.run()
    return experiment


def _silent(_: str) -> None:
    """Say nothing."""
