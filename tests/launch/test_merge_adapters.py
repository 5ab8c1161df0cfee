"""merit merge with adapters of PEFT: the folded models' merge, or one adapter that is the sum of all."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import tests.support.tiny as tiny
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.wiring.merge_adapters import merge_adapters
from merit_jax.launch.wiring.merge_folders import merge_folders
from merit_jax.models import StoredTensors
from merit_jax.models.pretrained.peft_folder import AdaptedTensors
from tests.launch.test_commands import commands
from tests.models.pretrained.test_peft_folder import DOWN, QUERY, adapter, of_peft

WEIGHTS = [0.25, 0.75]


@pytest.fixture
def folders(tmp_path):
    """A base, and two adapters of it on modules that only partly agree, with scales of their own."""
    base, rng = tiny.folder(tmp_path / "base"), np.random.default_rng(3)
    shapes = {QUERY: (24, 24), DOWN: (40, 24)}

    def parts(rank, *modules):
        return {
            f"base_model.model.{module}.lora_{name}.weight": rng.normal(0, 0.3, shape).astype(np.float32)
            for module in modules
            for name, shape in (("A", (rank, shapes[module][0])), ("B", (shapes[module][1], rank)))
        }

    one = adapter(tmp_path / "one", parts(2, QUERY))
    other = adapter(tmp_path / "other", parts(3, QUERY, DOWN), r=3, lora_alpha=5, use_rslora=True)
    return str(base), [str(one), str(other)]


def test_a_merge_is_the_base_and_the_weighted_sum_of_the_scaled_products(folders, tmp_path):
    base, adapters = folders
    merge_folders(base, adapters, WEIGHTS, "token_weighted", {}, str(tmp_path / "out"))
    found, theta0 = StoredTensors(tmp_path / "out"), StoredTensors(base)
    stored = [load_file(f"{folder}/adapter_model.safetensors") for folder in adapters]
    scales = [6 / 2, 5 / 3**0.5]
    for key in theta0.specs:
        lora = f"base_model.model.{key.removesuffix('.weight')}.lora_"
        total = sum(
            weight * scale * parts[f"{lora}B.weight"] @ parts[f"{lora}A.weight"]
            for weight, scale, parts in zip(WEIGHTS, scales, stored, strict=True)
            if f"{lora}A.weight" in parts
        )
        np.testing.assert_allclose(found.read(key), theta0.read(key) + total, atol=3e-6)


def test_one_adapter_is_the_same_model_and_truncated_says_what_is_lost(folders, tmp_path):
    base, adapters = folders
    merge_folders(base, adapters, None, "task_arithmetic", {"scale": 0.7}, str(tmp_path / "whole"))
    merge_adapters(base, adapters, None, "task_arithmetic", {"scale": 0.7}, str(tmp_path / "sum"))
    whole, found = StoredTensors(tmp_path / "whole"), AdaptedTensors(tmp_path / "sum", StoredTensors(base))
    assert [found.settings.rank_of(module) for module in (QUERY, DOWN)] == [5, 3]
    for key in whole.specs:
        np.testing.assert_allclose(found.read(key), whole.read(key), atol=3e-6)
    merge_adapters(base, adapters, None, "task_arithmetic", {"scale": 0.7}, str(tmp_path / "short"), 2)
    record = json.loads((tmp_path / "short/merit.json").read_text())["adapter"]
    changed = [found.read(key) - found.base.read(key) for key in found.updates]
    squares = [np.linalg.svd(part.astype(np.float64), compute_uv=False) ** 2 for part in changed]
    lost = sum(part[2:].sum() for part in squares) / sum(part.sum() for part in squares)
    assert record["ranks"] == [2]
    assert record["lost_share_of_squared_norm"] == pytest.approx(lost, rel=1e-4)
    card = (tmp_path / "short/README.md").read_text()
    assert "library_name: peft" in card
    assert f"{100 * record['lost_share_of_squared_norm']:.4g} % of the squared norm is lost" in card


def test_the_command_takes_adapters_and_names_what_it_cannot_do_with_them(folders, tmp_path):
    base, (one, other) = folders
    dora = {f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(24, np.float32)}
    with_lengths = adapter(tmp_path / "dora", load_file(f"{one}/adapter_model.safetensors") | dora, use_dora=True)
    given = [f"--base={base}", f"--models={one},{other}", "--adapter"]
    mistakes = {
        "--method=ties is not linear": ["--method=ties", "--out=c"],
        "is no adapter of PEFT; leave out --adapter": [f"--models={one},{base}", "--out=c"],
        "the adapter is DoRA's, so it is no sum of low-rank products": [f"--models={one},{with_lengths}", "--out=c"],
        "a exists and is not an empty folder": ["--out=a"],
        "--adapter_rank is the rank of an adapter; give --adapter too": ["--noadapter", "--adapter_rank=2", "--out=c"],
    }
    lines = [[*given, "--out=a"], [*given, "--noadapter", "--out=b"], *([*given, *line] for line in mistakes.values())]
    (code, *_), (whole, *_), *failed = commands(tmp_path, "merge", lines)
    assert (code, whole) == (0, 0)
    assert not (tmp_path / "b" / "mergekit.yaml").exists()  # which would name adapters as models
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "merit.json",
    ]
    for (mistake, line), (code, _, error) in zip(mistakes.items(), failed, strict=True):
        assert code == MISTAKE, (line, error)
        assert mistake in error, (line, error)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_peft_makes_of_the_merged_adapter_the_weights_of_the_merged_folder(tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    base = tiny.folder(tmp_path / "base")
    load = lambda: AutoModelForCausalLM.from_pretrained(base, dtype="float32")  # noqa: E731
    of_peft(tmp_path / "one", load(), r=2, target_modules=["q_proj", "embed_tokens"])
    of_peft(tmp_path / "other", load(), r=3, lora_alpha=5, use_rslora=True)
    adapters = [str(tmp_path / name) for name in ("one", "other")]
    merge_folders(str(base), adapters, WEIGHTS, "token_weighted", {}, str(tmp_path / "whole"))
    merge_adapters(str(base), adapters, WEIGHTS, "token_weighted", {}, str(tmp_path / "sum"))
    tokens = torch.from_numpy(tiny.rows(9, 9, width=9).tokens).long()
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="float32")
    both = peft.PeftModel.from_pretrained(load(), tmp_path / "sum")
    with torch.no_grad():
        np.testing.assert_allclose(both(input_ids=tokens).logits, whole(input_ids=tokens).logits, atol=1e-4)
