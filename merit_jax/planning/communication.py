"""Counts the bytes that training moves between devices and between slices, with bandwidth-optimal rings."""

from typing import NamedTuple


class Traffic(NamedTuple):
    """Bytes that one device sends in one optimizer step.

    Attributes:
        parameters: All-gathers of sharded parameters, before each use.
        gradients: Sums of gradients: reduce-scatter where parameters are sharded, all-reduce where they are replicated.
    """

    parameters: int
    gradients: int


def within_slice(
    *, trainable: int, whole: int, data: int, fsdp: int, tensor: int, micro_batches: int, recomputed: bool
) -> Traffic:
    """Returns what one device of a slice sends per step, without the activations that `tensor` moves.

    Sharded parameters are gathered for the forward and the backward pass of each micro-batch, once more where layers are
    recomputed; gradients are summed after each micro-batch, over `fsdp` and then over `data`.

    Args:
        trainable: Bytes of the gradients, in float32.
        whole: Bytes of all parameters, in the type in which they are gathered.
        data: Devices with replicas of the parameters.
        fsdp: Devices over which they are sharded, on whatever axes.
        tensor: Devices over which the width of layers is sharded.
        micro_batches: Parts of a batch.
        recomputed: Whether whole layers are computed again in the backward pass.

    Examples:
        >>> within_slice(trainable=800, whole=1600, data=8, fsdp=1, tensor=1, micro_batches=1, recomputed=False)
        Traffic(parameters=0, gradients=1400)
    """
    uses = (2 + recomputed) * micro_batches
    gathered = uses * whole // tensor * (fsdp - 1) // fsdp
    scattered = micro_batches * trainable // tensor * (fsdp - 1) // fsdp
    reduced = micro_batches * all_reduce(trainable // (tensor * fsdp), data)
    return Traffic(gathered, scattered + reduced)


def all_reduce(size: int, members: int) -> int:
    """Returns the bytes that each of `members` sends to sum arrays of `size` bytes: reduce-scatter, then all-gather.

    Examples:
        >>> all_reduce(800, 8)
        1400
    """
    return 2 * size * (members - 1) // members


class BetweenSlices(NamedTuple):
    """Traffic between K slices, in bytes.

    Attributes:
        joint_step: All slices together, in one step of joint training on all of them.
        joint: The same, in the whole run.
        merit: MERIT's branches: each trained part once, to the machine that merges.
    """

    joint_step: int
    joint: int
    merit: int


def between_slices(trainable: int, slices: int, steps: int) -> BetweenSlices:
    """Returns the traffic between slices: joint training sums gradients in every step, MERIT sends K checkpoints once.

    Args:
        trainable: Bytes of the gradients and of a branch's trained parameters, in float32.
        slices: K.
        steps: Optimizer steps of joint training on all slices.

    Examples:
        >>> between_slices(100, slices=4, steps=1000)
        BetweenSlices(joint_step=600, joint=600000, merit=400)
    """
    step = slices * all_reduce(trainable, slices)
    return BetweenSlices(step, step * steps, slices * trainable)
