"""MLflow: a run for each branch, in the project's experiment. `MLFLOW_TRACKING_URI` and its other variables apply."""

import re
import time
import zlib
from collections.abc import Mapping
from typing import Any

from merit_jax.training.trackers.interface import TrackedRun, flat_settings

STEP = "step"
"""Metric with the number of its step, from which a resumed branch sees what is there."""

METRICS, SETTINGS, LETTERS = 900, 90, 500
"""Metrics and settings of one request, and letters of a setting, a little below what servers take."""


class MLflow:
    """A run of MLflow, found again by a tag; another tag, `merit.group`, has the run's name, by which branches are grouped.

    Attributes:
        latest: The last step that the server has.
    """

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()
        experiment = _experiment(self._client, run.project)
        found = self._client.search_runs([experiment], f"tags.`merit.id` = '{run.id}'")
        self._run = found[0] if found else self._create(experiment, run)
        self._id = self._run.info.run_id
        self.latest = int(self._run.data.metrics.get(STEP, -1))
        if found:
            self._client.update_run(self._id, status="RUNNING")

    def _create(self, experiment: str, run: TrackedRun) -> Any:
        from mlflow.entities import Param

        tags = {"merit.id": run.id, "merit.group": run.group}
        made = self._client.create_run(experiment, tags=tags, run_name=f"{run.group}/{run.name}")
        settings = [Param(key, value[:LETTERS]) for key, value in flat_settings(run.config).items()]
        for start in range(0, len(settings), SETTINGS):
            self._client.log_batch(made.info.run_id, params=settings[start : start + SETTINGS])
        return made

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds metrics, last of all that which says the step: one that was sent in part is sent again."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(metric_name(name), value, now, step) for name, value in {**values, STEP: step}.items()]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + METRICS])

    def close(self, *, finished: bool) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def metric_name(name: str) -> str:
    """Returns a name in the characters that MLflow takes; one that needs others is told apart by a checksum.

    Examples:
        >>> metric_name("loss_by_dataset/copy"), metric_name("loss_by_dataset/a+b")
        ('loss_by_dataset/copy', 'loss_by_dataset/a_b-c7102b10')
    """
    clean = re.sub(r"[^\w\-. /:]", "_", name)
    return clean if clean == name else f"{clean}-{zlib.crc32(name.encode()):08x}"


def _experiment(client: Any, name: str) -> str:
    """Finds or creates an experiment; another branch may create it at the same time."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)
