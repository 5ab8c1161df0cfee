"""Artifacts of two runs in one folder are not taken for one: their records name each other."""

import json

import pytest

from merit_jax.reporting.run_data import read_artifacts
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.consistency import check_partition, check_records
from merit_jax.workdir.paths import Workdir

SHARES = [[["a", 0, 1]], [["b", 0, 1]]]


@pytest.fixture
def workdir(tmp_path):
    """The records of a finished run."""
    found = Workdir.at(tmp_path)
    found.config.write_text(json.dumps({"partition": {"method": "median_split", "groups": 2, "seed": 0}, "merge": {}}))
    made = {"partition": {"method": "median_split", "groups": 2}}
    branches = [{"shares": shares, "samples": 1, "tokens": 1, "seed": 0} for shares in SHARES]
    write_json(found.partition, {"inputs": made, "method": "median_split", "branches": branches})
    for k, shares in enumerate(SHARES):
        write_json(found.branch_done(k), {"inputs": {"shares": shares}, "steps": 1})
    merge = {"branches": [fingerprint({"shares": shares}) for shares in SHARES], "method": "uniform"}
    write_json(found.merge_record, {"inputs": merge})
    write_json(found.projection, {"inputs": {"merge": merge}, "cosines": {}})
    write_json(found.evaluation, {"inputs": {}, "models": {"merged": {"inputs": merge}}})
    return found


def changed(path, change):
    record = dict(read_json(path))
    change(record)
    write_json(path, record)


def test_the_records_of_one_run_belong_together(workdir):
    check_records(workdir)
    workdir.branch_done(1).unlink()
    check_records(workdir)


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (
            lambda w: w.partition,
            lambda r: r["inputs"]["partition"].update(method="random"),
            r'"random" -> "median_split"',
        ),
        (lambda w: w.partition, lambda r: r["inputs"]["partition"].update(seed=3), r"partition\.seed: 3 -> 0"),
        (lambda w: w.partition, lambda r: r["branches"].reverse(), r"branches/0/done\.json .* another partition\.json"),
        (lambda w: w.merge_record, lambda r: r["inputs"]["branches"].reverse(), r"merge\.json .* another done\.json"),
        (
            lambda w: w.projection,
            lambda r: r["inputs"]["merge"].update(method="ties"),
            r"projection\.json .* another merge",
        ),
        (
            lambda w: w.evaluation,
            lambda r: r["models"]["merged"]["inputs"].update(method="ties"),
            r"evaluation\.json .*--stages=evaluate --overwrite",
        ),
    ],
)
def test_a_record_of_another_run_is_named(workdir, path, change, said):
    changed(path(workdir), change)
    for read in (check_records, lambda w: read_artifacts(w, "run")):
        with pytest.raises(ValueError, match=said):
            read(workdir)


def test_a_config_with_another_partition_is_refused(workdir):
    check_partition(workdir, {"method": "median_split", "groups": 2, "seed": 0})
    with pytest.raises(
        ValueError, match=r"partition\.json was made from .*partition\.groups: 2 -> 4.*--stages=partition"
    ):
        check_partition(workdir, {"method": "median_split", "groups": 4, "seed": 0})
