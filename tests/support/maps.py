"""Maps of experiments with a known law of gains."""

import numpy as np

from merit_jax.advice.features import method_features, mixture_features

METHODS = {
    "joint": (1, False, False, 0.0),
    "examples4": (4, False, False, 0.0),
    "random4": (4, True, False, 0.0),
    "merit2d": (4, True, True, 0.0),
    "merit3d": (8, True, True, 0.0),
    "random4:partition.core=0.25": (4, True, False, 0.25),
    "merit2d:partition.core=0.25": (4, True, True, 0.25),
}
"""Method -> branches, whether by dataset, whether by conflict, core."""


def map_of(law, *, noise=1.0, seeds=2, seed=0, pilot=None, **mixture):
    """A map of six worlds at two lengths, whose gains in points are `law(shared, features)` and noise.

    `pilot(gain)` are the features of a pilot; `mixture` are features that all mixtures have.
    """
    rng, cells = np.random.default_rng(seed), []
    for number, shared in enumerate((0.05, 0.1, 0.15, 0.2, 0.25, 0.3)):
        for passes in (1.0, 4.0):
            cell = {"world": f"w{number}", "cell": f"w{number}-e{passes:g}", "methods": {}, "measured": {}}
            for run in range(seeds):
                own = shared + rng.normal(0, 0.005)
                steps = round(300 * passes)
                measured = {"shared": own, "axes": 0.5, "reliability": 0.8, "loss": 2.0, "steps": steps}
                measured |= {"passes": passes, "datasets": 32, "parameters": 650_000, **mixture}
                joint, methods = 0.4 + rng.normal(0, noise / 100), {}
                for name, (branches, by_dataset, by_conflict, core) in METHODS.items():
                    gap = (1 - core) * (0.4 + 0.2 * by_conflict) if by_dataset else 0.0
                    features = method_features(
                        branches=branches, by_dataset=by_dataset, by_conflict=by_conflict, core=core, agreement=1 - gap
                    )
                    gain = 0.0 if name == "joint" else law(own, features)
                    score = joint + (0.0 if name == "joint" else (gain + rng.normal(0, noise)) / 100)
                    methods[name] = {**features, **(pilot(gain) if pilot else {})}
                    cell["methods"].setdefault(name, []).append(
                        {"seed": run, "interpolated_skill": score, "mean": score, "skill": score}
                    )
                cell["measured"][str(run)] = {"mixture": mixture_features(**measured), "methods": methods}
            cells.append(cell)
    return cells
