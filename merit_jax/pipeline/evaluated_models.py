"""The models of a run that are evaluated: theta0 and merged models."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from merit_jax.checkpoints.readers import distance
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Params
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import MERGED, THETA0, Workdir


class EvaluatedModel(NamedTuple):
    """A model to evaluate.

    Attributes:
        leaves: Reads its parameters.
        inputs: What it was made from, as JSON values.
        displacement: Its distance from theta0, ‖θ − θ0‖₂; None: computed from the parameters, once the model is scored.
    """

    leaves: Callable[[], LeafReader]
    inputs: Mapping[str, Any]
    displacement: float | None

    def params(self, run: Run) -> Params:
        """Puts its parameters on the devices."""
        return run.params if self.displacement == 0 else run.place(self.leaves())

    def distance(self, run: Run) -> float:
        """Returns its distance from theta0."""
        return distance(self.leaves(), run.theta0.leaves()) if self.displacement is None else self.displacement


def start(run: Run) -> EvaluatedModel:
    """Returns theta0 of a run as a model to evaluate."""
    return EvaluatedModel(run.theta0.leaves, {THETA0: run.theta0_fingerprint}, 0.0)


def evaluated_models(run: Run, merged: Mapping[str, Workdir] | None = None) -> dict[str, EvaluatedModel]:
    """Returns models by name: theta0, then the merged models.

    Args:
        run: The run.
        merged: Name -> workdir of each merged model; None: the run's own, as "merged".

    Raises:
        ValueError: A model is not merged yet, or was made from other inputs than the run's.
    """
    found = {THETA0: start(run)}
    for name, workdir in ({MERGED: run.workdir} if merged is None else merged).items():
        record = read_merge(run) if workdir == run.workdir else read_json(workdir.merge_record)
        if record["inputs"]["theta0"] != run.theta0_fingerprint:
            raise ValueError(f"{workdir.merge_record} starts from another theta0; models of one theta0 are compared")
        found[name] = EvaluatedModel(
            partial(merged_leaves, workdir),
            record["inputs"],
            record["displacement"]["merged"],
        )
    return found
