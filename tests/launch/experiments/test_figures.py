"""The drawing of frontiers: what is in the charts, and the files."""

import json

import pytest
from PIL import Image

from merit_jax.launch.experiments.figures import draw_frontier, frontiers
from merit_jax.reporting.figures import specification
from merit_jax.workdir.paths import Workdir

BASE = (0.0, 0.8, 0.3)
LINES = {"joint": [BASE, (0.5, 0.7, 0.4), (1.0, 0.5, 0.6)], "merged": [BASE, (0.5, 0.8, 0.35), (1.0, 0.75, 0.4)]}


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(tmp_path, tmp_path)


def write(workdir):
    other = {"choosing": [], "kept": {}}
    models = {name: {"points": points, **other} for name, points in {"theta0": [BASE], **LINES}.items()}
    workdir.frontier.write_text(json.dumps({"inputs": {"frontier": {"retention": 0.95}}, "models": models}))


def series(panel):
    """Label -> row of data of each series of a panel."""
    (rows,) = {json.dumps(layer["data"]["values"]): layer["data"]["values"] for layer in panel["layer"][2:]}.values()
    return {row["series"]: row for row in rows}


def close(row, points):
    return [list(pair) for pair in zip(row["x"], row["y"], strict=True)] == [
        [pytest.approx(100 * retained), pytest.approx(100 * skill)] for _, retained, skill in points
    ]


def test_a_frontier_is_drawn_beside_its_file(workdir):
    write(workdir)
    path = draw_frontier(workdir)
    assert path == workdir.frontier.with_suffix(".png")
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_line_a_method_with_a_large_dot_where_it_is_not_scaled():
    spec = specification(frontiers(BASE, LINES, retention=0.95))
    drawn = series(spec)
    assert list(drawn) == ["joint", "merged", "theta0"]
    for label, points in LINES.items():
        assert drawn[label]["line"]
        assert close(drawn[label], points)
        small, other, large = drawn[label]["size"]
        assert small == other < large / 3
    assert close(drawn["theta0"], [BASE])
    assert spec["layer"][-1]["encoding"]["shape"]["legend"]["values"] == ["joint", "merged", "theta0"]
    assert spec["layer"][0]["data"]["values"][0] == {
        "low": 0,
        "high": pytest.approx(76),
        "label": "less than 95 % retained",
    }


@pytest.mark.parametrize("methods", [2, 11])
def test_the_picture_says_which_half_is_drawn_and_which_chooses(methods):
    spec = specification(frontiers(BASE, {f"random{k}": LINES["merged"] for k in range(methods)}, retention=0.95))
    said = ["Scores are of the reporting half of each suite; scales are chosen on the other half."]
    assert spec["title"]["subtitle"] == said


def test_of_many_methods_each_has_a_panel_beside_joint_training():
    many = {**LINES, **{f"random{k} (3 runs)": LINES["merged"] for k in range(2, 11)}}
    spec = specification(frontiers(BASE, many, retention=0.95))
    shown = {panel["title"]["text"]: series(panel) for panel in spec["concat"]}
    assert list(shown) == list(many)
    for label, drawn in shown.items():
        for points in (many[label], many["joint"]):
            assert any(close(row, points) for row in drawn.values())
    scales = {json.dumps(panel["layer"][-1]["encoding"][axis]["scale"]) for panel in spec["concat"] for axis in "xy"}
    assert len(scales) == 2


def test_without_a_frontier_nothing_is_drawn(workdir):
    assert draw_frontier(workdir) is None


def test_without_the_extra_the_log_says_what_to_install(workdir, monkeypatch, caplog):
    write(workdir)
    monkeypatch.setattr("merit_jax.reporting.figures.find_spec", lambda name: None)
    with caplog.at_level("INFO", "merit_jax"):
        assert draw_frontier(workdir) is None
    assert "merit-jax[figures]" in caplog.text
