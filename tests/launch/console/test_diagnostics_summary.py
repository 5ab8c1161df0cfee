"""Every diagnostic of the pipeline has a summary, and no other name has one."""

from merit_jax.launch.console.diagnostics_summary import SUMMARIES, summarise_diagnostics
from merit_jax.pipeline.run_diagnostics import DIAGNOSTICS
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.paths import Workdir


def test_the_summaries_are_those_of_the_pipelines_diagnostics():
    assert list(SUMMARIES) == list(DIAGNOSTICS)


def test_a_merge_that_is_no_weighted_mean_has_no_contraction(tmp_path):
    workdir = Workdir.at(tmp_path)
    result = {"names": ["branch 0", "merged"], "distances": [2.0, 1.5], "joint_over_merged": None}
    write_json(workdir.diagnostic("displacement"), {"result": {**result, "parallel_axis": None}})
    said = "from theta0: branch 0 2, merged 1.5; no weighted mean, so no contraction (Eq. 2)"
    assert summarise_diagnostics(workdir) == {"displacement": said}


def test_only_what_has_been_made_is_summarised(tmp_path):
    workdir = Workdir.at(tmp_path)
    assert summarise_diagnostics(workdir) == {}
    write_json(workdir.diagnostic("surface"), {"result": {"losses": [[1.25, None], [2.5, 1.0]]}})
    assert summarise_diagnostics(workdir) == {"surface": "loss 1.000 to 2.500 nats on the plane"}


def test_the_alignment_has_both_nulls_raw_and_centred(tmp_path):
    chance = {"mean": 0.1, "std": 0.01, "draws": 10, "z_score": 1234.5, "p_value": 0.1}
    part = {"angles": [60.0], "largest": 0.5, "mean_top": 0.4, "gaussian": chance, "span": {**chance, "z_score": 0.62}}
    workdir = Workdir.at(tmp_path)
    write_json(workdir.diagnostic("curvature"), {"result": {"raw": part, "centred": {**part, "mean_top": 0.3}}})
    said = summarise_diagnostics(workdir)["curvature"]
    assert "raw: max |cos| 0.500, mean top-1 0.400" in said
    assert "centred: max |cos| 0.500, mean top-1 0.300" in said
    assert said.count("z 1234 (Gaussian directions) and 0.62 (in the span)") == 2


def test_an_alignment_of_an_earlier_version_is_to_be_made_again(tmp_path):
    workdir = Workdir.at(tmp_path)
    write_json(workdir.diagnostic("curvature"), {"result": {"raw": {"z_score": 3.0}, "centred": {"z_score": 3.0}}})
    assert summarise_diagnostics(workdir)["curvature"].endswith("make it again with --only=curvature --overwrite")
