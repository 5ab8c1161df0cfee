"""Writes the files that other tools start branches from, and logs the command that starts them."""

import logging
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from merit_jax.launch.launchers.interface import Exit, Job, JobContext
from merit_jax.launch.launchers.templates import render
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import absolute

log = logging.getLogger("merit_jax")


class SkyPilot(NamedTuple):
    """Managed jobs of SkyPilot, on the cheapest spot machines of any cloud.

    Attributes:
        accelerators: As SkyPilot names them.
        infra: Cloud and region, as "gcp/us-central1"; "": anywhere.
        spot: Spot machines.
        restarts: Restarts after a crash; lost machines do not count.
        setup: Shell that installs the repository.
        python: The interpreter on those machines.
    """

    accelerators: str = "H100:8"
    infra: str = ""
    spot: bool = True
    restarts: int = 3
    setup: str = 'pip install -e ".[cuda12]"'
    python: str = "python"


class JobSet(NamedTuple):
    """TPU slices of a GKE cluster, through Kubernetes' JobSet.

    Attributes:
        image: Container with the repository in `folder`.
        folder: The repository in the container.
        accelerator: Value of the node label gke-tpu-accelerator.
        topology: Of a slice; `--hosts` must be its number of machines.
        chips: TPU chips of one machine.
        spot: Spot nodes.
        restarts: Restarts of a branch for any reason.
        grace: Seconds that a preempted branch has to save.
        service_account: Kubernetes service account that may read and write the workdir; "": the default one.
        python: The interpreter in the container.
    """

    image: str = ""
    folder: str = "/merit"
    accelerator: str = "tpu-v5-lite-podslice"
    topology: str = "4x4"
    chips: int = 4
    spot: bool = True
    restarts: int = 100
    grace: int = 60
    service_account: str = ""
    python: str = "python"


class Xpk(NamedTuple):
    """TPU slices of a GKE cluster, through xpk.

    Attributes:
        cluster: Name of the cluster.
        tpu_type: As xpk names it.
        image: Container whose working directory is the repository.
        spot: Spot nodes.
        restarts: Restarts of a branch for any reason.
        python: The interpreter in the container.
    """

    cluster: str = ""
    tpu_type: str = "v5litepod-16"
    image: str = ""
    spot: bool = True
    restarts: int = 100
    python: str = "python"


class Gcloud(NamedTuple):
    """Existing TPU VM slices, over ssh.

    Attributes:
        prefix: The slice of branch k is called PREFIX-k.
        zone: Their zone.
        project: Their project; "": gcloud's own.
        folder: The repository on every machine.
        restarts: Restarts of a branch for any reason: gcloud does not pass on how the command ended.
        python: The interpreter on those machines.
    """

    prefix: str = "merit"
    zone: str = ""
    project: str = ""
    folder: str = "merit"
    restarts: int = 20
    python: str = "python3"


FILES = {
    SkyPilot: (("skypilot.yaml", "skypilot.sh"), "bash {}/skypilot.sh", ()),
    JobSet: (("jobset.yaml",), "kubectl apply -f {}/jobset.yaml", ("image",)),
    Xpk: (("xpk.sh",), "bash {}/xpk.sh", ("cluster", "image")),
    Gcloud: (("gcloud.sh",), "bash {}/gcloud.sh", ("zone",)),
}
"""Options of a launcher -> its files, the command that starts them, and options that have no default."""


class Rendered:
    """A launcher that writes files for another tool, which starts the branches and restarts them."""

    slots: int | None = None
    detached = True

    def __init__(self, options: Any, context: JobContext) -> None:
        self._options, self._context = options, context
        self._names, self._command, required = FILES[type(options)]
        self._given: set[int] = set()
        for key in required:
            if not getattr(options, key):
                raise ValueError(
                    f"--option={key}=... is missing; docs/guides/clusters/index.md says what each launcher needs"
                )

    def start(self, jobs: Sequence[Job]) -> None:
        """Writes the files for these branches."""
        if not jobs:
            return
        for name in self._names:
            write_text(absolute(self._context.files / name), file_of(name, jobs, self._options, self._context))
        self._given |= {job.branch for job in jobs}
        log.info("to start the branches: %s", self._command.format(shlex.quote(str(self._context.files))))

    def active(self) -> set[int]:
        """Returns the branches that have been written; the workdir shows what becomes of them."""
        return set(self._given)

    def ended(self) -> list[Exit]:
        """Returns nothing: this launcher does not see its jobs."""
        return []

    def stop(self) -> None:
        """Leaves the branches to their tool."""


def file_of(name: str, jobs: Sequence[Job], options: Any, context: JobContext) -> str:
    """Returns the text of a file."""
    words = [options.python, *(word for word in jobs[0].words if not word.startswith("--branch="))]
    return render(
        name,
        name=context.name,
        hosts=jobs[0].hosts,
        branches=[job.branch for job in jobs],
        options=options,
        words=words,
        command=shlex.join(words),
        yaml=str(context.files / "skypilot.yaml"),
    )
