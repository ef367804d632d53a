"""What is installed is whole: the wheel holds every file it needs and works by itself; versions are pinned exactly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
QUICKSTART = 'pip install -c constraints.txt ".[quickstart]"'
DEVELOPMENT = 'pip install -c constraints.txt ".[dev]"'


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [re.fullmatch(r"([a-z0-9-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(pinned), "every line of constraints.txt is a comment or name==version"
    return {match[1]: Version(match[2]) for match in pinned if match}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as pip would, without fetching anything."""
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


# ---------------------------------------------------------------------------------- the wheel


def test_the_wheel_holds_the_package_and_nothing_else(unpacked: Path) -> None:
    found = {path.relative_to(unpacked).as_posix() for path in (unpacked / "rivals").rglob("*") if path.is_file()}
    wanted = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "rivals").rglob("*") if path.is_file()}
    assert found == {name for name in wanted if "__pycache__" not in name}
    assert {path.name.split("-")[0] for path in unpacked.iterdir()} == {"rivals"}


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "data/sample.parquet",
        "serve/page.html",
        "evaluate/_report/report.html.j2",
        "evaluate/_report/report.css",
        "evaluate/_report/report.js",
        "evaluate/_report/vega.min.js",
        "evaluate/_report/vega-lite.min.js",
        "evaluate/_report/vega-embed.min.js",
        "evaluate/_report/THIRD_PARTY.md",
    ],
)
def test_the_wheel_holds_what_is_not_python(unpacked: Path, name: str) -> None:
    packed = unpacked / "rivals" / name
    assert packed.read_bytes() == (SOURCE / "rivals" / name).read_bytes()


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 4 << 20


def test_the_wheel_carries_its_licence_and_its_command(unpacked: Path, project: dict[str, Any]) -> None:
    (information,) = unpacked.glob("rivals-*.dist-info")
    assert "Apache License" in (information / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert "rivals = rivals.cli:main" in (information / "entry_points.txt").read_text(encoding="utf-8")
    metadata = Parser().parsestr((information / "METADATA").read_text(encoding="utf-8"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or ()) == set(project["optional-dependencies"])


def test_the_wheel_works_without_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import rivals\n"
        "from rivals.cli import app\n"
        "sample = rivals.load_sample()\n"
        "print(rivals.__file__, rivals.__version__, len(sample.documents), len(sample.queries), sep='|')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    file, version, documents, queries = done.stdout.strip().split("|")
    assert Path(file).is_relative_to(unpacked)
    assert (int(documents), int(queries)) == (3514, 2863)
    (information,) = unpacked.glob("rivals-*.dist-info")
    assert information.name == f"rivals-{version}.dist-info"


# ---------------------------------------------------------------------------------- versions


def requirements(project: dict[str, Any]) -> list[Requirement]:
    """Return every direct requirement, of the package and of all its extras."""
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "rivals"]


def test_what_we_ask_for_is_pinned_within_its_bounds(project: dict[str, Any], pins: dict[str, Version]) -> None:
    for requirement in requirements(project):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert pins[name] in requirement.specifier, f"constraints.txt pins {name} outside {requirement.specifier}"


def test_what_is_installed_with_it_is_pinned_too(project: dict[str, Any], pins: dict[str, Version]) -> None:
    from importlib import metadata

    waiting, seen = [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements(project)], set()
    while waiting:
        name, extras = place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        assert name in pins, f"constraints.txt does not pin {name}, which an installation brings along"
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))


def test_no_cuda_and_no_build_tags(pins: dict[str, Version]) -> None:
    assert pins["torch"] == Version("2.13.0")
    assert [name for name, version in pins.items() if version.local] == []
    assert [name for name in pins if re.match(r"nvidia|cuda|triton", name)] == []


# ---------------------------------------------------------------------------------- the commands


def test_continuous_integration_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{QUICKSTART} && rivals quickstart" in readme
    assert f"{DEVELOPMENT} && pytest" in readme
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert DEVELOPMENT in lines
    assert lines[-1] == "pytest"
