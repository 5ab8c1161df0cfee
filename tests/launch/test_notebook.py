"""The notebook: stored without outputs, and every cell runs, for its own small world and for a user's model and data."""

import itertools
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support import compiler, world
from tests.support.zygote import REPOSITORY, WITHOUT_TORCH

NOTEBOOK = REPOSITORY / "launch/merit_colab.ipynb"
SMALL = {
    "DATASETS": ("color_*", "count_word"),
    "SHARE": 0.04,
    "SUITE_ROWS": 4,
    "CALIBRATION": 4,
    "BATCH": 4,
    "BUCKETS": (96,),
    "POINTS": 3,
    "SCALES": (1.0,),
}
DIAGNOSTICS = {"connectivity", "displacement"}
ALIKE = re.compile(r"(largest difference from the stage|distance between the two): (\S+)")


def cells(kind: str) -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def draws(cell: dict) -> bool:
    return "plt.subplots" in source(cell) or "Picture(png(" in source(cell)


def test_it_is_stored_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


def test_cells_are_short():
    assert max(len(source(cell).splitlines()) for cell in cells("code")) <= 22


def test_every_picture_comes_after_words_on_what_to_look_at():
    content = json.loads(NOTEBOOK.read_text())["cells"]
    before = [source(words) for words, cell in itertools.pairwise(content) if draws(cell)]
    assert len(before) >= 9
    assert all("**Look" in words for words in before)


def test_links_lead_to_files():
    links = set(re.findall(r"\]\((\.\./[^)#]+)", "".join(map(source, cells("markdown")))))
    assert links >= {
        f"../docs/{name}.md" for name in ("guides/diagnostics", "guides/report", "guides/own_data", "results/index")
    }
    for link in links:
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    world.checkpoint(tmp_path / "theta0")
    given = {
        "parameters": {**SMALL, "FOLDER": str(tmp_path / "notebook")},
        "own": {
            "MODEL": str(tmp_path / "theta0"),
            "MIXTURE": world.mixture(tmp_path / "data"),
            "WORKDIR": str(tmp_path / "mine"),
            "LENGTH": 96,
            "SHORTER": (),
            "RATE": 1e-3,
        },
    }
    done = execute(given, tmp_path)
    pictures = [output for cell in done for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())]
    assert len(pictures) == sum(map(draws, cells("code")))
    text = "".join(output.get("text", "") for cell in done for output in cell.get("outputs", ()))
    assert "the function and the stage agree: True" in text
    assert [float(value) < 1e-4 for _, value in ALIKE.findall(text)] == [True, True], text
    models = json.loads((tmp_path / "notebook/run/evaluation.json").read_text())["models"]
    assert list(models) == ["theta0", "joint", "merged"]
    assert {file.stem for file in (tmp_path / "notebook/run/diagnostics").iterdir()} == DIAGNOSTICS
    assert any("report.html" in output.get("text", "") for cell in done for output in cell.get("outputs", ()))
    for run in ("notebook/run", "mine"):
        assert "<svg" in (tmp_path / run / "report.html").read_text()
        assert (tmp_path / run / "merged/hf/model.safetensors").exists()
        assert len(json.loads((tmp_path / run / "partition.json").read_text())["branches"]) == 4


def execute(given: dict[str, dict], folder: Path) -> list[dict]:
    """The cells after a run in a kernel of its own; `given` are values set at the end of the cell with that tag."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", ()):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in given.pop(tag).items())
    assert not given
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": compiler.FAST, "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = WITHOUT_TORCH
    env |= {"IPYTHONDIR": str(folder / "ipython"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    use_own_kernel(client)
    return client.execute(env=env).cells


def use_own_kernel(client) -> None:
    """Gives a client the kernel of this very interpreter, whichever kernels are installed for the user or the system."""
    from jupyter_client.kernelspec import KernelSpecManager

    manager = client.create_kernel_manager()
    manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    assert manager.kernel_spec.argv[0] == sys.executable
