"""Figures as Vega draws them: places, scales, legends, colours, and files without a browser."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from merit_jax.reporting.bars import Entry, bars, dots
from merit_jax.reporting.figures import WIDTH, Axis, distinct, png, scale, shortened, specification, svg
from merit_jax.reporting.matrix import full_colour, heat_map, pooled
from merit_jax.reporting.series import MOST_VERTICES, Curve, Series, contours, plot
from merit_jax.reporting.theme import DARK, LIGHT, SHAPES, css, look, with_variables

SVG = "{http://www.w3.org/2000/svg}"
POINTS = Series("both", [1.0, 3.0], [10.0, 20.0], ["one", "<two>"], 2)
X, Y = Axis("x"), Axis("y")


def drawn(chart):
    return ElementTree.fromstring(svg(chart))


def groups(root, kind):
    """The elements of class `kind`, which hold marks, labels or parts of a legend."""
    return [group for group in root.iter(f"{SVG}g") if kind in group.get("class", "").split()]


def marks(root, kind="mark-symbol"):
    return [mark for group in groups(root, kind) if "role-mark" in group.get("class") for mark in group]


def place(element):
    return tuple(float(value) for value in re.match(r"translate\(([^,]+),([^)]+)\)", element.get("transform")).groups())


def tick_labels(root, axis):
    """Text -> place along axis 0 (x) or 1 (y)."""
    labels = groups(root, "role-axis-label")[axis]
    return {label.text.replace("−", "-").replace(",", ""): place(label)[axis] for label in labels}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.37, 0.42), (3, 4711), (1e-7, 3e-7), (12.001, 12.002)])
def test_ticks_are_round_evenly_spaced_and_inside(low, high):
    root = drawn(plot([POINTS._replace(x=[low, high])], X, Y))
    found = [float(text) for text in tick_labels(root, 0)]
    steps = np.diff(found)
    start, end = scale(X, [low, high]).domain
    assert 2 <= len(found) <= 7
    assert start <= found[0]
    assert found[-1] <= end
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten_and_ratios_are_distances():
    root = drawn(plot([POINTS._replace(x=[0.5, 2e4])], Axis("x", log=True), Y))
    found = tick_labels(root, 0)
    assert list(map(float, found)) == [1, 10, 100, 1000, 10000]
    assert np.allclose(np.diff(list(found.values())), np.diff(list(found.values()))[0], atol=1)


@pytest.mark.parametrize(("high", "text"), [(0.5, "0.2"), (3000, "1,000"), (1, "0.4"), (40, "10"), (2.2, "1.5")])
def test_numbers_are_written_shortly(high, text):
    labels = groups(drawn(plot([POINTS._replace(x=[0, high])], X, Y)), "role-axis-label")[0]
    assert text in {label.text for label in labels}


def test_a_value_that_is_not_positive_has_no_place_on_a_logarithmic_axis():
    points = Series("a", [-1.0, 0.0, 1.0, 10.0], [1.0, 2.0, 3.0, 4.0], list("abcd"))
    root = drawn(plot([points], Axis("x", log=True), Y))
    assert [mark.get("aria-label") for mark in marks(root)] == ["c", "d"]


def test_an_axis_without_spread_still_has_room():
    low, high = scale(X, [5.0, 5.0, float("nan")]).domain
    assert low < 5 < high


def test_an_axis_shows_what_it_must_and_no_value_is_left_out():
    assert scale(Axis("x", low=0), [1.0, 2.0]).domain[0] == 0
    assert scale(Axis("x", low=0), [-1.0, 2.0]).domain[0] == -1
    assert scale(Axis("x", high=1), [0.5, 0.7]).domain[1] == 1
    assert scale(Axis("x", log=True), [-1.0, 0.1, 10.0]).domain[0] > 0


def test_error_bars_have_room():
    root = drawn(dots([Entry("a", 1.0, "", error=0.5), Entry("b", 3.0, "", error=1.0)], "x", height=200))
    found = tick_labels(root, 0)
    for error, (low, high) in zip(marks(root, "mark-rule"), ((0.5, 1.5), (2.0, 4.0)), strict=True):
        ends = sorted((place(error)[0], place(error)[0] + float(error.get("x2"))))
        slope, start = np.polyfit([float(text) for text in found], list(found.values()), 1)
        assert ends == [pytest.approx(slope * value + start, abs=1) for value in (low, high)]


def test_a_long_name_keeps_the_end_that_tells_it_apart():
    names = {shortened(f"a_very_long_family_of_tasks_{i}") for i in range(10)}
    assert len(names) == 10
    assert max(map(len, names)) <= 24


def test_equal_names_have_rows_of_their_own():
    assert len(set(distinct(["a", "b", "a", "a"]))) == 4
    root = drawn(
        bars([Entry("same", 1.0, "1"), Entry("same", 2.0, "2"), Entry("other", float("nan"), "")], "n", height=200)
    )
    assert len(marks(root, "mark-rect")) == 2
    assert len(groups(root, "role-axis-label")[1]) == 3


def test_groups_differ_in_colour_or_shape():
    assert len({look(index) for index in range(32)}) == 32
    assert all(look(i)[0] != look(i + 1)[0] and look(i)[1] != look(i + 1)[1] for i in range(7))


def test_contours_of_a_cone_are_closed_circles():
    x = np.linspace(-2, 2, 41)
    z = np.hypot(x[None], x[:, None])
    ((line, strength),) = contours(x, x, z, [1.03 / z.max()], [0.5])
    assert strength == 0.5
    assert np.allclose(np.hypot(*line.T), 1.03, atol=0.01)
    assert np.array_equal(line[0], line[-1])
    assert np.hypot(*np.diff(line, axis=0).T).sum() == pytest.approx(2 * np.pi * 1.03, rel=0.01)


def test_a_level_that_is_nowhere_has_no_contour_and_lines_end_where_there_is_no_height():
    x = np.arange(3.0)
    assert contours(x, x, np.array([[0.0, 1, 2]] * 3), [1.5], [1]) == []
    heights = np.array([[0.0, 1, 2]] * 3)
    heights[2, 2] = np.nan
    ((line, _),) = contours(x, x, heights, [0.75], [1])
    assert np.array_equal(np.unique(line[:, 1]), [0, 1])


def test_points_lie_where_the_axes_say_and_say_their_names():
    root = drawn(plot([POINTS], X, Y))
    ticks = tick_labels(root, 0)
    assert [place(mark)[0] for mark in marks(root)] == [pytest.approx(ticks[text], abs=1) for text in ("1.0", "3.0")]
    assert [mark.get("aria-label") for mark in marks(root)] == ["one", "<two>"]


def test_a_line_is_broken_where_it_has_no_value():
    line = Series("a", [0, 1, 2, 3, 4], [1, 2, float("nan"), 2, 1], line=True)
    (path,) = marks(drawn(plot([line], X, Y)), "mark-line")
    assert path.get("d").count("M") == 2
    assert "NaN" not in path.get("d")


def test_a_line_keeps_its_order_though_it_runs_back():
    (path,) = marks(drawn(plot([Series("a", [0, 2, 1], [0, 1, 2], line=True)], X, Y)), "mark-line")
    x = [float(value) for value in re.findall(r"[ML]([\d.]+),", path.get("d"))]
    assert x[0] < x[2] < x[1]


def test_the_legend_names_every_listed_series_and_fits():
    series = [POINTS._replace(label=f"a rather long label of mark {i}") for i in range(9)]
    root = drawn(plot([*series, POINTS._replace(label="unlisted", listed=False)], X, Y))
    (legend,) = groups(root, "role-legend-entry")
    assert [label.text for label in legend.iter(f"{SVG}text")] == [one.label for one in series]
    columns = [place(entry)[0] for entry in next(legend.iter(f"{SVG}g")).iter(f"{SVG}g") if entry.get("transform")]
    assert max(columns) + 28 + 5.9 * len(series[0].label) <= WIDTH


def test_the_legend_switches_series():
    spec = specification(plot([POINTS, POINTS._replace(label="other")], X, Y))
    (pick,) = spec["params"]
    assert (pick["bind"], pick["select"]["fields"]) == ("legend", ["series"])
    (layer,) = spec["layer"]
    (condition,) = layer["encoding"]["opacity"]["condition"]
    assert condition == {"param": pick["name"], "value": 1}
    assert layer["encoding"]["opacity"]["value"] < 0.2
    assert "params" not in specification(plot([POINTS._replace(listed=False)], X, Y))


def test_a_long_line_is_not_marked_and_its_legend_shows_a_line():
    n = MOST_VERTICES + 1
    lines = [Series("a", range(n), range(n), line=True, dashed=dashed) for dashed in (False, True)]
    root = drawn(plot(lines, X, Y))
    assert marks(root) == []
    assert len(marks(root, "mark-line")) == 2
    symbols = specification(plot(lines, X, Y))["layer"][-1]["encoding"]["shape"]["scale"]["range"]
    assert symbols == [SHAPES["line"], SHAPES["dashes"]]


def test_cells_are_blue_below_zero_orange_above_and_the_papers_colour_at_zero():
    values = np.array([[1, 0, -0.2], [0, 1, 0.1], [-0.2, 0.1, 1]])
    cells = {
        mark.get("aria-label"): mark.get("fill")
        for mark in marks(drawn(heat_map(values, ["a", "b", "c"])), "mark-rect")
    }
    colours = {name: re.findall(r"[\d.]+", fill) for name, fill in cells.items()}
    assert len(cells) == 9
    assert colours["a"] == ["213", "94", "0"]
    assert float(colours["a\nb\n0.00"][3]) == 0
    assert colours["a\nc\n−0.20"][:3] == ["0", "114", "178"]
    assert colours["c\nb\n0.10"][:3] == ["213", "94", "0"]
    assert float(colours["c\nb\n0.10"][3]) == pytest.approx(0.1 / full_colour(values), abs=1e-3)


def test_a_matrix_marks_its_groups():
    root = drawn(heat_map(np.eye(4), ("a", "b", "c", "d"), (0, 0, 1, 2)))
    strips = [mark for mark in marks(root, "mark-rect") if mark.get("fill").startswith("#")]
    sizes = [tuple(float(value) for value in re.findall(r"[hv]([\d.]+)", strip.get("d"))) for strip in strips]
    assert sizes == [(200, 5), (100, 5), (100, 5), (5, 200), (5, 100), (5, 100)]
    assert [strip.get("fill") for strip in strips] == 2 * [LIGHT[f"c{group}"] for group in range(3)]
    assert [text.text for text in marks(root, "mark-text")] == 2 * ["0", "1", "2"]


def test_a_matrix_of_many_rows_shows_the_means_of_neighbours():
    values = np.arange(36.0).reshape(6, 6)
    found, names, kept = pooled(values, list("abcdef"), [0, 0, 0, 1, 1, 1], most=3)
    assert found[1, 2] == values[2:4, 4:6].mean()
    assert (names, kept) == (["a … b", "c … d", "e … f"], [0, 0, 1])
    assert len(marks(drawn(heat_map(np.eye(301), [str(i) for i in range(301)])), "mark-rect")) == 101**2


def test_the_page_takes_colours_from_its_style_and_leaves_data_alone():
    spec = with_variables(specification(plot([POINTS._replace(label=LIGHT["c2"], colour=2)], X, Y)))
    colour = spec["layer"][0]["encoding"]["color"]
    assert colour["scale"] == {"domain": [LIGHT["c2"]], "range": ["var(--c2)"]}
    assert colour["legend"]["values"] == [LIGHT["c2"]]
    assert spec["data"]["values"][0]["series"] == LIGHT["c2"]
    assert DARK.keys() == LIGHT.keys()
    assert all(css().count(f"--{name}: ") == 2 for name in LIGHT)


def test_no_other_file_names_a_colour():
    root = Path(__file__).parents[2]
    files = [*(root / "merit_jax").rglob("*.py"), *(root / "launch").rglob("*.py"), *(root / "docs").glob("*.py")]
    coloured = {path.name for path in files if re.search(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\"", path.read_text())}
    assert coloured == {"theme.py"}


def test_files_are_drawn_from_the_same_description_and_have_the_title():
    entries = [Entry("$a_b^c$", 1.0, "$"), Entry("b", 2.0, "2", "muted", error=0.1)]
    curve = Curve(np.array([[1.0, 1.0], [9.0, 2.0]]), 0.5)
    log = plot([Series("l", [1, 100], [1, 2], line=True)], Axis("x", log=True), Y, curves=[curve])
    rows = bars(entries, "n", height=150), dots(entries, "n", height=150)
    for chart in (plot([POINTS], X, Y), *rows, log, heat_map(np.eye(4) - 0.3, ("a",) * 4, (0, 0, 1, 1))):
        drawing = svg(chart, "A & B $x_")
        root = ElementTree.fromstring(drawing)
        assert root.tag == f"{SVG}svg"
        assert "A & B $x_" in [text.text for text in root.iter(f"{SVG}text")]
        assert root.find(f"{SVG}rect").get("fill") == LIGHT["paper"]
        with Image.open(io.BytesIO(png(drawing))) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_control_characters_of_names_are_written_out_in_the_drawing():
    names = ["a\x00b", "a\x1b[31m"]
    drawing = svg(plot([Series("x\x07", [1.0, 2.0], [1.0, 2.0], names, 1)], X, Y))
    assert ElementTree.fromstring(drawing) is not None
    assert not re.search("[\x00-\x08\x0b-\x1f]", drawing)
    assert all(shown in drawing for shown in (r"a\x00b", r"a\x1b[31m"))


def test_the_lines_of_a_tip_stay_lines():
    spec = specification(plot([Series("x", [1.0, 2.0], [1.0, 2.0], ["a\nb", "c"], 1)], X, Y))
    data = spec.get("data") or spec["layer"][0]["data"]
    assert data["values"][0]["tip"] == ["a\nb", "c"]
