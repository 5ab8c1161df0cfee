"""Shape and type checks of every public signature, and eight virtual devices, for the whole suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import compiler

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {compiler.devices(8)} {compiler.FAST}"
# XLA's thread pool. Each device may wait in several collectives at once; with fewer threads they wait for each other forever.
os.environ.setdefault("NPROC", "32")

from hypothesis import settings
from jaxtyping import install_import_hook

METHOD = [f"merit_jax.{path.name}" for path in (Path(__file__).parents[1] / "merit_jax").iterdir() if path.is_dir()]
install_import_hook([*METHOD, "merit_jax.models"], "beartype.beartype")

TESTS = Path(__file__).parent
EXHAUSTIVE = (
    "benchmarks",
    "faults",
    "launch/advising/test_advise.py",
    "launch/test_cluster.py",
    "launch/test_experiment.py",
    "launch/test_multihost.py",
    "launch/test_notebook.py",
    "launch/test_processes.py",
    "launch/test_sites.py",
    "launch/test_wheel.py",
    "models/families/test_config_sweep.py",
    "pipeline/test_vision_families.py",
)
"""Files and folders of campaigns, which take a minute each or more: `make test-all`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of campaigns."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / name) for name in EXHAUSTIVE):
            item.add_marker(pytest.mark.exhaustive)


settings.register_profile("suite", deadline=None)  # the first example pays for what is imported and compiled
settings.load_profile("suite")


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 in JAX, in this test alone: what is compiled inside is kept apart from the rest."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cache of compiled programs, shared by the processes of the session: equal programs compile once."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    root = tmp_path_factory.getbasetemp()
    folder = str((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "compiled")
    settings = {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is settings:
            yield folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, compiled: str):
    """A finished run of merit2d in the tiny world; not to be written to (see `world.copied`)."""
    from merit_jax.pipeline.stages import run_stages
    from tests.support import world

    run = world.run(tmp_path_factory.mktemp("world"), "finished")
    run_stages(run)
    return run


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Lets every run of a module that asks for this have one device."""
    from merit_jax.core import sharding
    from tests.support import world

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", world.one_device_mesh)
        yield
