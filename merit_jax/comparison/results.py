"""The results of an experiment: every run of every method, and their statistics."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from merit_jax.comparison.intervals import LEVEL, RESAMPLES, Answers, bootstrap_intervals
from merit_jax.comparison.statistics import Paired, Spread, holm, paired, spread

T = TypeVar("T")
Value = Callable[["RunResult"], float | None]
"""A quantity of a run; None where the run does not have it."""


class RunResult(NamedTuple):
    """One run of one method. Scores are accuracies in 0..1.

    Attributes:
        seed: Of the run.
        variant: The method, with all that distinguishes this run from others of the seed.
        scores: Suite (or dataset, where there are no suites) -> accuracy.
        answers: Suite (or dataset) -> question's id -> score; the accuracies are means of these.
        mean: Of `scores`, each counting once.
        retained: Mean over the suites of what theta0 could already do; None without such suites.
        skill: Mean over the other suites; None without.
        skill_suites: Names of the other suites.
        kept_skill: Skill at the chosen scale of the task vector; None without a frontier of its own.
        kept_scale: The scale, chosen on records that are not reported: that of the highest skill among those that retain enough.
        kept_retained: Retained score at that scale.
        kept_answers: As `answers`, at that scale; empty without.
        points: (scale, retained, skill) on the frontier; empty without.
        interpolated_skill: Skill where the frontier falls to the share of theta0's score that is to be retained, between measured
            scales and of both halves of the suites; None without a frontier of its own.
        loss: Mean held-out loss of the datasets in nats per token; None without held-out records.
        mixture_loss: Loss in nats per supervised token over equally many training examples of each dataset; None where it was
            not measured.
        displacement: Distance from theta0.
        tokens: Supervised tokens of its training.
        seconds: Wall time of its gradients and training, branches one after the other; of what was interrupted, the last part.
    """

    seed: int
    variant: str
    scores: Mapping[str, float]
    answers: Answers
    mean: float
    retained: float | None
    skill: float | None
    skill_suites: tuple[str, ...]
    kept_skill: float | None
    kept_scale: float | None
    kept_retained: float | None
    kept_answers: Answers
    points: tuple[tuple[float, float, float], ...]
    interpolated_skill: float | None
    loss: float | None
    mixture_loss: float | None
    displacement: float
    tokens: int
    seconds: float

    def kept_skill_answers(self) -> Answers:
        """Returns the answers that `kept_skill` is the mean of: those of the skill suites at the chosen scale."""
        return {suite: self.kept_answers[suite] for suite in self.skill_suites if suite in self.kept_answers}


class MethodPlan(NamedTuple):
    """A method before it runs.

    Attributes:
        branches: K.
        passes: Its budget: passes over the mixture, of all branches together.
        control: It is meant to have another budget than the others, and is not ranked among them.
        random: The random split into as many branches that it is compared with; None if there is none, or it is one.
    """

    branches: int
    passes: float
    control: bool
    random: str | None


class MethodResult(NamedTuple):
    """A method over all seeds.

    Attributes:
        plan: The method before it ran.
        outcomes: Its runs, one per seed; several per seed for random partitions.
        tests: Name of a test -> comparison with a rival; those that the method has.
    """

    plan: MethodPlan
    outcomes: tuple[RunResult, ...]
    tests: Mapping[str, Paired]

    def spread(self, value: Value) -> Spread | None:
        """Returns the spread of one quantity over the runs that have it; None if none has."""
        values = by_seed(self.outcomes, value)
        return spread(values) if values else None


class Tested(NamedTuple):
    """A comparison that is made of every method.

    Attributes:
        rival: (method's plan) -> the method it is compared with; None for no comparison.
        value: The score that is compared.
        answers: The answers that the score is the mean of.
    """

    rival: Callable[[MethodPlan], str | None]
    value: Value
    answers: Callable[[RunResult], Answers]


def joint_training(plan: MethodPlan) -> str:
    """Returns the rival of every method: joint training."""
    return "joint"


TESTS = {
    "joint": Tested(joint_training, attrgetter("mean"), attrgetter("answers")),
    "random": Tested(attrgetter("random"), attrgetter("mean"), attrgetter("answers")),
    "kept_joint": Tested(joint_training, attrgetter("kept_skill"), RunResult.kept_skill_answers),
    "kept_random": Tested(attrgetter("random"), attrgetter("kept_skill"), RunResult.kept_skill_answers),
}
"""The tests: the mean over suites against joint training and the random split, then the skill at the chosen scale."""


def summarise(
    plans: Mapping[str, MethodPlan], outcomes: Sequence[tuple[str, RunResult]], tests: Mapping[str, Tested] = TESTS
) -> dict[str, MethodResult]:
    """Brings the runs of each method together and compares it, seed by seed, with its rivals: joint training, the random split.

    Runs of one method and seed (random partitions) are averaged before they are paired. p-values are corrected for the number
    of all tests together.

    Args:
        plans: Method -> its plan, in the order of the tables.
        outcomes: (method, run), in any order.
        tests: Name -> what is compared with which rival.
    """
    runs = {name: tuple(run for method, run in outcomes if method == name) for name in plans}
    rivals = {
        (name, test): runs.get(tested.rival(plan) or "", ())
        for name, plan in plans.items()
        for test, tested in tests.items()
        if tested.rival(plan) != name
    }
    found = {
        (name, test): result
        for (name, test), rival in rivals.items()
        if (result := paired(*(_seed_means(side, tests[test].value) for side in (runs[name], rival))))
    }
    intervals = bootstrap_intervals(
        [
            (by_seed(runs[name], tests[test].answers), by_seed(rivals[name, test], tests[test].answers))
            for name, test in found
        ]
    )
    adjusted = holm([result.p for result in found.values()])
    compared: dict[str, dict[str, Paired]] = {name: {} for name in plans}
    for ((name, test), result), p, interval in zip(found.items(), adjusted, intervals, strict=True):
        compared[name][test] = result._replace(holm=p, interval=interval)
    return {name: MethodResult(plan, runs[name], compared[name]) for name, plan in plans.items() if runs[name]}


def number_of_tests(results: Mapping[str, MethodResult]) -> int:
    """Returns the number of tests that p-values are corrected for."""
    return sum(len(result.tests) for result in results.values())


def to_json(results: Mapping[str, MethodResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns results as JSON values, together with what `about` says of them; without the answers to single questions."""
    tests = {"number": number_of_tests(results), "correction": "Holm", "level": LEVEL, "resamples": RESAMPLES}
    return {**about, "tests": tests, "methods": {name: _plain(result) for name, result in results.items()}}


def _plain(result: MethodResult) -> dict[str, Any]:
    return {
        **result.plan._asdict(),
        "scores": {suite: _values(result.spread(score_of(suite))) for suite in result.outcomes[0].scores},
        **{name: _values(result.spread(attrgetter(name))) for name in MEASURES},
        "kept_scales": [run.kept_scale for run in result.outcomes if run.kept_scale is not None],
        "tests": {name: _test(result.tests[name]) if name in result.tests else None for name in TESTS},
        "runs": [
            {name: value for name, value in run._asdict().items() if name not in ("answers", "kept_answers")}
            for run in result.outcomes
        ],
    }


MEASURES = (
    "mean",
    "retained",
    "skill",
    "kept_skill",
    "kept_retained",
    "interpolated_skill",
    "loss",
    "mixture_loss",
    "displacement",
    "tokens",
    "seconds",
)
"""Fields of a `RunResult` whose mean and standard deviation are reported."""


def score_of(suite: str) -> Callable[[RunResult], float]:
    """Returns the function that reads a run's score of a suite."""
    return lambda run: run.scores[suite]


def _values(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def _test(found: Paired) -> dict[str, Any]:
    return {**found._asdict(), "interval": None if found.interval is None else found.interval._asdict()}


def by_seed(runs: Sequence[RunResult], value: Callable[[RunResult], T | None]) -> dict[int, list[T]]:
    """Returns seed -> the value of each of its runs, of the seeds whose runs have it."""
    found: dict[int, list[T]] = {}
    for run in runs:
        if (got := value(run)) is not None:
            found.setdefault(run.seed, []).append(got)
    return found


def _seed_means(runs: Sequence[RunResult], value: Value) -> dict[int, float]:
    return {seed: float(np.mean(values)) for seed, values in by_seed(runs, value).items()}
