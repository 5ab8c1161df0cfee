"""What is kept of a gradient is enough for the split: measured on the shipped theta0, as the study of fidelity does."""

import numpy as np
import pytest

from benchmarks import study_fidelity
from merit_jax.configs import quickstart
from merit_jax.examples.shapes import make
from merit_jax.gradients.stride import Stride
from merit_jax.launch.wiring import open_run
from merit_jax.pipeline.estimate_gradients import compressor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The quickstart with a third of its training rows and a third of its calibration examples."""
    folder = tmp_path_factory.mktemp("fidelity")
    make.main(["--out", str(folder / "shapes"), "--parts", "mixture", "--mixture_share", "0.3"])
    config = quickstart.get_config().unlock()
    config.mixture.path = str(folder / "shapes" / "mixture.json")
    config.gradients.examples = 20
    config.gradients.batch_size = 16
    return open_run.open_run(config.lock(), folder / "run")


@pytest.fixture(scope="module")
def agreement(run):
    """The figures of the default compressor, the stride and the former one."""
    named = {"whole": Stride(1), "default": compressor(run), **dict(list(study_fidelity.COMPRESSORS.items())[1:3])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_fidelity, "COMPRESSORS", named)
        return study_fidelity.measure(run)


def test_the_default_reproduces_the_similarities_of_whole_gradients(agreement):
    assert agreement["default"]["pearson"] >= 0.999
    assert agreement["default"]["datasets"] == 32


def test_the_default_moves_no_more_datasets_than_half_the_examples_do(agreement):
    halves = agreement["two halves of the examples, whole gradients"]
    assert agreement["default"]["moved"] <= halves["moved"]


def test_a_stride_without_structure_is_closer_than_one_that_keeps_columns(agreement):
    columns, stride = (agreement[name] for name in ("columns, s = 5 (version 0.1)", "stride, s = 5"))
    assert stride["pearson"] > columns["pearson"] + 0.01
    assert stride["mae"] < 0.75 * columns["mae"]


def test_the_mean_of_all_examples_is_that_of_the_halves_by_their_sizes(run, monkeypatch):
    rng, count = np.random.default_rng(0), len(run.names)
    rows, sizes = rng.standard_normal((2 * count, 40)), rng.integers(1, 9, 2 * count)
    halves = iter(sizes.reshape(-1, 2))
    monkeypatch.setattr(study_fidelity, "halves_of", lambda run, dataset: [range(size) for size in next(halves)])
    monkeypatch.setattr(study_fidelity, "_products", lambda run, halves: [rows @ rows.T] * 4)
    means = (sizes[::2, None] * rows[::2] + sizes[1::2, None] * rows[1::2]) / (sizes[::2] + sizes[1::2])[:, None]
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(study_fidelity.similarities(run)["whole"], unit @ unit.T, atol=1e-12)
