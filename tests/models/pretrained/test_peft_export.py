"""Updates of kernels under the names of a checkpoint's weights, also where one weight is several kernels."""

import numpy as np
import pytest

import tests.support.tiny as tiny
from merit_jax.models.adapters.low_rank import LowRank
from merit_jax.models.io.weight_map import tensor_of
from merit_jax.models.pretrained.load import open_pretrained
from merit_jax.models.pretrained.peft_export import placed_updates


def updated(tmp_path, family, paths):
    """A checkpoint, random updates of some of its kernels, and those updates by the names of weights."""
    pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = tiny.hf_config(family)
    fields = {key: value for key, value in fields.items() if key != "rope_theta" or "rope_parameters" not in fields}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path / "hf")
    opened, rng = open_pretrained(tmp_path / "hf"), np.random.default_rng(0)
    updates = {}
    for path in paths:
        *layers, inputs, outputs = opened.paths()[path].shape
        updates[path] = LowRank(rng.normal(size=(*layers, inputs, 2)), rng.normal(size=(*layers, 2, outputs)))
    return opened, updates


@pytest.mark.parity
@pytest.mark.parametrize("name", ["value", "query,value", "query,key,value"])
def test_updates_of_kernels_that_are_one_weight_become_one_update_of_it(tmp_path, name):
    paths = [f"layers/attention/{part}/kernel" for part in name.split(",")]
    opened, updates = updated(tmp_path, "phi3", [*paths, "layers/mlp/up/kernel"])
    found = placed_updates(opened, updates)
    assert set(found) == {
        f"model.layers.{n}.{key}.weight" for n in range(3) for key in ("self_attn.qkv_proj", "mlp.gate_up_proj")
    }
    expected = {key: np.zeros(opened.checkpoint.specs[key].shape) for key in found}
    for path, update in updates.items():
        for place in opened.plan.leaves[path]:
            expected[place.key][place.rows[0] : place.rows[1]] += tensor_of(update.a @ update.b, place)
    for key, placed in found.items():
        np.testing.assert_allclose((placed.update.a @ placed.update.b).T, expected[key], atol=1e-5, err_msg=key)
    assert found["model.layers.0.self_attn.qkv_proj.weight"].update.rank == 2 * len(paths)
