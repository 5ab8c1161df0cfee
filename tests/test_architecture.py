"""The rules of the house, read from the source: imports follow the arrow, flags and prints stay in launch, files stay small."""

import ast
import sys
from pathlib import Path

import pytest

from benchmarks.structure import in_checkout

ROOT = Path(__file__).parents[1]
PACKAGES = ("merit_jax", "models", "configs", "launch", "examples")
"""Folders of the one package; but for the first, `merit_jax.NAME` is in NAME, and called so here."""
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LAYERS = [
    ["core"],
    ["workdir"],
    ["data", "checkpoints", "gradients", "conflict", "partition"],
    ["training", "merging", "evaluation", "diagnostics", "comparison", "advice"],
    ["pipeline", "planning", "reporting"],
]
"""merit_jax from the bottom up: a module imports lower layers and its own package only."""

MODELS_LAYERS = [
    ["rope_settings", "heads", "placement"],
    ["interface"],
    ["modules"],
    ["adapters"],
    ["build_model", "io"],
    ["processing"],
    ["families"],
    ["pretrained"],
]
"""models from the bottom up, likewise: pure parts, files, the host's side, families of them, checkpoints of families."""

RANK = {
    f"{package}.{name}": rank
    for package, layers in {"merit_jax": LAYERS, "models": MODELS_LAYERS}.items()
    for rank, layer in enumerate(layers)
    for name in layer
}
FORBIDDEN = {
    "merit_jax": {"models", "configs", "launch", "flax", "transformers"},
    "models": {"merit_jax", "configs", "launch"},
    "configs": {"launch", "examples"},
    "launch": {"examples"},
    "examples": {"launch"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the statement stands; `from package import module` gives the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {in_checkout(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; write the full path"
            inner = {in_checkout(f"{node.module}.{alias.name}") for alias in node.names}
            found |= {name if name in MODULES else in_checkout(node.module) for name in inner}
    return found


def component(module: str) -> str | None:
    """The package of merit_jax or models that a module belongs to; None elsewhere and for their roots."""
    package, *rest = module.split(".")
    return f"{package}.{rest[0]}" if package in ("merit_jax", "models") and rest else None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_what_lies_ahead_of_it(package):
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if module.split(".")[0] == package and name.split(".")[0] in FORBIDDEN[package]
    }
    assert not wrong


DECLARE = ("configs.common", "configs.schema.diagnostics_keys", "configs.schema.keys", "configs.schema.check")
"""Modules of configs that declare and check the keys, whose values are names in tables of merit_jax and models."""


def test_config_files_import_only_ml_collections_and_one_another():
    for module, path in MODULES.items():
        if module.split(".")[0] == "configs" and module not in DECLARE:
            outside = {name.split(".")[0] for name in imports(path)} - {"configs", "ml_collections"}
            assert outside <= sys.stdlib_module_names, f"{module} imports {sorted(outside)}"


def test_every_module_has_a_layer():
    unplaced = {name for module in MODULES if (name := component(module)) and name not in RANK}
    assert not unplaced, f"put {sorted(unplaced)} into LAYERS or MODELS_LAYERS"


def test_packages_import_lower_layers_only():
    wrong = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if (here := component(module)) and (there := component(name))
        if here != there and here.split(".")[0] == there.split(".")[0] and RANK[there] >= RANK[here]
    }
    assert not wrong


def test_imports_have_no_cycle():
    graph = {module: {name for name in imports(path) if name in MODULES} - {module} for module, path in MODULES.items()}
    while free := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - free for module, needs in graph.items() if module not in free}
    assert not graph, f"in or behind a cycle: {sorted(graph)}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if module_of(p).split(".")[0] not in ("launch", "examples")], ids=module_of
)
def test_flags_and_prints_stay_in_launch(path):
    tree = ast.parse(path.read_text())
    assert not {name for name in imports(path) if name.startswith("absl.flags") or name == "absl.app"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & {"print", "FLAGS", "flags"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if module_of(p).split(".")[0] == "launch" and p.stem != "app"], ids=module_of
)
def test_a_command_defines_its_flags_when_it_is_run(path):
    calls = [ast.unparse(node) for node in ast.parse(path.read_text()).body if not isinstance(node, ast.FunctionDef)]
    assert not [call for call in calls if "flags.DEFINE" in call or "define_config" in call]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and path.parent.name != "configs"
        ):  # those are tables
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


UNVERIFIED = {
    "merit_jax.pipeline.merge_branches",  # the distance of a merge that it has just written
    "merit_jax.pipeline.merge_inputs",  # merged_leaves, which verifies
    "merit_jax.pipeline.estimated_statistic",  # EstimatedStatistic.leaves, which verifies
}
"""Modules above the checkpoints that may open an Orbax folder themselves."""


def test_parameters_are_read_by_their_checksums_alone():
    wrong = {
        f"{module} calls {node.func.id}"
        for module, path in MODULES.items()
        if not module.startswith("merit_jax.checkpoints.") and module not in UNVERIFIED
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("OrbaxLeaves", "params_directory")
    }
    assert not wrong, f"use finished_leaves, branch_leaves or merged_leaves: {sorted(wrong)}"


REUSED = ("partition", "conflict", "merge_record", "branch_done", "gradient_index", "curvature_index")
"""Paths of a workdir from which a run takes what an earlier command has made."""

OTHERS = {
    "merit_jax.pipeline.measure_conflict": "conflict",  # what its config leaves open
    "merit_jax.pipeline.merge_inputs": "merge_record",  # compared with the checksums of the same merge
    "merit_jax.pipeline.merge_record": "merge_record",  # read_merge, which compares
    "merit_jax.pipeline.evaluated_models": "merge_record",  # of other workdirs
    "merit_jax.pipeline.diagnostics.models": "merge_record",  # of joint training, in another workdir
}
"""Modules of the pipeline that read such a file by its path -> the one that they read."""


def test_what_a_run_reuses_is_read_through_its_stage():
    wrong = set()
    for module, path in MODULES.items():
        if not module.startswith("merit_jax.pipeline."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("read_json", "read_arrays", "read_inputs"):
                read = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)} & set(REUSED)
                wrong |= {f"{module} reads {name}" for name in read - {OTHERS.get(module)}}
    assert not wrong, f"use the stage's read, which compares inputs: {sorted(wrong)}"
