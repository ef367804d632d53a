"""The run folder: everything an experiment leaves behind, and how far it got."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from rivals import files
from rivals.data.dataset import Dataset
from rivals.errors import RunFolderError
from rivals.workflow.config import ExperimentConfig

_PACKAGES = ("rivals", "torch", "transformers", "tokenizers", "numpy", "scipy", "bm25s", "numba", "pyarrow")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one experiment.

    `config.json` is written first and never changed. `state.json` says which stages are complete, the seconds spent in each over
    all resumes, and which one is running; without it no stage is complete.
    """

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
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} is a file; give a new folder")
        folder = cls(path)
        if (path / "config.json").exists():
            raise RunFolderError(f"{path} holds a run; choose another folder, or continue it with --resume {path}")
        if path.is_dir() and not all(_is_leftover(inside) for inside in path.iterdir()):
            raise RunFolderError(f"{path} exists and is not empty; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        folder.remove_leftovers()
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
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open the folder of an experiment.

        Raises:
            RunFolderError: there is no experiment in it.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise RunFolderError(f"there is no folder {path}; give the folder that quickstart or train wrote")
        if not (folder.path / "config.json").is_file():
            raise RunFolderError(
                f"{path} is not a run folder (it has no config.json); give the folder that quickstart or train wrote"
            )
        return folder

    def config(self) -> ExperimentConfig:
        """The resolved configuration."""
        try:
            return ExperimentConfig.from_json(json.dumps(self._started()["config"]))
        except (msgspec.ValidationError, KeyError) as error:
            raise self._damaged("config.json", error) from None

    def check_data(self, dataset: Dataset) -> None:
        """Raise unless the data is the one the run was started with."""
        if self._started().get("data") != fingerprints(dataset):
            raise RunFolderError(
                f"the data has changed since {self.path} was started; start a new run, or restore the data to resume"
            )

    def done(self, stage: str) -> bool:
        """Whether a stage is complete."""
        return stage in self._state()["complete"]

    def seconds(self) -> dict[str, float]:
        """How long was spent in each stage, over all resumes."""
        return dict(self._state()["seconds"])

    def begin(self, stage: str) -> None:
        """Note that a stage is being worked on."""
        self.write_json("state.json", {**self._state(), "running": {"stage": stage, "since": time.time()}})

    def finish(self, stage: str, seconds: float) -> None:
        """Note that a stage is complete, for good, and add to its seconds. Its outputs must be on disk before."""
        state = self._state()
        state["complete"] = list(dict.fromkeys([*state["complete"], stage]))
        state["seconds"][stage] = round(state["seconds"].get(stage, 0.0) + seconds, 3)
        self.write_json("state.json", {**state, "running": None})

    def recover(self) -> None:
        """Make good what a kill left: count the seconds of the stage it ended, up to the last file written; remove half-written files."""
        state = self._state()
        if state["running"] is not None:
            stage, since = state["running"]["stage"], state["running"]["since"]
            last = max(file.lstat().st_mtime for file in (self.path, *self.path.rglob("*")))
            state["seconds"][stage] = round(state["seconds"].get(stage, 0.0) + max(last - since, 0.0), 3)
            self.write_json("state.json", {**state, "running": None})
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove the temporary files and folders of writes that a kill cut short."""
        for path in sorted(filter(_is_leftover, self.path.rglob("*"))):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Raises:
            RunFolderError: another process is working on it.
        """
        with open(self.path / "config.json", encoding="utf-8") as handle:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(f"another process is working on {self.path}; wait for it or stop it") from None
            except (ImportError, OSError):
                pass  # Windows, or a file system without locks
            yield

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"complete": [], "seconds": {}, "running": None}
        if (self.path / "state.json").exists():
            found = self.read_json("state.json")
            try:
                msgspec.convert(found, _State)
            except msgspec.ValidationError as error:
                raise self._damaged("state.json", error) from None
            state.update(found)
        return state

    def _started(self) -> dict[str, Any]:
        about = self.read_json("config.json")
        if not isinstance(about, dict):
            raise self._damaged("config.json", "it holds no object")
        return about

    def _damaged(self, name: str, why: object) -> RunFolderError:
        cure = "delete it to do all stages again" if name == "state.json" else "restore it, or start a new run"
        return RunFolderError(f"{self.path / name} is damaged ({why}); {cure}")

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
            raise self._damaged(name, error) from None


class _Running(msgspec.Struct):
    stage: str
    since: float


class _State(msgspec.Struct):
    """What `state.json` holds."""

    complete: list[str] = []
    seconds: dict[str, float] = {}
    running: _Running | None = None


def _is_leftover(path: Path) -> bool:
    """Whether a path is what `rivals.files` leaves when it is killed while writing."""
    name = path.name
    return (name.startswith(".") and name.endswith((".tmp", ".old"))) or name == "best.safetensors.tmp"


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
