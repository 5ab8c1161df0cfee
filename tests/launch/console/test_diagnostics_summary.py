"""Every diagnostic of the pipeline has a summary, and no other name has one."""

from launch.console.diagnostics_summary import SUMMARIES, summarise_diagnostics
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
