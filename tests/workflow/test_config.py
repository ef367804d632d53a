"""The configuration: what is written is read back, and what cannot be is refused with the option and its line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import DataError, RivalsError
from rivals.workflow.config import (
    DataConfig,
    ExperimentConfig,
    MiningConfig,
    RetrieverTraining,
    SecondStageConfig,
    load_config,
    model_name,
    to_toml,
)

counts = st.integers(1, 10_000)
positive = st.floats(1e-12, 1e6)
words = st.text(st.characters(codec="utf-8"), max_size=12)
paths = st.one_of(st.just(""), words.map(lambda word: f"/data/{word.replace(chr(0), '').replace('/', '')}x"))
names = words.filter(lambda word: bool(word.strip()))

data = st.builds(
    DataConfig,
    folder=paths,
    documents=paths,
    dev=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
    split_by=words,
)
mining = st.builds(
    MiningConfig,
    candidates=counts,
    relative=st.floats(0.001, 0.999),
    sampler=st.sampled_from(["top", "uniform", "softmax"]),
    window=counts,
)
retriever = st.builds(
    RetrieverTraining,
    epochs=counts,
    max_steps=st.integers(0, 10**9),
    batch_size=st.integers(2, 4096),
    learning_rate=positive,
    temperature=positive,
    late_interaction=st.floats(0, 10),
    precision=st.sampled_from(["auto", "bfloat16", "float32"]),
)
second = st.builds(
    SecondStageConfig,
    kind=st.sampled_from(["auto", "late-interaction", "list-wise", "cross-encoder", "none"]),
    depth=counts,
    epochs=st.integers(0, 100),
)
configs = st.builds(
    ExperimentConfig,
    model=names.filter(lambda name: not Path(name.replace("\0", "")).is_dir() and "\0" not in name),
    seed=st.integers(0, 2**63 - 1),
    device=words,
    data=data,
    mining=mining,
    retriever=retriever,
    second_stage=second,
)


@settings(deadline=None, max_examples=60)
@given(configs)
def test_what_is_written_is_read_back(config: ExperimentConfig) -> None:
    assert ExperimentConfig.from_json(config.to_json()) == config
    assert set(json.loads(config.to_json())) >= {"model", "seed", "data", "mining", "retriever", "second_stage"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.toml"
        path.write_text(to_toml(config), encoding="utf-8", newline="")
        assert load_config(path) == config


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("seed = 1\nlerning_rate = 2\n", 2, ["unknown option 'lerning_rate'"]),
        ("seed = 1\n\n[retriever]\nepochs = 1\nseed = 3\n", 5, ["unknown option 'retriever.seed'", "epochs"]),
        ("seed = 1\n[retreiver]\nepochs = 1\n", 2, ["unknown option 'retreiver'", "second_stage"]),
        ("retriever.epoch = 1\n", 1, ["unknown option 'retriever.epoch'"]),
        ("retriever = 3\n", 1, ["write [retriever]"]),
        ("[data]\n[retriever]\nepochs = 'two'\n", 3, ["retriever.epochs", "int", "str"]),
        ("[mining]\nwindow = 3\nsampler = 'random'\n", 3, ["mining.sampler", "random"]),
        ("[second_stage]\nkind = 'magic'\n", 2, ["second_stage.kind", "magic"]),
        ("seed = true\n", 1, ["seed", "bool"]),
        ("[retriever]\nepochs = 0\n", 2, ["retriever.epochs", "0", "range"]),
        ("[retriever]\nlearning_rate = nan\n", 2, ["retriever.learning_rate", "nan"]),
        ("[retriever]\nlearning_rate = -1e-4\n", 2, ["retriever.learning_rate"]),
        ("[retriever]\ntemperature = 0\n", 2, ["retriever.temperature"]),
        ("[retriever]\nbatch_size = 1\n", 2, ["retriever.batch_size"]),
        ("[mining]\nrelative = 1.5\n", 2, ["mining.relative", "1.5"]),
        ("[mining]\ncandidates = 0\n", 2, ["mining.candidates"]),
        ("[second_stage]\ndepth = 0\n", 2, ["second_stage.depth"]),
        ("candidates = -5\n", 1, ["candidates", "-5"]),
        ("seed = -1\n", 1, ["seed", "-1"]),
        ("max_length = -1\n", 1, ["max_length"]),
        ("model = '  '\n", 1, ["model"]),
        ("[data]\ndev = 0.6\ntest = 0.6\n", 2, ["data.dev", "data.test", "0.6"]),
        ("[data]\ndev = 0\n", 2, ["data.dev"]),
    ],
)
def test_mistakes_name_the_option_and_the_line(tmp_path: Path, text: str, line: int, parts: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"seed = = 1\n", b"seed = \xff\n", b"seed = 1\nseed = 2\n"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "experiment.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"experiment\.toml: is not TOML"):
        load_config(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            load_config(path)


def test_options_in_python_are_checked_too() -> None:
    with pytest.raises(RivalsError, match=r"retriever\.negatives"):
        RetrieverTraining(negatives=-1)
    with pytest.raises(RivalsError, match=r"second_stage\.epochs"):
        SecondStageConfig(epochs=-1)


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 4\n")
    assert load_config(path).seed == 4


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    config = load_config(
        written(tmp_path, 'model = "encoder"\n[data]\ndocuments = "docs.jsonl"\npairs = "/else/pairs.csv"\n')
    )
    assert config.data.documents == str(tmp_path.resolve() / "docs.jsonl")
    assert config.data.pairs == "/else/pairs.csv"
    assert config.data.queries == ""
    assert config.model == str(tmp_path.resolve() / "encoder")
    assert load_config(written(tmp_path, 'model = "someone/encoder"\n')).model == "someone/encoder"
    assert model_name("encoder", tmp_path) == config.model


def test_the_defaults_are_within_range_and_complete(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "")) == ExperimentConfig()
    text = to_toml(ExperimentConfig())
    assert all(f"[{table}]" in text for table in ("data", "mining", "retriever", "second_stage"))
