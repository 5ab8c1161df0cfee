"""Plans of runs with adapters: what learns, what is frozen in how many bits, and what the datasets' gradients are taken of."""

import math

import jax
import pytest

from merit_jax.core import tree
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.planning.aot_compile import compile_step
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.memory_estimate import Estimator
from merit_jax.planning.workload import DataSize, stage_costs, trained_bytes
from tests.support import world

pytest.importorskip("qwix")

ONE = ExecutionConfig(1, 1, 1, 8, 1, "dots")
RANK = 3
KERNELS = {
    "key": (32, 16),
    "output": (32, 32),
    "query": (32, 32),
    "value": (32, 16),
    "down": (64, 32),
    "gate": (32, 64),
    "up": (32, 64),
}
LAYERS = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


def planned(root, **changes):
    return PlanInputs(world.config(root, "merit1d", **{"train.adapter_rank": RANK, **changes}), "float32")


def resident(plan):
    return Estimator(plan.task(), plan.architecture(), plan.config.loss.chunk).resident(ONE)


@pytest.mark.parametrize("form", ["lora", "dora", "qlora"])
def test_only_adapters_have_gradients_and_optimizer_state_and_theta0_is_frozen(root, form):
    plan, whole = planned(root, **{"train.adapter": form}), planned(root)
    rank_numbers = LAYERS * sum(RANK * (inputs + outputs) for inputs, outputs in KERNELS.values())
    lengths = LAYERS * sum(outputs for _, outputs in KERNELS.values()) if form == "dora" else 0
    found, full = resident(plan), resident(whole)
    assert found.trainable == found.theta0 == 4 * (rank_numbers + lengths) == trained_bytes(plan.workload())
    assert found.optimizer == pytest.approx(2 * found.trainable, abs=16)
    in_kernels = LAYERS * sum(math.prod(shape) for shape in KERNELS.values())
    saved = (
        in_kernels * 4
        - in_kernels // 2
        - 4 * LAYERS * sum(outputs * -(-inputs // 64) for inputs, outputs in KERNELS.values())
    )
    assert found.frozen == full.trainable - (saved if form == "qlora" else 0)


def test_the_compiler_holds_as_much_as_the_plan_says(root):
    plan = planned(root, **{"train.adapter": "qlora"})
    exact = resident(plan)
    compiled = compile_step(plan.task(), ONE, jax.devices()[:1]).arguments
    assert compiled == pytest.approx(exact.trainable + exact.frozen + exact.optimizer + exact.batch, rel=0.01)


def test_gradients_are_planned_in_their_space_and_a_merged_model_has_no_adapters(root):
    data = DataSize(6, 100, 48, 0, 1.0, "")
    full, adapters, none = (
        planned(root, **{"train.adapter": "lora", "gradients.reduction": "stride", **changes})
        for changes in ({}, {"gradients.space": "adapter"}, {"train.adapter": ""})
    )
    numbers = sum(math.prod(leaf.shape) for leaf in tree.flatten(adapters.architecture().abstract).values())
    assert adapters.workload().kept < full.workload().kept == none.workload().kept
    costs = [{cost.name: cost for cost in stage_costs(plan.workload(), data)} for plan in (full, adapters, none)]
    assert costs[1]["gradients"].flops < costs[0]["gradients"].flops
    assert costs[1]["one branch"].storage == trained_bytes(adapters.workload()) < costs[2]["one branch"].storage
    assert (
        costs[0]["merge"].storage
        == costs[2]["merge"].storage
        == 8 * (numbers - trained_bytes(adapters.workload()) // 4)
    )
