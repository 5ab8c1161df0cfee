"""Counts the FLOPs, tokens and storage of each stage of a run, and from a rate its time and cost."""

from typing import NamedTuple

from merit_jax.core import tree
from merit_jax.planning.flops import RowShape, row_flops
from merit_jax.planning.shapes import Architecture, size


class DataSize(NamedTuple):
    """Size of the data that the stages work on.

    Attributes:
        datasets: Number of datasets, T.
        steps: Optimizer steps of joint training.
        calibration: Examples that the gradient stage differentiates.
        held_out: Held-out examples.
        supervised: Share of a row's positions whose logits are computed.
        source: Origin of these numbers.
    """

    datasets: int
    steps: int
    calibration: int
    held_out: int
    supervised: float
    source: str


class Workload(NamedTuple):
    """Work of a run on its data.

    Attributes:
        architecture: The model.
        trainable: Regular expressions over parameter paths.
        row: A row of a training batch.
        example: A row of a calibration or evaluation batch, padded to its bucket.
        batch_size: Rows of an optimizer step.
        branches: K.
        copies: Whether every branch trains on everything, as for a soup.
        kept: Stored coordinates of a dataset's gradient.
        curvature: Examples of each dataset in the matrix of its curvature; 0: the split looks at none.
        differentiated: Regular expressions over the paths that the datasets' gradients are taken of; empty: as `trainable`.
        added: Parameters of `architecture` that training adds, as adapters, and a merged model has not.
    """

    architecture: Architecture
    trainable: tuple[str, ...]
    row: RowShape
    example: RowShape
    batch_size: int
    branches: int
    copies: bool
    kept: int
    curvature: int = 0
    differentiated: tuple[str, ...] = ()
    added: int = 0


class StageCost(NamedTuple):
    """Work and storage of one stage.

    Attributes:
        name: The stage.
        flops: Floating-point operations.
        tokens: Positions that go through the decoder, padding included.
        storage: Bytes of its artifacts.
    """

    name: str
    flops: int
    tokens: int
    storage: int


class Rate(NamedTuple):
    """Speed and price of one slice.

    Attributes:
        chips: Chips of a slice.
        peak: FLOP/s of one; None if unknown.
        utilisation: Share of the peak that model FLOPs reach.
        price: Dollars per chip and hour; None if unknown.
    """

    chips: int
    peak: float | None
    utilisation: float
    price: float | None

    def seconds(self, flops: int | float) -> float | None:
        """Returns the time of so much work.

        Examples:
            >>> Rate(chips=8, peak=1e12, utilisation=0.5, price=2.0).seconds(8e12)
            2.0
        """
        return None if self.peak is None else flops / (self.chips * self.peak * self.utilisation)

    def dollars(self, flops: int | float) -> float | None:
        """Returns the price of so much work."""
        seconds = self.seconds(flops)
        return None if seconds is None or self.price is None else seconds / 3600 * self.chips * self.price


def stage_costs(work: Workload, data: DataSize) -> tuple[StageCost, ...]:
    """Returns the cost of each stage that computes or stores much, in order."""
    row = work.row._replace(supervised=round(work.row.length * data.supervised))
    example = work.example._replace(supervised=round(work.example.length * data.supervised))
    step, learning = work.batch_size * row_flops(work.architecture, row, work.trainable), trained_bytes(work)
    differentiated = row_flops(work.architecture, example, work.differentiated or work.trainable)
    answered = row_flops(work.architecture, example, ())
    steps = branch_steps(work, data)
    everything = 4 * (size(tree.flatten(work.architecture.abstract)) - work.added)
    found = [
        StageCost(
            "gradients",
            data.calibration * differentiated,
            data.calibration * example.length,
            4 * data.datasets * work.kept,
        ),
        StageCost("joint training", data.steps * step, data.steps * work.batch_size * row.length, learning),
        StageCost("one branch", steps * step, steps * work.batch_size * row.length, learning),
        StageCost(
            f"all {work.branches} branches",
            work.branches * steps * step,
            work.branches * steps * work.batch_size * row.length,
            work.branches * learning,
        ),
        StageCost("merge", 2 * work.branches * learning // 4, 0, 2 * everything),
    ]
    if work.curvature:
        # every gradient again, and its product: a forward pass, its tangent (as much as a backward pass) and a backward pass
        products = work.curvature * data.datasets**2
        flops = data.calibration * differentiated + products * (2 * differentiated - answered)
        tokens = (data.calibration + products) * example.length
        found.insert(1, StageCost("curvature", flops, tokens, 4 * data.datasets * work.kept))
    if data.held_out:
        found.append(StageCost("evaluate, one model", data.held_out * answered, data.held_out * example.length, 0))
    return tuple(found)


def branch_steps(work: Workload, data: DataSize) -> int:
    """Returns the optimizer steps of one branch, taking all branches as equal."""
    return data.steps if work.copies else -(-data.steps // work.branches)


def trained_bytes(work: Workload) -> int:
    """Returns the bytes of the trainable parameters in float32: of a gradient, and of a finished branch's checkpoint."""
    flat = tree.flatten(work.architecture.abstract)
    return 4 * size({path: flat[path] for path in tree.matching(flat, work.trainable)})
