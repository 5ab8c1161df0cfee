"""Runs whose branches are adapters: what they keep, what their merge is, and what PEFT makes of the export."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from safetensors import safe_open

from merit_jax.checkpoints.readers import OverlayLeaves
from merit_jax.configs.schema.check import check
from merit_jax.core import tree
from merit_jax.evaluation.scoring import likelihoods
from merit_jax.launch.wiring.adapter_export import export_adapter
from merit_jax.merging import MERGERS
from merit_jax.pipeline import held_out_loss
from merit_jax.pipeline.branch_parameters import branch_start, gradient_space
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.evaluators import batch_shapes
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import branch_leaves, checkpoint_leaves, train_branch
from merit_jax.workdir.artifacts import read_json
from tests.support import world

pytest.importorskip("qwix")
pytestmark = pytest.mark.usefixtures("one_device")

LORA = {"train.adapter": "lora", "train.adapter_rank": 3, "train.adapter_alpha": 6.0, "train.learning_rate": 3e-2}
BRANCH_STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_device):
    run = world.run(tmp_path_factory.mktemp("adapters"), "lora", "merit1d", **LORA)
    run_stages(run, BRANCH_STAGES)
    return run


def leaves(reader):
    return {path: reader.read(path) for path in reader.paths()}


def products(run, kernel, scale=2.0):
    """S A B of each branch."""
    found = [checkpoint_leaves(run, k) for k in range(2)]
    return [scale * part.read(f"{kernel}_lora_a") @ part.read(f"{kernel}_lora_b") for part in found]


def test_checkpoints_hold_adapters_only_and_are_bound_to_theta0(trained):
    held = checkpoint_leaves(trained, 0).paths()
    assert {path.rpartition("/")[2] for path in held} == {"kernel_lora_a", "kernel_lora_b"}
    assert len(held) == 14
    done = read_json(trained.workdir.branch_done(0))
    assert done["inputs"]["theta0"] == trained.theta0_fingerprint
    assert done["inputs"]["train"]["adapter_rank"] == 3
    start = tree.flatten(branch_start(trained)[0])
    moved = leaves(checkpoint_leaves(trained, 0))
    assert all(np.abs(moved[path] - start[path]).max() > 0 for path in moved)


def test_a_merge_is_theta0_and_the_weighted_sum_of_the_products_and_leaves_all_else_alone(trained):
    theta0, merged = leaves(trained.theta0.leaves()), leaves(merged_leaves(trained.workdir))
    weights, kernels = read_json(trained.workdir.merge_record)["weights"], trained.adapter.kernels
    assert weights[0] != weights[1]
    for path, leaf in merged.items():
        if path not in kernels:
            assert leaf.tobytes() == theta0[path].tobytes(), path
            continue
        total = sum(weight * part for weight, part in zip(weights, products(trained, path), strict=True))
        np.testing.assert_allclose(leaf, theta0[path] + total, atol=2e-7)
        assert np.abs(total).max() > 1e-3


@pytest.mark.parametrize("method", ["ties", "star"])
def test_other_operators_merge_the_folded_models(trained, tmp_path, method):
    run = world.copied(trained, tmp_path, "merit1d", overwrite=True, **LORA)
    with run.config.unlocked():
        run.config.merge.method = method
    run_stages(run, ("merge",))
    theta0 = leaves(run.theta0.leaves())
    folded = [
        {**theta0, **{path: theta0[path] + products(run, path)[k] for path in run.adapter.kernels}} for k in range(2)
    ]
    weights = read_json(trained.workdir.merge_record)["weights"]
    expected = tree.flatten(MERGERS[method](tree.unflatten(theta0), [tree.unflatten(f) for f in folded], weights))
    for path, leaf in leaves(merged_leaves(run.workdir)).items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)
    with pytest.raises(
        ValueError, match=rf"'{method}' of train.adapter = 'lora' differs from theta0 by no sum of low-rank"
    ):
        export_adapter(run, None, tmp_path / "peft", 0)
    export_adapter(run, None, tmp_path / "peft", 32)  # no less than the sides of a kernel: nothing is lost
    assert json.loads((tmp_path / "peft/merit.json").read_text())["adapter"]["lost_share_of_squared_norm"] < 1e-9


def test_a_killed_branch_ends_bit_equal(trained, tmp_path, monkeypatch):
    run = world.run(world.beside(trained, tmp_path), "again", "merit1d", **LORA)
    run_stages(run, BRANCH_STAGES[:4])
    step, calls = run.train_step, []

    def dies(*args):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(type(run), "train_step", property(lambda _: dies))
    with pytest.raises(KeyboardInterrupt):
        train_branch(run, 0)
    monkeypatch.undo()
    assert not run.workdir.branch_done(0).exists()
    assert train_branch(run, 0)
    fingerprints = [read_json(r.workdir.branch_done(0))["fingerprint"] for r in (run, trained)]
    assert fingerprints[0] == fingerprints[1]


def test_other_settings_are_another_branch(trained, tmp_path):
    run = world.copied(trained, tmp_path, "merit1d", **{**LORA, "train.adapter_alpha": 7.0})
    with pytest.raises(ValueError, match=r"train.adapter_alpha: 6.0 -> 7.0"):
        run_stages(run, ("train",))


def test_gradients_in_the_space_of_adapters_are_those_of_the_kernels_times_a(trained, tmp_path):
    plain = {"gradients.reduction": "stride", "gradients.stride": 1, **LORA}
    run = world.run(world.beside(trained, tmp_path), "space", "merit1d", **plain, **{"gradients.space": "adapter"})
    run_stages(run, ("mixture", "gradients"))
    whole = world.run(tmp_path, "whole", "merit1d", **plain)
    run_stages(whole, ("mixture", "gradients"))
    assert read_json(run.workdir.gradient_index)["inputs"]["adapter"]["adapter"] == "lora"
    assert "adapter" not in read_json(whole.workdir.gradient_index)["inputs"]
    start, theta0 = branch_start(run)[0], whole.theta0.leaves().paths()
    space = gradient_space(run)
    assert len(space.trainable) == len(start)
    found = unpacked(rows(run)[0], {path: leaf.shape for path, leaf in start.items()})
    full = unpacked(rows(whole)[0], {path: spec.shape for path, spec in theta0.items()})
    for kernel, (a, b) in run.adapter.kernels.items():
        expected = 2.0 * np.swapaxes(np.asarray(start[a]), -1, -2) @ full[kernel]
        np.testing.assert_allclose(found[b], expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-3)
        assert not found[a].any()


def rows(run):
    from merit_jax.gradients.store import GradientStore

    return [np.asarray(row) for row in GradientStore(run.workdir.gradients).rows(run.names)]


def unpacked(row, shapes):
    """The leaves that a row of stride 1 joins, in order of their paths."""
    found, start = {}, 0
    for path, shape in sorted(shapes.items()):
        size = int(np.prod(shape))
        found[path], start = row[start : start + size].reshape(shape), start + size
    assert start == len(row)
    return found


@pytest.mark.parametrize("form", ["qdora", "qrslora"])
def test_branches_over_a_base_in_four_bits_are_written_into_theta0_itself(trained, tmp_path, form):
    options = {**LORA, "train.adapter": form, "gradients.space": "adapter"}
    run = world.run(world.beside(trained, tmp_path), form, "merit1d", **options)
    run_stages(run)
    theta0, updates = run.theta0.leaves(), leaves(checkpoint_leaves(run, 0))
    kernel = "layers/mlp/up/kernel"
    scale = 6 / 3**0.5 if form == "qrslora" else 2.0
    expected = theta0.read(kernel) + scale * updates[f"{kernel}_lora_a"] @ updates[f"{kernel}_lora_b"]
    if form == "qdora":
        expected *= updates[f"{kernel}_dora_magnitude"][:, None] / np.linalg.norm(expected, axis=1, keepdims=True)
        with pytest.raises(
            ValueError, match="'qdora' differs from theta0 by no sum of low-rank products; export the whole"
        ):
            export_adapter(run, None, tmp_path / "peft", 0)
    np.testing.assert_allclose(branch_leaves(run, 0).read(kernel), expected, atol=1e-6)
    assert set(read_json(run.workdir.evaluation)["models"]) >= {"theta0", "merged"}


def test_rounds_train_new_adapters_on_each_rounds_start(trained, tmp_path):
    run = world.run(world.beside(trained, tmp_path), "rounds", "merit1d", **LORA, **{"rounds.count": 2})
    run_stages(run, ("mixture", "gradients", "conflict", "partition", "train", "merge"))
    record = read_json(run.workdir.merge_record)
    assert len(record["rounds"]["trained"]) == 2
    held = sum(spec.size * 4 for spec in run.adapter.abstract.values())
    assert record["rounds"]["bytes"]["up_per_round"] == held
    with pytest.raises(ValueError, match=r"--adapter exports what train.adapter has trained, without rounds"):
        export_adapter(run, None, tmp_path / "peft", 0)


MISTAKES = {
    "gradients.space = 'adapter' takes gradients of the updates of train.adapter": {"gradients.space": "adapter"},
    "train.keep_second_moment keeps that of the trained leaves": {**LORA, "train.keep_second_moment": True},
    "conflict.similarity = 'curvature' needs gradients of theta0's own": {
        **LORA,
        "gradients.space": "adapter",
        "conflict.similarity": "curvature",
    },
    "train.adapter = 'lroa'; expected": {"train.adapter": "lroa"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_keys_that_do_not_go_together_are_named(trained, tmp_path, message):
    config = world.config(world.beside(trained, tmp_path), "merit1d").unlock()
    config.update_from_flattened_dict(MISTAKES[message])
    with pytest.raises(ValueError, match=re.escape(message)):
        check(config)


@pytest.mark.parametrize("form", ["lora", "qlora"])
def test_the_held_out_loss_is_that_of_the_trained_model(trained, tmp_path, form):
    changes = LORA | {"train.adapter": form, "train.held_out_every": 2, "train.held_out_examples": 4}
    run = world.copied(trained, tmp_path, "merit1d", overwrite=True, **changes)
    run.workdir.branch(0).rmtree()
    train_branch(run, 0)
    lines = [json.loads(line) for line in Path(run.workdir.branch_metrics(0)).read_text().splitlines()]
    found = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    assert found[-1] < found[0] - 0.05
    branch = load_partition(run).branches[0]
    examples = [example for _, example in held_out_loss._examples(run, branch)]

    def loss(params):
        nll, tokens = likelihoods(jax.jit(run.loss_fn), params, examples, batch_shapes(run)).sum(axis=0)
        return nll / tokens

    last = tree.unflatten(leaves(OverlayLeaves(run.theta0.leaves(), branch_leaves(run, 0))))
    near = {"rel": 1e-4} if form == "lora" else {"abs": 0.2}  # it trains over theta0 in four bits
    assert found[0] == pytest.approx(loss(run.params), **near)
    assert found[-1] == pytest.approx(loss(last), **near)


def test_an_exported_adapter_leaves_excluded_kernels_as_the_merge_does(trained, tmp_path):
    run = world.copied(trained, tmp_path, "merit1d", overwrite=True, **LORA, **{"merge.exclude": ("mlp/",)})
    run_stages(run, ("merge",))
    export_adapter(run, None, tmp_path / "adapter", 0)
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "np") as file:
        names = set(file.keys())
    assert any(".q_proj." in name for name in names)
    assert not any(".mlp." in name for name in names)


def test_an_outer_step_is_no_sum_of_the_branches_products(trained, tmp_path):
    run = world.copied(trained, tmp_path, "merit1d", overwrite=True, **LORA, **{"rounds.outer_rate": 0.5})
    run_stages(run, ("merge",))
    with pytest.raises(ValueError, match="by no sum of low-rank products"):
        export_adapter(run, None, tmp_path / "adapter", 0)
    export_adapter(run, None, tmp_path / "adapter", 6)
    kernel = "layers/attention/query/kernel"
    moved = merged_leaves(run.workdir).read(kernel) - run.theta0.leaves().read(kernel)
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "np") as file:
        stem = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
        update = file.get_tensor(f"{stem}B.weight") @ file.get_tensor(f"{stem}A.weight")
    np.testing.assert_allclose(update.T, moved[1], atol=1e-5)


def hf_logits(model, tokens):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(tokens).long()).logits.numpy()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_peft_gives_the_logits_of_the_merged_model_and_of_its_export(trained, tmp_path, caplog):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    folded, theta0 = tmp_path / "folded", Path(trained.theta0.path)
    trained.theta0.export(merged_leaves(trained.workdir).read, epath.Path(folded), {})
    tokens = np.random.default_rng(0).integers(1, 90, (2, 12)).astype(np.int32)
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    batch = next(iter(calibration_batches(trained, trained.datasets[0])))
    batch = batch._replace(tokens=tokens, positions=positions, segments=np.ones_like(tokens))
    params = tree.unflatten(leaves(merged_leaves(trained.workdir)))
    own = np.asarray(trained.model.unembed(params, trained.model.hidden(params, batch)))
    whole = hf_logits(AutoModelForCausalLM.from_pretrained(folded, dtype="float32"), tokens)
    np.testing.assert_allclose(whole, own, atol=1e-4)

    def with_adapter(branch, rank):
        out = tmp_path / f"peft-{branch}-{rank}"
        export_adapter(trained, branch, out, rank)
        base = AutoModelForCausalLM.from_pretrained(theta0, dtype="float32")
        model = peft.PeftModel.from_pretrained(base, out)
        return json.loads((out / "merit.json").read_text())["adapter"], hf_logits(model, tokens)

    exact, logits = with_adapter(None, 0)
    assert exact == {"ranks": [6], "lost_share_of_squared_norm": 0.0}
    np.testing.assert_allclose(logits, own, atol=1e-4)

    branch = tree.unflatten(leaves(OverlayLeaves(trained.theta0.leaves(), branch_leaves(trained, 1))))
    alone, logits = with_adapter(1, 0)
    assert alone["ranks"] == [3]
    np.testing.assert_allclose(logits, trained.model.unembed(branch, trained.model.hidden(branch, batch)), atol=1e-4)

    with caplog.at_level("INFO", logger="merit_jax"):
        truncated, logits = with_adapter(None, 2)
    assert truncated["ranks"] == [2]
    assert 0 < truncated["lost_share_of_squared_norm"] < 1
    assert (
        f"rank 2 keeps all but {100 * truncated['lost_share_of_squared_norm']:.4g} % of the squared norm" in caplog.text
    )
    assert np.abs(logits - own).max() > 1e-4
    start, merged = trained.theta0.leaves(), tree.flatten(params)
    squares = [
        np.linalg.svd(merged[path] - start.read(path), compute_uv=False) ** 2 for path in trained.adapter.kernels
    ]
    lost = sum(part[:, 2:].sum() for part in squares) / sum(part.sum() for part in squares)
    assert truncated["lost_share_of_squared_norm"] == pytest.approx(lost, rel=1e-3)
