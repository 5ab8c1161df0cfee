"""What a stack of layers keeps for the backward pass changes its memory and nothing else."""

import jax
import numpy as np

import tests.support.tiny as tiny
from merit_jax.models import build
from merit_jax.models.interface import REMAT


def compiled_gradient(remat):
    """Gradient of a loss over 8 rows of 64 tokens and 12 layers."""
    model, batch = build(tiny.config(layers=12), remat=remat), tiny.rows(*[64] * 8, width=64)
    gradient = jax.jit(jax.value_and_grad(lambda params: model.hidden(params, batch).var()))
    return gradient.lower(tiny.params(model)).compile()


def test_policies_give_one_gradient_with_less_and_less_memory():
    params = tiny.params(build(tiny.config(layers=12)))
    programs = {name: compiled_gradient(name) for name in REMAT}
    (loss, gradient), *others = [program(params) for program in programs.values()]
    for other_loss, other in others:
        np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), other, gradient)
    none, dots, full = (program.memory_analysis().temp_size_in_bytes for program in programs.values())
    assert 0.8 * none > dots
    assert 0.7 * dots > full
