"""Tables and the frontier of one experiment over several seeds, from their workdirs.

pip install matplotlib
python docs/study.py docs/shapes_frontier.png runs/study/1 runs/study/2 runs/study/3
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#D55E00", "#7F3C8D")


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
    add("**mean of 8**", lambda name: spread([e["suites_mean"]["accuracy"] for e in evaluations[name]]))
    add("**retained**", lambda name: spread([e["retained"] for e in evaluations[name]]))
    add("**skill**", lambda name: spread([e["skill"] for e in evaluations[name]]))
    skills = {name: [e["skill"] for e in entries if e["skill"] is not None] for name, entries in frontiers.items()}
    add("**skill at 95 % retention**", lambda name: spread(skills[name]) if skills.get(name) else "")
    add("loss on the mixture", lambda name: f"{np.mean([e['mixture_loss'] for e in evaluations[name]]):.3f}")
    add("distance from theta0", lambda name: f"{np.mean([e['displacement'] for e in evaluations[name]]):.2f}")
    return "\n".join(lines)


def draw(frontiers: dict[str, list[dict]], path: str) -> None:
    """Mean frontiers, a large dot at scale 1."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    base = np.mean([entry["points"][0] for entry in frontiers["base"]], axis=0)
    axes.axvspan(0, 95 * base[1], color="#f2f2f2", zorder=0)
    axes.annotate("less than 95 % retained", (95 * base[1] - 0.5, 2), ha="right", fontsize=8, color="#888")
    lines = {name: entries for name, entries in frontiers.items() if name != "base"}
    for colour, (name, entries) in zip(COLOURS, lines.items(), strict=False):
        points = np.mean([entry["points"] for entry in entries], axis=0)
        axes.plot(
            100 * points[:, 1],
            100 * points[:, 2],
            "o-",
            color=colour,
            ms=3,
            lw=1.4,
            label=f"{name} ({len(entries)} runs)",
        )
        one = points[points[:, 0] == 1][0]
        axes.plot(100 * one[1], 100 * one[2], "o", color=colour, ms=9, zorder=4)
    axes.plot(100 * base[1], 100 * base[2], "k*", ms=13, label="theta0", zorder=5)
    axes.set_xlabel("retained: describe, converse (% of facts told)")
    axes.set_ylabel("learnt: six short-answer suites (%)")
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Prints the table and draws the picture."""
    path, *roots = sys.argv[1:]
    workdirs = [Path(root) for root in roots]
    frontiers = read(workdirs, "frontier.json")
    print(table(read(workdirs, "evaluation.json"), frontiers))  # noqa: T201
    draw(frontiers, path)


if __name__ == "__main__":
    main()
