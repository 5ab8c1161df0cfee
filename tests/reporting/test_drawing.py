"""From numbers to marks: scales, contours, density, embedding, cells, SVG and PNG."""

import base64
import io
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from etils import epath
from PIL import Image
from scipy import stats

from merit_jax.reporting import cells
from merit_jax.reporting.contours import density, segments
from merit_jax.reporting.figures import Axis, Bars, Chart, Contour, Line, Matrix, Points, look
from merit_jax.reporting.scales import Scale, extents, number, span, ticks
from merit_jax.reporting.svg import WIDTH, draw, draw_matrix, legend_lines, shortened, standalone
from merit_jax.reporting.tsne import embed

POINTS = Points([1.0, 3.0], [10.0, 20.0], ["one", "<two>"], 2, "both", error=[0.5, 1.0])
CHART = Chart("name", "A & B", Axis("x"), Axis("y"), (POINTS,))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.37, 0.42), (3, 4711), (1e-7, 3e-7), (12.001, 12.002)])
def test_ticks_are_round_evenly_spaced_and_inside(low, high):
    found = ticks(low, high)
    steps = np.diff(found)
    assert 2 <= len(found) <= 7
    assert low - 1e-9 <= found[0]
    assert found[-1] <= high + 1e-9
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten():
    assert ticks(0.5, 2e4, log=True) == [1, 10, 100, 1000, 10000]


def test_a_scale_maps_its_ends_and_a_logarithmic_one_maps_ratios():
    linear, logarithmic = Scale(2, 6, 100, 300), Scale(1, 100, 0, 200, log=True)
    assert [linear(2), linear(3), linear(6)] == [100, 150, 300]
    assert logarithmic(10) == pytest.approx(100)


def test_an_axis_without_spread_still_has_room():
    low, high = span(Axis("x"), [5.0, 5.0, float("nan")])
    assert low < 5 < high


def test_error_bars_have_room():
    assert extents(CHART)[0][0] < 0.5
    assert extents(CHART)[0][1] > 4


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.25, "0.25"), (1234, "1,234"), (3e-5, "3e-05"), (1.0, "1")])
def test_numbers_are_written_shortly(value, text):
    assert number(value) == text


def test_a_long_name_keeps_the_end_that_tells_it_apart():
    names = {shortened(f"a_very_long_family_of_tasks_{i}") for i in range(10)}
    assert len(names) == 10
    assert max(map(len, names)) <= 24


def test_groups_differ_in_colour_or_shape():
    assert len({look(index) for index in range(32)}) == 32
    assert all(look(i)[0] != look(i + 1)[0] and look(i)[1] != look(i + 1)[1] for i in range(7))


def test_contours_of_a_cone_are_closed_circles():
    x = np.linspace(-2, 2, 41)
    found = segments(x, x, np.hypot(x[None], x[:, None]), 1.03)
    ends = found.reshape(-1, 2)
    assert np.allclose(np.hypot(*ends.T), 1.03, atol=0.01)
    assert set(Counter(map(tuple, ends.round(9))).values()) == {2}
    assert np.hypot(*(found[:, 2:] - found[:, :2]).T).sum() == pytest.approx(2 * np.pi * 1.03, rel=0.01)


def test_a_level_that_is_nowhere_has_no_contour():
    x = np.arange(3.0)
    assert segments(x, x, np.ones((3, 3)), 2.0).shape == (0, 4)


def test_density_is_the_sum_of_gaussians_and_integrates_to_one():
    points = np.random.default_rng(0).normal(size=(12, 2)) * [1, 3]
    x, y = np.linspace(-8, 8, 81), np.linspace(-24, 24, 81)
    found = density(points, x, y)
    width = points.std(axis=0) * 12 ** (-1 / 6)
    expected = stats.norm.pdf([x[30], y[50]], points, width).prod(axis=1).mean()
    assert found[50, 30] == pytest.approx(expected)
    assert found.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1, rel=1e-3)


def test_the_embedding_keeps_clusters_apart_and_is_the_same_every_time():
    rng = np.random.default_rng(1)
    centres = np.repeat(np.eye(8)[:2], 6, axis=0)
    units = centres + 0.1 * rng.normal(size=(12, 8))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    start = rng.normal(size=(12, 2))
    places = embed(units @ units.T, start)
    assert np.array_equal(places, embed(units @ units.T, start))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    same = np.equal.outer(np.arange(12) // 6, np.arange(12) // 6)
    assert apart[same].max() < apart[~same].min()


def test_cells_are_blue_below_zero_orange_above_and_the_papers_colour_at_zero():
    values = np.array([[1, 0, -0.2], [0, 1, 0.1], [-0.2, 0.1, 1]])
    painted = cells.paint(values)
    assert painted[0, 1, 3] == 0
    assert painted[0, 2, 3] > painted[1, 2, 3] > 0
    assert tuple(painted[0, 2, :3]) == cells.NEGATIVE
    assert tuple(painted[1, 2, :3]) == cells.POSITIVE
    picture = Image.open(io.BytesIO(base64.b64decode(cells.data_uri(painted).partition(",")[2])))
    assert np.array_equal(np.asarray(picture.convert("RGBA"))[..., 3], painted[..., 3])
    unpacked = np.frombuffer(base64.b64decode(cells.packed(values)), np.int8).reshape(3, 3)
    assert np.array_equal(unpacked, np.rint(100 * values))


def test_points_lie_where_the_axes_say_and_say_their_names():
    root = ElementTree.fromstring(draw(CHART))
    ticks_of = {text.text: float(text.get("x")) for text in root.iter("text") if text.get("class") == "tick"}
    marks = [mark for mark in root.iter("path") if "mark" in mark.get("class")]
    at = [float(re.match(r"translate\((\S+)", mark.get("transform"))[1]) for mark in marks]
    assert at == [pytest.approx(ticks_of["1"], abs=0.1), pytest.approx(ticks_of["3"], abs=0.1)]
    assert [mark.find("title").text for mark in marks] == ["one", "<two>"]


def test_a_line_is_broken_where_it_has_no_value():
    chart = CHART._replace(marks=(Line([0, 1, 2, 3, 4], [1, 2, float("nan"), 2, 1]),))
    (line,) = re.findall(r'class="line[^>]* d="([^"]+)"', draw(chart))
    assert line.count("M") == 2
    assert "nan" not in draw(chart)


def test_the_legend_names_every_labelled_mark_and_fits():
    marks = tuple(POINTS._replace(label=f"a rather long label of mark {i}") for i in range(9))
    lines = legend_lines(CHART._replace(marks=marks))
    assert [entry.label for line in lines for entry in line] == [mark.label for mark in marks]
    assert all(sum(28 + 5.9 * len(entry.label) for entry in line) <= WIDTH for line in lines)


def test_a_figure_alone_is_well_formed_and_has_its_style_and_title():
    root = ElementTree.fromstring(standalone(draw(CHART), "A & B"))
    texts = ["".join(element.itertext()) for element in root]
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "A & B" in texts
    assert any("--c0" in text for text in texts)


def test_a_matrix_marks_its_groups():
    matrix = Matrix("m", "M", np.eye(4), ("a", "b", "c", "d"), (0, 0, 1, 2))
    drawn = draw_matrix(matrix, "data:image/png;base64,")
    ElementTree.fromstring(drawn)
    heights = [float(h) for h in re.findall(r'class="strip c-\d" x="23" y="\S+" width="5" height="(\S+)"', drawn)]
    assert heights == [199, 99, 99]


def test_pictures_are_drawn_from_the_same_description(tmp_path):
    pytest.importorskip("matplotlib")
    from merit_jax.reporting.picture import save_png

    bars = Chart("b", "$x_", Axis("n"), Axis("", names=("$a_b^c$", "b")), (Bars([1, 2], ["$", "2"], [0, "muted"]),))
    lines = Chart(
        "c", "log", Axis("x", log=True), Axis("y"), (Line([1, 100], [1, 2]), Contour(np.array([[1, 1, 9, 2]])))
    )
    for figure in (CHART, bars, lines, Matrix("m", "M", np.eye(4) - 0.3, ("a",) * 4, (0, 0, 1, 1))):
        path = epath.Path(tmp_path / f"{figure.name}.png")
        save_png(figure, path)
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
