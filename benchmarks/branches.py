"""What training apart costs: the branches of MERIT one after the other against joint training on the same tokens.

    python -m benchmarks.branches --config=configs/quickstart.py --root=runs/branch-benchmark --repeats=5

In turns, each run a process of its own with an empty compilation cache and a new workdir: joint training, then all of MERIT from
the mixture to the merged model. A stage's time has everything in it that the stage does, compiling, reading rows and writing
checkpoints included. Prints the stages of MERIT and the ratio of the two train stages; --root/branches.json has every run.
Arguments after -- go to merit run, as in `-- --config.mixture.max_train=16`.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import measure

STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge")


def once(method: str, options: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """One whole run of a method: times of its stages, wall time and peak memory."""
    workdir, cache = options.root / method, options.root / "compiled"
    for folder in (workdir, cache):
        shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "merit_jax.launch.run",
        f"--config={options.config}:{method}",
        f"--workdir={workdir}",
    ]
    run = measure([*command, f"--stages={','.join(STAGES)}", f"--compilation_cache={cache}", *more])
    plan = json.loads((workdir / "partition.json").read_text())["branches"]
    done = [json.loads((workdir / "branches" / str(k) / "done.json").read_text()) for k in range(len(plan))]
    return {
        "stages": json.loads((workdir / "times.json").read_text()),
        "seconds": run.seconds,
        "peak_bytes": run.peak_bytes,
        "tokens": sum(branch["tokens"] for branch in done),
        "steps": [branch["steps"] for branch in done],
    }


def median(runs: list[dict[str, Any]], stage: str) -> float:
    """Seconds of a stage."""
    return statistics.median(run["stages"].get(stage, 0.0) for run in runs)


def report(method: str, joint: list[dict[str, Any]], merit: list[dict[str, Any]]) -> None:
    """The two tables."""
    tokens = {name: runs[0]["tokens"] for name, runs in (("joint", joint), (method, merit))}
    print(f"Supervised tokens: {tokens['joint']:,} joint, {tokens[method]:,} {method}; steps {merit[0]['steps']}.\n")
    ratios = [m["stages"]["train"] / j["stages"]["train"] for j, m in zip(joint, merit, strict=True)]
    print(f"| joint training | {method}, all branches | ratio | lowest | highest |\n|---:|---:|---:|---:|---:|")
    times = f"{median(joint, 'train'):.1f} s | {median(merit, 'train'):.1f} s"
    print(f"| {times} | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |\n")
    whole = sum(median(merit, stage) for stage in STAGES)
    print(f"| stage of {method} | seconds | share |\n|---|---:|---:|")
    for stage in STAGES:
        seconds = median(merit, stage)
        print(f"| {stage} | {seconds:.1f} | {seconds / whole:.0%} |")
    wall = statistics.median(run["seconds"] for run in merit)
    print(f"| starting, loading theta0, printing | {wall - whole:.1f} | |")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what is for merit run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py", help="config file, without a method")
    parser.add_argument("--method", default="merit2d")
    parser.add_argument("--root", type=Path, required=True, help="folder for workdirs and results")
    parser.add_argument("--repeats", type=int, default=5)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return parser.parse_args(arguments[:end]), arguments[end + 1 :]


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options, more = parse(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, Any]]] = {"joint": [], options.method: []}
    for _ in range(options.repeats):
        for method, found in runs.items():
            found.append(once(method, options, more))
            (options.root / "branches.json").write_text(json.dumps(runs, indent=2) + "\n")
    report(options.method, runs["joint"], runs[options.method])


if __name__ == "__main__":
    main(sys.argv[1:])
