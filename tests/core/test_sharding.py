"""Logical names become partitions by one table; what does not fit is kept whole or refused."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from merit_jax.core import sharding
from merit_jax.training.loop import in_micro_batches
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state
from tests.support import toy


def test_parameters_are_cut_along_the_axes_the_table_names():
    mesh = sharding.make_mesh(data=1, fsdp=4, tensor=2)
    assert sharding.spec(("layers", "embed", "mlp"), (3, 8, 6), mesh) == PartitionSpec(None, "fsdp", "tensor")
    assert sharding.spec(("vocab", "embed"), (10, 8), mesh) == PartitionSpec("tensor", "fsdp")


def test_a_dimension_that_does_not_divide_is_kept_whole():
    mesh = sharding.make_mesh(data=1, fsdp=4, tensor=2)
    assert sharding.spec(("embed", "mlp"), (6, 6), mesh) == PartitionSpec(None, "tensor")


def test_two_dimensions_on_one_mesh_axis_are_refused_with_both():
    with pytest.raises(ValueError, match=r"parameter w: .*\('mlp', 'heads'\).*\(\('tensor',\), \('tensor',\)\)"):
        sharding.spec(("mlp", "heads"), (4, 4), sharding.make_mesh(), "w")


def test_an_unknown_logical_name_is_refused():
    with pytest.raises(ValueError, match="unknown logical axis 'width'; the table has vocab"):
        sharding.spec(("width",), (4,), sharding.make_mesh(), "w")


def test_a_mesh_that_does_not_cover_the_devices_is_refused():
    with pytest.raises(ValueError, match="data=3 x fsdp=1 x tensor=2 x sequence=1 does not cover 8 devices"):
        sharding.make_mesh(data=3, fsdp=1, tensor=2)
    assert dict(sharding.make_mesh(data=2, fsdp=-1, tensor=2).shape) == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
        "sequence": 1,
    }


def test_rows_are_dealt_over_data_and_fsdp_and_come_back_whole():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    batch = toy.random_batch(0, rows=8)
    placed = sharding.place_batch(batch, mesh)
    assert {shard.data.shape[0] for shard in placed.targets.addressable_shards} == {2}
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(sharding.to_host, placed), batch)


def test_rows_that_cannot_be_dealt_are_refused_with_a_number_that_can():
    with pytest.raises(ValueError, match=r"6 rows of a batch .* = 4 devices; use a multiple of 4"):
        sharding.place_batch(toy.random_batch(0, rows=6), sharding.make_mesh(data=2, fsdp=2, tensor=2))


def test_a_process_owns_the_rows_that_its_devices_hold_whatever_the_micro_batches(monkeypatch):
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    assert sharding.own_rows(8, mesh) == set(range(8))
    theirs = set(jax.devices()[:4])
    rows = in_micro_batches(toy.random_batch(0, rows=8)._replace(tokens=np.arange(8)[:, None]), 2).tokens
    placed = jax.device_put(rows, jax.NamedSharding(mesh, PartitionSpec(None, sharding.ROWS)))
    held = {int(x) for shard in placed.addressable_shards if shard.device in theirs for x in np.ravel(shard.data)}
    monkeypatch.setattr(
        jax.NamedSharding,
        "addressable_devices_indices_map",
        lambda self, shape: {d: i for d, i in self.devices_indices_map(shape).items() if d in theirs},
    )
    assert sharding.own_rows(8, mesh) == held == {0, 1, 2, 3}


def test_what_an_optimizer_keeps_of_a_leaf_is_sharded_as_the_leaf_where_it_has_its_shape():
    """Adafactor keeps means over rows and columns, Muon nothing of the leaves that Adam trains."""
    mesh = sharding.make_mesh()
    cut = jax.NamedSharding(mesh, jax.P(None, "fsdp"))
    leaves = {path: sharding.place(np.ones((256, 256), np.float32), cut) for path in ("a/kernel", "b/embedding")}
    for name, kept in (("adamw", 4), ("adafactor", 0), ("muon", 3)):
        optimizer = make_optimizer(name)
        state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
        arrays = jax.tree.leaves(state.optimizer)
        assert sum(array.sharding.spec == cut.spec for array in arrays) == kept
        assert all(array.shape == (256, 256) or array.is_fully_replicated for array in arrays)
