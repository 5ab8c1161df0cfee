"""The fidelity of gradients in the space of adapters, measured on the tiny world."""

import pytest

from benchmarks import adapter_fidelity
from tests.support import world

pytest.importorskip("qwix")
pytestmark = pytest.mark.usefixtures("one_device")

TARGETS = ("attention/(query|output)/", "mlp/")


def test_kernels_are_what_their_adapters_approach_with_their_rank(tmp_path, monkeypatch):
    adapters = {f"r = {rank}": {"adapter": "lora", "adapter_rank": rank} for rank in (1, 24)}
    monkeypatch.setattr(adapter_fidelity, "ADAPTERS", adapters)
    options = {"train.adapter_targets": TARGETS, "train.trainable": TARGETS, "gradients.examples": 4}
    run = world.run(tmp_path, "run", "merit1d", **options)
    before = run.config.to_json()
    found = adapter_fidelity.measure(run)
    assert run.config.to_json() == before
    assert list(found) == [
        adapter_fidelity.KERNELS,
        "adapters: r = 1",
        "adapters: r = 24",
        "two halves of the examples",
    ]
    kernels, low, high, _ = found.values()
    assert kernels["mae"] < 1e-6
    assert 1e-4 < high["mae"] < low["mae"]
    assert high["pearson"] > 0.9
    assert {row["datasets"] for row in found.values()} == {6}
