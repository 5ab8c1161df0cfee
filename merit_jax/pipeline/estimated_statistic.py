"""A statistic of a finished branch that is estimated on its own data, once, and kept beside it for merging."""

from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath

from merit_jax.checkpoints.readers import OrbaxLeaves, TreeLeaves
from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core import sharding
from merit_jax.core.types import Leaves
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pipeline.train_branches import finished_branch
from merit_jax.workdir.artifact_types import Fill, RecordedFolder
from merit_jax.workdir.checksums import fingerprint


class EstimatedStatistic(NamedTuple):
    """A statistic of branches, taken at their own parameters and on their own calibration examples.

    Attributes:
        compute: (run, number of a branch) -> the statistic, on the devices.
        artifact: The same -> where it is kept, an Orbax tree with its record.
    """

    compute: Callable[[Run, int], Leaves]
    artifact: Callable[[Run, int], RecordedFolder]

    def estimate(self, run: Run, index: int) -> bool:
        """Estimates it for a finished branch, unless it is there.

        Returns:
            Whether there was anything to do.

        Raises:
            ValueError: The branch is unfinished, or it was estimated from other inputs.
        """
        return self._stage(index)(run)

    def leaves(self, run: Run, index: int) -> OrbaxLeaves:
        """Opens that of a branch, to be read leaf by leaf.

        Raises:
            ValueError: It is missing, or not as it was written.
        """
        artifact = self.artifact(run, index)
        self._stage(index).recorded(run)
        artifact.verify()
        return OrbaxLeaves(artifact.folder)

    def _stage(self, index: int) -> Stage:
        """Returns the stage that estimates it for one branch."""

        def inputs(run: Run) -> dict[str, Any]:
            branch = fingerprint(finished_branch(run, index)["inputs"])
            return {"branch": branch, "examples": run.config.gradients.examples, "dtype": run.compute_dtype}

        return Stage(
            inputs,
            lambda run: _filled(self.compute(run, index)),
            lambda run: self.artifact(run, index),
            command="merit run --stages=merge",
        )


def _filled(found: Leaves) -> Fill:
    leaves = TreeLeaves({path: sharding.to_host(leaf) for path, leaf in found.items()})

    def fill(folder: epath.Path) -> dict[str, Any]:
        write_streamed(folder, leaves.paths(), leaves.read)
        return {}

    return fill
