"""The report of a pruning: the heads, scores, costs and curves that its files hold, in a run and alone."""

import re

import numpy as np
import pytest

from merit_jax.pruning import CRITERIA
from merit_jax.reporting import page
from merit_jax.reporting.blocks import Missing, Table, Text, Tiles, Verbatim
from merit_jax.reporting.figures import Figure, specification
from merit_jax.reporting.pruning_curve import LABELS
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections import SECTIONS_OF_PRUNING
from merit_jax.reporting.sections.pruning import pruning
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir
from tests.support import example_workdir, pruned_workdir


def alone(root):
    return read_artifacts(Workdir.at(root), "OUT.work")


def parts_of(artifacts, kind):
    """The parts of one kind of all sections, of a run or of a pruning alone."""
    sections = (
        [section(artifacts) for section in SECTIONS_OF_PRUNING] if artifacts.only_pruned else [pruning(artifacts)]
    )
    return [part for section in sections for part in section.parts if isinstance(part, kind)]


def plain(rows):
    """Cells as text, the best ones in asterisks."""

    def text(cell):
        word = cell if isinstance(cell, str) else f"*{cell.text}*" if cell.best else cell.text
        return word.replace("\u00a0", " ")

    return [[text(cell) for cell in row] for row in rows]


@pytest.fixture
def root(tmp_path):
    return pruned_workdir.write(tmp_path / "pruned")


def test_the_curves_tables_hold_every_ratio_before_and_after_recovery(root):
    accuracy, loss = (t for t in parts_of(alone(root), Table) if t.header[0] == "heads removed")
    assert accuracy.header == ["heads removed", "HIES", "importance (HIS)", "random"]
    assert plain(accuracy.rows) == [
        ["25.0 %", "*70.0*", "65.0", "50.0 ± 10.0"],  # 40, 50 and 60
        ["25.0 %, after recovery", "*75.0*", "70.0", "55.0 ± 10.0"],
        ["50.0 %", "*60.0*", "50.0", "40.0 ± 10.0"],
        ["50.0 %, after recovery", "*65.0*", "55.0", "45.0 ± 10.0"],
    ]
    assert accuracy.caption == (
        "Accuracy (%), mean over 1 suites; best of each line bold. The whole model: 75.0. Random: mean ± standard deviation "
        "over 3 orders."
    )
    assert plain(loss.rows)[2] == ["50.0 %", "*1.800*", "2.000", "2.200 ± 0.200"]  # 3 - 2 * accuracy
    assert "mean over the held-out records of 1 datasets" in loss.caption
    assert (accuracy.folded, loss.folded) == (False, True)


def test_a_share_that_differs_from_the_ratio_is_said(root):
    path = Workdir.at(root).root / "curve.json"
    content = read_json(path)
    for name in ("hies-0.25", "hies-0.25 recovered"):
        content["models"][name]["inputs"]["pruning"]["removed"] = 0.5
    write_json(path, content)
    (table, _) = (t for t in parts_of(alone(root), Table) if t.header[0] == "heads removed")
    assert plain(table.rows)[0][0] == "25.0 to 50.0 % (ratio 0.25)"


def drawn(figure):
    """The specification of a figure, and the data of its first layer."""
    spec = specification(figure.chart())
    data = spec.get("data") or spec["layer"][0]["data"]
    return spec, data["values"]


def line(figure, label):
    """A series of a figure: x, y, low, high."""
    (found,) = (row for row in drawn(figure)[1] if row["series"] == label)
    return found


def test_curves_begin_at_the_whole_model_and_the_band_is_that_of_the_draws(root):
    figures = {figure.name: figure for figure in parts_of(alone(root), Figure)}
    names = {f"pruning_{quality}{again}" for quality in ("accuracy", "loss") for again in ("", "_recovered")}
    assert names == {name for name in figures if name.startswith("pruning_")}
    for again, gain in (("", 0), ("_recovered", 5)):
        random = line(figures[f"pruning_accuracy{again}"], "random")
        assert random["x"] == [0, 25, 50]
        assert random["y"] == pytest.approx([75, 50 + gain, 40 + gain])
        assert random["low"] == pytest.approx([75, 40 + gain, 30 + gain])
        assert random["high"] == pytest.approx([75, 60 + gain, 50 + gain])
        assert line(figures[f"pruning_accuracy{again}"], "HIES")["y"] == pytest.approx([75, 70 + gain, 60 + gain])
    layers = [drawn(figures[f"pruning_loss{again}"])[0]["layer"][-1] for again in ("", "_recovered")]
    assert layers[0]["encoding"]["y"]["scale"]["domain"] == layers[1]["encoding"]["y"]["scale"]["domain"]


def test_maps_show_every_head_and_mark_those_that_are_removed(root):
    artifacts = alone(root)
    chosen = artifacts.pruning.chosen
    figures = {figure.name: figure for figure in parts_of(artifacts, Figure)}
    for score in ("importance", "entropy", "hies"):
        spec, rows = drawn(figures[f"heads_decoder_{score}"])
        assert [row["layer"] for row in rows] == [0, 1]
        np.testing.assert_allclose([row["value"] for row in rows], chosen["scores"][score]["decoder"], rtol=1e-3)
        assert [row["kept"] for row in rows] == chosen["kept"]["decoder"]
        assert (
            spec["layer"][1]["transform"][0] == {"filter": "!datum.kept"}
            or {"filter": "!datum.kept"} in spec["layer"][1]["transform"]
        )
    kept = line(figures["heads_decoder_plane"], "kept")
    at = np.asarray(chosen["kept"]["decoder"], bool)
    assert kept["x"] == np.asarray(chosen["scores"]["entropy"]["decoder"])[at].tolist()
    assert kept["y"] == np.asarray(chosen["scores"]["importance"]["decoder"])[at].tolist()


def test_costs_and_scores_before_and_after(root):
    artifacts = alone(root)
    words = parts_of(artifacts, Text)[0].text
    how = "by hies with α = 0.5: heads, as many from every layer."
    assert words == f"4 of 8 attention heads (50.0 %) are removed, {how}\n{pruned_workdir.NOTE}"
    (costs,) = (t for t in parts_of(artifacts, Table) if t.header[1] == "before")
    assert costs.rows == [
        ["parameters", "2,000", "1,500", "0.75"],
        ["bytes of the parameters", "8,000", "6,000", "0.75"],
        ["key-value cache (bytes per token)", "384", "192", "0.50"],
        ["reading (tokens/s)", "100.0", "150.0", "1.50"],
        ["writing (tokens/s)", "20.0", "30.0", "1.50"],
    ]
    (scores,) = (t for t in parts_of(artifacts, Table) if t.header[0] == "suite (records)")
    assert [*scores.header[1:]] == ["whole", "pruned", "recovered"]
    assert plain(scores.rows)[0] == ["qa (8)", "*75.0*", "50.0", "62.5"]
    assert not [row for row in scores.rows if "theta0" in row[0]]
    (tiles,) = parts_of(artifacts, Tiles)
    assert tiles.tiles[-1] == (
        "62.5 %",
        "recovered, mean of 1 suites (± 17.1)",
        "whole 75.0 ± 15.3, pruned 50.0 ± 17.7",
    )
    assert ("1.50 ×", "reading (tokens/s)", "100.0 before, 150.0 after") in tiles.tiles
    assert '"spread": "layer"' in parts_of(artifacts, Verbatim)[0].text


def test_the_accuracies_that_chose_alpha_are_shown_and_scores_are_those_of_the_other_half(tmp_path):
    artifacts = alone(pruned_workdir.write(tmp_path / "pruned", alpha=(0.0, 0.5, 1.0)))
    (table,) = (t for t in parts_of(artifacts, Table) if t.header[0] == "α")
    assert table.rows == [["0.0", "25.0"], ["0.5", "37.5"], ["1.0 (chosen)", "50.0"]]
    captions = [t.caption for t in parts_of(artifacts, Table)]
    assert sum("reporting half" in caption for caption in captions) == 2
    notes = {figure.name: figure.note for figure in parts_of(artifacts, Figure)}
    assert notes["pruning_accuracy"].startswith("Mean over 1 suites, reporting half.")


def test_in_a_run_the_whole_model_is_the_merged_one(tmp_path):
    root = example_workdir.write(tmp_path / "run", diagnostics=False)
    pruned_workdir.write(root / "pruned")
    artifacts = read_artifacts(Workdir.at(root), "DIR")
    (scores,) = (t for t in parts_of(artifacts, Table) if t.header[0] == "suite (records)")
    assert [*scores.header[1:]] == ["merged (merit2d)", "pruned", "recovered"]
    assert next(iter(artifacts.models)) == "theta0"


def test_what_is_missing_names_the_command(tmp_path, root):
    run = example_workdir.write(tmp_path / "run", diagnostics=False)
    (missing,) = parts_of(read_artifacts(Workdir.at(run), "DIR"), Missing)
    assert missing.command == "merit prune --config=CONFIG --workdir=DIR --ratio=0.3"
    for name in ("costs", "evaluation", "curve"):
        (root / f"{name}.json").unlink()
    commands = [missing.command for missing in parts_of(alone(root), Missing)]
    command = "merit prune --model=MODEL --mixture=MIXTURE --out=OUT --workdir=OUT.work --ratio=0.5"
    assert commands == [command, command, f"{command} --config.prune.curve='(0.1,0.3,0.5)'"]


def changed(root, change):
    """The inputs of the choice changed, as by another pruning; costs, scores and curves stay those of the former one."""
    path = Workdir.at(root).root / "pruning.json"
    content = read_json(path)
    change(content)
    write_json(path, content)
    return alone(root).pruning


def test_what_an_earlier_choice_has_left_is_not_shown(root):
    found = alone(root).pruning
    assert all((found.costs, found.evaluation.models, found.curve.models))
    other = changed(root, lambda content: content["inputs"]["prune"].update(ratio=0.25))
    assert (other.costs, other.evaluation.models) == (None, {})
    assert other.curve == found.curve
    assert changed(root, lambda content: content["inputs"]["prune"].update(unit="group")).curve.models == {}
    changed(root, lambda content: content["inputs"]["prune"].update(unit="head"))
    assert changed(root, lambda content: content["inputs"].update(examples=3)).curve.models == {}
    changed(root, lambda content: content["inputs"].pop("examples"))
    changed(root, lambda content: content["inputs"]["prune"].update(unit="head"))
    other = changed(root, lambda content: content.update(alpha=0.75))
    assert not [name for name in other.curve.models if name.startswith("hies")]
    assert "importance-0.25" in other.curve.models


def test_a_pruning_of_another_merge_is_refused(tmp_path):
    root = example_workdir.write(tmp_path / "run", diagnostics=False)
    pruned_workdir.write(root / "pruned")
    workdir = Workdir.at(root)
    write_json(workdir.merged_sums, {"a": "1"})
    source = {"inputs": {"merged": fingerprint({"a": "1"})}, "fingerprint": "whole-fingerprint"}
    write_json(workdir.pruned / "theta0.json", source)
    assert read_artifacts(workdir, "DIR").pruning.model == ""
    write_json(workdir.merged_sums, {"a": "2"})
    with pytest.raises(ValueError, match=r"pruning\.json was made from another merge\.json .*=prune --overwrite"):
        read_artifacts(workdir, "DIR")


def test_the_page_of_a_pruning_alone_speaks_of_no_run(root, monkeypatch):
    monkeypatch.setattr(page, "can_draw", lambda: False)
    html = page.write_report(Workdir.at(root), "OUT.work").read_text()
    words = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
    assert "<h1>tiny&lt;b&gt;, pruned</h1>" in words
    assert words.count("not there yet") == words.count("merit-jax[figures]") == 1
    assert "merit run" not in words
    assert re.findall(r'<section id="(\w+)">', words) == ["choice", "pruning_curves", "heads", "costs"]


def test_every_criterion_has_a_name():
    assert set(LABELS) == set(CRITERIA)
