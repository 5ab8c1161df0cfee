"""merit merge --partition: folders that any tool has trained weigh as the tokens of their branches."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from merit_jax.core.types import Branch, DatasetSlice
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.wiring.partition_tokens import tokens_of_models
from merit_jax.partition import Partition
from tests.launch.test_commands import commands
from tests.merging.golden.cases import FOLDER, MODELS

FOLDERS = [str(FOLDER / name) for name in MODELS[:2]]


def workdir(path, tokens=(300, 100)):
    """A workdir with nothing but a partition whose branches have so many tokens."""
    path.mkdir()
    branches = tuple(Branch((DatasetSlice(f"d{k}"),), k) for k in range(len(tokens)))
    made = Partition("random", branches, (7,) * len(tokens), tuple(tokens))
    (path / "partition.json").write_text(json.dumps({**made.to_dict(), "inputs": {}}))
    return path


def test_models_weigh_as_the_tokens_of_their_branches(tmp_path):
    workdir(tmp_path / "run")
    given = [f"--base={FOLDER / 'base'}", f"--models={','.join(FOLDERS)}"]
    mistakes = {
        "--weights and --partition both weigh the models": ["--partition=run", "--weights=0.5,0.5"],
        "--partition gives weights, which make no difference to --method=ties": ["--partition=run", "--method=ties"],
        "nowhere/partition.json is missing; name the workdir": ["--partition=nowhere"],
    }
    lines = [
        [*given, "--partition=run", "--out=a"],
        [*given, "--partition=run/partition.json", "--out=b"],
        *([*given, *line, "--out=c"] for line in mistakes.values()),
    ]
    by_folder, by_file, *failed = commands(tmp_path, "merge", lines)
    assert (by_folder[0], by_file[0]) == (0, 0), (by_folder, by_file)
    for mistake, (code, _, error) in zip(mistakes, failed, strict=True):
        assert code == MISTAKE
        assert mistake in error
        assert "Traceback" not in error
    one, other = (load_file(f"{folder}/model.safetensors") for folder in FOLDERS)
    for out in ("a", "b"):
        for key, tensor in load_file(tmp_path / out / "model.safetensors").items():
            np.testing.assert_allclose(tensor, 0.75 * one[key] + 0.25 * other[key], rtol=0, atol=1e-6)
    record = json.loads((tmp_path / "a" / "merit.json").read_text())
    assert (record["tokens"], record["tokens_counted"], record["weights"]) == ([300, 100], "supervised", [0.75, 0.25])
    assert "| b | 0.25 | 100 |" in (tmp_path / "a" / "README.md").read_text()
    assert not (tmp_path / "c").exists()


def test_another_number_of_models_than_branches_is_refused(tmp_path):
    run = workdir(tmp_path / "run", (3, 4, 5))
    assert tokens_of_models(run, ["a", "b", "c"], None) == (3, 4, 5)
    with pytest.raises(ValueError, match=r"--models has 2 folders, and .*partition\.json has 3 branches"):
        tokens_of_models(run, ["a", "b"], None)


@pytest.mark.parametrize("content", ["[]", "{}", '{"method": "random", "branches": []}', "no JSON"])
def test_a_file_that_is_no_partition_is_refused_by_name(tmp_path, content):
    (tmp_path / "partition.json").write_text(content)
    with pytest.raises(ValueError, match=r"partition\.json"):
        tokens_of_models(tmp_path, ["a"], None)
