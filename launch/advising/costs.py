"""Time and cost of each candidate on given devices, from shapes and exact numbers of steps."""

from collections.abc import Mapping
from typing import NamedTuple

from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.pipeline.measure_candidate import Candidate
from merit_jax.planning.communication import between_slices
from merit_jax.planning.topology import Topology
from merit_jax.planning.workload import DataSize, Rate, stage_costs, trained_bytes


class Cost(NamedTuple):
    """Cost of one method on as many slices as it has branches; of joint training on one.

    Attributes:
        slices: Number of slices.
        seconds: Until the longest branch is finished, gradients included; None where the peak is unknown.
        chip_hours: Of all chips while they compute; None likewise.
        dollars: None without a price.
        traffic: Bytes between slices.
    """

    slices: int
    seconds: float | None
    chip_hours: float | None
    dollars: float | None
    traffic: int


def candidate_costs(
    inputs: PlanInputs,
    topology: Topology,
    rate: Rate,
    datasets: int,
    calibration: int,
    candidates: Mapping[str, Candidate],
) -> dict[str, Cost]:
    """Returns the cost of every candidate.

    Args:
        inputs: The config.
        topology: One slice.
        rate: Its speed and price.
        datasets: Number of datasets.
        calibration: Examples that the gradient stage differentiates.
        candidates: The methods, with their steps.
    """
    work, train, found = inputs.workload(), inputs.config.train, {}
    for spec, candidate in candidates.items():
        supervised = sum(candidate.tokens) / (sum(candidate.steps) * train.batch_size * train.row_length)
        data = DataSize(datasets, 1, calibration, 0, supervised, "counted")
        flops = {stage.name: stage.flops for stage in stage_costs(work._replace(branches=1, copies=False), data)}
        gradients = flops["gradients"] * bool(candidate.features["by_conflict"])
        total = gradients + flops["joint training"] * sum(candidate.steps)
        longest = gradients + flops["joint training"] * max(candidate.steps)
        seconds = rate.seconds(total)
        hours = None if seconds is None else seconds / 3600 * rate.chips
        apart = candidate.branches > 1
        traffic = between_slices(trained_bytes(work), candidate.branches, 1).merit if apart else 0
        found[spec] = Cost(candidate.branches, rate.seconds(longest), hours, rate.dollars(total), traffic)
    return found
