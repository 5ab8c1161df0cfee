"""Runs of an experiment that are made up, with answers to single questions that give their scores."""

import numpy as np

from merit_jax.comparison.results import MethodPlan, RunResult, summarise

QUESTIONS = 20

SCORES = {
    "theta0": {0: [(0.9, 0.1)], 1: [(0.9, 0.1)], 2: [(0.9, 0.1)]},
    "joint": {0: [(0.2, 0.6)], 1: [(0.3, 0.5)], 2: [(0.4, 0.55)]},
    "random4": {0: [(0.8, 0.2), (0.6, 0.3)], 1: [(0.7, 0.3), (0.7, 0.35)], 2: [(0.8, 0.25), (0.6, 0.2)]},
    "merit2d": {0: [(0.8, 0.4)], 1: [(0.7, 0.5)], 2: [(0.75, 0.6)]},
    "joint:train.epochs=2": {0: [(0.1, 0.95)], 1: [(0.1, 0.9)], 2: [(0.1, 1.0)]},
}
"""Method -> seed -> (retained, skill) of each run: the scores of the suites `old_x` and `new`."""

PLANS = {
    "theta0": MethodPlan(0, 0.0, False, None),
    "joint": MethodPlan(1, 1.0, False, None),
    "random4": MethodPlan(4, 1.0, False, None),
    "merit2d": MethodPlan(4, 1.0, False, "random4"),
    "joint:train.epochs=2": MethodPlan(1, 2.0, True, None),
}


def answers(seed, **scores):
    """Suite -> question -> score; a share of the seed's questions is right, which ones depends on the score."""
    found = {}
    for suite, score in scores.items():
        right = np.random.default_rng(int(1000 * score)).permutation(QUESTIONS) < round(score * QUESTIONS)
        found[suite] = {f"{suite} {seed + i}": float(one) for i, one in enumerate(right)}
    return found


def outcome(seed, name, old, new, **changes):
    """A run whose skill at retention is half of its skill, at scale 0.5; theta0's is its own, at scale 0."""
    kept = new if name == "theta0" else new / 2
    values = {
        "seed": seed,
        "variant": name,
        "scores": {"old_x": old, "new": new},
        "answers": answers(seed, old_x=old, new=new),
        "mean": (old + new) / 2,
        "retained": old,
        "skill": new,
        "skill_suites": ("new",),
        "kept_skill": kept,
        "kept_scale": 0.0 if name == "theta0" else 0.5,
        "kept_retained": 0.88,
        "kept_answers": answers(seed, old_x=0.5, new=kept),
        "points": (),
        "interpolated_skill": kept,
        "loss": None,
        "mixture_loss": 1 + new,
        "displacement": 2.0,
        "tokens": 100,
        "seconds": 10.0 + seed,
    }
    return RunResult(**{**values, **changes})


WITHOUT_FRONTIER = {"kept_skill": None, "kept_scale": None, "kept_retained": None, "kept_answers": {}}
"""Changes of a run without a frontier."""


def outcomes(**changes):
    """(method, run) of every run of `SCORES`."""
    return [
        (name, outcome(seed, name, *scores, **changes))
        for name, seeds in SCORES.items()
        for seed, several in seeds.items()
        for scores in several
    ]


def results(**changes):
    """The results of `SCORES`."""
    return summarise(PLANS, outcomes(**changes))
