"""Do the branches of a split specialise their heads, and is it better to prune before merging or after?

    python -m benchmarks.study_specialisation --config=configs/quickstart.py --workdir=runs/quickstart --root=runs/specialisation

Of a finished run: HIES of theta0, of each branch, of joint training and of the merged model, all on the calibration examples of
the whole mixture, and rank correlations between them; as a control, of the merged model on another calibration sample. Then the
merged model pruned to one size in several ways:

* after: by its own scores;
* averaged: by the means of the branches' scores, each on its own datasets, weighted as in the merge;
* theta0: by theta0's scores, which are known before training;
* before: each branch is pruned by its own scores, the pruned branches are merged, and heads that fewest branches have kept are
  removed until the size is reached.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float
from scipy.stats import spearmanr
from tabulate import tabulate

from benchmarks.processes import processor
from benchmarks.study_pruning import halved_records, mean_of, spread
from merit_jax.checkpoints.readers import OverlayLeaves
from merit_jax.core import tree
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Params
from merit_jax.launch.console import app
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.evaluators import make_evaluator
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.other_start import OtherStart
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.pruning.order import all_kept
from merit_jax.pipeline.pruning.score_heads import head_scores, model_with_heads
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.pruning import HeadScores, choose, hies
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.paths import Workdir, absolute

FLAGS = flags.FLAGS


class Start(OtherStart):
    """One of a run's models, to be scored.

    Args:
        run: The run.
        name: The model's name.
        leaves: Its parameters.
    """

    def __init__(self, run: Run, name: str, leaves: LeafReader) -> None:
        super().__init__(run.theta0)
        self.source: Mapping[str, Any] = {"run": str(run.workdir.root), "model": name}
        self._leaves = leaves

    def check_unchanged(self) -> None:
        """Compares nothing: the run is finished."""

    def leaves(self) -> LeafReader:
        """Returns a reader of single leaves."""
        return self._leaves


def models_of(run: Run) -> dict[str, LeafReader]:
    """Returns theta0, the branches, joint training if it is among the baselines, and the merged model, by name."""
    theta0 = run.theta0.leaves()
    branches = range(len(load_partition(run).branches))
    joint = Workdir(run.workdir.baselines / "joint", run.workdir.baselines / "joint")
    return {
        "theta0": theta0,
        **{f"branch {k}": OverlayLeaves(theta0, branch_leaves(run, k)) for k in branches},
        **({"joint": merged_leaves(joint)} if joint.merge_record.exists() else {}),
        "merged": merged_leaves(run.workdir),
    }


def scores_of(run: Run, name: str, leaves: LeafReader, seed: int, datasets: Sequence[str] = ()) -> HeadScores:
    """Returns the scores of a model's heads on a calibration sample of the whole mixture, or of some of its datasets."""
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.seed = seed
    home = Workdir.at(absolute(FLAGS.root) / f"sample-{seed}" / (name.replace(" ", "-") + ("-own" if datasets else "")))
    start = Start(run, name, leaves)
    chosen = tuple(dataset for dataset in run.datasets if not datasets or dataset.name in datasets)
    part = run.starting_from(start, chosen, config, home)
    return head_scores(part, all_kept(part))


def flat(scores: HeadScores, alpha: float) -> Float[np.ndarray, " heads"]:
    """Returns HIES of all heads."""
    return np.concatenate([np.ravel(part) for part in hies(scores, alpha).values()])


def correlations(found: Mapping[str, HeadScores], alpha: float) -> list[list[str]]:
    """Returns a table of the rank correlations between models."""
    values = {name: flat(scores, alpha) for name, scores in found.items()}
    return [[one, *(f"{spearmanr(values[one], values[other]).statistic:.2f}" for other in values)] for one in values]


def averaged(scores: Sequence[HeadScores], weights: Sequence[float]) -> HeadScores:
    """Returns weighted means of the scores of several models."""
    return HeadScores(
        *(
            {part: sum(w * fields[part] for w, fields in zip(weights, of_models, strict=True)) for part in of_models[0]}
            for of_models in zip(*scores, strict=True)
        )
    )


class Arms:
    """Ways to prune the merged model of a run to one size.

    Args:
        run: The run.
        seed: Of the calibration sample.
    """

    def __init__(self, run: Run, seed: int) -> None:
        self._run, self._model = run, model_with_heads(run)
        self._weights = read_merge(run)["weights"]
        models, branches = models_of(run), load_partition(run).branches
        self._branches = [models[f"branch {k}"] for k in range(len(branches))]
        own = [
            scores_of(run, f"branch {k}", leaves, seed, [share.dataset for share in branches[k].shares])
            for k, leaves in enumerate(self._branches)
        ]
        self._of_branches = [hies(scores, FLAGS.alpha) for scores in own]
        self._masks = {
            "after": hies(scores_of(run, "merged", models["merged"], seed), FLAGS.alpha),
            "averaged": hies(averaged(own, self._weights), FLAGS.alpha),
            "theta0": hies(scores_of(run, "theta0", models["theta0"], seed), FLAGS.alpha),
        }

    def models(self, ratio: float, merged: Params) -> dict[str, Params]:
        """Returns the pruned models by name, at one ratio."""
        gated = self._model.with_gates
        found = {name: gated(merged, self._kept(values, ratio)) for name, values in self._masks.items()}
        masks = [self._kept(values, ratio) for values in self._of_branches]
        votes = {part: np.mean([mask[part] for mask in masks], axis=0) for part in masks[0]}
        order = {part: votes[part] + 1e-3 * self._masks["averaged"][part] for part in votes}
        return {**found, "before": gated(self._merged_of_pruned(masks), self._kept(order, ratio))}

    def _kept(self, values: Mapping[str, Any], ratio: float) -> dict[str, Any]:
        groups = {part: self._model.heads[part].groups for part in values}
        return choose(values, groups, ratio, spread="model")

    def _merged_of_pruned(self, masks: Sequence[Mapping[str, Any]]) -> Params:
        total: dict[str, Any] = {}
        for weight, mask, leaves in zip(self._weights, masks, self._branches, strict=True):
            params = tree.flatten(self._model.with_gates(self._run.place(leaves), mask))
            total = {path: weight * leaf + total.get(path, 0) for path, leaf in params.items()}
        return tree.unflatten(total)


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the finished run.", required=True)
    flags.DEFINE_string("root", None, "Folder of the scores.", required=True)
    flags.DEFINE_float("alpha", 0.75, "Weight of importance in HIES.", lower_bound=0, upper_bound=1)
    flags.DEFINE_list("ratios", ["0.3", "0.5"], "Shares of heads to remove.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of calibration samples.")
    flags.DEFINE_integer("records", 20, "Records of each half of a suite.")


def main(argv: Sequence[str]) -> None:
    """Scores, prunes and evaluates what is missing, and prints the tables."""
    run = open_run.open_run(basin.prepare_theta0(app.config(), FLAGS.workdir), FLAGS.workdir)
    models, seeds = models_of(run), list(map(int, FLAGS.seeds))
    found = {name: scores_of(run, name, leaves, seeds[0]) for name, leaves in models.items()}
    found |= {f"merged, sample {n}": scores_of(run, "merged", models["merged"], n) for n in seeds[1:]}
    print(f"{processor()}; rank correlation of HIES on the whole mixture")
    print(tabulate(correlations(found, FLAGS.alpha), ["", *found], tablefmt="pipe", disable_numparse=True))
    evaluator, merged = (
        make_evaluator(run, halved_records(run, FLAGS.records), losses=True),
        run.place(models["merged"]),
    )
    record = absolute(FLAGS.root) / f"arms-{FLAGS.alpha:g}.json"
    known: dict[str, Any] = read_json(record) if record.exists() else {}

    def scored(name: str, params: Params) -> None:
        scores = list(evaluator.evaluate(params).values())
        known[name] = mean_of(scores)
        write_json(record, known)

    if "whole" not in known:
        scored("whole", merged)
    for seed in seeds:
        for ratio in FLAGS.ratios:
            if f"before {ratio} {seed}" not in known:
                for name, params in Arms(run, seed).models(float(ratio), merged).items():
                    scored(f"{name} {ratio} {seed}", params)
    print(
        tabulate(
            arms(known, FLAGS.ratios, seeds),
            ["removed", "scores", "loss (nats/token)", "accuracy (%)"],
            tablefmt="pipe",
        )
    )


def arms(known: Mapping[str, Any], ratios: Sequence[str], seeds: Sequence[int]) -> list[list[str]]:
    """Returns the lines of the arms: mean and standard deviation over calibration samples."""
    lines = [["0", "", f"{known['whole']['loss']:.3f}", f"{100 * known['whole']['accuracy']:.1f}"]]
    for ratio in ratios:
        for name in ("after", "averaged", "theta0", "before"):
            values = [known[f"{name} {ratio} {seed}"] for seed in seeds]
            loss, accuracy = ([value[key] for value in values] for key in ("loss", "accuracy"))
            lines.append([ratio, name, spread(loss, 1, ".3f"), spread(accuracy, 100, ".1f")])
    return lines


if __name__ == "__main__":
    app.start(main, define_flags)
