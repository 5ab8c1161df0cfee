"""The tools' own classes take the emitted files and read the same rows, where they are installed."""

import sys

import pytest

from tests.launch.emitting import emitted

ON_A_CPU = {"bf16": False, "use_cpu": True}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A run whose mixture has been split, in float32, so that a machine without a GPU takes its files."""
    return emitted.split(tmp_path_factory.mktemp("split"), **{"model.dtype": "float32", "train.warmup": 0.2})


@pytest.mark.filterwarnings("ignore")
def test_trl_takes_its_files_and_reads_the_rows(split, monkeypatch):
    pytest.importorskip("trl")
    from trl import get_dataset
    from trl.scripts.sft import make_parser

    folder = emitted.written(split, "trl")
    monkeypatch.chdir(folder / "branch-1")
    monkeypatch.setattr(sys, "argv", ["sft", "--config", "train.yaml", "--use_cpu", "true"])
    _, training, model, mixture = make_parser().parse_args_and_config(fail_with_unknown_args=True)
    found = emitted.settings(folder, 1)
    assert (training.learning_rate, training.warmup_steps) == (found["learning_rate"], found["warmup_steps"])
    assert (training.completion_only_loss, model.dtype) == (True, "float32")
    rows = [row for file in emitted.rows(folder, 1).values() for row in file]
    assert list(get_dataset(mixture)["train"]) == rows


@pytest.mark.filterwarnings("ignore")
def test_llamafactory_takes_its_files_and_trains_the_responses(split, monkeypatch):
    pytest.importorskip("llamafactory")
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams.parser import _parse_train_args
    from transformers import AutoTokenizer

    folder = emitted.written(split, "llamafactory")
    monkeypatch.chdir(folder / "branch-1")
    found = emitted.settings(folder, 1)
    model, data, training, finetuning, _ = _parse_train_args({**found, **ON_A_CPU})
    assert (finetuning.stage, finetuning.finetuning_type, data.neat_packing) == ("sft", "full", True)
    data.packing = data.neat_packing = False
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    read = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)["train_dataset"]
    rows = [row["messages"] for file in emitted.rows(folder, 1).values() for row in file]
    rendered = sorted(tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows)
    assert sorted(tokenizer.decode(row["input_ids"]) for row in read) == rendered
    trained = sorted(tokenizer.decode([label for label in row["labels"] if label >= 0]) for row in read)
    assert trained == sorted(f"{messages[-1]['content']}<|im_end|>\n" for messages in rows)


@pytest.mark.filterwarnings("ignore")
def test_axolotl_takes_its_files(split):
    schemas = pytest.importorskip("axolotl.utils.schemas.config")
    found = emitted.settings(emitted.written(split, "axolotl"))
    config = schemas.AxolotlInputConfig(**found)
    assert (config.learning_rate, config.warmup_steps) == (found["learning_rate"], found["warmup_steps"])
    assert [data.path for data in config.datasets] == [data["path"] for data in found["datasets"]]
    assert not set(found) - set(schemas.AxolotlInputConfig.model_fields)
