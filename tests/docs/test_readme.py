"""The README's Python example runs, on a mixture that is known in closed form."""

import re

import jax
import numpy as np

from tests.support import pages, toy


def test_the_python_example_merges_branches_of_the_groups_it_found():
    (code,) = re.findall(r"^```python\n(.*?)^```", (pages.ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    theta0 = toy.params()
    thetas = [jax.tree.map(lambda leaf, k=k: leaf + k, theta0) for k in range(4)]
    names = {
        "loss_fn": toy.loss,
        "theta0": theta0,
        "batches": [[toy.random_batch(seed)] for seed in range(8)],
        "samples": [10] * 8,
        "thetas": thetas,
        "weights": [0.1, 0.2, 0.3, 0.4],
    }
    exec(code, names)
    assert names["G"].shape[0] == 8
    assert sorted(np.bincount(names["groups"])) == [2, 2, 2, 2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 2, atol=1e-6), names["merged"], theta0)
