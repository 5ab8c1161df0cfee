"""Inner products over devices are those of the host, whatever the number of devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from merit_jax import conflict
from merit_jax.conflict import rows, sharded
from merit_jax.core.sharding import MESH_AXES
from tests.support.scaled_gradients import Recorded, uneven


def mesh_of(*sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2, 1), (2, 2, 1), (2, 2, 2)])
def test_devices_share_the_coordinates_and_agree_with_the_host(monkeypatch, sizes):
    monkeypatch.setattr(rows, "BLOCK", 150)
    G = uneven(0)
    recorded = [Recorded(row) for row in G]
    found, host = conflict.cosines(recorded, mesh=mesh_of(*sizes)), conflict.cosines(G)
    np.testing.assert_allclose(found.values, host.values, atol=1e-6)
    np.testing.assert_allclose(found.norms, host.norms, rtol=1e-5)
    assert all(sorted(i for asked in row.asked for i in asked) == list(range(103)) for row in recorded)


def test_devices_extend_and_name_what_has_no_direction():
    G, mesh = uneven(1), mesh_of(1, 2, 1)
    np.testing.assert_allclose(
        conflict.cosines(G, first=3, mesh=mesh).values, conflict.cosines(G).values[3:], atol=1e-6
    )
    G[1], G[4, 90] = 0, np.nan
    with pytest.raises(ValueError, match="row 1 is zero, row 4 is not finite"):
        conflict.cosines(G, first=3, mesh=mesh)


def test_blocks_are_added_without_communication_and_one_sum_joins_them():
    programs = sharded.programs(mesh_of(1, 2, 1), 5, 0)
    sums = jax.eval_shape(programs.start)
    block = jax.ShapeDtypeStruct((5, 104), np.float32)
    added, joined = (
        program.lower(*arguments).compile().as_text()
        for program, arguments in ((programs.add, (sums, block)), (programs.join, (sums,)))
    )
    assert "all-reduce" not in added
    assert joined.count(" all-reduce(") == 3, "the sum's two arrays, and the maximum of the exponents before them"
