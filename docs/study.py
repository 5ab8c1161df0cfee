"""Tables and the frontier of one experiment over several seeds, from their workdirs.

pip install matplotlib
python -m docs.study docs/shapes_frontier.png runs/study/1 runs/study/2 runs/study/3
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from launch.figures import plot_frontier

RETENTION = 0.95
"""Share of theta0's retained score that counts as kept, as in the runs."""


def method(name: str) -> str:
    """A model's method: random partitions of one K are one method."""
    return re.sub(r":partition\.seed=\d+", "", name)


def read(workdirs: list[Path], file: str) -> dict[str, list[dict]]:
    """Method -> entries of all seeds and partitions."""
    found = defaultdict(list)
    for workdir in workdirs:
        content = json.loads((workdir / file).read_text())
        for name, entry in content["models"].items():
            label = json.loads((workdir / "config.json").read_text())["method"] if name == "merged" else name
            found[method(label)].append(entry)
    return dict(found)


def spread(values: list[float], factor: float = 100) -> str:
    """Mean and standard deviation."""
    deviation = factor * np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{factor * np.mean(values):.1f} ± {deviation:.1f}" if deviation else f"{factor * np.mean(values):.1f}"


def table(evaluations: dict[str, list[dict]], frontiers: dict[str, list[dict]]) -> str:
    """Suites, means, skill at the retention, mixture loss and displacement per method, as Markdown."""
    methods = list(evaluations)
    lines = ["| | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]

    def add(label: str, cell) -> None:
        lines.append(f"| {label} | " + " | ".join(cell(name) for name in methods) + " |")

    add("runs", lambda name: str(len(evaluations[name])))
    for suite in next(iter(evaluations.values()))[0]["suites"]:
        add(suite, lambda name, suite=suite: spread([e["suites"][suite]["accuracy"] for e in evaluations[name]]))
    add("**mean of suites**", lambda name: spread([e["suites_mean"]["accuracy"] for e in evaluations[name]]))
    add("**retained**", lambda name: spread([e["retained"] for e in evaluations[name]]))
    add("**skill**", lambda name: spread([e["skill"] for e in evaluations[name]]))
    skills = {name: [e["skill"] for e in entries if e["skill"] is not None] for name, entries in frontiers.items()}
    add("**skill at 95 % retention**", lambda name: spread(skills[name]) if skills.get(name) else "")
    add("loss on the mixture", lambda name: f"{np.mean([e['mixture_loss'] for e in evaluations[name]]):.3f}")
    add("distance from theta0", lambda name: f"{np.mean([e['displacement'] for e in evaluations[name]]):.2f}")
    return "\n".join(lines)


def draw(frontiers: dict[str, list[dict]], path: str) -> None:
    """Mean frontiers over all runs of a method."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    means = {name: np.mean([entry["points"] for entry in entries], axis=0) for name, entries in frontiers.items()}
    (base,) = means.pop("base")
    lines = {f"{name} ({len(frontiers[name])} runs)": points for name, points in means.items()}
    plot_frontier(axes, base, lines, RETENTION)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Prints the table and draws the picture."""
    path, *roots = sys.argv[1:]
    workdirs = [Path(root) for root in roots]
    frontiers = read(workdirs, "frontier.json")
    sys.stdout.write(table(read(workdirs, "evaluation.json"), frontiers) + "\n")
    draw(frontiers, path)


if __name__ == "__main__":
    main()
