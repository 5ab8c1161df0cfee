"""Heads pruned by each criterion: loss and accuracy at several ratios, and how much the choice depends on the calibration sample.

    python -m benchmarks.study_pruning --config=configs/smollm2_bigbench.py --workdir=runs/pruning/smollm2 --record=smollm2.json
    python -m benchmarks.study_pruning --config=configs/quickstart.py --workdir=runs/quickstart --merged --record=quickstart.json

Each seed is another sample of calibration examples. Records are halved: on one half the weight of importance in HIES is chosen,
by loss, for each ratio and seed; figures are of the other half. Every model is kept in the record as soon as it is evaluated;
run again, the study goes on.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath
from tabulate import tabulate

from benchmarks.processes import processor
from merit_jax.core.seeds import fold
from merit_jax.core.types import Record
from merit_jax.data.records import sample
from merit_jax.evaluation.evaluator import Evaluator
from merit_jax.evaluation.suites import load_suites
from merit_jax.launch.console import app
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.evaluators import make_evaluator
from merit_jax.pipeline.pruning.order import Pruning, kept_heads
from merit_jax.pipeline.pruning.pruning_run import as_lists, pruning_run
from merit_jax.pipeline.pruning.score_heads import model_with_heads
from merit_jax.pipeline.run import Run
from merit_jax.pruning import removed_ratio
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir, absolute

FLAGS = flags.FLAGS

HALVES = ("choosing", "reporting")
RULES = ("importance", "entropy")
"""Criteria that depend on the calibration sample and on nothing else."""


class Point(NamedTuple):
    """One pruned model.

    Attributes:
        pruning: The way it was pruned.
        seed: Of the calibration sample.
        removed: Share of heads that is really removed.
        scores: Half -> mean loss (nats per token) and accuracy.
        heads: Numbers of the removed heads.
    """

    pruning: Pruning
    seed: int
    removed: float
    scores: Mapping[str, Mapping[str, float]]
    heads: frozenset[int]


def plans(ratio: float, alphas: Sequence[float], seeds: Sequence[int], draws: int) -> Iterator[tuple[int, Pruning]]:
    """Yields the prunings at one ratio with the seeds of their calibration samples."""
    for seed in seeds:
        yield from ((seed, Pruning("hies", ratio, alpha)) for alpha in alphas)
        yield from ((seed, Pruning(criterion, ratio, 0.5)) for criterion in RULES)
    yield seeds[0], Pruning("magnitude", ratio, 0.5)
    yield from ((seeds[0], Pruning("random", ratio, 0.5, draw)) for draw in range(draws))


def halved_records(run: Run, most: int) -> dict[str, Sequence[Record]]:
    """Returns "HALF NAME" -> at most `most` records of each half of every suite and of every dataset's held-out records."""
    sets = load_suites(run.config.evaluate.suites) if run.config.evaluate.suites else {}
    sets |= {dataset.name: list(dataset.held_out) for dataset in run.datasets if dataset.held_out and not sets}
    drawn = {name: sample(records, 2 * most, fold(0, "pruning", name)) for name, records in sets.items()}
    return {f"{half} {name}": records[n::2] for name, records in drawn.items() for n, half in enumerate(HALVES)}


class Study:
    """The prunings of one model, evaluated on halves of the same records.

    Attributes:
        whole: Scores of the model with all its heads.
    """

    def __init__(self, run: Run, records: Mapping[str, Sequence[Record]], record: epath.Path) -> None:
        self._run, self._model, self._record = run, model_with_heads(run), record
        self._evaluator: Evaluator = make_evaluator(run, records, losses=True)
        self._known = read_json(record) if record.exists() else {}
        inputs = {"theta0": run.theta0_fingerprint, "records": fingerprint({n: len(r) for n, r in records.items()})}
        if self._known and self._known["made_from"] != inputs:
            raise ValueError(f"{record} is of another model or of other records; give another --record")
        self._known = {"made_from": inputs, "processor": processor(), "models": {}, **self._known}
        self.whole = self._scores("whole", None)

    def point(self, seed: int, pruning: Pruning) -> Point:
        """Prunes by a calibration sample and evaluates, unless a model without the same heads has been evaluated."""
        kept = kept_heads(self._with_seed(seed), pruning)
        every = np.concatenate([np.ravel(values) for values in kept.values()])
        heads = frozenset(np.flatnonzero(~every).tolist())
        return Point(pruning, seed, removed_ratio(kept), self._scores(fingerprint(as_lists(kept))[:16], kept), heads)

    def _with_seed(self, seed: int) -> Run:
        config = self._run.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed
        return self._run.derive(config, Workdir.at(self._run.workdir.root / f"sample-{seed}"))

    def _scores(self, name: str, kept: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, float]]:
        if name not in self._known["models"]:
            params = self._run.params if kept is None else self._model.with_gates(self._run.params, kept)
            found = self._evaluator.evaluate(params)
            self._known["models"][name] = {
                half: mean_of([s for n, s in found.items() if n.startswith(half)]) for half in HALVES
            }
            write_json(self._record, self._known)
        return self._known["models"][name]


def mean_of(scores: Sequence[Any]) -> dict[str, float]:
    """Returns the loss per token of all records together, and the mean accuracy of the sets."""
    tokens = sum(score.tokens for score in scores)
    loss = sum(score.loss * score.tokens for score in scores) / tokens
    return {"loss": loss, "accuracy": float(np.mean([score.accuracy for score in scores]))}


def chosen(points: Sequence[Point]) -> list[Point]:
    """Returns the points with, of HIES, those of the weight that has the lowest loss on the choosing half, seed by seed."""
    rest = [point for point in points if point.pruning.criterion != "hies"]
    hies = sorted((p for p in points if p.pruning.criterion == "hies"), key=lambda point: point.seed)
    best = [
        min(group, key=lambda point: point.scores["choosing"]["loss"])
        for _, group in itertools.groupby(hies, key=lambda point: point.seed)
    ]
    return [*best, *rest]


def overlap(points: Sequence[Point]) -> float:
    """Returns the mean Jaccard index of the heads that two points remove, over all pairs of points."""
    pairs = itertools.combinations([point.heads for point in points], 2)
    return float(np.mean([len(one & other) / max(len(one | other), 1) for one, other in pairs]))


def rows(ratio: float, points: Sequence[Point]) -> list[list[str]]:
    """Returns lines of the table at one ratio: mean and standard deviation over seeds, or draws, on the reporting half."""
    found, lines = chosen(points), []
    for criterion in ("hies", *RULES, "magnitude", "random"):
        group = [point for point in found if point.pruning.criterion == criterion]
        of_seeds = criterion in ("hies", *RULES) and len(group) > 1
        alphas = ", ".join(f"{point.pruning.alpha:g}" for point in group) if criterion == "hies" else ""
        values = [[point.scores["reporting"][key] for point in group] for key in ("loss", "accuracy")]
        lines.append(
            [
                f"{ratio:.0%}",
                criterion,
                alphas,
                spread(values[0], 1, ".3f"),
                spread(values[1], 100, ".1f"),
                f"{overlap(group):.2f}" if of_seeds else "",
            ]
        )
    return lines


def spread(values: Sequence[float], factor: float, form: str) -> str:
    """Returns the mean of values times a factor, with their standard deviation if there are several."""
    mean = format(factor * np.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(factor * np.std(values, ddof=1), form)}"


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_bool("merged", False, "Prune the merged model of the run in place of theta0.")
    flags.DEFINE_string("record", None, "JSON file of the scores; it grows.", required=True)
    flags.DEFINE_list("ratios", ["0.1", "0.3", "0.5"], "Shares of heads to remove.")
    flags.DEFINE_list("alphas", ["0.25", "0.5", "0.75"], "Weights of importance in HIES, of which one is chosen.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of calibration samples.")
    flags.DEFINE_integer("draws", 5, "Random orders.")
    flags.DEFINE_integer("records", 8, "Records of each half of a suite or of a dataset's held-out ones.")


def main(argv: Sequence[str]) -> None:
    """Prunes and evaluates what is missing, and prints the table."""
    config = basin.prepare_theta0(app.config(), FLAGS.workdir)
    config.prune.spread = "model"
    run = open_run.open_run(config, FLAGS.workdir)
    run = pruning_run(run) if FLAGS.merged else run
    study = Study(run, halved_records(run, FLAGS.records), absolute(FLAGS.record))
    whole, lines = study.whole["reporting"], []
    lines.append(["0%", "", "", f"{whole['loss']:.3f}", f"{100 * whole['accuracy']:.1f}", ""])
    for ratio in map(float, FLAGS.ratios):
        wanted = plans(ratio, list(map(float, FLAGS.alphas)), list(map(int, FLAGS.seeds)), FLAGS.draws)
        lines += rows(ratio, [study.point(seed, pruning) for seed, pruning in wanted])
    header = ["removed", "criterion", "alpha of the seeds", "loss (nats/token)", "accuracy (%)", "overlap of seeds"]
    print(f"{processor()}, {jax.devices()[0].device_kind}")
    print(tabulate(lines, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    app.start(main, define_flags)
