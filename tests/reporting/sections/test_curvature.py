"""The section on alignment shows both null hypotheses, raw and centred, and asks for results of earlier versions anew."""

import json

import pytest
from etils import epath

from merit_jax.reporting.blocks import Missing, Table
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections.curvature import curvature
from merit_jax.workdir.paths import Workdir
from tests.support import example_workdir


@pytest.fixture
def root(tmp_path):
    return epath.Path(example_workdir.write(tmp_path / "run"))


def parts(root):
    return curvature(read_artifacts(Workdir(root, root), "run")).parts


def test_the_table_has_both_null_hypotheses_raw_and_centred(root):
    table = parts(root)[-1]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["as they are", "centred"]
    assert table.header[4:] == ["Gaussian directions", "z", "p", "in the gradients' span", "z", "p"]
    for row in table.rows:
        assert row[4:] == ["0.0001 ± 1e-05", "15386.0", "0.0001", "0.13 ± 0.01", "not finite", "0.2"]


def test_a_result_of_an_earlier_version_is_missing(root):
    path = root / "diagnostics" / "curvature.json"
    content = json.loads(path.read_text())
    for part in ("raw", "centred"):
        del content["result"][part]["span"]
    path.write_text(json.dumps(content))
    (part,) = parts(root)
    assert isinstance(part, Missing)
    assert "--only=curvature" in part.command
