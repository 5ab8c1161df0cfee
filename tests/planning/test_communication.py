"""Traffic against the textbook: a ring moves (n - 1) / n of an array to gather or scatter it, twice that to sum it."""

from merit_jax.planning.communication import all_reduce, between_slices, within_slice


def test_copies_all_reduce_their_gradients():
    found = within_slice(trainable=800, whole=1600, data=8, fsdp=1, tensor=1, micro_batches=1, recomputed=False)
    assert found == (0, 2 * 700)


def test_cut_parameters_are_gathered_for_every_use_and_their_gradients_scattered():
    options = {"trainable": 800, "whole": 1600, "data": 1, "fsdp": 8, "tensor": 1}
    assert within_slice(**options, micro_batches=1, recomputed=False) == (2 * 1400, 700)
    assert within_slice(**options, micro_batches=3, recomputed=True) == (3 * 3 * 1400, 3 * 700)


def test_both_axes_scatter_first_and_then_sum_what_is_left():
    found = within_slice(trainable=800, whole=1600, data=2, fsdp=4, tensor=1, micro_batches=1, recomputed=False)
    assert found == (2 * 1200, 600 + all_reduce(200, 2))


def test_merit_sends_every_branch_once_and_joint_training_gradients_at_every_step():
    found = between_slices(100, slices=4, steps=1000)
    assert found == (4 * 150, 4 * 150 * 1000, 400)
    assert between_slices(100, slices=1, steps=1000).joint == 0
