"""The command as a user types it: the page, and one line for each mistake."""

import pytest

from merit_jax.launch.console.exit_codes import MISTAKE
from tests.support import world
from tests.support.commands import environment, module, write_config
from tests.support.zygote import Command

SMALL = ["examples=4", "calibration_examples=8", "calibration_block=2", "calibration_sizes=(2,4)", "bootstrap=10"]


@pytest.fixture(scope="module")
def root(finished, tmp_path_factory):
    """A folder with theta0, data and a config that trains jointly."""
    folder = world.beside(finished, tmp_path_factory.mktemp("advice"))
    write_config(folder / "config.py", folder)
    return folder


def ended(root, *words):
    argv = [
        "advise",
        "--compilation_cache=",
        f"--config={root / 'config.py'}:joint",
        f"--workdir={root / 'run'}",
        *words,
    ]
    argv += [f"--config.diagnostics.{key}" for key in SMALL]
    command = Command(module("advise"), argv, root, environment(), imports="merit_jax.launch.advise", apart=True)
    output, error = command.communicate(300)
    return command.returncode, output, error


def test_it_prints_the_page_that_it_writes_also_for_a_config_that_needs_no_gradients(root):
    code, output, error = ended(root, "--branches=2,4", "--nocluster")
    assert code == 0, error
    page = (root / "run" / "advice.md").read_text()
    assert output.strip() == page.strip()
    for method in ("joint", "examples2", "merit1d", "examples4", "random4:partition.core=0.25", "merit2d"):
        assert f"| `{method}` " in page


def test_a_mistake_is_one_line_that_names_it(root):
    (root / "map.json").write_text("[1]")
    mistakes = {
        "--branches=1: expected whole numbers above 1": ["--branches=1"],
        "expected the map.json of benchmarks.study_map": [f"--map={root / 'map.json'}"],
        "unknown method 'nonsense'": ["--methods=joint,nonsense"],
        "expected CHIP:SHAPE": ["--topology=big"],
    }
    for mistake, words in mistakes.items():
        code, _, error = ended(root, *words)
        assert code == MISTAKE, (words, error)
        assert mistake in error, (words, error)
        assert "Traceback" not in error
