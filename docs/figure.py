"""Draws a finished run: cosine similarities by group, datasets on the conflict axes, and held-out loss of each model.

pip install matplotlib
python docs/figure.py runs/bigbench docs/bigbench.png
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def short(name: str) -> str:
    """A dataset's name without its family, unless the rest says nothing."""
    family, _, task = name.partition("__")
    shown = task if task and not task.startswith("subtask_") else family
    return shown.replace("subtask", "").replace("_", " ")[:28]


def groups_of(workdir: Path) -> dict[str, int]:
    """Dataset -> branch."""
    branches = json.loads((workdir / "partition.json").read_text())["branches"]
    return {share[0]: index for index, branch in enumerate(branches) for share in branch["shares"]}


def draw_similarity(axes: plt.Axes, names: list[str], similarity: np.ndarray, group: dict[str, int]) -> None:
    """The cosine matrix, datasets of a group together."""
    order = sorted(range(len(names)), key=lambda i: (group[names[i]], names[i]))
    limit = np.abs(similarity[~np.eye(len(names), dtype=bool)]).max()
    image = axes.imshow(similarity[np.ix_(order, order)], cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks(range(len(names)), [short(names[i]) for i in order], fontsize=6)
    for tick, i in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_color(COLOURS[group[names[i]]])
    axes.set_title("cosine of the datasets' gradients", fontsize=9)
    plt.colorbar(image, ax=axes, fraction=0.045, pad=0.03).ax.tick_params(labelsize=6)


def draw_axes(axes: plt.Axes, names: list[str], scores: np.ndarray, group: dict[str, int]) -> None:
    """Datasets on the first two principal axes, coloured by branch."""
    for index in sorted(set(group.values())):
        chosen = [i for i, name in enumerate(names) if group[name] == index]
        axes.scatter(scores[chosen, 0], scores[chosen, 1], s=28, color=COLOURS[index], label=f"branch {index}")
    for i, name in enumerate(names):
        axes.annotate(short(name), scores[i, :2], fontsize=5, xytext=(3, 3), textcoords="offset points", color="#555")
    axes.axhline(0, lw=0.5, color="#bbb", zorder=0)
    axes.axvline(0, lw=0.5, color="#bbb", zorder=0)
    axes.set_xlabel("conflict axis 1", fontsize=8)
    axes.set_ylabel("conflict axis 2", fontsize=8)
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6, frameon=False)
    axes.set_title("the split into K = 4 branches", fontsize=9)


def draw_scores(axes: plt.Axes, models: dict) -> None:
    """Mean held-out loss and accuracy per model."""
    names = list(models)
    losses = [models[name]["mean"]["loss"] for name in names]
    bars = axes.barh(range(len(names)), losses, color=["#999999", *list(COLOURS[4 : 4 + len(names) - 2]), "#0072B2"])
    labels = [
        f"{loss:.2f}   ({100 * models[n]['mean']['accuracy']:.0f} % right)"
        for n, loss in zip(names, losses, strict=True)
    ]
    axes.bar_label(bars, labels, fontsize=7, padding=3)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(losses))
    axes.set_xlabel("nats per supervised token", fontsize=8)
    axes.tick_params(axis="x", labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("mean held-out loss (lower is better)", fontsize=9)


def main(workdir: Path, out: Path) -> None:
    """Draws the three panels side by side."""
    with np.load(workdir / "conflict.npz") as arrays:
        names, similarity, scores = arrays["names"].tolist(), arrays["similarity"], arrays["scores"]
    models = json.loads((workdir / "evaluation.json").read_text())["models"]
    group = groups_of(workdir)
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.2), width_ratios=(1.15, 1.1, 1), layout="constrained")
    draw_similarity(panels[0], names, similarity, group)
    draw_axes(panels[1], names, scores, group)
    draw_scores(panels[2], models)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
