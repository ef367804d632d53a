"""`rivals quickstart` and `rivals train`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.progress import set_quiet
from rivals.workflow.config import DataConfig, ExperimentConfig, load_config, to_toml



def run_quickstart(
    *, fast: bool, full: bool, model: str, output: str, resume: str, seed: int, second_stage: str, device: str, quiet: bool
) -> None:
    """Run the main job on the embedded sample."""
    from rivals.data import load_sample

    if fast and full:
        raise RivalsError("--fast and --full exclude each other; give one of them")
    config = ExperimentConfig(model=model, seed=seed, device=device)
    config = replace(config, second_stage=replace(config.second_stage, kind=second_stage))  # type: ignore[arg-type]
    config = quick_config(config, fast=fast, full=full)
    _run(config, load_sample(), output or f"runs/quickstart-{time.strftime('%Y%m%d-%H%M%S')}", resume, quiet)


def quick_config(config: ExperimentConfig, *, fast: bool = False, full: bool = False) -> ExperimentConfig:
    """Return the configuration of `rivals quickstart`, its `--fast` or its `--full` variant."""
    if fast:
        return replace(
            config,
            max_length=128,
            retriever=replace(config.retriever, max_steps=16, max_document_tokens=64, evaluations=1),
        )
    if full:
        return replace(
            config,
            retriever=replace(config.retriever, epochs=3, negatives=2, max_document_tokens=192, evaluations=6),
        )
    return config


def run_train(
    *,
    data: Mapping[str, str],
    config: str,
    model: str,
    output: str,
    resume: str,
    seed: int | None,
    device: str,
    print_config: bool,
    quiet: bool,
) -> None:
    """Run the main job on the user's data."""
    settings = load_config(config) if config else ExperimentConfig()
    if model:
        settings = replace(settings, model=model)
    if device:
        settings = replace(settings, device=device)
    if seed is not None:
        settings = replace(settings, seed=seed)
    if any(data.values()):
        given = {name: str(Path(value).resolve()) for name, value in data.items() if value}
        settings = replace(settings, data=replace(settings.data, **given))
    if print_config:
        print(to_toml(settings), end="")
        return
    if resume:
        from rivals.workflow.run_folder import RunFolder

        settings = RunFolder.open(resume).config()
    _run(settings, open_data(settings.data, settings.seed), output or f"runs/train-{time.strftime('%Y%m%d-%H%M%S')}", resume, quiet)


def open_data(data: DataConfig, seed: int) -> Dataset:
    """Load the configured data, or the embedded sample when nothing is configured, and split it if it brings no splits."""
    from rivals.data import load_dataset, load_sample

    files = {name: getattr(data, name) for name in ("documents", "pairs", "queries", "judgements") if getattr(data, name)}
    if data.folder and files:
        raise RivalsError(f"give a folder or single files, not both (folder {data.folder} and {', '.join(files)})")
    if not data.folder and not files:
        return load_sample()
    dataset = load_dataset(data.folder) if data.folder else load_dataset(**files)
    print(dataset.describe())
    missing = [name for name in ("train", "dev", "test") if name not in dataset.splits]
    if not missing:
        return dataset
    if len(missing) < 3 and "train" in dataset.splits:
        raise RivalsError(f"the data has the splits {', '.join(dataset.splits)} but no {' and no '.join(missing)}; give all three, or none")
    return dataset.with_splits(dev=data.dev, test=data.test, seed=seed, by=data.split_by or None)


def _run(config: ExperimentConfig, dataset: Dataset, output: str, resume: str, quiet: bool) -> None:
    from rich.console import Console

    from rivals.workflow.experiment import run_experiment

    console = Console(highlight=False)
    set_quiet(quiet)
    started = time.monotonic()
    folder = Path(resume or output)
    console.print(f"Run folder: {folder}")
    experiment = run_experiment(config, dataset, folder, resume=bool(resume), say=lambda text: console.print(text, markup=False))
    if not experiment.world.is_main:
        return
    console.print(experiment.evaluation)
    for name, milliseconds in experiment.milliseconds.items():
        console.print(f"  {name}: {milliseconds:.1f} ms per query")
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Report: {folder / 'report.html'}\nNext:")
    question = dataset.split("test").queries.full_texts[0].strip()
    console.print(f'  rivals search {folder} "{question}"', markup=False, soft_wrap=True)
    console.print(f"  rivals serve {folder}", markup=False, soft_wrap=True)
