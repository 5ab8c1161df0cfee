"""Reads the config saved in a workdir, for commands that read runs."""

from collections.abc import Mapping
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from merit_jax.configs import common
from merit_jax.configs.schema.check import check
from merit_jax.launch.console import app
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir, absolute
from merit_jax.workdir.version import refuse_older

DEFAULT = common.__file__
"""For `app.start`: `--config` may be left out, and `--config.KEY=VALUE` then changes a key of the saved config."""


def config(workdir: epath.PathLike) -> ConfigDict:
    """Returns the config of `--config`, or else the one saved in the workdir with the overrides given.

    Raises:
        ValueError: None is saved, or one with keys that configs/common.py does not have.
    """
    given = flags.FLAGS["config"]
    if config_flags.get_config_filename(given) != DEFAULT:
        return app.config()
    return read(workdir, config_flags.get_override_values(given))


def read(workdir: epath.PathLike, changes: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns the config saved in a workdir; keys that it lacks have their defaults.

    Args:
        workdir: The run's directory.
        changes: Key, as "diagnostics.points", -> value.

    Raises:
        ValueError: There is none, one of an earlier version, or one with unknown keys or values of another type or range.
    """
    root = absolute(workdir)
    home = Workdir(root, root)
    path = home.config
    if not path.exists():
        raise ValueError(f"{path} is missing: {root} is not the workdir of a run; correct --workdir, or give --config")
    refuse_older(home)
    config = common.get_config()
    try:
        config.update(read_json(path))
        config.update_from_flattened_dict(changes or {})
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error.args[0]}; give the run's --config") from None
    return check(config)
