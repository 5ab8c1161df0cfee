"""The report of a run that tries to break it, of a half-finished one, and of a real one."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest
from etils import epath

from merit_jax.pipeline import run_diagnostics
from merit_jax.reporting import page
from merit_jax.reporting.blocks import Table, Tiles
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.labels import means
from merit_jax.reporting.page import write_report
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections.evaluation import evaluation
from merit_jax.reporting.sections.gain import gain
from merit_jax.reporting.sections.landscape import landscape
from merit_jax.reporting.sections.split import branch_table, merge_weights, split
from merit_jax.reporting.sections.summary import about, summary, verdicts
from merit_jax.reporting.theme import DARK, LIGHT
from merit_jax.workdir.paths import DIAGNOSTICS, Workdir
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
        "training_datasets",
        "training_held_out",
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


def report(root):
    return write_report(workdir(root), "runs/<mine>").read_text()


def workdir(root):
    path = epath.Path(root)
    return Workdir(path, path)


@pytest.fixture
def written(tmp_path):
    return example_workdir.write(tmp_path / "run")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The directory of a run with its report, which takes seconds to draw; not to be written to."""
    root = example_workdir.write(tmp_path_factory.mktemp("report") / "run")
    report(root)
    return root


def test_every_figure_is_on_the_page_and_a_well_formed_file(reported):
    reader = read((reported / "report.html").read_text())
    shown = {attrs["id"].removeprefix("figure-") for tag, attrs in reader.elements if tag == "figure" and "id" in attrs}
    assert shown == FIGURES
    for suffix in ("svg", "png"):
        assert {path.stem for path in (reported / "figures").glob(f"*.{suffix}")} == FIGURES
    for path in (reported / "figures").glob("*.svg"):
        ElementTree.parse(path)


def test_names_cannot_become_elements(reported):
    html = (reported / "report.html").read_text()
    reader = read(html)
    kinds = [attrs.get("type", "") for tag, attrs in reader.elements if tag == "script"]
    assert kinds == [*["application/json"] * len(FIGURES), "", ""]
    assert example_workdir.HOSTILE not in html
    assert example_workdir.HOSTILE in "".join(reader.text)
    assert not [attrs for _, attrs in reader.elements if any(name.startswith("on") for name in attrs)]
    specs = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    ]
    assert sum(example_workdir.HOSTILE in json.dumps(spec) for spec in specs) >= 4


def test_names_are_text_in_files_too(reported):
    root = ElementTree.parse(reported / "figures" / "axes12.svg").getroot()
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "g", "path", "rect", "line", "text"}
    assert any(example_workdir.HOSTILE in element.get("aria-label", "") for element in root.iter())


def test_the_page_loads_nothing(reported):
    html = (reported / "report.html").read_text()
    reader = read(html)
    places = [
        v for _, attrs in reader.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href", "srcset")
    ]
    assert all(place.startswith("#") for place in places)
    library = page._vega()
    assert html.count(library) == 1
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|https?://", html.replace(library, ""))
    (policy,) = [
        attrs["content"] for _, attrs in reader.elements if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert rules == {"style-src": "'unsafe-inline'", "script-src": "'unsafe-inline'", "img-src": "data:"}
    assert len(html.encode()) < 3_000_000


WITHOUT = """import logging, sys
for name in ("altair", "contourpy", "matplotlib", "vl_convert"):
    sys.modules[name] = None
logging.basicConfig(level="INFO")
from etils import epath
from merit_jax.reporting.page import write_report
from merit_jax.workdir.paths import Workdir
write_report(Workdir(epath.Path(sys.argv[1]), epath.Path(sys.argv[1])), sys.argv[1])"""


def test_without_the_figures_extra_the_words_and_tables_remain(written):
    done = subprocess.run([sys.executable, "-c", WITHOUT, written], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    reader = read((written / "report.html").read_text())
    text = "".join(reader.text)
    assert "pip install 'merit-jax[figures]'" in text
    assert "pip install 'merit-jax[figures]'" in done.stderr
    assert "Accuracy in per cent, best bold" in text
    assert example_workdir.HOSTILE in text
    assert not [attrs for tag, attrs in reader.elements if tag == "figure" and "id" in attrs]
    assert not (written / "figures").exists()


def test_the_first_section_says_what_came_out(written):
    artifacts = read_artifacts(workdir(written), "runs/mine")
    text = " ".join(getattr(part, "text", "") for part in summary(artifacts).parts)
    assert "8 datasets with 400 examples and 4,000 supervised tokens, divided over 4 branches by median_split" in text
    sentences = list(verdicts(artifacts))
    assert sentences[0].startswith("Mean of 3 suites: the merged model gets 50.0 %")
    assert "it is highest; next is random4 (seed=1) with 40.0 %" in sentences[0]
    assert sentences[-1] == (
        "Skill at 95 % retention, the number to compare methods by, in per cent: merged (merit2d) 35.0 at λ = 0.5 (99 % "
        "retained), theta0 30.0 at λ = 0 (100 % retained), joint 30.0 at λ = 0 (100 % retained), random4 (seed=1) 30.0 at λ = 0 "
        "(100 % retained). λ is chosen on one half of each suite, and the scores are those of the other half."
    )
    (tiles,) = (part.tiles for part in summary(artifacts).parts if isinstance(part, Tiles))
    (tile,) = (tile for tile in tiles if tile.label == "skill at 95 % retention")
    assert tile == ("35.0 %", tile.label, "at λ = 0.5, 99 % retained; theta0 30.0, joint 30.0 at λ = 0")


def test_tables_of_scores_have_theta0_and_say_what_they_are_of(written):
    kept, scores = (
        part for part in evaluation(read_artifacts(workdir(written), "run")).parts if isinstance(part, Table)
    )
    assert list(scores.header) == ["suite (records)", "theta0", "joint", "random4 (seed=1)", "merged (merit2d)"]
    assert "The records are the reporting half of each suite." in scores.caption
    assert "weighs datasets by the tokens of an equal number of training examples of each" in scores.caption
    (loss,) = (row[1:] for row in scores.rows if row[0] == "loss on the mixture")
    assert loss == ["2.000", "1.900", "1.800", "1.700"]
    assert kept.rows == [
        ["theta0", "30.0 at λ = 0", "70.0", "100 %"],
        ["joint", "30.0 at λ = 0", "70.0", "100 %"],
        ["random4 (seed=1)", "30.0 at λ = 0", "70.0", "100 %"],
        ["merged (merit2d)", "35.0 at λ = 0.5", "69.0", "99 %"],
    ]
    assert "on the choosing half of each suite" in kept.caption


def test_the_frontiers_note_says_that_scales_are_chosen_on_the_other_half(written):
    figures = {
        part.name: part
        for part in evaluation(read_artifacts(workdir(written), "run")).parts
        if isinstance(part, Figure)
    }
    assert (
        "Scores are of the reporting half of each suite; scales are chosen on the other half."
        in figures["frontier"].note
    )


@pytest.mark.parametrize(("name", "key"), [("evaluation", "questions"), ("frontier", "kept")])
def test_scores_of_an_earlier_version_are_refused(written, name, key):
    path = written / f"{name}.json"
    content = json.loads(path.read_text())
    content.pop(key, None)
    content["models"]["theta0"].pop(key, None)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{name}\.json was written by an earlier version"):
        write_report(workdir(written), "here")


def test_errors_are_those_of_proportions(written):
    scores = means(read_artifacts(workdir(written), "run"))
    assert scores["retained: describe"]["joint"] == pytest.approx((30, 100 * (0.3 * 0.7 / 50) ** 0.5))
    both = (0.3 * 0.7 / 80 + 0.3 * 0.7 / 40) ** 0.5 / 2
    assert scores["skill: short_answer, ocr"]["joint"] == pytest.approx((30, 100 * both))


def merged_as(written, **changes):
    """(words of the report on weights and on what holds for weighted means, weights in the table of branches)."""
    path = written / "merged" / "merge.json"
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in record.items() if value != "absent"}))
    artifacts = read_artifacts(workdir(written), "run")
    parts = [part for section in (split, gain, landscape) for part in section(artifacts).parts]
    words = (getattr(part, name, "") for part in parts for name in ("text", "note", "caption"))
    return " ".join(words), [row[3] for row in branch_table(artifacts).rows]


def test_the_weights_that_were_used_are_shown(written):
    words, weights = merged_as(written, method="uniform", weights=[0.25] * 4)
    assert weights == ["0.250"] * 4
    assert "The merged model is the mean of the branches with these weights." in words
    assert "share of all supervised tokens" not in words
    assert "Eq. 11: mean squared distance" in words
    assert "a gain of 0.2" in words
    assert "share of all supervised tokens" in merged_as(written, method="token_weighted")[0]
    assert "share of all tokens that the branches read" in merged_as(written, all_tokens=[1, 2, 3, 4])[0]


@pytest.mark.parametrize(("method", "weights"), [("task_arithmetic", [0.4] * 4), ("ties", None)])
def test_of_a_merge_that_is_no_weighted_mean_the_report_says_so(written, method, weights):
    words, shown = merged_as(written, method=method, weights=weights, weighted_mean=False)
    assert shown == ["0.400" if weights else ""] * 4
    why = f"{method} makes no weighted mean of the branches."
    assert f"The merging gain (Thm 3.1) is not defined: {why}" in words
    assert f"Eqs. 2 and 11 are not defined: {why}" in words
    assert ("uses no weights" in words) == (weights is None)
    assert not re.search("Eq. 11: mean squared|a gain of|Averaging contracts|share of all supervised", words)


SEARCH = {"evaluations": 40, "scored_on": "suites", "evaluation": 7, "score": 0.5125, "token_weights_score": 0.475}
SEARCHED = (
    "CMA-ES: the best of 40 by mean accuracy on the suites' choosing half, 0.5125; the token weights have 0.4750."
)


def test_searched_weights_are_shown_as_such(written):
    weights = [0.7, 0.1, 0.1, 0.1]
    words, shown = merged_as(written, weights=weights, search={**SEARCH, "rows": [weights]})
    assert shown == ["0.700", *["0.100"] * 3]
    assert f"{SEARCHED} The merged model is the mean of the branches with these weights." in words
    assert "share of all supervised tokens" not in words
    assert "merged by token_weighted with searched weights." in about(read_artifacts(workdir(written), "run"))


def test_searched_weights_of_blocks_are_a_table_and_no_weighted_mean(written):
    rows = [[0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2]]
    words, shown = merged_as(written, weights=None, weighted_mean=False, search={**SEARCH, "rows": rows})
    assert shown == [""] * 4
    assert "not defined: the weights of the merge differ between blocks of layers." in words
    assert "uses no weights" not in words
    table = merge_weights(read_artifacts(workdir(written), "run"))
    assert SEARCHED in table.caption
    assert table.header == ["branch", "block 0", "outside of layers"]
    assert [row[1:] for row in table.rows] == [["0.700", "0.400"], *[["0.100", "0.200"]] * 3]


def test_weights_of_an_earlier_versions_merge_are_not_shown(written):
    words, weights = merged_as(written, weighted_mean="absent")
    assert weights == [""] * 4
    assert "The weights of the merge are not known: an earlier version merged" in words
    assert "--stages=merge --overwrite" in words


def test_what_is_missing_names_the_command_that_makes_it(tmp_path):
    root = example_workdir.write(tmp_path / "run", diagnostics=False)
    text = "".join(read(report(root)).text)
    for name in DIAGNOSTICS:
        assert f"merit diagnose --workdir=runs/<mine> --only={name}" in text
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
    text = "".join(read(report(root)).text)
    for stages in ("mixture,gradients,conflict", "partition", "train", "export"):
        assert f"merit run --config=CONFIG --workdir=runs/<mine> --stages={stages}\n" in text.replace("Versions", "\n")


def test_the_report_knows_every_diagnostic_of_the_pipeline():
    assert tuple(run_diagnostics.DIAGNOSTICS) == DIAGNOSTICS


def test_a_folder_without_a_run_and_a_damaged_file_are_refused(tmp_path, written):
    with pytest.raises(ValueError, match=r"holds no run: expected mixture\.json"):
        write_report(workdir(tmp_path), "here")
    (written / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is not valid JSON"):
        write_report(workdir(written), "here")


def test_a_real_run_is_reported(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished.workdir.root, root)
    reader = read(report(root))
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
    drawn = {path.name for path in (half / "figures").glob("*")}
    assert drawn == ({"tokens.svg", "tokens.png"} if find_spec("altair") else set())
    assert bad[0] == 65
    assert "no such directory" in bad[2]


PROBE = """<script>
const seen = document.body.dataset;
const press = (svg, key) => svg.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const tip = document.getElementById("tip");
const figures = [...document.querySelectorAll("figure.plot")];
const svg = (id) => document.querySelector(`#figure-${id} svg`);
const bar = () => getComputedStyle(svg("tokens").querySelector(".mark-rect.role-mark path")).fill;
const strengths = () => [...svg("training_loss").querySelectorAll(".mark-line path")].map((line) => line.getAttribute("opacity"));
const said = (id, ...keys) => {
  keys.forEach((key) => press(svg(id), key));
  return tip.textContent;
};
const wait = setInterval(async () => {
  if (figures.some((figure) => !figure.querySelector("svg[tabindex]"))) return;
  clearInterval(wait);
  seen.point = said("scores", "ArrowRight", "ArrowRight");
  seen.cell = said("conflict", "ArrowRight", "ArrowRight");
  seen.below = said("conflict", "ArrowDown");
  press(svg("conflict"), "Escape");
  seen.hidden = tip.hidden;
  const dot = svg("axes12").querySelector(".mark-symbol.role-mark path");
  dot.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 9, clientY: 9}));
  seen.hover = tip.textContent;
  seen.flat = figures.filter((figure) => figure.querySelector("svg").getBoundingClientRect().height < 80).length;
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const right = (element) => element.getBoundingClientRect().right;
  const texts = (figure) => [...figure.querySelectorAll("svg text")];
  seen.clipped = figures.filter((figure) => texts(figure).some((text) => right(text) > right(figure) - 8)).length;
  seen.marks = document.querySelectorAll(".role-mark > [aria-label]").length;
  seen.loaded = performance.getEntriesByType("resource").length;
  seen.bar = bar();
  document.documentElement.style.setProperty("--c0", "rgb(1, 2, 3)");
  seen.followed = bar();
  seen.before = strengths();
  svg("training_loss").querySelectorAll(".role-legend-label text")[1].dispatchEvent(new MouseEvent("click", {bubbles: true}));
  setTimeout(() => { seen.after = strengths(); seen.done = "yes"; }, 500);
}, 50);
</script>"""


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_browser_without_a_network_draws_every_figure_and_the_keyboard_walks_through_them(reported, tmp_path, theme):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    probed = tmp_path / "probed.html"
    before, end, after = (reported / "report.html").read_text().rpartition("</body>")
    probed.write_text(before + PROBE + end + after)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=390,900"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000"]
    flags += ["--blink-settings=preferredColorScheme=0"] if theme is DARK else []
    command = [browser, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{probed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "CONSOLE" not in done.stderr
    (body,) = [attrs for tag, attrs in read(done.stdout).elements if tag == "body"]
    assert body["data-done"] == "yes"
    assert body["data-point"].startswith("joint: 30.0")
    assert body["data-cell"].count("\n") == body["data-below"].count("\n") + 2 == 2
    assert body["data-hover"].split("\n")[0] in example_workdir.NAMES
    assert [body[f"data-{name}"] for name in ("hidden", "flat", "wide", "clipped", "loaded")] == ["true", *"0000"]
    assert int(body["data-marks"]) > 100
    assert body["data-bar"] == "rgb({}, {}, {})".format(*bytes.fromhex(theme["c0"][1:]))
    assert body["data-followed"] == "rgb(1, 2, 3)"
    assert body["data-before"] == "1,1,1,1,1"
    assert body["data-after"] == "0.12,1,0.12,0.12,0.12"
