"""Reads from a partition how many tokens each of its branches trains on."""

from collections.abc import Sequence

from etils import epath

from merit_jax.partition import Partition
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir, absolute


def tokens_of_models(where: epath.PathLike, models: Sequence[str], weights: Sequence[str] | None) -> tuple[int, ...]:
    """Returns the supervised tokens of the branch that each model is of.

    Args:
        where: `--partition`: a run's workdir, or the file.
        models: `--models`, in the order of the branches.
        weights: `--weights`, which exclude it.

    Raises:
        ValueError: Weights are given too, there is no partition, it is damaged, or it has another number of branches.
    """
    if weights is not None:
        raise ValueError("--weights and --partition both weigh the models; leave one of them out")
    path = partition_file(where)
    tokens = read_partition(path).tokens
    if len(tokens) != len(models):
        raise ValueError(
            f"--models has {len(models)} folders, and {path} has {len(tokens)} branches; name one folder for each, in the order "
            "of the branches"
        )
    return tokens


def partition_file(where: epath.PathLike) -> epath.Path:
    """Returns the file of `--partition`, a workdir or the file itself.

    Raises:
        ValueError: There is none.
    """
    given = absolute(where)
    path = Workdir(given, given).partition if given.is_dir() or given.suffix != ".json" else given
    if not path.exists():
        raise ValueError(
            f"--partition={where}: {path} is missing; name the workdir of a run that has split its mixture (merit partition)"
        )
    return path


def read_partition(path: epath.Path) -> Partition:
    """Reads a partition, whatever it was made from.

    Raises:
        ValueError: It is damaged, or none.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} is no partition; name the workdir of a run that has split its mixture")
    return Partition.from_dict(data, str(path))
