"""A stage: what it is made from, what it computes and which artifact keeps it; everything else about stages is here.

One rule serves all: an artifact that is there, made from the same inputs, is left alone; one made from other inputs is an error
that names the difference, or is made again with `--overwrite`; one that lacks files is refused, also with `--overwrite`, and
the message says what to delete so that it is made again; what is computed is written whole or not at all, by process 0.
Whoever reads an artifact reads it through its stage (`Stage.read`), which first compares its inputs with the run's.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifact_types import Artifact, Inputs
from merit_jax.workdir.artifacts import check_inputs, is_current, plain, read_inputs, read_json, write_json

log = logging.getLogger("merit_jax")


def always(run: Run) -> bool:
    """Returns True."""
    return True


def nothing(run: Run) -> None:
    """Checks nothing."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage whose artifact is computed in one piece. Called with a run, it returns whether there was anything to do.

    Attributes:
        inputs: run -> everything that decides the artifact, as JSON values.
        compute: run -> the artifact's content; with a guard, its value is the last argument.
        artifact: run -> the artifact.
        name: Key of its seconds in `times.json`; "" keeps none.
        applies: run -> whether the run has such a stage.
        guard: run -> a context, a lease say, to enter while the artifact is computed and written; None for a stage without.
        command: The command that makes the artifact, in messages; "": merit run with this stage.
        check: run -> raises where the files that the artifact's record stands for are missing.
    """

    inputs: Callable[[Run], Inputs]
    compute: Callable[..., Any]
    artifact: Callable[[Run], Artifact]
    name: str = ""
    applies: Callable[[Run], bool] = always
    guard: Callable[[Run], AbstractContextManager[Any]] | None = None
    command: str = ""
    check: Callable[[Run], None] = nothing

    def __call__(self, run: Run) -> bool:
        """Computes and writes the artifact unless it is there.

        Raises:
            ValueError: The artifact was made from other inputs, and the run does not overwrite; or files of it are missing.
            UnfinishedError: Another process computes it.
        """
        return timed(run, self.name, lambda: self.applies(run) and self._update(run))

    def is_current(self, run: Run) -> bool:
        """Returns whether the artifact is there, made from the run's inputs.

        Raises:
            ValueError: It was made from other inputs, and the run does not overwrite.
        """
        return is_current(self.artifact(run).path, self.inputs(run), overwrite=run.overwrite)

    def recorded(self, run: Run) -> Inputs:
        """Returns the inputs that the artifact records, which are the run's.

        `--overwrite` makes artifacts again, and does not let others be read: one made from other inputs is always refused.

        Raises:
            ValueError: It is missing, damaged, or was made from other inputs; the difference is named.
        """
        command = self.command or f"merit run --stages={self.name}"
        return check_inputs(self.artifact(run).path, self.inputs(run), command)

    def read(self, run: Run) -> Any:
        """Returns the artifact's content, after comparing its inputs with the run's.

        Raises:
            ValueError: It is missing, damaged, or was made from other inputs; the difference is named.
        """
        self.recorded(run)
        return self.artifact(run).read()

    def _update(self, run: Run) -> bool:
        artifact, inputs = self.artifact(run), self.inputs(run)
        if self._is_done(run, artifact, inputs):
            return False
        if self.guard is None:
            return self._begin(run, artifact, inputs)
        with self.guard(run) as guard:
            return self._begin(run, artifact, inputs, guard)

    def _begin(self, run: Run, artifact: Artifact, inputs: Inputs, *guard: Any) -> bool:
        run.on_first_process(lambda: artifact.begin(plain(inputs), overwrite=run.overwrite))
        return not self._is_done(run, artifact, inputs) and self._compute(run, artifact, inputs, *guard)

    def _is_done(self, run: Run, artifact: Artifact, inputs: Inputs) -> bool:
        if not is_current(artifact.path, inputs, overwrite=run.overwrite):
            return False
        self.check(run)
        return True

    def _compute(self, run: Run, artifact: Artifact, inputs: Inputs, *guard: Any) -> bool:
        content = self.compute(run, *guard)
        run.on_first_process(lambda: artifact.write(plain(inputs), content))
        return True


@dataclasses.dataclass(frozen=True)
class ExtendableStage(Stage):
    """A stage whose artifact, made from a part of the run's inputs, is extended instead of refused.

    `compute` takes the run, the inputs that will be recorded, and the artifact's content, None where there is nothing to extend.

    Attributes:
        extends: (recorded inputs, the run's) -> whether the recorded ones are such a part.
    """

    extends: Callable[[Inputs, Inputs], bool] = lambda old, new: False

    def _is_done(self, run: Run, artifact: Artifact, inputs: Inputs) -> bool:
        return not self._is_part(run, artifact, inputs) and super()._is_done(run, artifact, inputs)

    def _compute(self, run: Run, artifact: Artifact, inputs: Inputs, *guard: Any) -> bool:
        part = artifact.read() if self._is_part(run, artifact, inputs) else None
        content = self.compute(run, inputs, part, *guard)
        run.on_first_process(lambda: artifact.write(plain(inputs), content))
        return True

    def _is_part(self, run: Run, artifact: Artifact, inputs: Inputs) -> bool:
        if run.overwrite or not artifact.path.exists():
            return False
        return self.extends(read_inputs(artifact.path), plain(inputs))


@dataclasses.dataclass(frozen=True)
class GrowingStage(Stage):
    """A stage whose artifact has entries, each written as soon as it is there.

    `compute` takes the run and the artifact's content, None where there is none from these inputs, and yields content: each
    time all that is to be kept. It yields nothing where no entry is missing.
    """

    def _is_done(self, run: Run, artifact: Artifact, inputs: Inputs) -> bool:
        return False

    def _compute(self, run: Run, artifact: Artifact, inputs: Inputs, *guard: Any) -> bool:
        same = is_current(artifact.path, plain(inputs), overwrite=True)
        current = same or is_current(artifact.path, inputs, overwrite=run.overwrite)
        known = artifact.read() if same or (current and not run.overwrite) else None
        grew = False
        for content in self.compute(run, known, *guard):
            if not grew and known is not None:  # nothing is added to entries made with another value that is left open
                is_current(artifact.path, plain(inputs), overwrite=False)
            run.on_first_process(partial(artifact.write, plain(inputs), content))
            grew = True
        return grew


def timed(run: Run, name: str, work: Callable[[], bool]) -> bool:
    """Does some work and, if there was any to do, keeps how long it took in `times.json`; not for the name ""."""
    if not name:
        return work()
    log.info("stage %s", name)
    began = time.monotonic()
    done = work()
    if done:
        seconds = round(time.monotonic() - began, 2)
        log.info("stage %s took %.1f s", name, seconds)
        run.on_first_process(lambda: _keep_time(run, name, seconds))
    return done


def _keep_time(run: Run, name: str, seconds: float) -> None:
    path = run.workdir.times
    times: Mapping[str, float] = read_json(path) if path.exists() else {}
    write_json(path, {**times, name: seconds})
