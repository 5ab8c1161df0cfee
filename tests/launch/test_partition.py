"""merit partition as a user types it, and the way on: another tool's folders, merged by the command of the README."""

import json
import re
import shlex
import shutil

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from merit_jax.launch.console.exit_codes import MISTAKE
from tests.launch.test_commands import CONFIG, commands
from tests.support import world


def given(root):
    """The command's flags for a run in the tiny world."""
    world.config(root)
    (root / "config.py").write_text(CONFIG.format(root=str(root)))
    return [f"--config={root / 'config.py'}:random2", f"--workdir={root / 'run'}"]


def trained_elsewhere(branch, theta0, shift):
    """Writes what a tool leaves in a branch's folder, as its configuration says: theta0 with other weights."""
    settings = yaml.safe_load((branch / "train.yaml").read_text())
    assert settings["model_name_or_path"] == str(theta0)
    out = branch / settings["output_dir"]
    shutil.copytree(theta0, out)
    moved = {key: tensor + np.float32(shift) for key, tensor in load_file(out / "model.safetensors").items()}
    save_file(moved, out / "model.safetensors", metadata={"format": "pt"})
    (out / "training_args.bin").write_bytes(b"")


def test_branches_that_another_tool_trained_merge_to_their_token_weighted_mean(tmp_path):
    flags, theta0 = given(tmp_path), tmp_path / "theta0"
    ((code, output, error),) = commands(tmp_path, "partition", [[*flags, "--emit=trl", f"--out={tmp_path / 'out'}"]])
    assert code == 0, error
    assert "Partition" in output
    assert str(tmp_path / "out") in output
    partition = json.loads((tmp_path / "run" / "partition.json").read_text())
    tokens = [branch["tokens"] for branch in partition["branches"]]
    for k, shift in enumerate((0.5, -0.25)):
        trained_elsewhere(tmp_path / "out" / f"branch-{k}", theta0, shift)

    line = re.search(r"^ +merit (merge .*)$", (tmp_path / "out" / "README.md").read_text(), re.MULTILINE)[1]
    name, *words = shlex.split(line)
    ((code, _, error),) = commands(tmp_path / "out", name, [words])
    assert code == 0, error
    base = load_file(theta0 / "model.safetensors")
    moved = (0.5 * tokens[0] - 0.25 * tokens[1]) / sum(tokens)
    for key, tensor in load_file(tmp_path / "out" / "merged" / "model.safetensors").items():
        np.testing.assert_allclose(tensor, base[key] + moved, rtol=0, atol=1e-6)
    record = json.loads((tmp_path / "out" / "merged" / "merit.json").read_text())
    assert (record["models"], record["tokens"]) == (["model-0", "model-1"], tokens)


def test_a_mistake_is_one_line_that_names_it(tmp_path):
    flags = given(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    mistakes = {
        "unknown --emit 'nonsense'; known: axolotl, llamafactory, trl": ["--emit=nonsense"],
        "--emit=trl: train.average = 'example'": ["--emit=trl", "--config.train.average=example"],
        "used is not empty, and merit partition has not written it": ["--emit=trl", f"--out={tmp_path / 'used'}"],
        "partition.json was made from other inputs: partition.groups: 2 -> 4": ["--config.partition.groups=4"],
        "train.yaml is not as it would be written now": ["--emit=axolotl", "--config.train.learning_rate=0.5"],
    }
    lines = [[*flags, "--emit=axolotl"], *([*flags, *line] for line in mistakes.values())]
    first, *failed = commands(tmp_path, "partition", lines)
    assert first[0] == 0, first
    for mistake, (code, _, error) in zip(mistakes, failed, strict=True):
        assert code == MISTAKE, (mistake, error)
        assert mistake in error, (mistake, error)
        assert "Traceback" not in error, (mistake, error)
    again = [*flags, "--emit=axolotl", "--config.train.learning_rate=0.5", "--overwrite"]
    ((code, _, error),) = commands(tmp_path, "partition", [again])
    assert code == 0, error
    written = (tmp_path / "run" / "emitted" / "axolotl" / "branch-1" / "train.yaml").read_text()
    assert yaml.safe_load(written)["learning_rate"] == 0.5
