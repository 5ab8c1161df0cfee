"""A run's training configuration in each tool's words: every key where that tool reads it, or refused."""

import json
from pathlib import Path

import pytest
import yaml

from merit_jax.core.types import Record
from merit_jax.launch.emitting import EMITTERS
from merit_jax.launch.emitting.interface import BranchData, DataFile
from merit_jax.launch.emitting.settings import branch_settings, frozen_parts, unsaid
from merit_jax.pipeline.partition_mixture import load_partition
from tests.launch.emitting import emitted
from tests.launch.emitting.cases import SETTINGS, VISION
from tests.support import world

SCHEMAS = Path(__file__).parent / "schemas"
TURNS = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
ONE = BranchData((DataFile("qa", "qa", [Record(TURNS, None, "f:1")]),), False, True)
KINDS = {"bool": bool, "int": int, "float": int | float, "str": str, "list": list, "dict": dict, "null": type(None)}
VARIANTS = {
    "packed": SETTINGS,
    "float32": SETTINGS._replace(bf16=False, schedule="constant", warmup_steps=0, clip_norm=0.0),
    "lion": SETTINGS._replace(optimizer="lion", end_of_turn="<|eot_id|>"),
    "vision": VISION,
}


def configuration(tool, settings, data=ONE):
    return yaml.safe_load(EMITTERS[tool].files(settings, data)["train.yaml"])


@pytest.mark.parametrize("tool", EMITTERS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("one_response", [True, False])
def test_every_key_is_one_of_the_tools_and_has_a_type_that_it_takes(tool, variant, one_response):
    schema = json.loads((SCHEMAS / f"{tool}.json").read_text())
    assert schema["recorded_from"] == EMITTERS[tool].checked
    files = EMITTERS[tool].files(VARIANTS[variant], ONE._replace(one_response=one_response))
    found = yaml.safe_load(files["train.yaml"])
    lists = [*found.get("datasets", []), *json.loads(files.get("dataset_info.json", "{}")).values()]
    assert len(lists) == 1
    for part, values in (("train.yaml", found), ("dataset", lists[0])):
        wrong = {
            key: value
            for key, value in values.items()
            if not isinstance(value, tuple(KINDS[kind] for kind in schema[part].get(key, ())))  # type: ignore[arg-type]
        }
        assert not wrong, f"not keys of {schema['recorded_from']}, or of another type"


HUGGING_FACE = {
    "learning_rate": 2e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "num_train_epochs": 2.0,
    "optim": "adamw_torch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "seed": 7,
    "bf16": True,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "output_dir": "model-1",
}
AXOLOTL = {
    "lr_scheduler_type": "lr_scheduler",
    "num_train_epochs": "num_epochs",
    "optim": "optimizer",
    "per_device_train_batch_size": "micro_batch_size",
}


@pytest.mark.parametrize("tool", EMITTERS)
def test_settings_stand_under_the_tools_own_names(tool):
    renamed = AXOLOTL if tool == "axolotl" else {}
    expected = {renamed.get(key, key): value for key, value in HUGGING_FACE.items()}
    model = "base_model" if tool == "axolotl" else "model_name_or_path"
    found = configuration(tool, SETTINGS)
    assert {key: found[key] for key in expected} == expected
    assert found[model] == "/models/base"


def test_packing_and_lengths():
    assert {key: configuration("trl", SETTINGS)[key] for key in ("packing", "max_length")} == {
        "packing": True,
        "max_length": 1024,
    }
    assert configuration("llamafactory", SETTINGS)["neat_packing"] is True
    assert configuration("llamafactory", SETTINGS)["cutoff_len"] == 1024
    odd = SETTINGS._replace(row_length=1001)
    assert configuration("llamafactory", odd)["cutoff_len"] == 1008  # another than a multiple of 8 fails there
    assert configuration("axolotl", SETTINGS)["sequence_len"] == 1024
    alone = SETTINGS._replace(bf16=False)
    assert configuration("trl", alone)["max_length"] == configuration("axolotl", alone)["sequence_len"] == 512
    for tool, size in (("trl", "per_device_train_batch_size"), ("axolotl", "micro_batch_size")):
        found = configuration(tool, alone)
        assert found[size] * found["gradient_accumulation_steps"] == 90  # examples, where a row holds one
    assert configuration("axolotl", SETTINGS)["excess_length_strategy"] == "truncate"  # its default drops the row


def test_frozen_parts_stay_frozen():
    found = configuration("llamafactory", VISION)
    assert (found["freeze_vision_tower"], found["freeze_multi_modal_projector"]) == (True, True)
    assert (found["freeze_language_model"], found["template"], found["packing"]) == (False, "qwen2_vl", False)
    assert "template" not in configuration("llamafactory", SETTINGS)


def test_what_counts_in_the_loss():
    assert configuration("trl", SETTINGS)["completion_only_loss"] is True
    assert configuration("trl", SETTINGS, ONE._replace(one_response=False))["assistant_only_loss"] is True
    assert "eot_tokens" not in configuration("axolotl", SETTINGS)
    assert configuration("axolotl", SETTINGS._replace(end_of_turn="<|eot_id|>"))["eot_tokens"] == ["<|eot_id|>"]


PATHS = dict.fromkeys(("vision/a", "vision/b", "projector/a", "decoder/a"))


@pytest.mark.parametrize(
    ("paths", "trainable", "expected"),
    [
        (PATHS, (".*",), ()),
        (PATHS, ("^projector/",), ("vision", "decoder")),
        ({"layers/a": 0, "norm": 0}, (".*",), ()),
    ],
)
def test_parts_that_no_pattern_finds_are_frozen(paths, trainable, expected):
    assert frozen_parts(paths, trainable)[1] == expected


@pytest.mark.parametrize(
    ("paths", "trainable"), [(PATHS, ("vision/a",)), ({"layers/a": 0, "norm": 0}, ("layers",)), ({"a": 0}, ("b",))]
)
def test_a_part_that_is_trained_in_part_is_refused(paths, trainable):
    with pytest.raises(ValueError, match=r"train\.trainable = .* trains a part of (vision|the model)"):
        frozen_parts(paths, trainable)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds.count": 2}, "rounds.count = 2"),
        ({"train.average": "example"}, "train.average = 'example'"),
        ({"train.adapter": "lora"}, "train.adapter = 'lora'"),
        ({"train.optimizer": "muon"}, "train.optimizer = 'muon'"),
        ({"train.optimizer": "sgd"}, "train.optimizer = 'sgd' with train.b1 = 0.9"),
        ({"train.weight_decay": 0.1, "train.no_decay": ("norm",)}, r"train.no_decay = ('norm',)"),
        ({"train.schedule_span": (0.0, 0.5)}, "train.schedule_span"),
    ],
)
def test_what_no_tool_can_say_is_refused_by_key(tmp_path, changes, said):
    assert said in next(unsaid(world.config(tmp_path, "random2", **changes)))


def test_what_every_tool_can_say_is_not_refused(tmp_path):
    changes = {"train.weight_decay": 0.1, "train.optimizer": "lion", "train.schedule": "linear"}
    assert not list(unsaid(world.config(tmp_path, "random2", **changes)))
    assert not list(unsaid(world.config(tmp_path, "random2", **{"train.optimizer": "sgd", "train.b1": 0.0})))


def test_settings_are_those_of_the_runs_config(tmp_path):
    changes = {"train.warmup": 0.5, "train.batch_size": 4, "train.epochs": 2.0, "train.micro_batches": 2}
    run = emitted.split(tmp_path, **changes, **{"train.optimizer": "lion", "model.dtype": "float32"})
    branches = load_partition(run).branches
    made = [branch_settings(run, k, branch) for k, branch in enumerate(branches)]
    for found, samples in zip(made, load_partition(run).samples, strict=True):
        assert (found.learning_rate, found.batch, found.micro_batches, found.bf16) == (1e-3, 4, 2, False)
        assert found.warmup_steps == found.steps // 2 > 0
        assert found.b2 == 0.99
        assert found.end_of_turn == "<|im_end|>"
        assert found.batch_examples * found.steps == pytest.approx(2 * samples, rel=0.2)
    assert made[0].model == str((tmp_path / "theta0").resolve())
    assert made[0].seed != made[1].seed
