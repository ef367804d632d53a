"""The shape of the house: imports run downward, heavy packages are loaded late, files are short, public names exist."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rivals

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rivals"

#: The floors of the house, lowest first. A room imports rooms of lower floors only.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "progress", "files"),
    ("lists",),
    ("data", "losses", "measures"),
    ("retrieve", "models", "catalogue"),
    ("negatives", "training"),
    ("evaluate", "diagnose"),
    ("serve",),
    ("workflow",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

#: Imports between rooms of one floor, with the reason. An entry that nothing needs any more fails a test below.
NEIGHBOURS: dict[tuple[str, str], str] = {
    ("training", "negatives"): "training draws with samplers and puts rivals into one batch",
}

#: Rooms that may read the top of the package, `rivals` itself; for all others that would be a circle.
READS_THE_TOP = {"cli", "__main__"}

#: Packages that are imported where they are used, never by `import rivals` or by asking for help.
HEAVY = (
    "accelerate",
    "altair",
    "bm25s",
    "datasets",
    "fastapi",
    "gguf",
    "httpx",
    "huggingface_hub",
    "numba",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "scipy",
    "sentence_transformers",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
)

FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted(path.parent for path in SOURCE.glob("*/__init__.py"))


def room_of(path: Path) -> str:
    """Return the room a file belongs to; "" for the top of the package."""
    inside = path.relative_to(SOURCE).with_suffix("").parts
    return "" if inside == ("__init__",) else inside[0]


def is_room(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def imported_rooms(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield (room, line) of every import of the house in a file of `package`, wherever it stands; "" is the top."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "rivals":
                yield (target[1] if len(target) > 1 and is_room(target[1]) else ""), node.lineno


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    package = ("rivals", *path.relative_to(SOURCE).parent.parts)
    return imported_rooms(ast.parse(path.read_text(encoding="utf-8")), package)


def complaint(room: str, target: str) -> str | None:
    """Return what is wrong with `room` importing `target`, or None."""
    if room == "" or room == target:  # the top of the package names everything; files of one room know each other
        return None
    if target == "":
        return None if room in READS_THE_TOP else "imports the top of the package; name the room"
    if FLOOR[target] > FLOOR[room]:
        return f"imports upward, from '{target}'"
    if FLOOR[target] == FLOOR[room] and (room, target) not in NEIGHBOURS:
        return f"imports its neighbour '{target}'; move what both need down, or list the pair with a reason"
    return None


# ---------------------------------------------------------------------------------- imports run downward


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in FILES} - {""}
    assert rooms <= FLOOR.keys(), f"give {sorted(rooms - FLOOR.keys())} a floor in FLOORS"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downward(path: Path) -> None:
    place = path.relative_to(ROOT)
    found = [(line, complaint(room_of(path), target)) for target, line in imports_of(path)]
    assert [f"{place}:{line} {wrong}" for line, wrong in found if wrong] == []


def test_every_exception_is_still_needed() -> None:
    used = {(room_of(path), target) for path in FILES for target, _ in imports_of(path)}
    assert NEIGHBOURS.keys() <= used
    assert all(FLOOR[room] == FLOOR[target] for room, target in NEIGHBOURS)


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import rivals.cli", ["cli"]),
        ("from rivals import lists, evaluate", ["lists", "evaluate"]),
        ("from rivals import Run", [""]),
        ("from rivals.serve.app import create_app", ["serve"]),
        ("def later():\n    from rivals.models import Encoder", ["models"]),
        ("from ..models.encoder import Encoder", ["models"]),
        ("from . import run", ["data"]),
        ("import numpy, rivals_of_others", []),
    ],
)
def test_the_reader_of_imports_misses_none(code: str, rooms: list[str]) -> None:
    assert [room for room, _ in imported_rooms(ast.parse(code), ("rivals", "data"))] == rooms


@pytest.mark.parametrize(
    ("room", "target", "wrong"),
    [
        ("lists", "data", "upward"),
        ("data", "cli", "upward"),
        ("losses", "measures", "neighbour"),
        ("negatives", "training", "neighbour"),
        ("training", "negatives", None),
        ("models", "", "top"),
        ("cli", "", None),
        ("cli", "errors", None),
        ("data", "data", None),
    ],
)
def test_the_rule_itself(room: str, target: str, wrong: str | None) -> None:
    found = complaint(room, target)
    assert found is None if wrong is None else found is not None and wrong in found


# ---------------------------------------------------------------------------------- heavy packages load late


def loaded_by(code: str) -> list[str]:
    """Run code in a fresh interpreter and return the heavy packages it has loaded."""
    report = (
        f"import json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return list(json.loads(done.stderr.splitlines()[-1]))


def test_importing_rivals_loads_nothing_heavy() -> None:
    assert loaded_by("import rivals; assert rivals.__version__ and dir(rivals)") == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["search", "--help"]], ids=" ".join
)
def test_asking_for_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(f"from rivals.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass") == []


def test_what_is_heavy_would_be_seen() -> None:
    assert loaded_by("import numpy") == ["numpy"]


# ---------------------------------------------------------------------------------- names and files


@pytest.mark.parametrize("name", rivals.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rivals, name) is not None
    assert name in dir(rivals)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Reranker2'"):
        rivals.Reranker2  # noqa: B018


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: folder.name)
def test_every_room_says_what_is_public(folder: Path) -> None:
    room = importlib.import_module(f"rivals.{folder.name}")
    assert room.__doc__
    assert len(set(room.__all__)) == len(room.__all__)
    for name in room.__all__:
        assert getattr(room, name) is not None
        assert not name.startswith("_")
    # Importing a file puts it into its room under its name, in place of what the room would give lazily.
    files = {path.stem for path in folder.iterdir()} - {"__init__"}
    assert not files & set(room.__all__), "a file and a public name of one room are called alike; rename the file"


def test_no_file_is_long() -> None:
    lengths = {path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_every_file_says_what_it_is_for() -> None:
    assert [path for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []
