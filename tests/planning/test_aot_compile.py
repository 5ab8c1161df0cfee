"""Compiling for TPUs that are not there; needs libtpu (extra `tpu`)."""

import jax
import pytest

from merit_jax.planning.aot_compile import compile_step, devices_of, lower_step
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.topology import parse_topology
from tests.support import small_plan, world


def test_devices_without_a_compiler_are_refused():
    with pytest.raises(ValueError, match="h100:8: there is no compiler for it"):
        devices_of(parse_topology("h100:8"))
    with pytest.raises(ValueError, match=r"cpu:5: this process has 8 cpu devices; set .*device_count=5"):
        devices_of(parse_topology("cpu:5"))


def test_a_small_step_compiles_for_a_tpu_slice():
    pytest.importorskip("libtpu")
    devices = devices_of(parse_topology("v5e:2x2"))
    assert len(devices) == 4
    found = compile_step(small_plan.task(), ExecutionConfig(1, 4, 1, 8, 1, "full"), devices)
    assert found.fits
    assert found.arguments > 3 * 4 * sum(leaf.size for leaf in _leaves()) / 4
    assert found.temporaries > 0


def test_the_step_is_that_of_the_configured_average():
    execution, task, mesh = ExecutionConfig(1, 1, 1, 8, 1, "full"), small_plan.task(), world.one_device_mesh()

    def scatters(average):
        return lower_step(task._replace(average=average), execution, mesh).as_text().count("stablehlo.scatter")

    assert scatters("example") > scatters("token")
    with pytest.raises(ValueError, match=r"unknown train\.average 'x'; known: example, token"):
        scatters("x")


def _leaves():
    return jax.tree.leaves(small_plan.model().abstract)
