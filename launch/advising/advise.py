"""Measures a mixture, forecasts each method on it, and recommends one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from merit_jax.advice.features import pilot_features
from merit_jax.advice.forecaster import Forecast
from merit_jax.advice.map_forecast import Law, MapForecast
from merit_jax.advice.observations import DECIDING, JOINT
from merit_jax.advice.recommendation import recommend
from merit_jax.launch.advising.candidates import Candidates, configs_of, measure_candidates
from merit_jax.launch.advising.costs import candidate_costs
from merit_jax.launch.advising.page import page
from merit_jax.launch.advising.pilot import run_pilot
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.pipeline.diagnostics.task import as_json
from merit_jax.pipeline.measure_mixture import features_of, measure_mixture
from merit_jax.pipeline.run import Run
from merit_jax.planning.topology import Topology
from merit_jax.planning.workload import Rate
from merit_jax.workdir.artifacts import plain, read_inputs, write_json, write_text
from merit_jax.workdir.checksums import fingerprint


class Question(NamedTuple):
    """A question for advice.

    Attributes:
        methods: The methods that are compared.
        forecast: Fitted from a map; None: measurements only.
        cluster: Whether the machines can train one model together.
        pilot: Share of the tokens that a pilot trains on; 0: none.
        topology: One slice; None: no times and costs.
        price: Dollars per chip and hour; None if unknown.
        utilisation: Share of the peak that model FLOPs reach.
    """

    methods: Sequence[str]
    forecast: MapForecast | None
    cluster: bool = True
    pilot: float = 0.0
    topology: Topology | None = None
    price: float | None = None
    utilisation: float = 0.4


def advise(run: Run, config: ConfigDict, question: Question) -> str:
    """Measures what is not measured yet, writes `advice.json` and `advice.md`, and returns the page.

    Args:
        run: The run of the config.
        config: The config that the methods are variants of.
        question: What is asked.

    Raises:
        ValueError: A method is unknown, the mixture is too small to measure, or an artifact was made from other inputs.
    """
    configs = configs_of(config, question.methods)
    measured = measure_mixture(run)
    candidates = measure_candidates(run, measured, configs)
    mixture = features_of(run, measured, candidates.measured[JOINT].steps[0])
    pilot = run_pilot(run, config, question.pilot, candidates.measured) if question.pilot else {}
    methods = method_features_of(candidates, pilot)
    used = bool(pilot and question.forecast and question.forecast.pilot)
    content = {
        "features": mixture,
        "measurements": {key: part for key, part in measured.items() if key != "inputs"},
        "reliability_wanted": run.config.diagnostics.reliability,
        "candidates": {m: {**c.to_dict(), "features": methods[m]} for m, c in candidates.measured.items()},
        "impossible": candidates.impossible,
        "pilot": pilot,
        "pilot_share": question.pilot,
        "pilot_used": used,
        "costs": _costs(run, config, question, candidates),
        "topology": str(question.topology) if question.topology else None,
        **_forecasts(question, mixture, methods, pilot=used),
    }
    content = {"inputs": _inputs(run, config, question), **as_json_tree(content)}
    text = page(content)
    run.on_first_process(lambda: _write(run.workdir.advice, content, text))
    return text


def method_features_of(candidates: Candidates, pilot: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the features of each candidate, those of the pilot among them where there was one."""
    found = {method: dict(candidate.features) for method, candidate in candidates.measured.items()}
    for method, outcome in pilot.items():
        found[method] |= pilot_features(outcome["cosine"], outcome["loss"], pilot[JOINT]["loss"])
    return found


def _forecasts(
    question: Question, mixture: Mapping[str, float], methods: Mapping[str, Mapping[str, float]], *, pilot: bool
) -> dict[str, Any]:
    """Returns the forecasts, the recommendation, and the reasons for which there are none."""
    known = question.forecast
    nothing: dict[str, Any] = {"forecasts": {}, "recommendation": None, "outside": [], "held_out": None}
    if known is None:
        return nothing
    if outside := known.coverage.outside(mixture):
        return {**nothing, "outside": outside}
    laws = known.pilot if pilot else known.laws
    inside = {name: own for name, own in methods.items() if not known.coverage.method_is_outside(own)}
    found = {measure: _forecast(law, mixture, inside) for measure, law in laws.items()}
    chosen = recommend(found[DECIDING], cluster=question.cluster) if len(inside) > 1 else None
    record = laws[DECIDING].held_out
    return {
        "forecasts": {m: {n: own[n]._asdict() if n in own else None for n in methods} for m, own in found.items()},
        "recommendation": chosen._asdict() if chosen else None,
        "outside": [] if chosen else ["the map has none of these methods"],
        "held_out": record._asdict() if record else None,
    }


def _forecast(law: Law, mixture: Mapping[str, float], methods: Mapping[str, Any]) -> dict[str, Forecast]:
    return {name: law.forecaster.forecast(mixture, own) for name, own in methods.items()}


def _costs(run: Run, config: ConfigDict, question: Question, candidates: Candidates) -> dict[str, Any]:
    topology = question.topology
    if topology is None:
        return {}
    inputs = PlanInputs(config, "float32" if topology.kind == "cpu" else "bfloat16", topology.platform)
    rate = Rate(topology.chips, topology.chip.peak, question.utilisation, question.price)
    calibration = sum(min(len(dataset.train), config.gradients.examples) for dataset in run.datasets)
    found = candidate_costs(inputs, topology, rate, len(run.names), calibration, candidates.measured)
    return {method: cost._asdict() for method, cost in found.items()}


def _inputs(run: Run, config: ConfigDict, question: Question) -> dict[str, Any]:
    """Returns all that decides the advice, as JSON values."""
    asked = question._asdict()
    asked["topology"] = str(question.topology) if question.topology else None
    asked["forecast"] = fingerprint(question.forecast.to_dict()) if question.forecast else None
    measurements = fingerprint(read_inputs(run.workdir.measurements))
    return plain({"measurements": measurements, "train": config.train.to_dict(), "seed": config.seed, **asked})


def as_json_tree(value: Any) -> Any:
    """Converts nested mappings to JSON values; null for what is not finite."""
    if isinstance(value, Mapping):
        return {name: as_json_tree(part) for name, part in value.items()}
    return as_json(value)


def _write(path: epath.Path, content: Mapping[str, Any], text: str) -> None:
    write_json(path, content)
    write_text(path.with_suffix(".md"), text)
