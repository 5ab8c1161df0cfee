"""The results of an experiment: every run of every method, and their statistics."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from merit_jax.comparison.statistics import Paired, Spread, paired, spread


class RunResult(NamedTuple):
    """One run of one method. Scores are accuracies in 0..1.

    Attributes:
        seed: Of the run.
        variant: The method, with all that distinguishes this run from others of the seed.
        scores: Suite (or dataset, where there are no suites) -> accuracy.
        mean: Of `scores`, each counting once.
        retained: Mean over the suites of what theta0 could already do; None without such suites.
        skill: Mean over the other suites; None without.
        kept_skill: Highest skill at any scale of the task vector that retains enough of theta0; None without a frontier.
        points: (scale, retained, skill) on the frontier; empty without.
        loss: Mean held-out loss of the datasets in nats per token; None without held-out records.
        mixture_loss: Loss on training examples in nats per token; None where it was not measured.
        displacement: Distance from theta0.
        tokens: Supervised tokens of its training.
        seconds: Wall time of its gradients and training, branches one after the other; of what was interrupted, the last part.
    """

    seed: int
    variant: str
    scores: Mapping[str, float]
    mean: float
    retained: float | None
    skill: float | None
    kept_skill: float | None
    points: tuple[tuple[float, float, float], ...]
    loss: float | None
    mixture_loss: float | None
    displacement: float
    tokens: int
    seconds: float


class MethodPlan(NamedTuple):
    """A method before it runs.

    Attributes:
        branches: K.
        passes: Its budget: passes over the mixture, of all branches together.
        control: It is meant to have another budget than the others, and is not ranked among them.
        random: The random split into as many branches; None if there is none, or it is one.
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
        joint: Is its mean score above joint training's? None if it is joint training, or there is none.
        random: The same against the random split of `plan`.
        kept_joint: As `joint`, of the skill at retention.
        kept_random: As `random`, of the skill at retention.
    """

    plan: MethodPlan
    outcomes: tuple[RunResult, ...]
    joint: Paired | None
    random: Paired | None
    kept_joint: Paired | None
    kept_random: Paired | None

    def spread(self, value: Callable[[RunResult], float | None]) -> Spread | None:
        """Returns the spread of one quantity over the runs that have it; None if none has."""
        values = [found for outcome in self.outcomes if (found := value(outcome)) is not None]
        return spread(values) if values else None


def summarise(plans: Mapping[str, MethodPlan], outcomes: Sequence[tuple[str, RunResult]]) -> dict[str, MethodResult]:
    """Brings the runs of each method together and compares it, seed by seed, with joint training and its random split.

    Runs of one method and seed (random partitions) are averaged before they are paired.

    Args:
        plans: Method -> its plan, in the order of the tables.
        outcomes: (method, run), in any order.
    """
    runs = {name: tuple(run for method, run in outcomes if method == name) for name in plans}

    def against(name: str, rival: str | None, value: Callable[[RunResult], float | None]) -> Paired | None:
        if rival is None or rival == name or rival not in runs:
            return None
        return paired(_by_seed(runs[name], value), _by_seed(runs[rival], value))

    return {
        name: MethodResult(
            plan,
            runs[name],
            against(name, "joint", attrgetter("mean")),
            against(name, plan.random, attrgetter("mean")),
            against(name, "joint", attrgetter("kept_skill")),
            against(name, plan.random, attrgetter("kept_skill")),
        )
        for name, plan in plans.items()
        if runs[name]
    }


def to_json(results: Mapping[str, MethodResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns results as JSON values, together with what `about` says of them."""
    return {**about, "methods": {name: _plain(result) for name, result in results.items()}}


def _plain(result: MethodResult) -> dict[str, Any]:
    tests = {name: getattr(result, name) for name in ("joint", "random", "kept_joint", "kept_random")}
    return {
        **result.plan._asdict(),
        "scores": {suite: _values(result.spread(score_of(suite))) for suite in result.outcomes[0].scores},
        **{name: _values(result.spread(attrgetter(name))) for name in MEASURES},
        "wilcoxon": {name: _values(test) for name, test in tests.items()},
        "runs": [run._asdict() for run in result.outcomes],
    }


MEASURES = ("mean", "retained", "skill", "kept_skill", "loss", "mixture_loss", "displacement", "tokens", "seconds")
"""Fields of a `RunResult` whose mean and standard deviation are reported."""


def score_of(suite: str) -> Callable[[RunResult], float]:
    """Returns the function that reads a run's score of a suite."""
    return lambda run: run.scores[suite]


def _values(found: Spread | Paired | None) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def _by_seed(runs: Sequence[RunResult], value: Callable[[RunResult], float | None]) -> dict[int, float]:
    """Seed -> mean over its runs, of the seeds whose runs have the value."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if (got := value(run)) is not None:
            found.setdefault(run.seed, []).append(got)
    return {seed: spread(values).mean for seed, values in found.items()}
