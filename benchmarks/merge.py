"""Wall time and peak memory of merit merge against mergekit, on the same checkpoints, and how far the results are apart.

    python -m venv mergekit && mergekit/bin/pip install mergekit==0.1.5
    python -m benchmarks.merge --mergekit=mergekit/bin/mergekit-yaml --root=runs/merge-benchmark

Without --base the checkpoints are SmolLM2-135M-Instruct and copies of it with noise of a relative size of 1 % in every tensor,
as Hugging Face folders in --dtype. Each tool runs as a process of its own, from nothing to a folder on disk, in turns. mergekit
is given the configuration that merit merge has written. Prints a table; --root/results.json has every run.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import Run, measure, python

METHODS = {
    "linear": ("token_weighted", {}),
    "ties": ("ties", {"trim_scope": "tensor", "weighted_election": True, "weighted_mean": True}),
}
"""Name in the table -> method and options of merit merge that mergekit has too."""

NOISE = 0.01

MAKE_BASE = """
import sys
from merit_jax.launch.wiring import open_run
from merit_jax.models import export_hf
base = open_run.open_model("smollm2-135m-instruct", dtype="float32")
export_hf(sys.argv[1], base.leaves().read, base.path, dtype=sys.argv[2])
"""
PERTURB = """
import sys
import numpy as np
from merit_jax.models import StoredTensors
base, rng = StoredTensors(sys.argv[1]), np.random.default_rng(int(sys.argv[3]))
def perturbed(name):
    tensor = base.read(name)
    noise = rng.standard_normal(tensor.shape, np.float32)
    return tensor + np.float32(float(sys.argv[4]) * tensor.std()) * noise
base.export(sys.argv[2], perturbed, {})
"""
COMPARE = """
import sys
import numpy as np
from merit_jax.models import StoredTensors
ours, theirs = StoredTensors(sys.argv[1]), StoredTensors(sys.argv[2])
assert ours.paths().keys() == theirs.paths().keys(), "the tools wrote other tensors"
print(max(float(np.abs(ours.read(name) - theirs.read(name)).max()) for name in ours.paths()))
"""
"""Pieces of Python that run as processes of their own."""


def checkpoints(options: argparse.Namespace) -> tuple[Path, list[Path]]:
    """The base and its perturbed copies, made where they are missing."""
    base = options.base or options.root / f"base-{options.dtype}"
    if not base.exists():
        python(MAKE_BASE, base, options.dtype)
    models = [options.root / f"{base.name}-{k}" for k in range(options.models)]
    for k, model in enumerate(models):
        if not model.exists():
            python(PERTURB, base, model, k, NOISE)
    return base, models


def compare(name: str, base: Path, models: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Runs both tools in turns."""
    method, settings = METHODS[name]
    ours, theirs, configuration = (options.root / f"{name}-{what}" for what in ("ours", "mergekit", "mergekit.yaml"))
    places = [f"--base={base}", f"--models={','.join(map(str, models))}", f"--out={ours}"]
    chosen = [f"--method={method}", f"--options={json.dumps(settings)}"]
    runs: dict[str, list[Run]] = {"ours": [], "mergekit": []}
    for _ in range(options.repeats):
        for folder in (ours, theirs):
            shutil.rmtree(folder, ignore_errors=True)
        runs["ours"].append(measure([sys.executable, "-m", "merit_jax.launch.merge", *places, *chosen]))
        shutil.copyfile(ours / "mergekit.yaml", configuration)
        peer = [str(options.mergekit), str(configuration), str(theirs), "--no-copy-tokenizer", "--no-write-model-card"]
        runs["mergekit"].append(measure(peer))
    return {
        "runs": {tool: [run._asdict() for run in found] for tool, found in runs.items()},
        "median": {
            tool: [statistics.median(values) for values in zip(*found, strict=True)] for tool, found in runs.items()
        },
        "largest_difference": float(python(COMPARE, ours, theirs)),
    }


def line(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    ours, theirs = (Run(*found["median"][tool]) for tool in ("ours", "mergekit"))
    forms = (("seconds", 1, "{:.1f} s"), ("cpu_seconds", 1, "{:.1f} s"), ("peak_bytes", 1e9, "{:.2f} GB"))
    cells = [name]
    for figure, unit, form in forms:
        one, other = getattr(ours, figure) / unit, getattr(theirs, figure) / unit
        cells += [form.format(one), form.format(other), f"{one / other:.2f}"]
    return f"| {' | '.join(cells)} | {found['largest_difference']:.1e} |"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True, help="mergekit-yaml of mergekit's own environment")
    parser.add_argument("--root", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--base", type=Path, help="Hugging Face folder; left out: SmolLM2-135M-Instruct")
    parser.add_argument("--models", type=int, default=4, help="checkpoints to merge")
    parser.add_argument("--dtype", default="float32", help="of the checkpoints made from SmolLM2")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    base, models = checkpoints(options)
    print(f"{len(models)} checkpoints like {base.name}, medians of {options.repeats}, {os.cpu_count()} CPUs\n")
    figures = " | ".join(f"{figure} | mergekit | ratio" for figure in ("time", "processor time", "peak memory"))
    print(f"| method | {figures} | largest difference |\n|{'---|' * 11}")
    results = {}
    for name in options.methods:
        results[name] = compare(name, base, models, options)
        print(line(name, results[name]), flush=True)
        (options.root / "results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
