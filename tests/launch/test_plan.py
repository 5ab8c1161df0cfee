"""`merit plan` from end to end: without weights, without data, and with both."""

import json
from pathlib import Path

import numpy as np
import pytest

from merit_jax import configs
from merit_jax.data.loader import training_batches
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.console.plan_tables import describe
from merit_jax.launch.wiring.plan_inputs import PlanInputs, open_config
from merit_jax.launch.wiring.plan_run import configured_execution, plan_run
from merit_jax.partition import branches
from merit_jax.planning.topology import parse_topology
from merit_jax.planning.workload import DataSize, Rate
from tests.launch.test_commands import commands
from tests.support import world

ARCHITECTURES = Path(configs.__file__).parent / "architectures"
PARAMETERS = {
    "Ministral-8B-Instruct-2410": 8_019_808_256,
    "Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "OLMo-2-1124-7B": 7_298_617_344,
    "Olmo-3-7B": 7_298_011_136,
    "Phi-4-mini-instruct": 3_836_021_760,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen3-VL-8B-Instruct": 8_767_123_696,
    "SmolLM2-135M-Instruct": 134_515_008,
    "SmolLM3-3B": 3_075_098_624,
    "SmolVLM-256M-Instruct": 256_484_928,
    "gemma-3-1b-it": 999_885_952,
    "granite-3.3-2b-instruct": 2_533_539_840,
    "phi-4": 14_659_507_200,
    "gemma-3-12b-it": 12_187_325_040,
    "gemma-3-27b-it": 27_432_406_640,
    "gemma-3-4b-it": 4_300_079_472,
}
CONFIG = """
from merit_jax.configs import common

def get_config(method="merit2d"):
    c = common.get_config()
    c.model.path = {model!r}
    c.mixture.path = {mixture!r}
    c.mixture.max_length = 64
    c.train.row_length = 64
    c.gradients.buckets = (64,)
    return common.with_method(c, method)
"""


def planned(method="merit2d", **changes):
    """The plan of a published model on eight H100, estimated."""
    from merit_jax.configs import qwen2_5_vl_3b_vision_flan

    config = qwen2_5_vl_3b_vision_flan.get_config(method)
    with config.unlocked():
        config.update_from_flattened_dict({"train.row_length": 256, "train.image_tokens": 128, **changes})
    plan, topology = PlanInputs(config, "bfloat16"), parse_topology("h100:8")
    rate, data = Rate(8, topology.chip.peak, 0.5, 2.0), DataSize(136, 1000, 136 * 200, 0, 1.0, "assumed")
    return plan_run(plan, topology, memory="auto", rate=rate, data=data, search=True)


def test_shipped_architectures_have_the_published_numbers_of_parameters():
    assert {folder.name for folder in ARCHITECTURES.iterdir()} == set(PARAMETERS)
    for name, expected in PARAMETERS.items():
        config = world_config(name)
        sizes = [
            leaf.size for leaf in world.tree.flatten(PlanInputs(config, "bfloat16").architecture().abstract).values()
        ]
        assert sum(sizes) == expected, name


def world_config(path):
    from merit_jax.configs import common

    config = common.get_config()
    config.model.path = path
    return config


@pytest.mark.parametrize("average", ["token", "example"])
def test_the_average_of_training_is_planned(average):
    config = world_config("SmolLM2-135M-Instruct")
    config.train.average = average
    assert PlanInputs(config, "bfloat16").task().average == average


def test_a_model_without_a_config_is_refused_and_the_shipped_ones_are_named():
    with pytest.raises(ValueError, match=r"there is no nothing/config.json.*Qwen2.5-VL-3B-Instruct"):
        open_config("nothing")
    assert open_config("/elsewhere/Qwen2.5-3B")[0] == str(ARCHITECTURES / "Qwen2.5-3B" / "config.json")


def test_a_plan_of_a_published_model_adds_up():
    result = planned()
    work = {stage.name: stage for stage in result.stages}
    joint, branch = work["joint training"], work["one branch"]
    assert branch.flops * 4 == work["all 4 branches"].flops == joint.flops
    assert joint.tokens == 1000 * 24 * 256
    decoder = 3_085_938_688
    assert joint.storage == 4 * decoder
    assert work["gradients"].storage == 136 * 4 * 2**18
    assert joint.flops > 6 * (decoder - 151936 * 2048) * joint.tokens
    assert result.between.merit == 4 * joint.storage
    assert result.between.joint == 1000 * 2 * 3 * joint.storage
    seconds = joint.flops / (8 * 989e12 * 0.5)
    assert result.rate.seconds(joint.flops) == pytest.approx(seconds)
    assert result.rate.dollars(joint.flops) == pytest.approx(seconds / 3600 * 8 * 2)
    assert result.configured.fits
    assert result.configured.compiled is None
    held = result.configured.resident
    assert held.trainable + held.frozen == pytest.approx(4 * 3_754_622_976 / 8, rel=0.01)
    assert held.optimizer == pytest.approx(2 * held.trainable, rel=0.01)


def test_the_papers_stride_stores_a_fifth_of_each_gradient():
    work = {stage.name: stage for stage in planned(**{"gradients.reduction": "stride"}).stages}
    assert work["gradients"].storage == pytest.approx(136 * 4 * 3_085_938_688 / 5, rel=0.01)


def test_a_split_by_curvature_is_planned_with_its_products():
    works = [{stage.name: stage for stage in planned(method).stages} for method in ("merit2d", "curvature2d")]
    assert "curvature" not in works[0]
    found, gradients = works[1]["curvature"], works[1]["gradients"]
    products = 136 * 136 * 8
    assert found.tokens == gradients.tokens // (136 * 200) * (136 * 200 + products)
    assert found.storage == gradients.storage
    each = (found.flops - gradients.flops) / products * 136 * 200 / gradients.flops
    assert each == pytest.approx(5 / 3, abs=0.2)


def test_an_impossible_execution_leads_to_the_nearest_possible_one():
    result = planned(**{"train.batch_size": 12, "train.micro_batches": 1})
    assert result.configured.obstacle == (
        "12 rows of a batch cannot be sharded over data x fsdp = 8 devices; use a multiple of 8"
    )
    assert result.nearest is not None
    assert result.nearest.fits
    assert "--config.mesh.fsdp=4 --config.mesh.tensor=2 --config.train.batch_size=12" in describe(result.nearest)
    assert result.calibration.obstacle is None


def test_a_mesh_that_does_not_divide_is_refused():
    config = world_config("Qwen2.5-3B")
    config.mesh.data = 3
    with pytest.raises(ValueError, match=r"h100:8: mesh data=3 .* does not cover 8 devices"):
        configured_execution(PlanInputs(config, "bfloat16"), parse_topology("h100:8"))


def test_steps_are_those_of_the_joint_run_where_the_mixture_can_be_read(tmp_path):
    run = world.run(tmp_path, "run")
    data = PlanInputs(run.config, "float32").data(0, 0)
    (joint,) = branches.from_groups(run.names, np.zeros(len(run.names), np.int32), run.config.seed)
    cfg = run.config.train
    batches = training_batches(
        run.datasets,
        joint,
        epochs=cfg.epochs,
        row_length=cfg.row_length,
        batch_size=cfg.batch_size,
        seed=run.config.seed,
    )
    assert (data.datasets, data.steps) == (len(run.names), batches.steps)
    assert data.supervised == batches.tokens / (batches.steps * cfg.batch_size * cfg.row_length)
    assert data.held_out == sum(len(dataset.held_out) for dataset in run.datasets)


def test_the_command_plans_for_eight_cpus_and_tells_mistakes_in_one_line(tmp_path):
    model = world.checkpoint(tmp_path / "theta0")
    for name in ("model.safetensors", "tokenizer.json"):
        (model / name).unlink()
    (tmp_path / "config.py").write_text(CONFIG.format(model=str(model), mixture="absent/*.jsonl"))
    given = ["--config=config.py"]
    lines = [
        [*given, "--topology=cpu:8", "--json=plan.json", "--peak_tflops=0.1", "--price=1"],
        [*given, "--topology=v9:8x8"],
        [*given, "--topology=cpu:8", "--config.mesh.data=3"],
        [*given, "--topology=cpu:8", "--config.model.path=absent"],
    ]
    fine, unknown, mesh, absent = commands(tmp_path, "plan", lines)
    assert [line[0] for line in (fine, unknown, mesh, absent)] == [0, *[MISTAKE] * 3], (fine, mesh, absent)
    assert "unknown chip 'v9'" in unknown[2]
    assert "mesh data=3" in mesh[2]
    assert "there is no absent/config.json" in absent[2]
    assert not any("Traceback" in line[2] for line in (unknown, mesh, absent))
    for text in ("Memory", "Work of the stages", "MERIT", "assumed: 1,000 steps (give --steps)", "compiled in"):
        assert text in fine[1]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["asked"]["fits"]
    assert plan["asked"]["setting"]["fsdp"] == 8
    assert plan["stages"]["joint training"]["dollars"] > 0
