"""docs/losses.md is what the docstrings say, and its pictures are what it shows."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import torch

from rivals.catalogue import DATA, TASKS, find
from rivals.losses import LOSSES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "losses.md"
PICTURES = sorted((ROOT / "docs" / "losses").glob("*.svg"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return script("build_loss_docs")


@pytest.fixture(scope="module")
def painter() -> ModuleType:
    return script("loss_pictures")


def test_the_page_is_up_to_date(builder: ModuleType) -> None:
    same = PAGE.read_text(encoding="utf-8") == builder.page()
    assert same, "docstrings have changed: run python scripts/build_loss_docs.py --text"


def test_the_check_says_so(
    builder: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "PAGE", tmp_path / "losses.md")
    assert builder.main(["--check"]) == 1
    assert builder.main(["--text"]) == 0
    assert builder.main(["--check"]) == 0
    (tmp_path / "losses.md").write_text("old")
    assert builder.main(["--check"]) == 1
    assert "out of date: run python scripts/build_loss_docs.py --text" in capsys.readouterr().out


def test_the_page_has_every_loss_every_kind_of_data_every_task() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert [name for name in LOSSES if headings.count(name) != 1] == []
    assert [group.title for group in DATA.values() if group.title not in headings] == []
    assert [group.title for group in TASKS.values() if f"| **{group.title}**" not in text] == []


def test_its_links_lead_somewhere(builder: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    anchors = {builder._anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    files = set(re.findall(r"\]\(((?!#|http)[^)]+)\)", text))
    assert [file for file in files if not (PAGE.parent / file).exists()] == []


def test_docstrings_become_no_markup(builder: ModuleType) -> None:
    assert builder.prose("[a] * b <i> `x * y` _z") == "\\[a\\] \\* b &lt;i> `x * y` \\_z"
    assert builder.cell("|a|") == "\\|a\\|"


# ---------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_small_whole_and_of_a_loss(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 6_000
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"nan|inf\b|href|http(?!://www\.w3\.org/2000/svg)", text)
    assert find(path.stem, "loss")


def test_the_usual_losses_have_a_picture() -> None:
    drawn = {path.stem for path in PICTURES}
    assert drawn >= {"info_nce", "softmax", "pairwise_logistic", "huber", "cross_entropy", "cosface", "dpo", "triplet"}


def test_a_picture_is_drawn_from_the_loss(painter: ModuleType) -> None:
    (entry,) = find("pairwise_hinge", "loss")
    view = painter.view_of(entry)
    assert (view.axes, view.low, view.high) == (("positive's score", "negative's score"), -3.0, 3.0)
    sampled = painter._sampled(view)
    points = sampled.points
    expected = (1 - (points[:, None] - points[None, :])).clamp(min=0)
    torch.testing.assert_close(sampled.values, expected)
    away = expected > 1e-6
    torch.testing.assert_close(sampled.gradients[..., 0][away], -torch.ones_like(expected)[away])
    torch.testing.assert_close(sampled.gradients[..., 1][away], torch.ones_like(expected)[away])
    assert painter.draw(view, sampled).startswith("<svg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("policy_gradient", "draws at random"),
        ("z", "is constant on two candidates"),
        ("selection_weighted", "needs another tensor"),
        ("in_batch_triplet", "takes vectors"),
    ],
)
def test_what_two_scores_do_not_describe_has_none(painter: ModuleType, name: str, reason: str) -> None:
    assert painter.picture(find(name, "loss")[0]) is None, reason


@pytest.mark.parametrize(
    ("name", "low", "high"), [("info_nce", -1, 1), ("triplet", -3, 0), ("huber", -3, 3), ("softmax", -3, 3)]
)
def test_ranges_follow_the_docstring(painter: ModuleType, name: str, low: float, high: float) -> None:
    view = painter.view_of(find(name, "loss")[0])
    assert (view.low, view.high) == (low, high)


def test_isolines_of_a_plane_are_straight(painter: ModuleType) -> None:
    size = painter._POINTS
    values = torch.arange(size, dtype=torch.float64)[:, None].expand(size, size)
    lines = [painter._simplified(line) for line in painter._isolines(values, 3.5)]
    assert len(lines) == 1
    ((x0, y0), (x1, y1)) = lines[0]
    step = 240 / (size - 1)
    assert x0 == x1 == pytest.approx(40 + 3.5 * step)
    assert {y0, y1} == {10.0, 250.0}


def test_isolines_of_a_bowl_are_closed(painter: ModuleType) -> None:
    axis = torch.linspace(-1, 1, painter._POINTS, dtype=torch.float64)
    (line,) = painter._isolines(axis[:, None] ** 2 + axis[None, :] ** 2, 0.25)
    assert line[0] == line[-1]
    assert len(line) > 20


def test_drawing_writes_and_tidies(painter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone.svg").write_text("<svg/>")
    monkeypatch.setattr(painter, "entries", lambda: [*find("huber", "loss"), *find("z", "loss")])
    assert painter.main(["--folder", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["huber.svg"]
    assert (tmp_path / "huber.svg").read_text(encoding="utf-8") == painter.picture(find("huber", "loss")[0])
