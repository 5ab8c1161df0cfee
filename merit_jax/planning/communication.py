"""Bytes that training moves between devices and between slices, with bandwidth-optimal rings."""

from typing import NamedTuple


class Traffic(NamedTuple):
    """Bytes that one device sends in one optimizer step.

    Attributes:
        parameters: All-gathers of cut parameters, before each use of them.
        gradients: Sums of gradients: reduce-scatter where parameters are cut, all-reduce where they are copied.
    """

    parameters: int
    gradients: int


def within_slice(
    *, trainable: int, whole: int, data: int, fsdp: int, tensor: int, micro_batches: int, recomputed: bool
) -> Traffic:
    """What one device of a slice sends per step for data, not counting the activations that `tensor` moves.

    Cut parameters are gathered for the forward and the backward pass of each micro-batch, once more where layers are
    recomputed; gradients are summed after each micro-batch, over `fsdp` and then over `data`.

    Args:
        trainable: Bytes of the gradients, in float32.
        whole: Bytes of all parameters, in the type in which they are gathered.
        data: Devices with copies of the parameters.
        fsdp: Devices that share them.
        tensor: Devices that share the width of layers.
        micro_batches: Parts of a batch.
        recomputed: Layers are computed again, whole, in the backward pass.
    """
    uses = (2 + recomputed) * micro_batches
    gathered = uses * whole // tensor * (fsdp - 1) // fsdp
    scattered = micro_batches * trainable // tensor * (fsdp - 1) // fsdp
    reduced = micro_batches * all_reduce(trainable // (tensor * fsdp), data)
    return Traffic(gathered, scattered + reduced)


def all_reduce(size: int, members: int) -> int:
    """Bytes that each of `members` sends to sum arrays of `size` bytes: reduce-scatter, then all-gather."""
    return 2 * size * (members - 1) // members


class BetweenSlices(NamedTuple):
    """What K slices send each other, in bytes.

    Attributes:
        joint_step: All slices together, in one step of joint training on all of them.
        joint: The same, in the whole run.
        merit: MERIT's branches: each trained part once, to the machine that merges.
    """

    joint_step: int
    joint: int
    merit: int


def between_slices(trainable: int, slices: int, steps: int) -> BetweenSlices:
    """Traffic between slices: joint training sums gradients in every step, MERIT sends K checkpoints once.

    Args:
        trainable: Bytes of the gradients and of a branch's trained parameters, in float32.
        slices: K.
        steps: Optimizer steps of joint training on all slices.
    """
    step = slices * all_reduce(trainable, slices)
    return BetweenSlices(step, step * steps, slices * trainable)
