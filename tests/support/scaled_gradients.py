"""Gradients that make products difficult, and rows that note how they are read."""

import numpy as np


class Recorded:
    """A row that notes what is asked of it."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.asked.append(range(*index.indices(len(self.values))))
        return self.values[index]


def exact(G):
    G = G.astype(np.float64)
    unit = G / np.linalg.norm(G, axis=1, keepdims=True)
    return unit @ unit.T


def uneven(seed, t=5, d=103):
    """Rows between 1e-28 and 1e+28, each with a stretch of zeros, or of entries a long way from its others, at its start."""
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((t, d))
    G[:, : d // 3] *= rng.choice([0, 1e-9, 1, 1e9], (t, 1))
    return (G * 10.0 ** rng.uniform(-28, 28, (t, 1))).astype(np.float32)
