"""The workdir of a pruning written by hand: two layers of four heads, or a model of any size to look at."""

from pathlib import Path
from typing import Any

import numpy as np

from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.pruning_files import PruningFiles, basis_of_curves

SETTINGS = {"unit": "head", "spread": "layer", "keep": 1, "parts": ["decoder"], "rounds": 1}
COSTS = {"parameters": 2000, "parameter_bytes": 8000, "cache_bytes": 384}
COSTS |= {"read_tokens_per_second": 100.0, "written_tokens_per_second": 20.0}
SMALLER = {"parameters": 1500, "parameter_bytes": 6000, "cache_bytes": 192}
SMALLER |= {"read_tokens_per_second": 150.0, "written_tokens_per_second": 30.0}
NOTE = "decoder: 4 of 8 attention heads are removed; a layer has 2 query heads in place of 4."
CURVE = {
    "hies": (0.25, 0.7, 0.6),
    "importance": (0.25, 0.65, 0.5),
    "random": (0.25, 0.4, 0.3),
}
"""Criterion -> share removed, accuracy at ratio 0.25 and at 0.5; draws of "random" differ by 0.1."""


def write(root: Path, layers: int = 2, heads: int = 4, *, alpha: tuple[float, ...] = (0.5,), curve=CURVE) -> Path:
    """A finished pruning; with several values of alpha, the last is chosen."""
    workdir, files = Workdir.at(root), PruningFiles(Workdir.at(root).root)
    rng = np.random.default_rng(0)
    importance = rng.random((layers, heads)) ** 3
    entropy = 1 - 0.4 * rng.random((layers, heads))
    scores = {
        "importance": importance,
        "entropy": entropy,
        "hies": alpha[-1] * importance + (1 - alpha[-1]) * (1 - entropy),
    }
    kept = np.argsort(np.argsort(scores["hies"], axis=1), axis=1) >= heads // 2
    prune = {**SETTINGS, "alpha": list(alpha), "criterion": "hies", "ratio": 0.5}
    inputs = {"theta0": "whole-fingerprint", "prune": prune, **({"suites": {"qa": "0"}} if len(alpha) > 1 else {})}
    chosen = {"inputs": inputs, "criterion": "hies", "alpha": alpha[-1], "removed": float(1 - kept.mean())}
    chosen["scores"] = {name: {"decoder": values.tolist()} for name, values in scores.items()}
    chosen["kept"] = {"decoder": kept.astype(int).tolist()}
    if len(alpha) > 1:
        chosen["accuracies"] = {str(value): 0.25 + 0.125 * place for place, value in enumerate(alpha)}
    write_json(files.choice, chosen)
    write_json(workdir.theta0, {"inputs": {"path": "models/tiny<b>"}, "fingerprint": "whole-fingerprint"})
    mark = fingerprint(inputs)
    made = {"theta0": "whole-fingerprint", "pruning": mark}
    costs = {"before": COSTS, "after": SMALLER, "device": "1 x cpu", "notes": [NOTE]}
    write_json(files.costs, {"inputs": made, **costs})
    models = {
        "whole": entry(0.75),
        "pruned": entry(0.5, pruning=mark),
        "recovered": entry(0.625, pruning=mark, recovery="r"),
    }
    half = {"inputs": {"half": "reporting" if len(alpha) > 1 else "all", "evaluate": {"retained": []}}, "questions": {}}
    write_json(workdir.evaluation, {**half, "models": models})
    write_json(
        files.curve,
        {**half, "models": {"whole": entry(0.75), **curve_models(alpha[-1], basis_of_curves(inputs), curve)}},
    )
    write_json(workdir.times, {"prune": 3.0, "curve": 12.0})
    return root


def entry(accuracy: float, loss: float | None = None, **made: Any) -> dict[str, Any]:
    """A model's entry of one suite and one dataset of 8 records each; the loss is 3 − 2 · accuracy."""
    loss = 3 - 2 * accuracy if loss is None else loss
    scores = {"tokens": 9, "accuracy": accuracy, "records": 8, "metric": "options", "correct": [accuracy] * 8}
    return {
        "inputs": {"theta0": "whole-fingerprint", **made},
        "displacement": 1.25,
        "suites": {"qa": {**scores, "loss": None}},
        "suites_mean": {"accuracy": accuracy},
        "datasets": {"copy": {**scores, "loss": loss}},
        "mean": {"accuracy": accuracy, "loss": loss},
    }


def curve_models(alpha: float, basis: str, curve=CURVE) -> dict[str, Any]:
    """The models of the curves; recovery gives each of them 0.05 back."""
    found = {}
    for criterion, (step, *accuracies) in curve.items():
        for place, accuracy in enumerate(accuracies, 1):
            for draw in range(3 if criterion == "random" else 1):
                ratio = step * place
                pruning = {"criterion": criterion, "ratio": ratio, "alpha": alpha, "draw": draw, "basis": basis}
                pruning |= {"removed": ratio, "kept": f"{criterion}{ratio}{draw}"}
                name = f"{criterion}-{ratio}" + (f"-{draw}" if criterion == "random" else "")
                found[name] = entry(accuracy + 0.1 * draw, pruning=pruning)
                found[f"{name} recovered"] = entry(accuracy + 0.1 * draw + 0.05, pruning=pruning, recovery=name)
    return found
