"""The run folder: everything an experiment leaves behind, and how far it got."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rivals import files
from rivals.data.dataset import Dataset
from rivals.errors import RunFolderError
from rivals.workflow.config import ExperimentConfig

_PACKAGES = ("rivals", "torch", "transformers", "tokenizers", "numpy", "scipy", "bm25s", "numba", "pyarrow")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one experiment. `config.json` is written first and never changed; `state.json` says which stages are complete."""

    path: Path

    @property
    def retriever(self) -> Path:
        """The trained retriever, a sentence-transformers folder."""
        return self.path / "models" / "retriever"

    @property
    def second_stage(self) -> Path:
        """The second stage."""
        return self.path / "models" / "second_stage"

    @property
    def index(self) -> Path:
        """Documents, vectors and BM25 of the trained system."""
        return self.path / "index"

    @property
    def checkpoints(self) -> Path:
        """Where training saves itself."""
        return self.path / "checkpoints"

    @property
    def vectors(self) -> Path:
        """Encoded blocks, reused on resume."""
        return self.path / "vectors"

    @property
    def runs(self) -> Path:
        """Runs in TREC format."""
        return self.path / "runs"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @classmethod
    def create(cls, path: str | Path, config: ExperimentConfig, dataset: Dataset) -> RunFolder:
        """Start a run in a new or empty folder.

        Raises:
            RunFolderError: the folder holds something already.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunFolderError(
                f"{path} exists and is not empty; choose another folder, or continue it with --resume {path}"
            )
        folder = cls(path)
        path.mkdir(parents=True, exist_ok=True)
        folder.write_json(
            "config.json",
            {
                "config": json.loads(config.to_json()),
                "data": fingerprints(dataset),
                "versions": versions(),
                "git": git_state(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )
        folder.write_json("state.json", {"seconds": {}})
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open the folder of an experiment.

        Raises:
            RunFolderError: there is no experiment in it.
        """
        folder = cls(Path(path))
        if not (folder.path / "config.json").is_file():
            raise RunFolderError(
                f"{path} is not a run folder (it has no config.json); give the folder that quickstart or train wrote"
            )
        return folder

    def config(self) -> ExperimentConfig:
        """The resolved configuration."""
        return ExperimentConfig.from_json(json.dumps(self.read_json("config.json")["config"]))

    def check_data(self, dataset: Dataset) -> None:
        """Raise unless the data is the one the run was started with."""
        recorded = self.read_json("config.json")["data"]
        if recorded != fingerprints(dataset):
            raise RunFolderError(
                f"the data has changed since {self.path} was started; start a new run, or restore the data to resume"
            )

    def done(self, stage: str) -> bool:
        """Whether a stage is complete."""
        return stage in self.read_json("state.json")["seconds"]

    def seconds(self) -> dict[str, float]:
        """How long each complete stage took."""
        return dict(self.read_json("state.json")["seconds"])

    def finish(self, stage: str, seconds: float) -> None:
        """Note that a stage is complete. Its outputs must be on disk before."""
        state = self.read_json("state.json")
        state["seconds"][stage] = round(seconds, 3)
        self.write_json("state.json", state)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        with files.atomic_file(self.path / name) as out:
            json.dump(value, out, indent=2, ensure_ascii=False)

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.path / name} is missing; the run did not get that far, continue it with --resume"
            ) from None
        except (ValueError, OSError) as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}") from None


def fingerprints(dataset: Dataset) -> dict[str, Any]:
    """Hashes and sizes that tell whether two runs saw the same data."""
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    judgements = dataset.judgements
    for column in (judgements.offsets, judgements.document, judgements.relevance):
        digest.update(column.tobytes())
    for name, rows in sorted(dataset.splits.items()):
        digest.update(name.encode() + rows.tobytes())
    return {
        "name": dataset.name,
        "queries": dataset.queries.fingerprint,
        "documents": dataset.documents.fingerprint,
        "judgements": digest.hexdigest(),
        "sizes": {
            "queries": len(dataset.queries),
            "documents": len(dataset.documents),
            "judgements": len(judgements),
            **{split: len(rows) for split, rows in dataset.splits.items()},
        },
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def git_state() -> str:
    """The commit of the working directory, with "+" if it has changes; empty outside a repository."""
    import subprocess

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""
