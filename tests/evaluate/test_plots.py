"""Plots: they show the values they were given, save as pages that need no network and as pictures, and say their n."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.diagnose import ScalingLadder, interpolate_models, loss_curve, loss_surface, random_direction
from rivals.diagnose.landscape import LossCurve, LossSurface
from rivals.diagnose.scaling import AccuracyLink, LossLaw
from rivals.errors import RivalsError
from rivals.evaluate import Evaluation, evaluate, plots
from rivals.evaluate._report.data import ScoreStage
from rivals.evaluate.plots.landscape import _contour
from rivals.measures import calibration_report, reliability_curve
from rivals.measures.proportions import proportion_interval

HOSTILE = "</script><script>document.title='broken'</script> \"x\" 'y' \\ <b>"


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Four systems of rising quality, the two best alike, on 120 queries."""
    generator = np.random.default_rng(0)
    count, size = 120, 40
    queries = Collection([f"q{i}" for i in range(count)], name="query")
    documents = Collection([f"d{i}" for i in range(size)])
    relevant = generator.integers(0, size, count)
    judgements = Judgements.build(np.arange(count), relevant, np.ones(count), queries=count, documents=size)
    ease = generator.normal(size=count)

    def run(quality: float) -> Run:
        scores = generator.normal(size=(count, size))
        scores[np.arange(count), relevant] += quality + ease
        every = np.tile(np.arange(size), count)
        return Run.build(queries, documents, np.arange(count + 1) * size, every, scores.ravel().astype(np.float32))

    systems = {"bm25": run(0.5), "dense": run(1.5), HOSTILE: run(2.6), "two stages": run(2.7)}
    data = Dataset(queries, documents, judgements, name="toy & <b>")
    return evaluate(systems, data, measures=["nDCG@10", "P@1"], baselines=["bm25"], resamples=500, permutations=500)


def rows(plot: plots.Plot, *fields: str) -> list[dict[str, Any]]:
    """Every row of data in a plot that has all these fields, in order; what several layers draw comes once."""

    def found(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if isinstance(node.get("values"), list):
                yield from (row for row in node["values"] if isinstance(row, dict) and set(fields) <= row.keys())
            for value in node.values():
                yield from found(value)
        elif isinstance(node, list):
            for value in node:
                yield from found(value)

    return list({json.dumps(row): row for row in found(plot.to_dict())}.values())


def below(plot: plots.Plot) -> str:
    return " ".join(plot.to_dict()["title"]["subtitle"])


# ------------------------------------------------------------------------------------------------------------- systems


def test_means_are_the_evaluations_best_first(evaluation: Evaluation) -> None:
    plot = plots.means(evaluation, "P@1")
    drawn = {row["system"]: row for row in rows(plot, "system", "low", "high")}
    for system in evaluation.systems:
        interval = evaluation.intervals[system]["P@1"]
        assert [drawn[system][k] for k in ("value", "low", "high")] == pytest.approx(list(interval), abs=1e-5)
    sort = plot.to_dict()["layer"][0]["encoding"]["y"]["sort"]
    assert sort == sorted(evaluation.systems, key=lambda s: -evaluation.mean(s, "P@1"))
    assert "120 queries" in json.dumps(plot.to_dict())
    assert "toy & <b>" in below(plot)


def test_rank_groups_draw_the_letters_and_places(evaluation: Evaluation) -> None:
    plot = plots.rank_groups(evaluation)
    seen: dict[str, str] = {}
    for row in rows(plot, "system", "group", "row"):
        seen[row["system"]] = "".join(sorted(seen.get(row["system"], "") + row["group"]))
    assert seen == evaluation.groups
    assert evaluation.groups[HOSTILE] == evaluation.groups["two stages"] == "a"
    places = {row["system"]: row["text"] for row in rows(plot, "system", "text", "group")}
    assert places[HOSTILE] == places["two stages"] == "1="
    spans = {row["group"]: (row["system"], row["last"]) for row in rows(plot, "last")}
    members = [name for name in evaluation.order if "a" in evaluation.groups[name]]
    assert spans["a"] == (members[0], members[-1])


def test_differences_are_sorted_and_counted(evaluation: Evaluation) -> None:
    plot = plots.differences(evaluation, "dense", "bm25")
    values = evaluation.per_query["dense"]["nDCG@10"] - evaluation.per_query["bm25"]["nDCG@10"]
    better, worse = int((values > 1e-9).sum()), int((values < -1e-9).sum())
    text = json.dumps(plot.to_dict())
    assert f"dense better: {better} of 120" in text
    assert f"bm25 better: {worse} of 120" in text
    assert "share of the 120 test questions" in text
    assert f"the same on {120 - better - worse} of 120" in below(plot)
    tested = evaluation.comparison("dense", "bm25")
    assert f"{tested.difference:+.3f}" in below(plot)
    assert f"{tested.high:+.3f}" in below(plot)
    up = [row["difference"] for row in rows(plot, "difference") if row["better"] == "dense"]
    assert up == sorted(up, reverse=True)
    assert up[0] == pytest.approx(values.max(), abs=1e-4)


def test_differences_of_untested_systems_show_the_mean_alone(evaluation: Evaluation) -> None:
    plot = plots.differences(evaluation, "two stages", "dense", "P@1")
    gap = evaluation.mean("two stages", "P@1") - evaluation.mean("dense", "P@1")
    assert f"{gap:+.3f}" in below(plot)
    assert " p " not in below(plot)


def test_equal_systems_can_be_drawn(evaluation: Evaluation) -> None:
    plot = plots.differences(evaluation, "dense", "dense")
    assert "the same on 120 of 120" in below(plot)
    assert rows(plot, "difference") == []


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda e: plots.means(e, "AP"), "'AP' was not measured"),
        (lambda e: plots.differences(e, "nobody", "bm25"), "no system is called 'nobody'"),
        (lambda e: plots.differences(e, "bm25", "nobody"), "no system is called 'nobody'"),
    ],
)
def test_unknown_names_are_told(evaluation: Evaluation, draw: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        draw(evaluation)


# -------------------------------------------------------------------------------------------------------------- scores


def test_score_distribution_shares_sum_to_one_a_class() -> None:
    generator = np.random.default_rng(1)
    plot = plots.score_distribution(
        (generator.normal(1, 1, 200), generator.normal(-1, 1, (50, 20)), generator.normal(0, 1, 30)), unit="cosine"
    )
    outline = rows(plot, "kind", "share")
    for kind in ("positives", "negatives", "marked"):
        parts = {row["draw"]: row["share"] for row in outline if row["kind"] == kind}
        assert sum(parts.values()) == pytest.approx(1, abs=1e-4)
    text = json.dumps(plot.to_dict())
    assert "positives (200)" in text
    assert "negatives (1,000)" in text
    assert "cosine" in text
    assert "1,230 scores" in below(plot)


def test_score_distribution_takes_a_stage_and_leaves_out_empty_classes() -> None:
    (stage,) = ScoreStage.of({"after": ([0.9, 0.8], [0.1, 0.8], [])}, bins=2)
    plot = plots.score_distribution(stage)
    assert {row["kind"] for row in rows(plot, "kind", "share")} == {"positives", "negatives"}
    assert "probability 0.875" in below(plot)
    assert "marked" not in json.dumps(plot.to_dict()["layer"][0]["encoding"]["color"])


def test_scores_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(RivalsError, match="not finite"):
        plots.score_distribution(([1.0, math.nan], [0.0]))
    with pytest.raises(RivalsError, match="no score"):
        plots.score_distribution(([], []))
    with pytest.raises(RivalsError, match="1 classes"):
        plots.score_distribution(([1.0],))  # type: ignore[arg-type]


def test_reliability_shows_filled_bins_with_their_intervals() -> None:
    p = np.array([[0.1]] * 10 + [[0.9]] * 5)
    right = np.array([[1.0]] * 2 + [[0.0]] * 8 + [[1.0]] * 4 + [[0.0]])
    curve = reliability_curve(p, right, outcomes="each", bins=5, probabilities=True)
    drawn = rows(plots.reliability(curve), "stated", "count")
    assert [(row["stated"], row["right"], row["count"]) for row in drawn] == [(0.1, 0.2, 10), (0.9, 0.8, 5)]
    ends = proportion_interval([2, 4], [10, 5])
    assert [row["low"] for row in drawn] == pytest.approx(ends.low, abs=1e-5)
    assert [row["high"] for row in drawn] == pytest.approx(ends.high, abs=1e-5)
    assert below(plots.reliability(curve)) == "15 predictions"


def test_reliability_of_several_models_names_each_with_its_error() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(300, 1))
    right = (generator.random((300, 1)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    reports = {
        name: calibration_report(t * logits, right, outcomes="each") for name, t in (("raw", 3.0), ("cooled", 1.0))
    }
    plot = plots.reliability(reports)
    text = json.dumps(plot.to_dict())
    for name, report in reports.items():
        assert f"{name}: n = 300, calibration error {report.ece:.3f}" in text
        assert sum(row["count"] for row in rows(plot, "stated", "count") if row["system"] == name) == 300


def test_reliability_without_predictions_or_with_too_many_models_is_refused() -> None:
    curve = reliability_curve(np.zeros((0, 1)), np.zeros((0, 1)), outcomes="each", probabilities=True)
    with pytest.raises(RivalsError, match="no bin holds a prediction"):
        plots.reliability(curve)
    full = reliability_curve(np.array([[0.5]]), np.array([[1.0]]), outcomes="each", probabilities=True)
    with pytest.raises(RivalsError, match="9 curves cannot be told apart"):
        plots.reliability({str(i): full for i in range(9)})


# ----------------------------------------------------------------------------------------------------------- landscape


def _bowl() -> tuple[torch.nn.Module, Any]:
    model = torch.nn.Linear(3, 1, bias=False)
    centre = model.weight.detach().clone()
    return model, lambda moved, _: ((moved.weight - centre).square().sum() + 0.5, 1)


def test_loss_curves_of_real_models() -> None:
    model, loss = _bowl()
    direction = random_direction(model, generator=torch.Generator().manual_seed(0))
    curve = loss_curve(model, loss, [0], direction, [-1, 0, 1])
    line = interpolate_models(model, model, loss, [0], [0, 1])
    plot = plots.loss_curves({"bowl": curve, "flat": line}, places={"start": 0, "end": 1}, log=True)
    drawn = [row["loss"] for row in rows(plot, "loss", "system") if row["system"] == "bowl"]
    assert drawn == pytest.approx(list(curve.loss), rel=1e-5)
    assert {row["text"] for row in rows(plot, "text")} == {"start", "end"}
    assert below(plot) == "2 or 3 points a line"


def test_losses_that_are_not_finite_are_left_out_and_counted() -> None:
    plot = plots.loss_curves(LossCurve((0.0, 1.0, 2.0), (1.0, math.inf, 2.0)))
    assert len(rows(plot, "loss")) == 2
    assert "1 of them without a finite loss" in below(plot)
    with pytest.raises(RivalsError, match="no curve has a finite loss"):
        plots.loss_curves(LossCurve((0.0,), (math.nan,)))
    with pytest.raises(RivalsError, match="no logarithm"):
        plots.loss_curves(LossCurve((0.0,), (0.0,)), log=True)


def test_a_surface_shows_every_point_and_a_path() -> None:
    model, loss = _bowl()
    ways = [random_direction(model, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    surface = loss_surface(model, loss, [0], *ways, [-1, 0, 1], [-1, -0.5, 0, 1])
    plot = plots.loss_surface(surface, path=[[0.5, 0.5], [0.2, 0.1], [0, 0]])
    cells = {row["at"]: row["loss"] for row in rows(plot, "at", "loss")}
    assert len(cells) == 12
    assert cells["0, -0.5"] == pytest.approx(surface.loss[1][1], rel=1e-5)
    assert [(row["x"], row["y"]) for row in rows(plot, "order")] == [(0.5, 0.5), (0.2, 0.1), (0, 0)]
    assert f"cosine of the two directions {surface.cosine:.2f}" in below(plot)


def test_contours_lie_where_the_surface_has_the_level() -> None:
    x, y = np.linspace(-1, 1, 41), np.linspace(-1, 1, 31)
    pieces = _contour(x, y, x[:, None] ** 2 + y[None, :] ** 2, 0.5)
    ends = np.array([(a, b) for a, b, _, _ in pieces] + [(c, d) for _, _, c, d in pieces])
    assert len(pieces) > 60
    assert np.hypot(*ends.T) == pytest.approx(np.full(len(ends), math.sqrt(0.5)), abs=2e-3)
    length = sum(math.hypot(a - c, b - d) for a, b, c, d in pieces)
    assert length == pytest.approx(2 * math.pi * math.sqrt(0.5), rel=5e-3)  # closed, and no piece twice


def test_contours_pass_by_holes_and_saddles() -> None:
    x = y = np.array([0.0, 1.0])
    saddle = _contour(x, y, np.array([[1.0, 0.0], [0.0, 1.0]]), 0.5)
    assert len(saddle) == 2
    assert _contour(x, y, np.array([[1.0, math.nan], [0.0, 1.0]]), 0.5) == []
    surface = LossSurface((0.0, 1.0), (0.0, 1.0), ((1.0, math.inf), (2.0, 3.0)), None, 0.0)
    assert "1 points without a finite loss" in below(plots.loss_surface(surface))


@pytest.mark.parametrize(
    ("surface", "options", "message"),
    [
        (LossSurface((0.0,), (0.0, 1.0), ((1.0, 2.0),), None, 0.0), {}, "2 points or more"),
        (LossSurface((0.0, 1.0), (1.0, 0.0), ((1.0, 2.0), (1.0, 2.0)), None, 0.0), {}, "must rise"),
        (LossSurface((0.0, 1.0), (0.0, 1.0), ((math.nan,) * 2,) * 2, None, 0.0), {}, "no finite loss"),
        (LossSurface((0.0, 1.0), (0.0, 1.0), ((0.0, 1.0), (1.0, 2.0)), None, 0.0), {"log": True}, "no logarithm"),
        (
            LossSurface((0.0, 1.0), (0.0, 1.0), ((0.0, 1.0), (1.0, 2.0)), None, 0.0),
            {"path": [1, 2]},
            "the path has shape",
        ),
    ],
)
def test_surfaces_that_cannot_be_drawn_are_refused(surface: LossSurface, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        plots.loss_surface(surface, **options)


# -------------------------------------------------------------------------------------------------------------- ladder


@pytest.fixture(scope="module")
def ladder() -> ScalingLadder:
    law, link = LossLaw(3.0, 5.0, 0.2, 0.25, 0.5), AccuracyLink(-0.75, 1.2, 6.0, 1.0)
    n, d, part = (a.ravel() for a in np.meshgrid([1e8, 4e8, 1e9], [2e9, 1e10, 5e10], [0.5, 1.0], indexing="ij"))
    loss = law.predict(n, d * part)
    runs = {
        "run": np.repeat(np.arange(9), 2),
        "params": n,
        "tokens": d * part,
        "loss": loss,
        "metric": link.predict(loss),
    }
    return ScalingLadder(runs).fit(window=1, skip=0)


def test_a_ladder_draws_runs_fits_and_forecast(ladder: ScalingLadder) -> None:
    plot = plots.scaling_ladder(ladder, target=(7e9, 1e12), seen=(0.9, 0.8), window=1, metric="accuracy")
    ends = rows(plot, "run", "loss")
    assert [row["loss"] for row in ends] == pytest.approx(ladder.loss[1::2].tolist())
    assert len(rows(plot, "size", "metric")) == 18
    marks = {row["what"]: row for row in rows(plot, "what")}
    forecast = ladder.predict(7e9, 1e12)
    assert marks["forecast"]["loss"] == pytest.approx(float(forecast.loss))
    assert marks["forecast"]["metric"] == pytest.approx(float(forecast.metric))
    assert marks["seen"]["metric"] == 0.8
    assert "9 runs of 3 sizes, 18 checkpoints; forecast for 7B parameters and 1T tokens" in below(plot)


def test_the_dots_average_as_many_losses_as_the_fit_did(ladder: ScalingLadder) -> None:
    ends = rows(plots.scaling_ladder(ladder, window=2), "run", "loss")
    assert [row["loss"] for row in ends] == pytest.approx(ladder.loss.reshape(9, 2).mean(1).tolist())


def test_ladders_that_cannot_be_drawn_are_refused(ladder: ScalingLadder) -> None:
    bare = ScalingLadder({name: getattr(ladder, name) for name in ("run", "params", "tokens", "loss", "metric")})
    with pytest.raises(RivalsError, match="call fit"):
        plots.scaling_ladder(bare)
    with pytest.raises(RivalsError, match="belong to a target"):
        plots.scaling_ladder(ladder, seen=(1.0, 0.5))
    with pytest.raises(RivalsError, match="window is 0"):
        plots.scaling_ladder(ladder, window=0)


# -------------------------------------------------------------------------------------------------------------- saving


@pytest.fixture(scope="module")
def every(evaluation: Evaluation, ladder: ScalingLadder) -> dict[str, plots.Plot]:
    curve = reliability_curve(np.array([[0.2], [0.7]]), np.array([[0.0], [1.0]]), outcomes="each", probabilities=True)
    surface = LossSurface((0.0, 1.0), (0.0, 1.0), ((1.0, 10.0), (10.0, 100.0)), None, 0.0)
    return {
        "means": plots.means(evaluation),
        "groups": plots.rank_groups(evaluation),
        "differences": plots.differences(evaluation, HOSTILE, "bm25"),
        "scores": plots.score_distribution(([0.9, 0.8], [0.1, 0.2], [0.7]), title=HOSTILE),
        "reliability": plots.reliability({HOSTILE: curve, "other": curve}),
        "curves": plots.loss_curves({HOSTILE: LossCurve((0.0, 1.0), (1.0, 2.0))}, places={HOSTILE: 0.5}),
        "surface": plots.loss_surface(surface, log=True),
        "ladder": plots.scaling_ladder(ladder, target=(7e9, 1e12), metric=HOSTILE),
    }


def test_every_plot_is_saved_in_every_form(every: dict[str, plots.Plot], tmp_path: Path) -> None:
    for name, plot in every.items():
        assert plot.save(tmp_path / f"{name}.png", scale=1).read_bytes().startswith(b"\x89PNG\r\n")
        assert plot.save(tmp_path / f"{name}.svg").read_text().startswith("<svg")
        assert json.loads(plot.save(tmp_path / f"{name}.json").read_text()) == plot.to_dict()


def test_a_picture_has_an_opaque_background(every: dict[str, plots.Plot], tmp_path: Path) -> None:
    assert re.search(r'<rect[^>]*fill="#fffffe"', every["means"].save(tmp_path / "a.svg").read_text())


def test_a_page_asks_nothing_of_a_network_and_keeps_names_as_text(every: dict[str, plots.Plot]) -> None:
    for plot in every.values():
        page = plot.to_html()
        assert "default-src 'none'" in page
        assert HOSTILE not in page
        bare = re.sub(r"<script.*?</script>", "", page, flags=re.S)
        assert not re.search(r"(src|href)=\"(?!data:)|url\(", bare)


def test_a_page_follows_the_dark(every: dict[str, plots.Plot]) -> None:
    page = every["means"].to_html()
    assert "var(--ink, #1b1f24)" in page
    assert "prefers-color-scheme: dark" in page


def test_names_that_say_no_form_and_bad_scales_are_refused(every: dict[str, plots.Plot], tmp_path: Path) -> None:
    with pytest.raises(RivalsError, match=r"'a\.gif' must end with \.html, \.json, \.png or \.svg"):
        every["means"].save(tmp_path / "a.gif")
    with pytest.raises(RivalsError, match="scale is 0"):
        every["means"].save(tmp_path / "a.png", scale=0)
    assert list(tmp_path.iterdir()) == []


def test_pages_need_no_vl_convert_and_pictures_say_what_they_need(
    every: dict[str, plots.Plot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert every["means"].save(tmp_path / "a.html").exists()
    with pytest.raises(RivalsError, match=r"pip install 'rivals\[plots\]'"):
        every["means"].save(tmp_path / "a.png")


def test_a_browser_draws_every_page_without_a_network(every: dict[str, plots.Plot], tmp_path: Path) -> None:
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        reason = "no Chromium: install it (Debian: apt-get install chromium) to test how plots are drawn"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    for name in ("groups", "differences", "reliability", "surface"):
        page = every[name].save(tmp_path / f"{name}.html")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom"]
        done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
        assert re.search(r'data-chart="plot" class="vega-embed[^"]* drawn"', done.stdout), name
        assert "<svg" in done.stdout
        assert "<title>broken" not in done.stdout
