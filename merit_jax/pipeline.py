"""The paper on one page: the stages of MERIT in order (Alg. 1), each callable alone."""

import logging
import time
from collections.abc import Mapping, Sequence

from merit_jax.registry import lookup
from merit_jax.run import Run
from merit_jax.stages.conflict import measure_conflict
from merit_jax.stages.evaluate import evaluate
from merit_jax.stages.gradients import estimate_gradients
from merit_jax.stages.merge import export, merge
from merit_jax.stages.mixture import describe_mixture
from merit_jax.stages.partition import divide, needs_conflict
from merit_jax.stages.train import train_all
from merit_jax.workdir import read_json, write_json

log = logging.getLogger("merit_jax")

STAGES = {
    "mixture": describe_mixture,  # read D_1..D_T: s_t samples, n_t tokens
    "gradients": estimate_gradients,  # step 1: g_t at theta0, on at most n examples each
    "conflict": measure_conflict,  # step 1-2: C_ij = <g_i, g_j> of unit gradients; its principal axes
    "partition": divide,  # step 3: K groups, halved along each axis at the sample-weighted median
    "train": train_all,  # step 4: theta_k from theta0 on group k, alone
    "merge": merge,  # step 5: sum_k w_k theta_k with w_k = N_k / sum_j N_j
    "export": export,  # the merged model as a Hugging Face folder
    "evaluate": evaluate,  # base, baselines and merged on held-out records
}


def run_stages(run: Run, stages: Sequence[str] = ()) -> None:
    """Runs stages in the order of `STAGES`; one whose artifact is there, made from the same inputs, is skipped.

    Args:
        run: The run.
        stages: Names of stages; empty for all.

    Raises:
        ValueError: A stage is unknown, its inputs are missing, or its artifact was made from other inputs.
    """
    for name in stages:
        lookup(STAGES, name, "stage")
    for name, stage in STAGES.items():
        if (stages and name not in stages) or (name in ("gradients", "conflict") and not needs_conflict(run)):
            continue
        with Stopwatch(run, name):
            stage(run)


class Stopwatch:
    """Logs how long a stage took and keeps it in `times.json`; a stage that finds its work done keeps its longer, old time."""

    IDLE_SECONDS = 1.0

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name

    def __enter__(self) -> None:
        log.info("stage %s", self._name)
        self._began = time.monotonic()

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._run.on_first_process(lambda: self._record(time.monotonic() - self._began))

    def _record(self, seconds: float) -> None:
        path = self._run.workdir.times
        times: Mapping[str, float] = read_json(path) if path.exists() else {}
        if self._name not in times or seconds > max(times[self._name], self.IDLE_SECONDS):
            write_json(path, {**times, self._name: round(seconds, 2)})
            log.info("stage %s took %.1f s", self._name, seconds)
