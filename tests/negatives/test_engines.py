"""Mining over a local Ray cluster: what one process gives, also when workers are killed and when it is done in two goes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from rivals.data import Judgements, Run, load_run
from rivals.errors import RivalsError
from rivals.negatives import PositiveAware, Softmax, Top, Uniform, mine_hard_negatives
from rivals.negatives.engines import BlockFolder, encode_with_ray, mine_with_ray
from rivals.negatives.mine import Marked
from tests.negatives.engine_parts import Fatal, Parts, small_dataset

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'rivals[ray]' to test mining over a cluster")

DATA = small_dataset()
OPTIONS = {"top_k": 20, "seed": 3, "block": 12, "show": False}


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two workers for all tests of this file."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def one_process(tmp_path: Path, sampler, **options):
    source, filters = Parts(tmp_path)(DATA)
    return mine_hard_negatives(source, DATA, filters=filters, sampler=sampler, **(OPTIONS | options))


def same(ours, theirs) -> None:
    for name in ("candidate", "mask", "row", "log_probability", "weight"):
        assert getattr(ours.draw, name).tobytes() == getattr(theirs.draw, name).tobytes(), name
    for name in ("document", "score", "keep", "label", "reason", "rank", "source", "offsets", "positive_score"):
        assert getattr(ours.run, name).tobytes() == getattr(theirs.run, name).tobytes(), name
    assert ours.run.queries.ids.tolist() == theirs.run.queries.ids.tolist()
    assert (ours.run.reasons, ours.run.sources, ours.run.seed) == (
        theirs.run.reasons,
        theirs.run.sources,
        theirs.run.seed,
    )
    assert list(ours.run.features) == list(theirs.run.features)
    assert ours.audit.to_json() == theirs.audit.to_json()


def asked(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def test_a_killed_worker_changes_nothing_and_costs_its_block(cluster, tmp_path):
    """One worker is killed at work, from outside; the block it held is done again and nothing else."""
    caught, killed = tmp_path / "caught", []

    def kill() -> None:
        while not caught.exists() or not caught.read_text():
            time.sleep(0.02)
        killed.append(int(caught.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    mined = mine_with_ray(
        Parts(tmp_path, trap="q30"), DATA, tmp_path / "blocks", about="test", sampler=Uniform(4, window=8), **OPTIONS
    )
    killer.join()
    log = asked(tmp_path)
    assert sorted(query for _, query in log) == ["q00", "q12", "q24", "q24", "q36", "q48"]
    again = [int(pid) for pid, query in log if query == "q24"]
    assert again[0] == killed[0] != again[1]
    (tmp_path / "log").unlink()
    same(mined, one_process(tmp_path, Uniform(4, window=8)))


def test_a_second_go_does_what_is_missing_and_no_more(cluster, tmp_path):
    parts, folder = Parts(tmp_path), tmp_path / "blocks"
    first = mine_with_ray(
        parts, DATA, folder, about="test", sampler=Softmax(3), output=tmp_path / "run.parquet", **OPTIONS
    )
    (tmp_path / "log").unlink()
    (folder / "block-000001.json").unlink()  # killed between the file and its marker
    damaged = folder / "block-000003.npz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    second = mine_with_ray(parts, DATA, folder, about="test", sampler=Softmax(3), hold="drawn", **OPTIONS)
    assert sorted(query for _, query in asked(tmp_path)) == ["q12", "q36"]
    assert second.draw.candidate.tobytes() == first.draw.candidate.tobytes()
    assert len(second.run) == int(first.draw.mask.sum())
    (tmp_path / "log").unlink()
    third = mine_with_ray(
        parts, DATA, folder, about="test", sampler=Top(2), **OPTIONS
    )  # another draw of the same blocks
    assert not (tmp_path / "log").exists()
    same(third, one_process(tmp_path, Top(2)))
    stored = load_run(tmp_path / "run.parquet", DATA.queries, DATA.documents)
    assert stored.reason.tobytes() == first.run.reason.tobytes()


def test_what_goes_wrong_in_a_worker_is_said_as_in_one_process(cluster, tmp_path):
    parts = Parts(tmp_path, filters=(PositiveAware(max_score=-1.0),))
    with pytest.raises(RivalsError, match=r"nothing to draw: .* candidates of 60 queries"):
        mine_with_ray(parts, DATA, tmp_path / "a", about="t", **OPTIONS)
    unlabelled = replace(DATA, judgements=DATA.judgements.take([]), queries=DATA.queries.take([]))
    with pytest.raises(RivalsError, match="no queries to mine"):
        mine_with_ray(parts, unlabelled, tmp_path / "b", about="t", **OPTIONS)
    nobody = Judgements.build([0], [0], [1], queries=60, documents=90)
    with pytest.raises(RivalsError, match=r"query 'q\d\d' has no positive"):
        mine_with_ray(Parts(tmp_path), replace(DATA, judgements=nobody), tmp_path / "c", about="t", **OPTIONS)
    with pytest.raises(RivalsError, match=r"failed 1 times because its worker died .* finished blocks are kept"):
        mine_with_ray(Parts(tmp_path, filters=(Fatal(),)), DATA, tmp_path / "d", about="t", retries=0, **OPTIONS)


def test_encoded_blocks_are_found(cluster, tmp_path):
    """The tiny encoder encodes over Ray what `encode_in_blocks` then reads, bit for bit what it computes itself."""
    from rivals.models import Encoder
    from rivals.models.blocks import encode_in_blocks
    from tests.models.tiny import write_tiny_bert

    model = write_tiny_bert(tmp_path / "model")
    texts = [f"text {i} of a few" for i in range(700)]
    encode_with_ray(lambda: Encoder.load(model, device="cpu", dtype="float32"), texts, tmp_path / "vectors", show=False)
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "vectors").glob("*.npz")}
    assert len(files) == 2
    encoder = Encoder.load(model, device="cpu", dtype="float32")
    read = encode_in_blocks(encoder, texts, role="document", folder=tmp_path / "vectors")
    assert files == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "vectors").glob("*.npz")}
    assert read.tobytes() == encode_in_blocks(encoder, texts, role="document", folder=None).tobytes()


# ------------------------------------------------------------------------------------------------- without a cluster


def test_blocks_keep_every_column(tmp_path):
    source, filters = Parts(tmp_path)(DATA)
    run = filters[0](source(DATA, 10))
    run = run.replace(weight=np.linspace(0, 1, len(run)), features={**run.features, "extra": run.score / 2})
    folder = BlockFolder(tmp_path / "blocks")
    folder.write(7, Marked(run, ("a", "b"), ("note",)))
    read = folder.read(7, DATA.queries, DATA.documents)
    assert read[1:] == (("a", "b"), ("note",))
    for f in fields(Run):
        ours, theirs = getattr(run, f.name), getattr(read.run, f.name)
        if isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes()), f.name
        elif f.name == "features":
            assert {name: column.tobytes() for name, column in ours.items()} == {
                name: column.tobytes() for name, column in theirs.items()
            }
        else:
            assert ours == theirs or ours is theirs, f.name


def test_a_folder_belongs_to_one_job(tmp_path):
    folder = BlockFolder(tmp_path / "blocks")
    folder.begin({"about": "one", "top_k": 5})
    folder.begin({"about": "one", "top_k": 5})
    with pytest.raises(RivalsError, match=r"blocks of another job \(top_k differ\)"):
        folder.begin({"about": "one", "top_k": 6})
    with pytest.raises(RivalsError, match="missing or damaged"):
        folder.read(0, DATA.queries, DATA.documents)
    (tmp_path / "blocks" / "job.json").write_text("{")
    with pytest.raises(RivalsError, match="cannot be read"):
        folder.begin({"about": "one"})
    (tmp_path / "file").write_text("")
    with pytest.raises(RivalsError, match=r"cannot be read|is a file"):
        BlockFolder(tmp_path / "file").begin({})


@pytest.mark.parametrize("change", [{"block": 0}, {"top_k": 0}, {"seed": -1}, {"retries": 1.5}])
def test_mistakes_are_met_before_any_work(tmp_path, change):
    with pytest.raises(RivalsError, match=f"{next(iter(change))} must be a whole number"):
        mine_with_ray(Parts(tmp_path), DATA, tmp_path / "x", about="t", **(OPTIONS | change))
    assert not (tmp_path / "x").exists()


def test_without_ray_the_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RivalsError, match=r"pip install 'rivals\[ray\]'"):
        mine_with_ray(Parts(tmp_path), DATA, tmp_path / "x", about="t", **OPTIONS)
