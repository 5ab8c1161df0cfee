"""The order in which executions are tried."""

import itertools

from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.search import execution_configs

POLICIES = ("none", "dots", "full")
ASKED = ExecutionConfig(1, 64, 1, 24, 3, "none")


def test_the_batch_is_kept_before_the_mesh_and_the_mesh_before_remat_and_micro_batches():
    found = list(execution_configs(ASKED, 16, POLICIES))
    assert all(execution.obstacle() is None for execution in found)
    assert found[0] == ExecutionConfig(1, 8, 8, 24, 3, "none")
    batches = [abs(execution.batch_size - 24) for execution in found]
    assert batches == sorted(batches)
    same = [execution for execution in found if execution.batch_size == 24]
    assert {execution.tensor for execution in same} == {8, 16}
    for before, after in itertools.pairwise(same):
        assert (before.tensor, POLICIES.index(before.remat)) <= (after.tensor, POLICIES.index(after.remat))


def test_a_batch_that_cannot_be_sharded_is_replaced_by_its_neighbours():
    found = [execution for execution in execution_configs(ASKED, 16, POLICIES) if execution.tensor == 1]
    assert {execution.batch_size for execution in found} == {64}


def test_every_candidate_covers_the_devices_and_divides_the_heads():
    for execution in execution_configs(ExecutionConfig(1, 8, 1, 16, 1, "dots"), 12, POLICIES):
        assert execution.data * execution.fsdp * execution.tensor == 8
        assert 12 % execution.tensor == 0
        assert execution.remat in ("dots", "full")
