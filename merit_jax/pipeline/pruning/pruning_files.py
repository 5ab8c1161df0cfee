"""The files of a pruning run."""

from merit_jax.pipeline.run import Run
from merit_jax.workdir.pruning_files import PruningFiles


def files(run: Run) -> PruningFiles:
    """Returns the files of the model that a run prunes."""
    return PruningFiles(run.workdir.root)
