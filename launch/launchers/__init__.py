"""Ways to start branches: each is one file here, with an entry in `LAUNCHERS`."""

from collections.abc import Sequence

from merit_jax.core.registry import lookup
from merit_jax.launch.launchers import local, ray_cluster, rendered, slurm
from merit_jax.launch.launchers.interface import JobContext, Launcher, LauncherKind
from merit_jax.launch.launchers.options import parse

LAUNCHERS: dict[str, LauncherKind] = {
    "local": LauncherKind(local.Options, local.Local),
    "ray": LauncherKind(ray_cluster.Options, ray_cluster.RayTasks),
    "slurm": LauncherKind(slurm.Options, slurm.Slurm),
    "skypilot": LauncherKind(rendered.SkyPilot, rendered.Rendered),
    "jobset": LauncherKind(rendered.JobSet, rendered.Rendered),
    "xpk": LauncherKind(rendered.Xpk, rendered.Rendered),
    "gcloud": LauncherKind(rendered.Gcloud, rendered.Rendered),
}
"""Name of a launcher -> its options and its class."""


def open_launcher(name: str, given: Sequence[str], context: JobContext) -> Launcher:
    """Returns a launcher by name.

    Args:
        name: A key of `LAUNCHERS`.
        given: Its options, each as "KEY=VALUE".
        context: Names and folders that the jobs have in common.

    Raises:
        ValueError: There is no such launcher or option, or an option has a wrong value.
    """
    kind = lookup(LAUNCHERS, name, "launcher")
    return kind.open(parse(kind.options, given, name), context)
