"""The report of a run that tries to break it, of a half-finished one, and of a real one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest
from etils import epath

from merit_jax.reporting import page
from merit_jax.reporting.labels import means
from merit_jax.reporting.page import write_report
from merit_jax.reporting.run_data import DIAGNOSTICS, read_artifacts
from merit_jax.reporting.sections.summary import summary, verdicts
from merit_jax.workdir.paths import Workdir
from tests.launch.test_commands import commands
from tests.support import example_workdir

FIGURES = {
    *(
        "scores",
        "retained",
        "skill",
        "frontier",
        "conflict",
        "axes12",
        "axes13",
        "tsne",
        "spectrum",
        "tokens",
        "weights",
    ),
    *(
        "training_loss",
        "training_gradient_norm",
        "connectivity",
        "perturbation",
        "surface",
        "displacement",
        "trajectory",
    ),
    *("gain", "splits", "calibration", "hessian", "times"),
}


class Reader(HTMLParser):
    """Collects the elements of a page and its text."""

    def __init__(self):
        super().__init__()
        self.elements, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    return reader


def report(root, monkeypatch):
    """The page, without the PNG files, which take longest."""
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    path = epath.Path(root)
    return write_report(Workdir(path, path), "runs/<mine>").read_text()


def workdir(root):
    path = epath.Path(root)
    return Workdir(path, path)


@pytest.fixture
def written(tmp_path):
    return example_workdir.write(tmp_path / "run")


def test_every_figure_is_on_the_page_and_a_well_formed_file(written, monkeypatch):
    reader = read(report(written, monkeypatch))
    shown = {attrs["id"].removeprefix("figure-") for tag, attrs in reader.elements if tag == "figure" and "id" in attrs}
    assert shown == FIGURES
    assert {path.stem for path in (written / "figures").glob("*.svg")} == FIGURES
    for path in (written / "figures").glob("*.svg"):
        ElementTree.parse(path)


def test_names_cannot_become_elements(written, monkeypatch):
    html = report(written, monkeypatch)
    reader = read(html)
    kinds = [attrs.get("type", "") for tag, attrs in reader.elements if tag == "script"]
    assert kinds == ["application/json", ""]
    assert example_workdir.HOSTILE not in html
    assert example_workdir.HOSTILE in "".join(reader.text)
    assert not [attrs for _, attrs in reader.elements if any(name.startswith("on") for name in attrs)]


def test_the_page_loads_nothing(written, monkeypatch):
    html = report(written, monkeypatch)
    reader = read(html)
    places = [
        v for _, attrs in reader.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href", "srcset")
    ]
    assert all(place.startswith(("#", "data:image/png")) for place in places)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|https?://(?!www\.w3\.org)", html)


def test_the_first_section_says_what_came_out(written):
    artifacts = read_artifacts(workdir(written), "runs/mine")
    text = " ".join(getattr(part, "text", "") for part in summary(artifacts).parts)
    assert "8 datasets with 400 examples and 4,000 supervised tokens, divided over 4 branches by median_split" in text
    sentences = list(verdicts(artifacts))
    assert sentences[0].startswith("Mean of 3 suites: the merged model gets 50.0 %")
    assert "it is highest; next is random4 (seed=1) with 40.0 %" in sentences[0]


def test_errors_are_those_of_proportions(written):
    scores = means(read_artifacts(workdir(written), "run"))
    assert scores["retained: describe"]["joint"] == pytest.approx((30, 100 * (0.3 * 0.7 / 50) ** 0.5))
    both = (0.3 * 0.7 / 80 + 0.3 * 0.7 / 40) ** 0.5 / 2
    assert scores["skill: short_answer, ocr"]["joint"] == pytest.approx((30, 100 * both))


def test_what_is_missing_names_the_command_that_makes_it(tmp_path, monkeypatch):
    root = example_workdir.write(tmp_path / "run", diagnostics=False)
    text = "".join(read(report(root, monkeypatch)).text)
    for name in set(DIAGNOSTICS):
        assert f"python -m launch.diagnose --workdir=runs/<mine> --only={name}" in text
    for name in (
        "conflict.npz",
        "partition.json",
        "merged",
        "evaluation.json",
        "frontier.json",
        "times.json",
        "config.json",
    ):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = "".join(read(report(root, monkeypatch)).text)
    for stages in ("mixture,gradients,conflict", "partition", "train", "export"):
        assert f"python -m launch.run --config=CONFIG --workdir=runs/<mine> --stages={stages}\n" in text.replace(
            "Versions", "\n"
        )


def test_a_folder_without_a_run_and_a_damaged_file_are_refused(tmp_path, written):
    with pytest.raises(ValueError, match=r"holds no run: expected mixture\.json"):
        write_report(workdir(tmp_path), "here")
    (written / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is not valid JSON"):
        write_report(workdir(written), "here")


def test_a_real_run_is_reported(finished, tmp_path, monkeypatch):
    root = tmp_path / "run"
    shutil.copytree(finished.workdir.root, root)
    reader = read(report(root, monkeypatch))
    text = "".join(reader.text)
    assert all(name in text for name in finished.names)
    shown = {attrs["id"] for tag, attrs in reader.elements if tag == "figure" and "id" in attrs}
    assert {"figure-conflict", "figure-axes12", "figure-scores", "figure-training_loss", "figure-weights"} <= shown


def test_the_command_says_where_the_page_is_and_what_is_wrong(written, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(written / "partition.json", half)
    good, bad = commands(tmp_path, "report", [[f"--workdir={half}"], [f"--workdir={tmp_path}/absent"]])
    assert good[0] == 0, good[2]
    assert f"Report: {half}/report.html" in good[1].replace("\n", "")
    assert "branch 3" in (half / "report.html").read_text()
    drawn = {path.name for path in (half / "figures").iterdir()}
    assert drawn == ({"tokens.svg", "tokens.png"} if find_spec("matplotlib") else {"tokens.svg"})
    assert bad[0] == 1
    assert "no such directory" in bad[2]


PROBE = """<script>
const press = (svg, key) => svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const tip = document.getElementById("tip");
const said = (id, ...keys) => {
  const svg = document.querySelector(`#figure-${id} svg`);
  keys.forEach((key) => press(svg, key));
  return tip.textContent;
};
document.body.dataset.point = said("scores", "ArrowRight", "ArrowRight");
document.body.dataset.cell = said("conflict", "ArrowRight", "ArrowRight");
press(document.querySelector("#figure-conflict svg"), "Escape");
document.body.dataset.hidden = tip.hidden;
const flat = [...document.querySelectorAll("figure.plot svg")].filter((svg) => svg.getBoundingClientRect().height < 80);
document.body.dataset.flat = flat.length;
document.body.dataset.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
</script>"""


def test_a_browser_shows_every_figure_without_an_error_and_the_keyboard_walks_through_them(
    written, tmp_path, monkeypatch
):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    html = report(written, monkeypatch)
    probed = tmp_path / "probed.html"
    probed.write_text(html.replace("</body>", PROBE + "</body>"))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=390,900"]
    command = [browser, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{probed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    reader = read(done.stdout)
    (body,) = [attrs for tag, attrs in reader.elements if tag == "body"]
    assert body["data-point"].startswith("joint: 30.0")
    assert body["data-cell"].count("\n") == 2
    assert (body["data-hidden"], body["data-flat"], body["data-wide"]) == ("true", "0", "0")
    marks = [attrs for _, attrs in reader.elements if "mark" in (attrs.get("class") or "").split()]
    assert len(marks) > 100
    assert all(mark.get("aria-label") for mark in marks)
