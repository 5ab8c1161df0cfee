"""Inner products over devices are those of the host, whatever the number of devices."""

import jax
import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.conflict import blocked_products
from merit_jax.core import sharding
from tests.support.scaled_gradients import Recorded, exact, uneven


def mesh_of(*sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return sharding.make_mesh(*sizes, devices=devices)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2, 1), (2, 2, 1), (2, 2, 2)])
def test_devices_share_the_coordinates_and_agree_with_the_host(monkeypatch, sizes):
    monkeypatch.setattr(blocked_products, "BLOCK", 150)
    G = uneven(0)
    recorded = [Recorded(row) for row in G]
    host = conflict.cosines(G)
    found = conflict.cosines(recorded, norms=host.norms, mesh=mesh_of(*sizes))
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
    mesh = mesh_of(1, 2, 1)
    add, join = blocked_products.device_programs(mesh, 0)
    sums = jax.eval_shape(lambda: blocked_products.DeviceSums.zero(mesh, 5, 0))
    block = jax.ShapeDtypeStruct((5, 104), np.float32)
    added, joined = (
        program.lower(*arguments).compile().as_text() for program, arguments in ((add, (sums, block)), (join, (sums,)))
    )
    assert "all-reduce" not in added
    assert joined.count(" all-reduce(") == 1


def test_devices_keep_the_direction_of_denormal_rows():
    G = np.array([[3e-43, 4e-43, 0], [0, 1e38, 0]], np.float32)
    np.testing.assert_allclose(conflict.cosines(G, mesh=mesh_of(1, 2, 1)).values, exact(G), atol=1e-6)
