"""Results of the study on SmolLM2 as JSON and as one Markdown table, from the artifacts of its finished seeds."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from benchmarks.smollm2_seed import plan, with_seed
from merit_jax.comparison.columns import Column, cells, scales, shown, tested
from merit_jax.comparison.intervals import LEVEL, RESAMPLES, Answers
from merit_jax.comparison.results import (
    MethodResult,
    RunResult,
    Tested,
    Value,
    joint_training,
    number_of_tests,
    summarise,
)
from merit_jax.comparison.styles import MARKDOWN
from merit_jax.launch.experiments.read_results import read_results
from merit_jax.launch.experiments.runner import label, plans
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir

RUN_KEYS = (
    "skill",
    "retained",
    "kept_skill",
    "kept_scale",
    "kept_retained",
    "points",
    "mixture_loss",
    "displacement",
    "tokens",
    "seconds",
)
"""Fields of a `RunResult` that the JSON has for each model of a seed."""

MEASURED = ("nats", "task_vector_cosine", "inside", "across")
"""Keys of `smollm2_seed.measured` for each model."""


def retained_answers(run: RunResult) -> Answers:
    """Returns the answers that `retained` is the mean of."""
    return {suite: found for suite, found in run.answers.items() if suite not in run.skill_suites}


def skill_answers(run: RunResult) -> Answers:
    """Returns the answers that `skill` is the mean of."""
    return {suite: run.answers[suite] for suite in run.skill_suites}


TESTS = {
    f"{name} − {rival}": Tested(against, attrgetter(value), answers)
    for rival, against in (("joint", joint_training), ("random", attrgetter("random")))
    for name, value, answers in (
        ("skill", "skill", skill_answers),
        ("retained", "retained", retained_answers),
        ("kept skill", "kept_skill", RunResult.kept_skill_answers),
    )
}
"""Column -> its comparison: skill, retained score and skill at retention, against joint training and the random split."""


def gather(
    config: ConfigDict, root: epath.Path, methods: Sequence[str], seeds: Sequence[int]
) -> dict[str, MethodResult]:
    """Reads every run of the finished seeds and compares the methods.

    Args:
        config: The study's config.
        root: The study's folder.
        methods: The methods, partitions of random splits listed.
        seeds: The finished seeds, at least one.
    """
    outcomes: list[tuple[str, RunResult]] = []
    for seed in seeds:
        comparison, folder = plan(config, root, methods, seed), root / f"seed-{seed}"
        found = read_results(with_seed(config, seed), Workdir(folder, folder), comparison)
        outcomes += [(label(result.variant), result) for result in found]
    return summarise(plans(comparison, ()), outcomes, TESTS)


def measurements(root: epath.Path, seeds: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """Returns what `smollm2_seed.measured` says of each finished seed."""
    return {seed: read_json(root / f"seed-{seed}.json") for seed in seeds}


def to_json(results: Mapping[str, MethodResult], measured: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the results as JSON values: every model of every seed, then means and tests of the methods.

    Args:
        results: As `gather` returns them.
        measured: As `measurements` returns them.
    """
    runs = [run for result in results.values() for run in result.outcomes]
    seeds = {
        str(seed): {
            "gradients": found["gradients"],
            "models": {
                run.variant: {**{key: getattr(run, key) for key in RUN_KEYS}, **found["models"][run.variant]}
                for run in runs
                if run.seed == seed
            },
        }
        for seed, found in measured.items()
    }
    methods = {
        name: {
            **result.plan._asdict(),
            **{
                key: None if (spread := result.spread(value)) is None else spread._asdict()
                for key, value in {
                    **{key: attrgetter(key) for key in RUN_KEYS if key not in ("points", "kept_scale")},
                    **{key: value_of(measured, key) for key in MEASURED},
                }.items()
            },
            "tests": {
                test: {**found._asdict(), "interval": found.interval._asdict() if found.interval else None}
                for test, found in result.tests.items()
            },
        }
        for name, result in results.items()
    }
    tests = {"number": number_of_tests(results), "correction": "Holm", "level": LEVEL, "resamples": RESAMPLES}
    return {"tests": tests, "methods": methods, "seeds": seeds}


def value_of(measured: Mapping[int, Mapping[str, Any]], key: str) -> Value:
    """Returns the function that reads a measurement of a run; None where there is none."""
    return lambda run: measured[run.seed]["models"][run.variant].get(key)


def table(
    results: Mapping[str, MethodResult],
    measured: Mapping[int, Mapping[str, Any]],
    retention: float,
    answers: Mapping[str, Mapping[str, int]],
) -> str:
    """Returns the table of means and paired differences, with a caption that defines its numbers.

    Args:
        results: As `gather` returns them.
        measured: As `measurements` returns them.
        retention: Share of theta0's retained score that counts as kept.
        answers: Kind of prompt -> prompts asked, answers, and their tokens.
    """
    columns = shown(
        results,
        [
            Column("skill", attrgetter("skill")),
            Column("retained", attrgetter("retained")),
            Column("nats of theta0's answers", value_of(measured, "nats"), 1, 3, ranked=False),
            Column(f"skill at {100 * retention:g} % retention (λ)", attrgetter("kept_skill"), note=scales),
        ],
    )
    after = shown(
        results,
        [
            Column("loss on the mixture", attrgetter("mixture_loss"), 1, 3, ranked=False),
            Column("distance from theta0", attrgetter("displacement"), 1, 2, ranked=False),
            Column("cosine of task vectors", value_of(measured, "task_vector_cosine"), 1, 3, ranked=False),
            Column("cosine of gradients inside", value_of(measured, "inside"), 1, 3, ranked=False),
            Column("across", value_of(measured, "across"), 1, 3, ranked=False),
            Column("tokens", attrgetter("tokens"), 1, 0, ranked=False),
            Column("time (s)", attrgetter("seconds"), 1, 0, ranked=False),
        ],
    )
    tests = [name for name in TESTS if any(name in result.tests for result in results.values())]
    titled = [
        *((column.title, cells(results, column, MARKDOWN)) for column in columns),
        *((name, [tested(result.tests.get(name)) for result in results.values()]) for name in tests),
        *((column.title, cells(results, column, MARKDOWN)) for column in after),
    ]
    rows = zip([MARKDOWN.escape(name) for name in results], *(values for _, values in titled), strict=True)
    header = ["method", *(MARKDOWN.text(title) for title, _ in titled)]
    return MARKDOWN.table(header, list(map(list, rows)), MARKDOWN.text(_caption(results, len(measured), answers)))


def _caption(results: Mapping[str, MethodResult], seeds: int, answers: Mapping[str, Mapping[str, int]]) -> str:
    asked, answered, tokens = (sum(one[key] for one in answers.values()) for key in ("asked", "answered", "tokens"))
    suites = len(next(iter(results.values())).outcomes[0].skill_suites)
    return (
        f"Means ± standard deviations over {seeds} seeds (partitions of a random split are averaged in each); best "
        f"bold, second underlined. Skill: accuracy in per cent, mean over the test files of {suites} tasks. Retained: "
        f"on {answered} of theta0's greedy answers to {asked} general prompts ({tokens:,} tokens), the per cent of "
        "tokens that are the model's likeliest; nats: their mean negative log-likelihood per token. Skill at "
        "retention: of theta0 + λ · task vector at the λ, 0 included, of most skill on the choosing half of the "
        "records among those that keep that share of theta0's retained score there; in parentheses each chosen λ and "
        "in how many runs. With it, all scores are of the reporting half. Empty for WiSE, which is on joint "
        f"training's line. Differences are in points, in brackets the {100 * LEVEL:g} % percentile bootstrap interval "
        "over seeds and questions, paired by both; p: one-sided Wilcoxon signed-rank test over n seeds, at least "
        f"2^-n; Holm: corrected for the {number_of_tests(results)} tests of this table; random: the random split into "
        "as many branches, with the method's own keys where it is listed. Loss on the mixture: nats per supervised "
        "token of a few training examples of each task. Cosine of task vectors: mean between a merge's branches. "
        "Cosine of gradients: mean over pairs of tasks, inside one branch and across branches. Tokens: supervised "
        "ones trained on. Time: gradients and training, seeds that run at the same time sharing the device."
    )
