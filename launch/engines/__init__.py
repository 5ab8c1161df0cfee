"""Ways to start branches: each is one file here, with an entry in `ENGINES`."""

from collections.abc import Sequence

from launch.engines import local, ray_tasks, rendered, slurm
from launch.engines.job import Engine, Kind, Site
from launch.engines.options import parse
from merit_jax.registry import lookup

ENGINES: dict[str, Kind] = {
    "local": Kind(local.Options, local.Local),
    "ray": Kind(ray_tasks.Options, ray_tasks.RayTasks),
    "slurm": Kind(slurm.Options, slurm.Slurm),
    "skypilot": Kind(rendered.SkyPilot, rendered.Rendered),
    "jobset": Kind(rendered.JobSet, rendered.Rendered),
    "xpk": Kind(rendered.Xpk, rendered.Rendered),
    "gcloud": Kind(rendered.Gcloud, rendered.Rendered),
}
"""Name of an engine -> its options and how it is opened."""


def open_engine(name: str, given: Sequence[str], site: Site) -> Engine:
    """An engine by name.

    Args:
        name: A key of `ENGINES`.
        given: Its options, each as "KEY=VALUE".
        site: What the jobs have in common.

    Raises:
        ValueError: There is no such engine or option, or it cannot do what is asked.
    """
    kind = lookup(ENGINES, name, "engine")
    return kind.open(parse(kind.options, given, name), site)
