"""Summarises the results of a run's diagnostics, a line each."""

from collections.abc import Callable, Mapping
from typing import Any

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir

Result = Mapping[str, Any]


def summarise_diagnostics(workdir: Workdir) -> dict[str, str]:
    """Returns the summary of each diagnostic that has been made, by name."""
    paths = {name: workdir.diagnostic(name) for name in SUMMARIES}
    return {name: SUMMARIES[name](read_json(path)["result"]) for name, path in paths.items() if path.exists()}


def _gradient_norms(result: Result) -> str:
    cvs = ", ".join(f"{row['cv']:.2f} ({row['trimmed']:.0%} trimmed)" for row in result["rows"])
    return f"coefficient of variation {cvs}; largest / smallest {result['rows'][0]['ratio']:.1f}"


def _displacement(result: Result) -> str:
    distances = ", ".join(
        f"{name} {distance:.3g}" for name, distance in zip(result["names"], result["distances"], strict=True)
    )
    ratio = result["joint_over_merged"]
    identity = result["parallel_axis"]
    shrunk = f"contraction {identity['contraction']:.2f}" if identity else "no weighted mean, so no contraction (Eq. 2)"
    return f"from theta0: {distances}; {shrunk}{f'; joint / merged {ratio:.2f}' if ratio else ''}"


def _calibration(result: Result) -> str:
    known = [(n, c) for n, c in zip(result["sizes"], result["cosine"], strict=True) if c is not None]
    needed = [dataset["needed"] for dataset in result["datasets"]]
    most = max((n for n in needed if n is not None), default=None)
    never = f", {needed.count(None)} without any signal" if None in needed else ""
    cosines = ", ".join(f"n={n} {c:.2f}" for n, c in known)
    enough = f"reliability {result['target']} needs at most {most:,.0f} examples" if most is not None else "no signal"
    return f"cosine to the reference {cosines}; {enough}{never}"


def _sketch(result: Result) -> str:
    rows = (f"{row['reduction']} {row['size']:,}: Pearson {row['pearson']:.4f}" for row in result["rows"])
    return f"against {result['entries']:,} entries: {', '.join(rows)}"


def _split_gain(result: Result) -> str:
    chosen, drawn = result["chosen"], result["random"]
    mean = sum(drawn["gain"]) / len(drawn["gain"])
    return (
        f"predicted gain {chosen['gain'][0]:.3g} nats, above {result['rank']:.0%} of random splits (mean {mean:.3g}, best "
        f"{result['best']['gain'][0]:.3g}); second-order merged loss {chosen['merged'][0]:.3g}"
    )


def _connectivity(result: Result) -> str:
    worst = max(result["paths"], key=lambda path: path["barrier"])
    where = f" ({worst['start']} - {worst['end']})" if worst["barrier"] else ""
    return f"highest of {len(result['paths'])} barriers {worst['barrier']:.4g} nats{where}"


def _perturbation(result: Result) -> str:
    models = (f"{model['name']} {_number(model['auc'])} (loss {model['loss']:.3f})" for model in result["models"])
    return f"area under the rise of the loss up to sigma {result['sigmas'][-1]:g}: {', '.join(models)}"


def _gain(result: Result) -> str:
    return (
        f"obtained {result['obtained']:.4g} nats, predicted {result['predicted']:.4g}; loss of the branches "
        f"{result['mean_branch_loss']:.4f}, merged {result['merged_loss']:.4f}"
    )


def _surface(result: Result) -> str:
    losses = [loss for row in result["losses"] for loss in row if loss is not None]
    return f"loss {min(losses):.3f} to {max(losses):.3f} nats on the plane" if losses else "no finite loss on the plane"


def _curvature(result: Result) -> str:
    if "span" not in result["raw"]:
        return "made by an earlier version; make it again with --only=curvature --overwrite"
    return "; ".join(f"{name}: {_alignment(result[name])}" for name in ("raw", "centred"))


def _alignment(found: Result) -> str:
    return (
        f"max |cos| {found['largest']:.3f}, mean top-1 {found['mean_top']:.3f}, leading angle {found['angles'][0]:.1f} degrees, "
        f"z {_number(found['gaussian']['z_score'])} (Gaussian directions) and {_number(found['span']['z_score'])} (in the span)"
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


SUMMARIES: dict[str, Callable[[Result], str]] = {
    "gradient_norms": _gradient_norms,
    "displacement": _displacement,
    "calibration": _calibration,
    "sketch": _sketch,
    "split_gain": _split_gain,
    "connectivity": _connectivity,
    "perturbation": _perturbation,
    "gain": _gain,
    "surface": _surface,
    "curvature": _curvature,
}
"""Name of a diagnostic -> its result as a line; the names are those of the pipeline."""
