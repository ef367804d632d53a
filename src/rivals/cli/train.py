"""`rivals quickstart` and `rivals train`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.progress import set_quiet
from rivals.workflow.config import DataConfig, ExperimentConfig, load_config, model_name, to_toml


def run_quickstart(
    *,
    fast: bool,
    full: bool,
    model: str,
    output: str,
    resume: str,
    seed: int,
    second_stage: str,
    device: str,
    quiet: bool,
) -> None:
    """Run the main job on the embedded sample."""
    from rivals.data import load_sample

    if fast and full:
        raise RivalsError("--fast and --full exclude each other; give one of them")
    if resume:
        _resume(resume, quiet)
        return
    config = ExperimentConfig(model=model_name(model), seed=seed, device=device)
    config = replace(config, second_stage=replace(config.second_stage, kind=second_stage))  # type: ignore[arg-type]
    config = quick_config(config, fast=fast, full=full)
    _run(config, load_sample(), output or f"runs/quickstart-{time.strftime('%Y%m%d-%H%M%S')}", quiet=quiet)


def quick_config(config: ExperimentConfig, *, fast: bool = False, full: bool = False) -> ExperimentConfig:
    """Return the configuration of `rivals quickstart`, its `--fast` or its `--full` variant."""
    if fast:
        return replace(
            config,
            max_length=64,
            retriever=replace(config.retriever, max_steps=12, max_document_tokens=64, evaluations=0),
        )
    if full:
        kind = "all" if config.second_stage.kind == "auto" else config.second_stage.kind
        return replace(
            config,
            retriever=replace(
                config.retriever, epochs=4, members=3, negatives=2, max_document_tokens=192, evaluations=8
            ),
            second_stage=replace(config.second_stage, kind=kind),
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
    if resume:
        _resume(resume, quiet)
        return
    settings = load_config(config) if config else ExperimentConfig()
    if model:
        settings = replace(settings, model=model_name(model))
    if device:
        settings = replace(settings, device=device)
    if seed is not None:
        settings = replace(settings, seed=seed)
    if any(data.values()):
        given: dict[str, Any] = {name: str(Path(value).resolve()) for name, value in data.items() if value}
        settings = replace(settings, data=replace(settings.data, **given))
    if print_config:
        print(to_toml(settings), end="")
        return
    if not config and not any(data.values()):
        raise RivalsError(
            "no data is given; name --documents and --pairs, or --folder, or --config (rivals quickstart uses the embedded sample)"
        )
    dataset = open_data(settings.data, settings.seed)
    _run(settings, dataset, output or f"runs/train-{time.strftime('%Y%m%d-%H%M%S')}", quiet=quiet)


def _resume(folder: str, quiet: bool) -> None:
    """Continue any run with the configuration and data it was started with."""
    from rivals.workflow.run_folder import RunFolder

    settings = RunFolder.open(folder).config()
    _run(settings, open_data(settings.data, settings.seed), folder, resume=True, quiet=quiet)


def open_data(data: DataConfig, seed: int) -> Dataset:
    """Load the configured data, or the embedded sample when nothing is configured, and split it if it brings no splits."""
    from rivals.data import load_dataset, load_sample

    files = {
        name: getattr(data, name) for name in ("documents", "pairs", "queries", "judgements") if getattr(data, name)
    }
    if data.folder and files:
        raise RivalsError(f"give a folder or single files, not both (folder {data.folder} and {', '.join(files)})")
    if not data.folder and not files:
        return load_sample()
    dataset = load_dataset(data.folder) if data.folder else load_dataset(**files)
    print(dataset.describe())
    if not len(dataset.judgements):
        raise RivalsError("the data has no question with a known document; give --pairs or --judgements")
    missing = [name for name in ("train", "dev", "test") if name not in dataset.splits]
    if not missing:
        return dataset
    if len(missing) < 3 and "train" in dataset.splits:
        raise RivalsError(
            f"the data has the splits {', '.join(dataset.splits)} but no {' and no '.join(missing)}; give all three, or none"
        )
    return dataset.with_splits(dev=data.dev, test=data.test, seed=seed, by=data.split_by or None)


def _run(config: ExperimentConfig, dataset: Dataset, output: str, *, resume: bool = False, quiet: bool = False) -> None:
    from rivals.cli._console import result_console
    from rivals.workflow.experiment import run_experiment

    console = result_console()
    set_quiet(quiet)
    started = time.monotonic()
    folder = Path(output)
    say = partial(console.print, markup=False, soft_wrap=True)
    say(f"Run folder: {folder}")
    try:
        experiment = run_experiment(config, dataset, folder, resume=resume, say=say)
    except KeyboardInterrupt:
        how = f"continue with: rivals train --resume {folder}" if (folder / "config.json").exists() else ""
        raise KeyboardInterrupt(how) from None
    if not experiment.world.is_main:
        return
    console.print(replace(experiment.evaluation, slices=()))  # the report shows them
    for name, milliseconds in experiment.milliseconds.items():
        say(f"  {name}: {milliseconds:.1f} ms per query")
    spent = sum(experiment.folder.seconds().values())
    over = f" ({spent:.0f} s with what was done before)" if resume else ""
    say(f"\nDone in {time.monotonic() - started:.0f} s{over}. Report: {folder / 'report.html'}\nNext:")
    question = dataset.split("test").queries.full_texts[0].strip()
    say(f"  rivals search {_quoted(str(folder))} {_quoted(question)}")
    say(f"  rivals serve {_quoted(str(folder))}")


def _quoted(text: str) -> str:
    """Return a word as a shell reads it, in double quotes where they are safe.

    >>> print(_quoted("runs/first"), _quoted("What is it?"), _quoted("It's $5"))
    runs/first "What is it?" 'It'"'"'s $5'
    """
    quoted = shlex.quote(text)
    return quoted if quoted == text or set(text) & set('"$`\\!') else f'"{text}"'
