"""What each stage of a run does: FLOPs, tokens, bytes of storage, and from a rate its time and cost."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from merit_jax.core import tree
from merit_jax.planning.flops import RowShape, row_flops
from merit_jax.planning.shapes import Architecture, size


class Data(NamedTuple):
    """What the stages work on.

    Attributes:
        datasets: Number of datasets, T.
        steps: Optimizer steps of joint training.
        calibration: Examples that the gradient stage differentiates.
        held_out: Held-out examples.
        supervised: Share of a row's positions whose logits are computed.
        source: Where these numbers are from.
    """

    datasets: int
    steps: int
    calibration: int
    held_out: int
    supervised: float
    source: str


class Job(NamedTuple):
    """What is done with them.

    Attributes:
        architecture: The model.
        trainable: Regular expressions over parameter paths.
        row: A row of a training batch.
        example: A row of a calibration or evaluation batch, padded to its bucket.
        batch_size: Rows of an optimizer step.
        branches: K.
        copies: Every branch trains on everything, as for a soup.
        kept: Coordinates of a dataset's gradient that are stored.
    """

    architecture: Architecture
    trainable: tuple[str, ...]
    row: RowShape
    example: RowShape
    batch_size: int
    branches: int
    copies: bool
    kept: int


class Stage(NamedTuple):
    """What one stage needs.

    Attributes:
        name: The stage.
        flops: Floating-point operations.
        tokens: Positions that go through the decoder, padding included.
        storage: Bytes that it leaves behind.
    """

    name: str
    flops: int
    tokens: int
    storage: int


class Rate(NamedTuple):
    """How fast and at what price one slice works.

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
        """Time for so much work."""
        return None if self.peak is None else flops / (self.chips * self.peak * self.utilisation)

    def dollars(self, flops: int | float) -> float | None:
        """Price of so much work."""
        seconds = self.seconds(flops)
        return None if seconds is None or self.price is None else seconds / 3600 * self.chips * self.price


def stages(job: Job, data: Data) -> tuple[Stage, ...]:
    """The stages that compute or store something that counts, in order."""
    row = job.row._replace(supervised=round(job.row.length * data.supervised))
    example = job.example._replace(supervised=round(job.example.length * data.supervised))
    step, learning = job.batch_size * row_flops(job.architecture, row, job.trainable), trained_bytes(job)
    differentiated = row_flops(job.architecture, example, job.trainable)
    answered = row_flops(job.architecture, example, ())
    steps = branch_steps(job, data)
    everything = 4 * size(tree.flatten(job.architecture.abstract))
    found = [
        Stage(
            "gradients",
            data.calibration * differentiated,
            data.calibration * example.length,
            4 * data.datasets * job.kept,
        ),
        Stage("joint training", data.steps * step, data.steps * job.batch_size * row.length, learning),
        Stage("one branch", steps * step, steps * job.batch_size * row.length, learning),
        Stage(
            f"all {job.branches} branches",
            job.branches * steps * step,
            job.branches * steps * job.batch_size * row.length,
            job.branches * learning,
        ),
        Stage("merge", 2 * job.branches * learning // 4, 0, 2 * everything),
    ]
    if data.held_out:
        found.append(Stage("evaluate, one model", data.held_out * answered, data.held_out * example.length, 0))
    return tuple(found)


def branch_steps(job: Job, data: Data) -> int:
    """Optimizer steps of one branch, all branches being alike."""
    return data.steps if job.copies else -(-data.steps // job.branches)


def trained_bytes(job: Job) -> int:
    """Bytes of the trainable parameters in float32: of a gradient, and of a finished branch's checkpoint."""
    flat = tree.flatten(job.architecture.abstract)
    return 4 * size({path: flat[path] for path in tree.matching(flat, job.trainable)})


def kept_coordinates(shapes: Mapping[str, tuple[int, ...]], reduction: str, stride: int, width: int) -> int:
    """Coordinates that the gradient store keeps of one dataset.

    Args:
        shapes: Path -> shape of the trainable leaves.
        reduction: "stride" or "countsketch".
        stride: Every how many-th entry of a leaf's last axis is kept.
        width: Coordinates of the sketch.
    """
    if reduction == "countsketch":
        return width
    return sum(math.prod(shape[:-1]) * -(-shape[-1] // stride) for shape in shapes.values())
