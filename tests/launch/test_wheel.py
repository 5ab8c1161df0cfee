"""The wheel works where it is installed, in any folder: nothing that lies there takes the place of a part of the package."""

import json
import zipfile
from pathlib import Path

import pytest

from merit_jax.launch.console.exit_codes import MISTAKE
from tests.support import world
from tests.support.installed import ended, install

pytestmark = pytest.mark.slow

TWO_TASKS = [
    "--config.mixture.include=('hyperbaton', 'implicatures')",
    "--config.mixture.max_train=2",
    "--config.mixture.max_held_out=2",
    "--compilation_cache=",
]
"""Flags for so little of the text quickstart's mixture."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def crowded(tmp_path):
    """A folder of somebody else's, whose modules are called like parts of the package."""
    for name in ("models", "configs", "examples", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "launch.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "configs" / "quickstart_text.py").write_text("raise RuntimeError('not this one')")
    return tmp_path


def merit(installed, folder, *words, as_module=False):
    """(Exit code, standard output, standard error) of the command, or of its module, for which the folder comes first."""
    command = [str(installed.bin / "merit")]
    if as_module:
        command = [str(installed.bin / "python"), "-m", "merit_jax.launch.console.merit"]
    return ended([*command, *words], folder)


def test_the_wheel_has_one_package_and_no_leavings(installed):
    names = [Path(name) for name in zipfile.ZipFile(installed.wheel).namelist()]
    tops = {name.parts[0] for name in names}
    (info,) = tops - {"merit_jax"}
    assert info.endswith(".dist-info")
    assert not [name for name in names if "__pycache__" in name.parts or name.suffix == ".pyc"]
    there = {path.name for path in installed.packages.iterdir()}
    assert there == {"dependencies.pth", *tops}


def test_the_package_is_the_installed_one(installed, crowded):
    code = (
        "import merit_jax, merit_jax.models, merit_jax.examples; print(*merit_jax.__path__, merit_jax.models.__file__)"
    )
    exit_code, output, error = ended([str(installed.bin / "python"), "-c", code], crowded)
    assert exit_code == 0, error
    package = installed.packages / "merit_jax"
    assert output.split() == [str(package), str(package / "models" / "__init__.py")]


def test_the_command_lists_all_and_says_its_version(installed, crowded):
    code, output, _ = merit(installed, crowded)
    assert code == 0
    assert "\n  run " in output
    code, output, _ = merit(installed, crowded, "version")
    assert code == 0
    assert output.split()[1] == installed.wheel.name.split("-")[1]


def test_unknown_commands_and_configs_are_mistakes_that_name_what_there_is(installed, crowded):
    code, _, error = merit(installed, crowded, "rum")
    assert (code, error) == (MISTAKE, "error: there is no command rum; did you mean merit run?\n")
    code, _, error = merit(installed, crowded, "run", "--config=nonsense", "--workdir=run")
    assert code == MISTAKE
    assert "no config is shipped by that name; shipped are " in error
    assert "quickstart_text" in error


def test_the_flags_are_shown_with_an_example(installed, crowded):
    code, output, error = merit(installed, crowded, "run", "--help", as_module=True)
    assert code == 0, error
    assert "\nmerit run --config=" in output
    assert "--workdir" in output


@pytest.mark.smollm2
def test_the_text_quickstart_begins_with_the_shipped_model_and_data(installed, crowded):
    words = ["run", "--config=quickstart_text:random2", "--workdir=run", "--stages=mixture,partition", *TWO_TASKS]
    code, _, error = merit(installed, crowded, *words, as_module=True)
    assert code == 0, error
    mixture = json.loads((crowded / "run" / "mixture.json").read_text())
    assert sorted(mixture["datasets"]) == ["hyperbaton", "implicatures"]
    branches = json.loads((crowded / "run" / "partition.json").read_text())["branches"]
    assert sum(branch["samples"] for branch in branches) == 4


def test_the_text_quickstart_goes_from_gradients_to_a_split_with_a_tiny_model(installed, crowded):
    model = world.checkpoint(crowded / "theta0")
    stages = "--stages=mixture,gradients,conflict,partition"
    words = ["run", "--config", "quickstart_text:merit1d", "--workdir=run", stages, f"--config.model.path={model}"]
    rows = ["--config.mixture.max_length=512", "--config.train.row_length=512"]
    gradients = ["--config.gradients.examples=1", "--config.gradients.buckets=(512,)"]
    code, _, error = merit(installed, crowded, *words, *TWO_TASKS, *rows, *gradients)
    assert code == 0, error
    branches = json.loads((crowded / "run" / "partition.json").read_text())["branches"]
    assert [len(branch["shares"]) for branch in branches] == [1, 1]
