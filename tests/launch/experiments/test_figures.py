"""The drawing of frontiers, where matplotlib is installed."""

import json

import pytest
from PIL import Image

from launch.experiments.figures import draw_frontier, plot_frontier, plot_panels
from merit_jax.workdir.paths import Workdir

BASE = (0.0, 0.8, 0.3)
LINES = {"joint": [BASE, (0.5, 0.7, 0.4), (1.0, 0.5, 0.6)], "merged": [BASE, (0.5, 0.8, 0.35), (1.0, 0.75, 0.4)]}


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(tmp_path, tmp_path)


def write(workdir):
    models = {"theta0": {"points": [BASE]}} | {name: {"points": points} for name, points in LINES.items()}
    workdir.frontier.write_text(json.dumps({"inputs": {"frontier": {"retention": 0.95}}, "models": models}))


def test_a_frontier_is_drawn_beside_its_file(workdir):
    pytest.importorskip("matplotlib")
    write(workdir)
    path = draw_frontier(workdir)
    assert path == workdir.frontier.with_suffix(".png")
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_line_a_method_with_a_large_dot_where_it_is_not_scaled():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.add_subplot()
    plot_frontier(axes, BASE, LINES, retention=0.95)
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    for points in LINES.values():
        drawn = [[pytest.approx(100 * retained), pytest.approx(100 * skill)] for _, retained, skill in points]
        assert drawn in lines
        assert [drawn[-1]] in lines
    assert axes.get_legend_handles_labels()[1] == ["joint", "merged", "theta0"]


def test_of_many_methods_each_has_a_panel_beside_joint_training():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    many = {**LINES, **{f"random{k} (3 runs)": LINES["merged"] for k in range(2, 11)}}
    plot_panels(figure, BASE, many, retention=0.95)
    shown = {axes.get_title(): axes for axes in figure.get_axes() if axes.get_visible()}
    assert list(shown) == list(many)
    for label, axes in shown.items():
        drawn = [line.get_xydata().tolist() for line in axes.get_lines()]
        for points in (many[label], many["joint"]):
            assert [
                [pytest.approx(100 * retained), pytest.approx(100 * skill)] for _, retained, skill in points
            ] in drawn


def test_without_a_frontier_nothing_is_drawn(workdir):
    assert draw_frontier(workdir) is None


def test_without_matplotlib_the_log_says_what_to_install(workdir, monkeypatch, caplog):
    write(workdir)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level("INFO", "merit_jax"):
        assert draw_frontier(workdir) is None
    assert "merit-jax[figures]" in caplog.text
